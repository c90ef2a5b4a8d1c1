"""Magnitude pruning."""

from typing import ClassVar, final

from wheeltap.layer import Layer
from wheeltap.perturb.base import Draw, Perturbation, Weights


@final
class MagnitudePruning(Perturbation):
    """Sets the given share of each layer's weights, those of smallest magnitude, to zero; biases kept."""

    name = "prune"
    title = "pruning the smallest weights"
    unit = "share of weights removed"
    lowest, highest = 0.0, 1.0
    random = False
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads"})

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the smallest ones zeroed; ties at the threshold fall together."""
        weight = weights.weight
        count = round(dose * weight.numel())
        if count == 0:
            return Weights(weight.clone(), None)
        magnitude = weight.abs()
        threshold = magnitude.flatten().kthvalue(count).values
        return Weights(weight.masked_fill(magnitude <= threshold, 0.0), None)
