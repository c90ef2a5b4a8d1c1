"""What goes by the rows of a layer goes by them in whatever layout the module stores them."""

import pytest
import torch
from torch import Tensor

from wheeltap.core.layer import Layer, LayerKind
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Weights
from wheeltap.testing.planted import numbers

SHAPES: dict[str, tuple[LayerKind, tuple[int, ...], int]] = {
    "recurrent": ("recurrent", (12, 8), 1),
    "bilinear": ("bilinear", (5, 4, 4), 1),
    "positions": ("plain", (1, 6, 8), 1),
    "experts": ("plain", (3, 4, 8), 1),
    "experts stored transposed": ("stacked", (3, 8, 5), 1),
    "transposed convolution": ("conv_transposed", (4, 6, 2), 1),
    "of two groups": ("conv_transposed", (4, 3, 2, 2), 2),
}


def both(name: str, perturbation: str, dose: float, **settings: str | int) -> tuple[Tensor, Tensor]:
    """Matrices before and after; what is given is left as it is."""
    kind, shape, groups = SHAPES[name]
    held = Layer(name="x", kind=kind, weight="x.weight", bias=None, shape=shape, groups=groups)
    weight = numbers(*held.shape, seed=0).float()
    before = weight.clone()
    made = create(perturbation, dict(settings)).replace(held, Weights(weight), dose, Draw(0, 0))
    assert made.weight.shape == held.shape and torch.equal(weight, before)
    return held.matrix(weight), held.matrix(made.weight)


@pytest.mark.parametrize("name", list(SHAPES))
def test_rows_are_disturbed_as_the_layout_stores_them(name: str) -> None:
    before, after = both(name, "quantize", 3.0)
    for row, rounded in zip(before, after, strict=True):
        step = row.abs().max() / 3
        torch.testing.assert_close(rounded, (row / step).round() * step)
    before, after = both(name, "prune-nm", 0.5)
    for row, pruned in zip(before.reshape(-1, 4), after.reshape(-1, 4), strict=True):
        assert torch.equal(pruned.nonzero()[:, 0], row.abs().topk(2).indices.sort().values)
    before, after = both(name, "flip", 1.0, format="int8")  # of r all bits flipped are -1 - r
    steps = before.abs().amax(1, keepdim=True) / 127
    codes = (before / steps).round()
    torch.testing.assert_close(after - before, (-1 - 2 * codes) * steps)
    for perturbation in ("prune", "prune-random"):
        before, after = both(name, perturbation, 0.25)
        assert int((after == 0).sum()) == round(0.25 * before.numel())
