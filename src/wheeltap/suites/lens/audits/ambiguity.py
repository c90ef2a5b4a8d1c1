"""WT502: does a model see that a sentence has several readings? Three tests of AmbiEnt, each with its interval."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Audit, Case, Draft, Tested, Unanswered, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import PAIR, Words
from wheeltap.audits.limits import Margin
from wheeltap.core.records import Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.base import ReadingSpec
from wheeltap.stats.clusters import Groups
from wheeltap.stats.sample import Sample
from wheeltap.suites.lens.audits.ambiguity_scores import (
    CONFIRMED,
    FEWEST_LABELLED,
    LABELLED,
    WENT_ON,
    Places,
    Scores,
    of_continuations,
    of_labels,
    of_rewrites,
    of_statements,
)
from wheeltap.suites.lens.audits.headline import amount
from wheeltap.suites.lens.record import LensRecord, section
from wheeltap.suites.lens.specs import (
    CONTINUATIONS,
    LABEL_PROBABILITIES,
    LABEL_SETS,
    REWRITES,
    STATEMENTS,
    ContinuationSettings,
    Size,
)

PART: Final = 192
"""Items of a trial: what is broken off loses so many."""

MOST: Final = 3
"""Systems up to which every pair is compared; of more, the first with each of the others."""

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
        verdict, held = Verdict(), list[tuple[SubjectRecord, dict[str, Scores]]]()
        for subject in case.plan.subjects:
            try:
                found = self._read(case, subject)
            except Unanswered as gap:
                verdict.drafts.append(self.unanswered(subject.name, gap))
                continue
            held.append((subject, found))
            verdict.drafts += self._too_few(case, subject)
            known = list(self._known(case, subject))
            verdict.drafts += [
                self.draft(case, subject.name, claim, known) for claim in self._claims(case, subject, found)
            ]
        pairs = combinations(held, 2) if len(held) <= MOST else ((held[0], other) for other in held[1:])
        for one, two in pairs:
            verdict.drafts += self._pair(case, one, two)
        rows = [share.row(subject.name) for subject, found in held for one in found.values() for share in one.shares]
        verdict.sections.append(section(LensRecord(recognized=tuple(rows))))
        return verdict

    def _known(self, case: Case, subject: SubjectRecord) -> Iterator[Trial]:
        more = [case.plan.reading(subject, REWRITES.name, {})] if subject.role == "recorded" else []
        yield from (trial for trial in [*self.readings(case.plan, subject), *more] if case.known([trial]))

    def _read(self, case: Case, subject: SubjectRecord) -> dict[str, Scores]:
        """What each test gave, by its name; tests that were not made of recorded answers are left out.

        Raises:
            Unanswered: If a reading of a live model failed, or nothing is known.
        """
        recorded, plan = subject.role == "recorded", case.plan

        def arrays(trials: list[Trial]) -> list[Arrays] | None:
            return None if recorded and not case.known(trials) else [case.reading(trial) for trial in trials]

        made: list[Scores | None] = []
        by_parts: list[tuple[ReadingSpec, Callable[[Sequence[Arrays]], Scores | None]]] = [
            (STATEMENTS, of_statements), (CONTINUATIONS, of_continuations),
        ]  # fmt: skip
        right = arrays([plan.reading(subject, LABEL_SETS.name, {})])
        for spec, scored in by_parts:
            parts = arrays(self._parts(plan, subject, spec))
            made.append(None if parts is None else scored(parts))
        p = arrays([plan.reading(subject, LABEL_PROBABILITIES.name, {})])
        if right is not None and p is not None and case.plan.task.examples >= FEWEST_LABELLED:
            made.append(of_labels(p[0]["probability"], right[0]["right"].astype(bool), seed=plan.seed))
        rewrites = arrays([plan.reading(subject, REWRITES.name, {})]) if recorded else None
        made.append(None if rewrites is None else of_rewrites(rewrites[0]))
        found = {one.test: one for one in made if one is not None}
        if not found:
            raise Unanswered("not_applicable", "No item is ambiguous." if p is None else _TOO_FEW)
        return found

    def _too_few(self, case: Case, subject: SubjectRecord) -> list[Draft]:
        """That sets of labels were not tested, where there are too few items for that alone."""
        if case.plan.task.examples >= FEWEST_LABELLED or subject.role == "recorded":
            return []
        return [self.unanswered(subject.name, Unanswered("not_applicable", _TOO_FEW), title=_TITLES[LABELLED])]

    def _claims(self, case: Case, subject: SubjectRecord, found: dict[str, Scores]) -> list[Tested]:
        return [self._claim(case, subject, one) for one in found.values()]

    def _claim(self, case: Case, subject: SubjectRecord, one: Scores) -> Tested:
        """Shares alone, or a share held against what takes no skill."""
        beside = tuple(share.estimate for share in one.shares)
        title, said = _TITLES.get(one.test, ""), f"{subject.name} {one.words}"
        if one.chance is None:
            return Tested(test=None, status="measured", title=title, found=said, brief=one.words, beside=beside)
        cells = (one.values - one.chance)[None, :]
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin
        name = f"{one.test}, above {'chance' if one.test == WENT_ON else 'the most common set'}"
        sample = Sample(cells, 1.0, groups=_of_items(case, one.items))
        test = sample.effect(margin=margin, name=name, unit="share of items")
        return Tested(
            test=test, margin=margin, evidence=sample, one_sided=True, alarm=False, title=title,
            words=_WORDS[one.test], found=said, otherwise=said, brief=one.words, beside=beside,
        )  # fmt: skip

    def _pair(
        self, case: Case, one: tuple[SubjectRecord, dict[str, Scores]], two: tuple[SubjectRecord, dict[str, Scores]]
    ) -> list[Draft]:
        """For each test that both took, the second's score minus the first's on the items that both were asked."""
        names = (one[0].name, two[0].name)
        trials = [trial for subject, _ in (one, two) for trial in self._known(case, subject)]
        drafts: list[Draft] = []
        for name, first in one[1].items():
            if name not in two[1] or name == CONFIRMED:
                continue
            claim = self._difference(case, names, first, two[1][name])
            drafts.append(self.draft(case, " vs ".join(names), claim, trials))
        return drafts

    def _difference(self, case: Case, names: tuple[str, str], first: Scores, second: Scores) -> Tested:
        _, at, to = np.intersect1d(first.items, second.items, return_indices=True)
        cells = (second.values[to] - first.values[at])[None, :]
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin
        sample = Sample(cells, 1.0, groups=_of_items(case, first.items[at]))
        test = sample.effect(margin=margin, name=f"difference ({names[1]} - {names[0]})", unit="share of items")
        said = (
            f"In the test of {first.test}, {names[1]} scores {100 * second.values[to].mean():.1f} % and {names[0]} "
            f"{100 * first.values[at].mean():.1f} % in the mean of {len(at):,} items (difference {amount(test)})."
        )
        return Tested(
            test=test, margin=margin, evidence=sample, words=PAIR, alarm=(test.value or 0.0) < 0.0,
            title=f"{_TITLES.get(first.test, self.title)}: difference", found=said, otherwise=said, brief=said,
        )  # fmt: skip


def _of_items(case: Case, items: Places) -> Groups | None:
    """The groups of some examples."""
    return None if case.groups is None else case.groups[items]


SENTENCES: Final = 3
"""Two readings and a distractor."""

STATED: Final = 16.0
"""Passes over the items that statements about two readings take: eight, each some two items long."""
