"""Re-codings by hand are the same functions, and no noise tells them from the nets that they were made of."""

import pytest
import torch

from benchmarks.families import recoding
from benchmarks.families_recoded import GROUPS, recoded
from benchmarks.nets import zoo
from wheeltap import gauge
from wheeltap.core.typed import to_array

EXACT = 1e-5
"""Largest difference of a score, in units of the logit scale."""


def test_every_member_is_recoded() -> None:
    assert set(GROUPS) == set(zoo.MEMBERS)


@pytest.mark.parametrize("name", zoo.names())
def test_a_recoded_member_computes_the_same_with_other_weights(name: str) -> None:
    case = zoo.made(name)
    with zoo.quiet():
        twin = recoded(name, case.subject.model, seed=1)
        alike = gauge.check(to_array(case.task.scores(case.subject.model)), to_array(case.task.scores(twin)))
    assert alike.difference <= EXACT and alike.agreement == 1.0
    before, after = case.subject.model.state_dict(), twin.state_dict()
    moved = sum(before[path].numel() for path in before if not torch.equal(before[path], after[path]))
    assert moved >= 0.5 * sum(value.numel() for value in before.values())


@pytest.mark.parametrize("name", ["mlp", "tied", "lstm", "cnn"])
def test_neither_noise_tells_a_recoded_net_from_the_one_it_was_made_of(name: str) -> None:
    for row in recoding((name,), 2):
        assert row["WT101"] != "found" and row["WT102"] != "found", row
