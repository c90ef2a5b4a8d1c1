"""Salt and pepper: some weights lose their sign's place."""

import torch

from wheeltap.core.layer import Layer
from wheeltap.perturb import Perturbation
from wheeltap.perturb.base import Draw, Weights


class Salt(Perturbation):
    """Turns the sign of a share of the weights, drawn at random."""

    name = "salt"
    title = "signs turned at random"
    unit = "share of weights"
    lowest, highest = 0.0, 1.0
    invariant_to = frozenset({"permute", "rescale"})

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights, some with the other sign; the bias is left alone."""
        drawn = draw.normal(layer.weight, tuple(weights.weight.shape), like=weights.weight)
        # The share of normal numbers above this is the dose; infinity at 0.
        threshold = torch.special.ndtri(torch.tensor(1.0 - dose, dtype=torch.float64))
        return Weights(torch.where(drawn.double() > threshold, -weights.weight, weights.weight))
