"""WT502: does a model see that a sentence has several readings? The tests of AmbiEnt, item by item, with intervals."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Audit, Case, Hypothesis, Margin, NoAnswer, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import PAIR, Words
from wheeltap.core import seeds
from wheeltap.core.plain import fixed, many
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section, Table
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.base import ReadingSpec
from wheeltap.stats.clusters import Groups
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.sample import Sample
from wheeltap.stats.wilson1927 import wilson, wilson_of_items
from wheeltap.suites.lens.audits.headline import amount, lines, pairs_of
from wheeltap.suites.lens.audits.sections import MOST_SYSTEMS
from wheeltap.suites.lens.specs import (
    CONTINUATIONS,
    DISTRACTOR,
    LABEL_PROBABILITIES,
    LABEL_SETS,
    NO_ANSWER,
    NOT_ASKED,
    READING,
    REWRITES,
    STATEMENTS,
    TEMPLATES,
    TRUE,
    ContinuationSettings,
    Size,
)

Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

THRESHOLDS: Final = np.arange(1, 100) / 100
"""Probabilities from which a label is in the set: the best of these is taken."""

STATEMENTS_TEST: Final = "statements about readings"
WENT_ON: Final = "continuations of readings"
LABELLED: Final = "sets of labels"
CONFIRMED: Final = "gold rewrites"

FEWEST_LABELLED: Final = 2
"""Items that sets of labels take: the threshold of each half is tuned on the other."""

PUBLISHED: Final = (16, 50)
"""Items of which gpt-4's rewrites were right, of those that people judged.

Source: arXiv:2304.14399, table 3 (32 %, 50 items a model)."""

PART: Final = 192
"""Items of a trial: what is broken off loses so many."""

_TITLES: Final = {
    WENT_ON: "Readings against a distractor",
    LABELLED: "Sets of labels",
    CONFIRMED: "Gold rewrites, judged by people",
}

_WORDS: Final = {
    WENT_ON: Words("above chance", "not above chance", "may be above chance"),
    LABELLED: Words("above the most common set", "not above the most common set", "may be above it"),
}

_TOO_FEW: Final = (
    f"There is one item: sets of labels take {FEWEST_LABELLED} or more, for the threshold of each half is tuned on the "
    "other."
)

SENTENCES: Final = 3
"""Two readings and a distractor."""

STATED: Final = 16.0
"""Passes over the items that statements about two readings take: eight, each some two items long."""


@final
@dataclass(frozen=True, eq=False)
class Share:
    """A share of right answers, in words and with its interval."""

    what: str
    estimate: Estimate
    answers: int
    items: int

    @property
    def ends(self) -> str:
        """Of the interval, in percent."""
        low, high = self.estimate.low, self.estimate.high
        return "no interval" if low is None or high is None else f"{fixed(100 * low, 1)}, {fixed(100 * high, 1)}"

    @property
    def counted(self) -> str:
        """The number of answers, and of items where that is another one."""
        return f"{self.answers:,}" + (f" of {many(self.items, 'item')}" if self.answers != self.items else "")

    @property
    def said(self) -> str:
        """In percent, with the numbers of answers and items."""
        return f"{fixed(100 * (self.estimate.value or 0.0), 1)} % [{self.ends}] (n {self.counted})"

    def cell(self, *, short: bool) -> str:
        """As the table holds it, without the number of items where that is to be short."""
        of = f"{self.answers:,}" if short else self.counted
        return f"{fixed(100 * (self.estimate.value or 0.0), 1)} [{self.ends}]; {of}"


@final
@dataclass(frozen=True, eq=False)
class TestScores:
    """What one test gave of one subject.

    Attributes:
        test: Which, in words.
        items: ``[item]``, the tested ones' places among the task's.
        values: ``[item]``, the score of each, 0 to 1.
        chance: ``[item]``, what counts as no skill; ``None`` where nothing does.
        shares: With intervals, the most informative first.
        words: What was found, in a sentence.
    """

    test: str
    items: Places
    values: FloatArray
    chance: FloatArray | None
    shares: tuple[Share, ...]
    words: str


def merged(parts: Sequence[Arrays], name: str) -> NDArray[np.float64]:
    """One array of all parts: each says nothing of the items of the others."""
    several = np.stack([part[name] for part in parts])
    return (several.min(0) if name == "answer" else several.sum(0)).astype(np.float64)


def of_statements(parts: Sequence[Arrays]) -> TestScores | None:
    """Right answers to statements; each answer that was not given counts as wrong, and is left out, both.

    ``None`` where nothing was asked.
    """
    answer = merged(parts, "answer")
    asked, none = answer != NOT_ASKED, answer == NO_ANSWER
    if not asked.any():
        return None
    right = answer == np.where([is_true for _, is_true in TEMPLATES], TRUE, 1 - TRUE)
    item = np.broadcast_to(np.arange(len(answer))[:, None, None], answer.shape)
    items = np.flatnonzero(asked.any((1, 2)))
    joint = (right | ~asked).all((1, 2))[items]
    missing = int(none.sum())
    shares = [_over(right, asked, item, STATEMENTS_TEST)]
    if missing:
        shares.append(_over(right, asked & ~none, item, f"{STATEMENTS_TEST}, no answer left out"))
    shares.append(_plain(joint, "all statements of an item"))
    each = np.arange(len(TEMPLATES))
    shares += [_over(right, asked & (each == at), item, f'"{text}"') for at, (text, _) in enumerate(TEMPLATES)]
    counted = f", {missing:,} without an answer counted as wrong ({shares[1].said} without them)" if missing else ""
    mass = ""
    if all("mass" in part for part in parts):
        held = merged(parts, "mass")[asked]
        mass = f" P(True) + P(False) is {held.mean():.2f} in the mean."
    words = (
        f"judges {shares[0].said} of the statements about readings rightly{counted}, and all statements of an item for "
        f"{shares[1 + (missing > 0)].said}. Which answer is right follows from the template alone.{mass}"
    )
    values = (right & asked).sum((1, 2))[items] / asked.sum((1, 2))[items]
    return TestScores(STATEMENTS_TEST, items, values, None, tuple(shares), words)


def of_continuations(parts: Sequence[Arrays]) -> TestScores | None:
    """Sentences of which every reading goes on more like the ambiguous one than the distractor does."""
    divergence, kind = merged(parts, "divergence"), merged(parts, "kind")
    reading, other = kind == READING, kind == DISTRACTOR
    asked = reading.any(2) & other.any(2)
    if not asked.any():
        return None
    far = np.where(other, divergence, np.inf).min(2)
    near = np.where(reading, divergence, -np.inf).max(2)
    right = near < far
    share = _plain(right[asked], WENT_ON, items=int(asked.any(1).sum()))
    items = np.flatnonzero(asked.any(1))
    by_chance = np.where(asked, 1.0 / (reading.sum(2) + 1.0), 0.0)
    several = asked.sum(1)[items]
    counts = merged(parts, "continuations")[asked]
    drawn = f"{counts.min():.0f}" if counts.min() == counts.max() else f"{counts.min():.0f} to {counts.max():.0f}"
    chance = float(by_chance[asked].mean())
    words = (
        f"finds every reading closer to the ambiguous sentence than a distractor, by how it continues them, for "
        f"{share.said}: "
        f"{int(right[asked].sum()):,} of {share.answers:,} sentences, by chance {fixed(100 * chance, 1)} % "
        f"(KL from {drawn} continuations of each)."
    )
    values = (right & asked).sum(1)[items] / several
    return TestScores(WENT_ON, items, values, by_chance.sum(1)[items] / several, (share,), words)


def of_labels(probability: FloatArray, right: Flags, *, seed: int) -> TestScores:
    """Items whose set of labels is exactly right.

    Items are put in two halves at random; the threshold of each is the best one on the other, and so is the set that
    is always given by whom it is held against.

    Args:
        probability: ``[item, label]``.
        right: ``[item, label]``, whether some reading has the label; of ``FEWEST_LABELLED`` items or more.
        seed: Of the halves.
    """
    order = seeds.generator(seed, "ambiguity", "halves").permutation(len(right))
    halves = order[::2], order[1::2]
    exact, common = np.zeros(len(right), dtype=bool), np.zeros(len(right), dtype=bool)
    chosen: list[float] = []
    for own, other in (halves, halves[::-1]):
        tuned = [float((sets(probability[other], at) == right[other]).all(1).mean()) for at in THRESHOLDS]
        chosen.append(float(THRESHOLDS[int(np.argmax(tuned))]))
        exact[own] = (sets(probability[own], chosen[-1]) == right[own]).all(1)
        several, counts = np.unique(right[other], axis=0, return_counts=True)
        common[own] = (right[own] == several[counts.argmax()]).all(1)
    ambiguous = right.sum(1) > 1
    shares = [_plain(exact, LABELLED)]
    shares += [
        _plain(exact[rows], f"{LABELLED}, {name}")
        for rows, name in ((ambiguous, "ambiguous items"), (~ambiguous, "others"))
        if rows.any()
    ]
    more = [_plain(common, "always the most common set")]
    single = _plain(
        np.take_along_axis(right, probability.argmax(1)[:, None], 1)[:, 0], "most likely label is in the set"
    )
    words = (
        f"gives exactly the right set of labels for {shares[0].said}; always giving the most common set is right for "
        f"{more[0].said}. Threshold {' and '.join(f'{one:.2f}' for one in chosen)}, each tuned on the other half."
    )
    kept = (*shares, *more, single)
    return TestScores(LABELLED, np.arange(len(right)), exact.astype(float), common.astype(float), kept, words)


def sets(probability: FloatArray, threshold: float) -> Flags:
    """The labels with at least this probability; the most likely one, where none has it: ``[item, label]``."""
    chosen = np.asarray(probability >= threshold, dtype=np.bool_)
    none = np.flatnonzero(~chosen.any(1))
    chosen[none, probability[none].argmax(1)] = True
    return chosen


def of_rewrites(read: Arrays) -> TestScores:
    """Items of which people confirm every gold rewrite: the ceiling of whoever writes readings."""
    right = read["right"].astype(bool)
    share, published = _plain(right, CONFIRMED), Share("gpt-4", wilson(*PUBLISHED, name="gpt-4"), 50, 50)
    words = (
        f"confirm all gold rewrites, each as plausible and with its label, of {share.said}: {int(right.sum()):,} of "
        f"{len(right):,}. The published figure for rewrites of gpt-4 is {PUBLISHED[0]} of {PUBLISHED[1]} items, "
        f"{fixed(100 * PUBLISHED[0] / PUBLISHED[1], 1)} % [{published.ends}]."
    )
    return TestScores(CONFIRMED, np.arange(len(right)), right.astype(float), None, (share,), words)


def _plain(right: Flags, what: str, *, items: int | None = None) -> Share:
    return Share(
        what, wilson(int(right.sum()), len(right), name=what), len(right), len(right) if items is None else items
    )


def _over(right: Flags, asked: Flags, item: NDArray[np.intp], what: str) -> Share:
    of = item[asked]
    return Share(what, wilson_of_items(right[asked], of, name=what), len(of), len(np.unique(of)))


class AmbiguitySettings(ContinuationSettings, frozen=True, kw_only=True):
    """How continuations are drawn, and thresholds.

    Attributes:
        size: Items of a trial: what is broken off loses so many.
        margin: Smallest difference of shares of interest; the plan's, where not given.
    """

    size: Size | None = PART
    margin: Margin | None = None


@final
class AmbiguityAudit(Audit):
    """Statements about readings, continuations of readings, sets of labels: shares of right answers."""

    name = "ambiguity"
    code = "WT502"
    title = "Statements about readings"
    brief = "ambiguity"
    reads = (
        "Whether a model sees that a sentence has several readings: by statements that are true or false, by how it "
        "goes on from each reading, and by the set of labels that it holds possible. One label an item hides this."
    )
    asks = "benchmark"
    answer = staticmethod(lines)
    settings_type = AmbiguitySettings
    settings: AmbiguitySettings
    spares: ClassVar[dict[str, int]] = {"continuations": 4}

    # ---- asking -----------------------------------------------------------------------------------------------

    def _parts(self, plan: Plan, subject: SubjectRecord, spec: ReadingSpec) -> list[Trial]:
        """A trial for so many items each; of recorded answers, one."""
        if subject.role == "recorded":
            return [plan.reading(subject, spec.name, {})]
        size = min(self.settings.size or plan.task.examples, plan.task.examples)
        names = [field.name for field in msgspec.structs.fields(spec.settings_type)]
        asked: dict[str, Scalar] = {name: getattr(self.settings, name) for name in names}
        parts = range(math.ceil(plan.task.examples / size))
        return [plan.reading(subject, spec.name, {**asked, "size": size, "part": at}) for at in parts]

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Labels of every item, and statements and continuations part by part."""
        labels = [plan.reading(subject, spec.name, {}) for spec in (LABEL_SETS, LABEL_PROBABILITIES)]
        parts = [trial for spec in (STATEMENTS, CONTINUATIONS) for trial in self._parts(plan, subject, spec)]
        return [*labels, *parts]

    def ask(self, case: Case) -> list[Trial]:
        """The readings; of a task without readings, nothing more than the labels."""
        if not case.known(case.plan.baselines()):
            return []
        asked: list[Trial] = []
        for subject in case.plan.subjects:
            first, *rest = self.readings(case.plan, subject)
            outcome = case.outcome(first)
            asked += [first, *(rest if outcome is not None and outcome.status == "done" else [])]
        return asked

    def most(self, plan: Plan) -> int:
        """Readings of every subject."""
        return sum(len(self.readings(plan, subject)) for subject in plan.subjects)

    def most_passes(self, plan: Plan) -> float:
        """As if every item had one ambiguous sentence with two readings, and each token were read once."""
        tokens = max(plan.task.tokens / plan.task.examples, 1.0)
        drawn = 2 * SENTENCES * self.settings.continuations * self.settings.longest / tokens
        return len(plan.subjects) * (1.0 + STATED + drawn)

    # ---- judging ----------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Verdict:
        """What each test says of each subject and pair; all shares in a table."""
        verdict, held = Verdict(), list[tuple[SubjectRecord, dict[str, TestScores]]]()
        for subject in case.plan.subjects:
            try:
                found = self._read(case, subject)
            except NoAnswer as gap:
                verdict.drafts.append(self.unanswered(subject.name, gap))
                continue
            held.append((subject, found))
            if case.plan.task.examples < FEWEST_LABELLED and subject.role != "recorded":
                few = NoAnswer("not_applicable", _TOO_FEW)
                verdict.drafts.append(self.unanswered(subject.name, few, title=_TITLES[LABELLED]))
            known = list(self._known(case, subject))
            verdict.drafts += [
                self.draft(case, subject.name, self._claim(case, subject, one), known) for one in found.values()
            ]
        for one, two in pairs_of(held):
            verdict.drafts += self._pair(case, one, two)
        shares = {(subject.name, share.what): share for subject, found in held for one in found.values()
                  for share in one.shares}  # fmt: skip
        verdict.sections += _table(shares)
        return verdict

    def _known(self, case: Case, subject: SubjectRecord) -> Iterator[Trial]:
        more = [case.plan.reading(subject, REWRITES.name, {})] if subject.role == "recorded" else []
        yield from (trial for trial in [*self.readings(case.plan, subject), *more] if case.known([trial]))

    def _read(self, case: Case, subject: SubjectRecord) -> dict[str, TestScores]:
        """What each test gave, by its name; tests that were not made of recorded answers are left out."""
        recorded, plan = subject.role == "recorded", case.plan

        def arrays(trials: list[Trial]) -> list[Arrays] | None:
            return None if recorded and not case.known(trials) else [case.reading(trial) for trial in trials]

        right = arrays([plan.reading(subject, LABEL_SETS.name, {})])
        statements = arrays(self._parts(plan, subject, STATEMENTS))
        continuations = arrays(self._parts(plan, subject, CONTINUATIONS))
        made = [
            None if statements is None else of_statements(statements),
            None if continuations is None else of_continuations(continuations),
        ]
        p = arrays([plan.reading(subject, LABEL_PROBABILITIES.name, {})])
        if right is not None and p is not None and case.plan.task.examples >= FEWEST_LABELLED:
            made.append(of_labels(p[0]["probability"], right[0]["right"].astype(bool), seed=plan.seed))
        rewrites = arrays([plan.reading(subject, REWRITES.name, {})]) if recorded else None
        made.append(None if rewrites is None else of_rewrites(rewrites[0]))
        found = {one.test: one for one in made if one is not None}
        if not found:
            raise NoAnswer("not_applicable", "No item is ambiguous." if p is None else _TOO_FEW)
        return found

    def _claim(self, case: Case, subject: SubjectRecord, one: TestScores) -> Hypothesis:
        """Shares alone, or a share held against what takes no skill."""
        beside = tuple(share.estimate for share in one.shares)
        title, said = _TITLES.get(one.test, ""), f"{subject.name} {one.words}"
        if one.chance is None:
            return Hypothesis(test=None, status="measured", title=title, found=said, brief=one.words, beside=beside)
        cells = (one.values - one.chance)[None, :]
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin
        name = f"{one.test}, above {'chance' if one.test == WENT_ON else 'the most common set'}"
        sample = Sample(cells, 1.0, groups=_of_items(case, one.items))
        test = sample.effect(margin=margin, name=name, unit="share of items")
        return Hypothesis(
            test=test, margin=margin, evidence=sample, one_sided=True, alarm=False, title=title,
            words=_WORDS[one.test], found=said, otherwise=said, brief=one.words, beside=beside,
        )  # fmt: skip

    def _pair(
        self,
        case: Case,
        one: tuple[SubjectRecord, dict[str, TestScores]],
        two: tuple[SubjectRecord, dict[str, TestScores]],
    ) -> list[Hypothesis]:
        """For each test that both took, the second's score minus the first's on the items that both were asked."""
        names = (one[0].name, two[0].name)
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin
        trials = [trial for subject, _ in (one, two) for trial in self._known(case, subject)]
        drafts: list[Hypothesis] = []
        for name, first in one[1].items():
            if name not in two[1] or name == CONFIRMED:
                continue
            second = two[1][name]
            _, at, to = np.intersect1d(first.items, second.items, return_indices=True)
            cells = (second.values[to] - first.values[at])[None, :]
            sample = Sample(cells, 1.0, groups=_of_items(case, first.items[at]))
            test = sample.effect(margin=margin, name=f"difference ({names[1]} - {names[0]})", unit="share of items")
            said = (
                f"In the test of {name}, {names[1]} scores {fixed(100 * second.values[to].mean(), 1)} % and "
                f"{names[0]} {fixed(100 * first.values[at].mean(), 1)} % in the mean of {len(at):,} items (difference "
                f"{amount(test)})."
            )
            claim = Hypothesis(
                test=test, margin=margin, evidence=sample, words=PAIR, alarm=(test.value or 0.0) < 0.0,
                title=f"{_TITLES.get(name, self.title)}: difference", found=said, otherwise=said, brief=said,
            )  # fmt: skip
            drafts.append(self.draft(case, " vs ".join(names), claim, trials))
        return drafts


def _table(shares: Mapping[tuple[str, str], Share]) -> list[Section]:
    """Shares of right answers, by subject and test, with intervals and counts; nothing where nothing was tested."""
    names, tests = (dict.fromkeys(each) for each in zip(*shares, strict=True)) if shares else ({}, {})
    subjects = list(names)[:MOST_SYSTEMS]
    rows = tuple(
        (what, *("" if (one := shares.get((name, what))) is None else one.cell(short=len(subjects) > 1)
                 for name in subjects))
        for what in tests
    )  # fmt: skip
    table = Table(heads=("right, % (95 % Wilson; n)", *subjects), rows=rows, place="first")
    return [Section(title="Tests of ambiguity", blocks=(table,))] if shares else []


def _of_items(case: Case, items: Places) -> Groups | None:
    """The groups of some examples."""
    return None if case.groups is None else case.groups[items]
