"""Noise in weights of 16 bits: drawn and added in single precision, rounded once, by every path alike."""

from typing import Any

import pytest
import torch
from torch import nn

from wheeltap.core.layer import Layer
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Noise, Weights

LONG = 2**17 + 77
"""Numbers of the weight: more than are drawn together."""


def net(dtype: torch.dtype) -> Subject:
    torch.manual_seed(0)
    return Subject(nn.Sequential(nn.Linear(LONG // 3, 3), nn.Linear(3, 2)).to(dtype).eval())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "settings"), [
    ("relative", {}), ("relative", {"draw": "sign"}), ("std", {}), ("std", {"draw": "sign"}), ("low-rank", {}),
])  # fmt: skip
def test_every_path_rounds_once(dtype: torch.dtype, name: str, settings: dict[str, Any]) -> None:
    subject, noise = net(dtype), create(name, settings)
    assert isinstance(noise, Noise)
    layer = next(one for one in subject.layers if one.name == "0")
    clean = Weights(*(subject.parameter(f"0.{part}").detach().clone() for part in ("weight", "bias")))
    drawn = alone(noise, layer, clean)
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


def alone(noise: Noise, layer: Layer, clean: Weights) -> torch.Tensor:
    """The direction in single precision, of the same weights stored in single precision."""
    return noise.direction(layer, Weights(clean.weight.float(), None), Draw(5, 2)).weight


def test_keys_say_how_sixteen_bits_are_rounded() -> None:
    assert net(torch.float32).path == "plain/cpu/float32"
    assert net(torch.bfloat16).path == "plain/cpu/rounded once/bfloat16"
