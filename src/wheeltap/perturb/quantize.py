"""Round-to-nearest quantisation."""

from typing import ClassVar, Literal, final

from torch import Tensor

from wheeltap.errors import UsageError
from wheeltap.layer import Layer
from wheeltap.perturb import base
from wheeltap.perturb.base import Draw, Perturbation, Weights


class QuantizeSettings(base.Settings, frozen=True, kw_only=True):
    """Settings of quantisation.

    Attributes:
        scale: One grid per output ``channel`` (per token, for an embedding), or one per ``tensor``.
    """

    scale: Literal["channel", "tensor"] = "channel"


@final
class RoundToNearest(Perturbation):
    """Each weight rounded to a symmetric grid of 2^bits - 1 levels that ends at the largest weight; biases kept."""

    name = "quantize"
    title = "rounding to fewer bits"
    unit = "bits"
    lowest, highest = 2.0, 16.0
    identity = None
    random = False
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads"})
    settings_type: ClassVar[type[base.Settings]] = QuantizeSettings

    def require_dose(self, dose: float) -> None:
        """Raises ``UsageError`` if ``dose`` is not a whole number of bits in the domain."""
        super().require_dose(dose)
        if dose != round(dose):
            raise UsageError(
                "Bits come in whole numbers.",
                expected=f"{self.lowest:g}, {self.lowest + 1:g}, ... {self.highest:g} (bits)",
                got=f"{dose:g}",
            )

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights on the grid, as numbers of the original dtype."""
        weight = weights.weight
        # A channel is a row of what the module computes; an embedding's rows are its tokens.
        rows = weight.reshape(weight.shape[0], -1) if layer.kind == "embedding" else layer.matrix(weight)
        # In half precision the step of a row of small weights would be zero.
        rows = rows.float() if rows.dtype.itemsize < 4 else rows
        grid = _grid(rows if self.settings.scale == "channel" else rows.reshape(1, -1), bits=round(dose))
        rounded = (rows / grid).round_().mul_(grid).to(weight.dtype)
        stored = rounded if layer.kind == "embedding" else layer.stored(rounded)
        return Weights(stored.reshape(weight.shape), None)


def _grid(rows: Tensor, *, bits: int) -> Tensor:
    """Step of each row's grid; 1 where it is zero: there the weights are (nearly) zero and round to zero."""
    step = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return step.masked_fill_(step == 0, 1.0)
