"""What all audits of a dictionary share: which dictionaries are read, how a score is held against nulls, the answer."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, ClassVar, Final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Count, Hypothesis, Margin, NoAnswer
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Words
from wheeltap.audits.controls import Check, controls_of, silent, surely
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core.plain import fixed
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section
from wheeltap.core.settings import Settings
from wheeltap.plans.plan import Plan
from wheeltap.stats.evidence import Members, Smallest
from wheeltap.stats.sample import Sample
from wheeltap.suites.dictionaries.audits.scores import SHARE, NullComparison, Scores, enough, least_sure
from wheeltap.suites.dictionaries.specs import KINDS, NULLS, kinds_of

BETTER: Final = Words("better than every null", "no better than a null", "may be better than every null")
SUFFICIENT, CONTROLS = "Dictionary is sufficient", "Dictionary controls the attributes"
INTERPRETABLE = "Features stand for values"

_FOR: Final = {SUFFICIENT: "keeping the task", CONTROLS: "edits", INTERPRETABLE: "features that stand for values"}
"""What each claim beside nulls is about."""

_FEWEST: Final = 4  # random dictionaries that a control takes
_TESTS: Final = 8  # of a report on one dictionary, which one correction is over
_NOISE: Final = 2.0  # standard deviations over reseeds up to which a lead is said to be no larger than their noise
_MISSING: Final = "Not asked beside: "

_NO_ENTRIES: Final = (
    "It is asked of a dictionary beside its nulls: wheeltap dictionary check. Of a model with dictionaries, "
    "give the setting entries."
)


def no_better(findings: Sequence[Finding]) -> list[Finding]:
    """Claims by which a dictionary is no better than a null."""
    return [one for one in findings if one.title in _FOR and one.status == "excluded"]


def lines(subjects: Sequence[SubjectRecord], findings: Sequence[Finding], sections: Sequence[Section]) -> list[str]:
    """A line for each model whose dictionary was judged: first the answer in capitals, then what it rests on."""
    del sections
    each = ((one.name, [row for row in findings if row.subject == one.name and row.title in _FOR]) for one in subjects)
    return [_line(name, asked) for name, asked in each if asked]


def _line(subject: str, asked: Sequence[Finding]) -> str:
    worse, found = no_better(asked), [one for one in asked if one.status == "found"]
    opened = [one for one in asked if one.status == "inconclusive"]
    rest = [one for one in asked if one not in (*worse, *found, *opened)]
    if len(rest) == len(asked):
        return f"NO ANSWER on the dictionary of {subject}: {asked[0].because}"
    start = "NO BETTER THAN A RANDOM DICTIONARY" if worse else "CANNOT TELL" if opened else "BETTER THAN EVERY NULL"
    words = (("no better than a null for", worse), ("better than every null for", found), ("undecided for", opened),
             ("without an answer for", rest))  # fmt: skip
    parts = [f"{verb} {', '.join(_FOR[one.title] for one in some)}" for verb, some in words if some]
    because = " ".join(one.because for one in asked)
    briefs = [*(one.brief for one in asked if one.brief), *dict.fromkeys(re.findall(rf"{_MISSING}[^.]*[.]", because))]
    named = [int(one) for one in re.findall(r"--seeds (\d+)", " ".join(one.because for one in opened))]
    more = f" More nulls would decide (--seeds {max(named)})." if named and start == "CANNOT TELL" else ""
    return f"{start}: the dictionary of {subject} is {'; '.join(parts)}. {' '.join(briefs)}{more}".rstrip()


class DictionaryAuditSettings(Settings, frozen=True, kw_only=True):
    """Which dictionaries, and thresholds.

    Attributes:
        entries: Kinds of the model's dictionaries in their order, separated by commas; the first is the one under test.
        budget: Features that an edit may change.
        pairs: Of each attribute, at most.
        least: Pairs of an attribute whose answer an exact patch must change.
        margin: Smallest lead over a null of interest.
        min_effect: Lead that the null control must have been able to see.
        notes: What the report says beside its findings, in paragraphs.
    """

    entries: str = ""
    budget: Count = 4
    pairs: Annotated[int, msgspec.Meta(ge=2)] = 200
    least: Count = 20
    margin: Margin = 0.05
    min_effect: Margin = 0.25
    notes: str = ""

    def __post_init__(self) -> None:
        kinds_of(self.entries)


class DictionaryAudit(SingleReadingAudit[Arrays]):
    """Reads some of a model's dictionaries."""

    asks = "dictionary"
    group = "dictionary"
    answer = staticmethod(lines)
    settings_type = DictionaryAuditSettings
    settings: DictionaryAuditSettings
    each: ClassVar[float] = 8.0  # about how many passes one reading costs
    more: ClassVar[tuple[str, ...]] = ()  # titles of further claims on one subject
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {"pairs": 40, "least": 10}

    def checks(self, case: Case) -> list[Check]:
        """Checks on the instrument."""
        return []

    def more_controls(self, case: Case) -> list[Control]:
        """See ``SingleReadingAudit.more_controls``."""
        return controls_of(*self.checks(case)) if self.kinds else []

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """See ``SingleReadingAudit.passes``."""
        return self.each

    def titles(self) -> tuple[str, ...]:
        """See ``SingleReadingAudit.titles``."""
        return (self.title, *self.more)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of all dictionaries."""
        return kinds_of(self.settings.entries)

    @property
    def one_of_each(self) -> list[int]:
        """The dictionary, one with a frozen decoder and a random one."""
        return [self.kinds.index(kind) for kind in ("own", "frozen decoder", "random") if kind in self.kinds]

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """One of each dictionary."""
        return [self.trial(plan, subject, entry=entry) for entry in range(len(self.kinds))]

    def read(self, case: Case, subject: SubjectRecord, *, seed: int = 0, **changed: Scalar) -> Arrays:
        """What one dictionary gave: the one under test, where no other ``entry`` is asked for.

        Raises:
            NoAnswer: If it gave nothing, or the model's dictionaries are not those of the settings.
        """
        if not self.kinds:
            raise NoAnswer("not_applicable", _NO_ENTRIES)
        trial = self.trial(case.plan, subject, seed=seed, **{"entry": 0, **changed})
        return self.parsed(case, subject, case.reading(trial))

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Arrays:
        """See ``SingleReadingAudit.parsed``."""
        if (known := [KINDS[int(one)] for one in read["kinds"]]) != list(self.kinds):
            raise NoAnswer("error", f"The model's dictionaries are {', '.join(known)}; the setting entries says "
                           f"{', '.join(self.kinds)}.")  # fmt: skip
        return read


class BesideNullsAudit(DictionaryAudit):
    """Holds a score of the dictionary against those of nulls."""

    what: ClassVar[str]  # the score in words
    bound: ClassVar[float | None] = None  # most that a difference of two rows can be; None where nothing bounds it
    bounded: ClassVar[bool] = True  # whether scores lie in [0, 1]

    @abstractmethod
    def scores(self, read: Arrays) -> Scores:
        """The score, from one reading.

        Raises:
            NoAnswer: If it has none.
        """

    def known(
        self, case: Case, subject: SubjectRecord, scores: Callable[[Arrays], Scores] | None = None
    ) -> dict[str, list[Scores]]:
        """Scores of the dictionaries that have one, by kind."""
        found = dict[str, list[Scores]]()
        for entry, kind in enumerate(self.kinds):
            with suppress(NoAnswer):
                made = (scores or self.scores)(self.read(case, subject, entry=entry))
                found.setdefault(kind, []).append(made)
        return found

    def judged(self, one: Scores) -> Scores:
        """What of a score counts beside nulls."""
        return one

    def beside(self, case: Case, kind: str, own: Scores, others: Sequence[Scores]) -> NullComparison:
        """A score beside those of one kind of null, as far as they count."""
        groups, margin = case.groups_of(own.rows), self.settings.margin
        counted = [self.judged(one) for one in others]
        return NullComparison(kind, self.judged(own), counted, groups, margin, self.bound, self.bounded)

    def effect(self, case: Case, own: Scores, name: str) -> Estimate:
        """A score with its interval over rows."""
        return Sample(own.values[None], groups=case.groups_of(own.rows)).effect(name=name, unit=SHARE)

    def singles(self, case: Case, subject: SubjectRecord, read: Arrays) -> list[Hypothesis]:
        """The claim that it is better than every null."""
        own, known = self.scores(read), self.known(case, subject)
        nulls = [self.beside(case, kind, own, known[kind]) for kind in NULLS if kind in known]
        if not nulls:
            raise NoAnswer("skipped", "There is no null beside it: a score alone says nothing.")
        alpha, score = case.plan.alpha / _TESTS, self.effect(case, own, self.what)
        (kind, test), best = least_sure(nulls), max(nulls, key=lambda null: null.score)
        # The dictionary itself is none of the reseeds: one from elsewhere may be far from all of them.
        seeds = [one.mean for one in known.get("reseed", [])]
        noise = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
        least = best.own.mean - best.score
        beyond = " No larger than a reseed's noise." if 0.0 < least <= _NOISE * noise else ""
        missing = [name for name in NULLS if name not in known]
        some = f" {_MISSING}{', '.join(missing)}." if missing else ""
        asked = sorted(key.removesuffix("|status") for key in read if key.endswith("|status"))
        unknown = [name for name in asked if name not in own.parts]
        some += f" Not measured, for too few examples or pairs: {', '.join(unknown)}." if unknown else ""
        also = dict(own.also)
        for name in own.also:
            also[f"{name}, {best.kind}"] = float(np.mean([one.also[name] for one in best.others]))
        said = (
            f"{self.what}: {score}; {means_of(known, count=True)}. The lead over the best null ({best.kind}) is "
            f"{fixed(least, 3)}; judged is the one shown least surely, {test} (over {kind}).{beyond}{some}"
        )
        return [Hypothesis(
            test=test, margin=self.settings.margin, words=BETTER, one_sided=True, alarm=False, title=self.title,
            # The lead allows for rows in groups itself; that it is within the margin is shown over groups.
            by_example=False,
            # The mean lead over rows and nulls is surer of small leads. That over one more null shows, from few rows or
            # groups, that a dictionary far below its nulls is no better: the first must allow for rows nobody drew.
            evidence=Smallest([(one, null.margin) for null in nulls
                               for one in (null.sample, Members(null.lead, "more"))]),
            undecided="" if test.p is not None and test.p <= alpha else enough(nulls, alpha),
            beside=(score, *(one.mean for one in nulls), *self._parts(case, own, known),
                    *(Estimate.exact(name, value, SHARE) for name, value in also.items()),
                    Estimate.exact("standard deviation over reseeds", noise, SHARE, n=len(seeds))),
            found=f"The dictionary is better than every null. {said}",
            otherwise=f"The dictionary is not shown to be better than every null. {said}",
            brief=f"{self.what}: {fixed(own.mean, 2)}, {best.kind} {fixed(best.score, 2)}.{beyond}",
        )]  # fmt: skip

    def _parts(self, case: Case, own: Scores, known: Mapping[str, list[Scores]]) -> list[Estimate]:
        """By attribute: the score, and the mean lead over each kind of null."""
        found = list[Estimate]()
        for name, part in own.parts.items():
            found.append(self.effect(case, part, name))
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


def called(kind: str) -> str:
    """A kind of dictionary in a sentence."""
    return "the dictionary" if kind == "own" else kind


def means_of(known: Mapping[str, Sequence[Scores]], *, count: bool = False) -> str:
    """Mean scores of each kind but the dictionary's own, in a sentence; with how many there are."""
    return ", ".join(
        f"{kind} {fixed(float(np.mean([one.mean for one in some])), 3)}{f' ({len(some)})' * count}"
        for kind, some in known.items()
        if kind != "own"
    )
