"""Hypothesis strategies for the records that travel between floors."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from wheeltap.core.records import Outcome, OutcomeStatus, Scalar, Trial
from wheeltap.core.site import WHOLE, Site

_HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
_NAMES = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=12)
_PATHS = st.lists(st.text("abcxyz0123456789_", min_size=1, max_size=6), min_size=1, max_size=4).map(".".join)
_STATUSES: tuple[OutcomeStatus, ...] = ("done", "diverged", "failed", "skipped")


def sites() -> st.SearchStrategy[Site]:
    """The whole model, all of it but some layers, a block or a layer."""
    parts = st.builds(Site, st.sampled_from(["block", "layer"]), _PATHS)
    inner = st.lists(_PATHS, min_size=1, max_size=3).map(Site.without)
    return st.just(WHOLE) | inner | parts


def doses() -> st.SearchStrategy[float]:
    """Finite numbers from 0, as doses are; never the negative zero."""
    return st.floats(min_value=0.0, max_value=1e6, allow_nan=False, allow_infinity=False)


def settings() -> st.SearchStrategy[dict[str, Scalar]]:
    """Named settings of a perturbation, in one order."""
    scalars = st.text(max_size=8) | st.integers(-(2**53), 2**53) | st.booleans() | doses()
    named: st.SearchStrategy[dict[str, Scalar]] = st.dictionaries(_NAMES, scalars, max_size=3)
    return named.map(lambda drawn: dict(sorted(drawn.items())))


def trials(**fixed: Any) -> st.SearchStrategy[Trial]:
    """Any trial.

    Args:
        **fixed: Fields of ``Trial`` that every trial drawn shall have.
    """
    fields: dict[str, st.SearchStrategy[Any]] = {
        "subject": _HEX,
        "task": _HEX,
        "measures": st.lists(_NAMES, min_size=1, max_size=3, unique=True).map(tuple),
        "perturbation": _NAMES,
        "version": st.integers(0, 100),
        "settings": settings(),
        "site": sites(),
        "dose": doses(),
        "seed": st.integers(0, 2**31),
        "root": st.integers(0, 2**53),
        "path": st.sampled_from(["plain", "plain/cpu/float32", "plain/cuda/bfloat16"]),
    }
    return st.builds(Trial, **{**fields, **{name: st.just(value) for name, value in fixed.items()}})


def arrays() -> st.SearchStrategy[NDArray[np.float32]]:
    """Finite single-precision arrays of up to two dimensions, empty ones and single numbers included."""
    shapes = st_numpy.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)
    return st_numpy.arrays(np.float32, shapes, elements=st.floats(-1e6, 1e6, width=32))


def outcomes() -> st.SearchStrategy[Outcome]:
    """Any outcome a store may be given: values only where it is done."""

    def made(status: OutcomeStatus) -> st.SearchStrategy[Outcome]:
        done = status == "done"
        return st.builds(
            Outcome,
            key=_HEX,
            status=st.just(status),
            values=st.dictionaries(_NAMES, arrays(), max_size=3) if done else st.just({}),
            seconds=doses(),
            forwards=doses(),
            because=st.just("") if done else st.text(st.characters(codec="utf-8"), max_size=20),
        )

    return st.sampled_from(_STATUSES).flatmap(made)
