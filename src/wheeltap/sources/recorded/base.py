"""What a file of recorded answers holds: items, who answered them how, what people said of them."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon
from wheeltap.core.errors import DataError

Counts = NDArray[np.int32]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What one system answered, item by item.

    Attributes:
        name: Of the system.
        right: ``[item]``, how many of its answers are right; ``None`` where nothing was graded.
        samples: ``[item]``, how many answers there are.
        answers: ``[item, draw]``, which of the item's distinct answers was given; -1 for none. ``None`` where unknown.
        probability: ``[item, label]``, of each label; ``None`` where unknown.

    Raises:
        DataError: If an item has more right answers than answers; the message names the first such items.
    """

    name: str
    right: Counts | None = None
    samples: Counts | None = None
    answers: Counts | None = None
    probability: NDArray[np.float32] | None = None

    @property
    def digest(self) -> str:
        """Of everything but the name."""
        held = {"right": self.right, "samples": self.samples, "answers": self.answers, "p": self.probability}
        known = [canon.array_digest(name, array) for name, array in held.items() if array is not None]
        return canon.key("recorded answers", known)

    def part(self, rows: NDArray[np.intp]) -> "Answers":
        """Of these items, in this order."""

        def taken(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[rows]

        return Answers(
            name=self.name, right=taken(self.right), samples=taken(self.samples), answers=taken(self.answers),
            probability=taken(self.probability),
        )  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """What people said of each item.

    Attributes:
        labels: Names.
        votes: ``[item, label]``, how many people chose it.
        ordinal: Whether the labels are in an order, with equal steps between them.
    """

    labels: tuple[str, ...]
    votes: Counts
    ordinal: bool = False

    @property
    def digest(self) -> str:
        """Of labels and votes."""
        return canon.key("votes", [list(self.labels), canon.array_digest("votes", self.votes), self.ordinal])

    def part(self, rows: NDArray[np.intp]) -> "Votes":
        """Of these items, in this order."""
        return Votes(labels=self.labels, votes=self.votes[rows], ordinal=self.ordinal)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A file of recorded answers, or of votes, or of both.

    Attributes:
        shape: What kind of file it is, in words.
        items: Identifiers, each once.
        systems: Who answered; none in a file of votes.
        votes: What people said, where that is known.
        groups: Part of the benchmark that each item is from, where that is known; an empty name where it is not.
        labels: Names of the labels that probabilities are of.
        notes: What was left out or assumed, in sentences.

    Raises:
        DataError: If an item is there twice.
    """

    shape: str
    items: tuple[str, ...]
    systems: tuple[Answers, ...] = ()
    votes: Votes | None = None
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.items)) != len(self.items):
            seen = set[str]()
            twice = next(item for item in self.items if item in seen or seen.add(item))
            raise DataError(
                "An item is there twice.",
                where=self.shape,
                expected="one identifier for each item",
                got=twice,
                do="Give each item an id of its own, or its samples together.",
            )

    def part(self, items: tuple[str, ...]) -> "Recording":
        """The same of these items alone, in this order."""
        place = {item: at for at, item in enumerate(self.items)}
        rows: NDArray[np.intp] = np.array([place[item] for item in items], dtype=np.intp)
        return Recording(
            shape=self.shape, items=items, systems=tuple(one.part(rows) for one in self.systems),
            votes=None if self.votes is None else self.votes.part(rows),
            groups=tuple(self.groups[place[item]] for item in items) if self.groups else (), labels=self.labels,
            notes=self.notes,
        )  # fmt: skip
