"""What is known of ambiguous examples: statements about their readings, sentences to go on from, sets of labels."""

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
        sentence: The ambiguous one.
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
        ends: Tokens that end a sentence.
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
        held = [
            sentences,
            self.statements,
            self.options,
            sorted(self.ends),
            [list(map(int, row)) for row in self.labels],
        ]
        return canon.key("ambiguity", held)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.sentences)

    def part(self, index: Sequence[int]) -> "Ambiguity":
        """See ``Annotation.part``."""
        return Ambiguity(
            sentences=tuple(self.sentences[at] for at in index), statements=tuple(self.statements[at] for at in index),
            options=self.options, ends=self.ends, labels=tuple(self.labels[at] for at in index),
        )  # fmt: skip
