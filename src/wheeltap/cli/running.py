"""What ``audit``, ``compare`` and ``run`` share: load, plan, run, tell."""

from collections.abc import Callable
from pathlib import Path

from wheeltap.cli.loading import load, planned
from wheeltap.cli.options import Measuring, Running, default_store
from wheeltap.cli.progress import said, shown
from wheeltap.cli.studying import run as run_study
from wheeltap.cli.telling import Telling
from wheeltap.cli.typed import TYPED
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import Plan
from wheeltap.report import files
from wheeltap.report.report import Report
from wheeltap.runs import loop, studying
from wheeltap.runs.samples import require_asked, write
from wheeltap.sources.base import require_no_code


def plan_and_run(
    specs: tuple[str, ...], measuring: Measuring, *, running: Running, telling: Telling, samples: Path | None = None
) -> int:
    """Audits the one model named, or compares the others with the first; gives the exit code.

    Args:
        specs: The models.
        measuring: What to measure.
        running: Where outcomes are kept.
        telling: Where the report goes.
        samples: Where the first model's answers to a task of lm-eval go.
    """
    running, telling = measuring.completed(running), measuring.completed(telling)
    telling.prepare()
    if samples is not None:
        require_asked(samples, measuring.settled().data)
        files.require_writable(samples)
    with said("loading " + " and ".join(specs)):
        plan, subjects, task = planned(specs, measuring)
    code = carry_out(plan, subjects, task, running=running, telling=telling)
    if samples is not None:
        store = running.store or default_store(*(subject.name for subject in subjects))
        with said("writing samples"):
            write(samples, plan, subjects[0], store)
    return code


def run_plan(path: Path, *, allow_code: bool, running: Running, telling: Telling) -> int:
    """Runs a plan from its file, and the code that it names only where that is allowed; gives the exit code."""
    telling.prepare()
    plan = Plan.read(path)
    if plan.study is not None:
        with said("loading"):
            asked = studying.again(plan, allow_code=allow_code)
        return telling.tell(run_study(asked, running=running, telling=telling))
    if not plan.sources or len(plan.sources) != len(plan.subjects):
        raise UsageError(
            "The plan does not say how its models are loaded.",
            where=str(path),
            expected=f"{max(len(plan.subjects), 1)} sources, one for each subject",
            got=", ".join(plan.sources) or "none",
            do="Run it from Python: wt.run(plan, subjects, task); or make one with: wheeltap plan",
        )
    if not allow_code:
        require_no_code(plan.sources, examples=[] if plan.data is None else [plan.data], where=str(path))
    with said("loading " + " and ".join(plan.sources)):
        names = [subject.name for subject in plan.subjects]
        subjects, task = load(plan.sources, plan.data, names=names)
    return carry_out(plan, subjects, task, running=running, telling=telling)


def carry_out(plan: Plan, subjects: list[Subject], task: BaseTask, *, running: Running, telling: Telling) -> int:
    """Runs a plan with progress, prints the report; gives the exit code."""
    return telling.tell(ran(plan, subjects, task, running=running, telling=telling))


def ran(
    plan: Plan, subjects: list[Subject], task: BaseTask, *, running: Running, telling: Telling,
    after: Callable[[], None] | None = None,
) -> Report:  # fmt: skip
    """Runs a plan with progress; nothing is printed of the report yet.

    Args:
        plan: What to run.
        subjects: The models.
        task: The examples.
        running: Where outcomes are kept.
        telling: Where the report goes.
        after: Called after each trial.
    """
    names = [subject.name for subject in subjects]
    store = running.store or default_store(*names)
    telling.require_apart(store)
    with shown(" vs ".join(names), quiet=telling.quiet) as watch:

        def each(state: loop.Progress) -> None:
            watch(state)
            if after is not None:
                after()

        workers = 1 if running.workers is None else running.workers
        return loop.run(
            plan, subjects, task, store=store, workers=workers, watch=each, memory=running.memory_bytes,
            again=TYPED.get(),
        )  # fmt: skip
