"""Eight idioms of Python, in each of which one token decides how a line goes on.

Source: arXiv:2511.13653, table of tasks; grammar, words and lines are our own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, final

import numpy as np

from wheeltap.suites.circuits.nets.python_words import (
    DIGITS,
    ENTRIES,
    FUNCTIONS,
    INDENT,
    NAMES,
    NL,
    SUFFIXES,
    WORDS,
    half,
)

Picked = TypeVar("Picked")

_BLOCK: Final = 4096
"""Random numbers drawn at once: one at a time costs ten times as much."""


@final
class Draw:
    """Random choices, and the words they are made among.

    Args:
        rng: Where they come from.
        second: Whether names, functions and words are of the second halves; of both where ``None``.
    """

    def __init__(self, rng: np.random.Generator, *, second: bool | None = None) -> None:
        self._rng, self._held = rng, list[float]()
        self.names, self.functions, self.words = (
            tuple(kind) if second is None else tuple(half(kind, second=second)) for kind in (NAMES, FUNCTIONS, WORDS)
        )

    def _next(self) -> float:
        if not self._held:
            self._held = self._rng.random(_BLOCK).tolist()
        return self._held.pop()

    def chance(self, share: float) -> bool:
        """Whether something with this chance happens."""
        return self._next() < share

    def below(self, bound: int) -> int:
        """A whole number from 0 to ``bound`` - 1."""
        return int(self._next() * bound)

    def pick(self, options: Sequence[Picked]) -> Picked:
        """One of these."""
        return options[int(self._next() * len(options))]

    def some(self, options: Sequence[Picked], least: int, most: int) -> list[Picked]:
        """From ``least`` to ``most`` of these, perhaps one of them twice."""
        return [self.pick(options) for _ in range(least + self.below(most - least + 1))]

    def name(self) -> list[str]:
        """A variable: a name and up to two suffixes."""
        return [self.pick(self.names), *(self.some(SUFFIXES, 1, 2) if self.chance(0.3) else ())]


@final
@dataclass(frozen=True)
class Idiom:
    """A line, or a few, in both of the ways that it can end.

    Attributes:
        head: Tokens before the one that decides.
        decides: That token, for either end.
        middle: Tokens between it and the end.
        ends: The token that follows from it, for either.
        tails: What comes after, for either.
    """

    head: list[str]
    decides: tuple[str, str]
    middle: list[str]
    ends: tuple[str, str]
    tails: tuple[list[str], list[str]]

    def context(self, end: int) -> list[str]:
        """Tokens up to the end, which is none of them."""
        return [*self.head, self.decides[end], *self.middle]

    def line(self, end: int) -> list[str]:
        """All tokens."""
        return [*self.context(end), self.ends[end], *self.tails[end]]


def simple(draw: Draw, forms: Sequence[int] = range(6)) -> list[str]:
    """A plain line, of one of these six forms."""
    form, name = draw.pick(forms), draw.name()
    match form:
        case 0:
            return [*name, "=", draw.pick(DIGITS), NL]
        case 1:
            return [draw.pick(draw.functions), "(", *name, ")", NL]
        case 2:
            return [*name, "=", draw.pick(draw.functions), "(", draw.pick(draw.names), ")", NL]
        case 3:
            return [*name, "=", *name, "+", draw.pick(DIGITS), NL]
        case 4:
            return ["import", *name, NL]
        case _:
            return ["print", "(", *name, ")", NL]


def _body(draw: Draw) -> list[str]:
    """A block of one line."""
    return [NL, INDENT, *(["pass", NL] if draw.chance(0.3) else simple(draw))]


def quote(draw: Draw) -> Idiom:
    """``print("red fox")``: a string ends with the quote that it started with."""
    return Idiom(["print"], ('("', "('"), draw.some(draw.words, 1, 5), ('")', "')"), ([NL], [NL]))


def bracket(draw: Draw) -> Idiom:
    """``x = [1, [2, 3]]``: a list ends with as many brackets as are open; some were closed before."""
    head = [*draw.name(), "=", "[", *_entries(draw, 0, 2)]
    return Idiom(head, ("[", draw.pick(ENTRIES)), _entries(draw, 1, 3), ("]]NL", "]NL"), ([], []))


def _entries(draw: Draw, least: int, most: int) -> list[str]:
    """Entries of a list; one of them may be a list."""
    inner = ["[", *draw.some(ENTRIES, 1, 2), "],"] if draw.chance(0.25) else []
    return [*inner, *draw.some(ENTRIES, least, most)]


def set_or_string(draw: Draw) -> Idiom:
    """``x = set()`` and later ``x.add(y)``; ``x = ""`` and later ``x += y``: by the value given last."""
    name, other = draw.name(), draw.pick(draw.names)
    between = simple(draw) if draw.chance(0.3) else []
    tails = (["(", other, ")", NL], [other, NL])
    return Idiom([*name, "="], ("set()", '""'), [NL, *between, *name], (".add", "+="), tails)


def with_as(draw: Draw) -> Idiom:
    """``with open(x) as y:``, and ``return open(x)``, which ends there."""
    middle = [draw.pick(draw.functions), "(", *draw.name(), ")"]
    return Idiom([], ("with", "return"), middle, ("as", NL), ([draw.pick(draw.names), ":", *_body(draw)], []))


def for_while(draw: Draw) -> Idiom:
    """``for x in y:``, and ``while x:``."""
    tails = ([*draw.name(), ":", *_body(draw)], _body(draw))
    return Idiom([], ("for", "while"), draw.name(), ("in", ":"), tails)


def if_ternary(draw: Draw) -> Idiom:
    """``return x if y < z else n``, and an ``if y < z:`` on a line of its own."""
    middle = ["if", *draw.name(), "<", draw.pick(draw.names)]
    tails = ([draw.pick(draw.names), NL], _body(draw))
    return Idiom([draw.pick(("return", "yield"))], (draw.pick(draw.names), NL), middle, ("else", ":"), tails)


def var_swap(draw: Draw) -> Idiom:
    """``x, y = y, x``: the name that comes last is the first one."""
    first, second, other = _different(draw, 3)
    middle = [",", second, "=", second, ","]
    return Idiom([], (first, other), middle, (first, other), ([NL], [NL]))


def _different(draw: Draw, count: int) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        name = draw.pick(draw.names)
        names += [] if name in names else [name]
    return names


def lambda_(draw: Draw) -> Idiom:
    """``lambda x: y``, and ``def x(y):``."""
    tails = ([*draw.name(), NL], [draw.pick(draw.names), ")", ":", *_body(draw)])
    return Idiom([], ("lambda", "def"), draw.name(), (":", "("), tails)


IDIOMS: Final[Mapping[str, Callable[[Draw], Idiom]]] = {
    "quote": quote,
    "bracket": bracket,
    "set_or_string": set_or_string,
    "with_as": with_as,
    "for_while": for_while,
    "if_ternary": if_ternary,
    "var_swap": var_swap,
    "lambda": lambda_,
}
