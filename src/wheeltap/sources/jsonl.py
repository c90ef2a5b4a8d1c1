"""Tasks from ``.jsonl`` files: one object a line with ``context``, ``choices``, ``answer``.

Perhaps also ``group``, ``factors`` and ``votes``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast, final

import msgspec
import torch

from wheeltap.core.bounded import Line, decoded, numbered
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError
from wheeltap.core.task import Kind
from wheeltap.sources.text import Tokenizer

MAX_LINE = 1_000_000
MAX_FILE = 200_000_000
MAX_TOKENS = 8192
MAX_FACTORS = 64
"""Bounds, in bytes, tokens of one item, and factors: a mistaken file ends in a message."""


class Item(msgspec.Struct, frozen=True):
    """One line.

    Attributes:
        context: What the model reads first.
        choices: How it may go on. A choice keeps its leading space: ``" Paris"`` after ``"The capital is"``.
        answer: Index of the right choice, or its text.
        group: Name or number of what the item shares with others, a template or passage; in all lines or in none.
        behavior: Name or number of the behavior that the item is one of, where that is another; likewise.
        factors: Labels of factors, by name, for the audit ``decodable``; the same names in all lines.
        votes: How many people chose each choice, for the audit ``disagreement``; in all lines or in none.
    """

    context: str
    choices: list[str]
    answer: int | str
    group: int | str | None = None
    behavior: int | str | None = None
    factors: dict[str, int] = {}
    votes: list[int] | None = None


def load_items(path: Path, tokenizer: Tokenizer) -> ChoiceTask:
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
    notes = Notes()
    for number, line in lines(path):
        where = f"{path}: line {number}"
        item = _item(line, where)
        _require_item(item, len(choices[0]) if choices else len(item.choices), where)
        targets.append(_index(item, where))
        contexts.append(bounded(tokenizer.start(item.context), "context", where))
        notes.add({"group": item.group, "behavior": item.behavior}, item.factors, where=where)
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
    """Groups, behaviors and factors of the lines of a file, as they come."""

    def __init__(self) -> None:
        self._lines = 0
        self._labels: dict[str, list[int | str]] = {"group": [], "behavior": []}
        self._factors: list[dict[str, int]] = []

    def add(self, labels: dict[str, int | str | None], factors: dict[str, int], *, where: str) -> None:
        """Takes those of one line.

        Raises:
            DataError: If they are not of the same kind as those of the lines before.
        """
        self._lines += 1
        for name, label in labels.items():
            if label is not None:
                self._labels[name].append(label)
            _require_grouped(name, len(self._labels[name]), self._lines, where)
        self._factors.append(_same_factors(factors, self._factors[0] if self._factors else factors, where))

    def added_to(self, task: Kind) -> Kind:
        """The task of these lines, told of them."""
        numbers = dict[str, list[int]]()
        for name, labels in self._labels.items():
            known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
            numbers[name] = [known[label] for label in labels]
        task = task.with_groups(numbers["group"]) if numbers["group"] else task
        task = task.with_behaviors(numbers["behavior"]) if numbers["behavior"] else task
        labels = {name: torch.tensor([one[name] for one in self._factors]) for name in self._factors[0]}
        return task.with_factors(labels) if labels else task


def lines(path: Path) -> Iterator[Line]:
    """Number and bytes of each line that is not blank.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it or a line is too long.
    """
    return numbered(path, "data file", longest=MAX_LINE, limit=MAX_FILE, do="Check the path given with --data.")


def first(path: Path) -> dict[str, object]:
    """The object in the first line; empty where it is none."""
    try:
        held = msgspec.json.decode(next(lines(path), (0, b""))[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return cast("dict[str, object]", held) if isinstance(held, dict) else {}


def _item(line: bytes, where: str) -> Item:
    expected = 'an object such as {"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}'
    return decoded(line, Item, where, "A line is not an item.", expected=expected, do="Correct or remove the line.")


def _require_item(item: Item, options: int, where: str) -> None:
    if len(item.choices) < 2 or len(item.choices) != options:
        raise DataError(
            "An item has the wrong number of choices.",
            where=where,
            expected=f"{options} choices, as in the items before" if options > 1 else "at least 2 choices",
            got=f"{len(item.choices)} choices",
            do="Give every item the same number of choices.",
        )
    if len(set(item.choices)) != len(item.choices):
        raise DataError(
            "An item offers the same choice twice.",
            where=where,
            expected="choices that differ",
            got=str(item.choices),
        )


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


def _require_grouped(name: str, labels: int, items: int, where: str) -> None:
    if labels not in (0, items):
        raise DataError(
            f"Some items have a {name} and some have none.",
            where=where,
            expected=f"a {name} in every line, or in none",
            got=f"{labels} {name}s in {items} items so far",
            do=f"Give each item the name of its {name}, or take the {name}s out.",
        )


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
