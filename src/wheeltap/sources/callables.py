"""Models from the user's own code: ``module:callable``, imported like Python would from the current folder."""

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast, final

from torch import nn

from wheeltap.core.errors import DataError, MissingFile, ModelError, UsageError, WheeltapError
from wheeltap.core.generated import OwnTokenizer
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.sources.base import CODE, DataSource, ExampleReader, LoadedModel, ModelSource, is_model, models
from wheeltap.sources.examples import task_of


@final
class CallableModels(ModelSource):
    """What ``module:callable`` gives: a module, perhaps with a task or a tokenizer. The subject is called as it."""

    form = CODE
    title = "Your own: a function that gives a torch module, or a module and a task, or a module and its tokenizer."

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``.

        Raises:
            MissingFile: If the Python module cannot be found.
            UsageError: If it has no such callable.
            ModelError: If the callable gives something else, or a model that is not fit for an audit.
        """
        model, task = _parts(found(rest, lambda one: one()))
        tokenizer = OwnTokenizer(task) if callable(getattr(task, "decode", None)) else None
        data = model.data if isinstance(model, Subject) else ()
        model = model.model if isinstance(model, Subject) else model
        if not isinstance(model, nn.Module) or not (task is None or tokenizer or isinstance(task, BaseTask)):
            raise ModelError(
                "The callable does not give a model.",
                where=rest,
                expected="a torch.nn.Module, or a pair of one and a wheeltap Task, or a tokenizer (encode and decode)",
                got=type(model).__name__ if task is None else f"({type(model).__name__}, {type(task).__name__})",
                do="Return the module in eval mode: def model(): ...; return net.eval()",
            )
        subject = Subject(model, name=name or rest, data=data)
        return LoadedModel(subject, (lambda: task) if isinstance(task, BaseTask) else None, tokenizer)


@final
class CallableData(DataSource):
    """The task that ``module:callable`` gives, by itself or beside a model."""

    form = CODE
    title = "Your own: a function that gives a task, a torch module and a task, or what a task is made of."

    def runs_code(self, rest: str) -> bool:
        """Always."""
        return True

    def load(self, rest: str, reader: ExampleReader) -> BaseTask:
        """See ``DataSource.load``.

        Raises:
            MissingFile: If the Python module cannot be found.
            UsageError: If it has no such callable.
            DataError: If no task can be made of what the callable gives.
            ModelError: If the callable fails.
        """
        made = found(rest, lambda one: one())
        model, task = _parts(made)
        if isinstance(task, BaseTask):
            return task
        if isinstance(model, nn.Module):
            raise DataError(
                "The callable gives a model without examples.", where=rest,
                expected="a pair (inputs, targets) of tensors or arrays, a Dataset, or a wheeltap Task",
                got=type(model).__name__, do="Give the examples: def data(): ...; return inputs, targets",
            )  # fmt: skip
        try:
            return task_of(made)
        except DataError as error:
            raise error.at(rest) from error


def found(spec: str, use: Callable[[Any], object] = lambda one: one) -> Any:
    """What ``module:callable`` names, or what ``use`` makes of it.

    Raises:
        MissingFile: If the Python module cannot be found.
        UsageError: If it has no such callable.
        ModelError: If its code fails.
    """
    path, _, attribute = spec.partition(":")
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        return use(_found(spec, path, attribute))
    except WheeltapError:
        raise
    except (Exception, SystemExit) as error:
        # A module that is a script may end the process when it is imported: its exit code would pass for ours.
        raise ModelError(
            f"The code of {spec} failed.",
            where=spec,
            got=f"{type(error).__name__}: {error}",
            do="Call it from Python to see where; the error above is its own.",
        ) from error
    finally:
        sys.path[:] = before


def _parts(made: object) -> tuple[object, object]:
    """Model and task; whatever is not a pair counts as the model, for the check to refuse."""
    parts = cast("tuple[object, ...]", made) if isinstance(made, tuple) else (made,)
    return (parts[0], parts[1]) if len(parts) == 2 else (cast("object", made), None)


def require_module(spec: str) -> None:
    """Raises ``MissingFile`` if the package of a model ``module:callable`` cannot be found; nothing is imported."""
    path, _, attribute = spec.partition(":")
    top, known = path.partition(".")[0], path in models or not (attribute and is_model(spec))
    if not known and PathFinder.find_spec(top, [str(Path.cwd()), *sys.path]) is None:
        raise _missing(spec, path, top)


def _missing(spec: str, path: str, absent: str) -> MissingFile:
    return MissingFile(
        "The Python module of the model is not there.",
        where=spec,
        expected=f"a module {path!r} that can be imported from {Path.cwd()}",
        got=f"no module named {absent!r}",
        do="Run wheeltap in the folder that holds it, or install it.",
    )


def _found(spec: str, path: str, attribute: str) -> Any:
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise _missing(spec, path, error.name) from error
    target: Any = module
    for name in attribute.split("."):
        target = getattr(target, name, None)
    if not callable(target):
        raise UsageError(
            "The Python module has no such callable.",
            where=spec,
            expected=f"a function {attribute!r} in {module.__file__ or path}",
            got="nothing of that name" if target is None else type(target).__name__,
            do="Name a function without arguments that returns the model: module:function.",
        )
    return target
