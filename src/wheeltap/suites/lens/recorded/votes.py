"""Votes as files write them: tables, documents of LeWiDi, rows on natural language inference.

Labels may be in lists, in dictionaries, in texts with commas, and in what Python prints of a list.
"""

import ast
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast, final

import msgspec

from wheeltap.core import seeds
from wheeltap.core.bounded import few_parts
from wheeltap.core.errors import DataError, FileFormatError, nearest
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.ambient import confirmed
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.gathered import NEAR, WHOLE, AnswerTable, in_order
from wheeltap.suites.lens.recorded.lines import BROKEN, decoded, first, head_of, misfit, numbered, placed, table, whole

TABLE: Final = "a table of votes"
LEWIDI: Final = "votes in the form of LeWiDi"
NLI: Final = "votes on natural language inference"

LONGEST: Final = 100_000
"""Characters of one text of votes."""

_PREFIX: Final = "c_"
_NAMES: Final = ("id", "example_id", "uid", "item", "item_id")
_SUM: Final = "n"
_PERSON: Final = re.compile("a[0-9]+")
_COUNT: Final = ("number of annotations", "number of annotators", "number_of_annotations")
LABELS: Final = ("entailment", "neutral", "contradiction")

HUNDRED: Final = 100
"""How many people voted in ChaosNLI, where a file has shares alone."""

_SHORT: Final = {"e": "entailment", "n": "neutral", "c": "contradiction"}
_PAIR: Final = ("1", "2")

REWRITTEN: Final = frozenset({"labels", "q1_gold", "d1_gold"})
"""Fields of a row with votes on rewrites beside those on the ambiguous pair."""


@final
@dataclass(frozen=True)
class Ballot:
    """The votes on one item.

    Attributes:
        counts: By label; every person has one vote.
        raters: What each person chose, by name; empty where people have no names.
        several: How many people chose several labels: one of those is drawn.
    """

    counts: Mapping[str, int]
    raters: Mapping[str, str]
    several: int = 0


def counted(value: Any, *, where: str, names: Sequence[str] = ()) -> Ballot:
    """The votes on one item; of a person who chose several labels, one of them at random, by the line ``where`` it is.

    Several choices of one person are not several people, and half a vote would be no person. See ``ballots``; ``names``
    are those of the people, where ``value`` has none.

    Raises:
        FileFormatError: See ``ballots``; if there are not as many names as people.
    """
    people = ballots(value, where=where)
    own = list(cast("dict[str, Any]", value)) if isinstance(value, dict) else list(names)
    if own and (len(own) != len(people) or len(set(own)) != len(own)):
        raise FileFormatError(
            "Votes do not fit the people who gave them.",
            where=where,
            expected=f"{len(people)} people, one for each vote",
            got=", ".join(own)[:80],
            do="Name every person once, in the order of the votes; or leave the names out.",
        )
    rng = seeds.generator(0, "choices", where.rpartition("/")[2])
    drawn = [labels[int(rng.integers(len(labels)))] if len(labels) > 1 else "".join(labels) for labels in people]
    voted = [(name, label) for name, label in zip(own or [""] * len(drawn), drawn, strict=True) if label]
    return Ballot(
        counts=Counter(label for _, label in voted), raters=dict(voted) if own else {},
        several=sum(len(labels) > 1 for labels in people),
    )  # fmt: skip


def one_each(several: int) -> list[str]:
    """What is said of people who chose several labels."""
    if not several:
        return []
    said = f"{many(several, 'time')} a person chose several labels of one item: one of them is drawn at random"
    return [f"{said}, because several choices of one person are not several people."]


def ballots(value: Any, *, where: str) -> list[list[str]]:
    """The labels that each person chose, ``[person][label]``; none where a person did not vote.

    They are in a list of labels, a dictionary from people to labels, a text with commas or semicolons between labels,
    or what Python prints of a list.

    Raises:
        FileFormatError: If it is none of these.
    """
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise _unreadable(f"{len(value):,} characters", where)
        if value.strip()[:1] in ("[", "(", "{"):
            try:
                held = ast.literal_eval(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                raise _unreadable(value[:80], where) from error
            return ballots(held, where=where)
        return [[label] for label in _apart(value)]
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list | tuple):
        return [_labels(one, where) for one in cast("Iterable[Any]", value)]
    raise _unreadable(str(value)[:80], where)


def _apart(text: str) -> list[str]:
    return [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]


def _labels(one: Any, where: str) -> list[str]:
    """Of one person; none where that person did not vote."""
    if one is None:
        return []
    if isinstance(one, str):
        if len(one) > LONGEST:
            raise _unreadable(f"{len(one):,} characters", where)
        return list(dict.fromkeys(_apart(one))) if one.strip()[:1] not in ("[", "(", "{") else [one]
    if isinstance(one, bool | int | float):
        return [plain(one)]
    raise _unreadable(str(one)[:80], where)


def plain(label: Any) -> str:
    """The name of a label: a whole number without a point."""
    try:
        number = float(label)
    except (TypeError, ValueError, OverflowError):
        return str(label)
    return str(int(number)) if number.is_integer() and not isinstance(label, bool) else str(label)


def _unreadable(got: str, where: str) -> FileFormatError:
    return FileFormatError(
        "Votes cannot be read.",
        where=where,
        expected='a list of labels, such as ["neutral", "entailment"], or labels with commas between them',
        got=got,
    )


# ---- tables --------------------------------------------------------------------------------------------------------


def table_of_votes(path: Path) -> AnswerFile:
    """The votes in a table.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If there are no such columns, or a line has other ones.
        DataError: If an item is there twice, or nobody voted on it.
    """
    gathered = AnswerTable(TABLE, str(path))
    head, _ = head_of(path)
    name = next((one for one in _NAMES if one in head), None)
    labels = {plain(one.removeprefix(_PREFIX)): one for one in head if one.startswith(_PREFIX)}
    if name is None or len(labels) < 2:
        near = [one for one in ("correct", "id") if one not in head and nearest(one, head)]
        raise FileFormatError(
            "A table has neither answers nor votes.",
            where=str(path),
            expected=f"a column {' or '.join(_NAMES[:2])}, and one {_PREFIX}LABEL for each label; of answers, id and "
            "correct",
            got=", ".join(head)[:200] or "an empty file",
            do=f"Did you mean {near[0]}, where it says {nearest(near[0], head)[0]}?"
            if near
            else "See docs/lens.md for what a table may look like.",
        )
    people = [one for one in head if _PERSON.fullmatch(one)]
    for number, row in table(path):
        votes = _counts(path, number, row, labels)
        raters = {who: plain(row[who]) for who in people if row[who]}
        if raters and Counter(raters.values()) != Counter({label: count for label, count in votes.items() if count}):
            got = ", ".join(f"{who} {label}" for who, label in raters.items())
            expected = "people (a1, a2 ...) who chose what the columns c_LABEL count"
            raise misfit(path, number, expected=expected, got=got)
        gathered.vote(plain(row[name]), number, votes, raters=raters)
    order, ordinal = in_order(list(labels))
    return gathered.recording(labels=order, ordinal=ordinal)


def _counts(path: Path, line: int, row: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, int]:
    """Votes by label."""
    try:
        numbers = [float(row[name] or "0") for name in columns.values()] + [float(row.get(_SUM, 0))]
        broken = next((text for text, number in zip([*columns.values(), _SUM], numbers, strict=True)
                       if not number.is_integer()), None)  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise misfit(path, line, expected="whole numbers of votes", got=str(error)) from error
    if broken is not None:
        raise misfit(path, line, expected="whole numbers of votes", got=f"{row[broken]} votes")
    *votes, total = map(int, numbers)
    if _SUM in row and total != sum(votes):
        raise misfit(path, line, expected=f"{total} votes, as {_SUM} says", got=f"{sum(votes)} votes")
    return dict(zip(columns, votes, strict=True))


# ---- documents in the form of LeWiDi: ``{ID: {"annotations": ..., "soft_label": ...}, ...}`` -------------------------


def document(path: Path) -> AnswerFile:
    """The votes in a document, from annotations; where there are none, from soft labels and the number of people.

    Raises:
        FileFormatError: If it is damaged, or an item has no votes.
        DataError: If a label is not among those of the soft labels, or nobody voted on an item.
    """
    data = whole(path)
    try:
        held = msgspec.json.decode(few_parts(data, where=path), type=dict[str, dict[str, Any]])
    except (*BROKEN, msgspec.MsgspecError) as error:
        raise FileFormatError(
            "A file of votes cannot be read.", where=placed(str(path), data, error), expected=LEWIDI, got=str(error)
        ) from error
    gathered = AnswerTable(LEWIDI, str(path))
    # Labels that the soft labels name, where these are the ones that people chose from. Scales whose soft labels are of
    # two classes (a judgement from -3 to 1 as abusive or not) have others.
    known = {plain(label) for row in held.values() for label in _dict(row.get("soft_label"))}
    name, initial = next(iter(held.items()))
    people = ballots(initial["annotations"], where=f"{path}: {name}") if "annotations" in initial else []
    if len(known) == 2 or not {plain(one) for own in people for one in own} <= known:
        known = set[str]()
    labels = dict.fromkeys(sorted(known))
    several = 0
    for at, (item, row) in enumerate(held.items(), start=1):
        ballot = _ballot_of(row, where=f"{path}: {item}")
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


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _ballot_of(row: dict[str, Any], *, where: str) -> Ballot:
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


# ---- rows as AmbiEnt's crowd (``q0_gold``) and ChaosNLI (``label_counter``) have -------------------------------------


class _Line(msgspec.Struct, frozen=True):
    id: str | int | None = None
    uid: str | int | None = None
    q0_gold: Any = None
    label_counter: dict[str, int] | None = None
    label_count: list[int] | None = None
    label_dist: list[float] | None = None


def inference(path: Path) -> AnswerFile:
    """The votes in a file.

    Raises:
        FileFormatError: If a line has no votes.
        DataError: If a label is none of the set, an item is there twice, or nobody voted on it.
    """
    gathered, labels, seen = AnswerTable(NLI, str(path)), tuple[str, ...](), dict[str, list[Any]]()
    assumed, again, several = False, 0, 0
    for number, line in decoded(path, _Line, shape=NLI):
        name = line.uid if line.id is None else line.id
        ballot, shares = _votes(line, where=f"{path}, line {number}")
        votes = None if ballot is None else ballot.counts
        if name is None or ballot is None or votes is None:
            raise misfit(path, number, expected="id or uid, and votes (q0_gold, label_counter ...)", got="none")
        assumed |= shares
        labels = labels or (_PAIR if set(votes) <= set(_PAIR) else LABELS)
        outside = [label for label in votes if label not in labels]
        if outside:
            raise DataError(
                "A vote is for a label that is not in the set.",
                where=f"{path}, line {number}",
                expected=", ".join(labels),
                got=", ".join(outside[:5]),
                do="Correct the label: a set with more labels needs rows of our own (votes).",
            )
        several += ballot.several
        # A pair with other votes than before was put to a second panel, as AmbiEnt has: an item of its own.
        item, before = str(name), seen.setdefault(str(name), [])
        if line.q0_gold is not None and line.q0_gold not in before:
            before.append(line.q0_gold)
            again += len(before) > 1
            item = item if len(before) == 1 else f"{item} ({len(before)})"
        gathered.vote(item, number, votes, raters=ballot.raters)
    notes = [f"The file has shares and no counts: {HUNDRED} votes an item, as ChaosNLI has."] if assumed else []
    if again:
        were = "was" if again == 1 else "were"
        notes.append(f"{many(again, 'pair')} {were} put to people a second time: each time is an item of its own.")
    found = gathered.recording(labels=labels, notes=[*notes, *one_each(several)])
    if not first(path).keys() >= REWRITTEN:
        return found
    return replace(found, more=(confirmed([line for _, line in numbered(path)], where=str(path)),))


def _votes(line: _Line, *, where: str) -> tuple[Ballot | None, bool]:
    """Votes by label, and whether their number was assumed."""
    if line.label_counter is not None:
        return Ballot({_SHORT.get(label, label): count for label, count in line.label_counter.items()}, {}), False
    if line.q0_gold is not None:
        own = counted(line.q0_gold, where=where)
        counts = {_SHORT.get(label, label): count for label, count in own.counts.items()}
        raters = {name: _SHORT.get(label, label) for name, label in own.raters.items()}
        return Ballot(counts, raters, own.several), False
    if line.label_count is not None:
        return Ballot(dict(zip(_of(len(line.label_count), where), line.label_count, strict=True)), {}), False
    if line.label_dist is None:
        return None, False
    counts = [HUNDRED * share for share in line.label_dist]
    if any(abs(count - round(count)) > HUNDRED * WHOLE for count in counts):
        raise DataError(
            "Shares of votes cannot be counted.",
            where=where,
            expected=f"shares of {HUNDRED} votes, or counts (label_counter)",
            got=str(line.label_dist),
            do="Give the counts: shares do not say how many people voted.",
        )
    return Ballot(dict(zip(_of(len(counts), where), map(round, counts), strict=True)), {}), True


def _of(labels: int, where: str) -> tuple[str, ...]:
    """Names of the labels of a list that is so long, in the order in which ChaosNLI has them."""
    if labels not in (len(_PAIR), len(LABELS)):
        raise DataError("Votes are for another number of labels.", where=where, expected="2 or 3", got=str(labels))
    return _PAIR if labels == len(_PAIR) else LABELS
