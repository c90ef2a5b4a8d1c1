"""Derived numbers against the rows that they were derived from, and ``repro.yaml``: files pinned by their SHA-256.

A number is stale where the rows give another one, beyond half a unit of the last digit that is written.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from wheeltap.core.bounded import contents, few_parts, inside, opened, parsing
from wheeltap.core.errors import FileFormatError, MissingExtra, WheeltapError
from wheeltap.core.plain import many
from wheeltap.suites.claims.ledger import Derivation

LARGEST, LARGEST_MANIFEST = 2**26, 2**18  # bytes of a file of rows or of results, and of a ``repro.yaml``
_SHOWN: Final = 3  # rows of a table that are named, where more are stale
_SLACK: Final = 1e-9  # what sums in another order may take off a number, as a share of it

Row = dict[str, Any]


class DerivedNumber(NamedTuple):
    """What rows say of a stored number: ``refutes`` where it is stale; ``because`` names such rows of a table."""

    verdict: Literal["supports", "refutes", "undecided"]
    because: str


def derived(asked: Derivation, folder: Path) -> DerivedNumber:
    """Holds a derived number against its rows, in files of a folder.

    Raises:
        MissingFile: If there are no such files.
        FileFormatError: If they cannot be read, lie elsewhere, or have no such number or column.
    """
    path, (file, _, pointer) = inside(folder, asked.rows, "file of rows"), asked.number.partition("#")
    if asked.sha256 and (found := sha256(path)) != asked.sha256.lower():
        why = f"{asked.rows} is not the file that was pinned: its SHA-256 begins with {found[:12]}."
        return DerivedNumber("undecided", why)
    groups, why = _groups(asked, path)
    if why:
        return DerivedNumber("undecided", why)
    stored = _at(_table(inside(folder, file, "file of results")), pointer, where=asked.number)
    entries: Row = {"": stored}
    if asked.by:
        entries = stored if stored.__class__ is dict else _named(_rows(stored), asked.by, asked.number)
    stale, total = list[str](), sum(int(count) for _, count in groups.values())
    for name, entry in entries.items():
        place = f"row {name} of {file}" if asked.by else asked.number
        field = f"/{asked.field}" if asked.by and asked.field else ""
        stated = _number(_at(entry, field, where=place), place)
        number, count = groups.pop(name, (0.0, 0.0))
        given = number / count if count and asked.statistic in ("mean", "share") else number if count else math.nan
        if not agree(stated, asked.scale * given, asked.tolerance):
            what = f"the {asked.statistic} of {asked.column} over {many(int(count), 'row')} of {asked.rows}"
            gives = f"{what} is {asked.scale * given:.6g}" if count else f"{asked.rows} has no such rows"
            stale.append(f"{place} says {stated}; {gives}")
    stale += [f"{file} has no row {name}, and {asked.rows} has" for name in groups]
    if not stale:
        return DerivedNumber("supports", f"{asked.number} says what {many(total, 'row')} of {asked.rows} give.")
    more = f" and {len(stale) - _SHOWN} more" if len(stale) > _SHOWN else ""
    return DerivedNumber("refutes", f"Stale: {'; '.join(stale[:_SHOWN])}{more}.")


def agree(stated: Decimal, given: float, tolerance: float | None = None) -> bool:
    """Whether a number is the one that is written, within half a unit of its last digit where nothing else is said."""
    if tolerance is None:
        tolerance = 0.5 * 10.0 ** int(stated.as_tuple().exponent)
    return abs(float(stated) - given) <= tolerance + _SLACK * max(abs(given), abs(float(stated)))


def _groups(asked: Derivation, path: Path) -> tuple[dict[str, tuple[float, float]], str]:
    """Sum and count of the rows of each group; and why there is none, where a row has no number."""
    groups, rows = dict[str, tuple[float, float]](), _rows(_read(path))
    pointer, known = asked.column.startswith("/"), dict.fromkeys(key for row in rows for key in row)
    for name in (*asked.where, *filter(None, [asked.by]), *([] if pointer else [asked.column])):
        if known and name not in known:  # a misspelled column is none without values
            got = ", ".join(map(str, known))[:200]
            raise FileFormatError("No row has this column.", where=str(path), expected=repr(name)[:80], got=got)
    for place, row in enumerate(rows, 1):
        where = f"{path.name} row {place}"
        if any(_text(row.get(key)) != _text(wanted) for key, wanted in asked.where.items()):
            continue
        value = _at(row, asked.column, where=where) if pointer else row.get(asked.column)
        plain: Any = {"true": 1.0, "false": 0.0}.get(_text(value), value)
        try:
            number = float(plain) if asked.statistic != "count" else float(value not in (None, ""))
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            return {}, f"{where}: {asked.column} is {str(value)[:40]!r}, which is no number."
        name = _text(row.get(asked.by)) if asked.by else ""
        total, count = groups.get(name, (0.0, 0.0))
        groups[name] = (total + (number != 0.0 if asked.statistic == "share" else number), count + 1)
    return groups, "" if groups else f"{path.name} has no such rows."


def _text(value: object) -> str:
    """A value as it is compared: true of JSON, True of Python and TRUE of a table are one, 1 and 1.0 too."""
    text = str(value)
    if text.lower() in ("true", "false"):
        return text.lower()
    if isinstance(value, int | float | Decimal) and abs(value) < 1e15 and value == int(value):
        return str(int(value))
    return text


def _read(path: Path) -> Any:
    """JSON, its numbers as they are written (.70 has two digits); of a ``.jsonl`` or ``.csv``, its rows."""
    data = few_parts(contents(path, "table", limit=LARGEST), where=path)
    with parsing(path, "The file cannot be read.", expected="JSON, JSON lines or CSV with a line of names, in UTF-8"):
        if path.suffix == ".csv":
            reader = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
            names = reader.fieldnames or ()
            if len(set(names)) < len(names):
                raise ValueError("two columns of one name")
            return list(reader)
        parts = [line for line in data.splitlines() if line.strip()] if path.suffix == ".jsonl" else [data]
        found = [json.loads(part, parse_float=Decimal, parse_int=Decimal) for part in parts]
    return found if path.suffix == ".jsonl" else found[0]


def _table(path: Path) -> Any:
    """A document; of a ``.csv``, its rows by their first column."""
    found = _read(path)
    return _named(_rows(found), next(iter(found[0]), ""), str(path)) if path.suffix == ".csv" and found else found


def _rows(found: Any) -> list[Row]:
    """The rows of a document; one that is no object has no columns."""
    listed = cast("list[Any]", found) if isinstance(found, list) else [found]
    return [cast("Row", row) if isinstance(row, dict) else {} for row in listed]


def _named(rows: Sequence[Row], column: str, where: str) -> Row:
    """Rows by their names; ``FileFormatError`` if two have the same."""
    found = {_text(row.get(column)): row for row in rows}
    if len(found) < len(rows):
        got = f"{len(rows):,} rows with {many(len(found), 'name')} in {column}"
        raise FileFormatError("Two rows of a table have the same name.", where=where, expected="a name for each",
                              got=got)  # fmt: skip
    return found


def _at(document: Any, pointer: str, *, where: str) -> Any:
    """What stands at a JSON pointer (RFC 6901); ``FileFormatError`` if nothing does."""
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        kind = found.__class__
        index: Any = int(key) if issubclass(kind, list) and key.isdecimal() and len(key) < 10 else key
        try:
            found = found[index]
        except (KeyError, IndexError, TypeError) as error:
            known = ", ".join(map(str, found))[:120] if issubclass(kind, dict) else kind.__name__
            raise FileFormatError("Nothing stands at this place.", where=where, expected=f"{key!r}"[:80],
                                  got=known or "nothing") from error  # fmt: skip
    return found


def _number(value: object, where: str) -> Decimal:
    """A number as it is written; ``FileFormatError`` if it is none."""
    try:
        found = Decimal("nan" if isinstance(value, bool) else str(value).strip().removesuffix("%"))
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or abs(found.adjusted()) > 300:
        got = str(value)[:60]
        raise FileFormatError("There is no number at this place.", where=where, expected="a number", got=got)
    return found


def sha256(path: Path) -> str:
    """Digest of a file, in hexadecimal digits."""
    with opened(path, "file") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Entry(msgspec.Struct):
    id: str
    path: str = ""
    digest: dict[str, str] = {}
    evidence: list[dict[str, Any]] = []


class _Manifest(msgspec.Struct):
    """Keys of other programs are left aside; artifacts have a path, claims have evidence."""

    artifacts: list[_Entry] = []
    claims: list[_Entry] = []


class ManifestCheck(NamedTuple):
    """One check of a manifest: a file or a number; ``gone`` is one that is not where it was said to be."""

    name: str
    status: Literal["ok", "changed", "stale", "gone", "unchecked"]
    because: str


def checked(path: Path) -> list[ManifestCheck]:
    """Checks a manifest: first its files, then its numbers.

    Raises:
        MissingExtra: If PyYAML is not installed.
        MissingFile: If there is no such file.
        FileFormatError: If it is no manifest, or names a file outside of its folder.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("pyyaml", "claims", needed_for="repro.yaml") from error
    # All scalars stay text: .70 keeps its digits, and no tag or number of theirs runs any code.
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    with parsing(path, "The file is not a manifest.", expected="YAML with artifacts and claims (repro.yaml)",
                 do="See the example in docs/claims.md."):  # fmt: skip
        text = contents(path, "manifest", limit=LARGEST_MANIFEST).decode()
        for event in cast("Iterator[Any]", yaml.parse(text, Loader=loader)):  # pyright: ignore[reportUnknownMemberType]
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("an alias (*name): a few of them can stand for more than memory holds")
        # It makes text, lists and dicts alone.
        manifest = msgspec.convert(yaml.load(text, Loader=loader) or {}, _Manifest)  # noqa: S506
    files, found = {one.id: one.path for one in manifest.artifacts}, list[ManifestCheck]()
    for one in manifest.artifacts:
        place, pinned = inside(path.parent, one.path, f"artifact {one.id}"), one.digest.get("value", "").lower()
        digest = sha256(place) if pinned and place.is_file() else "none"
        status = "unchecked" if not pinned else "ok" if digest == pinned else "changed"
        because = f"{one.path}: its SHA-256 is {digest[:12]}, pinned is {pinned[:12] or 'none'}."
        found.append(ManifestCheck(f"file {one.id}", status, because))
    for claim in manifest.claims:
        for number, one in enumerate(claim.evidence, 1):
            name = f"{claim.id}: {one.get('name', f'evidence {number}')}"
            try:
                with parsing(f"{path}: {name}", "The evidence cannot be read.", expected="that of docs/claims.md"):
                    status, because = _evidence(one, files, path.parent)
            except WheeltapError as error:
                status, because = "gone", error.in_line()
            found.append(ManifestCheck(name, cast("Any", status), because))
    return found


def _evidence(asked: dict[str, Any], files: Mapping[str, str], folder: Path) -> tuple[str, str]:
    """Status and reason of a number in a file; of the kind ``derived``, of one that rows give again."""
    kind, (artifact, rows) = asked.get("kind"), (files.get(asked.get(one, "")) for one in ("artifact", "rows"))
    if artifact is None or (kind == "derived" and rows is None):
        return "unchecked", "It names no artifact of the manifest."
    place = f"{artifact}#{asked.get('pointer', '')}"
    if kind == "derived":
        given = {key: value for key, value in asked.items() if key in Derivation.__struct_fields__}
        number = derived(msgspec.convert({**given, "rows": rows, "number": place}, Derivation, strict=False), folder)
        return {"supports": "ok", "refutes": "stale", "undecided": "unchecked"}[number.verdict], number.because
    if kind != "metric" or asked.get("mode", "printed_precision") != "printed_precision" or "conversion" in asked:
        return "unchecked", f"Evidence of the kind {kind!r}, or with a conversion, is not read."
    stated = _number(asked.get("reported"), "reported")
    held = _number(_at(_table(folder / artifact), asked.get("pointer", ""), where=place), place)
    same = agree(stated, float(held))
    return "ok" if same else "stale", f"{place} holds {held}{'' if same else f', and {stated} is reported'}."
