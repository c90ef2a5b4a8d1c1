"""Which shape a file of recorded answers has."""

import json
from pathlib import Path
from typing import Any, cast

from wheeltap.core.errors import FileFormatError
from wheeltap.sources.recorded import counted_csv, inspect_logs, lewidi, lm_eval, nli_votes, own, passk, solutions
from wheeltap.sources.recorded.base import Recording
from wheeltap.sources.recorded.bounded import whole
from wheeltap.sources.recorded.lines import first

LINES = (
    passk,
    lm_eval,
    nli_votes,
    solutions,
    own,
)
"""Shapes of JSON lines, told apart by their first row; the first that fits is taken."""

DOCUMENTS = (inspect_logs, lewidi)
"""Shapes of one JSON document."""

_ZIP = b"PK"
_SCORES_ALONE = {"results", "configs"}


def read(path: Path) -> Recording:
    """What a file holds, whatever its shape.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If no shape fits.
        DataError: If its content makes no sense.
    """
    row = first(path)
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    if start == _ZIP or path.suffix == ".eval":
        return inspect_logs.read_archive(path)
    if path.suffix.lower() == ".csv":
        return counted_csv.read(path)
    for shape in LINES:
        if shape.fits(row):
            return shape.read(path)
    if row is None:
        row = _document(path)
    for shape in DOCUMENTS:
        if shape.fits(row):
            return shape.read(path)
    raise _unknown(path, row)


def _document(path: Path) -> Any:
    """A file that is one JSON document over many lines; ``None`` where it is not."""
    try:
        return json.loads(whole(path))
    except (ValueError, RecursionError):
        return None


def _unknown(path: Path, row: Any) -> FileFormatError:
    fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    if fields.keys() >= _SCORES_ALONE:
        return FileFormatError(
            "The file holds scores of whole tasks, and no answers.",
            where=str(path),
            expected="answers item by item",
            got=", ".join(sorted(fields)[:12]),
            do="Run lm_eval with --log_samples, and give the files samples_*.jsonl.",
        )
    known = ", ".join(shape.SHAPE for shape in (*LINES, *DOCUMENTS, counted_csv))
    return FileFormatError(
        "The file has no shape that is known.",
        where=str(path),
        expected=known,
        got=f"a first row with {', '.join(sorted(map(str, fields))[:12])}"
        if fields
        else "a JSON list, where one object a line is wanted"
        if isinstance(row, list)
        else "no JSON",
        do="See docs/lens.md for what a file of answers may look like.",
    )
