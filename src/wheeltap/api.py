"""The Python door: audit one model, compare two, study kinds of nets."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wheeltap.core.settings import checked
from wheeltap.plans.plan import Effort
from wheeltap.report.report import Report
from wheeltap.runs.budget import Budget
from wheeltap.runs.given import Audits, Examples, Model, subjects_of, task_of
from wheeltap.runs.loop import Watch, run
from wheeltap.runs.planning import plan
from wheeltap.runs.studying import create, folder_of, planned
from wheeltap.studies.base import Study


@checked
def audit(  # noqa: PLR0913 - a door: each is a choice of its own
    subject: Model,
    task: Examples,
    *,
    name: str = "",
    audits: Audits | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    budget: Budget | str | None = None,
    alpha: float = 0.05,
    schemes: str | Sequence[str] | None = None,
    margin: float | None = None,
    partial: bool = False,
    workers: int = 1,
    watch: Watch | None = None,
    memory: int | None = None,
) -> Report:
    """Plans, runs and judges an audit of one model.

        wt.audit(net, (inputs, targets))
        wt.audit(wt.Subject(net, name="resnet20"), wt.Task(inputs, targets, measure="nll"), audits="score")

    Args:
        subject: The model, a ``Subject`` or a bare module in eval mode; it comes back bit-identical.
        task: The examples: a task, a pair ``(inputs, targets)`` of tensors or arrays, a ``Dataset`` or a
            ``DataLoader`` (see ``given.task_of``). A pair's inputs may be a dict, for ``model(**inputs)``.
        name: What the report calls a bare module; by default its class.
        audits: Names or specs, or a single one; by default those that ``wheeltap audit`` runs.
        store: File that keeps every outcome; a rerun resumes. In a temporary file if not given.
        seed: Root of every draw.
        effort: Draws; by default chosen by the model's size.
        budget: What the run may cost, such as ``200f`` (passes over the task) or ``10m``: effort is cut to fit.
        alpha: Probability of any false alarm, over all findings together; of any false reassurance, likewise.
        schemes: How it will be shipped, such as ``"nf4,int8"``: only these are judged, unless audits are named too.
        margin: Smallest loss of score of interest: a share of right answers (by default .02), of an error without a
            bound (.1), or of the way from chance to any other score (.02).
        partial: Whether verdicts are given although many weights were left alone.
        workers: Processes; 1 runs in this one.
        watch: Called after each trial.
        memory: Bytes that may be used beside the models themselves; what does not fit goes a slower way.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    held, examples = subjects_of(subject, names=(name,) if name else ()), task_of(task)
    made = plan(
        held, examples, audits=audits, effort=effort, budget=budget, seed=seed, alpha=alpha,
        schemes=schemes, margin=margin, partial=partial,
    )  # fmt: skip
    return run(made, held, examples, store=store, workers=workers, watch=watch, memory=memory)


@checked
def compare(  # noqa: PLR0913 - a door: each is a choice of its own
    a: Model,
    b: Model,
    task: Examples,
    *,
    names: Sequence[str] = (),
    audits: Audits | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    budget: Budget | str | None = None,
    alpha: float = 0.05,
    schemes: str | Sequence[str] | None = None,
    margin: float | None = None,
    partial: bool = False,
    workers: int = 1,
    watch: Watch | None = None,
    memory: int | None = None,
) -> Report:
    """Compares two models on the same examples and the same draws: do scores differ, does fragility?

        wt.compare(before, after, (inputs, targets), names=("before", "after"))

    Args:
        a: The reference, a ``Subject`` or a bare module in eval mode; doses are bracketed on it.
        b: The other model.
        task: The examples, as for ``audit``.
        names: What the report calls bare modules; by default their classes, the second of one class numbered.
        audits: Names or specs, or a single one; by default those that ``wheeltap audit`` runs.
        store: File that keeps every outcome; a rerun resumes. In a temporary file if not given.
        seed: Root of every draw.
        effort: Draws; by default chosen by the larger model's size.
        budget: What the run may cost, such as ``200f`` (passes over the task) or ``10m``: effort is cut to fit.
        alpha: Probability of any false alarm, over all findings together; of any false reassurance, likewise.
        schemes: How it will be shipped, such as ``"nf4,int8"``: only these are judged, unless audits are named too.
        margin: Smallest loss of score of interest: a share of right answers (by default .02), of an error without a
            bound (.1), or of the way from chance to any other score (.02).
        partial: Whether verdicts are given although many weights were left alone.
        workers: Processes; 1 runs in this one.
        watch: Called after each trial.
        memory: Bytes that may be used beside the models themselves; what does not fit goes a slower way.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    held, examples = subjects_of([a, b], names=names), task_of(task)
    made = plan(
        held, examples, audits=audits, effort=effort, budget=budget, seed=seed, alpha=alpha,
        schemes=schemes, margin=margin, partial=partial,
    )  # fmt: skip
    return run(made, held, examples, store=store, workers=workers, watch=watch, memory=memory)


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
