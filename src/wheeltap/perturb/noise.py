"""Noise drawn weight by weight."""

from typing import ClassVar, Literal, final

from torch import Tensor

from wheeltap.layer import Layer
from wheeltap.perturb import base
from wheeltap.perturb.base import Draw, Noise, Weights


class NoiseSettings(base.Settings, frozen=True, kw_only=True):
    """Settings of noise drawn weight by weight.

    Attributes:
        draw: ``gaussian``, or ``sign`` (every weight moves by exactly the dose, up or down: cheaper, and a
            distribution of its own).
    """

    draw: Literal["gaussian", "sign"] = "gaussian"


class _Elementwise(Noise):
    settings_type: ClassVar[type[base.Settings]] = NoiseSettings

    def drawn(self, draw: Draw, name: str, like: Tensor) -> Tensor:
        """One independent number of unit variance per element of ``like``."""
        take = draw.normal if self.settings.draw == "gaussian" else draw.signs
        return take(name, tuple(like.shape), like=like)


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

    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """Each weight times its own number."""
        bias = weights.bias
        return Weights(
            self.drawn(draw, layer.weight, weights.weight).mul_(weights.weight),
            None if bias is None else self.drawn(draw, layer.bias or "", bias).mul_(bias),
        )


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

    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """Independent numbers scaled by the tensor's standard deviation."""
        bias = weights.bias
        return Weights(
            self.drawn(draw, layer.weight, weights.weight).mul_(weights.weight.std(correction=0)),
            None if bias is None else self.drawn(draw, layer.bias or "", bias).mul_(bias.std(correction=0)),
        )
