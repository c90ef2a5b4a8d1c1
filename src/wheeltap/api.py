"""The Python door: audit one model, compare two."""

from pathlib import Path

from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import Effort
from wheeltap.report.report import Report
from wheeltap.runs.budget import Budget
from wheeltap.runs.loop import Watch, run
from wheeltap.runs.planning import Audits, plan


def audit(  # noqa: PLR0913 - a door: each is a choice of its own
    subject: Subject,
    task: BaseTask,
    *,
    audits: Audits | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    budget: Budget | str | None = None,
    alpha: float = 0.05,
    workers: int = 1,
    watch: Watch | None = None,
    memory: int | None = None,
) -> Report:
    """Plans, runs and judges an audit of one model.

    Args:
        subject: The model; it comes back bit-identical.
        task: The examples.
        audits: Names or specs; by default score, relative and function-space noise, quantization and pruning, and on
            models that are not large single weights, redundancy and entanglement.
        store: File that keeps every outcome; a rerun resumes. In a temporary file if not given.
        seed: Root of every draw.
        effort: Draws; by default chosen by the model's size.
        budget: What the run may cost, such as ``200f`` (passes over the task) or ``10m``: effort is cut to fit.
        alpha: Probability of any false alarm, over all findings together.
        workers: Processes; 1 runs in this one.
        watch: Called after each trial.
        memory: Bytes that may be used beside the models themselves; what does not fit goes a slower way.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    made = plan(subject, task, audits=audits, effort=effort, budget=budget, seed=seed, alpha=alpha)
    return run(made, subject, task, store=store, workers=workers, watch=watch, memory=memory)


def compare(  # noqa: PLR0913 - a door: each is a choice of its own
    a: Subject,
    b: Subject,
    task: BaseTask,
    *,
    audits: Audits | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    budget: Budget | str | None = None,
    alpha: float = 0.05,
    workers: int = 1,
    watch: Watch | None = None,
    memory: int | None = None,
) -> Report:
    """Compares two models on the same examples and the same draws: do scores differ, does fragility?

    Args:
        a: The reference; doses are bracketed on it.
        b: The other model.
        task: The examples.
        audits: Names or specs; by default score, relative and function-space noise, and on models that are not large
            single weights, redundancy and entanglement.
        store: File that keeps every outcome; a rerun resumes. In a temporary file if not given.
        seed: Root of every draw.
        effort: Draws; by default chosen by the larger model's size.
        budget: What the run may cost, such as ``200f`` (passes over the task) or ``10m``: effort is cut to fit.
        alpha: Probability of any false alarm, over all findings together.
        workers: Processes; 1 runs in this one.
        watch: Called after each trial.
        memory: Bytes that may be used beside the models themselves; what does not fit goes a slower way.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    made = plan([a, b], task, audits=audits, effort=effort, budget=budget, seed=seed, alpha=alpha)
    return run(made, [a, b], task, store=store, workers=workers, watch=watch, memory=memory)
