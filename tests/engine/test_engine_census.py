"""The census of weights: one corrupt exponent is named in any tensor, and nothing in sound ones."""

import copy
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from engine_nets import numbers
from torch import Tensor, nn

from tests.cases import MODEL_CASES
from wheeltap import gauge
from wheeltap.core.fingerprint import identify
from wheeltap.core.subject import Subject
from wheeltap.engine.readings import create
from wheeltap.engine.readings.census import outliers
from wheeltap.sources import digits
from wheeltap.testing import planted

WHOLE = {torch.float32: (torch.int32, 23, 8), torch.bfloat16: (torch.int16, 7, 8), torch.float16: (torch.int16, 10, 5)}
"""By format: whole numbers of as many bits, bits of the fraction, and of the exponent."""


class Held(nn.Module):
    """Parameters and buffers as they are given."""

    def __init__(self, *parameters: Tensor, **buffers: Tensor) -> None:
        super().__init__()
        self.held = nn.ParameterList(nn.Parameter(one) for one in parameters)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)


def flipped(value: Tensor, bit: int) -> Tensor | None:
    """A number with this bit of its exponent set; ``None`` where it is set already."""
    form, fraction, _ = WHOLE[value.dtype]
    codes = value.reshape(1).view(form).to(torch.int64)
    if int(codes) >> (fraction + bit) & 1:
        return None
    return (codes | 1 << (fraction + bit)).to(form).view(value.dtype)[0]


def at(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(one.name, one.place) for one in outliers(model)]


# ---- the rule against a slow one -----------------------------------------------------------------------------------


def slowly(values: Tensor) -> list[tuple[int, ...]]:
    """Where one value of a learned tensor is far beyond the next largest, by sorting all of them."""
    sizes = values.detach().double().abs().numpy()
    logs = np.sort(np.log2(sizes[sizes > 0.0]))[::-1]
    if len(logs) < 2:
        return []
    across = sizes.size // max(sizes.shape)
    bits = 6.0 if across >= 4 and max(sizes.shape) >= 4 else 12.0
    # Of the 32 largest: what is beside a value, and how far down they go.
    need = max(bits, 1.5 * (logs[1] - float(np.median(logs))), 60.0 / (min(len(logs), 32) - 1))
    stands = logs[0] >= 1.0 and logs[0] - logs[1] > need
    return [tuple(map(int, np.argwhere(sizes == sizes.max())[0]))] if stands else []


@pytest.mark.parametrize(("shape", "spread"), [((2,), 2.0), ((300,), 0.0), ((3, 7), 2.0), ((4, 6, 8), 0.0)])
def test_one_jump_stands_out_exactly_where_the_slow_rule_says(shape: tuple[int, ...], spread: float) -> None:
    told: set[bool] = set()
    for seed in range(24):
        rng = np.random.default_rng([seed, len(shape)])
        values = numbers(*shape, seed=seed) * torch.from_numpy(
            np.exp(spread * rng.standard_normal((shape[0],)))
        ).reshape(-1, *(1,) * (len(shape) - 1))
        place = tuple(int(rng.integers(size)) for size in shape)
        values[place] *= 2.0 ** float(rng.uniform(0.0, 80.0 if len(shape) == 1 else 30.0))
        found = at(Held(values))
        assert found == [("held.0", where) for where in slowly(values)]
        told.add(bool(found))
    assert told == {True, False}, "these cases test both answers"


# ---- flipped bits --------------------------------------------------------------------------------------------------


def nets() -> Iterator[nn.Module]:
    yield digits.train(0)
    yield planted.clusters().subject.model
    for kind in planted.CASES:
        yield planted.planted(kind).subject.model


def sites(model: nn.Module, *, each: int) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """Random places in every parameter."""
    rng = np.random.default_rng(3)
    for name, parameter in model.named_parameters():
        for _ in range(each):
            yield name, parameter.data, tuple(int(rng.integers(size)) for size in parameter.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_a_flip_of_the_top_exponent_bit_is_named_and_nothing_else(dtype: torch.dtype) -> None:
    named, tried = 0, 0
    for made in nets():
        model = made.to(dtype)
        for name, values, place in sites(model, each=4):
            if dtype is torch.float16 and values.ndim < 2:
                continue  # a flip of 5 bits multiplies by 2**16 alone, and a copy's biases may be far apart
            before = values[place].clone()
            after = flipped(before, WHOLE[dtype][2] - 1)
            if after is None or not bool(torch.isfinite(after)) or float(before) == 0.0:
                continue
            values[place] = after
            found = outliers(model)
            values[place] = before
            tried += 1
            named += [(one.name, one.place, one.value) for one in found] == [(name, place, float(after))]
    assert tried > 60
    assert named >= (0.95 if dtype is torch.float16 else 1.0) * tried, (named, tried)


def test_values_alike_on_one_line_are_a_part_of_the_tensor_and_several_corrupt_ones_are_named() -> None:
    values = numbers(40, 60)
    values[3, 7], values[3, 9] = 900.0, -800.0  # as two units that cancel are read
    assert at(Held(values)) == []
    values[20, 30] = 1000.0
    assert at(Held(values)) == []
    values[20, 30] = 1e6
    assert at(Held(values)) == [("held.0", (20, 30))]
    # Several corrupt weights are all named.
    values = numbers(40, 60)
    values[3, 7], values[20, 9], values[31, 50] = 1e37, -3e30, 4e3
    assert at(Held(values)) == [("held.0", (3, 7)), ("held.0", (20, 9)), ("held.0", (31, 50))]
    values = numbers(40, 60)
    values[3, 7], values[3, 9] = 1e37, 2e37  # on one line, and alike
    assert at(Held(values)) == [("held.0", (3, 9)), ("held.0", (3, 7))], "no weight is as large as that"


# ---- what is sound -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_copies_of_a_sound_net_that_compute_the_same_have_no_outliers(seed: int) -> None:
    model = planted.clusters(seed=seed).subject.model if seed else digits.train(0)
    family = gauge.find(model)
    assert not isinstance(family, gauge.Refusal)
    assert outliers(model) == []
    made = [gauge.describe(family, "rescale", seed=seed, spread=spread) for spread in (1.0, 2.0)]
    for scale in (4.0, 64.0, 256.0):
        made += [gauge.describe(family, "cancel", seed=seed, scale=scale, pairs=pairs) for pairs in (1, 0.25)]
    for twin in made:
        assert outliers(gauge.twin(model, twin)) == []


def test_pruned_rounded_and_tied_nets_have_none() -> None:
    model = copy.deepcopy(digits.train(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter.abs() < parameter.abs().quantile(0.9)] = 0.0
    assert outliers(model) == []
    with torch.no_grad():
        for parameter in model.parameters():
            step = parameter.abs().max() / 7
            parameter.copy_((parameter / step).round() * step)
    assert outliers(model) == []
    for name, case in MODEL_CASES.items():
        assert outliers(case.planted().subject.model) == [], name


def test_what_buffers_hold_on_purpose_is_none() -> None:
    mask = torch.zeros(6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
    least = torch.finfo(torch.float32).min
    sound = Held(
        numbers(8, 8), mask=mask, one=torch.tensor([[0.0, -math.inf], [0.0, 0.0]]), scalar=torch.tensor(-1e9),
        far=torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 1e9]), filled=torch.full((4, 4), least).triu(1),
        single=torch.cat([numbers(30), torch.tensor([least])]), steps=torch.tensor(7), empty=torch.zeros(0, 3),
        frequencies=1e6 ** -(torch.arange(4) / 4), short=torch.cat([numbers(30), torch.tensor([-1e4])]).half(),
    )  # fmt: skip
    assert outliers(sound) == []


def test_what_running_averages_hold_by_accident_is_named() -> None:
    norm = nn.BatchNorm1d(16).eval()
    assert norm.running_var is not None and norm.running_mean is not None
    norm.running_var.copy_(1.0 + 40.0 * numbers(16).square())
    norm.running_mean.copy_(numbers(16))
    assert outliers(norm) == []
    norm.running_var[5] = 1.7012e30
    norm.running_mean[2] = math.nan
    [strange, large] = outliers(norm)
    assert (large.name, large.place) == ("running_var", (5,)) and str(large) == "running_var[5] = 1.7e+30"
    assert (strange.name, strange.place) == ("running_mean", (2,)) and math.isnan(strange.value)


# ---- how it is read ------------------------------------------------------------------------------------------------


def test_rows_and_what_float16_cannot_hold_are_counted_and_the_model_is_left_alone() -> None:
    values = numbers(50, 6)
    values[3], values[9] = 0.0, 0.0
    values[10], values[11] = values[12], values[12]
    values[20, 1], values[21, 1], values[22, 2] = 70_000.0, -65_504.0, 66_000.0
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model = nn.Sequential(nn.Linear(6, 50)).to(dtype).eval()
        model[0].weight.data.copy_(values)
        before = identify(model)
        read = create("census", {}).read(Subject(model), planted.clusters().task, root=0, seed=0)
        assert not before.differing(identify(model)) and read.forwards == 0.0
        assert [int(read.values[name]) for name in ("tensors", "rows", "dead", "repeated")] == [2, 50, 2, 2]
        assert int(read.values["over"]) == (2 if dtype is not torch.bfloat16 else 3), "-65,504 is -65,536 there"
        assert int(read.values["outliers"]) == 0
