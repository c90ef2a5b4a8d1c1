"""Every verb, as a user would type it."""

import json
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from wheeltap.cli import main
from wheeltap.cli.execution import planned
from wheeltap.cli.options import RequestFlags
from wheeltap.core.errors import WheeltapError
from wheeltap.plans.store import Store
from wheeltap.report import jsonfile
from wheeltap.runs import loop


def report(path: Path) -> dict[str, Any]:
    """The report in a file, checked against the schema."""
    data = json.loads(path.read_text())
    jsonschema.validate(data, jsonfile.schema())
    return data


def found(data: dict[str, Any], name: str, subject: str) -> dict[str, Any]:
    """The one finding with this code, or on this way of shipping, and this subject."""
    (finding,) = [f for f in data["findings"] if name in (f["code"], f["scheme"]) and f["subject"] == subject]
    return finding


def test_a_profile_says_where_the_time_went(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    assert main(["audit", "digits", "--audits", "score", "--profile"]) == 0
    wall = time.perf_counter() - began
    said = capsys.readouterr().err
    rows = dict(re.findall(r"^(\S.*?)  +(-?[\d.]+) +[\d.]+ +\d+$", said, flags=re.M))
    assert {"passes over the examples", "fingerprints", "loading", "everything else"} <= rows.keys()
    spent = {name: float(seconds) for name, seconds in rows.items()}
    assert abs(2 * spent["all"] - sum(spent.values())) < 0.1 * len(spent), "each second counts once"
    assert spent["all"] > wall - 0.5, "it counts from the start of the process"


def test_plan_run_status_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", "digits", "--audits", "score,relative-noise,quantization", "--draws", "4", "-o", "d.plan.json"]
    assert main(plan) == 0
    assert "at most" in capsys.readouterr().out
    assert main(["run", "d.plan.json", "--store", "d.wheeltap", "--json", "run.json", "--fail-on", "never"]) == 0
    for named in (["d.wheeltap"], []):
        assert main(["status", *named]) == 0
        assert "complete" in capsys.readouterr().out
    (here / "e.wheeltap").touch()
    assert main(["status"]) == 2
    assert "got: d.wheeltap, e.wheeltap" in capsys.readouterr().err
    assert main(["report", "d.wheeltap", "--json", "judge.json", "--fail-on", "never"]) == 0
    ran, judged = report(here / "run.json"), report(here / "judge.json")
    assert ran["findings"] == judged["findings"] and ran["controls"] == judged["controls"]
    assert main(["report", "d.wheeltap", "--html", "d.html", "--fail-on", "never"]) == 0
    assert (here / "d.html").read_text().startswith("<!doctype html>")
    capsys.readouterr()
    assert main(["report", "run.json", "wt103"]) == 0
    shown = capsys.readouterr().out
    assert "WT103 digits" in shown and "4 bits per channel" in shown
    assert main(["report", "d.wheeltap"]) == 0


def test_an_unfinished_run_says_what_is_missing_and_how_to_go_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = ["audit", "digits", "--audits", "score,relative-noise", "--draws", "6", "--store", "d.wheeltap"]
    plan, subjects, task = planned(("digits",), RequestFlags(audits="score,relative-noise", draws=6))

    def stop(state: loop.Progress) -> None:
        if state.done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(plan, subjects, task, store="d.wheeltap", watch=stop, again=shlex.join(("wheeltap", *audit)))
    assert main(["status", "d.wheeltap"]) == 0
    left = re.search(rf"(\d+) trials to go.*: resume with: wheeltap {' '.join(audit)}$", capsys.readouterr().out, re.M)
    assert left is not None
    assert main(["report", "d.wheeltap", "--out", "out"]) == 2
    words = f"Unfinished: at least {left[1]} trials have not run"
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith(words) and f"same command again (wheeltap {' '.join(audit)})" in told
    data = report(here / "out" / "report.json")
    assert data["headline"].startswith(words) and data["provenance"]["missing_trials"] == int(left[1])
    assert words in (here / "out" / "report.html").read_text()
    assert main(["report", "d.wheeltap"]) == 2
    assert words in capsys.readouterr().out
    assert main(["report", "out/report.json"]) == 0
    assert words in " ".join(capsys.readouterr().out.split())
    assert main(audit) == main(["report", "d.wheeltap", "--json", "whole.json"]) == 0
    assert "Unfinished" not in capsys.readouterr().out
    assert "missing_trials" not in report(here / "whole.json")["provenance"]


@pytest.mark.release
def test_status_prints_the_very_command_that_resumes_a_run_that_was_killed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of its flags: with any other, another plan would be run into the store beside the first."""
    flags = ["--audits", "score,relative-noise,bit-flips", "--draws", "60", "--margin", ".03", "--seed", "3"]
    audit = ["audit", "digits", *flags, "--name", "my net", "--store", "kept/in here.wheeltap", "--fail-on", "never"]
    store = here / "kept" / "in here.wheeltap"
    with subprocess.Popen([sys.executable, "-m", "wheeltap", *audit], stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and run.poll() is None and not _some(store):
            time.sleep(0.05)
        run.kill()
    assert main(["status", str(store)]) == 0
    (command,) = re.findall(r"resume with: (.*)", capsys.readouterr().out)
    assert shlex.split(command) == ["wheeltap", *audit]
    assert main(shlex.split(command)[1:]) == 0
    capsys.readouterr()
    assert main(["status", str(store)]) == 0
    said = capsys.readouterr().out
    assert "complete" in said and "plan 1 of" not in said, said


def _some(store: Path) -> bool:
    """Whether some outcomes are in a store that is being written to."""
    with suppress(WheeltapError), Store(store, readonly=True) as kept:
        return sum(kept.count().values()) > 5
    return False


def test_compare_and_exit_codes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = ["audit", "nets:sound", "--data", "data.npz", "--draws", "2", "--out", "out"]
    code = main(audit)
    data = report(here / "out" / "report.json")
    assert (here / "out" / "report.html").is_file() and (here / "nets-sound.wheeltap").is_file()
    # An untrained net on random labels is at chance: nothing to lose, and that is no pass.
    assert found(data, "WT105", "nets:sound")["status"] == "not_applicable"
    assert data["headline"].startswith("AT CHANCE")
    assert code == 1 and "exit code 1: WT001 nets:sound: at chance" in capsys.readouterr().err
    pair = ["compare", "digits", "digits", "--draws", "4", "--json", "pair.json", "--store", "pair.wheeltap"]
    pair += ["--audits", "score,relative-noise"]
    assert main(pair) == 0
    pair_data = report(here / "pair.json")
    assert found(pair_data, "WT101", "digits vs digits-2")["status"] == "excluded"
    fragile = ["audit", "digits", "--audits", "quantization,quantization", "--config", "two.toml"]
    (here / "two.toml").write_text("[quantization]\ndoses = [8, 2]\ntested = 2\n")
    assert main([*fragile, "--json", "q.json"]) == 1
    assert main([*fragile, "--fail-on", "never"]) == 0
    assert [f["code"] for f in report(here / "q.json")["findings"]] == ["WT103", "WT002"]  # named twice, run once


def test_names_in_a_settings_file_are_a_list_or_a_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []
    for factors in ('["even", "much_ink"]', '"even,much_ink"'):
        (here / "two.toml").write_text(f'audits = ["decodable"]\n[decodable]\nfactors = {factors}\nlayers = ["0"]\n')
        assert main(["plan", "digits", "--config", "two.toml", "-o", "p.json"]) == 0
        made.append((here / "p.json").read_text())
    assert made[0] == made[1]
    assert main(["run", "p.json", "--json", "r.json"]) == 0
    titles = [finding["title"] for finding in report(here / "r.json")["findings"]]
    assert titles == ["Decodable but unused: even", "Decodable but unused: much_ink", "Weight census"]
    capsys.readouterr()
    for factors, words in (('["even", "odd"]', "'odd'"), ("[]", "got: []"), ('["even", 3]', "got: ['even', 3]")):
        (here / "two.toml").write_text(f"audits = ['decodable']\n[decodable]\nfactors = {factors}\n")
        assert main(["plan", "digits", "--config", "two.toml"]) == 2
        assert words in capsys.readouterr().err


def test_a_finding_in_full_fits_a_terminal_and_cannot_repaint_it(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["audit", "digits", "--audits", "single-point", "--json", "r.json"]) == 0
    data = report(here / "r.json")
    (found,) = (one for one in data["findings"] if one["code"] == "WT105")
    found["because"] += " \x1b[2J and more"
    (here / "r.json").write_text(json.dumps(data))
    capsys.readouterr()
    assert main(["report", "r.json", "wt105"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80 and "\x1b" not in shown
    assert "and more" in " ".join(shown.split()) and "trials: 27" in shown


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("relative-noise", "function", "accuracy", "smollm2"))


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "ok      a small audit whose controls must pass" in capsys.readouterr().out


def test_importing_the_package_and_its_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, wheeltap as wt; heavy = {'torch', 'altair', 'sklearn', 'transformers', 'scipy', 'ray'}\n"
        "assert all(one.__all__ for one in (wt.circuits, wt.lens, wt.seal)) and not heavy & set(sys.modules)\n"
        "from wheeltap.cli import main; main(['--help'])\n"
        "assert not heavy & set(sys.modules)\n"
        "import wheeltap.report; assert not {'torch', 'altair', 'vl_convert', 'jinja2'} & set(sys.modules)\n"
        "wt.Subject; assert not {'altair', 'sklearn', 'transformers', 'ray'} & set(sys.modules)\n"
        "print(sorted(set(wt.__all__) - set(dir(wt))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]") and "wheeltap demo" in done.stdout
