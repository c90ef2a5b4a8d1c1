"""KL divergences of readings and of a distractor, as AmbiEnt's evaluation wrote them: one ambiguous sentence a row."""

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.ambient_statements import AUDIT
from wheeltap.suites.lens.recorded.base import Answers, RecordedReading, Recording
from wheeltap.suites.lens.recorded.lines import decoded, misfit
from wheeltap.suites.lens.specs import CONTINUATIONS, DISTRACTOR, READING

SHAPE = "divergences of readings and a distractor"

_DISTRACTOR: Final = "d"
_SIDES: Final = 2


class _Option(msgspec.Struct, frozen=True):
    KL_div: float


class _Row(msgspec.Struct, frozen=True):
    id: str | int
    options: dict[str, _Option]
    num_conts: int


def fits(first: Any) -> bool:
    """Whether a file whose first row is this has this shape."""
    return isinstance(first, dict) and {"id", "options", "num_conts"} <= first.keys()


def read(path: Path) -> Recording:
    """The divergences in a file; an item has one row, or two where premise and hypothesis are ambiguous.

    Raises:
        FileFormatError: If a line has another shape, or no distractor or reading.
        DataError: If an item has more than two rows.
    """
    several: dict[str, list[_Row]] = {}
    for number, row in decoded(path, _Row, shape=SHAPE):
        if _DISTRACTOR not in row.options or len(row.options) < _SIDES:
            raise misfit(path, number, expected="a distractor d and a reading", got=", ".join(row.options) or "none")
        held = several.setdefault(str(row.id), [])
        held.append(row)
        if len(held) > _SIDES:
            raise DataError("An item is there more than twice.", where=f"{path}, line {number}",
                            expected="one row, or one for premise and hypothesis each", got=str(row.id))  # fmt: skip
    most = max((len(row.options) for rows in several.values() for row in rows), default=_SIDES)
    shape = (len(several), _SIDES, most)
    divergence, kind = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    counts = np.zeros(shape[:2], dtype=np.int64)
    for at, rows in enumerate(several.values()):
        for side, row in enumerate(rows):
            counts[at, side] = row.num_conts
            for place, (name, option) in enumerate(row.options.items()):
                divergence[at, side, place] = option.KL_div
                kind[at, side, place] = DISTRACTOR if name == _DISTRACTOR else READING
    values: dict[str, Any] = {"divergence": divergence, "kind": kind, "continuations": counts}
    sentences = sum(map(len, several.values()))
    return Recording(
        shape=SHAPE, items=tuple(several), notes=(f"{many(sentences, 'ambiguous sentence')}.",),
        systems=(Answers(name=path.stem, more=(RecordedReading(spec=CONTINUATIONS, values=values, audit=AUDIT),)),),
    )  # fmt: skip
