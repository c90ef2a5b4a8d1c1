"""Specs of readings of the lens: votes, samples, label probabilities, ambiguity and contamination."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

VOTES: Final = ReadingSpec(
    name="votes",
    title="Votes of people on each item",
    arrays={
        "votes": Array("example label", "how many people chose it", "count"),
        "ordinal": Array("", "whether the labels are in an order, with equal steps between them", "flag"),
        "ballots": Array("ballot 3", "item, person and label of each vote, where it is known who voted", "count",
                         optional=True),
        "group": Array("example", "what items share, where nobody answered them and the clean pass cannot say it",
                       "count", optional=True),
    },
)  # fmt: skip
"""Votes: a distribution over labels for each item, and not one right answer."""


class SamplesSettings(Settings, frozen=True, kw_only=True):
    """How a model is sampled. Nothing is asked of answers that were recorded.

    Attributes:
        draws: Answers to each item; 64 where not given.
        temperature: By which the log-probabilities of options are divided; 1 where not given.
    """

    draws: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None
    temperature: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] | None = None


SAMPLES: Final = ReadingSpec(
    name="samples",
    title="Sampled answers to each item",
    settings_type=SamplesSettings,
    arrays={
        "right": Array("example", "how many of its answers are right", "count"),
        "samples": Array("example", "how many answers it has", "count"),
        "answers": Array(
            "example draw", "which of the item's distinct answers was given, from 0; -1 for none", "count",
            optional=True,
        ),
        "group": Array("example", "which part of the benchmark it is from, numbered in order of name", "count",
                       optional=True),
    },
)  # fmt: skip
"""Sampled answers: k of them are k draws of one subject at one dose of randomness."""


LABEL_PROBABILITIES: Final = ReadingSpec(
    name="label-probabilities",
    title="Probability of each label",
    arrays={"probability": Array("example label", "probability of the label; they sum to 1 over labels")},
)
"""What a subject believes of each item: of a live classifier, its softmax."""


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


FRACTIONS: Final = (0.4, 0.6, 0.8)
"""Shares of a text that are given where it is to be completed."""

SETS: Final = 4
"""Sets of new items in the form of the own texts, at most: what they gain is a mean, known better than that of one."""


class ContaminationSettings(Settings, frozen=True, kw_only=True):
    """How the order of items is shuffled, and what a copy is taught.

    Attributes:
        shards: Runs of items, each shuffled by itself.
        shuffles: Shuffles of each.
        ordered: Items at most whose order is looked at, the first ones.
        window: Tokens that are read and taught at once, where the model can read so many; of two items half each.
        lowest: Share of the tokens of a text that Min-K% and Min-K%++ look at: the least expected ones.
        epochs: How often copies of the model are taught all items in order, ``1,4`` say; 0 is the model as it is.
        teaching_rate: Step size of that, by Adam.
        teaching_batch: Windows in a step.
    """

    shards: Annotated[int, msgspec.Meta(ge=2)] = 10
    shuffles: Annotated[int, msgspec.Meta(ge=1)] = 10
    ordered: Annotated[int, msgspec.Meta(ge=4)] = 200
    window: Annotated[int, msgspec.Meta(ge=8)] = 256
    lowest: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.2
    epochs: Annotated[str, msgspec.Meta(pattern=r"^\d{1,4}(,\d{1,4})*$")] = "0"
    teaching_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1e30)] = 1e-3
    teaching_batch: Annotated[int, msgspec.Meta(ge=1)] = 8


CONTAMINATION: Final = ReadingSpec(
    name="contamination",
    title="How well a language model knows texts, their twins and their order",
    version=5,
    settings_type=ContaminationSettings,
    arrays={
        "epochs": Array("copy", "how often the copy was taught the items; 0: the model as it is", "count"),
        "loss": Array("copy example version", "mean negative log-likelihood of a token, nats; own text, then twin"),
        "zlib": Array("copy example version", "negative log-likelihood over bytes compressed by zlib, nats a byte"),
        "mink": Array("copy example version", "Min-K%: mean log-likelihood of the least likely tokens, nats"),
        "minkpp": Array("copy example version", "Min-K%++: the same, standardized over the vocabulary"),
        "kept": Array("copy example version 3", "share of the tail completed before the first wrong token, after "
                      "40, 60 and 80 % of the text"),
        "tail": Array("example version 3", "tokens of that tail, less those that another text ends with too", "count"),
        "order": Array("copy shard arrangement", "log-likelihood of a shard's items, each after the one before, in "
                       "order, then shuffled, nats; not where no other items can be compared", optional=True),
        "order_twins": Array("copy shard arrangement", "the same of the twins", optional=True),
        "order_fresh": Array("copy shard arrangement", "the same of new items of the same form, mean over several sets",
                             optional=True),
        "shard_tokens": Array("shard", "tokens of a shard's items that are read in pairs", "count"),
        "bytes": Array("example version", "bytes compressed by zlib", "count"),
        "words": Array("example version", "log-ratio of the text's words among own texts and twins, nats",
                       optional=True),
        "letters": Array("example version", "mean log-likelihood of a letter by counts among own texts, nats",
                         optional=True),
        "repeated": Array("1", "lines left out because an item before has the same text or twin", "count",
                          optional=True),
    },
)  # fmt: skip
"""One entry along ``copy`` for each number of ``epochs``; ``version`` is 1 long where there are no twins."""
