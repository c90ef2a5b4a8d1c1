"""Tasks from ``.jsonl`` files, one object a line.

For language models with ``context``, ``choices``, ``answer``, perhaps also ``group``, ``factors`` and ``votes``; for
classifiers with ``text`` and ``label``, perhaps also ``text_pair``, ``group`` and ``factors``.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import msgspec
import torch
from torch import Tensor

from wheeltap.core.bounded import Line, decoded, numbered
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.inputs import require_short
from wheeltap.core.repeats import is_id, shared_ids
from wheeltap.core.task import BaseTask, Kind, Task
from wheeltap.core.typed import to_tensor
from wheeltap.sources import hf
from wheeltap.sources.base import DataSource, ExampleReader
from wheeltap.sources.hf import HfClassifier, suited

MAX_LINE = 1_000_000
MAX_FILE = 200_000_000
MAX_TOKENS = 8192
MAX_FACTORS = 64
"""Bounds, in bytes, tokens of one item, and factors: a mistaken file ends in a message."""

_ARGUMENTS = ("input_ids", "attention_mask", "token_type_ids")


@final
class JsonLines(DataSource):
    """Items for language models, texts for classifiers."""

    form = "FILE.jsonl"
    title = "Lines with context, choices, answer for a language model; with text, label for a classifier of texts."
    takes_groups = True

    def load(self, rest: str, reader: ExampleReader) -> BaseTask:
        """See ``DataSource.load``."""
        path, classifier = Path(rest), reader.classifier
        if classifier is not None and classifier.reads == "text":
            return suited(load_texts(path, classifier, groups=reader.groups), classifier)
        if reader.tokenizer is None:
            raise UsageError(
                "Text cannot be read by this model.",
                where=str(path),
                expected="an .npz file with arrays inputs and targets",
                got="a .jsonl file for a model without a tokenizer",
                do="Use hf:DIR, gguf:FILE or smollm2 for language models; hf:DIR for classifiers of texts.",
            )
        return load_items(path, reader.tokenizer, groups=reader.groups)


class LineNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What a line may say of an item or text.

    Attributes:
        group: Name or number of what it shares with others, a template or passage; in all lines or in none.
        behavior: Name or number of the behavior that it is one of, where that is another; likewise.
        factors: Labels of factors, by name, for the audit ``decodable``; the same names in all lines.
    """

    group: int | str | None = None
    behavior: int | str | None = None
    factors: dict[str, int] = {}


class Item(LineNotes, frozen=True, kw_only=True):
    """One line.

    Attributes:
        choices: How it may go on. A choice keeps its leading space: ``" Paris"`` after ``"The capital is"``.
        answer: Index of the right choice, or its text.
        votes: How many people chose each choice, for the audit ``disagreement``; in all lines or in none.
    """

    context: str
    choices: list[str]
    answer: int | str
    votes: list[int] | None = None


def load_items(path: Path, tokenizer: Tokenizer, *, groups: str = "groups") -> ChoiceTask:
    """A task of the items in ``path``, scored by the summed log-likelihood of each choice's tokens.

    Context and choice are tokenized separately, so that the context's tokens are always the first of the whole and
    every choice is judged after the same ones. A choice that should follow a space starts with it.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If a line is not an item; it is named by its number, from 1.
        DataError: If there are no items, an answer is none of the choices, or the file is too large.
    """
    contexts: list[list[int]] = []
    choices: list[list[list[int]]] = []
    targets: list[int] = []
    votes: list[list[int]] = []
    notes = Notes(groups)
    for number, line in lines(path):
        where = f"{path}: line {number}"
        item = decoded(
            line, Item, where, "A line is not an item.",
            expected='an object such as {"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}',
            do="Correct or remove the line.",
        )  # fmt: skip
        options = len(choices[0]) if choices else len(item.choices)
        if len(item.choices) < 2 or len(item.choices) != options:
            raise DataError(
                "An item has the wrong number of choices.",
                where=where,
                expected=f"{options} choices, as in the items before" if options > 1 else "at least 2 choices",
                got=f"{len(item.choices)} choices",
                do="Give every item the same number of choices.",
            )
        if len(set(item.choices)) != len(item.choices):
            what, expected = "An item offers the same choice twice.", "choices that differ"
            raise DataError(what, where=where, expected=expected, got=str(item.choices))
        targets.append(_index(item, where))
        contexts.append(bounded(tokenizer.start(item.context), "context", where))
        notes.add(item, line, where=where)
        votes += _voted(item, voted=len(votes), before=len(targets) - 1, where=where)
        choices.append([bounded(tokenizer.more(choice), "choice", where) for choice in item.choices])
    if not targets:
        raise DataError(
            "The data file is empty.",
            where=str(path),
            expected='lines such as {"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}, or plain texts such '
            'as {"text": "...", "twin": "..."}',
            got="no items",
            do="Write one object a line; docs/lens.md says which audit reads which.",
        )
    task = notes.added_to(ChoiceTask(contexts, choices, targets, name=path.stem))
    return task.with_votes(votes) if votes else task


@final
class Notes:
    """Groups, behaviors and factors of the lines of a file, as they come.

    Args:
        groups: Name of the field that gives the groups; by default ``group``, or else what by its name is an id.
    """

    def __init__(self, groups: str) -> None:
        self._lines = 0
        self._field = "" if groups == "groups" else groups
        self._labels: dict[str, list[int | str]] = {"group": [], "behavior": []}
        self._ids: dict[str, list[int | str]] = {}
        self._factors: list[dict[str, int]] = []

    def add(self, line: LineNotes, data: bytes, *, where: str) -> None:
        """Takes those of one line.

        Args:
            line: What was read of it.
            data: The line itself.
            where: Which line it is.

        Raises:
            DataError: If they are not of the same kind as those of the lines before.
        """
        fields: dict[str, object] = {}
        if self._field or self._ids or not self._lines:  # a second reading, where a field may be needed
            fields = msgspec.json.decode(data)
        if not self._lines and not self._field and line.group is None:
            self._ids = {name: [] for name in fields if is_id(name) and name not in line.__struct_fields__}
        self._ids = {name: ids for name, ids in self._ids.items() if isinstance(fields.get(name), int | str)}
        for name, ids in self._ids.items():
            ids.append(cast("int | str", fields[name]))
        labels = {"group": fields.get(self._field) if self._field else line.group, "behavior": line.behavior}
        self._lines += 1
        for name, known in self._labels.items():
            label = labels[name]
            if isinstance(label, int | str):
                known.append(label)
            if (count := len(known)) != self._lines and (count or (self._field and name == "group")):
                noun = self._field if self._field and name == "group" else name
                raise DataError(
                    f"Some items have a {noun} and some have none.",
                    where=where,
                    expected=f"a {noun}, a name or whole number, in every line{'' if self._field else ', or in none'}",
                    got=f"{count} {noun}s in {self._lines} items so far",
                    do=f"Give each item the name of its {noun}, or take the {noun}s out.",
                )
        self._factors.append(_same_factors(line.factors, self._factors[0] if self._factors else line.factors, where))

    def added_to(self, task: Kind) -> Kind:
        """The task of these lines, with what was taken of them."""
        numbers = dict[str, list[int]]()
        for name, labels in self._labels.items():
            known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
            numbers[name] = [known[label] for label in labels]
        if numbers["group"]:
            task = task.with_groups(numbers["group"])
        elif (ids := shared_ids(self._ids)) is not None:
            task = task.with_noticed(to_tensor(ids[1]), f"have the same {ids[0]}")
        task = task.with_behaviors(numbers["behavior"]) if numbers["behavior"] else task
        labels = {name: torch.tensor([one[name] for one in self._factors]) for name in self._factors[0]}
        return task.with_factors(labels) if labels else task


def lines(path: Path) -> Iterator[Line]:
    """Number and bytes of each line that is not blank.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it or a line is too long.
    """
    return numbered(path, "data file", longest=MAX_LINE, limit=MAX_FILE, do="Check the path that was given.")


def first(path: Path) -> dict[str, object]:
    """The object in the first line; empty where it is none."""
    try:
        held = msgspec.json.decode(next(lines(path), (0, b""))[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return cast("dict[str, object]", held) if isinstance(held, dict) else {}


def _voted(item: Item, *, voted: int, before: int, where: str) -> list[list[int]]:
    """The votes on an item, if there are any; ``voted`` of the items ``before`` have some."""
    if voted != (0 if item.votes is None else before):
        raise DataError(
            "Some items have votes and some have none.",
            where=where,
            expected="votes in every line, or in none",
            got=f"{voted} of {before} items before, and {'none' if item.votes is None else 'some'} here",
            do="Give each item the votes of people, or leave them out.",
        )
    if item.votes is not None and len(item.votes) != len(item.choices):
        raise DataError(
            "An item has votes on another number of choices.",
            where=where,
            expected=f"{len(item.choices)} counts, in the order of the choices",
            got=f"{len(item.votes)} counts",
        )
    return [] if item.votes is None else [item.votes]


def _same_factors(factors: dict[str, int], first: dict[str, int], where: str) -> dict[str, int]:
    """An item's factors, if they are those of the first item, not too many, and of numbers that fit."""
    if len(factors) > MAX_FACTORS:
        raise DataError(
            "An item has too many factors.",
            where=where,
            expected=f"at most {MAX_FACTORS}",
            got=str(len(factors)),
            do="Keep those you want to ask about.",
        )
    if factors.keys() != first.keys():
        raise DataError(
            "An item has other factors than the first one.",
            where=where,
            expected=", ".join(list(first)[:8]) or "no factors",
            got=", ".join(list(factors)[:8]) or "no factors",
            do="Give every item a label of each factor, or leave the factor out.",
        )
    for name, label in factors.items():
        if not -(2**63) <= label < 2**63:
            raise DataError(
                "A label of a factor is too large a number.",
                where=f"{where}: {name}",
                expected="a whole number of at most 64 bits",
                got=f"{len(str(label))} digits",
                do="Number the factor's values from 0.",
            )
    return factors


def _index(item: Item, where: str) -> int:
    if isinstance(item.answer, int) and 0 <= item.answer < len(item.choices):
        return item.answer
    if isinstance(item.answer, str) and item.answer in item.choices:
        return item.choices.index(item.answer)
    raise DataError(
        "An answer is none of the choices.",
        where=where,
        expected=f"an index from 0 to {len(item.choices) - 1}, or the text of one of {item.choices}",
        got=repr(item.answer),
        do="Count from 0; a text must equal its choice to the letter, spaces included.",
    )


def bounded(ids: list[int], what: str, where: str) -> list[int]:
    """These tokens, if there are some and not too many.

    Raises:
        DataError: If not.
    """
    if not 0 < len(ids) <= MAX_TOKENS:
        raise DataError(
            f"A {what} has no tokens." if not ids else f"A {what} is too long.",
            where=where,
            expected=f"1 to {MAX_TOKENS} tokens",
            got=f"{len(ids)} tokens",
        )
    return ids


# ---- texts with labels, for classifiers ----------------------------------------------------------------------------


class LabeledText(LineNotes, frozen=True, kw_only=True):
    """One line.

    Attributes:
        label: Number or name of the right label; of a model with one output, the number it should give.
        text_pair: The second text of a pair; in all lines or in none.
    """

    text: str
    label: int | float | str
    text_pair: str | None = None


def load_texts(path: Path, classifier: HfClassifier, *, groups: str = "groups") -> Task:
    """A task of the texts in ``path``: tokenized, filled up to the longest, with an attention mask.

    Labels may be the names in the classifier's config (``id2label``).

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If a line is no text with a label; it is named by its number, from 1.
        UsageError: If the model has no tokenizer.
        DataError: If there are no texts, one is longer than the model can read, or a label is none of the model's.
    """
    if classifier.tokenizer is None:
        raise UsageError(
            "Text cannot be read by this model.",
            where=str(path),
            expected="a tokenizer beside the model, or an .npz file with input_ids, attention_mask and targets",
            got="a .jsonl file, and a folder without a tokenizer",
            do="Save it beside the model: tokenizer.save_pretrained(folder).",
        )
    texts: list[LabeledText] = []
    targets: list[float] = []
    notes = Notes(groups)
    for number, line in lines(path):
        where = f"{path}: line {number}"
        text = decoded(
            line, LabeledText, where, "A line is no text with a label.",
            expected='an object such as {"text": "Fine.", "label": 1}',
            do="Correct or remove the line; items with choices are for language models.",
        )  # fmt: skip
        if texts and (text.text_pair is None) != (texts[0].text_pair is None):
            raise DataError(
                "Some texts have a second one and some have none.",
                where=where,
                expected="text_pair in every line, or in none",
                got="a line without text_pair" if text.text_pair is None else "a line with text_pair",
            )
        targets.append(_target(text.label, classifier.labels, where))
        notes.add(text, line, where=where)
        texts.append(text)
    if not texts:
        raise DataError(
            "The data file is empty.",
            where=str(path),
            expected='lines such as {"text": "Fine.", "label": 1}',
            got="no texts",
        )
    inputs = _tokens(texts, classifier, path)
    outputs = torch.tensor(targets)
    wanted = outputs.reshape(-1, 1) if len(classifier.labels) == 1 else outputs.long()
    return notes.added_to(Task(inputs, wanted, name=path.stem))


def _target(label: float | str, labels: Sequence[str], where: str) -> float:
    """The number of a label; of a model with one output, what it should give."""
    if len(labels) == 1 and not isinstance(label, str):
        return float(label)
    if isinstance(label, str) and len(labels) > 1 and label in labels:
        return labels.index(label)
    if isinstance(label, int) and 0 <= label < len(labels):
        return label
    names = ", ".join(map(repr, labels[:20])) + (", ..." if len(labels) > 20 else "")
    raise DataError(
        "A label is none of the model's.",
        where=where,
        expected=f"a number from 0 to {len(labels) - 1}, or one of {names}" if len(labels) > 1 else "a number",
        got=repr(label),
        do="Count from 0; a name must equal that in the model's config.json (id2label) to the letter.",
    )


def _tokens(texts: Sequence[LabeledText], classifier: HfClassifier, path: Path) -> dict[str, Tensor]:
    """What the model is called with, filled up to the longest text."""
    raw = classifier.tokenizer
    firsts = [text.text for text in texts]
    seconds = None if texts[0].text_pair is None else [text.text_pair for text in texts]
    transformers = hf.library(needed_for=str(path))
    with hf.translated(transformers, path, "tokenizer's text"):
        encoded: Mapping[str, Any] = raw(firsts, seconds, padding=False, truncation=False)
    ids: list[list[int]] = encoded["input_ids"]
    empty = next((at for at, one in enumerate(ids) if not one), None)
    if empty is not None:
        raise DataError(
            "A text has no tokens.", where=f"{path}: text {empty + 1}", expected="one token at least", got="0",
            do="Write a text there, or remove its line.",
        )  # fmt: skip
    require_short(classifier.subject.model, map(len, ids), where=str(path), what="text")
    if raw.pad_token_id is None and len({len(one) for one in ids}) > 1:
        raise DataError(
            "The tokenizer cannot fill up texts to one length.",
            where=str(path),
            expected="a padding token in the tokenizer and in the model's config",
            got="none",
            do="Set tokenizer.pad_token and model.config.pad_token_id as in training, and save both again.",
        )
    arguments = inspect.signature(classifier.subject.model.forward).parameters
    known = {name: encoded[name] for name in _ARGUMENTS if name in encoded and name in arguments}
    if raw.pad_token_id is None:
        return {name: torch.tensor(rows) for name, rows in known.items()}
    with hf.translated(transformers, path, "tokenizer's text"):
        padded: Mapping[str, Any] = raw.pad(known, padding="longest", return_tensors="pt")
    return {name: padded[name] for name in padded}
