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

Report = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, wt.Report]:
    """Of a net that survives 8 bits and does not survive 2, in a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4)).eval()
        inputs = torch.randn(400, 6)
    with torch.no_grad():
        targets = net(inputs).argmax(1)
    report = wt.audit(net, (inputs, targets), name="net", schemes="int8,int2", margin=0.03, partial=True)
    assert {"costs", "safe"} <= {finding.verdict for finding in report.findings}
    return report.json(tmp_path_factory.mktemp("follows") / "report.json"), report


def row(report: Report, scheme: str) -> Report:
    return next(finding for finding in report["findings"] if finding["scheme"] == scheme)


def answer(report: Report) -> None:
    report["headline"] = report["headline"].replace("COSTS WHEN SHIPPED", "SAFE AT ALL SCHEMES TRIED")


def verdict(report: Report) -> None:
    row(report, "int2")["verdict"] = "safe"


def status(report: Report) -> None:
    row(report, "int2").update(status="excluded", verdict="safe")


def undecided(report: Report) -> None:
    row(report, "int2").update(status="inconclusive", verdict="cannot tell")


def cost(report: Report) -> None:
    row(report, "int8").update(status="found", verdict="costs")


def unheard_of(report: Report) -> None:
    row(report, "int2")["verdict"] = "fine"


def removed(report: Report) -> None:
    report["findings"].remove(row(report, "int2"))


def failed(report: Report) -> None:
    report["controls"][0]["status"] = "failed"


def level(report: Report) -> None:
    report["provenance"]["alpha"] = 0.4


def void(report: Report) -> None:
    report["void"] = True


@pytest.mark.parametrize("edit", [status, answer, verdict, undecided, cost, unheard_of, removed, failed, void, level])
def test_a_report_that_was_edited_in_part_is_refused(
    edit: Callable[[Report], None], written: tuple[Path, wt.Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = json.loads(written[0].read_bytes())
    edit(held)
    (tmp_path / "report.json").write_text(json.dumps(held))
    with pytest.raises(FileFormatError, match="contradicts itself"):
        wt.Report.read(tmp_path / "report.json")
    assert main(["report", str(tmp_path / "report.json")]) == 2
    assert "contradicts itself" in capsys.readouterr().err


def test_an_unusual_level_is_in_the_first_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = wt.audit(nn.Linear(2, 2).eval(), (torch.randn(60, 2), torch.arange(60) % 2), audits="score", alpha=0.4)
    assert report.headline.splitlines()[1].startswith("Level 0.4: a false alarm in up to 40 % of such reports")
    assert main(["report", str(report.json(tmp_path / "report.json"))]) == 1  # at chance
    assert "Level 0.4" in capsys.readouterr().out


def test_the_answer_of_another_version_is_made_again(written: tuple[Path, wt.Report], tmp_path: Path) -> None:
    held = json.loads(written[0].read_bytes())
    held["headline"], held["provenance"]["wheeltap"] = "All is well.", "0.0.1"
    (tmp_path / "report.json").write_text(json.dumps(held))
    assert wt.Report.read(tmp_path / "report.json").headline == written[1].headline


def test_what_prints_a_report_says_that_it_is_as_reported(
    written: tuple[Path, wt.Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, first = written
    found = wt.Report.read(path)
    assert (found.findings, found.headline, found.passed) == (first.findings, first.headline, False)
    assert main(["report", str(path)]) == 1  # as the audit
    assert "not measured again." in " ".join(capsys.readouterr().out.split())
    assert "not measured again." in found.markdown() and "not measured again." not in first.markdown()
    assert main(["report", str(path), "--html", str(tmp_path / "page.html"), "--fail-on", "never"]) == 0
    assert "not measured again." in (tmp_path / "page.html").read_text()
