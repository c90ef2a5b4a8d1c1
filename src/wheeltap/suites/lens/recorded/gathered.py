"""Answers as a file gives them, one row at a time, gathered by system and item in little memory."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, pairwise
from typing import Any, Final, cast, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.core.repeats import Words, copied, lookalikes, sizes_of, words_of
from wheeltap.suites.lens.recorded.base import AnswerFile, Answers, Votes, on_all

MOST_DRAWS: Final = 2**26
"""Numbers of a table of answers, items by draws: one that would be larger is left out, and that is said."""

MOST_COUNTS: Final = 2**24
"""Numbers of a table of votes, items by labels."""

MOST_VOTES: Final = 1_000_000
"""For one label of an item: nobody was asked by more people."""

MOST_SCORE: Final = 1e30
"""Of an answer: squares of scores are summed."""

LONGEST_NAME: Final = 200
"""Characters of a system's name."""

MOST_SAMPLE: Final = 2**62
"""Number of an answer."""

NEAR: Final = 1e-3
"""How far probabilities may be from a sum of 1: they were rounded, or else they are something else."""

WHOLE: Final = 1e-6
"""How far a mean score times the number of answers may be from a whole number of right ones."""

_NONE: Final = "\0none"

_LONGEST_SCALE: Final = 32
"""Steps of a scale; integers further apart are names of classes."""


@final
@dataclass(frozen=True)
class AnswerRow:
    """One answer.

    Attributes:
        line: Where it is in the file.
        score: 1 where it is right, 0 where it is wrong, another number where it is neither; ``None`` if not graded.
        answer: ``None`` where it is unknown, or there is none.
        sample: Which of the item's answers; ``None`` in a file of one answer to each item.
    """

    item: str
    line: int
    score: float | None = None
    answer: str | None = None
    sample: int | None = None
    probability: Sequence[float] | None = None


@dataclass
class _Columns:
    """Rows of one system."""

    items: "array[int]" = field(default_factory=lambda: array("i"))
    lines: "array[int]" = field(default_factory=lambda: array("q"))
    scores: "array[float]" = field(default_factory=lambda: array("d"))
    answers: "array[int]" = field(default_factory=lambda: array("q"))
    samples: "array[int]" = field(default_factory=lambda: array("q"))
    probability: "array[float]" = field(default_factory=lambda: array("d"))
    widths: set[int] = field(default_factory=set[int])
    graded: bool = True
    numbered: bool = False
    answered: bool = False


@final
class AnswerTable:
    """Rows of a file, taken one after another."""

    def __init__(self, shape: str, where: str) -> None:
        self._shape, self._where = shape, where
        self._items: dict[str, int] = {}
        self._groups: list[str] = []
        self._texts: dict[str, Words] = {}
        self._prompts: dict[str, int] = {}
        self._systems: dict[str, _Columns] = {}
        self._votes: tuple[array[int], array[int], array[int]] = (array("i"), array("i"), array("q"))
        self._labels: dict[str, int] = {}
        self._voted_on: dict[int, int] = {}
        self._raters: dict[str, int] = {}
        self._ballots: tuple[array[int], array[int], array[int]] = (array("i"), array("i"), array("i"))

    def item(self, name: str, group: str | None = None) -> int:
        """Number of an item, a new one where it was not there; its group is as before where none is given.

        Raises:
            DataError: If it is in another group than before, or in none where others are in one.
        """
        at = self._items.setdefault(name, len(self._items))
        if at == len(self._groups):
            self._groups.append(group or "")
        if group is not None and (self._groups[at] != group or bool(group) != bool(self._groups[0])):
            raise DataError(
                "An item's group is not clear.", where=f"{self._where}, item {name}",
                expected="one group for each item, the same in all its lines, or none at all",
                got=f"{self._groups[at]!r} and {group!r}" if self._groups[at] != group else repr(group),
                do="Give each item the group it shares with others; one of its own where it shares nothing.",
            )  # fmt: skip
        return at

    def prompted(self, item: str, prompt: Any) -> None:
        """Takes all that was put before a model, by which two logs of other prompts are known."""
        if prompt:
            self._prompts.setdefault(item, hash(msgspec.json.encode(prompt, order="deterministic")) or 1)

    def asked(self, item: str, given: Any) -> None:
        """Takes what an item asks, text or lists and tables of texts, by which items that look alike are known."""
        if item not in self._texts and (text := " ".join(texts_in(given))):
            self._texts[item] = words_of(text)

    def add(self, system: str, row: AnswerRow, group: str | None = None) -> None:
        """Takes one answer.

        Raises:
            DataError: If its number or its score is too large.
        """
        if row.sample is not None and abs(row.sample) > MOST_SAMPLE:
            raise _too_large("number of an answer (sample)", row.sample, MOST_SAMPLE, f"{self._where}, line {row.line}")
        if row.score is not None and abs(row.score) > MOST_SCORE:
            raise _too_large("score", row.score, MOST_SCORE, f"{self._where}, line {row.line}")
        held = self._systems.get(system)
        if held is None:
            if len(system) > LONGEST_NAME:
                raise DataError(
                    "The name of a system is too long.", where=f"{self._where}, line {row.line}",
                    expected=f"at most {LONGEST_NAME} characters", got=f"{len(system):,}: {system[:40]}...",
                    do="Shorten it: it is printed in every table.",
                )  # fmt: skip
            held = self._systems[system] = _Columns()
        held.items.append(self.item(row.item, group))
        held.lines.append(row.line)
        held.samples.append(-1 if row.sample is None else row.sample)
        held.numbered |= row.sample is not None
        held.graded &= row.score is not None
        held.scores.append(0.0 if row.score is None else row.score)
        # Equal texts have equal numbers within one process, and only which are equal is kept.
        held.answers.append(hash(_NONE if row.answer is None else row.answer))
        held.answered |= row.answer is not None
        held.widths.add(0 if row.probability is None else len(row.probability))
        if row.probability is not None:
            held.probability.extend(row.probability)

    def vote(
        self,
        item: str,
        line: int,
        counts: Mapping[str, int],
        group: str | None = None,
        *,
        raters: Mapping[str, str] | None = None,
    ) -> None:
        """Takes what people said of an item: votes by label, and the label of each person where they have names.

        Raises:
            DataError: If that was there already, or it is no count.
        """
        at = self.item(item, group)
        if (before := self._voted_on.setdefault(at, line)) != line:
            raise twice(self._where, item, (before, line))
        for label, count in counts.items():
            if count > MOST_VOTES:
                raise _too_large("count of votes", count, MOST_VOTES, f"{self._where}, line {line}")
            if count < 0:
                raise DataError("A count of votes is negative.", where=f"{self._where}, line {line}",
                                expected="0 or more", got=str(count)[:80])  # fmt: skip
            for column, number in zip(
                self._votes, (at, self._labels.setdefault(label, len(self._labels)), count), strict=True
            ):
                column.append(number)
        for rater, label in (raters or {}).items():
            who = self._raters.setdefault(rater, len(self._raters))
            for column, number in zip(self._ballots, (at, who, self._labels[label]), strict=True):
                column.append(number)

    def recording(
        self, *, labels: tuple[str, ...] = (), ordinal: bool = False, notes: Sequence[str] = ()
    ) -> AnswerFile:
        """All of it, on the items that every system answered.

        ``labels`` are of the probabilities, and of the votes in this order (by default as they came).

        Raises:
            DataError: If an answer is there twice, or the numbers make no sense.
        """
        names = list(self._items)
        known = labels or tuple(self._labels)
        stated = list(notes)
        there = np.ones(len(names), dtype=np.bool_)
        for held in self._systems.values():
            there &= np.bincount(_ints(held.items), minlength=len(names)) > 0
        if not there.any():
            raise DataError(
                "No item has an answer of every system.", where=self._where,
                expected="the same items for each system, of the same names", got=", ".join(list(self._systems)[:5]),
                do="Give each system's answers the ids of the same items, or a file of their own.",
            )  # fmt: skip
        if not there.all():
            whole = int(there.sum())
            have = "has" if whole == 1 else "have"
            stated.append(f"{whole:,} of {len(names):,} items {have} an answer of every system; the rest are out.")
        systems = tuple(self._answers(name, held, names, stated) for name, held in self._systems.items())
        stated += on_all(systems, there)
        votes = self._voted(known, len(names), ordinal) if self._labels else None
        groups: tuple[str, ...] = tuple(self._groups) if any(self._groups) else ()
        asked = labels if any(one.probability is not None for one in systems) else ()
        if not there.all():
            rows: NDArray[np.intp] = np.flatnonzero(there)
            systems, votes = tuple(one.part(rows) for one in systems), None if votes is None else votes.part(rows)
            names, groups = [*compress(names, there)], tuple(compress(groups, there))
        found = () if groups else self._found(names, stated)
        return AnswerFile(
            shape=self._shape, items=tuple(names), systems=systems, votes=votes, groups=groups, labels=asked,
            found=found, notes=tuple(stated), prompts=tuple(self._prompts.get(name, 0) for name in names),
        )  # fmt: skip

    def _found(self, names: list[str], stated: list[str]) -> tuple[int, ...]:
        """Groups of items that look alike; none where texts are not known."""
        if not self._texts.keys() >= set(names):
            return ()
        texts = [self._texts[name] for name in names]
        if (found := lookalikes(texts)) is None and (found := copied(texts)) is None:
            return ()
        stated.append(
            f"The {len(names):,} items are {sizes_of(found)} that share a template, prefix, passage or text. They "
            "count as groups, not one by one; give each item its group (group) if these are others."
        )
        return tuple(found.tolist())

    def _answers(self, name: str, held: _Columns, names: list[str], stated: list[str]) -> Answers:
        """Of one system."""
        items, scores = _ints(held.items), np.asarray(held.scores)
        order = np.lexsort((np.asarray(held.samples), items))
        ordered, numbers = items[order], np.asarray(held.samples)[order]
        again = np.flatnonzero((ordered[1:] == ordered[:-1]) & (numbers[1:] == numbers[:-1]))
        if len(again):
            one, two = sorted(held.lines[int(order[at])] for at in (again[0], again[0] + 1))
            raise twice(self._where, names[int(ordered[again[0]])], (one, two), more=len(again) - 1)
        samples = np.bincount(items, minlength=len(names)).astype(np.int32)
        right = score = None
        if held.graded:
            total = np.bincount(items, weights=scores, minlength=len(names))
            if bool(np.isin(scores, (0.0, 1.0)).all()):
                right = total.astype(np.int32)
            else:
                score = (total / np.maximum(samples, 1)).astype(np.float32)
        return Answers(
            name=name, right=right, samples=samples, score=score,
            answers=self._drawn(name, held, order, len(names), stated), probability=self._believed(held, len(names)),
        )  # fmt: skip

    def _drawn(
        self, name: str, held: _Columns, order: NDArray[np.intp], items: int, stated: list[str]
    ) -> NDArray[np.int32] | None:
        """``[item, draw]``, which of its distinct answers each item's draws gave, numbered as they first came."""
        whose = _ints(held.items)[order]
        counts = np.bincount(whose, minlength=items)
        most = int(counts.max())
        if not held.answered or most == 1:
            return None
        if items * most > MOST_DRAWS:
            stated.append(
                f"Which answers {name} gave is left out: {items:,} items with up to {most:,} answers are too many."
            )
            return None
        seen, numbers, none = dict[int, dict[int, int]](), list[int](), hash(_NONE)
        for item, answer in zip(whose.tolist(), np.asarray(held.answers)[order].tolist(), strict=True):
            known = seen.setdefault(item, {})
            numbers.append(-1 if answer == none else known.setdefault(answer, len(known)))
        table = np.full((items, most), -1, dtype=np.int32)
        starts = np.cumsum(counts) - counts
        table[whose, np.arange(len(whose)) - starts[whose]] = numbers
        return table

    def _believed(self, held: _Columns, items: int) -> NDArray[np.float32] | None:
        """``[item, label]``, mean probability over an item's rows; ``None`` where a row has none or others."""
        if len(held.widths) != 1 or 0 in held.widths:
            return None
        p = np.asarray(held.probability).reshape(len(held.items), -1)
        whose = _ints(held.items)
        counts = np.maximum(np.bincount(whose, minlength=items), 1)
        means = [np.bincount(whose, weights=column, minlength=items) / counts for column in p.T]
        return np.stack(means, axis=1).astype(np.float32)

    def _voted(self, labels: tuple[str, ...], items: int, ordinal: bool) -> Votes:
        outside = sorted(set(self._labels) - set(labels))
        if outside:
            raise DataError(
                "A vote is for a label that is not in the set.",
                where=self._where,
                expected=", ".join(labels),
                got=", ".join(outside[:5]),
                do="Correct the label, or give it a place in every line.",
            )
        if items * len(labels) > MOST_COUNTS:
            raise _too_large("table of votes", items * len(labels), MOST_COUNTS, self._where)
        place = np.array([labels.index(label) for label in self._labels])
        at, label, count = (np.asarray(column) for column in self._votes)
        votes = np.zeros((items, len(labels)), dtype=np.int64)
        np.add.at(votes, (at, place[label]), count)
        ballots = None
        item, rater, chosen = (_ints(column) for column in self._ballots)
        if len(item) == votes.sum():  # who gave some of the votes is nothing to go by
            ballots = np.column_stack([item, rater, place[chosen]]).astype(np.int32)
        return Votes(labels=labels, votes=votes.astype(np.int32), ordinal=ordinal, ballots=ballots)


def _too_large(what: str, got: float, most: float, where: str) -> DataError:
    digits = (
        f"{got:g}" if isinstance(got, float) else str(got) if abs(got) < 10**20 else "a number of more than 20 digits"
    )
    return DataError(
        f"A {what} is too large.",
        where=where,
        expected=f"at most {most:,}",
        got=digits,
        do="Correct it: such a number is most likely an error of what wrote the file.",
    )


def twice(where: str, item: str, lines: tuple[int, int], *, more: int = 0) -> DataError:
    """The error of an item that is on two lines, and of more such lines."""
    return DataError(
        "An item is there twice.",
        where=f"{where}, line {lines[1]}",
        expected="one identifier for each item; several answers to one item with a number each (sample)",
        got=f"{item}, as on line {lines[0]}{f' (and {more:,} more such lines)' if more else ''}",
        do="Give each item an id of its own, or number its answers.",
    )


def texts_in(given: Any) -> Iterator[str]:
    """All text, in its order."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, dict | list):
        several = cast("dict[str, Any] | list[Any]", given)
        for one in several.values() if isinstance(several, dict) else several:
            yield from texts_in(one)


def group_in(given: Any) -> str:
    """The group that a document or metadata name; empty where they name none."""
    named = cast("dict[str, Any]", given).get("group") if isinstance(given, dict) else None
    return str(named) if isinstance(named, str | int) else ""


def _ints(column: "array[int]") -> NDArray[np.int32]:
    return np.asarray(column, dtype=np.int32)


def in_order(labels: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Labels in their order, and whether it is one of numbers with equal steps; what lies between is filled in.

    Two labels have no order that matters.
    """
    try:
        numbers = sorted({int(float(label)) for label in labels})
        if any(float(label) != int(float(label)) for label in labels):
            return tuple(sorted(set(labels))), False
    except (ValueError, OverflowError):
        return tuple(sorted(set(labels))), False
    if len(numbers) < 3 or numbers[-1] - numbers[0] > _LONGEST_SCALE:
        return tuple(str(number) for number in numbers), False
    filled = any(later - sooner > 1 for sooner, later in pairwise(numbers))
    return tuple(str(number) for number in (range(numbers[0], numbers[-1] + 1) if filled else numbers)), True
