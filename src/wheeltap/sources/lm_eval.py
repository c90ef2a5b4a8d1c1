"""Tasks of lm-eval as tasks of ours: ``lm_eval:NAME``, with lm-eval's own documents, prompts, tokens and grades.

Multiple choice graded by ``acc`` becomes a ``ChoiceTask`` wherever that scores the same; everything else a
``GradedTask``, which asks lm-eval for each document's grade.
"""

from pathlib import Path
from typing import Any, Final

from torch import nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import UsageError
from wheeltap.core.task import BaseTask
from wheeltap.sources.lm_eval_answers import Answering, Generated, Likelihoods
from wheeltap.sources.lm_eval_asked import PREFIX, Asked, asked_for
from wheeltap.sources.lm_eval_graded import GradedTask, grade_named
from wheeltap.sources.lm_eval_harness import CHOSEN, GENERATED, Harness
from wheeltap.sources.lm_eval_tokens import Encoder, Pair
from wheeltap.sources.text import HfTokenizer, Tokenizer

CHOICE: Final = "acc"
"""The metric of multiple choice that a ``ChoiceTask`` is scored by."""

_VOTES: Final = ("label_count", "votes")
"""Columns of a document that hold how many people chose each option."""


def load_task(data: Path, model: nn.Module, tokenizer: Tokenizer | None) -> BaseTask:
    """The task that ``lm_eval:NAME`` names, for a model that reads ``tokenizer``'s tokens.

    Raises:
        UsageError: If the model reads no text, or the task cannot be audited.
        MissingExtra: If lm-eval is not installed.
        DataError: If lm-eval cannot load it.
    """
    harness, answering, taught = opened(asked_for(data), model, tokenizer)
    choices = _choices(harness, answering)
    return GradedTask(harness, answering, taught, grade_named(harness)) if choices is None else choices


def opened(asked: Asked, model: nn.Module, tokenizer: Tokenizer | None) -> tuple[Harness, Answering, ChoiceTask]:
    """A task of lm-eval, how a model answers its requests, and what teaches the right answers.

    Raises:
        UsageError: If the model reads no text, or the task cannot be audited.
        MissingExtra: If lm-eval is not installed.
        DataError: If lm-eval cannot load it.
    """
    if not isinstance(tokenizer, HfTokenizer):
        raise UsageError(
            "Tasks of lm-eval are for language models.",
            where=f"{PREFIX}{asked.name}",
            expected="hf:DIR, gguf:FILE or smollm2",
            got="a model without a tokenizer",
            do="Give examples of another kind with --data.",
        )
    harness = Harness(asked)
    encoder = Encoder(tokenizer.raw, getattr(model, "config", None), where=harness.name)
    texts = [harness.right(row) for row in harness.rows]
    if harness.kind == GENERATED:
        answering: Answering = Generated(encoder, harness)
        right, more = [encoder.separately(*text) for text in texts], list[tuple[int, ...]]()
    else:
        right = [encoder.shortened(pair) for pair in encoder.pairs(texts)]
        answering = Likelihoods.of(encoder, harness)
        more = [context + option[:-1] for pairs in answering.pairs for context, option in pairs]
    taught = ChoiceTask(
        [context for context, _ in right], [[option, option] for _, option in right], [0] * len(right),
        name=harness.name, more=[row for row in more if row],
    )  # fmt: skip
    return harness, answering, taught


def _choices(harness: Harness, answering: Answering) -> ChoiceTask | None:
    """The items as a ``ChoiceTask``; ``None`` where that would score otherwise than lm-eval does.

    So where options are of different numbers or contexts, several are right, or lm-eval cuts a context from the left.
    """
    fits = harness.kind == CHOSEN and harness.metric == CHOICE and harness.plain
    if not isinstance(answering, Likelihoods) or not fits:
        return None
    rights = [harness.right_option(row) for row in harness.rows]
    counts = [len(harness.options(row)) for row in harness.rows]
    if None in rights or len(set(counts)) > 1 or counts[0] < 2 or answering.cut:
        return None
    items = [pairs[: counts[0]] for pairs in answering.pairs]
    if any(len({context for context, _ in pairs}) > 1 for pairs in items):
        return None
    task = ChoiceTask(
        [pairs[0][0] for pairs in items], [[option for _, option in pairs] for pairs in items],
        [right for right in rights if right is not None], name=harness.name,
    )  # fmt: skip
    votes = [_votes(doc, counts[0]) for doc in harness.documents]
    return task.with_votes(votes) if all(votes) else task


def _votes(doc: dict[str, Any], options: int) -> list[int]:
    """How many people chose each option, where the document says so; else nothing."""
    for name in _VOTES:
        given: Any = doc.get(name)
        if isinstance(given, list) and len(given) == options and all(type(one) is int for one in given):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            return given if any(given) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return []


__all__ = ["PREFIX", "Asked", "Pair", "asked_for", "load_task", "opened"]
