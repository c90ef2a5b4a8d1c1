"""Specs: the short names by which models and data are asked for, and what models are called by default."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from wheeltap.core.choices import Tokenizer
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.sets import JoinedTask
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.sources.base import (
    AND,
    CALLABLE,
    CODE,
    GROUPED_BY,
    ExampleReader,
    LoadedModel,
    addressed,
    model_forms,
    models,
    refuse_pickle,
    source_of_file,
)
from wheeltap.sources.base import data as sources_of_data

_ENDINGS: Final = ("onnx", "tflite")
"""Endings of files that say their kind by themselves."""


@dataclass(frozen=True)
class LoadedPair:
    """What a spec gives.

    Attributes:
        tokenizer: Where the model reads text: examples are the same for another model only if it reads the same tokens.
        labels: Names of a classifier's labels, where it has any.
    """

    subject: Subject
    task: BaseTask
    tokenizer: Tokenizer | None = None
    labels: tuple[str, ...] = ()


def load(spec: str, *, data: str | Path | None = None, name: str = "") -> LoadedPair:
    """The subject and task that ``spec`` names.

    Args:
        spec: One of ``wheeltap list models``; ``module:callable`` is a function without arguments that gives a module,
            or a module and a task; found from the current folder too.
        data: One of ``wheeltap list data`` to task with, such as a file, instead of the model's own task (test digits;
            subject-verb agreement for language models).
        name: Of the subject; by default see ``names_of``.

    Raises:
        UnknownName: If nothing has this name.
        UsageError: If the model brings no task and there is no ``data``.
        FileFormatError: If a file is a pickle or is damaged.
        MissingFile: If a file is not there.
    """
    model = _model(spec, name)
    classifier = model.classifier
    if data is not None:
        task = _examples(os.fspath(data), ExampleReader(model.tokenizer, classifier, model.subject.model))
        return LoadedPair(model.subject, task, model.tokenizer, () if classifier is None else classifier.names)
    if model.own is not None:
        return LoadedPair(model.subject, model.own(), model.tokenizer)
    if classifier is not None:
        raise UsageError(
            "There are no examples to test this classifier with.",
            where=spec,
            expected="data",
            got=f"a classifier of {classifier.reads}s alone",
            do=classifier.wanted,
        )
    raise UsageError(
        "There are no examples to test this model with.",
        where=spec,
        expected="data, or a callable that gives a model and a task",
        got="a model alone",
        do="Give --data FILE.npz (arrays inputs, targets) or FILE.jsonl (context, choices, answer).",
    )


def load_model(spec: str, *, name: str = "") -> Subject:
    """The subject alone; see ``load``."""
    return _model(spec, name).subject


def load_task(data: str | Path, *, tokenizer: Tokenizer | None = None) -> BaseTask:
    """Examples by themselves: one of ``wheeltap list data``, with the tokenizer of a language model if they are text.

    Raises:
        UnknownName: If nothing has this name.
        UsageError: If a file's name ends otherwise, or what is named is text without a tokenizer, or gives no task.
        MissingFile: If a file is not there.
        FileFormatError: If it is a pickle, or not what its name says.
    """
    return _examples(os.fspath(data), ExampleReader(tokenizer))


def _examples(text: str, reader: ExampleReader) -> BaseTask:
    if AND in text and not os.path.exists(text):
        return JoinedTask([_examples(one, reader) for one in text.split(AND)])
    name, separator, column = text.rpartition(GROUPED_BY)
    if separator and not os.path.exists(text):
        text, reader = name, replace(reader, groups=column)
    source, rest = addressed(text) or (None, text)
    if source is None:
        path = Path(text)
        if not path.suffix and not os.path.exists(path):
            raise UnknownName("set of examples", text, [sources_of_data.get(name).form for name in sources_of_data])
        source = source_of_file(path, reader)
    if separator and not source.takes_groups:
        raise UsageError(
            "These examples have no columns, so none can be their groups.", where=f"--groups {column}",
            expected="--data FILE.npz or FILE.jsonl", got=text, do="From Python: wt.Task(..., groups=[...]).",
        )  # fmt: skip
    return source.load(rest, reader)


def located(text: str) -> str:
    """The name of examples as a plan keeps it: a file by its whole path, also behind the name of a source."""
    if AND in text and not os.path.exists(text):
        return AND.join(map(located, text.split(AND)))
    if addressed(text) is None:
        return str(Path(text).resolve())
    kind, _, rest = text.partition(":")
    path, comma, settings = rest.partition(",")
    return f"{kind}:{Path(path).resolve()}{comma}{settings}" if os.path.isfile(path) else text


def _with_kind(spec: str) -> str:
    """What was asked for, with its kind where the ending of a path is one."""
    ending = Path(spec).suffix.removeprefix(".").lower()
    return f"{ending}:{spec}" if ending in _ENDINGS and spec.partition(":")[0] not in models else spec


def _model(spec: str, name: str) -> LoadedModel:
    spec = _with_kind(spec)
    kind, _, rest = spec.partition(":")
    name = name or names_of([spec])[0]
    if kind in models:
        source = models.get(kind)()
        if source.form == spec or (source.form.startswith(f"{kind}:") and rest):
            return source.load(rest, name=name)
    refuse_pickle(Path(spec))
    if kind.endswith(".py") or kind in models or not CALLABLE.fullmatch(spec):
        _refuse_path(spec)
        raise UnknownName("model", spec, model_forms())
    return models.get(CODE)().load(spec, name=name)


def _refuse_path(spec: str) -> None:
    """Raises ``UsageError`` for a path, or a Python module without a callable; it says what is asked for instead."""
    path = Path(spec).expanduser()
    name, _, function = spec.partition(":")
    if name.endswith(".py") or (name and os.path.isfile(f"{name}.py")):
        module = name.removesuffix(".py").replace("/", ".")
        raise UsageError(
            "A model of your own is named by its module and a function in it.",
            where=spec,
            expected="module:callable, without .py",
            got="a file" if name.endswith(".py") else "a module alone",
            do=f"wheeltap audit {module}:{function or 'FUNCTION'}",
        )
    if path.suffix in (".npz", ".jsonl", ".txt") and os.path.isfile(path):
        raise UsageError(
            "A file of examples is no model.",
            where=spec,
            expected=", ".join(model_forms()),
            got="a data file",
            do=f"wheeltap audit MODEL --data {spec}",
        )
    if path.suffix == ".gguf" or (spec and os.path.exists(path)):
        prefix = "gguf" if path.suffix == ".gguf" else "hf"
        raise UsageError(
            "A model in a file or folder needs its kind before its path.",
            where=spec,
            expected=", ".join(model_forms()),
            got="a path",
            do=f"wheeltap audit {prefix}:{spec}",
        )


@final
class SharedExamples:
    """Models that are measured on the same examples: those of the first of them, or others where ``data`` names them.

    Raises:
        WheeltapError: See ``load``.
    """

    def __init__(self, spec: str, *, data: str | Path | None, name: str = "") -> None:
        self._first, self._data = load(spec, data=data, name=name), data
        self.subject, self.task = self._first.subject, self._first.task

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


def names_of(specs: Sequence[str]) -> tuple[str, ...]:
    """Names of models from their specs: the shortest that tell them apart.

    A folder or file is called as itself (``final``), and where another has that name too, with as many of the folders
    around it as it takes (``runA-final``, ``runB-final``). Of several callables each is called without its module
    where that tells them apart; one alone is called ``module:callable``. Any other spec is its own name. A spec that
    comes again is numbered: ``digits``, ``digits-2``.
    """
    levels = [_levels(spec, alone=len(specs) == 1) for spec in specs]
    names: list[str] = []
    for own in levels:
        others = [other for other in levels if other != own]
        apart = (
            name for level, name in enumerate(own) if all(other[min(level, len(other) - 1)] != name for other in others)
        )
        names.append(next(apart, own[0]))
    made: list[str] = []
    for name in names:
        fresh, count = name, 1
        while fresh in made or (count > 1 and fresh in names):
            count += 1
            fresh = f"{name}-{count}"
        made.append(fresh)
    return tuple(made)


def _levels(spec: str, *, alone: bool) -> tuple[str, ...]:
    """The names that a spec may get, the shortest first."""
    spec = _with_kind(spec)
    kind, _, rest = spec.partition(":")
    place = models.get(kind).place if kind in models and rest else ""
    if place:
        path = Path(os.path.abspath(Path(rest).expanduser()))
        inner = (path.name if place == "folder" or path.is_dir() else path.stem) or spec
        places = [inner, *(parent.name for parent in path.parents if parent.name)]
        return tuple("-".join(reversed(places[:count])) for count in range(1, len(places) + 1))
    return (rest, spec) if CALLABLE.fullmatch(spec) and not alone else (spec,)
