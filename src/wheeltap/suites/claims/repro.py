"""Derived numbers against the rows that they were derived from, and ``repro.yaml``: files pinned by their SHA-256.

A number is stale where the rows give another one, beyond half a unit of the last digit that is written. That is found
without any statistics: the two differ or they do not.
"""

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, Literal, cast, final

import msgspec

from wheeltap.core.bounded import contents, document, few_parts, numbered, opened, parsing
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import FileFormatError, MissingExtra
from wheeltap.core.plain import many
from wheeltap.suites.claims.ledger import Derived, Retest

LARGEST: Final = 2**26
"""Bytes of a table or document; of rows in lines, of a line."""

LARGEST_MANIFEST: Final = 2**18
"""Bytes of a ``repro.yaml``."""

_SHOWN: Final = 3
"""Rows of a table that are named, where more are stale."""

_SLACK: Final = 1e-9
"""What sums in another order may take off a number, as a share of it."""


@final
class DerivedNumber(msgspec.Struct, frozen=True, kw_only=True):
    """A stored number beside what its rows give.

    Attributes:
        verdict: ``refutes`` where it is stale.
        because: In a sentence, with the rows of a table that are stale.
        stated: The stored number, of a table that of the first row that is stale; ``None`` where there is none.
        given: What the rows give, likewise.
        rows: How many rows that is of.
    """

    verdict: Literal["supports", "refutes", "undecided"]
    because: str
    stated: float | None = None
    given: float | None = None
    rows: int = 0


def derived(retest: Retest, folder: Path) -> DerivedNumber:
    """Holds a derived number against its rows.

    Args:
        retest: That has one.
        folder: To which its files are relative.

    Raises:
        MissingFile: If there are no such files.
        FileFormatError: If they cannot be read, or have no such number.
    """
    assert retest.derived is not None, "a study tests it"
    return held_against(retest.derived, folder)


def held_against(asked: Derived, folder: Path) -> DerivedNumber:
    """See ``derived``."""
    file, _, pointer = asked.number.partition("#")
    rows, results = folder / asked.rows, folder / file
    if asked.sha256 and (found := sha256(rows)) != asked.sha256.lower():
        why = f"{asked.rows} is not the file that was pinned: its SHA-256 begins with {found[:12]}."
        return DerivedNumber(verdict="undecided", because=why)
    groups, why = _groups(asked, rows)
    if why:
        return DerivedNumber(verdict="undecided", because=why)
    stored = at(_table(results), pointer, where=asked.number)
    if not asked.by:
        values = groups.get("", [0.0, 0.0])
        pairs = {"": (_number(stored, asked.number), values)}
    else:
        pairs = _entries(asked, stored, groups)
    stale, first, total = list[str](), (None, None), 0
    for name, (stated, (number, count)) in pairs.items():
        given = _statistic(asked, number, count)
        total += int(count)
        if stated is None or given is None or not agree(stated, given, asked.tolerance):
            first = first if stale else (None if stated is None else float(stated), given)
            row = f"row {name} of {file}" if asked.by else asked.number
            says = f"{row} says {stated}" if stated is not None else f"{file} has no row {name}"
            what = f"the {asked.statistic} of {asked.column} over {many(int(count), 'row')} of {asked.rows}"
            stale.append(f"{says}; {what} is {given:.6g}" if given is not None else f"{says}; {asked.rows} has no rows")
        elif not stale:
            first = (float(stated), given)
    if not stale:
        what = f"{many(len(pairs), 'row')} of {file}" if asked.by else asked.number
        return DerivedNumber(verdict="supports", because=f"{what}: as {many(total, 'row')} of {asked.rows} give.",
                             stated=first[0], given=first[1], rows=total)  # fmt: skip
    more = f" and {len(stale) - _SHOWN} more" if len(stale) > _SHOWN else ""
    because = f"Stale: {'; '.join(stale[:_SHOWN])}{more}."
    return DerivedNumber(verdict="refutes", because=because, stated=first[0], given=first[1], rows=total)


def _statistic(asked: Derived, number: float, count: float) -> float | None:
    if asked.statistic in ("mean", "share"):
        return asked.scale * number / count if count else None
    return asked.scale * (count if asked.statistic == "count" else number)


def agree(stated: Decimal, given: float, tolerance: float | None = None) -> bool:
    """Whether a number is the one that is written, within half a unit of its last digit where nothing else is said."""
    if tolerance is None:
        exponent = stated.as_tuple().exponent
        tolerance = 0.5 * 10.0**exponent if isinstance(exponent, int) else 0.0
    return abs(float(stated) - given) <= tolerance + _SLACK * max(abs(given), abs(float(stated)))


def _entries(
    asked: Derived, stored: Any, groups: Mapping[str, list[float]]
) -> dict[str, tuple[Decimal | None, list[float]]]:
    """The stored number of each group, or ``None``, and what its rows give."""
    if isinstance(stored, list):
        rows = cast("list[Any]", stored)
        several = [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]
        stored = _named([(_text(row.get(asked.by)), row) for row in several], asked.number)
    if not isinstance(stored, dict):
        raise FileFormatError(
            "There is no table at this place.", where=asked.number,
            expected=f"an entry for each {asked.by}", got=type(stored).__name__,
        )  # fmt: skip
    found: dict[str, tuple[Decimal | None, list[float]]] = {}
    for name, entry in cast("dict[str, Any]", stored).items():
        place = f"{asked.number}, row {name}"
        value = at(entry, f"/{asked.field}", where=place) if asked.field else entry
        found[name] = (_number(value, place), groups.get(name, [0.0, 0.0]))
    return found | {name: (None, values) for name, values in groups.items() if name not in found}


def _groups(asked: Derived, path: Path) -> tuple[dict[str, list[float]], str]:
    """Sum and count of the rows of each group; and why there is none, where a row has no number."""
    groups: dict[str, list[float]] = {}
    for place, row in _rows(path):
        if any(_text(row.get(key)) != _text(wanted) for key, wanted in asked.where.items()):
            continue
        value = at(row, asked.column, where=place) if asked.column.startswith("/") else row.get(asked.column)
        if asked.statistic == "count":
            number = 0.0
        else:
            try:
                number = float({"true": 1.0, "false": 0.0}.get(_text(value).lower(), value))  # pyright: ignore[reportArgumentType]
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not math.isfinite(number):
                return {}, f"{place}: {asked.column} is {str(value)[:40]!r}, which is no number."
        group = groups.setdefault(_text(row.get(asked.by)) if asked.by else "", [0.0, 0.0])
        group[0] += float(number != 0.0) if asked.statistic == "share" else number
        group[1] += value not in (None, "")
    return groups, "" if groups else f"{path.name} has no such rows."


def _text(value: object) -> str:
    """A value as it is compared: true of JSON, True of Python and TRUE of a table are one, 1 and 1.0 too."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal) and abs(value) < 1e15 and value == int(value):
        return str(int(value))
    return str(value)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place."""
    if path.suffix == ".jsonl":
        lines = numbered(path, "file of rows", longest=LARGEST)
        places = ((f"{path.name} line {number}", line) for number, line in lines)
        pairs = ((place, _json(few_parts(line, where=place), place)) for place, line in places)
    elif path.suffix == ".csv":
        pairs = ((f"{path.name} row {number}", row) for number, row in enumerate(_csv(path), 1))
    else:
        found: Any = _json(document(path, "file of rows", limit=LARGEST), path)
        listed = cast("list[Any]", found if isinstance(found, list) else [found])
        pairs = ((f"{path.name} row {number}", row) for number, row in enumerate(listed, 1))
    for place, row in pairs:
        if not isinstance(row, dict):
            got = str(row)[:40]
            raise FileFormatError("A row has no columns.", where=place, expected="an object with names", got=got)
        yield place, cast("dict[str, Any]", row)


def _json(data: bytes, where: object) -> Any:
    """JSON, its numbers as they are written: .70 has two digits."""
    with parsing(where, "The file is not JSON.", expected="JSON"):
        return json.loads(data, parse_float=Decimal, parse_int=Decimal)


def _csv(path: Path) -> list[dict[str, Any]]:
    data = contents(path, "table", limit=LARGEST)
    with parsing(path, "The table cannot be read.", expected="CSV in UTF-8 with a line of names"):
        return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def _table(path: Path) -> Any:
    """A document; of a ``.csv``, its rows by their first column."""
    if path.suffix != ".csv":
        return _json(document(path, "file of results", limit=LARGEST), path)
    return _named([(str(next(iter(row.values()))), row) for row in _csv(path)], str(path))


def _named(rows: list[tuple[str, dict[str, Any]]], where: str) -> dict[str, dict[str, Any]]:
    """Rows by their names.

    Raises:
        FileFormatError: If two have the same.
    """
    found = dict(rows)
    if len(found) < len(rows):
        [(twice, _)] = Counter(name for name, _ in rows).most_common(1)
        raise FileFormatError("Two rows of a table have the same name.", where=where, expected="a name for each",
                              got=twice[:60])  # fmt: skip
    return found


def at(document: Any, pointer: str, *, where: str) -> Any:
    """What stands at a JSON pointer (RFC 6901).

    Raises:
        FileFormatError: If nothing does.
    """
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        kind = found.__class__
        index: Any = int(key) if issubclass(kind, list) and key.isdigit() and len(key) < 10 else key
        try:
            found = found[index]
        except (KeyError, IndexError, TypeError) as error:
            known = ", ".join(map(str, found))[:120] if issubclass(kind, dict) else kind.__name__
            raise FileFormatError("Nothing stands at this place.", where=where, expected=f"{key!r}"[:80],
                                  got=known or "nothing") from error  # fmt: skip
    return found


def _number(value: object, where: str) -> Decimal:
    """A number as it is written.

    Raises:
        FileFormatError: If it is none.
    """
    try:
        found = Decimal(str(value).strip().removesuffix("%")) if not isinstance(value, bool) else Decimal("nan")
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or abs(found.adjusted()) > 300:
        got = str(value)[:60]
        raise FileFormatError("There is no number at this place.", where=where, expected="a number", got=got)
    return found


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with opened(path, "file") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- repro.yaml -----------------------------------------------------------------------------------------------------


class Digest(msgspec.Struct, frozen=True):
    """What a file is pinned by."""

    value: str
    algorithm: str = "sha256"


class PinnedFile(msgspec.Struct, frozen=True):
    """A file of a manifest."""

    id: str
    path: str
    digest: Digest | None = None


class Evidence(msgspec.Struct, frozen=True):
    """What a statement of a manifest rests on: a number in a file, or (``derived``) one that rows give again."""

    kind: str
    artifact: str = ""
    name: str = ""
    pointer: str = ""
    reported: str | float | int | None = None
    mode: str = "printed_precision"
    conversion: Any = None
    rows: str = ""
    column: str = ""
    statistic: Literal["mean", "sum", "count", "share"] = "mean"
    where: dict[str, Scalar] = {}
    row: int | None = None
    by: str = ""
    field: str = ""
    scale: float = 1.0


class ManifestClaim(msgspec.Struct, frozen=True):
    """A statement of a manifest."""

    id: str
    text: str = ""
    evidence: list[Evidence] = []


class Manifest(msgspec.Struct, frozen=True):
    """A ``repro.yaml``; keys of other programs are left aside."""

    artifacts: list[PinnedFile] = []
    claims: list[ManifestClaim] = []


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a manifest: a file or a number."""

    name: str
    status: Literal["ok", "changed", "stale", "unchecked"]
    because: str


def checked(path: Path) -> list[Checked]:
    """Checks a manifest: first its files, then its numbers.

    Raises:
        MissingExtra: If PyYAML is not installed.
        MissingFile: If there is no such file.
        FileFormatError: If it is no manifest.
    """
    with parsing(path, "The file is not a manifest.", expected="YAML with artifacts and claims (repro.yaml)",
                 do="See the example in docs/claims.md."):  # fmt: skip
        manifest = msgspec.convert(_yaml(contents(path, "manifest", limit=LARGEST_MANIFEST)) or {}, Manifest)
    files, found = {one.id: one for one in manifest.artifacts}, list[Checked]()
    for one in manifest.artifacts:
        found.append(_pinned(one, path.parent))
    for claim in manifest.claims:
        for number, evidence in enumerate(claim.evidence, 1):
            name = f"{claim.id}: {evidence.name or f'evidence {number}'}"
            found.append(_evidence(name, evidence, files, path.parent))
    return found


def _yaml(data: bytes) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("pyyaml", "claims", needed_for="repro.yaml") from error
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = data.decode()
    for event in cast("Iterator[Any]", yaml.parse(text, Loader=loader)):  # pyright: ignore[reportUnknownMemberType]
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("an alias (*name): a few of them can stand for more than memory holds")
    return yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader


def _pinned(one: PinnedFile, folder: Path) -> Checked:
    name, path = f"file {one.id}", folder / one.path
    if one.digest is None or one.digest.algorithm != "sha256":
        return Checked(name=name, status="unchecked", because=f"{one.path} is not pinned by a SHA-256.")
    if not path.is_file():
        return Checked(name=name, status="changed", because=f"{one.path} is not there.")
    found = sha256(path)
    same = found == one.digest.value.lower()
    because = f"{one.path} is the file that was pinned." if same else (
        f"{one.path} is another file: its SHA-256 is {found}, not {one.digest.value}."[:240]
    )  # fmt: skip
    return Checked(name=name, status="ok" if same else "changed", because=because)


def _evidence(name: str, asked: Evidence, files: Mapping[str, PinnedFile], folder: Path) -> Checked:
    missing = next((one for one in (asked.artifact, asked.rows) if one and one not in files), None)
    if missing is not None or asked.kind not in ("metric", "table", "derived") or not asked.artifact:
        why = f"There is no artifact {missing!r}." if missing else f"Evidence of the kind {asked.kind!r} is not read."
        return Checked(name=name, status="unchecked", because=why)
    path = files[asked.artifact].path
    place = f"{path}#{asked.pointer}"
    if asked.kind == "derived":
        if not asked.rows or not asked.column:
            return Checked(name=name, status="unchecked", because="It names no rows, or no column of them.")
        number = held_against(
            Derived(
                rows=files[asked.rows].path, column=asked.column, number=place, statistic=asked.statistic,
                where=asked.where, by=asked.by, field=asked.field, scale=asked.scale,
            ),
            folder,
        )  # fmt: skip
        words: Mapping[str, Any] = {"supports": "ok", "refutes": "stale", "undecided": "unchecked"}
        return Checked(name=name, status=words[number.verdict], because=number.because)
    if asked.reported is None or asked.mode != "printed_precision" or asked.conversion is not None:
        return Checked(name=name, status="unchecked", because="Only printed numbers, without conversion, are compared.")
    if asked.kind == "table":
        rows = [
            row for at_row, (_, row) in enumerate(_rows(folder / path))
            if asked.row in (None, at_row) and all(_text(row.get(k)) == _text(v) for k, v in asked.where.items())
        ]  # fmt: skip
        place = f"{path}, column {asked.column}"
        if len(rows) != 1:
            return Checked(name=name, status="unchecked", because=f"{place}: {len(rows):,} rows are meant, not one.")
        value = rows[0].get(asked.column)
    else:
        value = at(_table(folder / path), asked.pointer, where=place)
    stated, given = _number(asked.reported, name), _number(value, place)
    same = agree(stated, float(given))
    because = f"{place} holds {given}" + ("." if same else f", and {stated} is reported.")
    return Checked(name=name, status="ok" if same else "stale", because=because)
