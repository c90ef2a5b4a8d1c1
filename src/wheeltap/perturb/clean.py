"""No disturbance: what baselines run."""

from typing import ClassVar, final

from wheeltap.core.layer import Layer
from wheeltap.perturb.base import EVERY_GAUGE, Draw, Perturbation, Weights


@final
class Clean(Perturbation):
    """Leaves every weight alone."""

    name = "none"
    title = "the undisturbed model"
    unit = "none"
    lowest, highest = 0.0, 0.0
    random = False
    invariant_to: ClassVar[frozenset[str]] = EVERY_GAUGE

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights as they are."""
        return weights
