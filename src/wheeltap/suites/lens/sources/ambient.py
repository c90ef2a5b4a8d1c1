"""Files of ambiguous inferences as AmbiEnt has them, and distractors for their sentences."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast, final

import msgspec

from wheeltap.core import seeds
from wheeltap.core.bounded import parsing
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError
from wheeltap.sources.base import DataSource, Reader
from wheeltap.sources.jsonl import first, lines
from wheeltap.suites.lens.sources.ambiguous import SIDES, Example, Several, task_of
from wheeltap.suites.lens.specs import LABELS, Label

FIELDS: Final = frozenset({"premise", "hypothesis", "labels", "disambiguations"})
"""By which such a file is known."""


def _words(text: str) -> list[str]:
    return text.split()


_BEFORE: Final = frozenset(_words("the a an his her its their my our your this that some every no"))
_AFTER: Final = frozenset(
    _words(
        "is are was were be has have had will would can could may might must of in on at to for from with by and or "
        "but that who which as than not"
    )
)
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z'-]*|[.,;:!?]")
_LEAST: Final = 3
"""Letters of a noun that is put in a sentence's place."""


class _Rewrite(msgspec.Struct, frozen=True):
    premise: str
    hypothesis: str
    label: str


class _Line(msgspec.Struct, frozen=True):
    id: str | int
    premise: str
    hypothesis: str
    labels: str
    disambiguations: list[_Rewrite] | str
    premise_ambiguous: bool = False
    hypothesis_ambiguous: bool = False


@final
class AmbientFiles(DataSource):
    """See ``load_ambient``."""

    form = "FILE.jsonl"
    title = "Lines with premise, hypothesis, labels, disambiguations: ambiguous inferences, as AmbiEnt has them."

    def fits(self, path: Path, reader: Reader) -> bool:
        """By the first line, for a language model."""
        known = path.suffix == ".jsonl" and reader.tokenizer is not None and reader.classifier is None
        return known and first(path).keys() >= FIELDS

    def load(self, rest: str, reader: Reader) -> ChoiceTask:
        """See ``DataSource.load``."""
        assert reader.tokenizer is not None, "it fits"
        return load_ambient(Path(rest), reader.tokenizer)


def load_ambient(path: Path, tokenizer: Tokenizer) -> ChoiceTask:
    """The items of a file as a task.

    Raises:
        MissingFile: If it is not there.
        FileFormatError: If a line is no such item; it is named by its number, from 1.
        DataError: If a label is none of the set, or an item is there twice.
    """
    return task_of(examples(path), tokenizer, name=path.stem)


def examples(path: Path) -> list[Example]:
    """The items of a file; see ``load_ambient``."""
    held = list(_read(path))
    nouns = lexicon([one.side(side) for one, _ in held for side in SIDES])
    found: list[Example] = []
    seen = set[str]()
    for one, rewrites in held:
        if one.id in seen:
            raise DataError("An item is there twice.", where=str(path), expected="an id for each item", got=one.id)
        seen.add(one.id)
        readings = {
            side: Several(several, distractor(one.side(side), nouns, name=f"{one.id} {side}"))
            for side, several in rewrites.items()
        }
        found.append(replace(one, readings=readings))
    return found


def _read(path: Path) -> Iterator[tuple[Example, dict[str, tuple[str, ...]]]]:
    """Each item, with the readings of its sides."""
    for number, line in lines(path):
        where = f"{path}: line {number}"
        with parsing(
            where, "A line is no ambiguous inference.",
            expected='{"id", "premise", "hypothesis", "labels": "entailment, neutral", "disambiguations": [...]}',
            do="Correct or remove the line; an item without a hypothesis or labels cannot be asked for labels.",
        ):  # fmt: skip
            row = msgspec.json.decode(line, type=_Line)
            rewrites = _rewrites(row.disambiguations)
        yield _item(row, rewrites, where)


def _rewrites(held: list[_Rewrite] | str) -> list[_Rewrite]:
    """The rewrites; some files have what Python prints of the list."""
    if not isinstance(held, str):
        return held
    return msgspec.convert(ast.literal_eval(held), list[_Rewrite])


def _item(row: _Line, rewrites: list[_Rewrite], where: str) -> tuple[Example, dict[str, tuple[str, ...]]]:
    labels = [one.strip() for one in row.labels.split(",")]
    # A label of the item that none of its rewrites has is kept: the released test items have one.
    outside = sorted({*labels, *(one.label for one in rewrites)} - set(LABELS))
    if outside:
        raise DataError("A label is not in the set.", where=where, expected=", ".join(LABELS), got=", ".join(outside))
    _require_said(row, rewrites, where)
    if rewrites and not {one.label for one in rewrites} & set(labels):
        raise DataError(
            "No reading has a label of the item.",
            where=where,
            expected=", ".join(dict.fromkeys(one.label for one in rewrites)),
            got=row.labels,
            do="Correct the labels: they are those that are right under some reading.",
        )
    flags = {"premise": row.premise_ambiguous, "hypothesis": row.hypothesis_ambiguous}
    readings = {
        side: tuple(dict.fromkeys(one.premise if side == "premise" else one.hypothesis for one in rewrites))
        for side in SIDES
        if flags[side] and rewrites
    }
    example = Example(id=str(row.id), premise=row.premise, hypothesis=row.hypothesis,
                      labels=tuple(cast("list[Label]", list(dict.fromkeys(labels)))))  # fmt: skip
    return example, readings


def _require_said(row: _Line, rewrites: list[_Rewrite], where: str) -> None:
    """Raises ``DataError`` if a sentence is empty."""
    said = {"premise": row.premise, "hypothesis": row.hypothesis}
    for at, one in enumerate(rewrites, start=1):
        said |= {f"premise of reading {at}": one.premise, f"hypothesis of reading {at}": one.hypothesis}
    empty = [name for name, text in said.items() if not text.strip()]
    if empty:
        raise DataError("A sentence is empty.", where=where, expected="words", got=f"nothing in {', '.join(empty)}",
                        do="Give the sentence, or remove the line.")  # fmt: skip


def lexicon(sentences: Sequence[str]) -> tuple[str, ...]:
    """Words in the place of a noun somewhere: after an article or the like, before a verb, a preposition or an end."""
    found = set[str]()
    for sentence in sentences:
        words = _WORD.findall(sentence)
        found.update(
            word
            for before, word, after in zip(words, words[1:], [*words[2:], "."], strict=False)
            if _is_noun(before, word, after)
        )
    return tuple(sorted(found))


def _is_noun(before: str, word: str, after: str) -> bool:
    ends = after.lower() in _AFTER or not after[0].isalpha()
    return before.lower() in _BEFORE and ends and word.islower() and word.isalpha() and len(word) >= _LEAST


def distractor(sentence: str, nouns: Sequence[str], *, name: str) -> str:
    """The sentence with one noun swapped for another, by a draw of this ``name``; the longest word, if it has no noun.

    AmbiEnt's own distractors swap a noun by ConceptNet, which is not at hand: figures are not the published ones'.
    """
    rng = seeds.generator(0, "ambiguous", "distractor", name)
    known = set(nouns)
    places = list(_WORD.finditer(sentence))
    words = ["", *(place[0] for place in places), "."]
    nouns_here = [
        place for at, place in enumerate(places, start=1)
        if place[0] in known and _is_noun(words[at - 1], words[at], words[at + 1])
    ]  # fmt: skip
    letters = sorted((place for place in places if place[0][0].isalpha()), key=lambda place: -len(place[0]))
    chosen = nouns_here or [place for place in letters if place[0].lower() in known] or letters[:1]
    if not chosen:
        return f"{sentence} {rng.choice(list(nouns) or ['stone'])}"
    place = chosen[int(rng.integers(len(chosen)))]
    plural = place[0].endswith("s")
    others = [noun for noun in nouns if noun.endswith("s") == plural and noun != place[0].lower()] or ["stones"]
    word = str(rng.choice(others))
    return sentence[: place.start()] + (word.capitalize() if place[0][0].isupper() else word) + sentence[place.end() :]
