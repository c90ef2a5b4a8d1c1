"""Storing in 16 bits against rounding by hand; noise in weights of 16 bits is rounded once."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wheeltap.core.layer import Layer
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.clean import settle
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Noise, Weights
from wheeltap.testing.planted import numbers

LAYER = Layer(name="x", kind="linear", weight="x.weight", bias="x.bias", shape=(1, 1))


def stored(values: list[float], dtype: str) -> list[float]:
    held = torch.tensor(values, dtype=torch.float32)
    return create("cast", {"dtype": dtype}).replace(LAYER, Weights(held), 16.0, Draw(0, 0)).weight.tolist()


def to_bfloat16(value: float) -> float:
    """The upper half of the bits, rounded to nearest, half-way to an even one."""
    bits = int(np.float32(value).view(np.uint32))
    bits += 0x7FFF + ((bits >> 16) & 1)
    return float(np.uint32(bits & 0xFFFF0000).view(np.float32))


@given(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False))
def test_bfloat16_keeps_the_upper_half_of_the_bits(value: float) -> None:
    assert stored([value], "bfloat16") == [to_bfloat16(value)]


@given(st.floats(-65504, 65504, width=32, allow_subnormal=False))
def test_float16_is_that_of_numpy(value: float) -> None:
    assert stored([value], "float16") == [float(np.float32(value).astype(np.float16))]


def test_halves_go_to_the_even_number_and_what_is_too_large_or_small_to_infinity_or_zero() -> None:
    assert stored([1 + 2**-8, 1 + 3 * 2**-8], "bfloat16") == [1.0, 1 + 2**-6]
    assert stored([1 + 2**-11, 1 + 3 * 2**-11], "float16") == [1.0, 1 + 2**-9]
    assert stored([65519.0, 65520.0, -1e6, 1e-8], "float16") == [65504.0, float("inf"), -float("inf"), 0.0]
    assert stored([1e30, 1e-30], "bfloat16") == [to_bfloat16(1e30), to_bfloat16(1e-30)]


@pytest.mark.parametrize(("dtype", "status"), [("float16", "diverged"), ("bfloat16", "done")])
def test_a_weight_that_overflows_makes_the_trial_diverge(dtype: str, status: str) -> None:
    model = nn.Linear(2, 2).eval()
    model.weight.data[0, 0] = 1e6
    inputs = numbers(20, 2, seed=0).float()
    subject, task = Subject(model), Task(inputs, torch.arange(20) % 2)
    settle(subject, task)
    trial = Trial(
        subject=subject.record.fingerprint, task=task.digest, measures=("accuracy",), perturbation="cast", version=1,
        settings={"dtype": dtype}, dose=16.0, path=subject.path,
    )  # fmt: skip
    found: list[Outcome] = []
    run_trials([trial], TrialRunner([subject], (), task), found.append)
    assert [outcome.status for outcome in found] == [status]
    assert model.weight.data[0, 0] == 1e6


LONG = 2**17 + 77
"""Numbers of the weight: more than are drawn together."""


def net(dtype: torch.dtype) -> Subject:
    torch.manual_seed(0)
    return Subject(nn.Sequential(nn.Linear(LONG // 3, 3), nn.Linear(3, 2)).to(dtype).eval())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "settings"), [
    ("relative", {}), ("std", {"draw": "sign"}),
])  # fmt: skip
def test_every_path_rounds_once(dtype: torch.dtype, name: str, settings: dict[str, Any]) -> None:
    subject, noise = net(dtype), create(name, settings)
    assert isinstance(noise, Noise)
    layer = next(one for one in subject.layers if one.name == "0")
    clean = Weights(*(subject.parameter(f"0.{part}").detach().clone() for part in ("weight", "bias")))
    drawn = noise.direction(layer, Weights(clean.weight.float(), None), Draw(5, 2)).weight
    expected = torch.add(clean.weight.float(), drawn, alpha=0.3).to(dtype)
    assert not torch.equal(expected, clean.weight)
    for keep in (True, False):
        with Disturbance(subject, noise, WHOLE) as disturbance:
            for dose in (0.1, 0.3):
                disturbance.apply(dose, root=5, seed=2, keep=keep)
            assert torch.equal(subject.parameter("0.weight"), expected), f"keep={keep}"
    pure = noise.replace(layer, clean, 0.3, Draw(5, 2)).weight
    assert pure.dtype is dtype
    assert (pure != expected).float().mean() < 1e-3  # a product and a sum, or both at once, in single precision
