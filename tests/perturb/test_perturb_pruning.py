"""Pruning by size, at random, in a pattern and by what weights add to outputs, against slow loops and laws."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from one_layer import SHAPES, disturbed, layer, rows_of
from torch import nn

from wheeltap.core.errors import UsageError
from wheeltap.core.layer import Layer, LayerKind
from wheeltap.core.site import Site
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, InputScale, Weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import numbers, with_own_answers

FEW_NUMBERS = st.floats(-4, 4, width=16).map(round)
by_output = partial(disturbed, "prune-wanda")


@given(hnp.arrays(np.float32, (4, 5), elements=FEW_NUMBERS), st.floats(0, 1))
def test_exactly_the_share_is_removed_of_equal_weights(weight: NDArray[np.float32], share: float) -> None:
    """All below the threshold, none above it, and of those at it as many as are short; what is zero already counts."""
    found, count = disturbed("prune", torch.tensor(weight), share).numpy(), round(share * weight.size)
    size = np.abs(weight)
    threshold = sorted(size.flat)[count - 1] if count else -math.inf
    assert not found[size < threshold].any()
    np.testing.assert_array_equal(found[size > threshold], weight[size > threshold])
    assert np.count_nonzero(found == 0) == max(count, np.count_nonzero(weight == 0))
    assert ((found == weight) | (found == 0)).all()


# At random.


def test_every_place_is_removed_as_often_and_layers_are_drawn_apart() -> None:
    """Over 2,000 draws each of 12 weights goes in a quarter of them, within five standard deviations."""
    gone = torch.stack([disturbed("prune-random", torch.ones(3, 4), 0.25, seed=seed) == 0 for seed in range(2000)])
    assert (gone.double().mean(0) - 0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5
    made, held = create("prune-random"), Weights(torch.ones(30, 30))
    one, two = (Layer(name=n, kind="linear", weight=f"{n}.weight", bias=None, shape=(30, 30)) for n in ("one", "two"))
    first, second = (made.replace(each, held, 0.5, Draw(0, 0)).weight == 0 for each in (one, two))
    assert abs(float((first == second).double().mean()) - 0.5) < 0.1


# In a pattern.


def in_pattern(rows: NDArray[Any], m: int, keep: int) -> NDArray[Any]:
    """Group by group: the largest stay, the first of equal ones first."""
    found = rows.copy()
    for row in found:
        for start in range(0, len(row), m):
            group = row[start : start + m]
            share = -(-len(group) * keep // m)  # of a short group at the end, rounded up
            stay = sorted(range(len(group)), key=lambda at: (-abs(group[at]), at))[:share]
            group[[at for at in range(len(group)) if at not in stay]] = 0
    return found


@pytest.mark.parametrize(("m", "gone"), [(4, 2), (4, 4), (3, 2), (16, 5)])
@pytest.mark.parametrize("kind", ["conv", "transposed"])
def test_each_group_keeps_its_largest_as_by_hand(kind: LayerKind, m: int, gone: int) -> None:
    weight = numbers(*SHAPES[kind], seed=2)
    expected = in_pattern(rows_of(kind, weight.numpy()), m, m - gone)
    found = disturbed("prune-nm", weight, gone / m, kind=kind, m=m)
    assert found.shape == weight.shape
    np.testing.assert_array_equal(rows_of(kind, found.numpy()), expected)


@given(hnp.arrays(np.float32, (3, 11), elements=FEW_NUMBERS), st.sampled_from([2, 3, 4, 8]), st.data())
def test_ties_keep_the_first(weight: NDArray[np.float32], m: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, m))
    found = disturbed("prune-nm", torch.tensor(weight), gone / m, m=m)
    np.testing.assert_array_equal(found, in_pattern(weight, m, m - gone))


def test_shares_that_a_pattern_cannot_have_are_refused() -> None:
    for share, m in ((0.3, 4), (0.5, 3), (0.26, 4), (1 / 3, 4)):
        with pytest.raises(UsageError):
            create("prune-nm", {"m": m}).require_dose(share)
    for share in (1 / 3, 2 / 3, 0.3333333, 0.6666667):
        create("prune-nm", {"m": 3}).require_dose(share)
    with pytest.raises(UsageError):
        create("prune-nm", {"m": 1})


# By what weights add to outputs.


@given(st.integers(0, 100), st.integers(1, 12), st.floats(0, 1))
def test_each_unit_loses_what_adds_least(seed: int, fan_in: int, share: float) -> None:
    """Sorted row by row, one weight at a time; what is left over goes where it is least of the row's largest."""
    weight, rms = numbers(4, fan_in, seed=seed), numbers(fan_in, seed=seed + 1).exp()
    found = by_output(weight, share, known=InputScale(rms))
    expected, left = weight.clone(), list[tuple[float, int, int]]()
    each, more = divmod(round(share * 4 * fan_in), 4)
    for unit in range(4):
        added = [abs(float(weight[unit, at])) * float(rms[at]) for at in range(fan_in)]
        order = sorted(range(fan_in), key=added.__getitem__)
        expected[unit, order[:each]] = 0.0
        left += [(added[at] / max(added), unit, at) for at in order[each : each + 1]]
    if more and each == fan_in - 1:  # only the largest are left, so that all rows are alike
        assert int((found == 0).sum()) == round(share * 4 * fan_in) and not found[expected == 0].any()
        return
    for _, unit, at in sorted(left)[:more]:
        expected[unit, at] = 0.0
    assert torch.equal(found, expected)


# Whole units.


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("kind", ["transposed", "conv"])
def test_inputs_that_add_least_are_read_no_more(kind: LayerKind, share: float) -> None:
    """Input by input (all taps of a channel together), by its shares of each output's power."""
    weight, held = numbers(*SHAPES[kind], seed=10), layer(kind, SHAPES[kind])
    rms = numbers(held.fan_in, seed=11).exp()
    taps = 4 if kind == "conv" else 1
    expected = held.matrix(weight).clone()
    power = (expected * rms) ** 2
    inputs = held.fan_in // taps

    def added(at: int) -> float:
        columns = range(at * taps, (at + 1) * taps)
        return sum(float(power[u, c] / power[u].sum()) for u in range(held.units) for c in columns)

    for at in sorted(range(inputs), key=added)[: round(share * inputs)]:
        expected[:, at * taps : (at + 1) * taps] = 0.0
    found = disturbed("prune-units", weight, share, kind=kind, known=InputScale(rms))
    assert torch.equal(held.matrix(found), expected)


def test_what_a_pruned_unit_adds_is_what_is_lost() -> None:
    """Of an MLP: what is left is the net without the two units whose part is least, their biases gone with them."""
    with reproducible(0), torch.no_grad():
        model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3)).eval()
        case = with_own_answers(model, numbers(200, 6, seed=12).float(), name="sigmoid")
        reader = case.subject.layers[1]
        hidden = model[1](model[0](case.task.inputs))
        power = hidden.square().mean(0) * model[2].weight.square()
        parts = (power / power.sum(1, keepdim=True)).sum(0)
        stay = sorted(range(8), key=lambda at: float(parts[at]))[2:]
        expected = hidden[:, stay] @ model[2].weight[:, stay].T + model[2].bias
        known = gather("inputs", case.subject, case.task)
        with Disturbance(case.subject, create("prune-units"), Site("layer", reader.name), known) as disturbance:
            disturbance.apply(0.25, root=0, seed=0)
            torch.testing.assert_close(model(case.task.inputs), expected)
