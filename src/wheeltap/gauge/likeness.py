"""How alike the outputs of a model and its copy are."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError


class Likeness(NamedTuple):
    """How alike the outputs of a model and its twin are.

    Attributes:
        difference: Largest absolute difference of a score, in units of the logit scale: the standard deviation of
            the original's scores about each example's mean (about the overall mean where an example has one score).
        agreement: Share of examples whose highest score is at the same place.
    """

    difference: float
    agreement: float


def check(original: NDArray[Any], twin: NDArray[Any]) -> Likeness:
    """How alike two arrays of scores are; a wrong gauge shows here. A score that is not finite differs by infinity.

    Args:
        original: ``[example, option]``.
        twin: The same shape.

    Raises:
        DataError: If the arrays are empty or differ in shape.
    """
    if original.shape != twin.shape or original.ndim != 2 or original.size == 0:
        raise DataError(
            "The scores of a model and its copy cannot be compared.",
            expected="two arrays [example, option] of one shape",
            got=f"{list(original.shape)} and {list(twin.shape)}",
        )
    ours, theirs = original.astype(np.float64), twin.astype(np.float64)
    agreement = float((ours.argmax(1) == theirs.argmax(1)).mean())
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Likeness(float("inf"), agreement)
    centre = ours.mean(axis=1 if ours.shape[1] > 1 else 0, keepdims=True)
    scale = float(((ours - centre) ** 2).mean()) ** 0.5 or 1.0
    return Likeness(float(np.abs(ours - theirs).max()) / scale, agreement)
