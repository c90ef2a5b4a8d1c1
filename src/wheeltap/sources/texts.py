"""Tasks for classifiers of texts, from ``.jsonl`` files: one object a line with ``text`` and ``label``.

Perhaps also ``text_pair``, ``group`` and ``factors``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from wheeltap.core import lengths
from wheeltap.core.bounded import decoded
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.task import Task
from wheeltap.sources import hf
from wheeltap.sources.classifiers import Classifier
from wheeltap.sources.jsonl import Notes, lines

_ARGUMENTS = ("input_ids", "attention_mask", "token_type_ids")


class Text(msgspec.Struct, frozen=True):
    """One line.

    Attributes:
        text: What is classified.
        label: Number or name of the right label; of a model with one output, the number it should give.
        text_pair: The second text of a pair; in all lines or in none.
        group: Name or number of what the text shares with others, a template or passage; in all lines or in none.
        behavior: Name or number of the behavior that the text is one of, where that is another; likewise.
        factors: Labels of factors, by name, for the audit ``decodable``; the same names in all lines.
    """

    text: str
    label: int | float | str
    text_pair: str | None = None
    group: int | str | None = None
    behavior: int | str | None = None
    factors: dict[str, int] = {}


def load_texts(path: Path, classifier: Classifier) -> Task:
    """A task of the texts in ``path``: tokenized, filled up to the longest, with an attention mask.

    Args:
        path: The file.
        classifier: A classifier of texts with its tokenizer: labels may be the names in its config (``id2label``).

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
    texts: list[Text] = []
    targets: list[float] = []
    notes = Notes()
    for number, line in lines(path):
        where = f"{path}: line {number}"
        text = _text(line, where)
        _require_paired(text, texts[0] if texts else text, where)
        targets.append(_target(text.label, classifier.labels, where))
        notes.add({"group": text.group, "behavior": text.behavior}, text.factors, where=where)
        texts.append(text)
    if not texts:
        raise DataError(
            "The data file is empty.",
            where=str(path),
            expected='lines such as {"text": "Fine.", "label": 1}',
            got="no texts",
        )
    inputs = _tokens(texts, classifier, path)
    task = Task(inputs, _targets(targets, classifier.labels), name=path.stem)
    return notes.added_to(task)


def _text(line: bytes, where: str) -> Text:
    return decoded(
        line, Text, where, "A line is no text with a label.",
        expected='an object such as {"text": "Fine.", "label": 1}',
        do="Correct or remove the line; items with choices are for language models.",
    )  # fmt: skip


def _require_paired(text: Text, first: Text, where: str) -> None:
    if (text.text_pair is None) != (first.text_pair is None):
        raise DataError(
            "Some texts have a second one and some have none.",
            where=where,
            expected="text_pair in every line, or in none",
            got="a line with text_pair" if first.text_pair is None else "a line without text_pair",
        )


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


def _targets(targets: list[float], labels: Sequence[str]) -> Tensor:
    if len(labels) == 1:
        return torch.tensor(targets).reshape(-1, 1)
    return torch.tensor([int(target) for target in targets])


def _tokens(texts: Sequence[Text], classifier: Classifier, path: Path) -> dict[str, Tensor]:
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
        raise DataError("A text has no tokens.", where=f"{path}: text {empty}", expected="one token at least", got="0")
    lengths.require_short(classifier.subject.model, map(len, ids), where=str(path), what="text")
    if raw.pad_token_id is None and len({len(one) for one in ids}) > 1:
        raise DataError(
            "The tokenizer cannot fill up texts to one length.",
            where=str(path),
            expected="a padding token in the tokenizer and in the model's config",
            got="none",
            do="Set tokenizer.pad_token and model.config.pad_token_id as in training, and save both again.",
        )
    known = {name: encoded[name] for name in _ARGUMENTS if name in encoded and name in classifier.arguments}
    if raw.pad_token_id is None:
        return {name: torch.tensor(rows) for name, rows in known.items()}
    with hf.translated(transformers, path, "tokenizer's text"):
        padded: Mapping[str, Any] = raw.pad(known, padding="longest", return_tensors="pt")
    return {name: padded[name] for name in padded}
