"""Noise of low rank: many disturbed copies can share one pass over the weights (see ``engine.fast.low_rank``).

Source: Wen, Tran & Ba (2020), "BatchEnsemble", arXiv 2002.06715, sec. 3 (copies that share a weight); "Evolution
Strategies at the Hyperscale" (2025), arXiv 2511.16652 (low-rank noise instead of independent noise).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import msgspec
import torch
from torch import Tensor

from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.core.typed import squares
from wheeltap.perturb.base import Draw, Noise, Weights


class LowRankSettings(Settings, frozen=True, kw_only=True):
    """Settings of low-rank noise.

    Attributes:
        rank: Of the change of each weight matrix.
    """

    rank: Annotated[int, msgspec.Meta(ge=1)] = 1


@final
@dataclass(frozen=True)
class LowRank:
    """The change of one weight at dose 1, as a product: ``left @ right``.

    Attributes:
        left: ``[unit, rank]``.
        right: ``[rank, fan_in]``.
    """

    left: Tensor
    right: Tensor


@final
class LowRankNoise(Noise):
    """Each weight matrix plus a random matrix of low rank, with the dose as its relative Frobenius norm.

    The change is U V with standard normal U ``[unit, rank]`` and V ``[rank, fan_in]``, scaled to the norm of the
    weight: exactly the norm that independent noise of that dose has on average. A distribution of its own, not a
    cheap stand-in for independent noise: its entries have kurtosis 3 (1 + 2 / rank) instead of 3 (before scaling),
    and its energy lies in ``rank`` directions, so its spectral norm is larger, at rank 1 by up to
    sqrt(m n) / (sqrt(m) + sqrt(n)). Biases are left alone.
    """

    name = "low-rank"
    version = 3  # since 2 normal numbers are read off a table; since 3 norms of large matrices are not rounded
    title = "low-rank noise"
    unit = "norm of the change of each weight matrix, as a share of its own"
    lowest, highest = 0.0, 4096.0
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})
    settings_type: ClassVar[type[Settings]] = LowRankSettings
    moves_biases: ClassVar[bool] = False

    def factors(self, layer: Layer, weight: Tensor, draw: Draw, *, norm: float | None = None) -> LowRank:
        """The change of ``weight`` at dose 1.

        Args:
            layer: Whose weight.
            weight: As the module stores it.
            draw: One stream for both factors.
            norm: Frobenius norm of ``weight``, where it is known.
        """
        rank, units, fan_in = self.settings.rank, layer.units, layer.fan_in
        drawn = draw.normal(layer.weight, ((units + fan_in) * rank,), like=weight)
        left, right = drawn[: units * rank].reshape(units, rank), drawn[units * rank :].reshape(rank, fan_in)
        # The product's norm from its small Gram matrices: |U V|^2 = tr(U'U V V').
        size = ((left.T @ left) * (right @ right.T).T).sum().sqrt()
        return LowRank(left * ((squares(weight) ** 0.5 if norm is None else norm) / size), right)

    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """The product of both factors, as the module stores it."""
        factors = self.factors(layer, weights.weight, draw)
        return Weights(layer.stored(torch.mm(factors.left, factors.right)))
