"""Copies of a model that should compute the same, made and compared: what is proven, and not only planned."""

from collections.abc import Iterator
from typing import Final

import msgspec
import torch

from wheeltap import gauge
from wheeltap.audits.base import LARGE
from wheeltap.audits.controls import TWIN_TOLERANCE
from wheeltap.audits.settle import usable
from wheeltap.core import copies, seeds
from wheeltap.core.errors import DataError
from wheeltap.core.records import Outcome, SubjectRecord
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.clean import in_line, settle
from wheeltap.engine.run import run_trials
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.gauge.settings import Settings
from wheeltap.plans.plan import Plan

TWIN: Final = "twin"
PLANTED: Final = "planted at"
"""What the proofs of control copies are called; those of planted ones with their strength behind it."""

PROVEN_ON: Final = ((2_000_000, 512), (LARGE, 64), (None, 16))
"""Examples on which copies are compared with the model, by its size: up to so many parameters, so many."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one gauge holds on the model: what its copy answered, just now.

    Attributes:
        gauge: Its name.
        holds: Whether the copy computes the same, by the rule that decides whether a run uses it.
        difference: Largest difference of a score, in units of the logit scale; ``None`` where there is no copy.
        agreement: Share of the examples that get the same answer.
        because: Why there is no copy.
    """

    gauge: str
    holds: bool
    difference: float | None = None
    agreement: float | None = None
    because: str = ""


def some_of(task: BaseTask, parameters: int) -> BaseTask:
    """Examples from all over the task; all of them where it cannot be divided."""
    count = next(count for limit, count in PROVEN_ON if limit is None or parameters < limit)
    total = len(task.targets)
    try:
        return task if total <= count else task.part(torch.linspace(0, total - 1, count).round().long())
    except DataError:
        return task


def proofs(subject: Subject, some: BaseTask, family: gauge.Family) -> Iterator[Proof]:
    """Makes a copy by each gauge that a family offers, and compares what it answers.

    Args:
        subject: The model.
        some: Examples to compare on.
        family: As found in it.
    """
    original = to_array(some.scores(subject.model))
    for name in family.offers:
        try:
            copied = copies.copied(subject.model)
            family.moves[name](copied, seeds.generator(0, "gauge", family.name, name), Settings())
            # Not by one pass alone: a copy must also bear what a run does with it before anything else.
            alike = gauge.check(original, to_array(settle(Subject(copied, name=name), some).scores))
        except Exception as error:  # whatever a copy of the model raises
            yield Proof(gauge=name, holds=False, because=in_line(error))
            continue
        holds = alike.difference <= TWIN_TOLERANCE and alike.agreement == 1.0
        yield Proof(gauge=name, holds=holds, difference=alike.difference, agreement=alike.agreement)


def used(made: Plan, runner: TrialRunner) -> Iterator[Proof]:
    """The same of the copies that are a plan's controls, as a run makes, passes and judges them.

    That is of the twin first, then of the planted ones, by their strength.

    Args:
        made: The plan.
        runner: With its subjects and examples.
    """
    outcomes: dict[str, Outcome] = {}

    def keep(outcome: Outcome) -> None:
        outcomes[outcome.key] = outcome

    records = (*(() if made.twin is None else (made.twin,)), *made.plants)
    run_trials([made.clean(record) for record in (made.reference, *records)], runner, keep)
    kept = usable(made, outcomes.get).controls
    original = outcomes[made.clean(made.reference).key].values["scores"]
    for record in records:
        outcome, name = outcomes[made.clean(record).key], TWIN if record.role == "twin" else _strength(record)
        if outcome.status != "done":
            yield Proof(gauge=name, holds=False, because=outcome.because)
            continue
        alike = gauge.check(original, outcome.values["scores"])
        yield Proof(gauge=name, holds=record in kept, difference=alike.difference, agreement=alike.agreement)


def _strength(planted: SubjectRecord) -> str:
    """What is planted: how strong, in the outgoing weights of its layer."""
    assert planted.made is not None
    return f"{PLANTED} {planted.made.settings['scale']:g}"
