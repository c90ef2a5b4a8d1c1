"""Noise drawn weight by weight."""

from abc import abstractmethod
from typing import ClassVar, Literal, final

from torch import Tensor

from wheeltap.layer import Layer
from wheeltap.perturb import base
from wheeltap.perturb.base import Draw, Noise, Weights
from wheeltap.typed import squares


class NoiseSettings(base.Settings, frozen=True, kw_only=True):
    """Settings of noise drawn weight by weight.

    Attributes:
        draw: ``gaussian``, or ``sign`` (every weight moves by exactly the dose, up or down: cheaper, and a
            distribution of its own).
    """

    draw: Literal["gaussian", "sign"] = "gaussian"


class _Elementwise(Noise):
    version = 2  # since 2 normal numbers are read off a table
    settings_type: ClassVar[type[base.Settings]] = NoiseSettings

    def drawn(self, draw: Draw, name: str, like: Tensor, into: Tensor | None = None) -> Tensor:
        """One independent number of unit variance per element of ``like``."""
        take = draw.normal if self.settings.draw == "gaussian" else draw.signs
        return take(name, tuple(like.shape), like=like, into=into)

    @abstractmethod
    def scale(self, weights: Tensor) -> Tensor:
        """What each number is multiplied by."""

    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """Independent numbers, each times its scale."""
        bias = weights.bias
        return Weights(
            self.drawn(draw, layer.weight, weights.weight).mul_(self.scale(weights.weight)),
            None if bias is None else self.drawn(draw, layer.bias or "", bias).mul_(self.scale(bias)),
        )

    def direction_into(self, held: Weights, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """See ``Noise.direction_into``."""
        bias = weights.bias
        return Weights(
            self.drawn(draw, layer.weight, weights.weight, held.weight.data).mul_(self.scale(weights.weight)),
            None
            if bias is None or held.bias is None
            else self.drawn(draw, layer.bias or "", bias, held.bias.data).mul_(self.scale(bias)),
        )

    def squared_length(self, weights: Weights) -> float | None:
        """Known for signs: every number is its scale or minus that."""
        if self.settings.draw != "sign":
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
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "rescale", "dead", "heads", "fold"})

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
    title = "std-normalised noise"
    unit = "standard deviations of the tensor"
    lowest, highest = 0.0, 4096.0
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads"})

    def scale(self, weights: Tensor) -> Tensor:
        """The tensor's standard deviation."""
        return weights.std(correction=0)
