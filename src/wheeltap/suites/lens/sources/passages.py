"""Tasks of plain texts for language models, from ``.jsonl`` files: a text, and perhaps its twin."""

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

_NO_TEXT: Final = "A line is no text."
_EXPECTED: Final = 'an object such as {"text": "...", "twin": "..."}'
_DO: Final = "Correct or remove the line."


class PassageLine(msgspec.Struct, frozen=True):
    """One line.

    Attributes:
        text: An item, as it was published.
        twin: The same item in a version that was never published; in all lines or in none.
    """

    text: str = ""
    twin: str | None = None


@final
class PassageFiles(DataSource):
    """See ``load_passages``."""

    form = "FILE.jsonl"
    title = "Lines with text, perhaps with twin (a fresh version): for contamination."

    def fits(self, path: Path, reader: ExampleReader) -> bool:
        """By the first line, for a language model: a text, and no item with choices."""
        if path.suffix != ".jsonl" or reader.tokenizer is None or reader.classifier is not None:
            return False
        line = first(path)
        return "text" in line and not {"choices", "context"} & line.keys()

    def load(self, rest: str, reader: ExampleReader) -> ChoiceTask:
        """See ``DataSource.load``."""
        assert reader.tokenizer is not None, "it fits"
        return load_passages(Path(rest), reader.tokenizer)


def load_passages(path: Path, tokenizer: Tokenizer) -> ChoiceTask:
    """A task of the texts in ``path``: its score is how often a model finds a text likelier than its twin.

    Where there are no twins, a text's rival is its own tokens in a random order. Of lines with the same text or twin
    all but the first are left out: nothing that is found of one of them is new of the next. The task's name says how
    many are left.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If a line is no text; it is named by its number, from 1.
        DataError: If there is nothing in it, or only some lines have twins, or a text has too many tokens.
    """
    found: list[tuple[str, str | None]] = []
    places, known, n_lines = list[str](), set[str](), 0
    for number, line in lines(path):
        n_lines += 1
        where = f"{path}: line {number}"
        row = decoded(line, PassageLine, where, _NO_TEXT, expected=_EXPECTED, do=_DO)
        if not row.text:
            raise FileFormatError(_NO_TEXT, where=where, expected=_EXPECTED, got="no text", do=_DO)
        _require_alike([*found[:1], (row.text, row.twin)], where)
        same = {" ".join(text.lower().split()) for text in (row.text, row.twin) if text is not None}
        if not same & known:
            found.append((row.text, row.twin))
            places.append(where)
        known |= same
    if not found:
        raise DataError(
            "The file holds no texts.", where=str(path), expected='lines such as {"text": "...", "twin": "..."}',
            got="0 lines", do="Write texts, and twins if there are any; see docs/lens.md.",
        )  # fmt: skip
    name = path.stem if len(found) == n_lines else f"{path.stem}, {len(found)} of {n_lines} without repeats"
    return task_of(found, tokenizer, name=name, places=places, repeated=n_lines - len(found))


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
