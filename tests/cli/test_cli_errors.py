"""Bad input on the command line: a clear message, exit code 2, nothing lost."""

import json
import os
import pickle
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from wheeltap.cli import main


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints to standard error; it must end with exit code 2."""
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nets:training", ("training mode", "model.eval()")),
        ("nets:random", ("not deterministic", "dropout")),
        ("nets:poisoned", ("not finite", "one.weight", "1 NaN")),
        ("nets:ends", ("nets:ends", "SystemExit: 3")),
        ("hf:nowhere", ("nowhere",)),
        ("weights.pt", ("safetensors",)),
    ],
)
def test_a_bad_model(here: Path, capsys: pytest.CaptureFixture[str], model: str, words: tuple[str, ...]) -> None:
    (here / "weights.pt").write_bytes(pickle.dumps({"weight": [1.0]}))
    text = complaint(capsys, "audit", model, "--data", "data.npz")
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("audit", "digits", "--sead", "1"), ("--sead", "--seed")),
        (("audti", "digits"), ("audti", "audit")),
        (("audit", "digits", "--alpha", ".999"), ("alpha", "0.5")),
        (("audit", "digits", "--margin", "0"), ("margin", "above 0", "got: 0")),
        (("audit", "digits", "--store", "data.npz/x.wheeltap"), ("store cannot be opened", "data.npz")),
        (("report", "nowhere.json"), ("nowhere.json",)),
        (("run", "nowhere.plan.json"), ("nowhere.plan.json", "wheeltap plan")),
        (("audit", "digits", "--draws", "2.5"), ("--draws", "expected a whole number, got 2.5")),
    ],
)
def test_bad_usage(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    text = complaint(capsys, *arguments)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("audits = ['quantization']\n[quantization]\ndoses = [4, 1]", ("dose", "2 to 16", "1")),
        ("draws = 2.5", ("draws", "expected a whole number, got 2.5 in settings.toml")),
        ("[pruning]\nmargins = 0.1", ("margin",)),
        ("not toml", ("settings file", "TOML")),
        ("audits = ['fine-tuning']\n[fine-tuning]\ngroup = 77", ("no behavior 77", "fine-tuning: group")),
    ],
)
def test_a_bad_settings_file(here: Path, capsys: pytest.CaptureFixture[str], toml: str, words: tuple[str, ...]) -> None:
    (here / "settings.toml").write_text(toml)
    text = complaint(capsys, "audit", "nets:sound", "--data", "data.npz", "--config", "settings.toml")
    assert all(word in text for word in words), text


UNWRITABLE: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("--html", "."), ("cannot be written", "directory")),
    (("--json", "data.npz/r.json"), ("cannot be written", "data.npz/r.json")),
    (("--out", "data.npz"), ("folder", "data.npz")),
    (("--out", "full"), ("cannot be written", "report.html")),
    (("--store", "nets-sound.wheeltap", "--json", "nets-sound.wheeltap"), ("one path", "--store")),
    (("--html", "other.db"), ("replace a database", "other.db")),
]
SCORE = ("nets:sound", "--data", "data.npz", "--audits", "score")


def test_a_report_that_cannot_be_written_is_said_before_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "full" / "report.html").mkdir(parents=True)
    with closing(sqlite3.connect(here / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    kept = (here / "other.db").read_bytes()
    for flags, words in UNWRITABLE:
        text = complaint(capsys, "audit", *SCORE, *flags)
        assert all(word in text for word in words), text
    assert not list(here.rglob("*.tmp")) and (here / "other.db").read_bytes() == kept
    assert sorted(path.name for path in here.iterdir()) == ["data.npz", "full", "other.db"]


def test_no_file_of_a_run_is_replaced_by_another_and_folders_are_made(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = ["audit", *SCORE, "--store", "d.wheeltap", "--fail-on", "never"]  # it is at chance
    assert main([*audit, "--json", "r.json", "--html", "new/deep/page.html"]) == 0
    assert (here / "new" / "deep" / "page.html").is_file()
    kept = (here / "d.wheeltap").read_bytes(), (here / "r.json").read_bytes()
    for arguments, word in {
        ("report", "d.wheeltap", "--html", "d.wheeltap"): "replace a database",
        ("report", "r.json", "--html", "r.json"): "one path",
        ("plan", "nets:sound", "--data", "data.npz", "-o", "d.wheeltap"): "replace a database",
    }.items():
        assert word in complaint(capsys, *arguments)
    assert ((here / "d.wheeltap").read_bytes(), (here / "r.json").read_bytes()) == kept


def test_code_that_a_file_names_is_run_only_where_that_is_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "evil.py").write_text("open('pwned', 'w').close()\nraise SystemExit(0)\n")
    assert main(["plan", "digits", "--audits", "score", "-o", "p.json"]) == 0
    plan = json.loads((here / "p.json").read_text())
    for changed in ({"sources": ["evil:net"]}, {"data": f"lm_eval:task,include={here}"}):
        (here / "p.json").write_text(json.dumps({**plan, **changed}))
        text = complaint(capsys, "run", "p.json")
        assert ("evil:net" in text or "lm_eval:task" in text) and "--allow-code" in text
    (here / "evil.toml").write_text(
        'question = "?"\nexamples = "EXAMPLES"\n[cohorts.a]\nmembers = ["MEMBER"]\n[metrics.m]\naudit = "score"\n'
        '[[rules]]\nmetric = "m"\ncohorts = ["a"]\nstatistic = "mean"\nmargin = 0.1\n'
    )
    declared = (here / "evil.toml").read_text()
    for examples, member in (("digits", "evil:net"), ("hf:evil", "digits"), ("evil:task", "digits")):
        (here / "evil.toml").write_text(declared.replace("EXAMPLES", examples).replace("MEMBER", member))
        text = complaint(capsys, "study", "evil.toml")
        assert (member if examples == "digits" else examples) in text and "--allow-code" in text
    (here / "run.toml").write_text(f'task = "lm_eval:task,include={here}"\n')
    assert "--include-path" in complaint(capsys, "audit", "digits", "--config", "run.toml")
    assert not (here / "pwned").exists()
    (here / "p.json").write_text(json.dumps({**plan, "sources": ["evil:net"]}))
    assert "failed" in complaint(capsys, "run", "p.json", "--allow-code")
    assert (here / "pwned").exists()


def test_a_plan_that_does_not_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SCORE, "-o", "p.json"]) == 0
    plan = json.loads((here / "p.json").read_text())
    (here / "p.json").write_text(json.dumps({**plan, "sources": []}))
    complaint(capsys, "run", "p.json")
    plan["subjects"][0]["fingerprint"] = "0" * 32
    (here / "p.json").write_text(json.dumps(plan))
    assert "made for other subjects" in complaint(capsys, "run", "p.json", "--allow-code")
    (here / "p.json").write_text("{}")
    assert "not a wheeltap plan" in complaint(capsys, "run", "p.json")


def test_a_reader_that_went_away_is_no_verdict() -> None:
    """Help is printed by another library, which would end with 1; reports go the same way."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "wheeltap", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
