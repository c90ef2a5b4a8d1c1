"""WT103, WT104 and WT106: rounding to fewer bits, pruning, flipped bits."""

import math
from typing import ClassVar, final

from wheeltap.audits.limits import Count
from wheeltap.audits.modify import ModifyAudit, ModifySettings, Variant
from wheeltap.core.records import Scalar

WITH_HEADS = ("o_proj", "c_attn", "q_proj", "query_key_value", "query", "q")
"""Layers by which attention whose heads are known is told from a plan alone: each has one of them."""


class QuantizationSettings(ModifySettings, frozen=True, kw_only=True):
    """Bits per weight."""

    doses: tuple[float, ...] = (8, 6, 4, 3, 2)
    tested: float = 4


class PruningSettings(ModifySettings, frozen=True, kw_only=True):
    """Share of weights removed from each layer."""

    doses: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    tested: float = 0.3


class BitFlipSettings(ModifySettings, frozen=True, kw_only=True):
    """Share of stored bits that flip: a memory's bit error rate.

    Few draws flip a bit that matters, so those of the format that is judged are many.

    Attributes:
        worst: Weights of each layer whose worst bit is flipped, where the worst are taken first.
    """

    doses: tuple[float, ...] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
    tested: float = 1e-6
    draws: Count = 64
    worst: tuple[float, ...] = (1, 4, 16)


@final
class QuantizationAudit(ModifyAudit):
    """Score lost when every weight is rounded to a grid of fewer bits."""

    name = "quantization"
    code = "WT103"
    title = "Rounding to fewer bits"
    brief = "Quantization"
    reads = (
        "The weights are rounded to fewer and fewer bits, as a smaller deployment would do. The bit width at "
        "which the score falls says how far this network can be compressed by plain rounding."
    )
    axis = "bits per weight (fewer to the right)"
    asks = "deployment"
    settings_type = QuantizationSettings
    unit = "bits"

    def variants(self) -> tuple[Variant, ...]:
        """Per channel first; then a coarser grid, finer ones, 4-bit formats, and large inputs spared."""
        doses = self._listed()
        few = tuple(dose for dose in doses if dose <= 4) or doses
        return (
            Variant("", "quantize", doses, {"scale": "channel"}),
            Variant("one grid per tensor", "quantize", doses, {"scale": "tensor"}),
            Variant("groups of 128", "quantize", few, {"scale": "group", "group": 128}),
            Variant("groups of 32", "quantize", few, {"scale": "group", "group": 32}),
            Variant("NF4, groups of 64", "quantize", (4,), {"scale": "group", "group": 64, "grid": "nf4"}),
            Variant("FP4, groups of 64", "quantize", (4,), {"scale": "group", "group": 64, "grid": "fp4"}),
            Variant(
                "large inputs spared, groups of 128",
                "quantize-aware",
                few,
                {"scale": "group", "group": 128},
                needs="inputs",
            ),
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
    brief = "Pruning"
    reads = (
        "The smallest weights are set to zero, a larger share at each step. Where the score falls says how much "
        "of the network plain pruning could remove."
    )
    axis = "share of weights set to zero"
    linear = True
    asks = "deployment"
    settings_type = PruningSettings
    unit = "share of weights removed"

    def variants(self) -> tuple[Variant, ...]:
        """By magnitude first; then by what is added to the output, in the 2:4 pattern, whole, and at random."""
        doses = self._listed()
        return (
            Variant("", "prune", doses),
            Variant("what adds least (Wanda)", "prune-wanda", doses, needs="inputs"),
            Variant("2 of every 4", "prune-nm", (0.5,)),
            Variant("whole units", "prune-units", doses[:3], needs="inputs"),
            Variant(
                "whole heads",
                "prune-heads",
                doses[:3],
                unit="share of each layer's heads removed, rounded to whole heads",
                layers=WITH_HEADS,
                needs="heads",
            ),
            Variant("at random", "prune-random", doses[:3], draws=self.settings.draws),
        )

    def label(self, variant: Variant, dose: float) -> str:
        """Share and rule."""
        return f"{dose:.0%} pruned{f', {variant.label}' if variant.label else ''}"


@final
class BitFlipAudit(ModifyAudit):
    """Score lost when stored bits flip, at random and worst first.

    Intervals allow for draws that hit harder than any that were made.
    """

    name = "bit-flips"
    code = "WT106"
    title = "Flipped bits"
    reads = (
        "Stored bits are flipped at random, as a faulty memory does, and then the worst ones on purpose. A "
        "floating-point weight can become enormous by one bit; an 8-bit whole number cannot."
    )
    axis = "share of stored bits flipped"
    asks = "deployment"
    settings_type = BitFlipSettings
    # The more weights, the more of them a rate hits.
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {
        "draws": 2, "doses": [1e-10, 1e-9, 1e-8, 1e-7], "tested": 1e-9,
    }  # fmt: skip
    unit = "share of bits flipped"

    def variants(self) -> tuple[Variant, ...]:
        """Any bit of float32 first; then bfloat16, int8, and the worst weights of int8."""
        doses, draws = self._listed(), self.settings.draws
        few = min(draws, 4)
        return (
            Variant("", "flip", doses, {"format": "float32"}, draws, rare=True),
            Variant("stored as bfloat16", "flip", doses, {"format": "bfloat16"}, few, rare=True),
            Variant("stored as int8", "flip", doses, {"format": "int8"}, few, rare=True),
            Variant(
                "int8, worst weights first",
                "flip-worst",
                self.settings.worst,
                {"format": "int8"},
                unit="weights of each layer flipped",
                needs="slopes",
            ),
        )

    def label(self, variant: Variant, dose: float) -> str:
        """Error rate and format."""
        if variant.perturbation == "flip-worst":
            return f"{dose:g} weights of each layer flipped, {variant.label}"
        return f"{dose:.0e} of all bits flipped{f', {variant.label}' if variant.label else ' (float32)'}"
