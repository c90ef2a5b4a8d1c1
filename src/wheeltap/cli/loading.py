"""From names on the command line to subjects, a task and a plan."""

from pathlib import Path

from wheeltap import sources
from wheeltap.audits import base
from wheeltap.cli.options import Measuring
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import Plan
from wheeltap.runs import planning
from wheeltap.sources import Loaded


def load(specs: tuple[str, ...], data: Path | None) -> tuple[list[Subject], BaseTask]:
    """Every model, and the task that goes with the first. Equal names are told apart by a number."""
    first = sources.load(specs[0], data=data)
    subjects = [first.subject]
    for spec in specs[1:]:
        other = _same_examples(spec, first, data)
        taken = {subject.name for subject in subjects}
        if other.name in taken:
            other.name = next(f"{other.name} ({n})" for n in range(2, 99) if f"{other.name} ({n})" not in taken)
        subjects.append(other)
    return subjects, first.task


def _same_examples(spec: str, first: Loaded, data: Path | None) -> Subject:
    """The model, if it reads the task's examples as the first one does.

    Raises:
        UsageError: If it is a language model whose tokenizer gives other tokens for them.
    """
    if first.tokenizer is None:
        return sources.load_model(spec)
    loaded = sources.load(spec, data=data)
    if loaded.task.digest != first.task.digest:
        raise UsageError(
            "The two models do not read the same tokens, so they cannot be compared example by example.",
            where=spec,
            expected=f"the tokenizer of {first.subject.name}",
            got="other tokens for the same text",
            do="Compare models that share a tokenizer, or audit each on its own.",
        )
    return loaded.subject


def planned(specs: tuple[str, ...], measuring: Measuring) -> tuple[Plan, list[Subject], BaseTask]:
    """The plan that flags and settings file ask for, with what it needs to run."""
    settled = measuring.settled()
    for spec in settled.specs(base.DEFAULT):
        # Before anything is loaded: a mistyped name should not cost a minute.
        base.create(spec.name, dict(spec.settings))
    subjects, task = load(specs, measuring.data)
    audits = settled.specs(planning.default_audits(subjects))
    made = planning.plan(
        subjects,
        task,
        audits=audits,
        effort=settled.effort(max(subject.record.parameters for subject in subjects)),
        budget=settled.budget,
        seed=settled.seed,
        alpha=settled.alpha,
        sources=specs,
        data=None if measuring.data is None else str(measuring.data.resolve()),
    )
    return made, subjects, task
