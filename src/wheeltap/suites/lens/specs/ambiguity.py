"""The specs of the readings of ambiguous sentences: statements about readings, continuations, sets of labels."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

TEMPLATES: Final[tuple[tuple[str, bool], ...]] = (
    ("This may mean:", True),
    ("This does not necessarily mean:", True),
    ("This cannot mean:", False),
    ("This can only mean:", False),
)
"""What is stated of an ambiguous sentence and one of its readings, and whether that is true.

Source: arXiv:2304.14399, sec. 4.2."""

ANSWERS: Final = ("false", "true", "no answer", "not asked")
FALSE, TRUE, NO_ANSWER, NOT_ASKED = range(len(ANSWERS))

KINDS: Final = ("none", "reading", "distractor")
NONE, READING, DISTRACTOR = range(len(KINDS))

Size = Annotated[int, msgspec.Meta(ge=1)]


class PartSettings(Settings, frozen=True, kw_only=True):
    """Which items are read, so that what is broken off loses one part.

    Attributes:
        part: Which part, from 0.
        size: Items of a part; all, where not given.
    """

    part: Annotated[int, msgspec.Meta(ge=0)] = 0
    size: Size | None = None

    def rows(self, examples: int) -> range:
        """The items of this part."""
        size = self.size or examples
        return range(min(self.part * size, examples), min((self.part + 1) * size, examples))


class ContinuationSettings(PartSettings, frozen=True, kw_only=True):
    """How continuations are drawn.

    Attributes:
        continuations: Of each sentence.
        top_p: Least probability of the words among which the next one is drawn, the most likely first.
        longest: Tokens of a continuation, which ends at the end of its sentence.
        draw: Number of the draw: another one draws other continuations.
    """

    continuations: Size = 8
    top_p: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.8
    longest: Size = 12
    draw: Annotated[int, msgspec.Meta(ge=0)] = 0


STATEMENTS: Final = ReadingSpec(
    name="statements",
    title="Statements about readings, true or false",
    settings_type=PartSettings,
    arrays={
        "answer": Array("example reading template", "what it says of the statement", "count", of=ANSWERS),
        "mass": Array("example reading template", "P(True) + P(False); 0 where not asked", optional=True),
    },
)
"""Of each reading four statements; an item that is not ambiguous, or not of this part, is not asked."""

CONTINUATIONS: Final = ReadingSpec(
    name="continuations",
    title="How differently readings go on",
    settings_type=ContinuationSettings,
    arrays={
        "divergence": Array("example side sentence", "KL(sentence || ambiguous sentence), nats; 0 where none"),
        "kind": Array("example side sentence", "what the sentence is", "count", of=KINDS),
        "continuations": Array("example side", "continuations of each sentence", "count"),
    },
)
"""Of premise and hypothesis: which of them is ambiguous says ``kind``."""

LABEL_SETS: Final = ReadingSpec(
    name="label-sets",
    title="Labels that are right under some reading",
    arrays={"right": Array("example label", "whether some reading has this label", "flag")},
)
"""Known of the items, whatever the subject."""

REWRITES: Final = ReadingSpec(
    name="rewrites",
    title="What people say of gold rewrites",
    arrays={"right": Array("example", "whether most found every rewrite plausible, with its own label", "flag")},
)
"""The ceiling of whoever writes readings: people judge those of linguists."""

Label = Literal["entailment", "neutral", "contradiction"]
LABELS: Final[tuple[Label, ...]] = ("entailment", "neutral", "contradiction")
