"""Models that are measured on the same examples: those of the first of them."""

from pathlib import Path
from typing import final

from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.sources.specs import load, load_model


@final
class Shared:
    """Examples that go with the first of several models, and the others, if they read them alike.

    Args:
        spec: Of the first model.
        data: The examples, where they are not its own.
        name: What it is called.

    Raises:
        WheeltapError: See ``specs.load``.
    """

    def __init__(self, spec: str, *, data: Path | None, name: str = "") -> None:
        self._first, self._data = load(spec, data=data, name=name), data

    @property
    def subject(self) -> Subject:
        """The first model."""
        return self._first.subject

    @property
    def task(self) -> BaseTask:
        """The examples."""
        return self._first.task

    def other(self, spec: str, *, name: str = "") -> Subject:
        """Another model, if it reads the examples, and gives its labels, as the first one does.

        Raises:
            UsageError: If its tokenizer gives other tokens for them, or its labels are others or in another order.
        """
        first = self._first
        if first.tokenizer is None and not first.labels:
            return load_model(spec, name=name)
        loaded = load(spec, data=self._data, name=name)
        if first.labels and loaded.labels and loaded.labels != first.labels:
            raise UsageError(
                "The two classifiers do not have the same labels, so their scores cannot be compared.",
                where=spec,
                expected=f"the labels of {first.subject.name}: {', '.join(first.labels[:20])}",
                got=", ".join(loaded.labels[:20]),
                do="Compare models with the same labels in the same order (id2label in config.json).",
            )
        if first.tokenizer is not None and loaded.task.digest != first.task.digest:
            raise UsageError(
                "The two models do not read the same tokens, so they cannot be compared example by example.",
                where=spec,
                expected=f"the tokenizer of {first.subject.name}",
                got="other tokens for the same text",
                do="Compare models that share a tokenizer, or audit each on its own.",
            )
        return loaded.subject
