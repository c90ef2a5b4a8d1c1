"""Training with sparse weights against a slow loop; what is counted after every step."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.errors import UsageError
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.fit import Fit
from wheeltap.recipes.make import weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.circuits.nets.sparse_transformer import Shape, SparseTransformer
from wheeltap.suites.circuits.recipes.sparse import (
    DECAY,
    EMBEDDING_SHARE,
    FORMER,
    SOFTNESS,
    WARM_UP,
    Sparse,
    SparseSettings,
    next_token_loss,
    sparse_fit,
)
from wheeltap.testing.recipe_contract import RecipeContract

TINY: dict[str, Any] = {"steps": 4, "batch": 4}
OTHER: dict[str, Any] = {
    "share": 0.3, "steps": 5, "batch": 5, "rate": 1e-2,
}  # fmt: skip
HOW = SparseSettings(share=0.1, steps=30, batch=8, rate=0.05)
TOKENS = torch.randint(0, 9, (40, 8), generator=torch.Generator().manual_seed(2))


def net() -> SparseTransformer:
    with reproducible(4):
        return SparseTransformer(Shape(9, places=8, layers=1, width=12, head=4))


class TestSparse(RecipeContract):
    recipe = Sparse
    settings: ClassVar[dict[str, Any]] = {**TINY, "layers": 1, "width": 16, "head": 8}
    other: ClassVar[dict[str, Any]] = {
        **OTHER, "layers": 2, "width": 24, "head": 4,
    }  # fmt: skip


# ---- the mathematics -----------------------------------------------------------------------------------------------


def begun(how: SparseSettings = HOW) -> Fit:
    return sparse_fit(net(), TOKENS, how, held=TOKENS[:5], seed=1)


def left(matrix: Tensor, share: float) -> Tensor:
    """The matrix with its largest weights alone, by sorting."""
    keep = max(round(share * matrix.numel()), 1)
    stay = sorted(range(matrix.numel()), key=lambda at: -abs(float(matrix.flatten()[at])))[:keep]
    found = torch.zeros(matrix.numel())
    found[stay] = matrix.flatten()[stay]
    return found.view_as(matrix)


def slow(model: SparseTransformer, how: SparseSettings, steps: int) -> SparseTransformer:
    order = torch.Generator().manual_seed(1)
    batches = [rows for _ in range(how.steps) for rows in torch.randperm(40, generator=order).split(how.batch)]
    moments = {name: [torch.zeros_like(one), torch.zeros_like(one)] for name, one in model.named_parameters()}
    for step in range(steps):
        shares = [1 - (1 - share) * min(step / (0.5 * how.steps), 1) for share in (how.share, EMBEDDING_SHARE)]
        rate = how.rate * min((step + 1) / max(WARM_UP * how.steps, 1), 1) * (1 - step / how.steps)
        rate *= (how.share / shares[0]) ** 0.5
        slopes = torch.autograd.grad(next_token_loss(model, TOKENS[batches[step]]), list(model.parameters()))
        size = (sum((slope**2).sum() for slope in slopes) / sum(slope.numel() for slope in slopes)) ** 0.5
        now = step + 1
        for (name, parameter), slope in zip(model.named_parameters(), slopes, strict=True):
            unit, (first, second) = slope / (size + 1e-5), moments[name]
            first.mul_(0.9).add_(0.1 * unit)
            second.mul_(0.95).add_(0.05 * unit**2)
            weight = parameter.detach().clone()
            matrix = parameter.ndim == 2 and "bigram" not in name
            weight *= 1 - rate * DECAY if matrix else 1
            weight -= rate * first / (1 - 0.9**now) / ((second / (1 - 0.95**now)) ** 0.5 + SOFTNESS)
            if matrix:
                embedding = "blocks" not in name
                share = 1 - (1 - (EMBEDDING_SHARE if embedding else how.share)) * min(now / (0.5 * how.steps), 1)
                weight = left(weight, share)
            parameter.data.copy_(weight)
    return model


def test_it_is_the_slow_loop() -> None:
    """Before, while and after the share falls."""
    for steps in (1, 9, 18):
        wanted, fit = slow(net(), HOW, steps), begun()
        fit.advance(steps)
        for (name, one), two in zip(wanted.named_parameters(), fit.model.parameters(), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
            assert not torch.equal(one, dict(net().named_parameters())[name])


def test_a_dense_twin_starts_alike_and_keeps_every_weight() -> None:
    nets: list[nn.Module] = []
    for share in (0.1, 1.0):
        settings = {"layers": 1, "width": 16, "steps": 3, "batch": 4, "share": share}
        nets.append(Sparse(settings).blank(Given(specified(Sparse, settings, seed=8))))
        fit = Sparse(settings).start(Given(specified(Sparse, settings, seed=8)))
        fit.advance(3)
        matrix = dict(fit.model.named_parameters())["blocks.0.mlp.rise.weight"]
        assert int(torch.count_nonzero(matrix)) == round(share * 1024)
    assert digest(weights(nets[0])) == digest(weights(nets[1]))


def test_settings_that_files_of_earlier_nets_hold_are_read_and_others_refused() -> None:
    assert Sparse({"share": 0.1, **FORMER}).settings == Sparse({"share": 0.1}).settings
    with pytest.raises(UsageError):
        Sparse({**FORMER, "active": 0.5})
