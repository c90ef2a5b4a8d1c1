"""What all audits of a dictionary share: which dictionaries are read, and how a score is held against nulls."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, ClassVar, Final

import msgspec
import numpy as np

from wheeltap.audits.base import Audit, Case, Count, Hypothesis, Margin, NoAnswer, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Words
from wheeltap.audits.controls import Check, controls_of, silent, surely
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import fixed
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.base import ReadingSpec
from wheeltap.stats.evidence import Smallest
from wheeltap.stats.sample import Sample
from wheeltap.suites.dictionaries.audits.headline import lines
from wheeltap.suites.dictionaries.audits.scores import SHARE, NullComparison, Scores
from wheeltap.suites.dictionaries.specs import KINDS, NULLS, budgets_of, kinds_of

BETTER: Final = Words("better than every null", "no better than a null", "may be better than every null")

_FEWEST: Final = 4
"""Random dictionaries that a control takes."""

_NOISE: Final = 2.0
"""Standard deviations over reseeds up to which a lead is said to be no larger than their noise."""

_NO_ENTRIES: Final = (
    "It is asked of a dictionary beside its nulls: wheeltap dictionary check. Of a model with dictionaries, "
    "give the setting entries."
)


class DictionaryAuditSettings(Settings, frozen=True, kw_only=True):
    """Which dictionaries, and thresholds.

    Attributes:
        entries: Kinds of the model's dictionaries in their order, separated by commas; the first is the one under test.
        budget: Features that an edit may change.
        budgets: Numbers of features that edits are read for, separated by commas.
        pairs: Of each attribute, at most.
        least: Pairs of an attribute whose answer an exact patch must change.
        margin: Smallest lead over a null of interest.
        min_effect: Lead that the null control must have been able to see.
    """

    entries: str = ""
    budget: Count = 4
    budgets: str = "2,4,8"
    pairs: Annotated[int, msgspec.Meta(ge=2)] = 200
    least: Count = 20
    margin: Margin = 0.05
    min_effect: Margin = 0.25

    def __post_init__(self) -> None:
        kinds_of(self.entries)
        if self.budget not in (known := budgets_of(self.budgets)):
            raise UsageError("The edit that is judged is not read.", where="setting budget",
                             expected=", ".join(map(str, known)), got=str(self.budget))  # fmt: skip

    @property
    def kinds(self) -> list[str]:
        """Of all dictionaries."""
        return list(kinds_of(self.entries))


class DictionaryAudit(Audit):
    """Reads some of a model's dictionaries.

    Attributes:
        reading: The spec of the reading.
        each: About how many passes one reading costs.
    """

    asks = "dictionary"
    group = "dictionary"
    answer = staticmethod(lines)
    settings_type = DictionaryAuditSettings
    settings: DictionaryAuditSettings
    reading: ClassVar[ReadingSpec]
    each: ClassVar[float] = 8.0
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {"pairs": 40, "budgets": "4", "least": 10}

    @abstractmethod
    def singles(self, case: Case, subject: SubjectRecord) -> list[Hypothesis]:
        """What is claimed of one model's dictionary.

        Raises:
            NoAnswer: If nothing can be.
        """

    def checks(self, case: Case) -> list[Check]:
        """Checks on the instrument."""
        return []

    @property
    def asked(self) -> list[int]:
        """Numbers of the dictionaries that are read."""
        return list(range(len(self.kinds)))

    @property
    def kinds(self) -> list[str]:
        """Of all dictionaries."""
        return self.settings.kinds

    def of_kind(self, *kinds: str) -> list[int]:
        """Numbers of the dictionaries of these kinds."""
        return [at for at, kind in enumerate(self.kinds) if kind in kinds]

    @property
    def one_of_each(self) -> list[int]:
        """The dictionary, one with a frozen decoder and a random one."""
        return [one for kind in ("own", "frozen decoder", "random") for one in self.of_kind(kind)[:1]]

    def trial(self, plan: Plan, subject: SubjectRecord, entry: int, **more: Scalar) -> Trial:
        """The reading of one dictionary."""
        names = {one.name for one in msgspec.structs.fields(self.reading.settings_type)}
        fields = (one.name for one in msgspec.structs.fields(self.settings_type))
        given: dict[str, Scalar] = {name: getattr(self.settings, name) for name in fields if name in names}
        return plan.reading(subject, self.reading.name, {**given, "entry": entry, **more})

    def read(self, case: Case, subject: SubjectRecord, entry: int, **more: Scalar) -> Arrays:
        """What one dictionary gave.

        Raises:
            NoAnswer: If it gave nothing, or the model's dictionaries are not those of the settings.
        """
        read = case.reading(self.trial(case.plan, subject, entry, **more))
        known = [KINDS[int(one)] for one in read["kinds"]]
        if known != self.kinds:
            raise NoAnswer("error", f"The model's dictionaries are {', '.join(known)}; the setting entries says "
                           f"{', '.join(self.kinds)}.")  # fmt: skip
        return read

    def trials(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Every reading of a subject."""
        return [self.trial(plan, subject, entry) for entry in self.asked]

    def ask(self, case: Case) -> list[Trial]:
        """The readings, once the clean passes are known."""
        if not case.known(case.plan.baselines()):
            return []
        return [trial for subject in case.plan.subjects for trial in self.trials(case.plan, subject)]

    def most(self, plan: Plan) -> int:
        """One for each dictionary."""
        return sum(len(self.trials(plan, subject)) for subject in plan.subjects)

    def most_passes(self, plan: Plan) -> float:
        """What they cost, about."""
        return self.each * self.most(plan)

    def judge(self, case: Case) -> Verdict:
        """What is claimed of each subject's dictionary, and the controls."""
        drafts = list[Hypothesis]()
        for subject in case.plan.subjects:
            try:
                if not self.kinds:
                    raise NoAnswer("not_applicable", _NO_ENTRIES)
                claims = self.singles(case, subject)
            except NoAnswer as gap:
                drafts += [self.unanswered(subject.name, gap, title=title) for title in self.titles()]
            else:
                drafts += [self.draft(case, subject.name, one, self.trials(case.plan, subject)) for one in claims]
        return Verdict(drafts, controls_of(*self.checks(case)) if self.kinds else [])

    def titles(self) -> tuple[str, ...]:
        """Of the claims on one subject."""
        return (self.title,)


class BesideNullsAudit(DictionaryAudit):
    """Holds a score of the dictionary against those of nulls.

    Attributes:
        what: The score in words.
        bound: Most that a difference of two rows can be; ``None`` where nothing bounds it.
        bounded: Whether scores lie in [0, 1].
    """

    what: ClassVar[str]
    bound: ClassVar[float | None] = None
    bounded: ClassVar[bool] = True

    @abstractmethod
    def scores(self, read: Arrays) -> Scores:
        """The score, from one reading.

        Raises:
            NoAnswer: If it has none.
        """

    def known(self, case: Case, subject: SubjectRecord) -> dict[str, list[Scores]]:
        """Scores of the dictionaries that have one, by kind."""
        found = dict[str, list[Scores]]()
        for entry, kind in enumerate(self.kinds):
            with suppress(NoAnswer):
                found.setdefault(kind, []).append(self.scores(self.read(case, subject, entry)))
        return {kind: several for kind, several in found.items() if several}

    def beside(self, case: Case, kind: str, own: Scores, others: Sequence[Scores]) -> NullComparison:
        """A score beside those of one kind of null."""
        return NullComparison(kind, own, others, case.groups_of(own.rows), self.bound, self.bounded)

    def singles(self, case: Case, subject: SubjectRecord) -> list[Hypothesis]:
        """The claim that it is better than every null."""
        own, known, margin = self.scores(self.read(case, subject, 0)), self.known(case, subject), self.settings.margin
        nulls = [self.beside(case, kind, own, known[kind]) for kind in NULLS if kind in known]
        if not nulls:
            raise NoAnswer("skipped", "There is no null beside it: a score alone says nothing.")
        # Better than every kind: all must be shown (Berger 1982), so that several kinds cost no correction.
        tested = [(one.above(margin, "more"), null.kind, one) for null in nulls for one in (null.lead,)]
        p, kind, lead = max(tested, key=lambda one: (1.0 if one[0] is None else one[0], -(one[2].value or 0.0)))
        test = msgspec.structs.replace(lead.estimate, p=None if any(one is None for one, _, _ in tested) else p)
        if self.bounded and test.low is not None and test.high is not None:
            test = msgspec.structs.replace(test, low=max(test.low, -1.0), high=min(test.high, 1.0))
        score = Sample(own.values[None], groups=case.groups_of(own.rows)).effect(name=self.what, unit=SHARE)
        # The dictionary itself is none of the reseeds: one from elsewhere may be far from all of them.
        seeds = [one.mean for one in known.get("reseed", [])]
        noise = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
        best = max(nulls, key=lambda null: null.score)
        least = own.mean - best.score
        beyond = " No larger than a reseed's noise." if 0.0 < least <= _NOISE * noise else ""
        each = (f"{one} {fixed(float(np.mean([some.mean for some in several])), 3)} ({len(several)})"
                for one, several in known.items() if one != "own")  # fmt: skip
        missing = [name for name in NULLS if name not in known]
        some = f" Not asked beside: {', '.join(missing)}." if missing else ""
        said = (
            f"{self.what}: {score}; {', '.join(each)}. The lead over the best null ({best.kind}) is {fixed(least, 3)}; "
            f"judged is the one shown least surely, {test} (over {kind}).{beyond}{some}"
        )
        return [Hypothesis(
            test=test, margin=margin, words=BETTER, one_sided=True, alarm=False, title=self.title,
            # The lead allows for rows in groups itself; that it is within the margin is shown over groups.
            by_example=False, evidence=Smallest([(one.sample, margin) for one in nulls]),
            beside=(score, *(one.mean for one in nulls), *self._parts(case, own, known),
                    Estimate.exact("standard deviation over reseeds", noise, SHARE, n=len(seeds))),
            found=f"The dictionary is better than every null. {said}",
            otherwise=f"The dictionary is not shown to be better than every null. {said}",
            brief=f"{self.what}: {fixed(own.mean, 2)}, {best.kind} {fixed(best.score, 2)}.{beyond}{some}",
        )]  # fmt: skip

    def _parts(self, case: Case, own: Scores, known: Mapping[str, list[Scores]]) -> list[Estimate]:
        """By attribute: the score, and the mean lead over each kind of null."""
        found = list[Estimate]()
        for name, part in own.parts.items():
            groups = case.groups_of(part.rows)
            found.append(Sample(part.values[None], groups=groups).effect(name=name, unit=SHARE))
            for kind in NULLS:
                if others := [one.parts[name] for one in known.get(kind, []) if name in one.parts]:
                    mean = self.beside(case, kind, part, others).mean
                    found.append(msgspec.structs.replace(mean, name=f"{name}, {mean.name}"))
        return found

    def checks(self, case: Case) -> list[Check]:
        """A random dictionary beside random ones must show nothing."""
        return [(f"{self.code} a random dictionary beside random ones", "null", partial(self._null, case))]

    def _null(self, case: Case, name: str) -> Control:
        known, margin = self.known(case, case.plan.reference).get("random", []), self.settings.margin
        if len(known) < _FEWEST:
            raise NoAnswer("skipped", f"It takes {_FEWEST} random dictionaries; {len(known)} have a score.")
        gap = self.beside(case, "other random ones", known[0], known[1:]).lead.toward("more", margin=margin)
        if gap.low is None:
            raise NoAnswer("skipped", "All random dictionaries have the same score: it could not have failed.")
        because = f"{self.what} of one random dictionary beside {len(known) - 1} others: {gap} more."
        return surely(silent(name, gap, margin=margin, min_effect=self.settings.min_effect, because=because), gap)
