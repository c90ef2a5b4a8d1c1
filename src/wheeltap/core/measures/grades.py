"""Grades of answers: the task grades what a model says; a measure reads a column of that, ``[example, column]``."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, SupportsFloat, final

from torch import Tensor

from wheeltap.core.errors import UsageError
from wheeltap.core.measures.family import Kind, MeasureFamily

AGREEMENT, CUT, EMPTY, NUMBERS = 1, 2, 3, 4
"""Columns behind the grade (of several chains their mean), where they are ours: share of the chains that give the most
common answer, shares of answers that were cut off and that are empty; then for each chain a number for its answer."""


class Grade(MeasureFamily):
    """The grade that an answer gets from its task.

    Args:
        by_chance: The mean grade of answers without information.
    """

    name: str = "grade"
    fits: tuple[Kind, ...] = ("answers",)

    def __init__(self, *, by_chance: float = 0.0) -> None:
        self.by_chance = by_chance

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``: the first column."""
        return scores[:, 0]

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """As it was given."""
        return self.by_chance


_FIRST: Final = 0x10000


def characters(tokens: Iterable[int]) -> str:
    """Tokens of which no text is known, each as a character that is no space."""
    return "".join(chr(_FIRST + int(one)) for one in tokens)


def tokens_of(text: str) -> list[int]:
    """The tokens that characters stand for."""
    return [ord(one) - _FIRST for one in text]


class AnswerGrade(Grade):
    """A grade that a function of what was said and what is wanted gives, from 0 to 1; its ``words`` say by what."""

    bounded = True
    function: Callable[[Any, Any], Any]
    words: str
    of_tokens: bool = False

    def right(self, said: str, wanted: Any) -> float:
        """The grade of one answer.

        Raises:
            UsageError: If the function fails, or gives no grade.
        """
        asked = [tokens_of(one) for one in (said, wanted)] if self.of_tokens else [said, wanted]
        try:
            given = self.function(*asked)
            grade, got = float(given) if isinstance(given, SupportsFloat) else math.nan, repr(given)
        except Exception as error:
            grade, got = math.nan, f"{type(error).__name__}: {error}"
        if not 0.0 <= grade <= 1.0:
            raise UsageError(
                "The checker gives no grade.", where=f"{self.name}({asked[0]!r:.80}, {asked[1]!r:.80})",
                expected="True, False, or a share from 0 to 1", got=got[:200],
                do="Let it give False where an answer cannot be read: a disturbed model may say anything.",
            )  # fmt: skip
        return grade


@final
class ExactMatch(AnswerGrade):
    """Whether a generated answer is the wanted one to the letter, after stripping. Unit: share of answers."""

    name = "exact_match"
    words = "exact match after stripping"

    def function(self, said: str, wanted: Any) -> bool:
        """See ``AnswerGrade.function``."""
        return said == str(wanted).strip()


@final
class Contains(AnswerGrade):
    """Whether the wanted answer stands somewhere in the generated one. Unit: share of answers."""

    name = "contains"
    words = "the wanted answer stands in it"

    def function(self, said: str, wanted: Any) -> bool:
        """See ``AnswerGrade.function``."""
        return str(wanted).strip() in said


@final
class Pass(AnswerGrade):
    """Whether a function of the user's passes a generated answer, or a share. Unit: share of answers."""

    def __init__(self, function: Callable[[Any, Any], Any], *, name: str, of_tokens: bool) -> None:
        super().__init__()
        self.function, self.name, self.words, self.of_tokens = function, name, f"passed by {name}", of_tokens

    @property
    def identity(self) -> list[str]:
        """Its name, and the function's code."""
        return super(MeasureFamily, self).identity


@final
class ChainAgreement(Grade):
    """Share of an example's chains that give its most common answer, if it is not empty. Unit: share of chains."""

    name = "chain_agreement"
    bounded = True

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return scores[:, AGREEMENT]
