"""Reports read back: what was edited in part is refused, and whoever prints one reads that it is as reported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError

Fields = dict[str, Any]


def row(report: Fields, scheme: str) -> Fields:
    return next(finding for finding in report["findings"] if finding["scheme"] == scheme)


EDITS: dict[str, Callable[[Fields], object]] = {
    "status": lambda held: row(held, "int2").update(status="excluded", verdict="safe"),
    "answer": lambda held: held.update(headline=held["headline"].replace("COSTS WHEN SHIPPED", "SAFE AT ALL SCHEMES")),
    "verdict": lambda held: row(held, "int2").update(verdict="safe"),
    "undecided": lambda held: row(held, "int2").update(status="inconclusive", verdict="cannot tell"),
    "cost": lambda held: row(held, "int8").update(status="found", verdict="costs"),
    "no such word": lambda held: row(held, "int2").update(verdict="fine"),
    "a row less": lambda held: held["findings"].remove(row(held, "int2")),
    "a control": lambda held: held["controls"][0].update(status="failed"),
    "void": lambda held: held.update(void=True),
    "level": lambda held: held["provenance"].update(alpha=0.4),
}


def test_a_report_that_was_edited_in_part_is_refused(
    real: wt.Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    for what, edit in EDITS.items():
        held = json.loads(real.json(path).read_bytes())
        edit(held)
        path.write_text(json.dumps(held))
        with pytest.raises(FileFormatError, match="contradicts itself"):
            pytest.fail(f"{what}: {wt.Report.read(path)}")
    assert main(["report", str(path)]) == 2
    assert "contradicts itself" in capsys.readouterr().err


def test_a_report_about_no_model_is_refused(real: wt.Report, tmp_path: Path) -> None:
    held = json.loads(real.json(tmp_path / "report.json").read_bytes()) | {"subjects": []}
    (tmp_path / "report.json").write_text(json.dumps(held))
    with pytest.raises(FileFormatError, match=r"about no model(.|\n)*got: subjects: \[\]"):
        wt.Report.read(tmp_path / "report.json")


def test_an_unusual_level_is_in_the_first_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Linear(2, 2).eval()
    nn.init.zeros_(net.weight)  # always one class, whatever was drawn before
    report = wt.audit(net, (torch.randn(600, 2), torch.arange(600) % 2), audits="score", alpha=0.4)
    assert report.headline.splitlines()[1].startswith("Level 0.4: a false alarm in up to 40 % of such reports")
    assert main(["report", str(report.json(tmp_path / "report.json"))]) == 1  # at chance
    assert "Level 0.4" in capsys.readouterr().out


def test_the_answer_of_another_version_is_made_again(real: wt.Report, tmp_path: Path) -> None:
    held = json.loads(real.json(tmp_path / "report.json").read_bytes())
    held["headline"], held["provenance"]["wheeltap"] = "All is well.", "0.0.1"
    (tmp_path / "report.json").write_text(json.dumps(held))
    assert wt.Report.read(tmp_path / "report.json").headline == real.headline


def test_what_prints_a_report_says_that_it_is_as_reported(
    real: wt.Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = real.json(tmp_path / "report.json")
    found = wt.Report.read(path)
    assert (found.findings, found.headline, found.passed) == (real.findings, real.headline, False)
    assert main(["report", str(path)]) == 1  # as the audit
    assert "not measured again." in " ".join(capsys.readouterr().out.split())
    assert "not measured again." in found.markdown() and "not measured again." not in real.markdown()
    assert main(["report", str(path), "--html", str(tmp_path / "page.html"), "--fail-on", "never"]) == 0
    assert "not measured again." in (tmp_path / "page.html").read_text()
