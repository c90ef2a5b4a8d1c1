"""Which shape a file of recorded answers has."""

from pathlib import Path
from typing import Any, cast

from wheeltap.core.errors import FileFormatError
from wheeltap.sources.recorded import passk
from wheeltap.sources.recorded.base import Recording
from wheeltap.sources.recorded.lines import first

LINES = (passk,)
"""Shapes of JSON lines, told apart by their first row; the first that fits is taken."""


def read(path: Path) -> Recording:
    """What a file holds, whatever its shape.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If no shape fits.
        DataError: If its content makes no sense.
    """
    row = first(path)
    for shape in LINES:
        if shape.fits(row):
            return shape.read(path)
    known = ", ".join(shape.SHAPE for shape in LINES)
    raise FileFormatError(
        "The file has no shape that is known.",
        where=str(path),
        expected=known,
        got=f"a first row with {', '.join(sorted(map(str, cast('dict[str, Any]', row))))}"
        if isinstance(row, dict)
        else "no JSON",
        do="See docs/lens.md for what a file of answers may look like.",
    )
