"""Quantization: weights rounded to few bits, alone or with activations, or stored in 16 bits.

Source: Dettmers et al. (2023), "QLoRA", arXiv 2305.14314, appendix E (NF4); Open Compute Project (2023),
"Microscaling Formats", section 5.3.3 (FP4, E2M1); Micikevicius et al. (2022), "FP8 Formats for Deep Learning", arXiv
2209.05433, table 1 (E4M3); Dettmers et al. (2022), "LLM.int8()", arXiv 2208.07339, section 2.1, and Yao et al. (2022),
"ZeroQuant", arXiv 2206.01861, section 4.1 (inputs token by token); Liu et al. (2024), "KIVI", arXiv 2402.02750,
section 3.1 (keys and values token by token); Lin et al. (2023), "AWQ: Activation-aware Weight Quantization", arXiv
2306.00978, section 3.2 (eq. 4 and 5). AWQ scales inputs by their mean magnitude and measures the error of outputs on
samples; here both come from the inputs' root mean squares, as if inputs were uncorrelated.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, Final, Literal, final

import torch
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import (
    Draw,
    InputScale,
    Perturbation,
    Weights,
    at_least_single,
    from_rows,
    grouped,
    to_rows,
    ungrouped,
)

Codebook = Literal["nf4", "fp4", "e4m3"]

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution scaled to [-1, 1], with an exact zero."""

LARGEST: dict[Codebook, float] = {"nf4": 1.0, "fp4": 6.0, "e4m3": 448.0}
"""The largest number of each format."""

_BITS: dict[Codebook, int] = {"nf4": 4, "fp4": 4, "e4m3": 8}

_BINS = 64
_CHUNK = 65_536
"""Numbers rounded at a time: what they need on the way stays in the processor's cache."""


def snap(scaled: Tensor, codebook: Codebook) -> Tensor:
    """``scaled``, none beyond the format's largest number, rounded in place to the nearest number of the format."""
    flat = scaled.view(-1)
    rounded: Callable[[Tensor], Tensor] = (
        _nearest(NF4, like=scaled) if codebook == "nf4" else _fp4 if codebook == "fp4" else _e4m3
    )
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        part.copy_(rounded(part))
    return scaled


def _nearest(values: tuple[float, ...], *, like: Tensor) -> Callable[[Tensor], Tensor]:
    """Rounds to the nearest of sorted values in [-1, 1]; to the lower one where two are as near.

    A number's place on a fine uniform grid gives the two values and the midpoint between them that it can be nearest
    to, so that it is compared once and not, as in a binary search, four times (six times faster on a CPU).
    """
    table = torch.tensor(values, dtype=like.dtype, device=like.device)
    middles = (table[1:] + table[:-1]) / 2
    edges = torch.linspace(-1, 1, _BINS + 1, dtype=like.dtype, device=like.device)[:-1]
    below = torch.searchsorted(middles, edges)
    ends = torch.cat([middles, torch.full_like(middles[:1], torch.inf)])
    lower, upper, middle = table[below], table[(below + 1).clamp_max(len(values) - 1)], ends[below]

    def rounded(scaled: Tensor) -> Tensor:
        at = scaled.add(1.0).mul_(_BINS / 2).clamp_(0, _BINS - 1).int()
        low, high = lower.index_select(0, at), upper.index_select(0, at)
        return torch.where(scaled > middle.index_select(0, at), high, low)

    return rounded


def _fp4(scaled: Tensor) -> Tensor:
    """Steps of .5 up to 2, of 1 up to 4, of 2 up to 6; halfway to the number whose mantissa bit is 0."""
    size = scaled.abs()
    step = (size >= 2).to(scaled.dtype).mul_(0.5).add_(0.5).add_(size >= 4)
    return (scaled / step).round_().mul_(step)


def _e4m3(scaled: Tensor) -> Tensor:
    """Three bits of mantissa down to 2^-6, then steps of 2^-9; halfway to the number whose last bit is 0."""
    return scaled.clamp(-448.0, 448.0).to(torch.float8_e4m3fn).to(scaled.dtype)


GROUP = 128
"""Inputs that share a scale where nothing else is said: what GPTQ, AWQ and most 4-bit files use."""


class QuantizeSettings(Settings, frozen=True, kw_only=True):
    """Settings of quantization.

    Attributes:
        scale: One grid per output ``channel`` (per token, for an embedding), one per ``tensor``, or one per ``group``
            of consecutive inputs of a channel.
        group: Inputs in a group; the last group of a channel has what is left.
        grid: ``int`` (levels of equal distance), or a format: ``nf4`` and ``fp4`` (E2M1) of 4 bits, ``e4m3`` of 8.
    """

    scale: Literal["channel", "tensor", "group"] = "channel"
    group: Annotated[int, Meta(ge=2)] = GROUP
    grid: Literal["int", "nf4", "fp4", "e4m3"] = "int"

    def __post_init__(self) -> None:
        if self.group != GROUP and self.scale != "group":
            raise ValueError(f"group={self.group} without scale='group'")


class Quantization(Perturbation):
    """What all quantisations share: doses are bits, and no dose leaves the weights as they are."""

    unit = "bits"
    lowest, highest = 2.0, 16.0
    whole = "Bits"
    identity = None
    random = False
    settings_type: ClassVar[type[Settings]] = QuantizeSettings

    def require_dose(self, dose: float) -> None:
        """Raises ``UsageError`` if ``dose`` is not a whole number of bits in the domain, or not what the grid has."""
        super().require_dose(dose)
        bits = _BITS.get(self.settings.grid, dose)
        if dose not in (bits, self.identity):
            raise UsageError(
                f"This number format has {bits} bits.",
                expected=f"dose {bits} with grid={self.settings.grid!r}",
                got=f"{dose:g}",
                do=f"Choose dose {bits}, or grid='int' for other numbers of bits.",
            )

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights on the grid, as numbers of the original dtype."""
        rows = at_least_single(to_rows(layer, weights.weight))
        return Weights(from_rows(layer, self.rounded(rows, round(dose)).to(weights.weight.dtype)), None)

    def rounded(self, rows: Float[Tensor, "row in"], bits: int) -> Float[Tensor, "row in"]:
        """Rows, in at least single precision, on the grid that the settings name; ``rows`` are left alone."""
        match self.settings.scale:
            case "channel":
                return self.on_grid(rows, bits)
            case "tensor":
                return self.on_grid(rows.reshape(1, -1), bits).reshape(rows.shape)
            case _:
                return ungrouped(self.on_grid(grouped(rows, self.settings.group), bits), like=rows)

    def on_grid(self, rows: Float[Tensor, "row in"], bits: int) -> Float[Tensor, "row in"]:
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


@final
class InputRounding(Quantization):
    """Weights of linear maps rounded, and what they are given, each token (row) on a grid that ends at its largest.

    Products are those of the rounded numbers, in the arithmetic of the model: with 8 bits what int8 kernels compute, as
    far as sums are exact. What is no linear map (embeddings, convolutions, experts in one tensor) is left alone, and so
    are maps whose weight is used in more than one place. At 16 bits all is as it was.
    """

    name = "quantize-inputs"
    title = "rounding weights and inputs to fewer bits"
    identity = 16.0
    changes = "inputs"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})

    def accepts(self, layer: Layer) -> bool:
        """Linear maps, of GPT-2's storing too, whose weight is used in one place."""
        return layer.kind in ("linear", "transposed") and not layer.tied

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights on the grid, as numbers of the original dtype."""
        if dose == self.identity:
            return Weights(weights.weight.clone(), None)
        return super().replace(layer, weights, dose, draw)

    def activation(self, values: Tensor, dose: float) -> Tensor:
        """Each row of inputs on a grid of its own."""
        if dose == self.identity or not values.numel():
            return values
        rows = at_least_single(values.reshape(-1, values.shape[-1]))
        return self.on_grid(rows, round(dose)).to(values.dtype).reshape(values.shape)


@final
class CacheRounding(Perturbation):
    """Keys and values rounded where a model caches them, each token and head on 2^bits levels from least to largest.

    Every token's are, as soon as they are computed, and are read rounded from then on: also by the token itself, and in
    the pass over a prompt. No weight is changed. At 16 bits nothing is.
    """

    name = "quantize-cache"
    title = "rounding keys and values to fewer bits"
    unit = "bits"
    lowest, highest = 2.0, 16.0
    whole = "Bits"
    identity = 16.0
    random = False
    changes = "cache"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})

    def accepts(self, layer: Layer) -> bool:
        """No weight is rounded."""
        return False

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights as they are."""
        return weights

    def activation(self, values: Tensor, dose: float) -> Tensor:
        """Keys or values ``[..., head size]``, in steps of (largest - least) / (2^bits - 1) from the least."""
        if dose == self.identity or not values.numel():
            return values
        rows = at_least_single(values)
        least, most = rows.aminmax(dim=-1, keepdim=True)
        step = (most - least) / (2 ** round(dose) - 1)
        step = step.masked_fill(step == 0, 1.0)
        return ((rows - least) / step).round_().mul_(step).add_(least).to(values.dtype)


_SILENT = 1e-4
"""Inputs are taken to be at least this large, relative to the largest: one that is 0 on the task has no scale."""


_EXPONENTS: Final = 6
"""Exponents of the inputs' scale that are tried, evenly from 0 (plain rounding) to 1."""


@final
class ScaledRoundToNearest(Quantization):
    """Weights rounded after those of large inputs were made larger, and made smaller again: what AWQ does.

    Each layer's inputs have a scale rms^e; of the exponents e from 0 to 1 the one is taken that changes the layer's
    outputs least. Biases are kept; embeddings, whose inputs are single tokens, are rounded plainly; layers whose inputs
    are not known (tied ones, grouped convolutions) are left as they are.
    """

    name = "quantize-aware"
    title = "rounding to fewer bits, large inputs spared"
    needs = "inputs"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})

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
        for step in range(_EXPONENTS):
            scale = size ** (step / (_EXPONENTS - 1))
            scale /= (scale.max() * scale.min()).sqrt()  # so that the scaled weights are neither huge nor tiny
            rounded = self.rounded(rows * scale, bits).div_(scale)
            error = float((rows - rounded).mul_(rms).square_().sum())
            if error < least:
                best, least = rounded, error
        return best


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
