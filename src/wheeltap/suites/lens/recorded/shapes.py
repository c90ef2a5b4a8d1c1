"""Which shape a file of recorded answers has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from wheeltap.core.bounded import TOO_MUCH, few_parts, opened, parsing, size_of
from wheeltap.core.errors import FileFormatError, WheeltapError
from wheeltap.suites.lens.recorded import ambient, graded, inspect_logs, lm_eval, own, votes
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.lines import BROKEN, DO, NOUN, first, head_of, no_json, numbered, whole

Shape = tuple[str, str, Callable[[Path], AnswerFile]]
"""What a file is, in words; the fields of its first record, ``a|b`` where one of several is enough; what reads it.

Fields after a dot are those of some value of the record."""

LINES: Final[tuple[Shape, ...]] = (
    (graded.COUNTED, "id n c", graded.counts),
    (lm_eval.SHAPE, "doc_id filtered_resps|resps|doc_hash", lm_eval.read),
    (votes.NLI, "id|uid q0_gold|label_counter|label_count|label_dist", votes.inference),
    (ambient.STATED, "example_id template_id disambiguation answer", ambient.statements),
    (ambient.CONTINUED, "id options num_conts", ambient.continuations),
    (graded.SOLVED, ".is_correct", graded.solutions),
    (own.SHAPE, "id correct|answer|probabilities|votes|raters", own.read),
)
"""Shapes of JSON lines, distinguished by their first row; the first that fits is taken."""

DOCUMENTS: Final[tuple[Shape, ...]] = (
    (inspect_logs.SHAPE, "eval plan|version|status", inspect_logs.read),
    (votes.LEWIDI, ".annotations|.soft_label", votes.document),
)
"""Shapes of one JSON document."""

_ZIP = b"PK"
_RECORD = b'{"'
_SCORES_ALONE = {"results", "configs"}


def read(path: Path) -> AnswerFile:
    """What a file holds, whatever its shape.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If no shape fits.
        DataError: If its content makes no sense.
    """
    size_of(path, NOUN, do=DO)
    try:
        with parsing(
            path, "The file of answers or votes cannot be read.", expected="records a few levels deep", of=TOO_MUCH
        ):
            return _read(path)
    except WheeltapError as error:
        if str(path) in (error.where or ""):
            raise
        raise error.at(f"{path}: {error.where}" if error.where else str(path)) from error


def _read(path: Path) -> AnswerFile:
    row = first(path)
    with opened(path, NOUN) as file:
        start = file.read(len(_ZIP))
    if start == _ZIP or path.suffix == ".eval":
        return inspect_logs.read_archive(path)
    if path.suffix.lower() == ".csv":
        return own.read_table(path) if {"id", "correct"} <= {*head_of(path)[0]} else votes.table_of_votes(path)
    for _, fields, read_lines in LINES:
        if _fits(row, fields):
            return read_lines(path)
    broken = None
    if row is None:
        number, line = next(iter(numbered(path)))
        if line.startswith(_RECORD):  # it begins like a record
            try:
                msgspec.json.decode(line)
            except BROKEN as error:
                broken = no_json(path, number, line, error, expected="JSON lines")
        row = _document(path)
    for _, fields, read_document in DOCUMENTS:
        if _fits(row, fields):
            return read_document(path)
    if broken is not None:
        raise broken
    raise _unknown(path, row)


def _fits(row: Any, fields: str) -> bool:
    """Whether a record has such fields; see ``Shape``."""
    if not isinstance(row, dict):
        return False
    held = cast("dict[str, Any]", row)
    inner = {f".{name}" for value in held.values() if isinstance(value, dict) for name in cast("dict[str, Any]", value)}
    return all(any(name in held or name in inner for name in each.split("|")) for each in fields.split())


def _document(path: Path) -> Any:
    """A file that is one JSON document over many lines; ``None`` where it is not."""
    data = whole(path)
    try:
        return json.loads(few_parts(data, where=path))
    except RecursionError as error:
        raise FileFormatError(
            "A JSON document is nested too deeply.",
            where=str(path),
            expected="a log or votes, a few levels deep",
            got="lists within lists beyond what can be read",
            do="Do not trust this file: no log looks like that.",
        ) from error
    except ValueError:
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
    known = ", ".join([*(shape for shape, *_ in (*LINES, *DOCUMENTS)), votes.TABLE])
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
