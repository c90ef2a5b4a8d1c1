"""Round-to-nearest quantization."""

from typing import Annotated, ClassVar, Literal, final

from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from wheeltap.core.errors import UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import Draw, Perturbation, Weights
from wheeltap.perturb.codebooks import LARGEST, snap
from wheeltap.perturb.rows import at_least_single, from_rows, grouped, to_rows, ungrouped

GROUP = 128
"""Inputs that share a scale where nothing else is said: what GPTQ, AWQ and most 4-bit files use."""


class QuantizeSettings(Settings, frozen=True, kw_only=True):
    """Settings of quantization.

    Attributes:
        scale: One grid per output ``channel`` (per token, for an embedding), one per ``tensor``, or one per ``group``
            of consecutive inputs of a channel.
        group: Inputs in a group; the last group of a channel has what is left.
        grid: ``int`` (levels of equal distance), or the formats ``nf4`` and ``fp4`` (E2M1), which have 4 bits.
    """

    scale: Literal["channel", "tensor", "group"] = "channel"
    group: Annotated[int, Meta(ge=2)] = GROUP
    grid: Literal["int", "nf4", "fp4"] = "int"

    def __post_init__(self) -> None:
        if self.group != GROUP and self.scale != "group":
            raise ValueError(f"group={self.group} without scale='group'")


class Quantization(Perturbation):
    """What all quantisations share: doses are bits, and no dose leaves the weights as they are."""

    unit = "bits"
    lowest, highest = 2.0, 16.0
    identity = None
    random = False
    settings_type: ClassVar[type[Settings]] = QuantizeSettings

    def require_dose(self, dose: float) -> None:
        """Raises ``UsageError`` if ``dose`` is not a whole number of bits in the domain, or not what the grid has."""
        super().require_dose(dose)
        if dose != round(dose):
            raise UsageError(
                "Bits come in whole numbers.",
                expected=f"{self.lowest:g}, {self.lowest + 1:g}, ... {self.highest:g} (bits)",
                got=f"{dose:g}",
            )
        if self.settings.grid != "int" and dose != 4:
            raise UsageError(
                "This number format has 4 bits.",
                expected=f"dose 4 with grid={self.settings.grid!r}",
                got=f"{dose:g}",
                do="Choose dose 4, or grid='int' for other numbers of bits.",
            )

    def rounded(self, rows: Float[Tensor, "row in"], bits: int) -> Float[Tensor, "row in"]:
        """Rows, in at least single precision, on the grid that the settings name; ``rows`` are left alone."""
        match self.settings.scale:
            case "channel":
                return self._on_grid(rows, bits)
            case "tensor":
                return self._on_grid(rows.reshape(1, -1), bits).reshape(rows.shape)
            case _:
                return ungrouped(self._on_grid(grouped(rows, self.settings.group), bits), like=rows)

    def _on_grid(self, rows: Float[Tensor, "row in"], bits: int) -> Float[Tensor, "row in"]:
        """Each row on a grid of its own, which ends at its largest weight."""
        grid = self.settings.grid
        step = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1 if grid == "int" else LARGEST[grid])
        # Where it is zero the weights are (nearly) zero and round to zero.
        step = step.masked_fill_(step == 0, 1.0)
        scaled = (rows / step).contiguous()
        return (scaled.round_() if grid == "int" else snap(scaled, grid)).mul_(step)


@final
class RoundToNearest(Quantization):
    """Each weight rounded to a symmetric grid of 2^bits - 1 levels that ends at the largest weight; biases kept.

    Groups follow the order of inputs: with ``scale="group"`` copies with permuted units are disturbed alike in
    distribution only, and only as far as neighbours have no more in common than other inputs.
    """

    name = "quantize"
    title = "rounding to fewer bits"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights on the grid, as numbers of the original dtype."""
        rows = at_least_single(to_rows(layer, weights.weight))
        return Weights(from_rows(layer, self.rounded(rows, round(dose)).to(weights.weight.dtype)), None)
