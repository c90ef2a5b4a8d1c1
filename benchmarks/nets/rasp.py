"""A small language of programs that a transformer can be compiled from: one value for each place of a sequence.

An expression has a value at every place. Values are of a finite set. Those of a *category* are held one-hot, one
direction for each; a *number* is held as the length along one direction. Every sequence begins with a start place,
which has no token and no index.

Source: Weiss, Goldberg, Yahav 2021, "Thinking like transformers" (the language); Lindner et al. 2023, "Tracr:
compiled transformers as a laboratory for interpretability", section 3 (categories, numbers, the start place).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, final

from wheeltap.core.errors import UsageError

Values = tuple[float, ...]
"""That an expression can have at a place, each once, in rising order."""


@final
@dataclass(frozen=True)
class Given:
    """Known from the embedding.

    Attributes:
        name: The token; the index of its place; whether it is the start place.
    """

    name: Literal["token", "index", "start"]


@final
@dataclass(frozen=True, eq=False)
class Mapped:
    """A function of one or more values of the same place: units of an MLP."""

    function: Callable[..., float]
    of: tuple["Sop", ...]


@final
@dataclass(frozen=True, eq=False)
class Select:
    """Which places a place takes from.

    Attributes:
        keys: A category: of the places that are taken from.
        queries: A category: of the place that takes.
        predicate: Whether a place with this key is selected where there is this query. Some place must always be.
        start: Whether the start place is selected too.
    """

    keys: "Sop"
    queries: "Sop"
    predicate: Callable[[float, float], bool]
    start: bool = False


@final
@dataclass(frozen=True, eq=False)
class Aggregated:
    """The mean over the selected places: an attention head. For a category, one place at most is to be selected."""

    select: Select
    of: "Sop"


@final
@dataclass(frozen=True, eq=False)
class Difference:
    """One number less another: read so by whoever reads it, and held nowhere."""

    one: "Sop"
    two: "Sop"


@final
@dataclass(frozen=True, eq=False)
class Sop:
    """An expression.

    Attributes:
        by: What computes it.
        values: That it can have.
        number: Whether it is a number; else it is a category.
    """

    by: Given | Mapped | Aggregated | Difference
    values: Values
    number: bool = False

    def parts(self) -> tuple["Sop", ...]:
        """The expressions that this one is computed from."""
        match self.by:
            case Given():
                return ()
            case Mapped(of=of):
                return of
            case Aggregated(select=select, of=of):
                return (select.keys, select.queries, *((START,) if select.start else ()), of)
            case Difference(one=one, two=two):
                return (one, two)

    def varies(self) -> bool:
        """Whether it depends on tokens; else it is the same for all sequences of a length."""
        return self.by == Given("token") or any(part.varies() for part in self.parts())


START: Final = Sop(Given("start"), (0.0, 1.0), number=True)
"""1 at the start place and 0 at others."""


@final
@dataclass(frozen=True, eq=False)
class Program:
    """An expression to compile, and what it is to give.

    Attributes:
        name: Of it.
        tokens: Tokens 0, 1, ...; one more, the number of them, begins every sequence.
        length: Of sequences, without the start.
        output: A category; its values are the classes.
        solve: The values of all places from the tokens: plain Python, made without the expression.
    """

    name: str
    tokens: int
    length: int
    output: Sop
    solve: Callable[[Sequence[int]], list[float]]


def tokens(count: int) -> Sop:
    """The token of each place."""
    return Sop(Given("token"), tuple(range(count)))


def indices(length: int) -> Sop:
    """The index of each place, from 0; the start place has none."""
    return Sop(Given("index"), tuple(range(length)))


def mapped(function: Callable[..., float], *of: Sop, number: bool = False) -> Sop:
    """A function of the values of the same place: of categories, or of one number.

    Raises:
        UsageError: If there is a number among several expressions.
    """
    if len(of) > 1 and any(one.number for one in of):
        raise _mistake("a function of one number, or of categories alone", f"{len(of)} expressions with a number")
    values = sorted({function(*chosen) for chosen in product(*(one.values for one in of))})
    return Sop(Mapped(function, of), tuple(values), number=number)


def aggregate(select: Select, of: Sop, *, values: Values = ()) -> Sop:
    """The mean of ``of`` over the places that are selected; of a category, its value at the one that is.

    Args:
        select: The places.
        of: What to take.
        values: That a mean can have; those of ``of`` if not given.

    Raises:
        UsageError: If places are selected by a number.
    """
    if select.keys.number or select.queries.number:
        raise _mistake("keys and queries that are categories", "a number")
    return Sop(Aggregated(select, of), values or of.values, number=of.number)


def width(select: Select, *, most: int) -> Sop:
    """How many places are selected, from 0 to ``most``: of the attention the start place gets 1 / (1 + n).

    Source: Lindner et al. 2023, "Tracr", section 3.
    """
    counted = Select(select.keys, select.queries, select.predicate, start=True)
    shares = tuple(sorted(1 / (1 + n) for n in range(most + 1)))
    return mapped(_others, aggregate(counted, START, values=shares))


def _others(share: float) -> float:
    return round(1 / share) - 1


def difference(one: Sop, two: Sop, *, values: Values) -> Sop:
    """One number less another, which has one of these values.

    Raises:
        UsageError: If one is a category.
    """
    if not (one.number and two.number):
        raise _mistake("two numbers", "a category")
    return Sop(Difference(one, two), values, number=True)


def _mistake(expected: str, got: str) -> UsageError:
    return UsageError("No transformer computes this.", where="benchmarks.nets.rasp", expected=expected, got=got)
