"""Storing weights in a 16-bit floating point type."""

from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import Draw, Perturbation, Weights


class CastSettings(Settings, frozen=True, kw_only=True):
    """Settings of storing weights in another type.

    Attributes:
        dtype: ``bfloat16`` (8 bits of exponent, 7 of mantissa) or ``float16`` (5 and 10).
    """

    dtype: Literal["bfloat16", "float16"] = "bfloat16"


@final
class Cast(Perturbation):
    """Weights and biases rounded to the nearest number of a 16-bit type, half-way ones to an even mantissa.

    What deployment does that loads a checkpoint in 16 bits, as far as weights go: the arithmetic stays that of the
    model, and so do parameters in no layer. In float16 sizes of 65,520 or more become infinite, so the outputs are not
    finite and the trial has diverged; those below 6e-8 become less exact down to zero. A model that is stored in the
    type already is left as it is.
    """

    name = "cast"
    title = "storing in 16 bits"
    unit = "bits"
    lowest, highest = 16.0, 16.0
    identity = None
    random = False
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads"})
    settings_type: ClassVar[type[Settings]] = CastSettings

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The rounded weights and bias, as numbers of the original dtype."""
        dtype = torch.bfloat16 if self.settings.dtype == "bfloat16" else torch.float16
        bias = None if weights.bias is None else _through(weights.bias, dtype)
        return Weights(_through(weights.weight, dtype), bias)


def _through(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor stored as ``dtype`` and read again; never the tensor itself."""
    return tensor.to(dtype).to(tensor.dtype, copy=True)
