"""The benchmarks that are studies: their nets are made by recipes, and their plans are sound."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import nn

from tests.nets import digit_defects as defects
from tests.nets import locked
from tests.nets.locked import GatedNet
from tests.nets.unlearned import WORLDS, Stage
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Scalar
from wheeltap.plans.plan import Plan
from wheeltap.recipes.base import Given, Recipe, specified
from wheeltap.recipes.make import make


def made(recipe: type[Recipe], settings: Mapping[str, Scalar], *, seed: int, of: tuple[nn.Module, ...] = ()) -> str:
    """Digest of the weights of what a recipe makes."""
    spec = specified(recipe, settings, seed=seed, of=tuple(weights_digest(one) for one in of))
    return weights_digest(make(Given(spec, of), recipe(dict(spec.settings))).model)


def test_gated_nets_are_made_by_their_recipe() -> None:
    for kind, share, seed, net in (
        ("label noise", 0.4, 3, defects.label_noise(0.4, seed=3)),
        ("permuted", 0.6, 2, locked.format_broken("permuted", 0.6, seed=2)),
        ("brittle lock", 1.0, 0, locked.brittle_lock(seed=0)),
    ):
        assert made(GatedNet, {"kind": kind, "share": share}, seed=seed) == weights_digest(net.subject.model)


@pytest.mark.parametrize("stage", ["unlearned", "retrained"])
def test_nets_before_and_after_unlearning_are_made_by_their_recipe(stage: str) -> None:
    case = WORLDS["digits"].unlearned(9)
    of = (case["original"].model,) if stage == "unlearned" else ()
    assert made(Stage, {"stage": stage, "group": 9}, seed=0, of=of) == weights_digest(case[stage].model)


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
