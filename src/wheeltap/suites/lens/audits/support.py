"""WT504: from k samples an item, is more solved, or the same with more certainty? pass@k as curves with bands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Hypothesis, Margin, NoAnswer, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import PAIR, Words
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core import seeds
from wheeltap.core.records import Estimate, SubjectRecord
from wheeltap.stats.clusters import Groups
from wheeltap.stats.effect import score_interval, share_interval, without_point
from wheeltap.stats.evidence import NoEvidence
from wheeltap.stats.sample import Sample
from wheeltap.stats.simultaneous import Band, band
from wheeltap.suites.lens.audits import sections
from wheeltap.suites.lens.audits.headline import amount, lines
from wheeltap.suites.lens.record import ChangedItem, Support, TryCurve, TryGap
from wheeltap.suites.lens.specs import SAMPLES, SamplesSettings
from wheeltap.suites.lens.stats.passk import pass_all, pass_at, runs_of
from wheeltap.suites.lens.stats.support import SolvedItems, entropy, solved

ALL: Final = 512
"""Numbers of tries up to which every one is looked at; beyond, so many in equal ratios."""

MOST_GROUPS: Final = 8
"""Parts of a benchmark that are shown by themselves."""


class AnswerCounts(Protocol):
    """Answers of one subject, counted; see ``SubjectAnswers``."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def right(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def samples(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...  # noqa: D102
    @property
    def group(self) -> NDArray[np.int64] | None: ...  # noqa: D102


def tries(most: int) -> tuple[int, ...]:
    """Numbers of tries from 1 to ``most``."""
    if most <= ALL:
        return tuple(range(1, most + 1))
    return tuple(sorted({round(k) for k in np.geomspace(1, most, ALL)}))


def curves_of(
    held: Sequence[AnswerCounts], ks: tuple[int, ...], *, seed: int, groups: Groups | None
) -> tuple[TryCurve, ...]:
    """One curve for each subject and part of the benchmark; the band of the whole is over groups, where there are."""
    return tuple(_curve(one, part, ks, seed, groups) for one in held for part in _parts(one))


def _curve(
    one: AnswerCounts, part: tuple[str, NDArray[np.intp]], ks: tuple[int, ...], seed: int, groups: Groups | None
) -> TryCurve:
    (group, rows), at, most = part, np.array(ks) - 1, ks[-1]
    right, samples = one.right[rows], one.samples[rows]
    solved = pass_at(right, samples, most=most)[:, at]
    made = band(solved, groups=None if group else groups, rng=_rng(seed, one.name, group))
    return TryCurve(
        subject=one.name, group=group, items=len(rows), ks=ks, solved=_floats(made.mean), low=_ends(made.low),
        high=_ends(made.high), always=_floats(pass_all(right, samples, most=most)[:, at].mean(axis=0)),
    )  # fmt: skip


def gaps_of(
    one: AnswerCounts, two: AnswerCounts, ks: tuple[int, ...], *, seed: int, groups: Groups | None
) -> tuple[TryGap, ...]:
    """The second's pass@k minus the first's, item by item, for each part of the benchmark."""
    at, name = np.array(ks) - 1, f"{one.name} vs {two.name}"
    solved = [pass_at(*held.counts, most=ks[-1])[:, at] for held in (one, two)]
    gap = solved[1] - solved[0]
    return tuple(
        _gap(
            band(gap[rows], difference=True, groups=None if group else groups, rng=_rng(seed, name, group)),
            ks,
            (name, group, len(rows)),
        )
        for group, rows in _parts(one)
    )


def _gap(made: Band, ks: tuple[int, ...], which: tuple[str, str, int]) -> TryGap:
    more, fewer = made.low > 0.0, made.high < 0.0
    name, group, items = which
    return TryGap(
        subject=name, group=group, items=items, ks=ks, gap=_floats(made.mean),
        low=_ends(made.low), high=_ends(made.high), more=runs_of(ks, more), fewer=runs_of(ks, fewer),
        undecided=runs_of(ks, ~(more | fewer)),
    )  # fmt: skip


def listed_items(
    one: NDArray[np.int64], two: NDArray[np.int64], found: SolvedItems, *, most: int
) -> tuple[ChangedItem, ...]:
    """Items that only one of two solves, the surest first."""
    order = sorted(range(len(found.each)), key=lambda at: found.each[at])[:most]
    places = (*found.first, *found.second)
    return tuple(
        ChangedItem(item=places[at], id="", first=int(one[places[at]]), second=int(two[places[at]]), p=found.each[at])
        for at in order
    )


def _parts(one: AnswerCounts) -> Iterator[tuple[str, NDArray[np.intp]]]:
    yield "", np.arange(len(one.right))
    if one.group is not None:
        counts = [int(count) for count in np.bincount(one.group)]
        largest = sorted(range(len(counts)), key=lambda name: -counts[name])[:MOST_GROUPS]
        for name in sorted(name for name in largest if 0 < counts[name] < len(one.right)):
            yield str(name), np.flatnonzero(one.group == name)


def _rng(seed: int, name: str, group: str) -> np.random.Generator:
    return seeds.generator(seed, "band", name, group)


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _ends(values: NDArray[Any]) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)


Counts = NDArray[np.int64]

SHOWN: Final = 50
"""Items that only one of two solves, in a report."""


class SupportSettings(SamplesSettings, frozen=True, kw_only=True):
    """Thresholds.

    Attributes:
        margin: Smallest difference at one try of interest; the plan's, where it is not given.
    """

    margin: Margin | None = None


@final
@dataclass(frozen=True, eq=False)
class SubjectAnswers:
    """Answers of one subject.

    Attributes:
        name: Of the subject.
        right: ``[item]``.
        samples: ``[item]``.
        answers: ``[item, draw]``, where known.
        group: ``[item]``, which part of the benchmark, where known.
    """

    name: str
    right: Counts
    samples: Counts
    answers: Counts | None
    group: Counts | None

    @property
    def counts(self) -> tuple[Counts, Counts]:
        """Right answers and samples of each item."""
        return self.right, self.samples

    @property
    def fewest(self) -> int:
        """Samples of the item that has fewest: the largest number of tries that is defined for all."""
        return int(self.samples.min())

    @property
    def many(self) -> str:
        """Answers to an item, in words."""
        most = int(self.samples.max())
        return f"{most:,}" if most == self.fewest else f"{self.fewest:,} to {most:,}"


@final
class SupportAudit(SingleReadingAudit[SubjectAnswers]):
    """pass@k with bands, the tries at which the order is decided, and items solved at least once, with censoring."""

    name = "support"
    code = "WT504"
    title = "Reasoning or leaderboard"
    brief = "pass@k"
    reads = (
        "How often k tries are enough, from n recorded tries at each item. A higher score at one try can be new "
        "ability, or the same ability with more certainty: then fewer items are solved within many tries."
    )
    asks = "benchmark"
    answer = staticmethod(lines)
    settings_type = SupportSettings
    settings: SupportSettings
    reading = SAMPLES

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> SubjectAnswers:
        """See ``SingleReadingAudit.parsed``."""

        def whole(name: str) -> Counts | None:
            return read[name].astype(np.int64) if name in read else None

        right, samples = read["right"].astype(np.int64), read["samples"].astype(np.int64)
        return SubjectAnswers(subject.name, right, samples, whole("answers"), whole("group"))

    def singles(self, case: Case, subject: SubjectRecord, read: SubjectAnswers) -> list[Hypothesis]:
        """pass@1, pass@k and pass^k at the largest k: measured, and held against nothing."""
        most = read.fewest
        once, within, always = (
            share_interval(values, groups=case.groups, name=name, unit="share of items")
            for values, name in (
                (read.right / read.samples, "pass@1"),
                (pass_at(*read.counts, most=most)[:, -1], f"pass@{most}"),
                (pass_all(*read.counts, most=most)[:, -1], f"pass^{most}"),
            )
        )
        more = () if read.answers is None else (_nats(entropy(read.answers), case.groups),)
        tries = f"{most:,} right answers" if most > 1 else "a right answer"
        said = f"solves {once} of the items at one try, {within} within {most:,}, and gives {tries} to {always}."
        found = f"{read.name} {said}"
        return [Hypothesis(test=None, status="measured", found=found, brief=said, beside=(once, within, always, *more))]

    def judge(self, case: Case) -> Verdict:
        """Also what is claimed of each pair; curves, bands and items for the page."""
        verdict = super().judge(case)
        held, gaps, supports = list[SubjectAnswers](), list[TryGap](), list[Support]()
        for subject in case.plan.subjects:
            try:
                held.append(self.read(case, subject))
            except NoAnswer:
                continue
        if not held:
            return verdict
        most = min(one.fewest for one in held)
        curves = curves_of(held, tries(most), seed=case.plan.seed, groups=case.groups)
        for rival in held[1:] if held[0].name == case.plan.reference.name else []:
            gaps += gaps_of(held[0], rival, tries(most), seed=case.plan.seed, groups=case.groups)
            drafts, found = self._pair(case, held[0], rival)
            verdict.drafts += drafts
            supports += found
        names = case.plan.names
        parts = {} if names is None else {str(at): name or "(none)" for at, name in enumerate(names.groups)}
        if names is not None and names.items:
            supports = [replace(one, items=tuple(replace(kept, id=names.items[kept.item]) for kept in one.items))
                        for one in supports]  # fmt: skip
        verdict.sections += sections.tries(
            [replace(one, group=parts.get(one.group, one.group)) for one in curves],
            [replace(one, group=parts.get(one.group, one.group)) for one in gaps],
            supports, self._notes(case, held, most),
        )  # fmt: skip
        return verdict

    def _notes(self, case: Case, held: list[SubjectAnswers], most: int) -> tuple[str, ...]:
        """How many answers there are and how they were drawn, where a live model was sampled; and where k ends."""
        notes = list[str]()
        if case.plan.reference.role != "recorded":
            drawn = f"drawn from the probabilities of the options at temperature {self.settings.temperature or 1.0:g}"
            same = ", with the same random numbers for all" if len(held) > 1 else ""
            notes.append(f"{len(held[0].right):,} items, {held[0].many} answers each, {drawn}{same}.")
        for one in held:
            few = int((one.samples == most).sum())
            if any(int(other.samples.max()) > most for other in held) and few:
                items = "every item" if few == len(one.samples) else f"{few:,} item{'' if few == 1 else 's'}"
                rest = np.min([other.samples for other in held], axis=0)
                more = rest[rest > most]
                beyond = f"; on the other {len(more):,} it would end at {more.min():,}" if len(more) else ""
                only = f"{most:,} answer{'' if most == 1 else 's'}"
                notes.append(f"k ends at {most:,}: {one.name} has only {only} to {items}{beyond}.")
        return tuple(notes)

    def _pair(
        self, case: Case, one: SubjectAnswers, two: SubjectAnswers
    ) -> tuple[list[Hypothesis], tuple[Support, ...]]:
        name, trials = _pair(one, two), [self.trial(case.plan, subject) for subject in case.plan.subjects]
        drafts = [self.draft(case, name, self._once(case, one, two), trials)]
        if not np.array_equal(one.samples, two.samples):
            why = (
                f"Not every item has as many answers by both ({one.name} {one.many} an item, {two.name} {two.many}), "
                "so which are solved at least once is not comparable. pass@k is."
            )
            return [*drafts, self.unanswered(name, NoAnswer("not_applicable", why), title=SOLVED)], ()
        found = solved(one.counts, two.counts, alpha=case.plan.alpha)
        drafts.append(self.draft(case, name, _solved(one, two, found, case.groups), trials))
        return drafts, (_support(one, two, found),)

    def _once(self, case: Case, one: SubjectAnswers, two: SubjectAnswers) -> Hypothesis:
        gap = (two.right / two.samples - one.right / one.samples)[None, :]
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin  # of shares: as it is
        name = f"difference at one try ({two.name} - {one.name})"
        sample = Sample(gap, 1.0, groups=case.groups)
        test = sample.effect(margin=margin, name=name, unit="share of items")
        more = (test.value or 0.0) > 0.0
        first, second = (float((held.right / held.samples).mean()) for held in (one, two))
        said = (
            f"At one try {two.name} solves {100 * abs(test.value or 0.0):.1f} points {'more' if more else 'fewer'} "
            f"than {one.name} (pass@1 {first:.3f} to {second:.3f}; difference {amount(test)})."
        )
        return Hypothesis(
            test=test, margin=margin, evidence=sample, words=PAIR, found=said, alarm=not more,
            otherwise=said, title="Difference at one try (pass@1)",
        )  # fmt: skip


SOLVED: Final = "Solved at least once"


def _solved(one: SubjectAnswers, two: SubjectAnswers, found: SolvedItems, groups: Groups | None) -> Hypothesis:
    """The balance of items lost and gained, by an exact test, or over groups; of single items, how many are sure."""
    lost, gained, most = len(found.first), len(found.second), one.fewest
    sample = Sample(((two.right > 0).astype(np.float64) - (one.right > 0))[None, :], 1.0, groups=groups)
    effect = sample.effect(name="items gained less items lost", unit="share of items")
    p, kind = found.p, "exact p"
    if groups is None:
        effect = replace(effect, p=p, method=f"{effect.method}, exact sign test")
    else:
        p, kind = 1.0 if effect.p is None else effect.p, "p over groups"
    shrank = lost > gained
    sure = sum(found.sure)
    counts = f"{lost} that {one.name} alone solves, {gained} that {two.name} alone solves ({kind} {p:.2g})"
    single = (
        f"Of these {lost + gained} items {sure or 'none'} {'is' if sure in (0, 1) else 'are'} sure by "
        f"{'itself' if sure in (0, 1) else 'themselves'}: an item that was solved once may be missed by chance."
    )
    said = f"Within {most:,} tries {two.name} solves {'fewer' if shrank else 'more'} items: {counts}."
    return Hypothesis(
        test=effect, evidence=NoEvidence(), by_example=groups is None, found=f"{said} {single}",
        otherwise=f"Within {most:,} tries: {counts}. {single}", title=SOLVED,
        words=Words("shrank" if shrank else "grew", "equivalent", "may differ"), alarm=shrank,
    )  # fmt: skip


def _support(one: SubjectAnswers, two: SubjectAnswers, found: SolvedItems) -> Support:
    return Support(
        subject=_pair(one, two), samples=one.fewest, both=found.both, first=len(found.first),
        second=len(found.second), neither=found.neither, p=found.p, sure=sum(found.sure),
        items=listed_items(one.right, two.right, found, most=SHOWN),
    )  # fmt: skip


def _pair(one: SubjectAnswers, two: SubjectAnswers) -> str:
    return f"{one.name} vs {two.name}"


def _nats(values: NDArray[np.float64], groups: Groups | None) -> Estimate:
    found = score_interval(values, bounded=False, groups=groups, name="entropy of answers", unit="nats")
    return without_point(found)
