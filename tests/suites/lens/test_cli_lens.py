"""``wheeltap lens`` as a user would type it: the answer from files of recorded answers."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from logs import lines

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.report import jsonfile
from wheeltap.suites.lens.runs import EXAMPLE


def log(path: Path, right: str) -> str:
    """One answer to each item, right where there is a 1."""
    return str(lines(path, [{"id": f"item {at}", "correct": one == "1"} for at, one in enumerate(right)]))


def test_the_example_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lens", "--example", "--json", "-"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {one["subject"] for one in report["findings"]} == {"people", "small", "large", "small vs large"}
    assert {one["code"] for one in report["findings"]} == {"WT001", "WT501"}
    assert main(["lens", "--example", "x.jsonl"]) == 2
    assert EXAMPLE.is_file() and len(EXAMPLE.read_text().splitlines()) == 40


def test_python_reads_the_same(tmp_path: Path) -> None:
    files = [log(tmp_path / "a.jsonl", "1101" * 9), log(tmp_path / "b.jsonl", "0110" * 9)]
    main(["lens", *files, "--json", str(tmp_path / "r.json"), "--quiet"])
    report = wt.lens.read(*files, store=tmp_path / "s.wheeltap")
    assert report.findings == wt.Report.read(tmp_path / "r.json").findings
    assert wt.judge(tmp_path / "s.wheeltap").findings == report.findings
    with pytest.raises(wt.errors.MissingFile):
        wt.lens.read(tmp_path / "none.jsonl")


def test_json_alone_and_the_answer_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log(tmp_path / "a.jsonl", "1101")
    assert main(["lens", path, "--json", "-"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, jsonfile.schema())
    assert "1 system, 4 items" in report["provenance"]["recorded"]
    assert main(["lens", path, "--quiet"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"id": 1, "correct": true}\n{"id": 2, "corr', "line 2"),
        ('{"id": 1, "c": 9, "n": 8}\n', "c 9, n 8"),
        ('{"id": 1, "answer": "4"}\n', "nothing to judge"),
    ],
)
def test_nothing_is_imported_half(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str) -> None:
    path, store = tmp_path / "a.jsonl", tmp_path / "x.wheeltap"
    path.write_text(content)
    assert main(["lens", str(path), "--store", str(store)]) == 2
    assert says in capsys.readouterr().err
    assert not store.exists()


def crowd(path: Path, *votes: int, **more: Any) -> str:
    """So many votes on each item."""
    return str(lines(path, [{"id": f"item {at}", "votes": {"a": one, "b": 1}, **more} for at, one in enumerate(votes)]))


def test_what_cannot_be_judged_is_an_error_that_names_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, others = log(tmp_path / "a.jsonl", "1101"), log(tmp_path / "b.jsonl", "1100")
    for files, said in (
        ([], "lens FILE"), ([answers, "--votes", others], "There are no votes in this file"),
        ([answers, "--votes", others], "b.jsonl"), ([crowd(tmp_path / "single.jsonl", 3)], "single.jsonl"),
    ):  # fmt: skip
        assert main(["lens", *files]) == 2
        assert said in capsys.readouterr().err
