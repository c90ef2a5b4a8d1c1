"""Bad input on the command line: a clear message, exit code 2, nothing lost."""

import json
import os
import pickle
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
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
        ("nets:infinite", ("not finite before anything was disturbed", "example 0")),
        ("nets:no_model", ("module",)),
        ("nets:single", ("one score per example", "zeros_like")),
        ("nets:nothing", ("nothing",)),
        ("nets:ends", ("code that makes the model failed", "SystemExit: 3")),
        ("script:net", ("code that makes the model failed", "SystemExit")),
        ("script", ("module alone", "wheeltap audit script:FUNCTION")),
        ("script.py:net", ("without .py", "wheeltap audit script:net")),
        ("data.npz", ("no model", "--data data.npz")),
        (".", ("hf:.",)),
        ("no_such_module:net", ("no_such_module",)),
        ("digitz", ("digits",)),
        ("hf:nowhere", ("nowhere",)),
        ("gguf:nowhere.gguf", ("nowhere.gguf",)),
        ("weights.pt", ("safetensors",)),
    ],
)
def test_a_bad_model(here: Path, capsys: pytest.CaptureFixture[str], model: str, words: tuple[str, ...]) -> None:
    (here / "weights.pt").write_bytes(pickle.dumps({"weight": [1.0]}))
    (here / "script.py").write_text("import sys; sys.exit('usage: script.py FILE')")
    text = complaint(capsys, "audit", model, "--data", "data.npz")
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"inputs": np.zeros((3, 4))}, ("targets",)),
        ({"inputs": np.zeros((3, 4), "f4"), "targets": np.zeros((2,), "i8")}, ("3", "2")),
        ({"inputs": np.zeros((0, 4), "f4"), "targets": np.zeros((0,), "i8")}, ("empty",)),
        ({"inputs": np.zeros((3, 4), "f4"), "targets": np.array([0, 7, 0])}, ("out of range", "example 1", "7")),
        ({"inputs": np.zeros((3, 4), "f4"), "targets": np.array([0, -1, 0])}, ("out of range", "-1")),
        ({"inputs": np.full((3, 4), np.nan, "f4"), "targets": np.zeros((3,), "i8")}, ("finite",)),
        ({"inputs": np.array([{}, {}], dtype=object), "targets": np.zeros((2,), "i8")}, ("object",)),
    ],
)
def test_bad_arrays(
    here: Path, capsys: pytest.CaptureFixture[str], arrays: dict[str, np.ndarray], words: tuple[str, ...]
) -> None:
    np.savez(here / "bad.npz", **arrays)
    text = complaint(capsys, "audit", "nets:sound", "--data", "bad.npz")
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("doctor", "--plant", "digits", "--runs", "2.5"), ("--runs", "expected a whole number, got 2.5")),
        (("audit", "digits", "--sead", "1"), ("--sead", "--seed")),
        (("audti", "digits"), ("audti", "audit")),
        (("audit", "digits", "--audits", "relative-nois"), ("relative-nois", "Did you mean 'relative-noise'?")),
        (("audit", "digits", "--draws", "0"), ("draws",)),
        (("audit", "digits", "--alpha", ".999"), ("alpha", "0.5")),
        (("audit", "digits", "--audits", ","), ("No audit is named", "--audits")),
        (("doctor", "--draws", "4", "--defects", "none"), ("Unknown option", "--draws")),
        (("list", "audits", "--invariances"), ("perturbations --invariances",)),
        (("audit", "digits", "--workers", "0"), ("workers",)),
        (("audit", "digits", "--for", "int4,nf5"), ("no deployment scheme called 'nf5'", "Did you mean 'nf4'?")),
        (("audit", "digits", "--for", ","), ("No deployment scheme is named",)),
        (("doctor", "--json", "counts.json"), ("--json needs a model",)),
        (("audit", "digits", "--margin", "0"), ("margin", "above 0", "got: 0")),
        (("audit", "digits", "--margin", "1.5"), ("margin", "at most 1", "got: 1.5")),
        (("audit", "digits", "--fail-on", "found"), ("fail-on", "costs")),
        (("audit", "digits", "--name", "a,b"), ("--name", "1 name")),
        (("audit", "digits", "--store", "data.npz/x.wheeltap"), ("store cannot be opened", "data.npz")),
        (("audit",), ("model",)),
        (("report", "nowhere.wheeltap"), ("nowhere.wheeltap",)),
        (("report", "nowhere.json"), ("nowhere.json",)),
        (("run", "nowhere.plan.json"), ("nowhere.plan.json", "wheeltap plan")),
        (("list", "audist"), ("audits",)),
        (("audit", "digits", "--draws", "2.5"), ("--draws", "expected a whole number, got 2.5")),
        (("demo", "--draws", "2.5"), ("--draws", "expected a whole number, got 2.5")),
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
        ("draws = 'many'", ("draws", "expected a whole number, got many in settings.toml")),
        ("draw = 4", ("draw", "Did you mean 'draws'?")),
        ("draws = 2.5", ("draws", "expected a whole number, got 2.5 in settings.toml")),
        ("audits = []", ("No audit is named", "settings.toml")),
        ("audits = ['quantization']\n[quantization]\ndoses = [4, 4.5]", ("whole numbers", "4.5")),
        ("audits = ['pruning']\n[pruning]\ntested = 1.5", ("dose", "0 to 1")),
        ("[pruning]\nmargins = 0.1", ("margin",)),
        ("[punning]\nmargin = 0.1", ("punning", "pruning")),
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
    (("--junit", "."), ("cannot be written", "directory")),
    (("--markdown", "data.npz/r.md"), ("cannot be written", "data.npz/r.md")),
    (("--json", "data.npz/r.json"), ("cannot be written", "data.npz/r.json")),
    (("--html", "/proc/page.html"), ("cannot be written", "/proc/page.html")),
    (("--json", f"{'n' * 300}.json"), ("cannot be written", "long")),
    (("--out", "data.npz"), ("folder", "data.npz")),
    (("--out", "full"), ("cannot be written", "report.html")),
    (("--html", "r", "--json", "./r"), ("one path",)),
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
        ("report", "d.wheeltap", "--json", "d.wheeltap"): "replace a database",
        ("plan", "nets:sound", "--data", "data.npz", "-o", "d.wheeltap"): "replace a database",
        ("plan", "no_such_module:net", "-o", "."): "cannot be written",
        ("doctor", "--plant", "no_such_module:net", "--json", "."): "cannot be written",
    }.items():
        assert word in complaint(capsys, *arguments)
    assert ((here / "d.wheeltap").read_bytes(), (here / "r.json").read_bytes()) == kept


def test_a_bad_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = ("audit", "nets:sound", "--data", "data.npz", "--store")
    (here / "corrupt.wheeltap").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    assert "damaged" in complaint(capsys, *audit, "corrupt.wheeltap")
    with closing(sqlite3.connect(here / "foreign.wheeltap")) as foreign:
        foreign.execute("CREATE TABLE t (x)")
    assert "not a wheeltap store" in complaint(capsys, *audit, "foreign.wheeltap")
    # What a second writer reads while another process holds the store.
    code = "from wheeltap.plans.store import Store; s = Store('held.wheeltap'); print('held', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=here) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        text = complaint(capsys, *audit, "held.wheeltap")
        holder.communicate("\n")
    assert "lock" in text


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
    assert "The code that makes the model failed" in complaint(capsys, "run", "p.json", "--allow-code")
    assert (here / "pwned").exists()


def test_a_plan_that_does_not_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SCORE, "-o", "p.json"]) == 0
    plan = json.loads((here / "p.json").read_text())
    (here / "p.json").write_text(json.dumps({**plan, "sources": []}))
    text = complaint(capsys, "run", "p.json")
    assert "how its models are loaded" in text and "wt.run(plan, subjects, task)" in text
    plan["subjects"][0]["fingerprint"] = "0" * 32
    (here / "p.json").write_text(json.dumps(plan))
    assert "made for other subjects" in complaint(capsys, "run", "p.json", "--allow-code")
    (here / "p.json").write_text("{}")
    assert "not a wheeltap plan" in complaint(capsys, "run", "p.json")


def test_a_missing_extra_prints_the_install_line(here: Path) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None; from wheeltap.cli import main\n"
        "sys.exit(main(['audit', 'smollm2']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=False)
    assert done.returncode == 2
    assert 'pip install "wheeltap[llm]"' in done.stderr


def test_a_reader_that_went_away_is_no_verdict() -> None:
    """Help is printed by another library, which would end with 1; reports go the same way."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "wheeltap", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.release
def test_a_process_that_is_ended_leaves_no_temporary_folder(here: Path) -> None:
    for name in "ab":
        rows = "".join(f'{{"id": "{at}", "correct": {str(at % 3 > 0).lower()}}}\n' for at in range(4000))
        (here / f"{name}.jsonl").write_text(rows)
    (here / "temporary").mkdir()
    words = [sys.executable, "-m", "wheeltap", "lens", "a.jsonl", "b.jsonl"]
    environment = {**os.environ, "TMPDIR": str(here / "temporary")}
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while not list((here / "temporary").glob("wheeltap-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert "the same command resumes" in process.communicate()[1]
    assert process.returncode == 128 + 15 and list((here / "temporary").iterdir()) == []
