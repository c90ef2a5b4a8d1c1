"""Names and files of people who mean harm, at every verb: nothing of theirs acts on the terminal that shows them."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from wheeltap.cli import main

EVIL = "e\x1b]0;PWN\x07\x1b[2J\u202e\x9b5m[bold red]é\r\nwheeltap: passed"
NETS = f"""
import torch
from torch import nn

EVIL = {EVIL!r}


def net():
    torch.manual_seed(0)
    made = nn.Sequential()
    for name, layer in (("one" + EVIL, nn.Linear(4, 8)), ("relu", nn.ReLU()), ("two" + EVIL, nn.Linear(8, 3))):
        made.add_module(name.replace(".", ""), layer)
    return made.eval()


def odd():
    made = net()
    made[2].weight.data[0, 0] = float("nan")
    return made
"""
STUDY = """
question = {evil}
examples = "data.npz"
[cohorts.{evil}]
recipe = "planted{evil}"
"""


def unsafe(text: str) -> list[str]:
    return [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.fixture
def hostile(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a net, answers, a plan, a store, a report and a seal in which all names are hostile."""
    monkeypatch.setenv("COLUMNS", "5000")  # no line begins within a name
    (here / "evil_nets.py").write_text(NETS, encoding="utf-8")
    rows = [
        {"id": f"{at}{EVIL}", "system": f"{system}{EVIL}", "correct": bool((at * 7 + k + system) % 3), "sample": k,
         "group": EVIL}
        for system in (1, 2) for at in range(5) for k in range(2)
    ]  # fmt: skip
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "rules.toml").write_text(STUDY.format(evil=json.dumps(EVIL)))
    (here / f"{EVIL.replace('/', '')}.npz").write_bytes((here / "data.npz").read_bytes())
    audit = ("nets:sound", "--data", f"{EVIL}.npz", "--audits", "score,pruning", "--draws", "2", "--name", EVIL)
    assert main(["plan", *audit, "-o", "p.json", "--budget", "40f"]) == 0
    assert main(["run", "p.json", "--store", "s.wheeltap", "--json", "r.json", "--fail-on", "never"]) in (0, 2)
    return here


VERBS = {
    "lens": "rows.jsonl --full --markdown out.md --junit out.xml --html out.html --fail-on never",
    "lens --json": "rows.jsonl --json - --fail-on never",
    "report store": "s.wheeltap --full --markdown out.md --junit out.xml --html out.html --fail-on never",
    "report code": "r.json WT100",
    "status": "s.wheeltap",
    "report": "r.json --html out.html --json out.json",
    "run": "p.json --store s.wheeltap --fail-on never",
    "seal of nothing": f"evil_nets:odd --data data.npz -o {EVIL}",
    "audit": "evil_nets:odd --data data.npz",
    "compare": f"nets:sound nets:{EVIL}",
    "study": "rules.toml",
    "list": f"audits {EVIL}",
    "study pictures": f"--genome {EVIL}.npz",
    "circuits find": f"artifact:{EVIL} --task quote",
    "seal on a full disk": "nets:sound --data data.npz -o /dev/full --inputs 2 --quiet",
    EVIL: EVIL,
}
SLOWER = {
    "seal": "evil_nets:net --data data.npz -o m.seal --inputs 2",
    "verify": "evil_nets:net m.seal",
    "verify --json": "nets:sound m.seal --json -",
    "doctor": "evil_nets:net --data data.npz",
    "doctor --json": "evil_nets:net --data data.npz --json -",
}


@pytest.mark.parametrize("verbs", [VERBS, pytest.param(SLOWER, marks=pytest.mark.release)])
def test_every_verb_with_hostile_names(hostile: Path, capfd: pytest.CaptureFixture[str], verbs: dict[str, str]) -> None:
    capfd.readouterr()
    for verb, rest in verbs.items():
        name = [EVIL] if verb == EVIL else [word for word in verb.split() if word in _VERBS]
        assert main([*name, *rest.split(" ")]) in (0, 1, 2), verb
        printed = capfd.readouterr()
        assert not unsafe(printed.out + printed.err), (verb, printed)
        assert "Traceback" not in printed.err, (verb, printed.err)
        assert not re.search(r"^wheeltap: passed", printed.out + printed.err, re.MULTILINE), (
            verb,
            print(printed.out, printed.err),
        )
        for file in hostile.glob("out.*"):
            assert not unsafe(file.read_text("utf-8").replace("\t", "")), (verb, file)


_VERBS = {"lens", "status", "report", "run", "verify", "seal", "audit", "compare", "doctor", "study",
          "list", "circuits", "find", "pictures"}  # fmt: skip


def test_a_character_set_without_the_name_and_an_output_that_is_full(tmp_path: Path) -> None:
    plain = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "wheeltap"]
    done = subprocess.run([*command, "report", "é.json"], capture_output=True, env=plain, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stderr.isascii()
    assert b"PYTHONUTF8=1" in done.stderr and b"Traceback" not in done.stderr
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*command, "--version"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2 and b"disk is full" in done.stderr and b"Exception ignored" not in done.stderr
