"""Flipped bits against ``struct``, counting, and a loop over every weight and bit."""

import math
import struct
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from one_layer import SHAPES, disturbed, layer
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.layer import LayerKind
from wheeltap.perturb.base import Slopes
from wheeltap.perturb.flip import FORMATS, _hits, _reader  # single bits and the law of the draw by themselves
from wheeltap.testing.planted import numbers

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BITS = [("float32", 0), ("float32", 23), ("float32", 30), ("float32", 31), ("bfloat16", 14), ("int8", 0), ("int8", 7)]
flipped = partial(disturbed, "flip")


def at_bit(weight: Tensor, bit: int, form: str, kind: LayerKind = "linear") -> Tensor:
    read = _reader(layer(kind, tuple(weight.shape)), weight, FORMATS[form])
    stored = read(slice(0, weight.numel()))
    return stored.flipped(torch.tensor(1 << bit).to(stored.codes)).to(weight.dtype).reshape(weight.shape)


def worst(weight: Tensor, slopes: Tensor, count: int, **settings: Any) -> Tensor:
    return disturbed("flip-worst", weight, count, known=Slopes(slopes), **settings)


def by_hand(value: float, bit: int, form: str, step: float = 1.0) -> tuple[float, float]:
    """The stored number and what it becomes, one weight at a time, from its bytes."""
    if form == "int8":
        code = round(value / step)
        byte = (code & 0xFF) ^ (1 << bit)
        return code * step, (byte - 256 if byte > 127 else byte) * step
    if form == "bfloat16":
        high = int(torch.tensor(value).bfloat16().view(torch.int16)) & 0xFFFF
        old, new = (struct.unpack("<f", struct.pack("<I", each << 16))[0] for each in (high, high ^ (1 << bit)))
        return old, new
    old = struct.pack("<f", value)
    new = struct.pack("<I", struct.unpack("<I", old)[0] ^ (1 << bit))
    return struct.unpack("<f", old)[0], struct.unpack("<f", new)[0]


def steps(kind: LayerKind, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each weight's step on its channel's grid (a token's, for an embedding)."""
    axes = 0 if kind == "transposed" else tuple(range(1, weight.ndim))
    top = np.abs(weight).max(axis=axes, keepdims=True) / np.float32(127)
    return np.broadcast_to(top, weight.shape)


def moved(value: float, bit: int, form: str, step: float) -> float:
    old, new = by_hand(value, bit, form, step)
    return new if old == value else value + (new - old)


@pytest.mark.parametrize(("form", "bit"), BITS)
def test_every_bit_of_every_format_flips_as_by_hand(form: str, bit: int) -> None:
    """On the format's own numbers exactly, on others by the difference."""
    weight = numbers(3, 10, seed=1).float()
    own = weight if form in ("float32", "int8") else weight.to(FLOATS[form]).float()
    for held in (weight, own):
        grid = steps("linear", held.numpy())
        expected = [moved(float(v), bit, form, float(s)) for v, s in zip(held.flatten(), grid.flatten(), strict=True)]
        found = at_bit(held, bit, form).flatten()
        torch.testing.assert_close(found, torch.tensor(expected), rtol=3e-6, atol=1e-7, equal_nan=True)
        if held is own and form in FLOATS:
            assert torch.equal(found.nan_to_num(), torch.tensor(expected).nan_to_num())


@pytest.mark.parametrize("kind", ["conv", "transposed"])
def test_bytes_are_on_the_grid_of_their_channel(kind: LayerKind) -> None:
    weight = numbers(*SHAPES[kind], seed=2).float()
    grid = steps(kind, weight.numpy()).flatten()
    expected = [moved(float(v), 6, "int8", float(s)) for v, s in zip(weight.flatten(), grid, strict=True)]
    found = at_bit(weight, 6, "int8", kind)
    torch.testing.assert_close(found, torch.tensor(expected).reshape(weight.shape), rtol=1e-5, atol=1e-6)
    zeros = at_bit(torch.zeros(1, 3), 7, "int8")
    assert torch.equal(zeros, torch.full((1, 3), -128.0)), "a channel of zeros has bytes too"


@pytest.mark.parametrize("form", list(FLOATS))
@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_same_flips_twice_give_the_weights_back(form: str, seed: int, dose: float) -> None:
    """Where the format is the weights' own, but for what is no number in between."""
    weight = numbers(4, 6, seed=seed).to(FLOATS[form])
    once = flipped(weight, dose, seed=seed, format=form)
    again = flipped(once, dose, seed=seed, format=form)
    kept = once.isfinite()
    assert torch.equal(again[kept].view(torch.uint8), weight[kept].view(torch.uint8))


def test_the_share_of_bits_that_flip_is_the_dose() -> None:
    """Each bit on its own, within five standard deviations."""
    weight, dose = numbers(500, 400, seed=3).float(), 0.01
    apart = (weight.view(torch.int32) ^ flipped(weight, dose).view(torch.int32)).numpy()
    spread = (dose * (1 - dose) * weight.numel()) ** 0.5
    for place in range(32):
        assert abs(int(((apart >> place) & 1).sum()) - dose * weight.numel()) < 5 * spread


def test_a_dose_of_one_flips_every_bit_once() -> None:
    """More hits than are drawn at a time, so parts meet within a weight: none is lost or flipped back."""
    weight = numbers(250, 301, seed=4).float()
    assert weight.numel() * 8 % (1 << 20) and weight.numel() * 32 > 1 << 20
    assert torch.equal(flipped(weight, 1.0).view(torch.int32), ~weight.view(torch.int32))


@pytest.mark.parametrize("probability", [0.3, 1e-3])
def test_hits_are_those_of_a_coin_for_each(probability: float) -> None:
    """Rising, within bounds; their number and the two halves' shares as binomials, over 60 draws."""
    count = int(min(max(3000, 30 / probability), 10**8))
    found = [
        np.concatenate([np.zeros(0, np.int64), *_hits(seeds.generator(0, "hits", seed), count, probability)])
        for seed in range(60)
    ]
    for places in found:
        assert (np.diff(places) > 0).all()
        assert not len(places) or (places[0] >= 0 and places[-1] < count)
    sizes = np.array([len(places) for places in found])
    sd = (count * probability * (1 - probability)) ** 0.5
    assert abs(sizes.mean() - count * probability) < 5 * sd / 60**0.5
    assert 0.6 < sizes.std(ddof=1) / sd < 1.5
    early = sum(int((places < count // 2).sum()) for places in found)
    assert abs(early - sizes.sum() / 2) < 5 * sizes.sum() ** 0.5


def test_only_flips_disturb_and_may_give_infinity_and_nan() -> None:
    """In a format coarser than the weights the others keep every bit: nothing is rounded."""
    weight = numbers(100, 100, seed=5).float()
    found = flipped(weight, 0.005, format="bfloat16")
    assert 0 < int((found != weight).sum()) < 0.1 * weight.numel()
    assert torch.equal(flipped(weight, 0.0, format="int8"), weight)
    # 1 and 1.5 with the highest bit of the exponent flipped; trials on such weights count as diverged.
    found = at_bit(torch.tensor([[1.0, 1.5, 0.5]]), 30, "float32")
    assert found[0, 0] == math.inf and found[0, 1].isnan() and found[0, 2] == 2.0**127


# The worst first.


@pytest.mark.parametrize("count", [1, 7, 99])
@pytest.mark.parametrize(("form", "bits"), [("int8", range(8)), ("float32", range(32)), ("bfloat16", range(16))])
def test_the_worst_flips_as_by_hand(count: int, form: str, bits: range) -> None:
    """Every bit of every weight is tried: how much its flip raises the loss, and what the weight is then."""
    weight, slopes = numbers(3, 10, seed=6).float(), numbers(3, 10, seed=7).float()
    slopes[0, :4] = 0.0
    grid, options = steps("linear", weight.numpy()).flatten(), list[tuple[float, float]]()
    for value, slope, step in zip(weight.flatten().tolist(), slopes.flatten().tolist(), grid, strict=True):
        after = [moved(value, each, form, float(step)) for each in bits]
        changes = [new - value for new in after]
        raised = [0.0 if not slope else slope * each if math.isfinite(each) else math.inf for each in changes]
        options.append(max(zip(raised, after, strict=True), key=lambda option: option[0]))
    rises, after = zip(*options, strict=True)
    found = worst(weight, slopes, count, format=form).flatten()
    hit = found != weight.flatten()
    assert int(hit.sum()) == min(count, 30)
    torch.testing.assert_close(found[hit], torch.tensor(after)[hit], rtol=1e-5, atol=1e-6, equal_nan=True)
    raised = np.array(rises)
    assert raised[hit].min(initial=math.inf) >= raised[~hit].max(initial=-math.inf)


def test_a_permuted_copy_has_the_same_of_equally_bad_weights_flipped() -> None:
    """Half of the weights lie in [1, 2): a flip of their highest exponent bit gives infinity or NaN, equally bad."""
    weight, slopes = 2 * numbers(6, 8, seed=12).sign().float() * numbers(6, 8, seed=13).float().abs(), torch.ones(6, 8)
    rows, columns = torch.tensor([3, 0, 5, 1, 2, 4]), torch.tensor([7, 2, 0, 1, 6, 5, 3, 4])
    bad = int(((weight.abs() >= 1) & (weight.abs() < 2)).sum())
    assert bad > 6
    for count in (1, 3, bad - 1):
        hit = worst(weight, slopes, count, format="float32") != weight
        assert int(hit.sum()) == count
        twin = weight[rows][:, columns]
        assert torch.equal(worst(twin, slopes, count, format="float32") != twin, hit[rows][:, columns])
