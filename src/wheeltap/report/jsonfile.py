"""The report as a JSON file, schema ``wheeltap.report/3``: bytes out, checked records in."""

import math
from importlib import resources
from typing import Any, cast

import msgspec

from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.plain import escaped
from wheeltap.core.report import SCHEMA, ReportRecord

_encoder = msgspec.json.Encoder(order="deterministic")
_EARLIER, _EARLIER_STUDY = ("lens", "circuits"), ("drawn", "strips")
"""Keys that reports of this schema, and studies in them, had before their parts became sections."""

_REQUIRED = ("schema", "command", "subjects", "task", "findings", "controls", "cost", "provenance")


def to_json(record: ReportRecord) -> bytes:
    """Indented JSON, without control or direction characters; the same record gives the same bytes.

    Raises:
        DataError: If a number is NaN or infinite, which JSON cannot hold and which no reader could check.
    """
    bad = _non_finite(msgspec.to_builtins(record), "report")
    if bad:
        raise DataError(
            "A report cannot hold a number that is not finite.",
            where=bad[0],
            expected="a finite number, or none where nothing was measured",
            got=bad[1],
            do="Report this as a bug of the audit that made the number; its trials are safe in the store.",
        )
    return escaped(msgspec.json.format(_encoder.encode(record), indent=2)) + b"\n"


def _non_finite(value: Any, path: str) -> tuple[str, str] | None:
    """Path and text of the first number that is NaN or infinite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, str(value))
    if isinstance(value, dict):
        items = [(f"{path}.{key}", inner) for key, inner in cast("dict[str, Any]", value).items()]
    elif isinstance(value, list | tuple):
        items = [(f"{path}[{i}]", inner) for i, inner in enumerate(cast("list[Any]", value))]
    else:
        return None
    return next((bad for where, inner in items if (bad := _non_finite(inner, where))), None)


def schema() -> dict[str, Any]:
    """The packaged JSON Schema (2020-12) of ``wheeltap.report/3``."""
    text = resources.files("wheeltap.report").joinpath("schema.json").read_bytes()
    return cast("dict[str, Any]", msgspec.json.decode(text))


def validate(data: bytes, *, where: str = "report") -> ReportRecord:
    """Read a report back from JSON bytes and check every field that wheeltap uses.

    Fields the schema leaves optional get neutral values, so that any valid ``wheeltap.report/3`` file can be read.

    Raises:
        FileFormatError: If they are not JSON, not a report, of another schema, or a field is missing or wrong.
    """
    do = "Run the command that wrote it again, or read it with the wheeltap that wrote it."

    def wrong(what: str, expected: str, got: str, do: str = do) -> FileFormatError:
        return FileFormatError(what, where=where, expected=expected, got=got, do=do)

    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(
            "The file is neither a store nor a report.",
            "a .wheeltap store (wheeltap audit MODEL --store FILE) or a report.json (--json FILE)",
            f"{len(data):,} bytes that are no SQLite file, and as JSON: {error}",
        ) from error
    if not isinstance(raw, dict):
        raise wrong("The report is not a JSON object.", "an object", f"JSON of type {type(raw).__name__}")
    fields: dict[str, Any] = {"headline": "", **cast("dict[str, Any]", raw)}
    if fields.get("schema") != SCHEMA:
        raise wrong("The report has another schema.", repr(SCHEMA), repr(fields.get("schema"))[:200])
    study: dict[str, Any] = fields["study"] if isinstance(fields.get("study"), dict) else {}
    earlier = [key for key in _EARLIER if fields.get(key)] + [key for key in _EARLIER_STUDY if study.get(key)]
    if earlier:
        what = "The report was written by an earlier version, which kept other parts."
        do = "Run the command that wrote it again: nothing that its store holds is run again."
        raise wrong(what, "its parts under 'sections'", ", ".join(earlier), do)
    missing = [key for key in _REQUIRED if key not in fields]
    if missing:
        raise wrong("The report lacks a required key.", ", ".join(_REQUIRED), f"no {', '.join(missing)}")
    if isinstance(fields["task"], dict):
        task = cast("dict[str, Any]", fields["task"])
        fields["task"] = {"measures": [task.get("measure", "")], "chance": None, **task}
    try:
        record = msgspec.convert(fields, ReportRecord)
    except (msgspec.ValidationError, RecursionError) as error:
        raise wrong("A field of the report is wrong.", f"the fields of {SCHEMA}", str(error)) from error
    if uneven := _uneven(record):
        what = "Two lists of the report that belong together differ in length."
        raise wrong(what, "lists of equal length", uneven)
    return record


def _uneven(record: ReportRecord) -> str:
    """The first curve, block map or metric whose lists do not match, if any."""
    for i, curve in enumerate(record.curves):
        if len({len(column) for column in (curve.doses, curve.score, curve.low, curve.high)}) > 1:
            return f"curves[{i}]: {len(curve.doses)} doses, {len(curve.score)} scores"
    for i, blocks in enumerate(record.blocks):
        if len(blocks.blocks) != len(blocks.drops):
            return f"blocks[{i}]: {len(blocks.blocks)} blocks, {len(blocks.drops)} drops"
    for row in () if record.study is None else record.study.rows:
        for one in row.cohorts:
            if one.members and len(one.members) != len(one.values):
                where = f"study, {row.metric.key} of {one.cohort}"
                return f"{where}: {len(one.values)} values, {len(one.members)} members"
    return ""
