"""WT113: what a scheme costs on each slice of the examples, tested with all else; recall of each class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Hypothesis, NoAnswer
from wheeltap.audits.case import TOO_FEW
from wheeltap.audits.claims import LOSS, Edge, Words
from wheeltap.audits.losses import Losses
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import fixed
from wheeltap.core.records import SET, SLICE, Estimate, Finding, Instrument, SubjectRecord, TaskRecord, Trial
from wheeltap.core.section import Section, Table
from wheeltap.stats.clusters import Groups

CODE: Final = "WT113"

INSTRUMENT: Final = Instrument(
    code=CODE, name="Slices", asks="slices",
    reads="The loss of each scheme on some of the examples alone: one test set, one class, one value of a column. A "
    "scheme may be safe on average and ruin one slice; every slice has a verdict, corrected with all others.",
)  # fmt: skip

CLASS: Final = "class"
"""What examples are divided by where it is their right option."""

MOST: Final = 20
"""Slices of one report: each is tested under every scheme, and pays for all others."""

FEWEST: Final = 20
"""Examples (groups, where they come in groups) of a slice below which nothing is concluded of it."""

_ON: Final = " on "


@final
@dataclass(frozen=True)
class Slice:
    """Some of a task's examples.

    Attributes:
        name: What they are called: ``class 7``.
        on: ``[example]``, which ones.
        among: How many slices there are: intervals hold for all of them together.
    """

    name: str
    on: NDArray[np.bool_]
    among: int = 1

    @property
    def level(self) -> float:
        """Of an interval."""
        return 1.0 - (1.0 - _LEVEL) / self.among

    def too_few(self, groups: Groups | None) -> str:
        """Why nothing is concluded of it, in words; empty where it has enough examples.

        Args:
            groups: Of its examples.
        """
        n = int(self.on.sum())
        several = n if groups is None else len(np.unique(groups))
        if min(n, several) >= FEWEST:
            return ""
        what = f"{n} example{'s' * (n != 1)}" + ("" if several == n else f" in {several}")
        return f"{what}: from {FEWEST} on{'' if several == n else ' such groups'} something is said of {self.name}."

    def of(self, whole: Losses) -> Losses:
        """The losses on its examples."""
        return replace(whole, scores=whole.scores[:, self.on], clean=whole.clean[self.on], on=self.on)

    def require_left(self, there: Losses, subject: SubjectRecord, edge: Edge) -> None:
        """Raises ``NoAnswer`` if a subject has little to lose here.

        Args:
            there: See ``of``.
            subject: Whose losses these are.
            edge: The margin here.
        """
        case, before = there.case, float(there.clean.mean())
        above = case.plan.task.sign * (before - case.chance)
        if edge.value <= 0.0 or (case.plan.task.bounded and above <= 2.0 * edge.value):
            because = (
                f"{subject.name} scores {before:.3g} on {self.name}, chance is {case.chance:.3g}: little can be lost."
            )
            raise NoAnswer("not_applicable", because)


def require_slices(names: Sequence[str], known: Mapping[str, NDArray[np.integer]], task: TaskRecord) -> None:
    """Raises ``UsageError`` if examples are not divided by one of these, slices are too many, or have no scores.

    Args:
        names: What was asked for.
        known: The values of what divides the examples.
        task: The examples.
    """
    if task.range is not None and set(names) - {SET}:
        raise UsageError(
            f"Slices have no {task.measure} of their own here.",
            where="--slice",
            expected="a measure that is a mean over examples, such as accuracy",
            got=f"{task.measure}, which is one number of all examples",
            do="This measure has no slices: give each as a test set of its own, --data A.npz --data B.npz. Of one "
            "class for each example there are slices with --measure accuracy, of several labels with label_accuracy.",
        )
    several = 0
    for name in names:
        if name not in known:
            raise UsageError(
                f"The task has no slices by {name}.",
                where="--slice",
                expected=", ".join(known) or "a task of labels, or one with factors",
                got=name,
                do="Give a factor: factor_NAME in .npz, factors in .jsonl, task.with_factors({name: numbers}).",
            )
        several += len(known[name])
    if several > MOST:
        raise UsageError(
            "There are too many slices.",
            where="--slice",
            expected=f"at most {MOST} values in all: each is tested under every scheme, and pays for all others",
            got=f"{several:,} of {', '.join(names)}",
            do="Give a factor with fewer values: groups of classes, say, or one class and the rest.",
        )


def slices_of(case: Case, names: Iterable[str]) -> list[Slice]:
    """Every value of what is named, by the clean pass of the reference.

    Raises:
        NoAnswer: If it was kept before clean passes held that.
    """
    clean, found = case.outcome(case.plan.clean(case.plan.reference)), list[Slice]()
    for name in (one for one in names if one != SET):
        labels = None if clean is None else clean.values.get(f"{SLICE}{name}")
        if labels is None:
            raise NoAnswer("error", f"The stored clean pass does not say what {name} is: give a new --store.")
        found += [Slice(f"{name} {value}", labels == value) for value in np.unique(labels)]
    return [replace(one, among=len(found)) for one in found]


def part_of(row: Finding) -> tuple[str, str]:
    """The scheme and the slice that a finding is about, in words; the names of both may have an "on" of their own."""
    places = (at for at in range(len(row.title)) if row.title.startswith(_ON, at))
    at = next((at for at in places if (row.scheme or "").endswith(row.title[at:])), len(row.title))
    return row.title[:at], row.title[at + len(_ON) :]


def title_of(scheme: str, part: str) -> str:
    """What a scheme on a slice is called: a name of its own, so that a part may have a limit of its own."""
    return f"{scheme}{_ON}{part}"


def undecided(few: str, words: Words, *, title: str) -> Hypothesis:
    """What is said of a slice of too few examples."""
    return Hypothesis(
        test=None, status="inconclusive", found=few, title=title, words=replace(words, undecided=TOO_FEW)
    )  # fmt: skip


def sliced(whole: Losses, part: Slice, subject: SubjectRecord, *, title: str, own: float | None) -> Hypothesis:
    """The loss on a slice, with an interval that holds for all slices of a scheme together.

    Args:
        whole: On all examples.
        part: The slice.
        subject: Whose loss it is.
        title: See ``title_of``.
        own: The margin, where it is not the plan's.
    """
    case, there = whole.case, part.of(whole)
    n = there.scores.shape[1]
    if few := part.too_few(there.groups):
        return undecided(few, LOSS, title=title)
    edge, before = there.edge(subject, own=own), float(there.clean.mean())
    part.require_left(there, subject, edge)
    lost = there.loss(f"loss {title}", edge=edge, level=part.level)
    words = f"{subject.name} loses {case.plan.task.loss_text(lost)} at {title} ({n:,} examples)"
    claim = there.claim(lost, edge=edge, stated=words)
    beside = (there.score, Estimate.exact("before", before, case.plan.task.measure, n=n), *claim.beside)
    return replace(claim, words=LOSS, title=title, beside=beside)


_LEVEL: Final = 0.95


def recalls(case: Case, subject: SubjectRecord, rows: Sequence[tuple[str, Sequence[Trial]]]) -> list[Section]:
    """Recall of each class without and with each scheme, folded away; of many classes those that lose most.

    Args:
        case: Plan and outcomes.
        subject: A classifier.
        rows: Schemes in words, with their trials.
    """
    clean = case.measured([case.plan.clean(subject)], "accuracy")
    known = [(label, one) for label, trials in rows if (one := case.measured(trials, "accuracy")) is not None]
    if case.plan.task.common is None or clean is None or not known:
        return []
    try:
        several = slices_of(case, [CLASS])
    except NoAnswer:
        return []
    table = [(part, [float(one[:, part.on].mean()) for one in (clean, *(one for _, one in known))]) for part in several]
    if len(table) > MOST:
        table = sorted(table, key=lambda row: min(row[1]) - row[1][0])[:MOST]
    cells = tuple(
        (part.name, f"{int(part.on.sum()):,}", *(fixed(100 * share, 1) for share in shares)) for part, shares in table
    )
    more = f" The {MOST} of {len(several):,} classes that lose most." if len(several) > MOST else ""
    title = f"In percent of the class, mean over draws, without intervals: --slice {CLASS} tests each class.{more}"
    heads = ("class", "examples", "undisturbed", *(label for label, _ in known))
    blocks = (Table(title=title, heads=heads, rows=cells, most=MOST),)
    whose = f": {subject.name}" if case.rivals else ""
    return [Section(title=f"Recall of each class{whose}", subject=subject.name, blocks=blocks, folded=True)]
