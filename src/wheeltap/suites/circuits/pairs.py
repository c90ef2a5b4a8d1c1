"""What is known of examples that come in pairs: a context, the same one corrupted, and the two tokens that may follow.

A pair is what a circuit is looked for by: the model should say ``answer`` after the clean context and ``wrong`` after
the corrupted one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from wheeltap.core import canon
from wheeltap.core.annotations import Annotation
from wheeltap.core.errors import DataError

Tokens = tuple[int, ...]

BATCH = 64
"""Pairs of a batch, and sequences of one pass where means are taken."""


@final
@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs of equally long contexts, as tensors of int64.

    Attributes:
        clean: ``[pair, place]``.
        corrupted: ``[pair, place]``.
        answer: The token that should follow the clean context, ``[pair]``.
        wrong: The one that should follow the corrupted context, ``[pair]``.
    """

    clean: Tensor
    corrupted: Tensor
    answer: Tensor
    wrong: Tensor

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.answer)

    def part(self, rows: slice, *, device: torch.device | None = None) -> "PairBatch":
        """Some of the pairs, on a device."""
        return PairBatch(*(held[rows].to(device) for held in (self.clean, self.corrupted, self.answer, self.wrong)))

    def both_sides(self) -> "PairBatch":
        """Every pair, then every pair with its two sides swapped."""
        clean, corrupted, answer, wrong = self.clean, self.corrupted, self.answer, self.wrong
        return PairBatch(
            torch.cat([clean, corrupted]), torch.cat([corrupted, clean]), torch.cat([answer, wrong]),
            torch.cat([wrong, answer]),
        )  # fmt: skip

    def gaps(self, logits: Tensor) -> Tensor:
        """Logit of the answer less that of the wrong answer, ``[pair]``, of logits ``[pair, token]``."""
        chosen = logits.gather(1, torch.stack([self.answer, self.wrong], 1))
        return chosen[:, 0] - chosen[:, 1]


@final
@dataclass(frozen=True)
class Pairs(Annotation):
    """The pairs of all examples, in their order.

    Attributes:
        clean: Tokens of each context.
        corrupted: Tokens of each corrupted context, as many as of the clean one.
        answer: The token that should follow each clean context.
        wrong: The one that should follow each corrupted context.
        reference: Sequences of the data that the model was trained on: what the mean of a unit is taken over. The
            contexts themselves where there are none.
        texts: Each pair as text where that is known: clean context, corrupted one, answer, wrong answer.

    Raises:
        DataError: If there are none, they differ in number, or one is no pair.
    """

    name = "pairs"

    clean: tuple[Tokens, ...]
    corrupted: tuple[Tokens, ...]
    answer: Tokens
    wrong: Tokens
    reference: tuple[Tokens, ...] = ()
    texts: tuple[tuple[str, str, str, str], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        counts = [len(held) for held in (self.clean, self.corrupted, self.answer, self.wrong)]
        counts += [len(self.texts)] if self.texts else []
        if not counts[0] or len(set(counts)) > 1:
            expected = "as many clean contexts, corrupted ones, answers and wrong answers, one at least"
            raise DataError("The pairs are incomplete.", where="pairs", expected=expected, got=str(counts))
        for number, pair in enumerate(zip(self.clean, self.corrupted, self.answer, self.wrong, strict=True)):
            require_pair(*pair[:2], pair[2:], where=f"pairs: pair {number}")

    @classmethod
    def of(cls, batch: PairBatch) -> "Pairs":
        """Those of a batch."""
        clean, corrupted = ([tuple(map(int, row)) for row in rows] for rows in (batch.clean, batch.corrupted))
        return cls(tuple(clean), tuple(corrupted), tuple(map(int, batch.answer)), tuple(map(int, batch.wrong)))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.answer)

    @property
    def digest(self) -> str:
        """Digest of every token; texts are the same in words."""
        further = [self.reference] if self.reference else []
        return canon.key("pairs", [self.clean, self.corrupted, self.answer, self.wrong, *further])

    @property
    def order(self) -> tuple[int, ...]:
        """The pairs as ``batches`` gives them: short ones first, equally long ones as they come."""
        return tuple(sorted(range(len(self)), key=lambda at: len(self.clean[at])))

    def part(self, index: Sequence[int]) -> "Pairs":
        """See ``Annotation.part``."""
        clean, corrupted = (tuple(held[at] for at in index) for held in (self.clean, self.corrupted))
        answer, wrong = (tuple(held[at] for at in index) for held in (self.answer, self.wrong))
        texts = tuple(self.texts[at] for at in index) if self.texts else ()
        return Pairs(clean, corrupted, answer, wrong, self.reference, texts)

    def batches(self, size: int = BATCH) -> Iterator[PairBatch]:
        """Pairs of one length at a time, at most ``size``; all of them in ``order``."""
        held: list[int] = []
        for at in self.order:
            if held and (len(held) == size or len(self.clean[at]) != len(self.clean[held[0]])):
                yield self._batch(held)
                held = []
            held.append(at)
        yield self._batch(held)

    def _batch(self, index: Sequence[int]) -> PairBatch:
        part = self.part(index)
        return PairBatch(*(torch.tensor(held) for held in (part.clean, part.corrupted, part.answer, part.wrong)))


def require_pair(clean: Tokens, corrupted: Tokens, follow: Tokens, *, where: str, places: int | None = None) -> None:
    """Raises ``DataError`` if these are no pair.

    Args:
        clean: Tokens of a context.
        corrupted: Tokens of the other one.
        follow: The answer and the wrong answer.
        where: For the message.
        places: How many places may differ; any number of them where ``None``.
    """
    if len(clean) != len(corrupted) or not clean:
        raise DataError(
            "The two contexts of a pair are not equally long.",
            where=where,
            expected="as many tokens in the corrupted context as in the clean one, one at least",
            got=f"{len(clean)} and {len(corrupted)} tokens",
            do="Replace a word by one of as many tokens, or leave the pair out.",
        )
    differ = [at for at, (one, two) in enumerate(zip(clean, corrupted, strict=True)) if one != two]
    if not differ or (places is not None and len(differ) > places):
        raise DataError(
            "The two contexts of a pair differ in the wrong number of places.",
            where=where,
            expected="one token that differs" if places == 1 else "a token that differs",
            got=f"{len(differ)} of {len(clean)} tokens differ: {', '.join(map(str, differ[:8])) or 'none'}",
            do="Change the one token that decides the answer, and nothing else.",
        )
    if follow[0] == follow[1]:
        raise DataError(
            "The answer of a pair is its wrong answer.",
            where=where,
            expected="two tokens that differ",
            got=f"token {follow[0]} twice",
            do="Give the token that follows the corrupted context as the wrong answer.",
        )
