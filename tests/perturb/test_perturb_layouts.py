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


def layer(name: str) -> Layer:
    kind, shape, groups = SHAPES[name]
    return Layer(name="x", kind=kind, weight="x.weight", bias=None, shape=shape, groups=groups)


def both(name: str, perturbation: str, dose: float, **settings: str | int) -> tuple[Tensor, Tensor]:
    """Matrices before and after; what is given is left as it is."""
    held = layer(name)
    weight = numbers(*held.shape, seed=0).float()
    before = weight.clone()
    made = create(perturbation, dict(settings)).replace(held, Weights(weight), dose, Draw(0, 0))
    assert made.weight.shape == held.shape and torch.equal(weight, before)
    return held.matrix(weight), held.matrix(made.weight)


@pytest.mark.parametrize("name", list(SHAPES))
def test_each_row_is_rounded_on_its_own_grid(name: str) -> None:
    before, after = both(name, "quantize", 3.0)
    for row, rounded in zip(before, after, strict=True):
        step = row.abs().max() / 3
        torch.testing.assert_close(rounded, (row / step).round() * step)


@pytest.mark.parametrize("name", list(SHAPES))
def test_two_of_every_four_inputs_of_a_row_stay(name: str) -> None:
    before, after = both(name, "prune-nm", 0.5)
    for row, pruned in zip(before.reshape(-1, 4), after.reshape(-1, 4), strict=True):
        kept = row.abs().topk(2).indices
        assert torch.equal(pruned.nonzero()[:, 0], kept.sort().values)


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_flipped_sign_of_a_byte_is_worth_128_steps_of_its_row(name: str) -> None:
    before, after = both(name, "flip", 1.0, format="int8", bit="sign")
    steps = before.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close((after - before).abs(), (128 * steps).expand_as(before))


@pytest.mark.parametrize("name", list(SHAPES))
def test_low_rank_noise_is_of_low_rank(name: str) -> None:
    before, after = both(name, "low-rank", 0.3, rank=2)
    change = (after - before).double()
    assert int(torch.linalg.matrix_rank(change, rtol=1e-5)) == 2
    assert float(change.norm() / before.norm()) == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("perturbation", ["prune", "prune-random"])
def test_pruning_removes_exactly_the_share(name: str, perturbation: str) -> None:
    before, after = both(name, perturbation, 0.25)
    assert int((after == 0).sum()) == round(0.25 * before.numel())
