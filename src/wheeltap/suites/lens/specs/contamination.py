"""The spec of the reading of how well a language model knows the texts of a benchmark, and copies taught them."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

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
        corpus: A text file in which runs of words of the items are looked for. Its path is part of what is asked, its
            contents are not: give another corpus another name.
        run: Words of such a run.
        epochs: How often copies of the model are taught all items in order, ``1,4`` say; 0 is the model as it is.
        teaching_rate: Step size of that, by Adam.
        teaching_batch: Windows in a step.
    """

    shards: Annotated[int, msgspec.Meta(ge=2)] = 10
    shuffles: Annotated[int, msgspec.Meta(ge=1)] = 10
    ordered: Annotated[int, msgspec.Meta(ge=4)] = 200
    window: Annotated[int, msgspec.Meta(ge=8)] = 256
    lowest: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.2
    corpus: str = ""
    run: Annotated[int, msgspec.Meta(ge=1)] = 13
    epochs: Annotated[str, msgspec.Meta(pattern=r"^\d{1,4}(,\d{1,4})*$")] = "0"
    teaching_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1e30)] = 1e-3
    teaching_batch: Annotated[int, msgspec.Meta(ge=1)] = 8


CONTAMINATION: Final = ReadingSpec(
    name="contamination",
    title="How well a language model knows texts, their twins and their order",
    version=4,
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
        "cues": Array("cue", "p-value that the order follows no numbers, dates, letters, alphabet, lengths, neighbors"),
        "order": Array("copy shard arrangement", "log-likelihood of a shard's items, each after the one before, in "
                       "order, then shuffled, nats; not where the order follows a cue", optional=True),
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
        "overlap": Array("example version", "share of its runs of words that the corpus holds", optional=True),
    },
)  # fmt: skip
"""One entry along ``copy`` for each number of ``epochs``; ``version`` is 1 long where there are no twins."""
