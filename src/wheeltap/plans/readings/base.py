"""What a reading measures and gives: its spec, free of torch, which the engine's code and the audits share."""

from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.settings import Settings

Kind = Literal["number", "count", "flag"]
"""What an array holds: float32, whole numbers (int32), or whether something holds (bool)."""

DTYPES: Final[dict[Kind, np.dtype[Any]]] = {
    "number": np.dtype(np.float32), "count": np.dtype(np.int32), "flag": np.dtype(np.bool_),
}  # fmt: skip


@final
@dataclass(frozen=True)
class Array:
    """One named array that a reading gives.

    Attributes:
        axes: Names of its axes in order, with spaces between; a number stands for an axis of that length. Axes of one
            name are equally long in all arrays of a reading (of one factor, where arrays are given for each);
            ``example`` is as long as the task.
        says: What it holds, with its unit.
        kind: What its entries are.
        of: What its numbers stand for, from 0, where they stand for something.
        optional: Whether it may be missing.
    """

    axes: str
    says: str
    kind: Kind = "number"
    of: tuple[str, ...] = ()
    optional: bool = False


@final
@dataclass(frozen=True)
class ReadingSpec:
    """A measurement inside one undisturbed subject: what is asked, and what comes back.

    Attributes:
        name: Registered name; no perturbation has it.
        title: In plain words.
        arrays: What it gives, by name. With ``each`` a name in the outcome may be ``FACTOR|name``.
        version: Raise it whenever the same settings would give other numbers: it is part of every trial's key.
        settings_type: What can be asked for. An audit's own settings may inherit them.
        each: Of what some arrays are given one each, in words (``factor``); empty where all are given once.
    """

    name: str
    title: str
    arrays: dict[str, Array]
    version: int = 1
    settings_type: type[Settings] = Settings
    each: str = ""

    def meant(self, name: str, number: Any) -> str:
        """What a number of an array stands for."""
        return self.arrays[name].of[int(number)]

    def typed(self, values: dict[str, NDArray[Any]], *, examples: int) -> dict[str, NDArray[Any]]:
        """The arrays of an outcome on so many ``examples``, in the dtypes they are kept in.

        Raises:
            ValueError: If one is missing, unknown, of other axes, or holds what its kind cannot.
        """
        sizes: dict[tuple[str, str], int] = {}  # of each axis, as it was the first time
        typed = {name: self._array(name, np.asarray(one), examples, sizes) for name, one in values.items()}
        # What is given for each of several may be left out for any of them.
        needed = [name for name, array in self.arrays.items() if not array.optional]
        missing = [name for name in needed if name not in values]
        if missing:
            raise ValueError(f"{self.name} gives no {', '.join(missing)}")
        return typed

    def _array(self, name: str, array: NDArray[Any], examples: int, sizes: dict[tuple[str, str], int]) -> NDArray[Any]:
        of, _, own = name.rpartition("|") if self.each else ("", "", name)
        stated = self.arrays.get(own)
        if stated is None:
            raise ValueError(f"{self.name} declares no array {name!r}")
        axes = stated.axes.split()
        if array.ndim != len(axes):
            raise ValueError(f"{name} has shape {array.shape}, where [{stated.axes}] was declared")
        for axis, length in zip(axes, array.shape, strict=True):
            known = int(axis) if axis.isdigit() else sizes.setdefault((of, axis), length)
            known = examples if axis == "example" else known
            if length != known:
                whose = "the task has" if axis == "example" else "other arrays have"
                raise ValueError(f"{name} has {length} along {axis!r}, where {whose} {known}")
        typed = array.astype(DTYPES[stated.kind])
        if stated.of and not all(0 <= int(at) < len(stated.of) for at in typed.flat):
            raise ValueError(f"{name} holds numbers that stand for nothing")
        if stated.kind != "number" and not np.array_equal(typed, array):
            raise ValueError(f"{name} holds what is no {stated.kind}")
        return typed
