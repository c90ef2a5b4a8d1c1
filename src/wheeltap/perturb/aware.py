"""Quantisation that looks at a layer's inputs first.

Source: Lin et al. (2023), "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978, section 3.2 (eq. 4 and 5).
They scale inputs by their mean magnitude and measure the error of outputs on samples; here both come from the inputs'
root mean squares, as if inputs were uncorrelated.
"""

from typing import Annotated, ClassVar, final

from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import Draw, InputScale, Weights
from wheeltap.perturb.quantize import Quantization, QuantizeSettings
from wheeltap.perturb.rows import at_least_single, from_rows, to_rows

_SILENT = 1e-4
"""Inputs are taken to be at least this large, relative to the largest: one that is 0 on the task has no scale."""


class AwareSettings(QuantizeSettings, frozen=True, kw_only=True):
    """Settings of activation-aware quantization.

    Attributes:
        exponents: How many exponents of the inputs' scale are tried, evenly from 0 (plain rounding) to 1.
    """

    exponents: Annotated[int, Meta(ge=2, le=64)] = 6


@final
class AwareRounding(Quantization):
    """Weights rounded after those of large inputs were made larger, and made smaller again: what AWQ does.

    Each layer's inputs have a scale rms^e; of the exponents e from 0 to 1 the one is taken that changes the layer's
    outputs least. Biases are kept; embeddings, whose inputs are single tokens, are rounded plainly; layers whose inputs
    are not known (tied ones, grouped convolutions) are left as they are.
    """

    name = "quantize-aware"
    title = "rounding to fewer bits, large inputs spared"
    needs = "inputs"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})
    settings_type: ClassVar[type[Settings]] = AwareSettings

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights on the grid of the best exponent, as numbers of the original dtype."""
        if not isinstance(draw.known, InputScale):
            raise ModelError("Activation-aware rounding needs the size of the layer's inputs.", where=layer.name)
        rows = at_least_single(to_rows(layer, weights.weight))
        rms = draw.known.rms.to(rows)
        plain = layer.kind == "embedding" or not bool(rms.any())
        rounded = self.rounded(rows, round(dose)) if plain else self._best(rows, rms, round(dose))
        return Weights(from_rows(layer, rounded.to(weights.weight.dtype)), None)

    def _best(self, rows: Float[Tensor, "row in"], rms: Float[Tensor, " in"], bits: int) -> Float[Tensor, "row in"]:
        """Of the rows rounded at each exponent, those with the least error of outputs; the least exponent of equals."""
        best, least = rows, float("inf")
        size = rms.clamp_min(_SILENT * float(rms.max()))
        for step in range(self.settings.exponents):
            scale = size ** (step / (self.settings.exponents - 1))
            scale /= (scale.max() * scale.min()).sqrt()  # so that the scaled weights are neither huge nor tiny
            rounded = self.rounded(rows * scale, bits).div_(scale)
            error = float((rows - rounded).mul_(rms).square_().sum())
            if error < least:
                best, least = rounded, error
        return best
