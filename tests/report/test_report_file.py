"""Reports loaded from JSON files: shown as they are, and never the basis of a gate."""

import json
from pathlib import Path

import pytest

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError, UsageError


def test_a_report_about_no_model_is_refused(real: wt.Report, tmp_path: Path) -> None:
    fields = json.loads(real.json(tmp_path / "report.json").read_bytes()) | {"subjects": []}
    (tmp_path / "report.json").write_text(json.dumps(fields))
    with pytest.raises(FileFormatError) as caught:
        wt.Report.read(tmp_path / "report.json")
    assert "subjects: []" in str(caught.value)


def test_a_report_file_is_shown_and_decides_nothing(
    real: wt.Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = real.json(tmp_path / "report.json")
    loaded = wt.Report.read(path)
    assert (loaded.findings, loaded.headline, real.passed) == (real.findings, real.headline, False)
    assert main(["report", str(path)]) == 0, "the audit itself fails"
    assert "decides nothing" in " ".join(capsys.readouterr().out.split())
    assert "decides nothing" in loaded.markdown() and "decides nothing" not in real.markdown()
    assert "passed" in real.scalars() and "passed" not in loaded.scalars()


@pytest.mark.parametrize("flags", [("--fail-on", "costs"), ("--junit", "j.xml")])
def test_flags_that_gate_are_refused_for_a_file(
    flags: tuple[str, ...], real: wt.Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = real.json(tmp_path / "report.json")
    assert main(["report", str(path), *flags]) == 2
    assert flags[0] in capsys.readouterr().err and not Path("j.xml").exists()


def test_a_loaded_report_raises_where_a_gate_would_read_it(real: wt.Report, tmp_path: Path) -> None:
    loaded = wt.Report.read(real.json(tmp_path / "report.json"))
    for gate in (
        lambda: loaded.passed, loaded.check, lambda: loaded.check({"int2": 0.5}),
        lambda: loaded.junit(tmp_path / "junit.xml"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="decides nothing"):
            gate()
