"""From names on the command line to subjects, a task and a plan."""

from collections.abc import Sequence
from pathlib import Path

from wheeltap import sources
from wheeltap.audits import base
from wheeltap.cli.options import Measuring
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import Plan
from wheeltap.runs import planning
from wheeltap.sources.specs import Shared, located


def load(specs: Sequence[str], data: str | Path | None, *, names: Sequence[str] = ()) -> tuple[list[Subject], BaseTask]:
    """Every model, and the task that goes with the first.

    Args:
        specs: What the models are asked for by.
        data: The examples, where they are not the first model's own.
        names: What the subjects are called; by default the shortest names that tell the specs apart.

    Raises:
        UsageError: If there are not as many names as models, or two are alike.
    """
    called = _names(specs, names)
    shared = Shared(specs[0], data=data, name=called[0])
    others = [shared.other(spec, name=name) for spec, name in zip(specs[1:], called[1:], strict=True)]
    return [shared.subject, *others], shared.task


def _names(specs: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    if not names:
        return sources.names_of(specs)
    if len(names) != len(specs) or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise UsageError(
            "The names do not fit the models.",
            where="--name",
            expected=f"{len(specs)} name{'s' * (len(specs) != 1)} that differ, for {', '.join(specs)}",
            got=", ".join(names),
            do="Give one name for each model, in the same order: --name before,after.",
        )
    return names


def planned(specs: tuple[str, ...], measuring: Measuring) -> tuple[Plan, list[Subject], BaseTask]:
    """The plan that flags and settings file ask for, with what it needs to run."""
    settled = measuring.settled()
    # Before anything is loaded: a mistyped name should not cost a minute, also in a table that this run does not use.
    settled.specs(base.DEFAULT)
    for name, table in settled.settings.items():
        base.create(name, table)
    subjects, task = load(specs, settled.data, names=settled.names)
    audits = settled.specs(planning.default_audits(subjects))
    made = planning.plan(
        subjects,
        task,
        audits=audits,
        effort=settled.effort(max(subject.record.parameters for subject in subjects)),
        budget=settled.budget,
        seed=settled.seed,
        alpha=settled.alpha,
        margin=settled.margin,
        partial=settled.partial,
        sources=specs,
        data=None if settled.data is None else located(settled.data),
    )
    return made, subjects, task
