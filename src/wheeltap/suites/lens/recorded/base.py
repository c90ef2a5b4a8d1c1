"""What a file of recorded answers holds: items, who answered them how, what people said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon
from wheeltap.core.errors import DataError
from wheeltap.core.plain import many, plain
from wheeltap.plans.readings.base import ReadingSpec

Counts = NDArray[np.int32]
T = TypeVar("T")

_LISTED: Final = 4
"""Systems whose score on all of their items is given."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ReadingArrays:
    """What else a file says: the arrays of a reading, which an audit asks for by the reading's name.

    Attributes:
        values: Its arrays by name; those whose first axis is ``example`` are item by item.
        audit: Registered name of the audit that judges it.
    """

    spec: ReadingSpec
    values: Mapping[str, NDArray[Any]]
    audit: str

    @property
    def digest(self) -> str:
        """Of the arrays."""
        known = [canon.array_digest(name, array) for name, array in sorted(self.values.items())]
        return canon.key("recorded reading", [self.spec.name, known])

    def part(self, rows: NDArray[np.intp]) -> "ReadingArrays":
        """Of these items, in this order."""
        of_items = {name for name in self.values if self.spec.arrays[name].axes.split()[:1] == ["example"]}
        return replace(self, values={name: one[rows] if name in of_items else one for name, one in self.values.items()})


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What one system answered, item by item.

    Attributes:
        right: ``[item]``, how many of its answers are right; ``None`` where nothing was graded.
        samples: ``[item]``, how many answers there are.
        answers: ``[item, draw]``, which of the item's distinct answers was given; -1 for none. ``None`` where unknown.
        probability: ``[item, label]``, of each label; ``None`` where unknown.
        score: ``[item]``, mean score of its answers, where some are neither right nor wrong; ``right`` is ``None``.
        more: What else is known of its answers.
    """

    name: str
    right: Counts | None = None
    samples: Counts | None = None
    answers: Counts | None = None
    probability: NDArray[np.float32] | None = None
    score: NDArray[np.float32] | None = None
    more: tuple[ReadingArrays, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", plain(self.name))

    @property
    def digest(self) -> str:
        """Of everything but the name."""
        held = {"right": self.right, "samples": self.samples, "answers": self.answers, "p": self.probability,
                "score": self.score}  # fmt: skip
        known = [canon.array_digest(name, array) for name, array in held.items() if array is not None]
        return canon.key("recorded answers", [*known, *(one.digest for one in self.more)])

    @property
    def mean(self) -> NDArray[np.float32] | None:
        """``[item]``, share of its answers that are right, or their mean score; ``None`` where nothing was graded."""
        if self.right is None or self.samples is None:
            return self.score
        return (self.right / np.maximum(self.samples, 1)).astype(np.float32)

    @property
    def repeated(self) -> bool:
        """Whether an item has several answers."""
        return self.samples is not None and int(self.samples.max()) > 1

    def part(self, rows: NDArray[np.intp]) -> "Answers":
        """Of these items, in this order."""

        def taken(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[rows]

        return replace(
            self, right=taken(self.right), samples=taken(self.samples), answers=taken(self.answers),
            probability=taken(self.probability), score=taken(self.score),
            more=tuple(one.part(rows) for one in self.more),
        )  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """What people said of each item.

    Attributes:
        votes: ``[item, label]``, how many people chose it.
        ordinal: Whether the labels are in an order, with equal steps between them.
        ballots: ``[ballot, 3]``: item, rater and label of each vote, where the raters are known.
    """

    labels: tuple[str, ...]
    votes: Counts
    ordinal: bool = False
    ballots: Counts | None = None

    @property
    def digest(self) -> str:
        """Of labels, votes, and who gave them."""
        who = [] if self.ballots is None else [canon.array_digest("ballots", self.ballots)]
        return canon.key("votes", [list(self.labels), canon.array_digest("votes", self.votes), self.ordinal, *who])

    def part(self, rows: NDArray[np.intp]) -> "Votes":
        """Of these items, in this order."""
        ballots = self.ballots
        if ballots is not None:
            place = np.full(len(self.votes), -1, dtype=ballots.dtype)
            place[rows] = np.arange(len(rows))
            ballots = np.column_stack([place[ballots[:, 0]], ballots[:, 1:]])
            ballots = ballots[ballots[:, 0] >= 0]
        return replace(self, votes=self.votes[rows], ballots=ballots)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerFile:
    """A file of recorded answers, or of votes, or of both.

    Attributes:
        shape: What kind of file it is, in words.
        systems: Who answered; none in a file of votes.
        votes: What people said, where that is known.
        groups: What each item shares with others, where that is known; an empty name where it is not.
        found: Which group of items that look alike each is in, where no groups are named and there are any.
        parts: Whether the groups are all the parts that the benchmark has, and no sample of templates or passages.
        labels: Names of the labels that probabilities are of.
        notes: What was left out or assumed, in sentences.
        more: What else is known of the items, whoever answers them.
        metric: What says whether an answer is right, where the file names it.
        prompts: A number for what each item's prompt says, alike for equal ones within this process; 0: unknown.
        settings: How the benchmark was run, where the file says it.

    Raises:
        DataError: If nobody voted on an item.
    """

    shape: str
    items: tuple[str, ...]
    systems: tuple[Answers, ...] = ()
    votes: Votes | None = None
    groups: tuple[str, ...] = ()
    found: tuple[int, ...] = ()
    parts: bool = False
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    more: tuple[ReadingArrays, ...] = ()
    metric: str = ""
    prompts: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(map(plain, self.groups)))
        if self.votes is not None and not (sums := self.votes.votes.sum(1)).all():
            silent = [self.items[at] for at in np.flatnonzero(sums == 0)]
            raise DataError(
                "Nobody voted on an item.",
                where=self.shape,
                expected="votes that sum to 1 or more for each item",
                got=f"0 votes on {len(silent):,}: {', '.join(silent[:5])}",
                do="Leave these items out: they have no distribution of votes.",
            )

    @property
    def says(self) -> str:
        """What it is, in one line."""
        stated = [many(len(self.items), "item")]
        if self.systems:
            counts = [one.samples for one in self.systems if one.samples is not None]
            said = "probabilities of labels" if any(one.probability is not None for one in self.systems) else ""
            if counts:
                few, most = min(int(c.min()) for c in counts), max(int(c.max()) for c in counts)
                said = f"{_range(few, most)} answer{'s' if most > 1 else ''} each"
            stated = [many(len(self.systems), "system"), *stated, said]
        if self.votes is not None:
            sums = self.votes.votes.sum(1)
            few, most = int(sums.min()), int(sums.max())
            order = "ordered " if self.votes.ordinal else ""
            stated.append(
                f"{_range(few, most)} vote{'s' if most > 1 else ''} each on {len(self.votes.labels)} {order}labels"
            )
        return f"{self.shape}: {', '.join(part for part in stated if part)}"

    def part(self, items: tuple[str, ...]) -> "AnswerFile":
        """The same of these items alone, in this order."""
        place = {item: at for at, item in enumerate(self.items)}
        chosen = [place[item] for item in items]
        rows: NDArray[np.intp] = np.array(chosen, dtype=np.intp)

        def kept(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[at] for at in chosen) if values else ()

        return replace(
            self, items=items, systems=tuple(one.part(rows) for one in self.systems),
            votes=None if self.votes is None else self.votes.part(rows), groups=kept(self.groups),
            found=kept(self.found), prompts=kept(self.prompts), more=tuple(one.part(rows) for one in self.more),
        )  # fmt: skip


def on_all(systems: Sequence[Answers], judged: NDArray[np.bool_]) -> list[str]:
    """What each system's score would be on all items that it answered, where not all of them are judged."""
    said: list[str] = []
    for one in systems:
        answered = np.ones(len(judged), dtype=np.bool_) if one.samples is None else one.samples > 0
        score, more = one.mean, int(answered.sum())
        if score is not None and more > judged.sum() > 0:
            less, whole = float(score[judged].mean()), float(score[answered].mean())
            said.append(f"{one.name}: score {whole:.3f} on all {more:,} items that it answered, {less:.3f} on these.")
    rest = len(said) - _LISTED
    return [*said[:_LISTED], *([f"{rest} more systems answered other items too."] if rest > 0 else [])]


def _range(few: int, most: int) -> str:
    return f"{few:,}" if few == most else f"{few:,} to {most:,}"
