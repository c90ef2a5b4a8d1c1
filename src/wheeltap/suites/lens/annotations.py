"""What tasks of the lens know of their examples: readings of ambiguous ones, and items as plain text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from wheeltap.core import canon
from wheeltap.core.annotations import Annotation

Tokens = tuple[int, ...]


@final
@dataclass(frozen=True)
class AmbiguousSentence:
    """A sentence with several readings, each as the tokens of a start that a language model can go on from.

    Attributes:
        side: Which of the example's sentences it is, from 0.
        readings: One or more sentences, each of which says one of the things that it may mean.
        distractor: A sentence that it does not mean.
    """

    side: int
    sentence: Tokens
    readings: tuple[Tokens, ...]
    distractor: Tokens


@final
@dataclass(frozen=True)
class Ambiguity(Annotation):
    """What is known of the readings of all examples, in their order.

    Attributes:
        sentences: Of each example, its ambiguous sentences; none where it is not ambiguous.
        statements: Of each example and reading, the tokens of one question for each template.
        options: Tokens of the answers false and true.
        labels: ``[example][label]``, whether some reading has the label.
    """

    name = "meanings"

    sentences: tuple[tuple[AmbiguousSentence, ...], ...]
    statements: tuple[tuple[tuple[Tokens, ...], ...], ...]
    options: tuple[Tokens, Tokens]
    ends: frozenset[int]
    labels: tuple[tuple[bool, ...], ...]

    @property
    def digest(self) -> str:
        """Digest of every token and label."""
        sentences = [
            [[one.side, one.sentence, one.readings, one.distractor] for one in several] for several in self.sentences
        ]
        labels = [list(map(int, row)) for row in self.labels]
        return canon.key("ambiguity", [sentences, self.statements, self.options, sorted(self.ends), labels])

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.sentences)

    def part(self, index: Sequence[int]) -> "Ambiguity":
        """See ``Annotation.part``."""
        return Ambiguity(
            sentences=tuple(self.sentences[at] for at in index), statements=tuple(self.statements[at] for at in index),
            options=self.options, ends=self.ends, labels=tuple(self.labels[at] for at in index),
        )  # fmt: skip


@final
@dataclass(frozen=True)
class Passages(Annotation):
    """Texts of a task's items, in the order in which they were published.

    Attributes:
        own: Text of each item.
        twins: Of each item a fresh version: as good an item, but never published; none where there are no twins.
        between: Token ids of what is between two items where they follow each other.
        fresh: Token ids of new items in the form of the own texts, several in the place of each; none where none can
            be made.
        repeated: Lines that were left out, because an item before has the same text or twin.
    """

    name = "items"

    own: tuple[str, ...]
    twins: tuple[str, ...] = ()
    between: tuple[int, ...] = ()
    fresh: tuple[tuple[tuple[int, ...], ...], ...] = ()
    repeated: int = 0

    @property
    def digest(self) -> str:
        """Digest of every text and of what is between them."""
        return canon.key("passages", [self.own, self.twins, self.between])

    def __len__(self) -> int:
        """Number of items."""
        return len(self.own)

    def part(self, index: Sequence[int]) -> "Passages":
        """See ``Annotation.part``."""
        own, twins = (tuple(some[at] for at in index) if some else () for some in (self.own, self.twins))
        fresh = tuple(self.fresh[at] for at in index) if self.fresh else ()
        return Passages(own, twins, self.between, fresh, self.repeated)
