"""The zoo: every member knows its lesson, is the same bits for the same seed, and is disturbed nearly everywhere.

Re-codings by hand are the same functions, and no noise tells them from the nets that they were made of.
"""

import pytest
import torch

from benchmarks.families_recoded import recoded
from tests.nets import zoo
from wheeltap import gauge
from wheeltap.core.typed import to_array

COVERED = 0.95
"""Least share of the weights that disturbances touch."""

EXACT = 1e-5
"""Largest difference of a score, in units of the logit scale."""


@pytest.mark.parametrize("name", ["gru", "vit", pytest.param("gpt2", marks=pytest.mark.release)])
def test_a_member_knows_its_lesson_is_disturbed_nearly_everywhere_and_can_be_recoded(name: str) -> None:
    case = zoo.made(name)
    record = case.subject.record
    right = (case.task.scores(case.subject.model).argmax(1) == case.task.targets).float().mean()
    assert float(right) >= zoo.MEMBERS[name].least
    assert record.covered / record.parameters >= COVERED, record.untouched
    with zoo.quiet():
        twin = recoded(name, case.subject.model, seed=1)
        alike = gauge.check(to_array(case.task.scores(case.subject.model)), to_array(case.task.scores(twin)))
    assert alike.difference <= EXACT and alike.agreement == 1.0
    before, after = case.subject.model.state_dict(), twin.state_dict()
    moved = sum(before[path].numel() for path in before if not torch.equal(before[path], after[path]))
    assert moved >= 0.5 * sum(value.numel() for value in before.values())
