"""The Python door: audit one model, compare several, study kinds of nets."""

import inspect
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypedDict, Unpack

from wheeltap.core.docs import described
from wheeltap.core.errors import UsageError
from wheeltap.core.settings import checked
from wheeltap.plans.plan import Effort
from wheeltap.report.report import Report
from wheeltap.runs.budget import Budget
from wheeltap.runs.given import Audits, Examples, Model, subjects_of, task_of
from wheeltap.runs.loop import Watch, run
from wheeltap.runs.planning import plan
from wheeltap.runs.studying import create, folder_of, planned
from wheeltap.studies.base import Study

Given = ParamSpec("Given")


class PlanOptions(TypedDict, total=False):
    """What ``audit`` and ``compare`` pass on to ``plan``, which says what each is."""

    audits: Audits | None
    effort: Effort | None
    budget: Budget | str | None
    seed: int
    alpha: float
    schemes: str | Sequence[str] | None
    margin: float | None
    partial: bool


class Options(PlanOptions, total=False):
    """The same with what they pass on to ``run``."""

    store: str | Path | None
    workers: int
    watch: Watch | None
    memory: int | None


def _forwarding(door: Callable[Given, Report]) -> Callable[Given, Report]:
    """Gives a door the arguments that it passes on, with defaults and docs as they are in ``plan`` and ``run``."""
    signature = inspect.signature(door)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    passed = [
        (one, described(of.__doc__, "Args")[name])
        for of in (plan, run)
        for name, one in inspect.signature(of).parameters.items()
        if name in Options.__annotations__
    ]
    door.__signature__ = signature.replace(parameters=[*own, *(one for one, _ in passed)])  # pyright: ignore[reportFunctionMemberAccess]
    lines = "\n".join(textwrap.indent(textwrap.fill(f"{one.name}: {text}", 108, subsequent_indent="    "), "    ")
                      for one, text in passed)  # fmt: skip
    door.__doc__ = inspect.cleandoc(door.__doc__ or "").replace("    options: What is passed on.", lines)
    return checked(door)


@_forwarding
def audit(subject: Model, task: Examples, *, name: str = "", **options: Unpack[Options]) -> Report:
    """Plans, runs and judges an audit of one model.

        wt.audit(net, (inputs, targets))
        wt.audit(wt.Subject(net, name="resnet20"), wt.Task(inputs, targets, measure="nll"), audits="score")

    Args:
        subject: The model, a ``Subject`` or a bare module in eval mode; it comes back bit-identical.
        task: The examples: a task, a pair ``(inputs, targets)`` of tensors or arrays, a ``Dataset`` or a
            ``DataLoader`` (see ``given.task_of``). A pair's inputs may be a dict, for ``model(**inputs)``.
        name: What the report calls a bare module; by default its class.
        options: What is passed on.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    return _judged([subject], (name,) if name else (), task, options)


@_forwarding
def compare(
    *models: Model | Examples, task: Examples | None = None, names: Sequence[str] = (), **options: Unpack[Options]
) -> Report:
    """Compares models on the same examples and the same draws: do scores differ, does fragility?

        wt.compare(before, after, (inputs, targets), names=("before", "after"))
        wt.compare(first, second, third, task=(inputs, targets))

    Args:
        models: Each a ``Subject`` or a bare module in eval mode, and then the examples, as for ``audit``. The first is
            the reference, which doses are bracketed on; each other is compared with it.
        task: The examples, where they do not stand behind the models.
        names: What the report calls bare modules; by default their classes, the second of one class numbered.
        options: What is passed on.

    Raises:
        UsageError: If there are not two models and the examples.
        WheeltapError: See ``plan`` and ``run``.
    """
    several, examples = (models[:-1], models[-1]) if task is None and models else (models, task)
    if len(several) < 2:
        raise UsageError(
            "There is nothing to compare.",
            expected="two models or more, and the examples",
            got=f"{len(several)} model{'s' * (len(several) != 1)}",
            do="wt.compare(before, after, (inputs, targets)); of one model: wt.audit(model, (inputs, targets)).",
        )
    return _judged(several, names, examples, options)


def _judged(models: Sequence[Any], names: Sequence[str], task: Any, options: Options) -> Report:
    subjects, examples = subjects_of(list(models), names=names), task_of(task)
    asked: Any = {name: one for name, one in options.items() if name in PlanOptions.__annotations__}
    how: Any = {name: one for name, one in options.items() if name not in asked}
    return run(plan(subjects, examples, **asked), subjects, examples, **how)


def study(  # noqa: PLR0913 - a door: each is a choice of its own
    which: str | Study,
    *,
    settings: Mapping[str, Any] | None = None,
    store: str | Path | None = None,
    made: str | Path | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    alpha: float = 0.05,
    workers: int = 1,
    watch: Watch | None = None,
    memory: int | None = None,
) -> Report:
    """Plans, runs and judges a study: cohorts of nets, numbers of each, rules fixed before the first one is made.

        wt.study("pictures", settings={"picture": "face", "seeds": 3}, store="face.wheeltap")

    Args:
        which: Name of a study (see ``wheeltap list studies``), or one that was made already.
        settings: Of a study that is named.
        store: File that keeps every outcome; a rerun resumes. In a temporary file if not given.
        made: Folder of what recipes make; by default beside the store, named after it.
        seed: Root of every draw of a disturbance or reading.
        effort: Draws of audits that are measures of members.
        alpha: Probability of any false ``found`` over all rules together; of any false ``excluded``, likewise.
        workers: Processes; 1 runs in this one.
        watch: Called after each trial, and while a net is being made.
        memory: Bytes that may be used beside the models themselves; what does not fit goes a slower way.

    Raises:
        WheeltapError: See ``studying.planned`` and ``run``.
    """
    asked = planned(create(which, settings) if isinstance(which, str) else which, effort=effort, seed=seed, alpha=alpha)
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as passing:
        kept = Path(passing) / "study.wheeltap" if store is None else Path(store)
        members = asked.members(folder_of(kept) if made is None else Path(made))
        return run(asked.plan, [], asked.task, store=kept, workers=workers, watch=watch, memory=memory, members=members)
