"""The benchmarks that are studies: their nets are made by recipes, and their plans are sound."""

import subprocess
import sys
from pathlib import Path

import pytest

from wheeltap.plans.plan import Plan


@pytest.mark.release
@pytest.mark.parametrize(
    ("name", "cohorts", "rules"),
    [
        ("locks", {"locked 0.6", "label noise 0.6", "weak 0.6", "permuted 0.6", "biased 0.6", "brittle lock"}, 6),
        ("relearning", {"original", "unlearned", "retrained", "never", "hidden"}, 8),
    ],
)
def test_the_commands_plan_a_sound_study(name: str, cohorts: set[str], rules: int, tmp_path: Path) -> None:
    """The plan is refused if a rule could never come out, or a recipe or reading does not fit."""
    path = tmp_path / "plan.json"
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "plan", "-o", str(path)], check=True, capture_output=True
    )
    plan = Plan.from_bytes(path.read_bytes(), where=str(path))
    assert plan.study is not None and len(plan.study.rules) == rules
    assert {cohort.name for cohort in plan.study.cohorts} == cohorts
