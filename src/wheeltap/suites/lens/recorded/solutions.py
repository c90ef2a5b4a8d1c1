"""Solutions of several systems in each row: ``{"question", NAME: {"is_correct": true, "solution": ...}, ...}``."""

from pathlib import Path
from typing import Any, cast

import msgspec

from wheeltap.suites.lens.recorded.base import Recording
from wheeltap.suites.lens.recorded.gathered import AnswerRow, AnswerTable
from wheeltap.suites.lens.recorded.lines import decoded, misfit

SHAPE = "graded solutions"


class _Solution(msgspec.Struct, frozen=True):
    is_correct: bool
    solution: str | None = None


def fits(first: Any) -> bool:
    """Whether a file whose first row is this has this shape."""
    return isinstance(first, dict) and bool(_systems(cast("dict[str, Any]", first)))


def _systems(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if isinstance(value, dict) and "is_correct" in value]


def read(path: Path) -> Recording:
    """The solutions in a file; an item is known by its question, or by its ``id`` where there is one.

    Raises:
        FileFormatError: If a line has other systems than the first one.
        DataError: If a question is there twice.
    """
    gathered = AnswerTable(SHAPE, str(path))
    systems: list[str] | None = None
    for number, row in decoded(path, dict[str, msgspec.Raw], shape=SHAPE):
        solved = {name: held for name, raw in row.items() if (held := _solution(raw)) is not None}
        systems = list(solved) if systems is None else systems
        if solved.keys() != set(systems):
            raise misfit(path, number, expected=", ".join(systems), got=", ".join(solved) or "no solution")
        name = bytes(row.get("id", row.get("question", b'"line %d"' % number)))
        item = str(msgspec.json.decode(name))
        gathered.asked(item, item)
        for system, held in solved.items():
            gathered.add(system, AnswerRow(item, number, float(held.is_correct), held.solution))
    return gathered.recording()


def _solution(raw: msgspec.Raw) -> _Solution | None:
    if bytes(raw)[:1] != b"{":
        return None
    try:
        return msgspec.json.decode(raw, type=_Solution)
    except msgspec.ValidationError:
        return None
