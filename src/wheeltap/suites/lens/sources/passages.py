"""Tasks of plain texts for language models, from ``.jsonl`` files: a text and perhaps its twin, or a word problem.

Twins of word problems in arithmetic are published ones with other numbers. Answers are exact: a model that knows
arithmetic solves both versions, and one that knows the text solves one.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Final, final

import msgspec
import numpy as np

from wheeltap.core import seeds
from wheeltap.core.bounded import decoded
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.sources.base import DataSource, ExampleReader
from wheeltap.sources.jsonl import MAX_TOKENS, first, lines
from wheeltap.suites.lens.annotations import Passages
from wheeltap.suites.lens.specs import SETS

BETWEEN: Final = "\n\n"
"""What is between two items where they follow each other."""

PIECE: Final = 3
"""Words of a piece of a new item, about: fewer than a model remembers in a row, enough for a number or a date."""

TRIES: Final = 16
"""Draws of sets of new items."""

_WORD: Final = re.compile(r"\S+")

_FIRST: Final = "\n"
"""What a text follows where the tokenizer has no token that starts a sequence; a token of a text, if this is none."""

_NO_TEXT: Final = "A line is neither a text nor a word problem."
_EXPECTED: Final = 'an object such as {"text": "...", "twin": "..."} or {"question": "...", "answer": "..."}'
_DO: Final = "Correct or remove the line."

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


class PassageLine(msgspec.Struct, frozen=True):
    """One line: ``text``, perhaps with ``twin``; or ``question`` and ``answer`` with its steps, as in GSM8K.

    Attributes:
        text: An item, as it was published.
        twin: The same item in a version that was never published; in all lines or in none.
        question: A word problem, of which a twin with other numbers is made.
        answer: Its solution: steps such as ``<<16-3-4=9>>``, and the answer after ``####``.
    """

    text: str | None = None
    twin: str | None = None
    question: str | None = None
    answer: str | None = None


@final
class PassageFiles(DataSource):
    """See ``load_passages``."""

    form = "FILE.jsonl"
    title = "Lines with text, perhaps with twin (a fresh version), or with question, answer: for contamination."

    def fits(self, path: Path, reader: ExampleReader) -> bool:
        """By the first line, for a language model: a text or a word problem, and no item with choices."""
        if path.suffix != ".jsonl" or reader.tokenizer is None or reader.classifier is not None:
            return False
        line = first(path)
        return not {"choices", "context"} & line.keys() and ("text" in line or {"question", "answer"} <= line.keys())

    def load(self, rest: str, reader: ExampleReader) -> ChoiceTask:
        """See ``DataSource.load``."""
        assert reader.tokenizer is not None, "it fits"
        return load_passages(Path(rest), reader.tokenizer)


def load_passages(path: Path, tokenizer: Tokenizer) -> ChoiceTask:
    """A task of the texts in ``path``: its score is how often a model finds a text likelier than its twin.

    Where there are no twins, a text is held against its own tokens in a random order. Of word problems those are left
    out of which no twin can be made, and of lines with the same text or twin all but the first: nothing that is found
    of one of them is new of the next. The task's name says how many are left.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If a line is neither; it is named by its number, from 1.
        DataError: If there is nothing in it, or only some lines have twins, or a text has too many tokens.
    """
    found: list[tuple[str, str | None]] = []
    places, known, read, paired = list[str](), set[str](), 0, 0
    for number, line in lines(path):
        read += 1
        where = f"{path}: line {number}"
        row = decoded(line, PassageLine, where, _NO_TEXT, expected=_EXPECTED, do=_DO)
        if not row.text and not (row.question and row.answer):
            got = "an empty text" if row.text == "" else "none of the two"
            raise FileFormatError(_NO_TEXT, where=where, expected=_EXPECTED, got=got, do=_DO)
        pair = twin(row.question or "", row.answer or "", seed=0) if row.text is None else (row.text, row.twin)
        if pair is None:
            continue
        paired += 1
        _require_alike([*found[:1], pair], where)
        same = {" ".join(text.lower().split()) for text in pair if text is not None}
        if not same & known:
            found.append(pair)
            places.append(where)
        known |= same
    if not found:
        raise DataError(
            "There are no texts in the file." if not read else "No word problem in the file has a twin.",
            where=str(path),
            expected='lines such as {"text": "...", "twin": "..."}, or problems with steps such as <<16-3-4=9>>',
            got=f"{read} lines",
            do="Give each problem its steps in the answer, or write texts and twins yourself; see docs/lens.md.",
        )
    name = path.stem if paired == read else f"{path.stem}, {paired} of {read} with twins"
    name = name if len(found) == paired else f"{name}, {len(found)} of {paired} without repeats"
    return task_of(found, tokenizer, name=name, places=places, repeated=paired - len(found))


def task_of(
    pairs: Sequence[tuple[str, str | None]],
    tokenizer: Tokenizer,
    *,
    name: str,
    places: Sequence[str] = (),
    repeated: int = 0,
) -> ChoiceTask:
    """The task of texts and their twins, where there are any; see ``load_passages``.

    Raises:
        DataError: If a text has no tokens or too many.
    """
    start = tokenizer.start("") or tokenizer.start(_FIRST) or tokenizer.start(pairs[0][0])[:1]
    choices: list[list[list[int]]] = []
    for at, (text, twin) in enumerate(pairs):
        place = places[at] if places else f"{name}: item {at + 1}"
        own = _tokens(tokenizer.more(text), f"{place}, text")
        if twin is None:
            order = seeds.generator(0, "passages", "shuffled", at).permutation(len(own))
            other = [own[int(token)] for token in order]
        else:
            other = _tokens(tokenizer.more(twin), f"{place}, twin")
        choices.append([own, other])
    own_texts = tuple(text for text, _ in pairs)
    twins = tuple(twin for _, twin in pairs if twin is not None)
    task = ChoiceTask([start] * len(pairs), choices, [0] * len(pairs), name=name)
    fresh = tuple(tuple(tuple(tokenizer.more(text)) for text in several) for several in recombined(own_texts))
    return task.with_annotation(Passages(own_texts, twins, tuple(tokenizer.more(BETWEEN)), fresh, repeated))


def recombined(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """New texts of the same form, up to ``SETS`` in the place of each: pieces of a few words, each from another text.

    Pieces stay at their place in a text and in their order. So what any piece says of the order, a number, a date or
    an initial, the new texts say as well, while little is left of what a whole text and the next one have in common.
    Sets differ in where texts are cut, so that a mark of a few words is whole in most of them. Sets of which fewer than
    half are new are left out; all are where texts are one template with one word of its own each.
    """
    units = list[list[int]]()  # where words start; where words are not spaced, every second sign
    for text in texts:
        words = [word.start() for word in _WORD.finditer(text)]
        units.append((words or [0]) if len(words) > 1 or text.isascii() else list(range(0, len(text), 2)))
    pieces = max(2, round(float(np.median([len(some) for some in units])) / PIECE))
    drawn = [_new(texts, units, pieces, seeds.generator(0, "passages", "recombined", at)) for at in range(TRIES)]
    sets = [some for some in dict.fromkeys(drawn) if 2 * len(set(some) - set(texts)) >= len(texts)]
    return list(zip(*sets[:SETS], strict=True))


def _new(
    texts: Sequence[str], units: Sequence[Sequence[int]], pieces: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """One set of new texts; pieces are cut at random, and those of one new text are from texts far from each other."""
    shares = (np.arange(1, pieces) + rng.uniform(-0.5, 0.5, pieces - 1)) / pieces
    cut = list[list[str]]()
    for text, starts in zip(texts, units, strict=True):
        inner = [starts[min(round(float(share) * len(starts)), len(starts) - 1)] for share in shares]
        cut.append([text[start:end] for start, end in pairwise([0, *inner, len(text)])])
    places = (rng.permutation(pieces) + rng.uniform(0.0, 0.5, pieces)) * len(texts) / pieces
    shifts = [int(place) for place in places]
    return tuple(
        "".join(cut[(at + shift) % len(texts)][piece] for piece, shift in enumerate(shifts)) for at in range(len(texts))
    )


def _require_alike(found: list[tuple[str, str | None]], where: str) -> None:
    text, twin = found[-1]
    if (twin is None) != (found[0][1] is None):
        raise DataError(
            "Some texts have a twin and some have none.",
            where=where,
            expected="a twin in every line, or in none",
            got="no twin" if twin is None else "a twin",
            do="Give each text a version that was never published, or leave the twins out.",
        )
    if text == twin:
        raise DataError(
            "A text and its twin are the same.",
            where=where,
            expected="a version that was never published",
            got=repr(text[:60]),
            do="Reword it, change its numbers, or take another item of the same kind.",
        )


def _tokens(ids: list[int], where: str) -> list[int]:
    if not 2 <= len(ids) <= MAX_TOKENS:
        raise DataError(
            "A text cannot be read.",
            where=where,
            expected=f"2 to {MAX_TOKENS} tokens",
            got=f"{len(ids)} tokens",
            do="Remove the line, or give it a longer or shorter text.",
        )
    return ids


def twin(question: str, solution: str, *, seed: int) -> tuple[str, str] | None:
    """A published problem and the same with other numbers of as many digits, with the answer that these have.

    The steps of the solution (``<<16-3-4=9>>``, as in GSM8K) say how numbers become the answer. Changed are numbers of
    the question that a step uses and that stand for no word; every step that was a whole number that is not negative
    stays one.

    Args:
        question: Text with numbers in digits.
        solution: Its steps, and the answer after ``####``.
        seed: Of the numbers.

    Returns:
        The problem as published and its twin, each with its answer; ``None`` where steps do not lead from the question
        to the answer, or no other numbers were found.

    Source: Mirzadeh et al. (2024), "GSM-Symbolic" (arXiv:2410.05229), for the idea; here the size of numbers is kept.
    """
    found: list[tuple[str, str]] = _STEP.findall(solution)
    steps = [(rule.replace(" ", ""), _number(value)) for rule, value in found]
    answer = _number(solution.rpartition("####")[2])
    if not steps or answer is None or answer.denominator != 1 or steps[-1][1] != answer:
        return None
    if any(value is None or value_of(rule) != value for rule, value in steps):
        return None
    used = {operand for rule, _ in steps for operand in _OPERAND.findall(rule)}
    plain: list[str] = _NUMBER.findall(question)
    every = [_number(written) for written in _ANY.findall(question)]
    # Numbers that stand for no word and are written in one way only: 15 is not where $15.00 is too.
    once = {n for n in plain if int(n) not in _CONSTANTS and plain.count(n) == every.count(Fraction(n))}
    free = sorted((once & used) - {str(value) for _, value in steps})
    rng = seeds.generator(seed, "fresh twins", question)
    for _ in range(_TRIES if free else 0):
        other = {old: "".join(map(str, (rng.integers(1, 10), *rng.integers(0, 10, len(old) - 1)))) for old in free}
        moved = _followed(steps, other) if all(old != new for old, new in other.items()) else None
        if moved is not None and moved != answer:
            text = _NUMBER.sub(lambda found: other.get(found.group(), found.group()), question)  # noqa: B023
            return f"{question}\nAnswer: {answer}", f"{text}\nAnswer: {moved}"
    return None


def _followed(steps: list[tuple[str, Fraction | None]], other: Mapping[str, str]) -> Fraction | None:
    """What the steps lead to with other numbers; ``None`` where a whole number would become none, or one negative."""
    known, value = dict(other), None
    for rule, before in steps:
        value = value_of(_OPERAND.sub(lambda found: f"({known.get(found.group(), found.group())})", rule))
        if value is None or before is None or value < 0 or (before.denominator == 1 and value.denominator != 1):
            return None
        known[str(before)] = str(value)
    return value


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text.strip().replace(",", "").replace("$", ""))
    except (ValueError, ZeroDivisionError):
        return None


def value_of(rule: str) -> Fraction | None:
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
