"""A circuit of units: which units of a decoder were kept for a task, of which model, found how."""

import base64
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.bounded import contents, decoded
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.core.files import write_whole
from wheeltap.suites.circuits.origin import Origin

FORMAT: Final = "wheeltap circuit of units, 2"
_READ: Final = (FORMAT, "wheeltap circuit of units, 1")
"""Formats that are read: the first one did not say whether a circuit is undecided."""

_LARGEST: Final = 64 * 2**20
"""Bytes of a file that is read."""

_DO: Final = "Write one with wheeltap circuits find MODEL --task TASK -o FILE."

MOST_UNITS: Final = 2**24
"""Of a file, in all sites."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class KeptUnits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units of one site that are kept.

    Attributes:
        site: ``attention0.read``, ``mlp0.units`` and so on, in order of computation.
        units: How many the site has.
        kept: Their numbers from 0, rising.
    """

    site: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    units: _Count
    kept: tuple[_Count, ...] = ()


class UnitCircuit(Origin, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A circuit of units, as its file holds it.

    Attributes:
        format: ``FORMAT``.
        sites: All of them.
    """

    format: str
    sites: tuple[KeptUnits, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if (units := sum(one.units for one in self.sites)) > MOST_UNITS:
            raise FileFormatError("A circuit has more units than any model.", where="sites",
                                  expected=f"at most {MOST_UNITS:,}", got=f"{units:,}")  # fmt: skip
        for one in self.sites:
            rising = all(a < b for a, b in zip(one.kept, one.kept[1:], strict=False))
            if not rising or (one.kept and one.kept[-1] >= one.units):
                raise FileFormatError(
                    "A circuit keeps units that there are not.", where=f"site {one.site}",
                    expected=f"rising numbers from 0 to {one.units - 1}", got=str(one.kept[-3:]),
                )  # fmt: skip

    @property
    def kept(self) -> NDArray[np.bool_]:
        """``[unit]``, over all sites in order."""
        parts = [np.isin(np.arange(one.units), one.kept) for one in self.sites]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.bool_)

    @property
    def size(self) -> int:
        """Units that are kept."""
        return sum(len(one.kept) for one in self.sites)

    def save(self, path: Path) -> None:
        """Writes it to a file, whole or not at all."""
        write_whole(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def load(path: Path) -> UnitCircuit:
    """A circuit from its file.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is none.
    """
    data = contents(path, "circuit", limit=_LARGEST, do=_DO)
    what, expected = "This is no file of a circuit.", f'JSON that says "{FORMAT}"'
    found = decoded(data, UnitCircuit, path, what, expected=expected, do=_DO)
    if found.format not in _READ:
        raise FileFormatError(what, where=str(path), expected=expected, got=f"format {found.format[:60]!r}", do=_DO)
    return found


def of_units(kept: NDArray[np.bool_], sites: tuple[tuple[str, int], ...]) -> tuple[KeptUnits, ...]:
    """Units that are kept, by site, from flags ``[unit]`` over all sites in order and the name and size of each."""
    ends = np.cumsum([0, *(units for _, units in sites)])
    return tuple(
        KeptUnits(site=name, units=units, kept=tuple(np.flatnonzero(kept[ends[at] : ends[at + 1]]).tolist()))
        for at, (name, units) in enumerate(sites)
    )


def packed(kept: NDArray[np.bool_]) -> str:
    """Flags as text, for a setting: how many there are, and their bits in base 64."""
    return f"{len(kept)}:{base64.b64encode(np.packbits(kept).tobytes()).decode()}"


def unpacked(text: str) -> NDArray[np.bool_]:
    """The inverse of ``packed``.

    Raises:
        UsageError: If the text is none of its.
    """
    count, _, bits = text.partition(":")
    try:
        flags = np.unpackbits(np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8))
        if not 0 <= len(flags) - int(count) < 8 or flags[int(count) :].any():
            raise ValueError(f"{len(flags)} bits")
    except ValueError as error:
        raise UsageError("A circuit's flags cannot be read.", where="setting circuit", expected="COUNT:BITS in base 64",
                         got=f"{text[:40]!r}: {error}"[:120]) from error  # fmt: skip
    return flags[: int(count)].astype(np.bool_)
