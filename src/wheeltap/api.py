"""The Python door: audit one model, compare several, study kinds of nets."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from wheeltap.core.errors import UsageError
from wheeltap.report.report import Report
from wheeltap.runs.given import Model, scored, subjects_of
from wheeltap.runs.loop import Execution, ExecutionOptions, run
from wheeltap.runs.planning import plan
from wheeltap.runs.recorded import are_logs, put_logs
from wheeltap.runs.request import (
    Request,
    RequestOptions,
    StudyOptions,
    StudyRequest,
    audits_of,
    door,
    functions_of,
    only_files,
)
from wheeltap.runs.shipping import compare_files
from wheeltap.runs.stored import judge
from wheeltap.runs.studying import create, folder_of, planned
from wheeltap.sources.examples import Examples, task_of
from wheeltap.studies.base import Study


class Options(RequestOptions, ExecutionOptions, total=False):
    """What is asked of a run, and how it is run."""


@door(Request, Execution)
def audit(subject: Model, task: Examples | None = None, *, name: str = "", **asked: Unpack[Options]) -> Report:
    """Plans, runs and judges an audit of one model.

        wt.audit(net, (inputs, targets))
        wt.audit(wt.Subject(net, name="resnet20"), wt.Task(inputs, targets, measure="nll"), audits="score")

    Args:
        subject: The model, a ``Subject`` or a bare module in eval mode; it comes back bit-identical.
        task: The examples: a task, a pair ``(inputs, targets)`` of tensors or arrays, a ``Dataset`` or a
            ``DataLoader`` (see ``sources.examples.task_of``). A pair's inputs may be a dict, for ``model(**inputs)``.
            Not needed where files are only compared with the original: ``audits="file"``.
        name: What the report calls a bare module; by default its class.
        asked: What is passed on.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    names = (name,) if name else ()
    if only_files(audits_of(asked.get("audits"))):
        options: Any = asked
        store = options.pop("store", None)
        request = Request(**{key: one for key, one in options.items() if key in RequestOptions.__annotations__})
        (single,) = subjects_of([subject], names=names)
        with tempfile.TemporaryDirectory(prefix="wheeltap-") as folder:
            place = Path(folder) / "files.wheeltap" if store is None else Path(store)
            return compare_files(single, request, store=place)
    return _judged([subject], names, task, asked)


@door(Request, Execution)
def compare(
    *models: Model | Examples | str, task: Examples | None = None, names: Sequence[str] = (), **asked: Unpack[Options]
) -> Report:
    """Compares models on the same examples and the same draws: do scores differ, does fragility?

        wt.compare(before, after, (inputs, targets), names=("before", "after"))
        wt.compare(first, second, third, task=(inputs, targets))
        wt.compare("answers:base.jsonl", "answers:quantized.jsonl")     # logs of a benchmark: no model is loaded

    Args:
        models: Each a ``Subject`` or a bare module in eval mode, and then the examples, as for ``audit``. The first is
            the reference, which doses are bracketed on; each other is compared with it. Or recorded answers, by their
            files: what each loses beside the first.
        task: The examples, where they do not stand behind the models.
        names: What the report calls bare modules; by default their classes, the second of one class numbered.
        asked: What is passed on.

    Raises:
        UsageError: If there are not two models and the examples, or logs and models.
        WheeltapError: See ``plan`` and ``run``.
    """
    if are_logs(models):
        store: Any = asked.pop("store", None)
        with tempfile.TemporaryDirectory(prefix="wheeltap-") as folder:
            place = Path(folder) / "logs.wheeltap" if store is None else Path(store)
            given: Any = {name: one for name, one in asked.items() if name in RequestOptions.__annotations__}
            put_logs(models, Request(**given), names=names, store=place)
            return judge(place)
    several, examples = (models[:-1], models[-1]) if task is None and models else (models, task)
    if len(several) < 2:
        raise UsageError(
            "There is nothing to compare.",
            expected="two models or more, and the examples",
            got=f"{len(several)} model{'s' * (len(several) != 1)}",
            do="wt.compare(before, after, (inputs, targets)); of one model: wt.audit(model, (inputs, targets)).",
        )
    return _judged(several, names, examples, asked)


def _judged(models: Sequence[Any], names: Sequence[str], task: Any, options: Options) -> Report:
    subjects, examples = subjects_of(list(models), names=names), task_of(task)
    asked: Any = {name: one for name, one in options.items() if name in RequestOptions.__annotations__}
    how: Any = {name: one for name, one in options.items() if name not in asked}
    examples, given = scored(examples, asked.pop("measure", None)), functions_of(asked.get("schemes"))
    return run(plan(subjects, examples, **asked), subjects, examples, given=given, **how)


class StudyRunOptions(StudyOptions, ExecutionOptions, total=False):
    """What is asked of a study's run, and how it is run."""


@door(StudyRequest, Execution)
def study(
    which: str | Study,
    *,
    settings: Mapping[str, Any] | None = None,
    made: str | Path | None = None,
    **asked: Unpack[StudyRunOptions],
) -> Report:
    """Plans, runs and judges a study: cohorts of nets, numbers of each, rules fixed before the first one is made.

        wt.study("pictures", settings={"picture": "face", "seeds": 3}, store="face.wheeltap")

    Args:
        which: Name of a study (see ``wheeltap list studies``), or one that was made already.
        settings: Of a study that is named.
        made: Folder of what recipes make; by default beside the store, named after it.
        asked: What is passed on.

    Raises:
        WheeltapError: See ``studying.planned`` and ``run``.
    """
    options: Any = asked
    request = StudyRequest(**{name: options.pop(name) for name in StudyOptions.__annotations__ if name in options})
    drawn = planned(create(which, settings) if isinstance(which, str) else which, request)
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as passing:
        store = options.pop("store", None)
        kept = Path(passing) / "study.wheeltap" if store is None else Path(store)
        members = drawn.members(folder_of(kept) if made is None else Path(made))
        return run(drawn.plan, [], drawn.task, store=kept, members=members, **options)
