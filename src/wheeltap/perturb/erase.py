"""Removing weights: what a network loses without them."""

from typing import ClassVar, final

from wheeltap.core.layer import Layer
from wheeltap.perturb.base import EVERY_GAUGE, Draw, Perturbation, Weights


@final
class Erase(Perturbation):
    """Each weight times (1 - dose): at dose 1 the site is gone. Biases are kept, unless one number of one is the site.

    Deterministic, so two trials differ only by their site: made for single weights. What a shift moves into a bias
    is no longer scaled down with the weights.
    """

    name = "erase"
    title = "removing weights"
    unit = "share of each weight removed"
    lowest, highest = 0.0, 1.0
    random = False
    invariant_to: ClassVar[frozenset[str]] = EVERY_GAUGE - {"shift", "regroup"}

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights scaled down."""
        return Weights(weights.weight * (1.0 - dose), None)
