"""Interchange search: it finds the subspace that a factor acts through, where it is known, and beats random ones."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.recipes.interchange import InterchangeSettings, search
from wheeltap.testing.decodable import UNUSED, USED, Design, constructed
from wheeltap.testing.planted import Planted

DESIGN = Design(outputs="numbers", idle=12, examples=600)
SETTINGS = InterchangeSettings(layer="0", steps=80)


@pytest.fixture(scope="module")
def case() -> Planted:
    return constructed(seed=0, design=DESIGN)


def wanted(case: Planted, factor: str, column: int) -> Tensor:
    """The net's own outputs on inputs whose factor was given each value."""
    inputs: Tensor = case.task.inputs  # type: ignore[attr-defined]
    rows: list[Tensor] = []
    for value in (0, 1):
        moved = inputs.clone()
        moved[:, column] += DESIGN.gap * (value - case.task.annotations.factors[factor])
        with torch.no_grad():
            rows.append(case.subject.model(moved))
    return torch.stack(rows)


def test_it_finds_what_a_used_factor_acts_through(case: Planted) -> None:
    before = weights_digest(case.subject.model)
    found = search(case.subject, case.task, factor=USED, wanted=wanted(case, USED, 0), settings=SETTINGS)
    assert weights_digest(case.subject.model) == before
    clean = float(found.clean.mean())
    assert float(found.losses[-1]) < 0.5 * float(found.losses[0])
    assert float(found.found.mean()) < 0.4 * clean < 0.7 * float(found.random.mean(1).min())
    assert float(found.angles[0]) < 30.0 < 60.0 < found.random_angle
    again = search(case.subject, case.task, factor=USED, wanted=wanted(case, USED, 0), settings=SETTINGS)
    assert torch.equal(found.subspace, again.subspace)


def test_through_an_unused_factor_nothing_can_be_moved(case: Planted) -> None:
    """Its subspace moves the outputs nowhere; wanted here is what the used factor would do."""
    found = search(
        case.subject, case.task, factor=UNUSED, wanted=wanted(case, USED, 0), settings=replace(SETTINGS, steps=5)
    )
    assert float(found.probed.mean()) > 0.9 * float(found.clean.mean())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"factor": "usd"}, UnknownName, "Did you mean 'used'"),
        ({"settings": InterchangeSettings(layer="9")}, UnknownName, "module called '9'"),
        ({"settings": InterchangeSettings(layer="0", rank=16)}, UsageError, "no part of the layer"),
        ({"wanted": torch.zeros(2, 600)}, DataError, "do not fit"),
        ({"wanted": torch.zeros(3, 600, 2)}, DataError, "do not fit"),
        ({"wanted": torch.zeros(2, 600, 2).long()}, DataError, "do not fit"),
    ],
)
def test_mistakes_are_told(case: Planted, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    asked: dict[str, Any] = {"factor": USED, "wanted": wanted(case, USED, 0), "settings": SETTINGS}
    with pytest.raises(error, match=words):
        search(case.subject, case.task, **(asked | changes))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 1}, {"rate": 0.0}, {"rank": -1}, {"draws": 0}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="interchange search"):
        InterchangeSettings(layer="0", **wrong)
