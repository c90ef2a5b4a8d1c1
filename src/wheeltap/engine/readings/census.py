"""The census of weights: every parameter and buffer is read once, and what stands out by its size is named."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import inner, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings.census import BITS, CENSUS, CensusSettings

Places = NDArray[np.int64]
"""Indices ``[value, axis]`` into a tensor."""

_BLOCK: Final = 2**22
"""Values that are looked at together."""

_TOP: Final = 32
"""Largest values of a tensor that are looked at one by one."""

_SAMPLE: Final = 4096
"""Values of which the median of a tensor's sizes is taken; of a smaller tensor, all."""

_ACROSS: Final = 4
"""Values along the longest axis, and in all others together, from which a tensor is no vector: each value has neighbors
that a factor of its row or of its column makes as large."""

_CROWD: Final = 8
"""One in so many of the values that were looked at may stand out: more are a part of the tensor."""

_SET: Final = 1.0
"""Log2 of the least number of which the top bit of the exponent is set: 2, in every format. What is below it is no
corrupt weight that differs from a sound one: of a layer that training let vanish, one value may be left."""

_DIGITS: Final = {2: 1, 4: 3, 8: 3}
"""By bytes: decimal digits with which a number of a buffer was written by hand (1e9, say), not computed."""

_HALF: Final = torch.finfo(torch.float16).max
"""The largest number of float16."""


@final
@dataclass(frozen=True)
class _Tensor:
    """One parameter or buffer, and what was read of it.

    Attributes:
        learned: Whether it is a parameter.
        top: The largest sizes, log2, falling.
        places: Where they are.
        median: Of its sizes that are not zero, log2.
        strange: Where it holds NaN.
        rows: How many it has, with two axes or more; ``dead`` of them zero, ``repeated`` like an earlier one.
        over: How many values float16 cannot hold.
    """

    name: str
    values: Tensor
    learned: bool
    top: NDArray[np.float64]
    places: Places
    median: float
    strange: Places
    rows: int
    dead: int
    repeated: int
    over: int

    @property
    def vector(self) -> bool:
        """Whether too few values are along a second axis, so that one factor may be all of a value's size."""
        longest = max(self.values.shape, default=1)
        return longest < _ACROSS or self.values.numel() // longest < _ACROSS


class WeightOutlier(NamedTuple):
    """A weight that stands out by its size.

    Attributes:
        size: Log2; ``nan`` where it is no number.
        beyond: Bits beyond the next largest of its tensor, and of its row; ``None`` where there is none.
    """

    name: str
    place: tuple[int, ...]
    value: float
    size: float
    beyond: tuple[float | None, float | None]

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(map(str, self.place))}] = {self.value:.2g}"


@final
class WeightCensus(Reading):
    """What stands out among all weights and buffers by its size.

    A weight stands out where it is so much larger than the next largest value of its tensor as the settings say. That
    is read in logarithms, and the tail of the tensor counts: a rescaled copy, massive features and heavy tails have
    many large values or a way up to them, one corrupt exponent has none. Where several stand out, two of them on one
    line (row, column) and alike in size are a part of the tensor. Numbers of buffers that were written by hand are
    none of these, nor are their infinities: masks hold them on purpose.
    """

    spec = CENSUS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """No pass: the weights are read, block by block."""
        rng = seeds.generator(root, self.name, seed)
        tensors = list(_read(subject.model, rng))
        found = _outliers(tensors, self.settings)
        tried, seen = _flips(tensors, self.settings, rng)
        named = found[: self.settings.name]
        letters = np.zeros((len(named), max((len(one.name) for one in named), default=0)))
        places = np.full((len(named), max((len(one.place) for one in named), default=0)), -1.0)
        for at, one in enumerate(named):
            letters[at, : len(one.name)] = [ord(letter) for letter in one.name]
            places[at, : len(one.place)] = one.place
        number = [math.isfinite(one.value) for one in named]
        parts = [math.frexp(one.value if known else 0.0) for one, known in zip(named, number, strict=True)]
        beyond = [[-1.0 if bits is None else bits for bits in one.beyond] for one in named]
        values: dict[str, Any] = {
            "outliers": len(found), "tensors": len(tensors), "letters": letters, "places": places, "number": number,
            "values": np.array(parts).reshape(-1, 2), "beyond": np.array(beyond).reshape(-1, 2),
            "tried": tried, "seen": seen,
        }  # fmt: skip
        values |= {name: sum(getattr(one, name) for one in tensors) for name in ("rows", "dead", "repeated", "over")}
        return Readings({name: np.asarray(value, dtype=np.float64) for name, value in values.items()}, 0.0)


def outliers(model: nn.Module) -> list[WeightOutlier]:
    """What stands out in a model: what is no number first, then the largest."""
    return _outliers(list(_read(model, seeds.generator(0, CENSUS.name, 0))), CensusSettings())


# ---- reading --------------------------------------------------------------------------------------------------


def _read(model: nn.Module, rng: np.random.Generator) -> Iterator[_Tensor]:
    """Every parameter and buffer of floating point, a shared one once."""
    for learned, held in ((True, model.named_parameters()), (False, model.named_buffers())):
        for name, tensor in held:
            if not inner(tensor) and tensor.is_floating_point() and tensor.layout is torch.strided and tensor.numel():
                yield _scanned(name, tensor.detach(), learned, rng)


def _scanned(name: str, tensor: Tensor, learned: bool, rng: np.random.Generator) -> _Tensor:
    wide = tensor if tensor.ndim >= 2 else tensor.reshape(1, -1)
    several = len(wide) if tensor.ndim >= 2 else 0
    # Of each row its largest finite size, whether it holds NaN, and a digest of its bits.
    size, over = wide[0].numel(), 0
    step = max(_BLOCK // size, 1)
    read: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(wide), step):
        block = wide[start : start + step].reshape(-1, size)
        block = block.float() if block.dtype.itemsize < 2 else block  # of these torch computes nothing
        # A sum of each row's bits that differs where rows do, but for one pair in 2**64.
        signs = to_tensor(seeds.generator(0, "census", "rows").integers(-(2**62), 2**62, size) | 1)
        bits = block.contiguous().view(_BITS[block.dtype.itemsize])
        digests = (bits * signs.to(block.device)).sum(1)
        low, high = torch.aminmax(block, dim=1)
        sizes = torch.maximum(high, -low)
        nan = sizes.isnan()
        if not bool(sizes.isfinite().all()):
            block = torch.where(block.isfinite(), block, torch.zeros_like(block))
            sizes = block.abs().amax(1)
        sizes = sizes.double()  # in 16 bits the limit itself would be rounded
        read.append((sizes, nan, digests))
        if bool((sizes > _HALF).any()):
            over += int((block.double().abs() > _HALF).sum())
    largest, holds_nan, marks = (torch.cat(some).cpu().numpy() for some in zip(*read, strict=True))
    top, places = _largest(tensor, wide, largest)
    strange = [(row, *at) for row in np.flatnonzero(holds_nan) for at in np.argwhere(np.isnan(_plain(wide[row])))]
    alive = marks[largest > 0.0]
    drawn = np.abs(_drawn(tensor, _SAMPLE, rng)[0])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0.0)]
    median = float(np.median(np.log2(drawn))) if drawn.size else 0.0
    return _Tensor(
        name=name, values=tensor, learned=learned, top=top, places=places, median=median,
        strange=np.array(strange, dtype=np.int64).reshape(-1, wide.ndim)[:, -max(tensor.ndim, 1) :], rows=several,
        dead=int((largest == 0.0).sum()) if several else 0,
        repeated=len(alive) - len(np.unique(alive)) if several else 0, over=over,
    )  # fmt: skip


_BITS: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of as many bytes."""


def _plain(values: Tensor) -> NDArray[np.float64]:
    return values.detach().double().cpu().numpy()


def _largest(tensor: Tensor, wide: Tensor, largest: NDArray[np.float64]) -> tuple[NDArray[np.float64], Places]:
    """The largest finite sizes (log2) of a tensor but for zeros, falling, and where they are.

    Args:
        tensor: The values.
        wide: The same with two axes or more.
        largest: Of each row.
    """
    rows = np.sort(np.argsort(-largest, kind="stable")[:_TOP])
    some = wide[to_tensor(rows).to(tensor.device)].reshape(-1)
    some = (some.float() if some.dtype.itemsize < 2 else some).abs()
    found = torch.topk(torch.where(some.isfinite(), some, torch.zeros_like(some)), min(_TOP, some.numel()))
    sizes, at = found.values.double().cpu().numpy(), found.indices.cpu().numpy()
    sizes, at = sizes[sizes > 0.0], at[sizes > 0.0]
    flat = rows[at // wide[0].numel()] * wide[0].numel() + at % wide[0].numel()
    return np.log2(sizes), np.stack(np.unravel_index(flat, tensor.shape or (1,)), axis=1).astype(np.int64)


def _drawn(tensor: Tensor, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], Places]:
    """So many values at random and where they are; all of a smaller tensor."""
    whole = tensor.numel() <= count
    flat = np.arange(tensor.numel()) if whole else rng.integers(tensor.numel(), size=count)
    places = np.unravel_index(flat, tensor.shape or (1,))
    held = tensor.reshape(1) if tensor.ndim == 0 else tensor
    return _plain(held[tuple(to_tensor(axis).to(tensor.device) for axis in places)]), np.stack(places, axis=1)


# ---- judging --------------------------------------------------------------------------------------------------


def _needed(one: _Tensor, most: float, others: int, settings: CensusSettings) -> float:
    """Bits by which a value must exceed the largest of so many others."""
    bits = settings.vector if one.vector or not one.learned else settings.matrix
    return max(bits, settings.tail * (most - one.median), settings.few / max(others, 1))


def _outliers(tensors: Sequence[_Tensor], settings: CensusSettings) -> list[WeightOutlier]:
    found: list[WeightOutlier] = []
    for one in tensors:  # what is no number, and what stands out
        found += [WeightOutlier(one.name, tuple(at.tolist()), math.nan, math.nan, (None, None)) for at in one.strange]
        found += _standing(one, settings)
    return sorted(found, key=lambda outlier: -outlier.size if math.isfinite(outlier.size) else -math.inf)


def _standing(one: _Tensor, settings: CensusSettings) -> Iterator[WeightOutlier]:
    """The values of a tensor that stand out."""
    most = min(max(len(one.top) // _CROWD, 1), len(one.top) - 1)
    above: list[int] = []  # far beyond the next
    for at in range(most):
        following = float(one.top[at + 1])
        needed = _needed(one, following, len(one.top) - at - 1, settings)
        if one.top[at] >= _SET and float(one.top[at]) - following > needed:
            above.append(at)
    several = range(above[-1] + 1) if above else range(0)
    part = {at for at in several if any(_alike(one, at, other, settings) for other in several if other != at)}
    bits = settings.vector if one.vector else settings.matrix
    chosen = {at for at in several if at not in part and all(abs(one.top[at] - one.top[p]) > bits for p in part)}
    if one.learned:
        chosen |= {at for at, size in enumerate(one.top) if size >= settings.limit}
    held = one.values.reshape(1) if one.values.ndim == 0 else one.values
    for at in sorted(chosen):
        place = tuple(one.places[at].tolist())
        value, size, following = float(held[place].double()), float(one.top[at]), next(iter(one.top[at + 1 :]), None)
        if not one.learned and _by_hand(value, one.values.dtype):
            continue
        row = np.delete(np.abs(_plain(held[place[:-1]])), place[-1]) if held.ndim >= 2 else np.zeros(0)
        rest = float(row.max(initial=0.0, where=np.isfinite(row)))
        next_ = None if following is None else size - float(following)
        yield WeightOutlier(one.name, place, value, size, (next_, size - math.log2(rest) if rest > 0.0 else None))


def _alike(one: _Tensor, at: int, other: int, settings: CensusSettings) -> bool:
    """Whether two values are on one line and of like sizes."""
    axes = [axis for axis, size in enumerate(one.values.shape) if size > 1]
    inline = len(axes) < 2 or any(one.places[at][axis] == one.places[other][axis] for axis in axes)
    bits = settings.vector if one.vector else settings.matrix
    return inline and abs(float(one.top[at] - one.top[other])) <= bits


def _by_hand(value: float, dtype: torch.dtype) -> bool:
    """Whether a number of a buffer looks like one that somebody wrote: few digits, or the largest of a format."""
    digits = _DIGITS.get(dtype.itemsize, 1)
    largest = (torch.finfo(held).max for held in (torch.float16, torch.bfloat16, torch.float32, torch.float64))
    short = float(to_tensor(np.array(float(f"{value:.{digits - 1}e}"))).to(dtype).double())
    return short == value or abs(value) in largest


def _flips(tensors: Sequence[_Tensor], settings: CensusSettings, rng: np.random.Generator) -> tuple[Places, Places]:
    """By exponent bit, the top one first: drawn weights of which it is 0, and those that stand out with it flipped."""
    learned = [one for one in tensors if one.learned]
    tried, seen = np.zeros(BITS, dtype=np.int64), np.zeros(BITS, dtype=np.int64)
    if not learned:  # all weights are packed
        return tried, seen
    drawn = rng.integers(sum(one.values.numel() for one in learned), size=settings.tries)
    at = np.searchsorted(np.cumsum([one.values.numel() for one in learned]), drawn, side="right")
    for one, count in zip(learned, np.bincount(at, minlength=len(learned)), strict=True):
        # Of a binary format: what is taken from the exponent's bits, and how many there are.
        bias = 1 - round(math.log2(torch.finfo(one.values.dtype).smallest_normal))
        bits = (2 * bias + 1).bit_length()
        for value in np.abs(_drawn(one.values, int(count), rng)[0][:count]).tolist():
            # None of zero and of what is below the normal numbers.
            exponent = max(math.frexp(value)[1] - 1 + bias, 0) if value > 0.0 else 0
            for bit in (bit for bit in range(bits) if not exponent >> bit & 1):
                stands = exponent + 2**bit == 2 * bias + 1  # it is finite no more
                if not stands:
                    # Where no bit is set there is no leading one either: the flip makes it.
                    after = math.log2(value) + 2**bit if exponent else float(2**bit - bias)
                    stands = after >= settings.limit
                    if not stands and len(one.top):
                        top = float(one.top[0])
                        stands = after >= _SET and after - top > _needed(one, top, len(one.top), settings)
                tried[bits - 1 - bit] += 1
                seen[bits - 1 - bit] += stands
    return tried, seen
