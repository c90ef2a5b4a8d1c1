"""The likely kind of a change, from a few numbers that a seal keeps of each parameter."""

from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import FileFormatError
from wheeltap.core.typed import to_array
from wheeltap.suites.seal.record import PackedArray
from wheeltap.suites.seal.values import BLOCK, TensorMatch

Floats = NDArray[np.float64]

ALIKE: Final = 1e-2  # part of a change that an explanation may leave open
LARGE: Final = 0.5  # share that counts as most, and relative change of most matrices that is another model's
UNRELATED: Final = 0.5  # correlation of all projections of matrices below which a model is no descendant
MANY: Final = 0.25  # smallest share of the parameters that training changes
EVEN: Final = 2.0  # largest ratio of the quartiles of relative changes for noise of one size; 1.7 is expected
_TINY: Final = 1e-30

Kind = Literal["quantized", "scale", "offset", "zeroed", "noise", "fine-tune", "damaged", ""]


PROJECTIONS: Final = 4
"""Random projections of each parameter."""


def parameter_numbers(model: nn.Module, *, seed: int) -> PackedArray:
    """What a seal keeps of each parameter, ``[parameter, number]``: root mean square, mean, random projections."""
    rows = [numbers_of(part, seed=seed) for _, part in model.named_parameters()]
    return PackedArray.of(np.array(rows, dtype=np.float32).reshape(len(rows), 2 + PROJECTIONS))


def numbers_of(part: Tensor, *, seed: int) -> Floats:
    """The same of one parameter; projections have the size of the root mean square."""
    flat, sums, square = part.detach().reshape(-1), np.zeros(1 + PROJECTIONS), 0.0
    for start in range(0, flat.numel(), BLOCK):
        values = flat[start : start + BLOCK].double().cpu().numpy()
        sums += np.append(values.sum(), _signs(seed, start, len(values)) @ values)
        square += float(values @ values)
    size = max(flat.numel(), 1)
    return np.array([(square / size) ** 0.5, sums[0] / size, *(sums[1:] / size**0.5)])


def _signs(seed: int, start: int, length: int) -> Floats:
    """Signs ``[projection, number]``, the same for every parameter."""
    shape = (PROJECTIONS, -(-length // 8))
    bits = np.unpackbits(seeds.generator(seed, "marks", start).integers(256, size=shape, dtype=np.uint8), axis=1)
    return 2.0 * bits[:, :length].astype(np.float64) - 1.0


@final
@dataclass(frozen=True)
class TensorChange:
    """The likely kind of change, in a word and a sentence, and the tensors that changed, the most first."""

    kind: Kind
    detail: str
    changed: tuple[str, ...] = ()


@final
class TensorComparison:
    """The parameters of a model beside what a seal keeps of them.

    Args:
        sealed: What the seal keeps.
        found: The tensors of the model.
        seed: Of the seal.

    Raises:
        FileFormatError: If what the seal keeps does not fit its tensors.
    """

    def __init__(self, sealed: PackedArray, found: TensorMatch, *, seed: int) -> None:
        rows = sealed.floats()
        if rows.shape[1:] != (2 + PROJECTIONS,) or len(rows) > len(found.order):
            raise FileFormatError("The seal's numbers do not fit its parameters.", got=str(list(rows.shape)),
                                  expected=f"{2 + PROJECTIONS} for each of {len(found.order)} at most")  # fmt: skip
        self._tensors, self._seed = found.held, seed
        self.before = {name: row for name, row in zip(found.order, rows, strict=False) if name in found.held}
        self.after = {name: numbers_of(found.held[name], seed=seed) for name in self.before}
        self.relative = dict[str, float]()  # estimated size of the change of each, as a share of its size
        for name, row in self.before.items():
            apart: Floats = self.after[name][2:] - row[2:]
            moved = float(np.sqrt(np.mean(apart**2)))
            self.relative[name] = moved / float(row[0]) if row[0] else float(self.after[name][0] != 0.0)
        self.others = tuple(name for name in found.changed if name not in self.before)
        self.changed = tuple(sorted(set(found.changed) - {*self.others}, key=lambda name: -self.relative[name]))
        self._matrices = [name for name in self.before if found.held[name].ndim > 1]

    @property
    def is_another(self) -> bool:
        """Whether most matrices have little to do with the sealed ones, and nothing simple was done to them."""
        large = [name for name in self._matrices if self.relative[name] > LARGE]
        return len(large) > LARGE * len(self._matrices) and not any(map(self._single, large))

    @property
    def is_unrelated(self) -> bool:
        """Whether its matrices are no nearer to the sealed ones than those of two models trained by themselves."""
        sides = [
            np.concatenate([np.zeros(1), *(rows[name][2:] / max(rows[name][0], _TINY) for name in self._matrices)])
            for rows in (self.before, self.after)
        ]
        size = float(np.linalg.norm(sides[0]) * np.linalg.norm(sides[1]))
        return size == 0.0 or float(sides[0] @ sides[1]) < UNRELATED * size

    def explained(self) -> TensorChange:
        """The likely kind of change."""
        changed = self.changed
        if not changed:
            detail = f"Changed: {self.others[0]}." if self.others else "No weight changed."
            return TensorChange("damaged" if self.others else "", detail, self.others)
        single = self._single(changed[0])
        if single is not None and (len(changed) <= 2 or len(changed) < LARGE * len(self.before)):
            more = f" {len(changed) - 1} more changed too." if len(changed) > 1 else ""
            return TensorChange(single[0], single[1] + more, changed)
        sizes = np.array([self.relative[name] for name in changed])
        low, high = np.quantile(sizes, (0.25, 0.75))
        share, bits = len(changed) / len(self.before), next((bits for name in changed if (bits := self._bits(name))), 0)
        detail = (
            f"{len(changed)} of {len(self.before)} parameters changed, by {np.median(sizes):.2g} of their size (median)"
        )
        if bits:
            return TensorChange("quantized", f"{detail}; its rows lie on grids of {bits} bits.", changed)
        if share > LARGE and high < EVEN * low:
            return TensorChange("noise", f"{detail}, by about the same share: noise in all weights.", changed)
        if share > MANY:
            return TensorChange("fine-tune", f"{detail}: as further training leaves them.", changed)
        return TensorChange("damaged", f"{detail}: {changed[0]} most, by {sizes[0]:.2g}.", changed)

    def _single(self, name: str) -> tuple[Kind, str] | None:
        """The kind of change of one parameter, where its numbers show a simple one."""
        before, after, shape = self.before[name], self.after[name], self._tensors[name].shape
        one, two = before[2:], after[2:]
        if after[0] == 0.0:
            return "zeroed", f"{name} is all zeros."
        factor, added = float(one @ two / max(float(one @ one), _TINY)), float(after[1] - before[1])
        ones = numbers_of(torch.ones(shape), seed=self._seed)[2:]
        moved, off_offset = np.linalg.norm(two - one), np.linalg.norm(two - one - added * ones)
        if np.linalg.norm(two - factor * one) < min(ALIKE * moved, off_offset) and abs(factor - 1.0) > ALIKE:
            return "scale", f"{name} is {factor:.4g} times what it was."
        if added and off_offset < ALIKE * moved:
            return "offset", f"{added:+.4g} was added to every number of {name}."
        return None

    def _bits(self, name: str) -> int:
        """Bits of the grid that the first rows of a matrix lie on, where they do: 8 and less; else 0."""
        tensor = self._tensors[name].detach()
        if tensor.ndim < 2 or tensor[0].numel() < 32:  # numbers of a row from which few different ones say something
            return 0
        rows = to_array(tensor.reshape(len(tensor), -1)[:8]).astype(np.float64)
        most = max(len(np.unique(row)) for row in rows)
        if 1 < most <= min(rows.shape[1] // 4, 256):
            return int(np.ceil(np.log2(most)))
        for bits in (4, 6, 8):
            for step in (np.abs(rows).max(1) / (2 ** (bits - 1) - 1), np.ptp(rows, 1) / (2**bits - 1)):
                if not (step > 0.0).all():
                    continue
                steps = (rows - rows[:, :1]) / step[:, None]
                # Rounding in single precision may move a number by a hundredth of a step.
                if (np.abs(steps - np.rint(steps)) < 1e-2).all():
                    return bits
        return 0
