"""Votes on natural language inference: rows as AmbiEnt's crowd (``q0_gold``) and ChaosNLI (``label_counter``) have."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from wheeltap.core.errors import DataError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded import ambient_rewrites
from wheeltap.suites.lens.recorded.ballots import Ballot, counted, one_each
from wheeltap.suites.lens.recorded.base import Recording
from wheeltap.suites.lens.recorded.gathered import WHOLE, AnswerTable
from wheeltap.suites.lens.recorded.lines import decoded, first, misfit, numbered

SHAPE = "votes on natural language inference"

LABELS: Final = ("entailment", "neutral", "contradiction")

HUNDRED: Final = 100
"""How many people voted in ChaosNLI, where a file has shares alone."""

_SHORT: Final = {"e": "entailment", "n": "neutral", "c": "contradiction"}
_PAIR: Final = ("1", "2")


class _Line(msgspec.Struct, frozen=True):
    id: str | int | None = None
    uid: str | int | None = None
    q0_gold: Any = None
    label_counter: dict[str, int] | None = None
    label_count: list[int] | None = None
    label_dist: list[float] | None = None


def fits(first: Any) -> bool:
    """Whether a file whose first row is this has this shape."""
    named = {"id", "uid"}
    votes = {"q0_gold", "label_counter", "label_count", "label_dist"}
    return isinstance(first, dict) and bool(named & first.keys()) and bool(votes & first.keys())


def read(path: Path) -> Recording:
    """The votes in a file.

    Raises:
        FileFormatError: If a line has no votes.
        DataError: If a label is none of the set, an item is there twice, or nobody voted on it.
    """
    gathered, panels, assumed = AnswerTable(SHAPE, str(path)), _Panels(), False
    labels: tuple[str, ...] = ()
    several = 0
    for number, line in decoded(path, _Line, shape=SHAPE):
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
        gathered.vote(panels.item(str(name), line.q0_gold), number, votes, raters=ballot.raters)
    notes = [f"The file has shares and no counts: {HUNDRED} votes an item, as ChaosNLI has."] if assumed else []
    found = gathered.recording(labels=labels, notes=[*notes, *panels.notes(), *one_each(several)])
    if not ambient_rewrites.has_rewrites(first(path)):
        return found
    return replace(found, more=(ambient_rewrites.confirmed([line for _, line in numbered(path)], where=str(path)),))


class _Panels:
    """Pairs that two panels voted on, as AmbiEnt has: each time an item of its own."""

    def __init__(self) -> None:
        self._votes: dict[str, list[Any]] = {}
        self._again = 0

    def item(self, name: str, votes: Any) -> str:
        """A name of its own for a pair with other votes than before; the same name for one that is there twice."""
        before = self._votes.setdefault(name, [])
        if votes is None or votes in before:
            return name
        before.append(votes)
        self._again += len(before) > 1
        return name if len(before) == 1 else f"{name} ({len(before)})"

    def notes(self) -> list[str]:
        """How often that was so."""
        if not self._again:
            return []
        return [
            f"{many(self._again, 'pair')} {'was' if self._again == 1 else 'were'} put to people a second time: "
            "each time is an item of its own."
        ]


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
