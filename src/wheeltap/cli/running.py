"""What ``audit``, ``compare`` and ``run`` share: load, plan, run, tell."""

from pathlib import Path

from wheeltap.cli.loading import load, planned
from wheeltap.cli.options import Measuring, Running, default_store
from wheeltap.cli.progress import said, shown
from wheeltap.cli.studying import run as run_study
from wheeltap.cli.telling import Telling
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import Plan
from wheeltap.runs import loop, studying


def plan_and_run(specs: tuple[str, ...], measuring: Measuring, *, running: Running, telling: Telling) -> int:
    """Audits the one model named, or compares the others with the first; gives the exit code."""
    running, telling = measuring.completed(running), measuring.completed(telling)
    telling.prepare()
    with said("loading " + " and ".join(specs)):
        plan, subjects, task = planned(specs, measuring)
    return carry_out(plan, subjects, task, running=running, telling=telling)


def run_plan(path: Path, *, running: Running, telling: Telling) -> int:
    """Runs a plan from its file; gives the exit code."""
    telling.prepare()
    plan = Plan.read(path)
    if plan.study is not None:
        with said("loading"):
            asked = studying.again(plan)
        return telling.tell(run_study(asked, running=running, telling=telling))
    if not plan.sources or len(plan.sources) != len(plan.subjects):
        raise UsageError(
            "The plan does not say how its models are loaded.",
            where=str(path),
            expected=f"{max(len(plan.subjects), 1)} sources, one for each subject",
            got=", ".join(plan.sources) or "none",
            do="Run it from Python: wt.run(plan, subjects, task); or make one with: wheeltap plan",
        )
    with said("loading " + " and ".join(plan.sources)):
        names = [subject.name for subject in plan.subjects]
        subjects, task = load(plan.sources, None if plan.data is None else Path(plan.data), names=names)
    return carry_out(plan, subjects, task, running=running, telling=telling)


def carry_out(plan: Plan, subjects: list[Subject], task: BaseTask, *, running: Running, telling: Telling) -> int:
    """Runs a plan with progress, tells the report."""
    names = [subject.name for subject in subjects]
    store = running.store or default_store(*names)
    telling.require_apart(store)
    with shown(" vs ".join(names), quiet=telling.quiet) as watch:
        workers = 1 if running.workers is None else running.workers
        report = loop.run(plan, subjects, task, store=store, workers=workers, watch=watch, memory=running.memory_bytes)
    return telling.tell(report)
