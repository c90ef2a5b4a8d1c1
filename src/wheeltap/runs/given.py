"""What a user gives in place of a subject and a task: a bare module, tensors, arrays, a Dataset or a DataLoader."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import nn

from wheeltap.core import measure
from wheeltap.core.errors import UsageError
from wheeltap.core.sets import JoinedTask
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.sources import callables
from wheeltap.sources.base import CALLABLE

Model = Subject | nn.Module
"""A subject, or a module in eval mode that one is made of."""


def subjects_of(given: Model | Sequence[Model], *, names: Sequence[str] = ()) -> list[Subject]:
    """Subjects of what was given; a subject stays the one that it is.

    Args:
        given: Subjects and bare modules, or one of them.
        names: Of each; by default a module is called as its class, several of one class are numbered.

    Raises:
        UsageError: If there are not as many names, a subject has a name already, or a model is given by its spec.
        ModelError: If a module cannot be a subject: see ``Subject``.
    """
    # Anything else than a list or tuple is meant as one model: what it lacks is said of it, and not of its parts.
    several: list[Any] = list(cast("Sequence[Any]", given)) if isinstance(given, list | tuple) else [given]
    if isinstance(names, str) or (names and len(names) != len(several)):
        raise UsageError(
            "There are not as many names as models.",
            where="names",
            expected=f"{len(several)} names",
            got=repr(names) if isinstance(names, str) else ", ".join(names),
            do="Give a list with one name for each model, in the same order.",
        )
    taken = [one.name for one in several if isinstance(one, Subject)]
    made: list[Subject] = []
    for at, one in enumerate(several):
        subject = _subject(one, names[at] if names else "", taken)
        taken.append(subject.name)
        made.append(subject)
    return made


def _subject(given: Any, name: str, taken: Sequence[str]) -> Subject:
    if isinstance(given, Subject):
        if name and name != given.name:
            raise UsageError(
                "The subject has a name already.",
                where=given.name,
                expected=f"no other name, or {given.name!r}",
                got=repr(name),
                do=f"Name it when it is made: wt.Subject(model, name={name!r}).",
            )
        return given
    if isinstance(given, str):
        raise UsageError(
            "A model is given to Python as a module, not by its name.",
            where=given,
            expected="a torch.nn.Module or a wt.Subject",
            got="text",
            do=f"Load it first: loaded = wt.load({given!r}); then wt.audit(loaded.subject, loaded.task).",
        )
    own = type(given).__name__
    fresh = next(free for n in range(1, len(taken) + 2) if (free := own if n == 1 else f"{own}-{n}") not in taken)
    return Subject(given, name=name or fresh)


def scored(task: BaseTask, asked: str | Callable[..., Any] | None) -> BaseTask:
    """The task, scored by what was asked for: a measure, its name, a function, or ``module:callable``, named like that.

    Raises:
        WheeltapError: If there is no such measure, or it does not fit the targets.
    """
    if isinstance(task, JoinedTask):
        return JoinedTask([scored(part, asked) for part in task.parts])
    if asked in (None, own := task.measure.name) or {asked, own} == {"acc", "accuracy"}:  # lm-eval grades it
        return task
    found: Any = callables.found(asked) if isinstance(asked, str) and CALLABLE.fullmatch(asked) else asked
    name = asked if isinstance(asked, str) else ""
    if isinstance(found, measure.FunctionMeasure) and name:
        found = measure.of(
            found.function, name=name, higher_is_better=found.higher_is_better, bounded=found.bounded
        )  # fmt: skip
    elif isinstance(found, measure.AveragePrecision) and name:
        found = measure.average_precision(found.match, name=name)
    elif callable(found) and not isinstance(found, measure.Measure | type):
        found = measure.of(cast("Any", found), name=name)
    return task.scored_by(measure.named(found, where=task.name))
