"""Flipped bits of stored weights.

A weight is stored in a *format*: as a floating point number, or as a byte on a symmetric grid of its channel. A flip
changes the stored number r to f; the weight w becomes f where the format holds it exactly, and w + (f - r) where it
does not, so that only flips disturb and a dose of 0 changes nothing. Weights may become infinite or NaN.

Source: Rakin et al. (2019), "Bit-Flip Attack", arXiv 1903.12269, section 3 (worst flips by first order).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import ClassVar, Literal, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.core.typed import to_tensor
from wheeltap.perturb.base import Draw, Perturbation, Slopes, Weights, at_least_single, to_rows
from wheeltap.perturb.ties import Marks, least


class _Format(NamedTuple):
    """How many bits of a format are what, from the lowest: ``mantissa``, ``exponent``, then one of sign."""

    number: torch.dtype
    code: torch.dtype
    mantissa: int
    exponent: int

    @property
    def bits(self) -> int:
        return self.mantissa + self.exponent + 1


FORMATS = {
    "float32": _Format(torch.float32, torch.int32, 23, 8),
    "bfloat16": _Format(torch.bfloat16, torch.int16, 7, 8),
    "int8": _Format(torch.int8, torch.int8, 7, 0),
}
"""In ``int8`` the mantissa is what is below the sign of a number in two's complement."""

_TOP = 127
"""The largest number on the grid of ``int8``."""


class FlipSettings(Settings, frozen=True, kw_only=True):
    """Settings of flipped bits.

    Attributes:
        format: How the weights are stored: ``float32``, ``bfloat16``, or ``int8`` (two's complement, on a symmetric
            grid per output channel, or per token of an embedding).
    """

    format: Literal["float32", "bfloat16", "int8"] = "float32"


@dataclass(frozen=True)
class _StoredWeights:
    """Some weights as they are stored.

    Attributes:
        weight: ``[weight]``, in at least single precision.
        step: ``[weight]``: what one step of ``int8`` is worth.
    """

    form: _Format
    weight: Tensor
    step: Tensor | None

    @cached_property
    def codes(self) -> Tensor:
        """The stored bits, as integers."""
        if self.step is None:
            return self.weight.to(self.form.number).view(self.form.code)
        return (self.weight / self.step).round_().to(torch.int8)

    @cached_property
    def before(self) -> Tensor:
        """The numbers that are stored."""
        return self._numbers(self.codes)

    def flipped(self, masks: Tensor) -> Tensor:
        """The weights after the bits of ``masks`` were flipped."""
        after = self._numbers(self.codes ^ masks)
        return torch.where(self.before == self.weight, after, self.weight + (after - self.before))

    def rise(self, bit: int, slope: Tensor) -> Tensor:
        """By how much one bit's flip raises the loss, to first order; infinite where the weight is not finite then."""
        change = self._numbers(self.codes ^ _mask(bit, self.codes)) - self.before
        rise = slope * change
        if self.form.mantissa <= bit < self.form.bits - 1:
            rise = torch.where(change.isfinite(), rise, math.inf).masked_fill_(slope == 0, 0.0)
        return rise

    def _numbers(self, codes: Tensor) -> Tensor:
        if self.step is not None:
            return codes.to(self.weight.dtype) * self.step
        return codes.view(self.form.number).to(self.weight.dtype)


def _mask(bit: int, like: Tensor) -> Tensor:
    """The code with one bit set; that of a sign wraps round."""
    return torch.tensor(1 << bit).to(like)


def _reader(layer: Layer, weight: Tensor, form: _Format) -> Callable[[Tensor | slice], _StoredWeights]:
    """What reads a layer's weights at some places, in the order in which the module stores them."""
    flat = weight.reshape(-1)
    if form.number != torch.int8:
        return lambda at: _StoredWeights(form, at_least_single(flat[at]), None)
    rows = at_least_single(to_rows(layer, weight))
    step = rows.abs().amax(1) / _TOP
    step.masked_fill_(step == 0, 1.0)
    every = 1 if layer.kind == "transposed" else rows.shape[1]  # so many weights in a row have one step
    if layer.kind in ("conv_transposed", "stacked"):  # the module stores rows in pieces
        step, every = layer.stored(step[:, None].expand_as(rows)).reshape(-1), 1

    def read(at: Tensor | slice) -> _StoredWeights:
        places = at if isinstance(at, Tensor) else torch.arange(at.start, at.stop, device=flat.device)
        own = step[torch.div(places, every, rounding_mode="floor") % len(step)]
        return _StoredWeights(form, at_least_single(flat[at]), own)

    return read


class Flips(Perturbation):
    """What all flips share: any bit may flip, of weights and never of biases."""

    settings_type: ClassVar[type[Settings]] = FlipSettings
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})


@final
class RandomFlips(Flips):
    """Each bit flips with the dose as probability, on its own: the bit error rate of the memory; biases kept."""

    name = "flip"
    title = "bits flipped at random"
    unit = "share of bits"
    lowest, highest = 0.0, 1.0

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the drawn bits flipped; the cost grows with the number of flips alone."""
        weight, form = weights.weight, FORMATS[self.settings.format]
        read, found = _reader(layer, weight, form), weight.flatten().clone()
        stream = seeds.generator(draw.root, "flip", draw.seed, layer.weight)
        for places, masks in _by_weight(_hits(stream, weight.numel() * form.bits, dose), form.bits):
            at = to_tensor(places).to(weight.device)
            # Hits of one weight never are in two parts, so each is read as it was.
            found[at] = read(at).flipped(to_tensor(masks).to(weight.device, form.code)).to(weight.dtype)
        return Weights(found.reshape(weight.shape), None)


@final
class WorstFlips(Flips):
    """As many weights of each layer as the dose says have one bit flipped: those that raise the loss most; biases kept.

    How much a flip raises the task's mean loss is the first-order term, slope x change, and each weight's worst bit
    counts. A flip to infinity or NaN is worst of all, so ``format="int8"`` says more than a floating point one. Which
    of equally bad ones are flipped is said in ``ties``.
    """

    name = "flip-worst"
    version = 2  # since 2 a permuted copy has the same of equally bad weights flipped
    title = "worst bits flipped first"
    unit = "weights of each layer"
    lowest, highest = 0.0, 1e6
    whole = "Flipped weights"
    random = False
    needs = "slopes"

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the worst flipped."""
        if not isinstance(draw.known, Slopes):
            raise ModelError("The worst flips need the slopes of the loss.", where=layer.name)
        weight, form = weights.weight, FORMATS[self.settings.format]
        read, found = _reader(layer, weight, form), weight.flatten().clone()
        slopes = draw.known.weight.reshape(-1).to(at_least_single(found[:1]))
        rises = torch.empty_like(slopes)
        for start in range(0, len(slopes), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(slopes)))
            stored, slope = read(part), slopes[part]
            rises[part] = reduce(torch.maximum, (stored.rise(bit, slope) for bit in range(form.bits)))
        marks = Marks(weight.reshape(len(weight), -1))
        at = least(rises.neg_(), min(round(dose), len(slopes)), marks.at).nonzero()[:, 0]
        stored, slope = read(at), slopes[at]
        worst, masks = torch.full_like(slope, -math.inf), torch.zeros_like(stored.codes)
        for bit in range(form.bits):  # of equally bad ones the lowest
            rise = stored.rise(bit, slope)
            masks = torch.where(rise > worst, _mask(bit, masks), masks)
            worst = torch.maximum(worst, rise)
        found[at] = stored.flipped(masks).to(weight.dtype)
        return Weights(found.reshape(weight.shape), None)


_PART = 1 << 20
"""Hits drawn at a time."""

_CHUNK = 1 << 15
"""Weights looked at together: what they need on the way stays in the processor's cache."""


def _hits(stream: np.random.Generator, count: int, probability: float) -> Iterator[NDArray[np.int64]]:
    """Which of ``count`` things happen, each on its own, in rising order and in parts.

    The gaps between them are geometric, so that one number is drawn for each that happens and none for the others.
    """
    if probability == 0:
        return
    rate = math.log1p(-probability) if probability < 1 else -math.inf
    last = -1
    while last < count:
        size = min(int((count - last) * probability * 1.1) + 64, _PART)
        with np.errstate(over="ignore"):
            gaps = np.minimum(np.log1p(-stream.random(size)) / rate, count).astype(np.int64) + 1
        places = last + np.cumsum(gaps)
        last = int(places[-1])
        yield places[places < count]


def _by_weight(parts: Iterator[NDArray[np.int64]], bits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Hits among ``weight x bit`` as the weights hit, each once, and the mask of their bits."""
    kept = np.zeros(0, dtype=np.int64)
    ended = False
    while not ended:
        part = next(parts, None)
        ended = part is None
        hits = kept if part is None else np.concatenate([kept, part])
        places = hits // bits
        # The last weight may be hit again by the next part.
        whole = len(hits) if ended else int(np.count_nonzero(places < places[-1:]))
        kept, hits, places = hits[whole:], hits[:whole], places[:whole]
        if len(hits):
            first = np.flatnonzero(np.diff(places, prepend=-1))
            masks = np.left_shift(np.int64(1), hits % bits)
            yield places[first], np.bitwise_or.reduceat(masks, first)
