"""Weights left alone, scaled down, or moved along the line to another checkpoint's.

Source: Frankle et al. (2020), "Linear Mode Connectivity and the Lottery Ticket Hypothesis", arXiv 1912.05671 (between);
Ilharco et al. (2023), "Editing Models with Task Arithmetic", arXiv 2212.04089 (beyond, backwards, and two tasks).
"""

from typing import ClassVar, final

from torch import Tensor

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
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


class MergeSettings(Settings, frozen=True, kw_only=True):
    """Settings of merging.

    Attributes:
        other: Fingerprint of the other subject, which must be in the plan.
        also: Fingerprint of a second one, whose task is added too: the line then leads to other + also - mine.
    """

    other: str = ""
    also: str = ""


@final
class Merge(Perturbation):
    """Weights and biases moved by dose x (theirs - mine): at dose 1 they are the other checkpoint's, bit for bit.

    From a base to a model fine-tuned from it, doses above 1 add more of the task, and negative ones take it away. From
    a base to two of them (``also``), dose 1 adds both tasks, and .5 averages the two. Only layers move: gains of norms,
    and other parameters that no disturbance touches, stay as they are.
    """

    name = "merge"
    title = "merging with another checkpoint"
    unit = "share of the way to the other checkpoint"
    lowest, highest = -1.0, 2.0
    random = False
    needs = "other"
    settings_type: ClassVar[type[Settings]] = MergeSettings

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """Weights and bias on the line."""
        theirs = draw.known
        if not isinstance(theirs, Weights):
            raise ModelError("Merging needs the other checkpoint's weights.", where=layer.name)
        bias = None if weights.bias is None or theirs.bias is None else _between(weights.bias, theirs.bias, dose)
        return Weights(_between(weights.weight, theirs.weight, dose), bias)


def _between(mine: Tensor, theirs: Tensor, dose: float) -> Tensor:
    """The point on the line, in the dtype of ``mine``."""
    theirs = theirs.to(mine)
    if dose in (0.0, 1.0):
        return (theirs if dose else mine).clone()
    return mine.lerp(theirs, dose)  # which in half precision rounds once, at the end
