"""Plans whose settings name a group, unit, factor or layer that there is not are refused before anything runs."""

from collections.abc import Sequence

from wheeltap.audits.settle import audits_of
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine import readings
from wheeltap.plans.plan import Plan


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


def _require_group(task: BaseTask, group: int, audit: str) -> None:
    known = sorted({int(one) for one in task.groups})
    if group not in known:
        raise UsageError(
            f"The task has no group {group}.",
            where=f"{audit}: group",
            expected=", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else ""),
            got=str(group),
            do="Name one of the task's groups, or give it others: task.with_groups, groups in .npz, group in .jsonl.",
        )
