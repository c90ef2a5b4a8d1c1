"""Weights of equal size: every pruning removes exactly the share, and from permuted copies the same weights."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_layer import disturbed
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance, LayerKnowledge
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import create
from wheeltap.perturb.base import HeadMoments, InputScale
from wheeltap.perturb.ties import by_place, least
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import PlantedCase, numbers, with_own_answers

SHARES = (0.0, 0.01, 0.37, 0.5, 1.0)
KINDS = ("prune", "prune-random", "prune-wanda", "prune-units", "prune-heads", "prune-nm")
ROWS, COLUMNS, WIDTH = 24, 40, 5

NETS = {
    "ternary": lambda seed: (2 * numbers(ROWS, COLUMNS, seed=seed)).round().clamp(-1, 1) * 0.1,
    "four bits": lambda seed: (3 * numbers(ROWS, COLUMNS, seed=seed)).round().clamp(-7, 7),
    "normal": lambda seed: numbers(ROWS, COLUMNS, seed=seed),
}


def known(name: str) -> InputScale | HeadMoments | None:
    """Some inputs are silent, and many are alike."""
    rms = torch.tensor([1.0, 2.0, 1.0, 0.0]).repeat(COLUMNS // 4).double()
    if name == "prune-heads":
        return HeadMoments(torch.diag_embed(rms.square().reshape(-1, WIDTH)))
    return InputScale(rms) if name in ("prune-wanda", "prune-units") else None


def pruned(name: str, weight: Tensor, share: float, *, of: InputScale | HeadMoments | None = None) -> Tensor:
    return disturbed(name, weight, share, known=of or known(name))


# How many.


@pytest.mark.parametrize("net", ["ternary", "normal"])
@pytest.mark.parametrize("name", KINDS)
def test_the_share_removed_is_the_share_asked(name: str, net: str) -> None:
    """To the weight, the input or the head, in each thing that the pruning counts; what was zero already counts."""
    weight = NETS[net](0).bfloat16()
    for share in SHARES if name != "prune-nm" else (0.0, 0.25, 1.0):
        found = pruned(name, weight, share)
        assert bool(((found == weight) | (found == 0)).all())
        counted = {
            "prune": lambda x: x.flatten()[None],
            "prune-wanda": lambda x: x,
            "prune-nm": lambda x: x.reshape(-1, 4),
            "prune-units": lambda x: x.any(0)[None],
            "prune-heads": lambda x: x.reshape(ROWS, -1, WIDTH).any(2).any(0)[None],
        }.get(name)
        if counted is None:
            assert int((pruned(name, torch.ones_like(weight), share) == 0).sum()) == round(share * weight.numel())
            continue
        before, after = (counted(x) == 0 for x in (weight, found))
        asked = share * after.shape[1]
        low, high = (torch.tensor([[math.floor(asked + 1e-9)], [math.ceil(asked - 1e-9)]])).unbind()
        if len(after) == 1:
            low = high = torch.tensor([round(asked)])
        zeros = before.sum(1)
        assert bool((after.sum(1) >= torch.maximum(low, zeros)).all())
        assert bool((after.sum(1) <= torch.maximum(high, zeros)).all())
        if name == "prune-wanda" and not zeros.any():
            assert int(after.sum()) == round(share * weight.numel())


@pytest.mark.parametrize("name", KINDS)
def test_a_larger_dose_removes_a_superset(name: str) -> None:
    shares = (0.0, 0.25, 0.5, 0.75, 1.0) if name == "prune-nm" else SHARES
    gone = [pruned(name, NETS["ternary"](1), share) == 0 for share in shares]
    assert all(bool((less <= more).all()) for less, more in pairwise(gone))


# Which.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["prune", "prune-wanda", "prune-units", "prune-heads"])
def test_permuted_copies_lose_the_same_weights(name: str, dtype: torch.dtype) -> None:
    """Rows change places, and columns (head by head), with what is known of them."""
    generator = torch.Generator().manual_seed(3)
    weight = NETS["four bits"](3).to(dtype)
    rows, heads = (torch.randperm(size, generator=generator) for size in (ROWS, COLUMNS // WIDTH))
    within = torch.randperm(WIDTH, generator=generator)
    columns = (heads[:, None] * WIDTH + within).flatten()
    of = known(name)
    if isinstance(of, InputScale):
        moved: InputScale | HeadMoments | None = InputScale(of.rms[columns])
    else:
        moved = None if of is None else HeadMoments(of.second[heads][:, within][:, :, within])
    for share in SHARES:
        found = pruned(name, weight, share)[rows][:, columns]
        assert torch.equal(pruned(name, weight[rows][:, columns].contiguous(), share, of=moved), found)


@given(st.integers(0, 50), st.floats(0, 1))
def test_copies_rescaled_by_powers_of_two_lose_the_same_weights(seed: int, share: float) -> None:
    """As units are in 16-bit types: rows one way, columns and what is known of them the other."""
    weight = NETS["four bits"](seed).bfloat16()
    up, down = (torch.randint(-3, 4, (size,)).double().exp2() for size in (ROWS, COLUMNS))
    of = known("prune-wanda")
    assert isinstance(of, InputScale)
    twin = (weight.double() * up[:, None] / down).bfloat16()
    found = pruned("prune-wanda", weight, share) == 0
    assert torch.equal(pruned("prune-wanda", twin, share, of=InputScale(of.rms * down)) == 0, found)


@pytest.mark.parametrize("count", [1, 139_999, 200_000])
def test_a_threshold_among_many_numbers_is_exact(count: int) -> None:
    """Random, sorted, and in steps that a sample of every twelfth number cannot see."""
    size = 200_000
    places = torch.arange(size)
    for values in (numbers(size, seed=7), places.double(), (places % 12 == 0).double(), (places // 150_000).double()):
        gone = least(values, count, by_place)
        assert int(gone.sum()) == count
        assert float(values[gone].max()) == float(values.sort().values[count - 1])
        assert count == size or float(values[gone].max()) <= float(values[~gone].min())


# On nets.


def binary_net() -> PlantedCase:
    """All weights of a layer have one size, as in a net of one bit a weight; no two units write alike."""
    with reproducible(0), torch.no_grad():
        model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 20)).eval()
        for part in model:
            if isinstance(part, nn.Linear):
                part.weight.copy_(part.weight.sign() * 0.1)
    return with_own_answers(model, numbers(300, 32, seed=8).float(), name="binary")


@pytest.mark.parametrize("name", ["prune", "prune-random", "prune-wanda"])
def test_a_net_of_one_size_loses_its_share_in_every_layer_and_a_permuted_copy_stays_one(name: str) -> None:
    """Pruned, the copy still computes what the pruned original computes, to rounding; not so in one random draw."""
    case = binary_net()
    family = gauge.find(case.subject.model)
    assert isinstance(family, gauge.Family)
    twin = Subject(gauge.twin(case.subject.model, gauge.describe(family, "permute", seed=1)), name="twin")
    found: list[Tensor] = []
    for subject in (case.subject, twin):
        needs = gather("inputs", subject, case.task) if name == "prune-wanda" else LayerKnowledge({})
        with Disturbance(subject, create(name), WHOLE, needs) as disturbance, torch.no_grad():
            for share in (0.01, 0.3, 0.1):
                disturbance.apply(share, root=0, seed=0)
                for layer in subject.layers:
                    weight = subject.parameter(layer.weight)
                    assert int((weight == 0).sum()) == round(share * weight.numel())
            found.append(subject.model(case.task.inputs))
    if name != "prune-random":
        torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
