"""WT103, WT104 and WT106: rounding to fewer bits, pruning, flipped bits."""

import math
from typing import final

from wheeltap.audits.modify import ModifyAudit, ModifySettings, Variant


class QuantizationSettings(ModifySettings, frozen=True, kw_only=True):
    """Bits per weight."""

    doses: tuple[float, ...] = (8, 6, 4, 3, 2)
    tested: float = 4


class PruningSettings(ModifySettings, frozen=True, kw_only=True):
    """Share of weights removed from each layer."""

    doses: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    tested: float = 0.3


@final
class QuantizationAudit(ModifyAudit):
    """Score lost when every weight is rounded to a grid of fewer bits."""

    name = "quantization"
    code = "WT103"
    title = "Rounding to fewer bits"
    settings_type = QuantizationSettings
    unit = "bits"

    def variants(self) -> tuple[Variant, ...]:
        """Per channel first; coarser and finer grids, 4-bit code books, activation-aware scaling."""
        doses = self._listed()
        return (
            Variant("", "quantize", doses, {"scale": "channel"}),
            Variant("one grid per tensor", "quantize", doses, {"scale": "tensor"}),
        )

    def severity(self, dose: float) -> float:
        """The step of the grid, as a share of the largest weight."""
        return 2.0**-dose

    def dose_of(self, severity: float) -> float:
        """Bits."""
        return -math.log2(severity)

    def label(self, variant: Variant, dose: float) -> str:
        """Bits and grid."""
        return f"{dose:g} bits {variant.label or 'per channel'}"


@final
class PruningAudit(ModifyAudit):
    """Score lost when the smallest weights of every layer are removed."""

    name = "pruning"
    code = "WT104"
    title = "Pruning the smallest weights"
    settings_type = PruningSettings
    unit = "share of weights removed"

    def variants(self) -> tuple[Variant, ...]:
        """By magnitude first."""
        doses = self._listed()
        return (Variant("", "prune", doses),)

    def label(self, variant: Variant, dose: float) -> str:
        """Share and rule."""
        return f"{dose:.0%} pruned{f', {variant.label}' if variant.label else ''}"
