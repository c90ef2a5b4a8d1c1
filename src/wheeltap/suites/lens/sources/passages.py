"""Tasks of plain texts for language models, from ``.jsonl`` files: a text and perhaps its twin, or a word problem."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, final

import msgspec
import numpy as np

from wheeltap.core import seeds
from wheeltap.core.bounded import decoded
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.sources.base import DataSource, Reader
from wheeltap.sources.jsonl import MAX_TOKENS, first, lines
from wheeltap.suites.lens.passages import Passages
from wheeltap.suites.lens.sources import fresh_twins
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


class Line(msgspec.Struct, frozen=True):
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

    @property
    def pair(self) -> tuple[str, str | None] | None:
        """Text and twin; ``None`` of a problem without a twin."""
        if self.text is not None:
            return self.text, self.twin
        made = fresh_twins.twin(self.question or "", self.answer or "", seed=0)
        return None if made is None else (str(made[0]), str(made[1]))


@final
class PassageFiles(DataSource):
    """See ``load_passages``."""

    form = "FILE.jsonl"
    title = "Lines with text, perhaps with twin (a fresh version), or with question, answer: for contamination."

    def fits(self, path: Path, reader: Reader) -> bool:
        """By the first line, for a language model: a text or a word problem, and no item with choices."""
        if path.suffix != ".jsonl" or reader.tokenizer is None or reader.classifier is not None:
            return False
        line = first(path)
        return not {"choices", "context"} & line.keys() and ("text" in line or {"question", "answer"} <= line.keys())

    def load(self, rest: str, reader: Reader) -> ChoiceTask:
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
        pair = _line(line, f"{path}: line {number}").pair
        if pair is None:
            continue
        paired += 1
        _require_alike([*found[:1], pair], f"{path}: line {number}")
        same = {" ".join(text.lower().split()) for text in pair if text is not None}
        if not same & known:
            found.append(pair)
            places.append(f"{path}: line {number}")
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
    """The task of texts and their twins; see ``load_passages``.

    Args:
        pairs: Text and twin, ``None`` where there is none.
        tokenizer: Of the model.
        name: Of the task.
        places: Where each pair was read.
        repeated: Lines that were left out because they repeat another one.

    Raises:
        DataError: If a text has no tokens or too many.
    """
    start = tokenizer.start("") or tokenizer.start(_FIRST) or tokenizer.start(pairs[0][0])[:1]
    choices: list[list[list[int]]] = []
    for at, (text, twin) in enumerate(pairs):
        place = places[at] if places else f"{name}: item {at + 1}"
        own = _tokens(tokenizer.more(text), f"{place}, text")
        other = _shuffled(own, at) if twin is None else _tokens(tokenizer.more(twin), f"{place}, twin")
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
    units = [_units(text) for text in texts]
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


def _units(text: str) -> list[int]:
    """Where words start; where words are not spaced, every second sign."""
    words = [word.start() for word in _WORD.finditer(text)]
    return (words or [0]) if len(words) > 1 or text.isascii() else list(range(0, len(text), 2))


_NO_TEXT: Final = "A line is neither a text nor a word problem."
_EXPECTED: Final = 'an object such as {"text": "...", "twin": "..."} or {"question": "...", "answer": "..."}'
_DO: Final = "Correct or remove the line."


def _line(line: bytes, where: str) -> Line:
    found = decoded(line, Line, where, _NO_TEXT, expected=_EXPECTED, do=_DO)
    if not found.text and not (found.question and found.answer):
        raise _no_text(where, "an empty text" if found.text == "" else "none of the two")
    return found


def _no_text(where: str, got: str) -> FileFormatError:
    return FileFormatError(_NO_TEXT, where=where, expected=_EXPECTED, got=got, do=_DO)


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


def _shuffled(ids: list[int], item: int) -> list[int]:
    order = seeds.generator(0, "passages", "shuffled", item).permutation(len(ids))
    return [ids[int(at)] for at in order]
