"""Recorded answers as a plan and outcomes: imported into a store once, then judged like any run."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon
from wheeltap.core.errors import DataError
from wheeltap.core.plain import many
from wheeltap.core.records import Outcome, Scalar, SubjectRecord, TaskRecord
from wheeltap.core.repeats import alike
from wheeltap.plans.plan import AuditSpec, Names, Plan
from wheeltap.plans.readings.base import ReadingSpec
from wheeltap.plans.store import Store
from wheeltap.report.report import Report
from wheeltap.runs.stored import judge, note_run
from wheeltap.suites.lens import recorded
from wheeltap.suites.lens.recorded.base import AnswerFile, Answers, ReadingArrays, Votes, on_all
from wheeltap.suites.lens.specs import LABEL_PROBABILITIES, SAMPLES, VOTES

EXAMPLE: Final = Path(__file__).with_name("example.jsonl")
"""Made-up answers of two systems and votes of five raters on 20 items, half of them ambiguous."""

_MOST_NAMED: Final = 100_000
"""Items up to which a plan keeps their names."""

_LONGEST_NAME: Final = 60
"""Characters of a name that are kept: some files know an item by its question alone."""

MOST_TRIES: Final = 65_536
"""Answers of every item up to which pass@k is computed; ``stats.passk`` takes no more."""

MOST_CURVES: Final = 2**24
"""Items by tries up to which pass@k is computed: so many numbers are held at once, more than once."""

_READ: tuple[ReadingSpec, ...] = (SAMPLES, VOTES, LABEL_PROBABILITIES)

_MARKS: Final = (
    "Votes are not judged: on {:,} items several labels have one vote each, and no label of any item has two, as where "
    "several answers are right; people would agree somewhere."
)
_Values = Mapping[str, NDArray[Any]]
_ReadingValues = tuple[ReadingSpec, _Values]


@final
@dataclass(frozen=True, eq=False)
class RecordedRun:
    """Recorded answers as they go into a store.

    Attributes:
        plan: Who answered what, and which audits judge it.
        says: What each file is, in a line.
        notes: What was left out or assumed, in sentences.
    """

    plan: Plan
    outcomes: tuple[Outcome, ...]
    says: tuple[str, ...]
    notes: tuple[str, ...]

    def put(self, store: Path) -> int:
        """Imports all of it, or nothing; gives how many outcomes were new: what is there is not written again."""
        with Store(store) as kept:
            there = kept.keys()
            new = [outcome for outcome in self.outcomes if outcome.key not in there]
            kept.put_all(new)
            stated: dict[str, Scalar] = {"plan": self.plan.key, "recorded": " ".join([*self.says, *self.notes])}
            note_run(kept, self.plan, stated)
        return len(new)


def read(*files: str | Path, votes: str | Path | None = None, store: str | Path | None = None) -> Report:
    """What recorded answers say, and a score leaves out: no model is loaded.

    Args:
        files: Recorded answers; of two files, the second is compared with the first.
        votes: Votes of people on the same items, in a file of their own.
        store: File that keeps what was read, for ``wt.judge``. In a temporary file if not given.

    Raises:
        DataError: If a file is not one of recorded answers, or they do not fit together.
    """
    held = of_files([Path(path) for path in files], votes=None if votes is None else Path(votes))
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as folder:
        place = Path(folder) / "lens.wheeltap" if store is None else Path(store)
        held.put(place)
        return judge(place)


def of_files(files: Sequence[Path], *, votes: Path | None = None) -> RecordedRun:
    """Files of recorded answers as one plan; see ``read``."""
    several = (*files, *([] if votes is None else [votes]))
    recordings = [recorded.read(path) for path in several]
    try:
        return imported(recordings if votes is None else _apart(recordings, votes))
    except DataError as error:
        raise error if error.where else error.at(", ".join(map(str, several))) from error


def _apart(recordings: Sequence[AnswerFile], votes: Path) -> list[AnswerFile]:
    """The same with the votes of the last file alone, and nobody's answers of it: it is no competitor."""
    *answers, people = recordings
    if people.votes is None:
        raise DataError(
            "There are no votes in this file.",
            where=str(votes),
            expected="how many people chose each label, item by item",
            got=people.says,
            do="Name a file of answers without --votes; see docs/lens.md for what a file of votes looks like.",
        )
    note = f"Votes are those of {votes.name}: others are left out."
    kept = [replace(one, votes=None, notes=(*one.notes, note) if one.votes is not None else one.notes)
            for one in answers]  # fmt: skip
    return [*kept, replace(people, systems=(), labels=())]


def imported(recordings: Sequence[AnswerFile], *, audits: Sequence[AuditSpec] | None = None) -> RecordedRun:
    """One plan over all systems of these files, on the items that all of them have; votes may be in one of their own.

    It is judged by these audits; by default by all that the files can answer.

    Raises:
        DataError: If no item is in all files, files are graded by different metrics, or nobody answered and there are
            no votes.
    """
    _require_one_metric(recordings)
    items, notes = _common(recordings)
    parts = [one if one.items == items else one.part(items) for one in recordings]
    votes = next((part.votes for part in parts if part.votes is not None), None)
    groups, sampled = _groups(parts)
    found = () if sampled else next((part.found for part in parts if part.found), ())
    clusters = groups if sampled else found
    clusters = () if len(set(clusters)) == len(clusters) else clusters  # where each is its own, items are independent
    more = tuple(one for part in parts for one in part.more)
    systems = [system for part in parts for system in _labelled(part, parts, votes)]
    if len({one.name for one in systems}) < len(systems):
        systems = [replace(one, name=f"{one.name} ({at})") for at, one in enumerate(systems, start=1)]
    if audits is None:
        asked, why = _fitting(systems, votes, more)
        notes = [*notes, *why]
        if groups and "support" not in asked:
            over = f"Intervals and tests are over the {many(len(set(clusters)), 'group')}. " if clusters else ""
            notes.append(f"{over}Parts (group) are shown by themselves with pass@k alone.")
        audits = [AuditSpec(name=name) for name in asked]
    if sum(part.votes is not None for part in parts) > 1:
        notes.append("Several files have votes: those of the first are read.")
    given = [one.spec for one in (*more, *(own for system in systems for own in system.more))]
    subjects = tuple(SubjectRecord(name=one.name, fingerprint=one.digest, parameters=0, role="recorded")
                     for one in systems)  # fmt: skip
    if not subjects:
        if votes is None:
            raise DataError("There is nothing to judge.", expected="answers or votes", got="neither")
        subjects = (SubjectRecord(name="people", fingerprint=votes.digest, parameters=0, role="recorded"),)
    plan = Plan(
        command="lens", subjects=subjects, task=_task(items, systems, votes, clusters),
        audits=tuple(audits), versions={spec.name: spec.version for spec in (*_READ, *given)},
        no_controls="Recorded answers have no control copies.", names=_names(items, groups, parts, votes),
    )  # fmt: skip
    shared = {"group": _numbered(clusters)} if clusters else {}
    held: list[_ReadingValues] = [(one.spec, one.values) for one in more]
    if votes is not None:
        who = {} if votes.ballots is None else {"ballots": votes.ballots}
        held.insert(0, (VOTES, {"votes": votes.votes, "ordinal": np.array(votes.ordinal), **who, **shared}))
    parted = {"group": _numbered(groups)} if groups else {}
    outcomes = [
        outcome
        for subject, one in zip(subjects, systems or (None,), strict=True)
        for outcome in _outcomes(plan, subject, one, held, shared, parted)
    ]
    said = tuple(recording.says for recording in recordings)
    return RecordedRun(plan, tuple(outcomes), said, (*notes, *_noted(parts)))


def _noted(parts: Sequence[AnswerFile]) -> Iterator[str]:
    """Notes of files, with the name of the file where others do not have the same note."""
    for part in parts:
        for note in part.notes:
            yield note if all(note in other.notes for other in parts) else f"{_whose(part)}: {note}"


def _groups(parts: Sequence[AnswerFile]) -> tuple[tuple[str, ...], bool]:
    """What items share, and whether these are a sample of groups; nothing where no file says it."""
    known = [part for part in parts if part.groups]
    for part in known[1:]:
        if not alike(np.array(known[0].groups), np.array(part.groups)):
            raise DataError(
                "Files put items into different groups.", where=f"{_whose(known[0])}, {_whose(part)}",
                expected="the same items together in all files that have groups", got="other items together",
                do="Give the groups in one file, or the same ones in all.",
            )  # fmt: skip
    return (known[0].groups, not known[0].parts) if known else ((), False)


def _require_one_metric(recordings: Sequence[AnswerFile]) -> None:
    """Raises ``DataError`` if files name different metrics: their scores would differ for that alone."""
    named = [one for one in recordings if one.metric]
    if len({one.metric for one in named}) > 1:
        raise DataError(
            "The files are graded by different metrics.",
            expected="one metric in all files",
            got=", ".join(f"{one.metric} in {_whose(one)}" for one in named),
            do="Compare logs of the same task, graded by the same metric; or look at each file by itself.",
        )


def _whose(part: AnswerFile) -> str:
    return ", ".join(one.name for one in part.systems[:3]) or part.shape


def _labelled(part: AnswerFile, parts: Sequence[AnswerFile], votes: Votes | None) -> list[Answers]:
    """Its systems, their probabilities of the labels that people voted on, in that order."""
    believing = next((one for one in parts if any(s.probability is not None for s in one.systems)), part)
    labels = believing.labels if votes is None else votes.labels
    if not any(one.probability is not None for one in part.systems) or part.labels == labels:
        return list(part.systems)
    if set(part.labels) != set(labels):
        raise DataError(
            "Probabilities are of other labels than votes.",
            where=part.shape,
            expected=", ".join(labels),
            got=", ".join(part.labels),
            do="Name the labels alike in both files.",
        )
    places = [part.labels.index(label) for label in labels]
    return [one if one.probability is None else replace(one, probability=one.probability[:, places])
            for one in part.systems]  # fmt: skip


def _names(items: tuple[str, ...], groups: tuple[str, ...], parts: Sequence[AnswerFile], votes: Votes | None) -> Names:
    return Names(
        items=tuple(item[:_LONGEST_NAME] for item in items) if len(items) <= _MOST_NAMED else (),
        groups=tuple(sorted(set(groups))),
        labels=next((part.labels for part in parts if part.labels), ()) if votes is None else votes.labels,
    )


def _common(recordings: Sequence[AnswerFile]) -> tuple[tuple[str, ...], list[str]]:
    """Items that all files have, in the order of the first, and what was left out."""
    sets = [set(one.items) for one in recordings]
    shared = set(recordings[0].items).intersection(*sets)
    sizes = ", ".join(f"{len(one.items):,}" for one in recordings)
    if not shared:
        raise DataError(
            "The files have no item in common.",
            expected="answers to the same items",
            got=f"{sizes} items, 0 in common; the first are {', '.join(one.items[0][:60] for one in recordings)}",
            do="Compare logs of the same benchmark, with the same ids.",
        )
    items = tuple(item for item in recordings[0].items if item in shared)
    if all(len(one) == len(shared) for one in sets):
        return items, []
    more = [
        said for one in recordings for said in on_all(one.systems, np.array([item in shared for item in one.items]))
    ]
    are, these = ("is", "it is") if len(items) == 1 else ("are", "these are")
    return items, [f"{many(len(items), 'item')} {are} in all files, of {sizes}; only {these} judged.", *more]


def _task(
    items: tuple[str, ...], systems: Sequence[Answers], votes: Votes | None, clusters: Sequence[str | int]
) -> TaskRecord:
    shares = all(one.score is None or bool(((one.score >= 0.0) & (one.score <= 1.0)).all()) for one in systems)
    plain = shares and not any(one.repeated for one in systems)
    shared = [list(clusters)] if clusters else []
    digest = canon.key("recorded items", [list(items), "" if votes is None else votes.digest, *shared])
    return TaskRecord(
        name="recorded answers", digest=digest, examples=len(items), measure="accuracy", measures=("accuracy",),
        bounded=plain,
    )  # fmt: skip


def _fitting(
    systems: Sequence[Answers], votes: Votes | None, more: Sequence[ReadingArrays]
) -> tuple[list[str], list[str]]:
    """Audits that these answers can answer, and why not others that a reader may look for."""
    graded = bool(systems) and all(one.mean is not None for one in systems)
    named, why = ["score"] * graded, list[str]()
    if graded and any(one.repeated for one in systems):
        uncounted = _uncounted(systems)
        named += ["support"] * (not uncounted)
        why += [uncounted] if uncounted else []
    plain = len(named)
    named += [one.audit for one in (*more, *(own for system in systems for own in system.more))]
    if votes is not None:
        several = int((votes.votes.sum(1) > 1).sum())
        marks = several > 1 and int(votes.votes.max()) == 1
        if marks and not named:
            raise DataError(
                "Votes look like marks of right answers.",
                expected="how many people chose each label; some label of some item with two votes or more",
                got=f"one vote for each of several labels on {several} items, and never two",
                do="Give how many people chose each label. Where several answers are right, leave the votes out.",
            )
        if marks:
            return named, [*why, _MARKS.format(several)]
        items = len(votes.votes)
        if several < 2 and not named:
            raise DataError(
                "One item does not say how far people agree." if several else "One vote an item cannot be split.",
                expected="2 votes or more on each of 2 items or more",
                got=f"{several} of {many(items, 'item')} with 2 votes or more",
                do="How far people agree is known only where several voted on the same item: give all their votes.",
            )
        named[plain:plain] = ["disagreement"] * (several > 1)
        of_items, single = many(items, "item"), items - several
        if several < 2:
            why.append(f"Votes are not judged: {several} of {of_items} with 2 votes or more, and one cannot be split.")
        elif single:
            left = f"{single:,} of {of_items} {'has' if single == 1 else 'have'} one vote, which cannot be split:"
            why.append(f"{left} left out of what is said of people.")
    if not named:
        raise DataError(
            "There is nothing to judge.",
            expected="answers that are graded (correct), or votes",
            got=", ".join(one.name for one in systems),
            do="Say of each answer whether it is right, or give the votes of people with --votes.",
        )
    return list(dict.fromkeys(named)), why


def _uncounted(systems: Sequence[Answers]) -> str:
    """Why there is no pass@k; empty where there is."""
    partly = [one.name for one in systems if one.right is None]
    if partly:
        return f"No pass@k: some answers of {', '.join(partly)} are partly right. The score is their mean."
    single = [one.name for one in systems if not one.repeated]
    if single:
        return f"No pass@k: of {', '.join(single)} each item has one answer."
    fewest, name = max((int(one.samples.min()), one.name) for one in systems if one.samples is not None)
    items = next(len(one.samples) for one in systems if one.samples is not None)
    if fewest > MOST_TRIES or fewest * items > MOST_CURVES:
        most = min(MOST_TRIES, MOST_CURVES // items)
        return (
            f"{name} has {fewest:,} answers to each item, or more: pass@k is computed for up to {most:,}. "
            "The score is pass@1, and it alone is judged."
        )
    return ""


def _numbered(groups: Sequence[str | int]) -> NDArray[np.int64]:
    return np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64)


def _outcomes(
    plan: Plan,
    subject: SubjectRecord,
    one: Answers | None,
    held: Sequence[_ReadingValues],
    shared: _Values,
    parts: _Values,
) -> list[Outcome]:
    """What is known of the items, ``held``, and of one system's answers.

    ``shared`` and ``parts`` say which items share something, and which part of the benchmark each is from.
    """

    def kept(spec: ReadingSpec, values: _Values) -> Outcome:
        typed = spec.typed(dict(values), examples=plan.task.examples)
        return Outcome(key=plan.reading(subject, spec.name, {}).key, status="done", values=typed)

    found = [kept(*each) for each in held]
    if one is None:
        return found
    found += [kept(more.spec, more.values) for more in one.more]
    if (share := one.mean) is not None:
        clean = {"accuracy": share, "chance": np.array(0.0, dtype=np.float32), **shared}
        found.append(Outcome(key=plan.clean(subject).key, status="done", values=clean))
    if one.right is not None and one.samples is not None:
        answers = {} if one.answers is None else {"answers": one.answers}
        found.append(kept(SAMPLES, {"right": one.right, "samples": one.samples, **answers, **parts}))
    if one.probability is not None:
        found.append(kept(LABEL_PROBABILITIES, {"probability": one.probability}))
    return found
