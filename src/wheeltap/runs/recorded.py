"""Recorded answers as a plan and outcomes: imported into a store once, then judged like any run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon
from wheeltap.core.errors import DataError
from wheeltap.core.records import Outcome, SubjectRecord, TaskRecord
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.plans.readings.base import ReadingSpec
from wheeltap.plans.readings.label_probabilities import LABEL_PROBABILITIES
from wheeltap.plans.readings.samples import SAMPLES
from wheeltap.plans.readings.votes import VOTES
from wheeltap.plans.store import Store
from wheeltap.runs.stored import note_run
from wheeltap.sources.recorded.base import Answers, Recording, Votes

_READ: tuple[ReadingSpec, ...] = (SAMPLES, VOTES, LABEL_PROBABILITIES)


@final
@dataclass(frozen=True, eq=False)
class Imported:
    """Recorded answers as they go into a store.

    Attributes:
        plan: Who answered what, and which audits judge it.
        outcomes: What was recorded.
        notes: What was left out or assumed, in sentences.
    """

    plan: Plan
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]

    def put(self, store: Path) -> int:
        """Imports all of it, or nothing; what is there already is not written again.

        Returns:
            How many outcomes were new.
        """
        with Store(store) as kept:
            there = kept.keys()
            new = [outcome for outcome in self.outcomes if outcome.key not in there]
            kept.put_all(new)
            note_run(kept, self.plan, {"plan": self.plan.key, "recorded": "; ".join(self.notes) or "all items"})
        return len(new)


def imported(
    recordings: Sequence[Recording], *, audits: Sequence[AuditSpec] | None = None, alpha: float = 0.05, seed: int = 0
) -> Imported:
    """One plan over all systems of these files, on the items that all of them have.

    Args:
        recordings: Files as they were read; votes may be in one of their own.
        audits: Which; by default all that the files can answer.
        alpha: Of the whole report.
        seed: Root of bootstrap draws.

    Raises:
        DataError: If no item is in all files, or nobody answered and there are no votes.
    """
    items, notes = _common(recordings)
    parts = [recording.part(items) for recording in recordings]
    votes = next((part.votes for part in parts if part.votes is not None), None)
    groups = next((part.groups for part in parts if part.groups), ())
    systems = _named([one for part in parts for one in part.systems])
    subjects = tuple(SubjectRecord(name=one.name, fingerprint=one.digest, parameters=0, role="recorded")
                     for one in systems) or (_nobody(votes),)  # fmt: skip
    plan = Plan(
        command="lens", subjects=subjects, task=_task(items, systems, votes), alpha=alpha, seed=seed,
        audits=tuple(_fitting(systems, votes) if audits is None else audits),
        versions={spec.name: spec.version for spec in _READ},
        no_controls="Recorded answers have no control copies.",
    )  # fmt: skip
    outcomes = [
        outcome
        for subject, one in zip(subjects, systems or (None,), strict=True)
        for outcome in _outcomes(plan, subject, one, votes, groups)
    ]
    return Imported(plan, tuple(outcomes), (*notes, *(note for part in parts for note in part.notes)))


def _common(recordings: Sequence[Recording]) -> tuple[tuple[str, ...], list[str]]:
    """Items that all files have, in the order of the first, and what was left out."""
    sets = [set(one.items) for one in recordings]
    shared = set(recordings[0].items).intersection(*sets)
    sizes = ", ".join(f"{len(one.items):,}" for one in recordings)
    if not shared:
        raise DataError(
            "The files have no item in common.",
            expected="answers to the same items",
            got=f"{sizes} items, 0 in common",
            do="Compare logs of the same benchmark, with the same ids.",
        )
    items = tuple(item for item in recordings[0].items if item in shared)
    whole = all(len(one) == len(shared) for one in sets)
    return items, [] if whole else [f"{len(items):,} items are in all files, of {sizes}."]


def _named(systems: list[Answers]) -> list[Answers]:
    """The same with a name of its own for each."""
    names = [one.name for one in systems]
    if len(set(names)) == len(names):
        return systems
    return [
        Answers(name=f"{one.name} ({at + 1})", right=one.right, samples=one.samples, answers=one.answers,
                probability=one.probability)
        for at, one in enumerate(systems)
    ]  # fmt: skip


def _nobody(votes: Votes | None) -> SubjectRecord:
    if votes is None:
        raise DataError("There is nothing to judge.", expected="answers or votes", got="neither")
    return SubjectRecord(name="people", fingerprint=votes.digest, parameters=0, role="recorded")


def _task(items: tuple[str, ...], systems: Sequence[Answers], votes: Votes | None) -> TaskRecord:
    plain = all(one.samples is None or int(one.samples.max()) == 1 for one in systems)
    digest = canon.key("recorded items", [list(items), "" if votes is None else votes.digest])
    return TaskRecord(
        name="recorded answers", digest=digest, examples=len(items), measure="accuracy", measures=("accuracy",),
        bounded=plain,
    )  # fmt: skip


def _fitting(systems: Sequence[Answers], votes: Votes | None) -> list[AuditSpec]:
    """Audits that these answers can answer."""
    graded = bool(systems) and all(one.right is not None for one in systems)
    repeated = graded and all(one.samples is not None and int(one.samples.max()) > 1 for one in systems)
    named = ["score"] * graded + ["support"] * repeated + ["disagreement"] * (votes is not None)
    return [AuditSpec(name=name) for name in named]


def _outcomes(
    plan: Plan, subject: SubjectRecord, one: Answers | None, votes: Votes | None, groups: tuple[str, ...]
) -> list[Outcome]:
    found: list[Outcome] = []

    def reading(spec: ReadingSpec, values: dict[str, NDArray[Any]]) -> None:
        key = plan.reading(subject, spec.name, {}).key
        found.append(Outcome(key=key, status="done", values=spec.typed(values, examples=plan.task.examples)))

    if votes is not None:
        reading(VOTES, {"votes": votes.votes, "ordinal": np.array(votes.ordinal)})
    if one is not None and one.right is not None and one.samples is not None:
        share = (one.right / one.samples).astype(np.float32)
        clean = {"accuracy": share, "chance": np.array(0.0, dtype=np.float32)}
        found.append(Outcome(key=plan.clean(subject).key, status="done", values=clean))
        values: dict[str, NDArray[Any]] = {"right": one.right, "samples": one.samples}
        if one.answers is not None:
            values["answers"] = one.answers
        if groups:
            values["group"] = np.unique(np.array(groups), return_inverse=True)[1]
        reading(SAMPLES, values)
    if one is not None and one.probability is not None:
        reading(LABEL_PROBABILITIES, {"probability": one.probability})
    return found
