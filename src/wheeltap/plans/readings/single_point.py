"""The spec of the reading of single weights."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class SinglePointSettings(Settings, frozen=True, kw_only=True):
    """How many weights are named.

    Attributes:
        confirm: Candidates, those that the screens rank highest, one from each in turn.
        states: Screens: with the weights as they are, and scaled down by one or two factors.
        nulls: Weights drawn at random to compare them with.
        within: A random weight's size differs from its candidate's by at most this factor, doubled until there are
            enough such weights.
    """

    confirm: Annotated[int, msgspec.Meta(ge=1)] = 6
    states: Annotated[int, msgspec.Meta(ge=1, le=3)] = 3
    nulls: Annotated[int, msgspec.Meta(ge=0)] = 20
    within: Annotated[float, msgspec.Meta(gt=1.0)] = 2.0


SORTS: Final = ("output and input", "input and output", "weight", "bias", "gain of a norm", "number")
"""What a number is: a weight whose first two indices are those, a weight of other axes, or a vector's."""


def written(texts: Sequence[str]) -> NDArray[np.int32]:
    """Texts as ``[text, character]``: bytes of UTF-8, -1 filling up."""
    rows = [list(text.encode()) for text in texts]
    return padded(rows)


def padded(rows: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Rows of different lengths as one table, -1 filling up."""
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int32)
    for at, row in enumerate(rows):
        table[at, : len(row)] = row
    return table


def held(row: NDArray[Any]) -> tuple[int, ...]:
    """A row of ``padded`` without what fills it up."""
    return tuple(int(entry) for entry in row if entry >= 0)


def text(row: NDArray[Any]) -> str:
    """A row of ``written``."""
    return bytes(held(row)).decode()


def _named(of: str, what: str) -> dict[str, Array]:
    """Arrays that name numbers: ``of`` is the axis of them."""
    return {
        f"{of}_parameters": Array(f"{of} {of}-character", f"path of the parameter of {what}, in UTF-8", "count"),
        f"{of}_places": Array(f"{of} {of}-axis", f"indices of {what} in its parameter, -1 filling up", "count"),
        f"{of}_sorts": Array(of, "what it is", "count", of=SORTS),
        f"{of}_values": Array(of, "its value"),
    }


SINGLE_POINT: Final = ReadingSpec(
    name="single-point",
    # Since 2 it tells the places in the parameter as stored; since 3 ties are the same on every device; since 4
    # screens of every parameter, that reparametrized copies share.
    version=4,
    title="Weights whose loss may ruin the network",
    settings_type=SinglePointSettings,
    arrays={
        **_named("candidate", "a weight that a screen ranks highest"),
        "scores": Array("candidate", "what the screen that names it gives (log-odds)"),
        **_named("null", "a weight drawn at random"),
        "screened": Array("", "share of all weights, biases and gains that the screens could read"),
    },
)
