"""What measures of other targets than one class or number share."""

from typing import Literal

from torch import Tensor

from wheeltap.core.measure import Measure

Kind = Literal["classes", "labels", "outputs", "masks", "relevance", "answers", "tokens"]
"""What targets are: the number of each example's class, several labels of 0 or 1, wanted outputs, a class for each
pixel, how relevant each document is, an answer that a model should generate, or a class for each token."""


class MeasureFamily(Measure):
    """A measure that says which targets it reads.

    Attributes:
        fits: Which.
    """

    fits: tuple[Kind, ...] = ()

    @property
    def identity(self) -> list[str]:
        """Its name, which has its number too."""
        return [self.name]

    def by_class(self, scores: Tensor, targets: Tensor) -> dict[int, float]:
        """The same of each class or label by itself, where it has such parts: what a report lists beside it."""
        del scores, targets
        return {}
