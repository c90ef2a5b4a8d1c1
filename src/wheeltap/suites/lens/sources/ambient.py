"""AmbiEnt's files as tasks for language models: labels, statements, and sentences to continue.

Ambiguous inferences with their readings, for which distractors are made here; and inferences with the votes of people.

Source: Liu et al. (2023), arXiv:2304.14399.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast, final

import msgspec
import numpy as np

from wheeltap.core import seeds
from wheeltap.core.bounded import parsing
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError
from wheeltap.sources.base import DataSource, ExampleReader
from wheeltap.sources.jsonl import first, lines
from wheeltap.suites.lens.annotations import Ambiguity, AmbiguousSentence, Tokens
from wheeltap.suites.lens.specs import LABELS, TEMPLATES, Label

QUESTION: Final = "{premise}\nQuestion: {hypothesis} True, False or Neither?\nAnswer:"
"""What labels are asked by, with an answer for each: lm-eval's words for ANLI."""

ANSWERS: Final[Mapping[Label, str]] = {"entailment": " True", "neutral": " Neither", "contradiction": " False"}

STATEMENT: Final = "Q: {sentence} {template} {reading} True or False?\nA:"
"""Source: arXiv:2304.14399, app. D.2."""

OPTIONS: Final = (" False", " True")

STEM: Final = '"'
"""What comes before a sentence that is gone on from: of a base model. Source: arXiv:2304.14399, sec. 4.3."""

ENDS: Final = (".", "!", "?", '."', '!"', '?"', ".\n", ".\n\n", '."\n', '."\n\n', "!\n", "?\n", "\n", "\n\n")
"""How a sentence ends, each where a tokenizer has a token for it."""

SIDES: Final = ("premise", "hypothesis")

FIELDS: Final = frozenset({"premise", "hypothesis", "labels", "disambiguations"})
"""By which such a file is known."""

_BEFORE: Final = frozenset(str.split("the a an his her its their my our your this that some every no"))

_AFTER: Final = frozenset(
    str.split(
        "is are was were be has have had will would can could may might must of in on at to for from with by and or "
        "but that who which as than not"
    )
)
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z'-]*|[.,;:!?]")

_LEAST: Final = 3
"""Letters of a noun that is put in a sentence's place."""


@final
@dataclass(frozen=True, kw_only=True)
class Example:
    """One item.

    Attributes:
        labels: Labels that are right under some reading, the first reading's first; each once.
        readings: Of ``premise``, of ``hypothesis`` or of both, where these are ambiguous: a sentence for each, all
            different.
        distractors: For each of these, a sentence that is no reading.
    """

    id: str
    premise: str
    hypothesis: str
    labels: tuple[Label, ...]
    readings: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    distractors: Mapping[str, str] = field(default_factory=dict[str, str])

    def side(self, name: str) -> str:
        """The premise or the hypothesis."""
        return self.premise if name == "premise" else self.hypothesis


def task_of(examples: Sequence[Example], tokenizer: Tokenizer, *, name: str) -> ChoiceTask:
    """The labels of these examples as a task, with what is known of their readings.

    A benchmark of one label an item would keep that of the first reading: this is what the score counts as right.

    Raises:
        DataError: If there are no examples, or the tokenizer joins the end of a question with its answer.
    """
    if not examples:
        raise DataError("There are no examples.", where=name, expected="one item at least", got="none")
    questions = [QUESTION.format(premise=one.premise, hypothesis=one.hypothesis) for one in examples]
    labels = [answer(tokenizer, questions[0], ANSWERS[label], where=name) for label in LABELS]
    stated = STATEMENT.format(sentence="It rained.", template=TEMPLATES[0][0], reading="It rained.")
    false, true = (answer(tokenizer, stated, option, where=name) for option in OPTIONS)
    ends = [tokenizer.more(text) for text in ENDS]
    known = Ambiguity(
        sentences=tuple(_sentences(one, tokenizer) for one in examples),
        statements=tuple(_statements(one, tokenizer) for one in examples),
        options=(false, true), ends=frozenset(one[0] for one in ends if len(one) == 1),
        labels=tuple(tuple(label in one.labels for label in LABELS) for one in examples),
    )  # fmt: skip
    made = ChoiceTask(
        [tokenizer.start(question) for question in questions], [labels] * len(examples),
        [LABELS.index(one.labels[0]) for one in examples], name=name, tokens_per_batch=2048,
    )  # fmt: skip
    return made.with_annotation(known)


def answer(tokenizer: Tokenizer, question: str, option: str, *, where: str) -> Tokens:
    """The tokens of an answer after a question, where those of the question stay as they are.

    Raises:
        DataError: If the last token of the question is another one when an answer follows.
    """
    before, whole = tokenizer.start(question), tokenizer.start(question + option)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise DataError(
            "The tokenizer joins the end of a question with its answer.",
            where=where,
            expected=f"the tokens of ...{question[-9:]!r} and then those of {option!r}",
            got=f"other tokens where both are together ({len(before)} and {len(whole)}): the answer cannot be scored",
            do="Audit a model whose tokenizer splits before a space, or at a line's end.",
        )
    return tuple(whole[len(before) :])


def _sentences(one: Example, tokenizer: Tokenizer) -> tuple[AmbiguousSentence, ...]:
    def start(sentence: str) -> Tokens:
        return tuple(tokenizer.start(STEM + sentence))

    return tuple(
        AmbiguousSentence(
            side=SIDES.index(side), sentence=start(one.side(side)),
            readings=tuple(map(start, one.readings[side])), distractor=start(one.distractors[side]),
        )
        for side in SIDES
        if side in one.readings
    )  # fmt: skip


def _statements(one: Example, tokenizer: Tokenizer) -> tuple[tuple[Tokens, ...], ...]:
    """Of the premise's readings first."""
    return tuple(
        tuple(
            tuple(tokenizer.start(STATEMENT.format(sentence=one.side(side), template=template, reading=reading)))
            for template, _ in TEMPLATES
        )
        for side in SIDES
        if side in one.readings
        for reading in one.readings[side]
    )


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
    """See ``examples_in``."""

    form = "FILE.jsonl"
    title = "Lines with premise, hypothesis, labels, disambiguations: ambiguous inferences, as AmbiEnt has them."

    def fits(self, path: Path, reader: ExampleReader) -> bool:
        """By the first line, for a language model."""
        known = path.suffix == ".jsonl" and reader.tokenizer is not None and reader.classifier is None
        return known and first(path).keys() >= FIELDS

    def load(self, rest: str, reader: ExampleReader) -> ChoiceTask:
        """See ``DataSource.load``."""
        assert reader.tokenizer is not None, "it fits"
        return task_of(examples_in(Path(rest)), reader.tokenizer, name=Path(rest).stem)


class _VoteLine(msgspec.Struct, frozen=True):
    id: str | int
    premise: str
    hypothesis: str
    q0_gold: list[Label]


@final
class AmbientVotes(DataSource):
    """Inferences with the votes of people, scored by the label with most votes; those of one premise are a group."""

    form = "FILE.jsonl"
    title = "Lines with premise, hypothesis, q0_gold: inferences and people's votes, as AmbiEnt's crowd has them."

    def fits(self, path: Path, reader: ExampleReader) -> bool:
        """By the first line, for a language model."""
        known = path.suffix == ".jsonl" and reader.tokenizer is not None and reader.classifier is None
        return known and first(path).keys() >= set(_VoteLine.__struct_fields__)

    def load(self, rest: str, reader: ExampleReader) -> ChoiceTask:
        """See ``DataSource.load``."""
        assert reader.tokenizer is not None, "it fits"
        held, votes = list[Example](), list[list[int]]()
        for number, line in lines(Path(rest)):
            with parsing(
                f"{rest}: line {number}", "A line is no inference with votes.",
                expected=f'{{"id", "premise", "hypothesis", "q0_gold": [one or more of {", ".join(LABELS)}]}}',
            ):  # fmt: skip
                row = msgspec.json.decode(line, type=_VoteLine)
                votes.append([row.q0_gold.count(label) for label in LABELS])
                if not row.q0_gold:
                    raise ValueError("nobody voted")
            most = LABELS[int(np.argmax(votes[-1]))]
            held.append(Example(id=str(row.id), premise=row.premise, hypothesis=row.hypothesis, labels=(most,)))
        task = task_of(held, reader.tokenizer, name=Path(rest).stem).with_votes(votes)
        return task.with_groups([one.premise for one in held])


def examples_in(path: Path) -> list[Example]:
    """The items of a file, with distractors for their ambiguous sentences.

    Raises:
        MissingFile: If it is not there.
        FileFormatError: If a line is no such item; it is named by its number, from 1.
        DataError: If a label is none of the set, or an item is there twice.
    """
    examples = dict[str, Example]()
    for one in _read(path):
        if one.id in examples:
            raise DataError("An item is there twice.", where=str(path), expected="an id for each item", got=one.id)
        examples[one.id] = one
    nouns = lexicon([one.side(side) for one in examples.values() for side in SIDES])
    return [
        replace(one, distractors={
            side: distractor(one.side(side), nouns, name=f"{one.id} {side}") for side in one.readings
        })
        for one in examples.values()
    ]  # fmt: skip


def _read(path: Path) -> Iterator[Example]:
    """Each item, with the readings of its sides."""
    for number, line in lines(path):
        where = f"{path}: line {number}"
        with parsing(
            where, "A line is no ambiguous inference.",
            expected='{"id", "premise", "hypothesis", "labels": "entailment, neutral", "disambiguations": [...]}',
            do="Correct or remove the line; an item without a hypothesis or labels cannot be asked for labels.",
        ):  # fmt: skip
            row = msgspec.json.decode(line, type=_Line)
            rewrites = row.disambiguations
            if isinstance(rewrites, str):  # what Python prints of the list
                rewrites = msgspec.convert(ast.literal_eval(rewrites), list[_Rewrite])
        labels = _labels(row, rewrites, where)
        flags = {"premise": row.premise_ambiguous, "hypothesis": row.hypothesis_ambiguous}
        readings = {
            side: tuple(dict.fromkeys(one.premise if side == "premise" else one.hypothesis for one in rewrites))
            for side in SIDES
            if flags[side] and rewrites
        }
        yield Example(id=str(row.id), premise=row.premise, hypothesis=row.hypothesis, labels=labels, readings=readings)


def _labels(row: _Line, rewrites: list[_Rewrite], where: str) -> tuple[Label, ...]:
    """The labels of an item, each once."""
    labels = [one.strip() for one in row.labels.split(",")]
    # A label of the item that none of its rewrites has is kept: the released test items have one.
    outside = sorted({*labels, *(one.label for one in rewrites)} - set(LABELS))
    if outside:
        raise DataError("A label is not in the set.", where=where, expected=", ".join(LABELS), got=", ".join(outside))
    said = {"premise": row.premise, "hypothesis": row.hypothesis}
    for at, one in enumerate(rewrites, start=1):
        said |= {f"premise of reading {at}": one.premise, f"hypothesis of reading {at}": one.hypothesis}
    empty = [name for name, text in said.items() if not text.strip()]
    if empty:
        raise DataError("A sentence is empty.", where=where, expected="words", got=f"nothing in {', '.join(empty)}",
                        do="Give the sentence, or remove the line.")  # fmt: skip
    if rewrites and not {one.label for one in rewrites} & set(labels):
        raise DataError(
            "No reading has a label of the item.",
            where=where,
            expected=", ".join(dict.fromkeys(one.label for one in rewrites)),
            got=row.labels,
            do="Correct the labels: they are those that are right under some reading.",
        )
    return tuple(cast("list[Label]", list(dict.fromkeys(labels))))


def lexicon(sentences: Sequence[str]) -> tuple[str, ...]:
    """Words in the place of a noun somewhere: after an article or the like, before a verb, a preposition or an end."""
    several = [_WORD.findall(sentence) for sentence in sentences]
    places = (each for words in several for each in zip(words, words[1:], [*words[2:], "."], strict=False))
    return tuple(sorted({word for before, word, after in places if _is_noun(before, word, after)}))


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
