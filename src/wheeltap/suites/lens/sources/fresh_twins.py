"""Word problems in arithmetic that were never published: drawn from templates, or published ones with other numbers.

Answers are exact. So a model that knows arithmetic solves both versions, and one that knows the text solves one.
"""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, final

import numpy as np

from wheeltap.core import seeds

_CONSTANTS: Final = frozenset({0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 24, 30, 50, 52, 60, 100, 365, 1000})
"""Numbers that a solution may use for a word (half, a week, a dozen, percent): they are never changed."""

_TRIES: Final = 200
"""Draws of numbers before a problem is said to have no twin."""

_NUMBER: Final = re.compile(r"(?<![\w.,])\d+(?![\w]|[.,]\d)")
_ANY: Final = re.compile(r"\d[\d,]*(?:\.\d+)?")
_STEP: Final[re.Pattern[str]] = re.compile(r"<<([^=<>]+)=([^<>]+)>>")
_OPERAND: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_OPERATIONS: Final[tuple[tuple[type[ast.operator], Callable[[Fraction, Fraction], Fraction]], ...]] = (
    (ast.Add, lambda one, two: one + two),
    (ast.Sub, lambda one, two: one - two),
    (ast.Mult, lambda one, two: one * two),
    (ast.Div, lambda one, two: one / two),
)

_NAMES: Final = ("Ana", "Ben", "Chloe", "Dev", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jamal", "Kofi", "Lena")
_THINGS: Final = ("apples", "books", "candles", "eggs", "marbles", "pencils", "ribbons", "shells", "stamps", "tickets")
_PLACES: Final = ("the market", "a fair", "school", "the harbor", "a garden", "the station", "the library", "a shop")
_TEMPLATES: Final = (
    ("{name} has {a} {thing} and finds {b} more at {place}. How many {thing} does {name} have now?", "a+b"),
    ("At {place} {name} sells {a} {thing} for ${c} each. How many dollars does {name} get?", "a*c"),
    ("{name} packs {a} {thing} into every box and fills {c} boxes at {place}. How many {thing} are packed?", "a*c"),
    ("{name} brings {s} {thing} to {place} and gives {a} of them to {other}. How many {thing} are left?", "s-a"),
    ("{other} owns {a} {thing}, and {name} owns {c} times as many. How many {thing} do both own?", "a+a*c"),
    ("{name} buys {a} {thing} at {place} on Monday and {b} on Friday, then loses {c}. How many are left?", "a+b-c"),
    ("For {c} days {name} carries {a} {thing} to {place} a day and {other} takes {b} in all. How many stay?", "a*c-b"),
    ("{name} shares {m} {thing} equally among {c} friends at {place}. How many {thing} does each friend get?", "m/c"),
)  # fmt: skip


@final
@dataclass(frozen=True)
class Problem:
    """A word problem.

    Attributes:
        text: What is asked.
        answer: The exact answer.
    """

    text: str
    answer: int

    def __str__(self) -> str:
        return f"{self.text}\nAnswer: {self.answer}"


def problems(count: int, *, seed: int) -> list[Problem]:
    """So many problems, each from a template, names, things, places and numbers drawn at random."""
    return [made for made, _ in pairs(count, seed=seed)]


def pairs(count: int, *, seed: int) -> list[tuple[Problem, Problem]]:
    """Problems and their twins: two draws from one template, so that either could have been the first."""
    rng = seeds.generator(seed, "fresh twins")
    kinds = rng.integers(0, len(_TEMPLATES), count)
    return [(_drawn(int(kind), rng), _drawn(int(kind), rng)) for kind in kinds]


def _drawn(kind: int, rng: np.random.Generator) -> Problem:
    text, rule = _TEMPLATES[kind]
    name, other = (_NAMES[int(at)] for at in rng.choice(len(_NAMES), 2, replace=False))
    a, b, c = int(rng.integers(20, 100)), int(rng.integers(10, 20)), int(rng.integers(2, 10))
    numbers = {"a": a, "b": b, "c": c, "s": a + int(rng.integers(10, 100)), "m": a * c}
    places = {"thing": _THINGS[int(rng.integers(len(_THINGS)))], "place": _PLACES[int(rng.integers(len(_PLACES)))]}
    value = _value(re.sub("[abcms]", lambda found: str(numbers[found.group()]), rule))
    assert value is not None and value.denominator == 1, "templates have whole answers"
    return Problem(text.format(name=name, other=other, **places, **numbers), int(value))


def twin(question: str, solution: str, *, seed: int) -> tuple[Problem, Problem] | None:
    """A published problem and the same with other numbers of as many digits, with the answer that these have.

    The steps of the solution (``<<16-3-4=9>>``, as in GSM8K) say how numbers become the answer. Changed are numbers of
    the question that a step uses and that stand for no word; every step that was a whole number that is not negative
    stays one.

    Args:
        question: Text with numbers in digits.
        solution: Its steps, and the answer after ``####``.
        seed: Of the numbers.

    Returns:
        The problem as published and its twin; ``None`` where steps do not lead from the question to the answer, or no
        other numbers were found.

    Source: Mirzadeh et al. (2024), "GSM-Symbolic" (arXiv:2410.05229), for the idea; here the size of numbers is kept.
    """
    found: list[tuple[str, str]] = _STEP.findall(solution)
    steps = [(rule.replace(" ", ""), _number(value)) for rule, value in found]
    answer = _number(solution.rpartition("####")[2])
    if not steps or answer is None or answer.denominator != 1 or steps[-1][1] != answer:
        return None
    if any(value is None or _value(rule) != value for rule, value in steps):
        return None
    used = {operand for rule, _ in steps for operand in _OPERAND.findall(rule)}
    free = sorted((_changeable(question) & used) - {str(value) for _, value in steps})
    rng = seeds.generator(seed, "fresh twins", question)
    for _ in range(_TRIES if free else 0):
        other = {old: _as_long(old, rng) for old in free}
        moved = _followed(steps, other) if all(old != new for old, new in other.items()) else None
        if moved is not None and moved != answer:
            text = _NUMBER.sub(lambda found: other.get(found.group(), found.group()), question)  # noqa: B023
            return Problem(question, int(answer)), Problem(text, int(moved))
    return None


def _as_long(number: str, rng: np.random.Generator) -> str:
    digits = len(number)
    return "".join(str(digit) for digit in (rng.integers(1, 10), *rng.integers(0, 10, digits - 1)))


def _changeable(question: str) -> set[str]:
    """Numbers of a question that stand for no word and are written in one way only: 15 is not where $15.00 is too."""
    plain: list[str] = _NUMBER.findall(question)
    every = [_number(written) for written in _ANY.findall(question)]
    return {n for n in plain if int(n) not in _CONSTANTS and plain.count(n) == every.count(Fraction(n))}


def _followed(steps: list[tuple[str, Fraction | None]], other: Mapping[str, str]) -> Fraction | None:
    """What the steps lead to with other numbers; ``None`` where a whole number would become none, or one negative."""
    known, value = dict(other), None
    for rule, before in steps:
        value = _value(_OPERAND.sub(lambda found: f"({known.get(found.group(), found.group())})", rule))
        if value is None or before is None or value < 0 or (before.denominator == 1 and value.denominator != 1):
            return None
        known[str(before)] = str(value)
    return value


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text.strip().replace(",", "").replace("$", ""))
    except (ValueError, ZeroDivisionError):
        return None


def _value(rule: str) -> Fraction | None:
    """The value of sums, differences, products and quotients of numbers; ``None`` of anything else."""
    try:
        return _evaluated(ast.parse(re.sub(r"(?<!\d)0+(?=\d)", "", rule), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, TypeError, RecursionError, MemoryError):
        return None


def _evaluated(node: ast.expr) -> Fraction:
    for kind, made in _OPERATIONS:
        if isinstance(node, ast.BinOp) and isinstance(node.op, kind):
            return made(_evaluated(node.left), _evaluated(node.right))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(repr(node.value))
    raise TypeError("no arithmetic")
