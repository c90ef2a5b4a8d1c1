"""Plans whose settings name a group, unit, factor or layer that there is not are refused before anything runs."""

from collections.abc import Sequence

from wheeltap.audits.settle import audits_of
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Trial
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine import readings
from wheeltap.perturb import create, perturbations
from wheeltap.plans.plan import Plan
from wheeltap.recipes.base import recipes


def require_named(plan: Plan, subjects: Sequence[Subject], task: BaseTask) -> None:
    """Holds what the settings of a plan name against the models and the examples.

    Args:
        plan: With its audits and their settings.
        subjects: Its models, in its order.
        task: Its examples.

    Raises:
        UsageError: If the task has no such group, or a reading that is asked for names what a subject or the task
            does not have (see ``Reading.require``).
    """
    for audit in audits_of(plan):
        for group in audit.groups():
            _require_group(task, group, audit.name)
        for subject in subjects:
            for trial in audit.readings(plan, subject.record):
                readings.create(trial.perturbation, trial.settings).require(subject, task)
            for label, trial in audit.asked_for(plan, subject.record):
                _require_taken(subject, label, trial)


def require_installed(trials: Sequence[Trial]) -> None:
    """Raises ``UsageError`` if a disturbance or reading that is asked for is not installed: another package has it."""
    kinds = {"read": readings.readings, "make": recipes}
    for known in (perturbations, readings.readings, recipes):
        names = {trial.perturbation for trial in trials if kinds.get(trial.kind, perturbations) is known}
        missing = sorted(names.difference(known))
        if missing:
            raise UsageError(
                f"The {known.kind} {missing[0]!r} that this plan asks for is not installed.",
                where="the plan",
                expected=f"a package that declares {missing[0]!r} in the entry-point group {known.group!r}",
                got=f"no such {known.kind} here",
                do=f"Install that package in this environment; then it is shown by: wheeltap list {known.kind}s",
            )


def _require_taken(subject: Subject, label: str, trial: Trial) -> None:
    """Raises ``UsageError`` if a disturbance that was asked for by name is defined on none of a subject's layers."""
    kind = create(trial.perturbation, trial.settings)
    covered = [layer for layer in subject.layers if trial.site.covers(layer.name)]
    if not any(kind.accepts(layer) for layer in covered):
        raise UsageError(
            f"{subject.name} cannot be shipped so: {label}.",
            where=f"--for, {subject.name}",
            expected=f"a layer on which it is defined ({kind.title})",
            got=", ".join(layer.name for layer in covered[:5]) or "no layer beside embeddings and head",
            do="Leave this scheme out, or choose another one: wheeltap list schemes.",
        )


def _require_group(task: BaseTask, group: int, audit: str) -> None:
    known = sorted({int(one) for one in task.behaviors})
    if group not in known:
        raise UsageError(
            f"The task has no behavior {group}.",
            where=f"{audit}: group",
            expected=", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else ""),
            got=str(group),
            do="Name another, or give others: task.with_behaviors, behaviors in .npz, behavior in .jsonl.",
        )
