"""Dictionaries that are computed, not trained: codes of the values of known attributes.

A vector is the mean vector and one code vector for the value that each attribute has. Code vectors of an attribute have
mean 0 over the examples: so they are unique.

Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 3 (mean codes; MSE codes).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError

Vectors = NDArray[np.floating[Any]]
Labels = Mapping[str, NDArray[np.int64]]
"""Of each attribute the value of each example, ``[example]``."""


@final
@dataclass(frozen=True)
class ValueCodes:
    """A code vector for each value of each attribute, those of one attribute after those of another, values rising."""

    mean: NDArray[np.float64]  # mean vector, [width]
    codes: NDArray[np.float64]  # [feature, width]
    attribute: NDArray[np.int64]  # number of each feature's attribute, [feature]
    value: NDArray[np.int64]  # its value, [feature]


def mean_codes(vectors: Vectors, labels: Labels) -> ValueCodes:
    """Mean of the examples with a value, less the mean of all.

    Where attributes do not depend on each other these are the least-squares codes of ``vectors [example, width]``.

    Raises:
        DataError: If vectors are not finite, labels do not fit them, or an attribute has one value.
    """
    rows, design, blank = _design(vectors, labels)
    return replace(blank, codes=design.T @ rows / design.sum(0)[:, None])


def least_squares_codes(vectors: Vectors, labels: Labels) -> ValueCodes:
    """The codes whose sums are nearest to ``vectors [example, width]``, in squared distance.

    Raises:
        DataError: As ``mean_codes``; also if there are fewer examples than features, or an attribute follows from
            others, so that there is no unique solution.
    """
    rows, design, blank = _design(vectors, labels)
    free, share = design.shape[1] - len(labels), design.mean(0)  # codes of an attribute have mean 0
    solver: Any = np.linalg
    solved, _, rank, _ = solver.lstsq(design - share, rows, rcond=1e-9)
    if len(rows) < design.shape[1] or rank < free:
        few = len(rows) < design.shape[1]
        got = f"{len(rows):,} examples of {design.shape[1]:,} values" if few else _dependence(labels)
        raise DataError("The codes of attributes are not unique.", where=", ".join(labels), got=got,
                        expected="as many examples as values" if few else "attributes that do not follow from others",
                        do="Give more examples, leave an attribute out, or ask for mean codes.")  # fmt: skip
    for at in range(len(labels)):
        own = blank.attribute == at
        solved[own] -= share[own] @ solved[own]
    return replace(blank, codes=solved)


def _dependence(labels: Labels) -> str:
    """Which attribute follows from which, in words."""
    for given, other in permutations(labels, 2):
        pairs = np.unique(np.stack([labels[given], labels[other]]), axis=1)
        if pairs.shape[1] == len(np.unique(labels[given])):
            return f"attribute {other} follows from {given}"
    return "values of some attributes follow from those of others together"


def _design(vectors: Vectors, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64], ValueCodes]:
    """Vectors less their mean, in double precision, one-hot values ``[example, feature]``, and codes of 0."""
    if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
        raise DataError(
            "The vectors of a site cannot be used.", expected="rows [example, width] of finite numbers",
            got=f"shape {list(vectors.shape)}, {int((~np.isfinite(vectors)).sum())} NaN or infinite numbers",
            do="Look at the model's outputs on these examples.",
        )  # fmt: skip
    if not labels:
        raise DataError("There are no attributes to make codes of.", expected="a task with factors", got="none",
                        do="Give them: task.with_factors({...}).")  # fmt: skip
    known = {name: np.unique(given) for name, given in labels.items()}
    for name, given in labels.items():
        if len(given) != len(vectors) or len(known[name]) < 2:
            raise DataError(
                "An attribute has one value." if len(given) == len(vectors) else "An attribute is of other examples.",
                where=name, expected=f"{len(vectors)} values, two different ones at least",
                got=f"{len(given)} values, {len(known[name])} different ones",
                do="Leave the attribute out, or give examples that differ in it.",
            )  # fmt: skip
    design = np.concatenate([given[:, None] == known[name] for name, given in labels.items()], 1).astype(np.float64)
    attribute = np.repeat(np.arange(len(labels)), [len(values) for values in known.values()])
    values = np.concatenate(list(known.values())).astype(np.int64)
    mean = vectors.mean(0, dtype=np.float64)
    blank = ValueCodes(mean, np.zeros((len(values), len(mean))), attribute, values)
    return vectors - mean, design, blank
