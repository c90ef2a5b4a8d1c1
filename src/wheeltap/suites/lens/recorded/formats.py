"""The formats of files of recorded answers, in one table, and which of them a file has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, cast, final

import msgspec

from wheeltap.core.bounded import TOO_MUCH, few_parts, opened, parsing, size_of
from wheeltap.core.errors import FileFormatError, WheeltapError
from wheeltap.suites.lens.recorded import ambient, graded, inspect_logs, lines, lm_eval, own, votes
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.lines import DO, NOUN, first, numbered, whole

Container = Literal["lines", "document", "archive", "table"]
"""JSON lines, one JSON document, a zip archive (``.eval``), or a table with a head (``.csv``)."""


@final
class Format(msgspec.Struct, frozen=True):
    """A format and its reader.

    Attributes:
        title: What such a file is, in words.
        container: How its records are kept.
        read: Reads a file of it.
        fields: Of its first record, ``a|b`` where one of several is enough; of an archive or a table, none.
    """

    title: str
    container: Container
    read: Callable[[Path], AnswerFile]
    fields: str = ""

    def fits(self, record: Any) -> bool:
        """Whether the first record of a file has the fields."""
        known = cast("dict[str, Any]", record) if isinstance(record, dict) else {}
        return all(any(name in known for name in each.split("|")) for each in self.fields.split())


FORMATS: Final[tuple[Format, ...]] = (
    Format(graded.COUNTED, "lines", graded.counts, "id n c"),
    Format(lm_eval.SHAPE, "lines", lm_eval.read, "doc_id filtered_resps|resps|doc_hash"),
    Format(votes.CROWD, "lines", votes.crowd, "id q0_gold"),
    Format(ambient.STATED, "lines", ambient.statements, "example_id template_id disambiguation answer"),
    Format(ambient.CONTINUED, "lines", ambient.continuations, "id options num_conts"),
    Format(own.SHAPE, "lines", own.read, "id correct|answer|probabilities|votes|raters"),
    Format(inspect_logs.SHAPE, "document", inspect_logs.read, "eval plan|version|status"),
    Format(inspect_logs.SHAPE, "archive", inspect_logs.read_archive),
    Format(votes.TABLE, "table", votes.table_of_votes),
)
"""All formats; of those in one container, the first that fits the first record is taken."""

_ZIP = b"PK"
_RECORD = b'{"'
_SCORES_ALONE = {"results", "configs"}


def read(path: Path) -> AnswerFile:
    """What a file holds, whatever its format.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If no format fits.
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
    record = first(path)
    with opened(path, NOUN) as file:
        start = file.read(len(_ZIP))
    container: Container = "table" if path.suffix.lower() == ".csv" else "lines"
    if start == _ZIP or path.suffix == ".eval":
        container = "archive"
    fitting = [known for known in FORMATS if known.container == container and known.fits(record)]
    if not fitting and record is None:
        record = _document(path)
    fitting += [known for known in FORMATS if known.container == "document" and known.fits(record)]
    if fitting:
        return fitting[0].read(path)
    number, line = next(iter(numbered(path)))
    if line.startswith(_RECORD):  # of a first line that begins like a record, the error names what is wrong with it
        lines.record(path, number, line, dict[str, Any], shape="JSON lines")
    raise _unknown(path, record)


def _document(path: Path) -> Any:
    """A file that is one JSON document over many lines; ``None`` where it is not."""
    try:
        return json.loads(few_parts(whole(path), where=path))
    except ValueError:
        return None


def _unknown(path: Path, found: Any) -> FileFormatError:
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if fields.keys() >= _SCORES_ALONE:
        return FileFormatError(
            "The file holds scores of whole tasks, and no answers.",
            where=str(path),
            expected="answers item by item",
            got=", ".join(sorted(fields)[:12]),
            do="Run lm_eval with --log_samples, and give the files samples_*.jsonl.",
        )
    return FileFormatError(
        "The file has no known format.",
        where=str(path),
        expected=", ".join(dict.fromkeys(known.title for known in FORMATS)),
        got=f"a first record with {', '.join(sorted(map(str, fields))[:12])}"
        if fields
        else "a JSON list, where one object a line is wanted"
        if isinstance(found, list)
        else "no JSON",
        do="See docs/lens.md for what a file of answers may look like.",
    )
