"""A small language that looks like Python: its words, its idioms, the pairs of tasks and a training corpus."""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.typed import to_tensor
from wheeltap.suites.circuits.pairs import PairBatch
from wheeltap.suites.circuits.specs import TASKS


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VARIABLES: Final = _tokens(
    "a b c d i j k m n p q r s t u v x y z row col key item node left right total index size value data line"
)
"""Of variables. The first half serves plain tasks, the second half their rephrased form."""

SUFFIXES: Final = ("_id", "_name", "_max", "_old")
"""A name may go on with one or two of these, as ``row_id``."""

FUNCTIONS: Final = _tokens("open load read find lock call make scan")

WORDS: Final = _tokens(
    "red blue green dark light big small old new fast slow dog cat fox bird fish "
    "tree leaf rock sand sun moon star rain snow wind hill lake road gate door hall"
)
"""Of strings; halves as of ``VARIABLES``."""

DIGITS: Final = tuple("123456789")
ENTRIES: Final = tuple(f"{digit}," for digit in DIGITS)
"""Digits in a list."""

KEYWORDS: Final = _tokens("print return yield with as for in while if else lambda def import pass")
SIGNS: Final = ("(", ")", '("', "('", '")', "')", "[", "],", "]NL", "]]NL", ",", "=", "+", "<", ":")
USES: Final = ("set()", '""', ".add", "+=")
NL: Final = "NL"
INDENT: Final = "INDENT"

TOKENS: Final[tuple[str, ...]] = (
    NL, INDENT, *KEYWORDS, *SIGNS, *USES, *DIGITS, *ENTRIES, *FUNCTIONS, *VARIABLES, *SUFFIXES, *WORDS
)  # fmt: skip
"""The vocabulary: a token's number is its place here."""

NUMBERS: Final = {token: number for number, token in enumerate(TOKENS)}


def encode(pieces: Iterable[str]) -> list[int]:
    """Numbers of these tokens.

    Raises:
        DataError: If one is none of ``TOKENS``.
    """
    held = list(pieces)
    unknown = [piece for piece in held if piece not in NUMBERS]
    if unknown:
        raise DataError(
            "A piece of text is no token.",
            where="the Python-like vocabulary",
            expected="pieces between spaces that are tokens, as in 'for row_id in data :'",
            got=repr(unknown[0][:40]),
            do="Use the words of wheeltap.suites.circuits.nets.python.TOKENS, with spaces between them.",
        )
    return [NUMBERS[piece] for piece in held]


def decode(ids: Iterable[int]) -> str:
    """Text of these tokens: Python, with a space between tokens."""
    text = " ".join(TOKENS[number] for number in ids).replace(" _", "_").replace(" NL", "NL")
    return text.replace("NL ", "\n").replace("NL", "\n").replace("INDENT ", "    ").replace("INDENT", "    ")


@final
class PythonTokenizer:
    """Reads what ``decode`` writes; a ``core.choices.Tokenizer``."""

    def start(self, text: str) -> list[int]:
        """Numbers of the tokens of a text; there is no start token.

        Raises:
            DataError: If a piece of it is no token.
        """
        spread = re.sub(r"(?<!\])\n", " NL ", text.replace("    ", "INDENT ").replace("_", " _"))
        return encode(spread.replace("]\n", "]NL ").split())

    def more(self, text: str) -> list[int]:
        """The same of a text that goes on from other text."""
        return self.start(text)


Picked = TypeVar("Picked")

_BLOCK: Final = 4096
"""Random numbers drawn at once: one at a time costs ten times as much."""


@final
class PythonDraw:
    """Random choices, and the words they are made among.

    Args:
        rng: Where they come from.
        second: Whether names, functions and words are of the second halves; of both where ``None``.
    """

    def __init__(self, rng: np.random.Generator, *, second: bool | None = None) -> None:
        self._rng, self._held = rng, list[float]()
        self.names, self.functions, self.words = (
            kind if second is None else kind[len(kind) // 2 :] if second else kind[: len(kind) // 2]
            for kind in (VARIABLES, FUNCTIONS, WORDS)
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


def simple(draw: PythonDraw, forms: Sequence[int] = range(6)) -> list[str]:
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


def _body(draw: PythonDraw) -> list[str]:
    """A block of one line."""
    return [NL, INDENT, *(["pass", NL] if draw.chance(0.3) else simple(draw))]


def quote(draw: PythonDraw) -> Idiom:
    """``print("red fox")``: a string ends with the quote that it started with."""
    return Idiom(["print"], ('("', "('"), draw.some(draw.words, 1, 5), ('")', "')"), ([NL], [NL]))


def bracket(draw: PythonDraw) -> Idiom:
    """``x = [1, [2, 3]]``: a list ends with as many brackets as are open; some were closed before."""
    head = [*draw.name(), "=", "[", *_entries(draw, 0, 2)]
    return Idiom(head, ("[", draw.pick(ENTRIES)), _entries(draw, 1, 3), ("]]NL", "]NL"), ([], []))


def _entries(draw: PythonDraw, least: int, most: int) -> list[str]:
    """Entries of a list; one of them may be a list."""
    inner = ["[", *draw.some(ENTRIES, 1, 2), "],"] if draw.chance(0.25) else []
    return [*inner, *draw.some(ENTRIES, least, most)]


def set_or_string(draw: PythonDraw) -> Idiom:
    """``x = set()`` and later ``x.add(y)``; ``x = ""`` and later ``x += y``: by the value given last."""
    name, other = draw.name(), draw.pick(draw.names)
    between = simple(draw) if draw.chance(0.3) else []
    tails = (["(", other, ")", NL], [other, NL])
    return Idiom([*name, "="], ("set()", '""'), [NL, *between, *name], (".add", "+="), tails)


def with_as(draw: PythonDraw) -> Idiom:
    """``with open(x) as y:``, and ``return open(x)``, which ends there."""
    middle = [draw.pick(draw.functions), "(", *draw.name(), ")"]
    return Idiom([], ("with", "return"), middle, ("as", NL), ([draw.pick(draw.names), ":", *_body(draw)], []))


def for_while(draw: PythonDraw) -> Idiom:
    """``for x in y:``, and ``while x:``."""
    tails = ([*draw.name(), ":", *_body(draw)], _body(draw))
    return Idiom([], ("for", "while"), draw.name(), ("in", ":"), tails)


def if_ternary(draw: PythonDraw) -> Idiom:
    """``return x if y < z else n``, and an ``if y < z:`` on a line of its own."""
    middle = ["if", *draw.name(), "<", draw.pick(draw.names)]
    tails = ([draw.pick(draw.names), NL], _body(draw))
    return Idiom([draw.pick(("return", "yield"))], (draw.pick(draw.names), NL), middle, ("else", ":"), tails)


def var_swap(draw: PythonDraw) -> Idiom:
    """``x, y = y, x``: the name that comes last is the first one."""
    first, second, other = _different(draw, 3)
    middle = [",", second, "=", second, ","]
    return Idiom([], (first, other), middle, (first, other), ([NL], [NL]))


def _different(draw: PythonDraw, count: int) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        name = draw.pick(draw.names)
        names += [] if name in names else [name]
    return names


def lambda_(draw: PythonDraw) -> Idiom:
    """``lambda x: y``, and ``def x(y):``."""
    tails = ([*draw.name(), NL], [draw.pick(draw.names), ")", ":", *_body(draw)])
    return Idiom([], ("lambda", "def"), draw.name(), (":", "("), tails)


IDIOMS: Final[Mapping[str, Callable[[PythonDraw], Idiom]]] = {
    "quote": quote,
    "bracket": bracket,
    "set_or_string": set_or_string,
    "with_as": with_as,
    "for_while": for_while,
    "if_ternary": if_ternary,
    "var_swap": var_swap,
    "lambda": lambda_,
}


Variant = Literal["plain", "rephrased", "irrelevant"]
Split = Literal["train", "test"]

PLACES: Final = 24
"""Tokens of a context."""

PLAIN: Final = (0, 1, 2)
REPHRASED: Final = (3, 4, 5)
"""Forms of plain lines that stand before the idiom."""

OTHER: Final = 0.4
"""Share of other idioms among the lines before."""

TRIES: Final = 2000
"""Draws for each pair, most of which do not fill the places exactly."""


def pairs(
    name: str, *, seed: int, count: int, variant: Variant = "plain", split: Split = "train", places: int = PLACES
) -> PairBatch:
    """Pairs of a task; answers take turns, and no context comes twice.

    Args:
        name: Of ``specs.TASKS``.
        seed: Of what is drawn.
        count: How many.
        variant: ``plain``; ``rephrased``: the same rule with other names, words and lines before, one of which is of
            the same idiom; ``irrelevant``: the answer follows from whether the number of the first name is even, and
            the contexts differ in this name alone.
        split: Lines before the idiom are of one split alone: no pair is in both, whatever the seeds.
        places: Tokens of each context.

    Raises:
        UnknownName: If there is no such task.
        UsageError: If there are not so many different pairs of this length.
    """
    if name not in TASKS:
        raise UnknownName("task on Python-like lines", name, TASKS)
    rephrased = variant == "rephrased"
    draw = PythonDraw(seeds.generator(seed, "python pairs", name, split), second=rephrased)
    contexts, ends, seen = list[list[list[str]]](), list[tuple[str, str]](), set[tuple[str, ...]]()
    for _ in range(count * TRIES):
        if len(contexts) == count:
            break
        found = _lines(name, draw, places, split, rephrased=rephrased)
        if found is None:
            continue
        before, idiom = found
        number = len(contexts)
        if variant == "irrelevant":
            both, follow = _irrelevant(before, idiom, number, draw)
        else:
            both = [before + idiom.context(end) for end in (number % 2, 1 - number % 2)]
            follow = idiom.ends[number % 2], idiom.ends[1 - number % 2]
        known = [tuple(context) for context in both]
        if seen.isdisjoint(known):
            seen.update(known)
            contexts.append(both)
            ends.append(follow)
    else:
        raise UsageError(
            "There are not so many pairs of this length.",
            where=f"task {name} on Python-like lines",
            expected=f"{count} pairs of {places} tokens",
            got=f"{len(contexts)} after {count * TRIES} draws",
            do="Ask for fewer pairs, or for more places.",
        )
    tokens = torch.tensor([[encode(context) for context in both] for both in contexts])
    follow = torch.tensor([encode(pair) for pair in ends])
    return PairBatch(tokens[:, 0], tokens[:, 1], follow[:, 0], follow[:, 1])


def _irrelevant(
    before: list[str], idiom: Idiom, number: int, draw: PythonDraw
) -> tuple[list[list[str]], tuple[str, str]]:
    """Contexts where the first name decides, and what follows either: what the idiom is about stays as it is."""
    label, at = number % 2, _first_name(before)
    whole = before + idiom.context(number // 2 % 2)
    names = [draw.pick([name for name in draw.names if VARIABLES.index(name) % 2 == odd]) for odd in (label, 1 - label)]
    return [[*whole[:at], name, *whole[at + 1 :]] for name in names], (idiom.ends[label], idiom.ends[1 - label])


def _first_name(tokens: list[str]) -> int:
    return next(at for at, token in enumerate(tokens) if token in VARIABLES)


def _lines(
    name: str, draw: PythonDraw, places: int, split: Split, *, rephrased: bool
) -> tuple[list[str], Idiom] | None:
    """Lines before an idiom, a plain one first, and the idiom: together ``places`` tokens, of this split.

    ``None`` where those drawn are others.
    """
    idiom = IDIOMS[name](draw)
    room, forms = places - len(idiom.context(0)), REPHRASED if rephrased else PLAIN
    others = [other for task, other in IDIOMS.items() if task != name]
    first, lines = simple(draw, forms), list[list[str]]()
    if rephrased:
        lines.append(IDIOMS[name](draw).line(draw.below(2)))
    while (left := room - len(first) - sum(map(len, lines))) > 0:
        other = draw.chance(OTHER)
        line = draw.pick(others)(draw).line(draw.below(2)) if other else simple(draw, forms)
        lines.insert(draw.below(len(lines) + 1), line)
    if left:
        return None
    before = [*first, *(token for line in lines for token in line)]
    # Without the first name: the nonsense variant replaces it, and no pair may change its split so.
    at = _first_name(before)
    if zlib.crc32(" ".join(before[:at] + before[at + 1 :]).encode()) % 2 != (split == "test"):
        return None
    return before, idiom


CORPUS_PLACES: Final = 48
"""Of a sequence."""

SIMPLE: Final = 1 / 3
"""Share of plain lines; the others are idioms, each as often."""


def corpus(*, seed: int, sequences: int, places: int = CORPUS_PLACES) -> Tensor:
    """Sequences of tokens, int64 ``[sequence, place]``; equal seeds give equal ones, on every machine.

    Args:
        seed: Of what is drawn.
        sequences: How many.
        places: Tokens of each.
    """
    draw = PythonDraw(seeds.generator(seed, "python corpus"))
    held = np.empty((sequences, places), dtype=np.int64)
    for row in held:
        tokens: list[str] = []
        while len(tokens) < places:
            tokens += line(draw)
        row[:] = [NUMBERS[token] for token in tokens[:places]]
    return to_tensor(held)


def line(draw: PythonDraw) -> list[str]:
    """A plain line or an idiom, either way that it can end."""
    if draw.chance(SIMPLE):
        return simple(draw)
    return draw.pick(tuple(IDIOMS.values()))(draw).line(draw.below(2))
