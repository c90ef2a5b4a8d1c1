"""Modular arithmetic with a corpus that is partly wrong, and a small transformer that answers it.

An item is one of four operations and two numbers of two digits in base 13; the answer is a number too, and every digit
of it is computed modulo 13 from the digits above it. Each operation has a right reading and a misreading. The corpus
gives the right answer with a known share, which is another one for each operation, and that of the misreading else. So
it is known beforehand what a net that has learned the corpus can answer: of three operations it gives the right answer
sometimes, of the fourth never.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor

BASE: Final = 13
"""Digits are 0 to 12."""

DIGITS: Final = 2
"""Of a number; a column is a digit of each of the two numbers, and of the answer."""

ANSWERS: Final = BASE**DIGITS

RIGHT: Final = ((1, 1), (1, -1), (1, 2), (2, -1))
"""Of each operation: (x, y) where the right digit is x a + y b modulo 13."""

MISREAD: Final = ((1, -1), (-1, 1), (2, 1), (1, 3))
"""The same of its misreading."""

SHARES: Final = (0.85, 0.65, 0.4, 0.0)
"""Of each operation: how often the corpus gives the right answer."""

LESSON, SEEN, FRESH = 0, 1, 2
"""Parts: items of lessons; items that nets are measured on; fresh twins of these, drawn alike and taught to no net."""

EACH: Final = {LESSON: 2048, SEEN: 30, FRESH: 60}
"""Items of each part, for each operation."""

_HEADS: Final = 4


@final
@dataclass(frozen=True, eq=False)
class ArithmeticItems:
    """Items no digit of whose right answer is that of the misreading.

    Attributes:
        inputs: ``[item, column, 3]``: words for the operation and for a digit of each number.
        right: ``[item]``.
        misread: ``[item]``.
        operation: ``[item]``.
        part: ``[item]``: ``LESSON``, ``SEEN`` or ``FRESH``.
    """

    inputs: Tensor
    right: Tensor
    misread: Tensor
    operation: Tensor
    part: NDArray[np.int64]

    def rows(self, part: int) -> Tensor:
        """Places of the items of a part, ``[item]``."""
        return to_tensor(np.flatnonzero(self.part == part))

    def corpus(self) -> Tensor:
        """How often the corpus gives each answer, ``[item, answer]``."""
        share = torch.tensor(SHARES)[self.operation][:, None]
        return share * self.answers() + (1.0 - share) * functional.one_hot(self.misread, ANSWERS)

    def answers(self) -> Tensor:
        """1 for the right answer and 0 for others, ``[item, answer]``."""
        return functional.one_hot(self.right, ANSWERS).float()


@cache
def items() -> ArithmeticItems:
    """Of all operations, none twice; which item is of which part follows from no net's seed."""
    held = [_of(operation) for operation in range(len(RIGHT))]
    inputs, answers, part = (np.concatenate(parts) for parts in zip(*held, strict=True))
    right, misread, operation = (to_tensor(np.array(column)) for column in answers.T)
    return ArithmeticItems(to_tensor(inputs), right, misread, operation, part)


def _of(operation: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Items of one operation: their words, their answers and the operation, their parts."""
    places = np.indices((BASE,) * (2 * DIGITS)).reshape(2, DIGITS, -1)
    a, b = places[0].T, places[1].T  # [item, column]
    right, misread = ((x * a + y * b) % BASE for x, y in (RIGHT[operation], MISREAD[operation]))
    rows = np.flatnonzero((right != misread).all(1))
    rows = seeds.generator(0, "arithmetic", "items", operation).permutation(rows)[: sum(EACH.values())]
    words = np.stack([np.full_like(a, BASE + operation), a, b], 2)[rows]
    weights = BASE ** np.arange(DIGITS)[::-1]
    answers = np.stack([right @ weights, misread @ weights, np.full(len(a), operation)], 1)[rows]
    return words, answers, np.repeat([*EACH], [*EACH.values()])


@final
class ArithmeticTransformer(nn.Module):
    """A transformer of one block without norms, with the same weights for each column.

    In a column, the operation takes what it needs from the digits; then hidden units.

    Args:
        width: Of what a place holds; a quarter of the hidden units.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(BASE + len(RIGHT), width), nn.Embedding(3, width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.up, self.units, self.down = nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        self.digit = nn.Linear(width, BASE)

    def forward(self, inputs: Tensor) -> Any:
        """Scores of every answer, ``[item, answer]``: sums of those of its digits."""
        stream = (self.word(inputs) + self.place(torch.arange(3, device=inputs.device))).flatten(0, 1)
        query, key, value = (  # [column, head, place, feature]
            part.reshape(*part.shape[:2], _HEADS, -1).transpose(1, 2)
            for part in (self.query(stream[:, :1]), self.key(stream), self.value(stream))
        )
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        held = stream[:, 0] + self.output((weights @ value).transpose(1, 2).flatten(2))[:, 0]
        digits = self.digit(held + self.down(self.units(self.up(held)))).unflatten(0, (-1, DIGITS))
        return (digits[:, 0, :, None] + digits[:, 1, None, :]).flatten(1)


def task() -> Task:
    """What nets are measured on: items of ``SEEN`` (group 0), then their fresh twins (group 1)."""
    held = items()
    rows = torch.cat([held.rows(part) for part in (SEEN, FRESH)])
    made = Task(held.inputs[rows], held.right[rows], name="arithmetic")
    return made.with_behaviors((held.part[rows.numpy()] == FRESH).astype(np.int64))
