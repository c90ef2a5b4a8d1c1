"""Our own rows: ``{"id", "system"?, "sample"?, "correct"?, "answer"?, "probabilities"?, "group"?, "votes"?, ...}``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from wheeltap.core.errors import DataError
from wheeltap.core.plain import fixed, many
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.gathered import NEAR, AnswerRow, AnswerTable, in_order
from wheeltap.suites.lens.recorded.lines import decoded, misfit

SHAPE = "rows of answers"

VOTED: Final = "rows of votes"
"""What a file is in which nobody answered."""

_BOUNDS: Final = 4
"""Systems whose score with answers that were not graded is given."""


class _Line(msgspec.Struct, frozen=True):
    id: str | int
    system: str | UnsetType = UNSET
    sample: int | UnsetType = UNSET
    correct: bool | float | UnsetType | None = UNSET
    answer: str | int | float | bool | UnsetType | None = UNSET
    probabilities: dict[str, float] | UnsetType = UNSET
    group: str | int | UnsetType = UNSET
    votes: dict[str, int] | UnsetType = UNSET
    raters: dict[str, str | int] | UnsetType = UNSET
    prompt: Any = ""
    question: Any = ""
    text: Any = ""


_FIELDS: Final = _Line.__struct_fields__[:9]


def read(path: Path) -> AnswerFile:
    """The answers and votes in the rows of a file."""
    gathered = AnswerTable(SHAPE, str(path))
    fields: list[str] | None = None
    labels: dict[str, int] | None = None
    voted: dict[str, None] = {}
    together: list[set[str]] = []
    seen, ungraded, graded = set[str](), 0, 0
    totals: dict[str, list[float]] = {}
    for number, line in decoded(path, _Line, shape=SHAPE):
        has = [name for name in _FIELDS if getattr(line, name) is not UNSET]
        fields = has if fields is None else fields
        if has != fields:
            raise misfit(path, number, expected=", ".join(fields), got=", ".join(has))
        item, group = str(line.id), "" if line.group is UNSET else str(line.group)
        texts = [one for one in (line.prompt, line.question, line.text) if one]
        gathered.asked(item, texts)
        gathered.prompted(item, texts)
        p: list[float] | None = None
        if line.probabilities is not UNSET:
            labels = {label: at for at, label in enumerate(line.probabilities)} if labels is None else labels
            p = _probabilities(line.probabilities, labels, where=f"{path}, line {number}")
        answered = line.correct is not UNSET or line.answer is not UNSET or p is not None
        raters = {} if line.raters is UNSET else {who: str(label) for who, label in line.raters.items() if label != ""}
        votes = Counter(raters.values()) if line.votes is UNSET or line.raters is not UNSET else line.votes
        has_votes = line.raters is not UNSET or line.votes is not UNSET
        if has_votes and not (answered and item in seen):
            seen.add(item)
            voted.update(dict.fromkeys(votes))
            together = _joined(together, votes.keys())
            gathered.vote(item, number, votes, group, raters=raters)
        system = path.stem if line.system is UNSET else line.system
        if answered and line.correct is not UNSET:
            of_all = totals.setdefault(system, [0.0, 0.0, 0.0])  # scores, and answers with and without a grade
            of_all[0] += float(line.correct or 0.0)
            of_all[2 if line.correct is None else 1] += 1.0
        if answered and line.correct is None:
            ungraded += 1
        elif answered:
            graded += 1
            row = AnswerRow(
                item, number, None if line.correct is UNSET or line.correct is None else float(line.correct),
                None if line.answer is UNSET or line.answer is None else str(line.answer),
                None if line.sample is UNSET else line.sample, p,
            )  # fmt: skip
            gathered.add(system, row, group)
    order, ordinal = _order(labels, voted, together, where=str(path))
    notes = _left_out(ungraded, graded, totals, where=str(path))
    made = gathered.recording(labels=order, ordinal=ordinal, notes=notes)
    return made if made.systems else replace(made, shape=VOTED)


def _joined(sets: list[set[str]], labels: AbstractSet[str]) -> list[set[str]]:
    """Sets of labels that people could choose among, one line more: those that share a label are one set."""
    if len(labels) < 2 or any(labels <= one for one in sets):
        return sets  # a line may have those labels alone that somebody chose
    return [*(one for one in sets if not one & labels), set(labels).union(*(one for one in sets if one & labels))]


def _order(
    labels: Mapping[str, int] | None, voted: Mapping[str, None], together: Sequence[AbstractSet[str]], *, where: str
) -> tuple[tuple[str, ...], bool]:
    """Labels of probabilities, or else of votes, in their order, and whether it is one with equal steps."""
    order, ordinal = in_order(list(labels or voted))
    if len(together) > 1 and not all(label.lstrip("-").isdecimal() for label in order):
        raise DataError(
            "Votes are on different sets of labels.",
            where=where,
            expected="one set of labels for all items",
            got="; ".join(", ".join(sorted(one)[:5]) for one in together[:3]),
            do="Give each question a file of its own.",
        )
    return (order, ordinal) if labels is None else (tuple(labels), ordinal and order == tuple(labels))


def _left_out(ungraded: int, graded: int, totals: Mapping[str, Sequence[float]], *, where: str) -> list[str]:
    """What is said of answers whose grade is null, with the scores that they could make."""
    if ungraded and not graded:
        raise DataError(
            "No answer is graded.",
            where=where,
            expected="correct: true, false or a number, in some lines",
            got=f"null in {many(ungraded, 'line')}",
            do="Leave the field out where only probabilities or votes are of interest.",
        )
    if not ungraded:
        return []
    bounds = [
        f"{name}: {fixed(100 * total / known, 1)} % without them, {fixed(100 * total / (known + unknown), 1)} % of all "
        f"answers if they are wrong, {fixed(100 * (total + unknown) / (known + unknown), 1)} % if they are right."
        for name, (total, known, unknown) in totals.items()
        if unknown and known > 0.0 and 0.0 <= total <= known
    ]
    more = [f"{len(bounds) - _BOUNDS} more systems have such answers."] if len(bounds) > _BOUNDS else []
    return [f"{many(ungraded, 'answer')} without a grade (null) left out.", *bounds[:_BOUNDS], *more]


def _probabilities(p: dict[str, float], labels: dict[str, int], *, where: str) -> list[float]:
    """In the order of the labels."""
    if p.keys() != labels.keys():
        raise DataError(
            "Probabilities are of other labels than those of the first line.",
            where=where,
            expected=", ".join(labels),
            got=", ".join(p),
            do="Give every line a probability of each label.",
        )
    values = [p[label] for label in labels]
    total = sum(values)
    if not (min(values, default=-1.0) >= 0.0 and abs(total - 1.0) <= NEAR):
        raise DataError(
            "Probabilities do not sum to 1.",
            where=where,
            expected=f"numbers of at least 0 with a sum of 1, within {NEAR}",
            got=f"a sum of {total:.4g}, the least {min(values):.4g}" if values else "no labels",
        )
    return [value / total for value in values]
