"""Votes as the LeWiDi tasks write them: one JSON document, ``{ID: {"annotations": ..., "soft_label": ...}, ...}``."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.suites.lens.recorded.ballots import Ballot, ballots, counted, one_each, plain
from wheeltap.suites.lens.recorded.base import Recording
from wheeltap.suites.lens.recorded.gathered import NEAR, AnswerTable, in_order
from wheeltap.suites.lens.recorded.lines import BROKEN, placed, whole

SHAPE = "votes in the form of LeWiDi"

_COUNT: Final = ("number of annotations", "number of annotators", "number_of_annotations")


def fits(document: Any) -> bool:
    """Whether a JSON document has this shape."""
    if not isinstance(document, dict) or not document:
        return False
    first = next(iter(cast("dict[str, Any]", document).values()))
    return isinstance(first, dict) and bool({"annotations", "soft_label"} & cast("dict[str, Any]", first).keys())


def read(path: Path) -> Recording:
    """The votes in a document, from annotations; where there are none, from soft labels and the number of people.

    Raises:
        FileFormatError: If it is damaged, or an item has no votes.
        DataError: If a label is not among those of the soft labels, or nobody voted on an item.
    """
    data = whole(path)
    try:
        held = msgspec.json.decode(data, type=dict[str, dict[str, Any]])
    except (*BROKEN, msgspec.MsgspecError) as error:
        raise FileFormatError(
            "A file of votes cannot be read.", where=placed(str(path), data, error), expected=SHAPE, got=str(error)
        ) from error
    gathered = AnswerTable(SHAPE, str(path))
    known = _soft(held, str(path))
    labels: dict[str, None] = dict.fromkeys(known)
    several = 0
    for at, (item, row) in enumerate(held.items(), start=1):
        ballot = _votes(row, where=f"{path}: {item}")
        votes, several = ballot.counts, several + ballot.several
        outside = [label for label in votes if known and label not in known]
        if outside:
            raise DataError(
                "A vote is for a label that is not in the set.",
                where=f"{path}: {item}",
                expected=", ".join(sorted(known)),
                got=", ".join(outside[:5]),
                do="Correct the label, or the soft labels.",
            )
        labels.update(dict.fromkeys(votes))
        gathered.vote(item, at, votes, raters=ballot.raters)
    order, ordinal = in_order(list(labels))
    return gathered.recording(labels=order, ordinal=ordinal, notes=one_each(several))


def _soft(held: Mapping[str, dict[str, Any]], where: str) -> frozenset[str]:
    """Labels that the soft labels name, where these are the ones that people chose from.

    Scales whose soft labels are of two classes (a judgement from -3 to 1 as abusive or not) have others.
    """
    soft = {plain(label) for row in held.values() for label in _dict(row.get("soft_label"))}
    name, first = next(iter(held.items()))
    people = ballots(first["annotations"], where=f"{where}: {name}") if "annotations" in first else []
    return frozenset(soft) if {plain(one) for own in people for one in own} <= soft and len(soft) != 2 else frozenset()


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _votes(row: dict[str, Any], *, where: str) -> Ballot:
    if "annotations" in row:
        named = row.get("annotators")
        names = [name.strip() for name in named.split(",")] if isinstance(named, str) else []
        own = counted(row["annotations"], where=where, names=[] if isinstance(row["annotations"], dict) else names)
        votes: dict[str, int] = {}
        for label, count in own.counts.items():
            votes[plain(label)] = votes.get(plain(label), 0) + count
        return Ballot(votes, {name: plain(label) for name, label in own.raters.items()}, own.several)
    soft = _dict(row.get("soft_label"))
    people = next((_number(row[name], where) for name in _COUNT if name in row), 0.0)
    if not soft or people < 1.0:
        raise FileFormatError(
            "An item has no votes.",
            where=where,
            expected="annotations, or soft_label and the number of annotations",
            got=", ".join(sorted(row)),
            do="Soft labels alone do not say how many people voted.",
        )
    counts = {plain(label): people * _number(share, where) for label, share in soft.items()}
    if any(abs(count - round(count)) > people * NEAR + NEAR for count in counts.values()):
        raise DataError(
            "Soft labels are no shares of the votes.",
            where=where,
            expected=f"shares of {people:g} votes",
            got=str(soft)[:80],
        )
    return Ballot({label: round(count) for label, count in counts.items() if round(count)}, {})


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise FileFormatError("Votes cannot be read.", where=where, expected="numbers", got=str(value)[:80])
    return number
