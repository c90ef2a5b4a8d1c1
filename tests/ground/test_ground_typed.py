"""Sums of squares are right for tensors of any size and layout."""

import pytest
import torch
from torch import Tensor

from wheeltap.core.typed import squares


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((4_194_304 + 77,), 0.1),  # a running sum in single precision is wrong by .4 %
        _random(999, 4099).T,
        _random(10_000).bfloat16(),
        torch.zeros(0, 4),
    ],
    ids=lambda tensor: f"{list(tensor.shape)} {tensor.dtype}",
)
def test_squares_do_not_drift(tensor: Tensor) -> None:
    exact = float((tensor.double() ** 2).sum())
    assert squares(tensor) == pytest.approx(exact, rel=4e-6)
