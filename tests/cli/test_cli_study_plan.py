"""The plan of a study where it cannot be used: by another verb, cut to a budget, without the package it came with."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from test_cli_study import TOML

from wheeltap.cli import main
from wheeltap.cli.study import in_file, plan_of
from wheeltap.core.errors import UsageError
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.runs import budget


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study in a file, as the current one."""
    (tmp_path / "mine.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_study_is_no_model_to_plan_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine.toml", "pictures"):
        assert main(["plan", name]) == 2
        assert f"wheeltap plan study {name} -o FILE" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [budget.least, lambda plan: budget.within(plan, 10.0)])
def test_the_plan_of_a_study_is_not_cut_to_a_budget(here: Path, cut: Callable[[Plan], Plan]) -> None:
    asked = plan_of(in_file("mine.toml"), "study mine.toml")
    with pytest.raises(UsageError, match="its nets and rules are fixed"):
        cut(asked.plan)


def test_a_store_whose_study_is_not_installed_says_which(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(in_file("mine.toml"), "study mine.toml").plan
    assert plan.study is not None
    other = msgspec.structs.replace(plan, study=msgspec.structs.replace(plan.study, name="elsewhere"))
    with Store(here / "s.wheeltap") as kept:
        kept.put_plan(other.key, other.to_bytes())
    assert main(["report", str(here / "s.wheeltap")]) == 2
    said = capsys.readouterr().err
    assert "The study 'elsewhere' that this was run with is not installed" in said
    assert "'wheeltap.studies'" in said and "Install that package" in said
