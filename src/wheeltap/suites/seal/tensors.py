"""What was done to which parameter, from a few numbers kept of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import FileFormatError
from wheeltap.core.plain import many
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.suites.seal.record import PackedArray
from wheeltap.suites.seal.values import TensorMatch

Floats = NDArray[np.float64]

MARKS: Final = 4
"""Projections of each parameter."""

ALIKE: Final = 1e-2
"""Part of a change that an explanation may leave open."""

CAST: Final = 4e-3
"""Largest relative change that rounding to 16 bits makes."""

ANOTHER: Final = 0.5
"""Relative change of most parameters from which it is another model."""

UNRELATED: Final = 0.5
"""Correlation of all projections of matrices below which a model may be no descendant of the sealed one."""

MOST: Final = 0.5
"""Share of the parameters that counts as most of them."""

MANY: Final = 0.25
"""Share of the parameters that training changes at least."""

_BY: Final = 2**20

Kind = Literal["quantized", "scale", "norm offset", "offset", "zeroed", "swapped", "noise", "fine-tune", "damaged", ""]


@final
@dataclass(frozen=True)
class TensorChange:
    """What was done to the parameters, as far as it can be said.

    Attributes:
        kind: The likely kind; empty where nothing can be said.
        detail: In a sentence.
        changed: Parameters that changed, the most first.
    """

    kind: Kind
    detail: str
    changed: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Mark:
    """What is known of one parameter.

    Attributes:
        name: Its path in the model at hand.
        shape: Of the parameter.
        rms: Root mean square of its numbers.
        mean: Their mean.
        marks: Random projections of them, each of the size of ``rms``.
    """

    name: str
    shape: tuple[int, ...]
    rms: float
    mean: float
    marks: tuple[float, ...]

    @property
    def row(self) -> tuple[float, ...]:
        """What a seal keeps."""
        return (self.rms, self.mean, *self.marks)


def marked(model: nn.Module, *, seed: int, marks: int = MARKS) -> PackedArray:
    """What a seal keeps of each parameter, ``[parameter, number]``: with so many projections; without any, nothing."""
    if not marks:
        return PackedArray.of(np.zeros((0, 2), dtype=np.float32))
    rows = [_mark(name, held, seed=seed).row[: 2 + marks] for name, held in model.named_parameters()]
    return PackedArray.of(np.array(rows, dtype=np.float32))


def _mark(name: str, held: Tensor, *, seed: int) -> Mark:
    flat = held.detach().reshape(-1)
    total, square, sums = 0.0, 0.0, np.zeros(MARKS)
    for start in range(0, flat.numel(), _BY):
        part = flat[start : start + _BY].double().cpu()
        total, square = total + float(part.sum()), square + float(part.square().sum())
        sums += (_signs(seed, start, len(part)) @ part).numpy()
    count = max(flat.numel(), 1)
    marks = tuple(float(value) for value in sums / count**0.5)
    return Mark(name, tuple(held.shape), (square / count) ** 0.5, total / count, marks)


def _signs(seed: int, start: int, length: int) -> Tensor:
    """Signs ``[mark, number]``, the same for every parameter: so one that is in the place of another is recognized."""
    bits = np.unpackbits(
        seeds.generator(seed, "marks", start).integers(256, size=(MARKS, -(-length // 8)), dtype=np.uint8), axis=1
    )
    return to_tensor(2.0 * bits[:, :length].astype(np.float64) - 1.0)


def _offset(seed: int, size: int) -> Floats:
    """Projections of a parameter that is 1 everywhere."""
    sums = np.zeros(MARKS)
    for start in range(0, size, _BY):
        sums += _signs(seed, start, min(_BY, size - start)).sum(1).numpy()
    return sums / max(size, 1) ** 0.5


@final
class TensorComparison:
    """The parameters of a model beside those that were sealed.

    Args:
        sealed: What the seal keeps of them.
        found: The tensors of the model at hand, in their places.
        seed: Of the seal.
    """

    def __init__(self, sealed: PackedArray, found: TensorMatch, *, seed: int) -> None:
        self._held, self._seed = found.held, seed
        rows, names = sealed.floats(), found.order
        self.blind = rows.shape == (0, 2)  # of a model with very many parameters a seal keeps digests alone
        self._marks = rows.shape[1] - 2 if rows.ndim == len(("parameter", "number")) else 0
        if not self.blind and (len(rows) > len(names) or not 0 < self._marks <= MARKS):
            wanted = f"up to {2 + MARKS} for each of {len(names)}"
            raise FileFormatError("The seal's numbers do not fit its parameters.", expected=wanted,
                                  got=str(list(rows.shape)))  # fmt: skip
        known = [(row, name) for row, name in zip(rows, names, strict=False) if name in found.held]
        marks = [_mark(name, found.held[name], seed=seed) for _, name in known]
        few = slice(self._marks)
        self.pairs = [
            (Mark(one.name, one.shape, float(row[0]), float(row[1]), tuple(map(float, row[2:]))),
             replace(one, marks=one.marks[few]))
            for (row, _), one in zip(known, marks, strict=True)
        ]  # fmt: skip
        self.relative = {one.name: _relative(one, two) for one, two in self.pairs}
        changed = found.changed
        self.others = [name for name in changed if name not in self.relative]
        self.changed = sorted((name for name in changed if name in self.relative), key=lambda at: -self.relative[at])

    @property
    def another(self) -> bool:
        """Whether most matrices have little to do with the sealed ones, and nothing simple was done to them."""
        pairs = [(one, two) for one, two in self.pairs if len(one.shape) > 1]
        large = [pair for pair in pairs if self.relative[pair[0].name] > ANOTHER]
        return len(large) > MOST * len(pairs) and not any(self._single(*pair) for pair in large)

    @property
    def unrelated(self) -> bool:
        """Whether its matrices are also no nearer to the sealed ones than those of two nets trained by themselves."""
        pairs = [(np.array(one.marks) / max(one.rms, _TINY), np.array(two.marks) / max(two.rms, _TINY))
                 for one, two in self.pairs if len(one.shape) > 1]  # fmt: skip
        both = [np.concatenate(several) for several in zip(*pairs, strict=True)] or [np.zeros(1)] * 2
        size = float(np.linalg.norm(both[0]) * np.linalg.norm(both[1]))
        return float(both[0] @ both[1]) < UNRELATED * size or size == 0.0

    def explained(self) -> TensorChange:
        """The likely kind of change."""
        changed = self.changed
        if not changed and self.others:
            said = f"{many(len(self.others), 'tensor')} changed: {self.others[0]}."
            return TensorChange("" if self.blind else "damaged", said, tuple(self.others))
        if not changed:
            return TensorChange("", "No weight changed: code, settings or buffers that no checkpoint keeps did.")
        pairs = {one.name: (one, two) for one, two in self.pairs}
        single = self._single(*pairs[changed[0]])
        if single is not None and (len(changed) <= 2 or len(changed) < MOST * len(pairs)):
            more = f" {len(changed) - 1} more changed too." if len(changed) > 1 else ""
            return TensorChange(single[0], single[1] + more, tuple(changed))
        return self._several(changed)

    def _single(self, sealed: Mark, found: Mark) -> tuple[Kind, str] | None:
        """What one parameter's numbers say was done to it."""
        name, one, two = sealed.name, np.array(sealed.marks), np.array(found.marks)
        moved = _moved(sealed, found)
        if found.rms == 0.0:
            return "zeroed", f"{name} is all zeros."
        source = self._source(sealed, found)
        if source is not None:
            return "swapped", f"{name} holds what {source} held."
        factor = float(one @ two / max(float(one @ one), _TINY))
        off, off_scale = self._off_by_offset(sealed, found), float(np.linalg.norm(two - factor * one))
        if off_scale < min(ALIKE * moved, off) and abs(factor - 1.0) > ALIKE:
            return "scale", f"{name} is {factor:.4g} times what it was."
        added = found.mean - sealed.mean
        if added and off < ALIKE * moved:
            norm = len(sealed.shape) == 1 and abs(abs(added) - 1.0) < ALIKE  # as another convention stores gains
            kind: Kind = "norm offset" if norm else "offset"
            return kind, f"{added:+.4g} was added to every number of {name}."
        return None

    def _off_by_offset(self, sealed: Mark, found: Mark) -> float:
        """What is left of a change where one number was added to all."""
        ones = _offset(self._seed, int(np.prod(sealed.shape)))[: self._marks]
        added = (found.mean - sealed.mean) * ones
        return float(np.linalg.norm(np.array(found.marks) - np.array(sealed.marks) - added))

    def _source(self, sealed: Mark, found: Mark) -> str | None:
        """The parameter whose sealed numbers are now in another's place."""
        for other, _ in self.pairs:
            same = other.name != sealed.name and other.shape == sealed.shape
            if same and _relative(other, found) < CAST and _relative(other, sealed) > CAST:
                return other.name
        return None

    def _several(self, changed: Sequence[str]) -> TensorChange:
        """What is said of a change that is no simple one of a single parameter."""
        sizes = np.array([self.relative[name] for name in changed])
        bits = next((bits for name in changed if (bits := self._bits(name))), 0)
        share = len(changed) / len(self.pairs)
        amount = (
            f"{len(changed)} of {len(self.pairs)} parameters changed, by {np.median(sizes):.2g} of their size (median)"
        )
        if bits:
            return TensorChange("quantized", f"{amount}; its rows lie on grids of {bits} bits.", tuple(changed))
        low, high = np.quantile(sizes, (0.25, 0.75))
        if share > MOST and high < _EVEN * low:
            return TensorChange("noise", f"{amount}, by about the same share: noise in all weights.", tuple(changed))
        if share > MANY:
            return TensorChange("fine-tune", f"{amount}: as further training leaves them.", tuple(changed))
        return TensorChange("damaged", f"{amount}: {changed[0]} most, by {sizes[0]:.2g}.", tuple(changed))

    def _bits(self, name: str) -> int:
        """Bits of the grid that a parameter's rows lie on, where they do: 8 and less; else 0."""
        held = self._held[name].detach()
        if held.ndim < 2 or held[0].numel() < _WIDE:
            return 0
        rows = to_array(held.reshape(len(held), -1)[:_ROWS]).astype(np.float64)
        most = max(len(np.unique(row)) for row in rows)
        if 1 < most <= rows.shape[1] // 4 and most <= _LEVELS:
            return int(np.ceil(np.log2(most)))
        for bits in (4, 6, 8):
            for step in (np.abs(rows).max(1) / (2 ** (bits - 1) - 1), np.ptp(rows, 1) / (2**bits - 1)):
                if (step > 0.0).all() and _on_grid(rows / step[:, None]):
                    return bits
        return 0


_TINY: Final = 1e-30
_EVEN: Final = 2.0
"""Upper quartile of the relative changes over the lower one, up to which it is noise of one size: 1.7 is expected."""

_ROWS: Final = 8
_LEVELS: Final = 256
_WIDE: Final = 32
"""Numbers of a row from which few different ones say something."""


def _on_grid(steps: Floats) -> bool:
    """Whether all numbers of a row are whole numbers of steps beside the first."""
    beside = steps - steps[:, :1]
    return bool(np.abs(beside - np.rint(beside)).max() < _OFF)


_OFF: Final = 1e-2
"""Steps that a number may lie off its grid: rounding in single precision."""


def _moved(sealed: Mark, found: Mark) -> float:
    """How far its projections moved."""
    return float(np.linalg.norm(np.array(found.marks) - np.array(sealed.marks)))


def _relative(sealed: Mark, found: Mark) -> float:
    """Estimated size of the change of a parameter, as a share of its size."""
    moved = float(np.sqrt(np.mean((np.array(found.marks) - np.array(sealed.marks)) ** 2)))
    if sealed.rms == 0.0:
        return 0.0 if found.rms == 0.0 else 1.0
    return moved / sealed.rms
