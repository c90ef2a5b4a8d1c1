"""Noise drawn weight by weight, and noise of low rank, of which many copies can share one pass over the weights.

Source: Wen, Tran & Ba (2020), "BatchEnsemble", arXiv 2002.06715, sec. 3 (copies that share a weight); "Evolution
Strategies at the Hyperscale" (2025), arXiv 2511.16652 (low-rank noise instead of independent noise).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import msgspec
import torch
from torch import Tensor

from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.core.typed import squares, to_array
from wheeltap.perturb.base import BY, Draw, Noise, Weights


class NoiseSettings(Settings, frozen=True, kw_only=True):
    """Settings of noise drawn weight by weight.

    Attributes:
        draw: ``gaussian``, or ``sign`` (every weight moves by exactly the dose, up or down: cheaper, and a
            distribution of its own).
    """

    draw: Literal["gaussian", "sign"] = "gaussian"


class _Elementwise(Noise):
    version = 2  # since 2 normal numbers are read off a table
    settings_type: ClassVar[type[Settings]] = NoiseSettings

    @property
    def kind(self) -> Literal["normal", "signs"]:
        """Which numbers are drawn."""
        return "signs" if self.settings.draw == "sign" else "normal"

    @abstractmethod
    def scale(self, weights: Tensor) -> Tensor:
        """What each number is multiplied by: one for all, or as many as there are weights."""

    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """Independent numbers of unit variance, each times its scale."""
        take, bias = draw.signs if self.kind == "signs" else draw.normal, weights.bias

        def scaled(name: str, like: Tensor) -> Tensor:
            return take(name, tuple(like.shape), like=like).mul_(self.scale(like))

        return Weights(scaled(layer.weight, weights.weight), None if bias is None else scaled(layer.bias or "", bias))

    def write(self, held: Weights, layer: Layer, weights: Weights, dose: float, draw: Draw) -> float | None:
        """See ``Noise.write``: the same numbers as along ``direction``, a few at a time.

        So they are drawn, scaled, added and measured while they are in the processor's cache: weights are read once
        and written once.
        """
        parts = [(weights.weight, held.weight, layer.weight)]
        if weights.bias is not None and held.bias is not None:
            parts.append((weights.bias, held.bias, layer.bias or ""))
        if not all(_plain(clean) and _plain(out) for clean, out, _ in parts):
            return super().write(held, layer, weights, dose, draw)
        length = 0.0
        for clean, out, name in parts:
            scale, fill = self.scale(clean), draw.stream(self.kind, name)
            flat, into = clean.view(-1), out.data.view(-1)
            array, each = to_array(into), scale.view(-1) if scale.ndim else None
            for start in range(0, len(array), BY):
                part = slice(start, start + BY)
                new = into[part]
                fill(array[part])
                new.mul_(scale if each is None else each[part])
                if self.kind == "normal":
                    length += squares(new)
                torch.add(flat[part], new, alpha=dose, out=new)
        return length if self.kind == "normal" else None

    def squared_length(self, weights: Weights) -> float | None:
        """Known for signs: every number is its scale or minus that."""
        if self.kind == "normal":
            return None
        parts = (weights.weight, *(() if weights.bias is None else (weights.bias,)))
        return sum(squares(self.scale(part).expand_as(part)) for part in parts)


@final
class RelativeNoise(_Elementwise):
    """Each weight times (1 + dose x e): how the function is written in coordinates.

    Rescaling a unit in and out rescales its noise alike, so the disturbed function has the same distribution;
    redundant or cancelling weights are disturbed each on its own, so redundancy is seen.
    """

    name = "relative"
    title = "relative noise"
    unit = "share of each weight (sd)"
    lowest, highest = 0.0, 4096.0
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "rescale", "dead", "heads", "experts", "fold"})

    def scale(self, weights: Tensor) -> Tensor:
        """The weights themselves."""
        return weights


@final
class StdNoise(_Elementwise):
    """Noise with the standard deviation of the whole tensor times the dose. Not invariant to rescaling units.

    Shipped because it is what most people use, and to show why it is not the default: a rescaled copy of the same
    function looks broken to it.
    """

    name = "std"
    title = "std-normalized noise"
    unit = "standard deviations of the tensor"
    lowest, highest = 0.0, 4096.0
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})

    def scale(self, weights: Tensor) -> Tensor:
        """The tensor's standard deviation."""
        return weights.std(correction=0)


def _plain(tensor: Tensor) -> bool:
    """Whether its numbers lie one after another where and as they are drawn."""
    return tensor.is_cpu and tensor.dtype is torch.float32 and tensor.is_contiguous()


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
