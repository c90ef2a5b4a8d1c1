"""WT504: from k samples an item, is more solved, or the same with more certainty? pass@k as curves with bands."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Hypothesis, Margin, NoAnswer, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import PAIR, Words
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core import seeds
from wheeltap.core.plain import fixed, many
from wheeltap.core.records import Estimate, SubjectRecord
from wheeltap.core.section import Block, Table
from wheeltap.stats.clusters import Groups
from wheeltap.stats.effect import score_interval, share_interval, without_point
from wheeltap.stats.evidence import NoEvidence
from wheeltap.stats.sample import Sample
from wheeltap.stats.simultaneous import band
from wheeltap.suites.lens.audits import sections
from wheeltap.suites.lens.audits.headline import amount, lines
from wheeltap.suites.lens.audits.sections import TryCurve
from wheeltap.suites.lens.specs import SAMPLES, SamplesSettings
from wheeltap.suites.lens.stats.passk import SolvedItems, entropy, pass_all, pass_at, solved

ALL: Final = 512
"""Numbers of tries up to which every one is looked at; beyond, so many in equal ratios."""

MOST_GROUPS: Final = 8
"""Parts of a benchmark that are shown by themselves."""

Counts = NDArray[np.int64]

SHOWN: Final = 50
"""Items that only one of two solves, in a report."""

SOLVED: Final = "Solved at least once"


def tries(most: int) -> tuple[int, ...]:
    """Numbers of tries from 1 to ``most``."""
    if most <= ALL:
        return tuple(range(1, most + 1))
    return tuple(sorted({round(k) for k in np.geomspace(1, most, ALL)}))


def _parts(one: "SubjectAnswers") -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Places of all items, and of those of the largest parts of the benchmark by its number."""
    yield "", np.arange(len(one.right))
    if one.group is not None:
        counts = [int(count) for count in np.bincount(one.group)]
        largest = sorted(range(len(counts)), key=lambda name: -counts[name])[:MOST_GROUPS]
        for name in sorted(name for name in largest if 0 < counts[name] < len(one.right)):
            yield str(name), np.flatnonzero(one.group == name)


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
        more: tuple[Estimate, ...] = ()
        if read.answers is not None:
            name, values = "entropy of answers", entropy(read.answers)
            more = (without_point(score_interval(values, bounded=False, groups=case.groups, name=name, unit="nats")),)
        tries = f"{most:,} right answers" if most > 1 else "a right answer"
        said = f"solves {once} of the items at one try, {within} within {most:,}, and gives {tries} to {always}."
        found = f"{read.name} {said}"
        return [Hypothesis(test=None, status="measured", found=found, brief=said, beside=(once, within, always, *more))]

    def judge(self, case: Case) -> Verdict:
        """Also what is claimed of each pair; curves, bands and items for the page."""
        verdict, plan = super().judge(case), case.plan
        held, gaps, blocks = list[SubjectAnswers](), list[TryCurve](), list[Block]()
        for subject in plan.subjects:
            with suppress(NoAnswer):
                held.append(self.read(case, subject))
        if not held:
            return verdict
        most = min(one.fewest for one in held)
        curves = [curve for one in held for curve in self._curves(case, one, None, tries(most))]
        for rival in held[1:] if held[0].name == plan.reference.name else []:
            gaps += self._curves(case, held[0], rival, tries(most))
            drafts, tables = self._pair(case, held[0], rival)
            verdict.drafts += drafts
            blocks += tables
        verdict.sections += sections.tries(curves, gaps, blocks, self._notes(case, held, most))
        return verdict

    def _curves(
        self, case: Case, one: SubjectAnswers, two: SubjectAnswers | None, ks: tuple[int, ...]
    ) -> Iterator[TryCurve]:
        """For each part of the benchmark pass@k, or the second's less the first's, item by item.

        The band of the whole is over groups, where there are.
        """
        at, name, names = np.array(ks) - 1, one.name if two is None else f"{one.name} vs {two.name}", case.plan.names
        known = {} if names is None else {str(at): part or "(none)" for at, part in enumerate(names.groups)}
        gap = None if two is None else np.subtract(*(pass_at(*held.counts, most=ks[-1])[:, at] for held in (two, one)))
        for group, rows in _parts(one):
            counts = one.right[rows], one.samples[rows]
            made = band(
                pass_at(*counts, most=ks[-1])[:, at] if gap is None else gap[rows], difference=gap is not None,
                groups=None if group else case.groups, rng=seeds.generator(case.plan.seed, "band", name, group),
            )  # fmt: skip
            yield TryCurve(
                subject=name, group=known.get(group, group), items=len(rows), ks=ks, band=made,
                always=pass_all(*counts, most=ks[-1])[:, at].mean(axis=0) if gap is None else None,
            )  # fmt: skip

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
                items = "every item" if few == len(one.samples) else many(few, "item")
                rest = np.min([other.samples for other in held], axis=0)
                more = rest[rest > most]
                beyond = f"; on the other {len(more):,} it would end at {more.min():,}" if len(more) else ""
                notes.append(f"k ends at {most:,}: {one.name} has only {many(most, 'answer')} to {items}{beyond}.")
        return tuple(notes)

    def _pair(self, case: Case, one: SubjectAnswers, two: SubjectAnswers) -> tuple[list[Hypothesis], list[Block]]:
        """What is claimed of a pair, and tables of what each solves at least once."""
        name, trials = f"{one.name} vs {two.name}", [self.trial(case.plan, subject) for subject in case.plan.subjects]
        drafts = [self.draft(case, name, self._once(case, one, two), trials)]
        if not np.array_equal(one.samples, two.samples):
            why = (
                f"Not every item has as many answers by both ({one.name} {one.many} an item, {two.name} {two.many}), "
                "so which are solved at least once is not comparable. pass@k is."
            )
            return [*drafts, self.unanswered(name, NoAnswer("not_applicable", why), title=SOLVED)], []
        found = solved(one.counts, two.counts, alpha=case.plan.alpha)
        drafts.append(self.draft(case, name, _solved(one, two, found, case.groups), trials))
        return drafts, _tables(one, two, found, () if case.plan.names is None else case.plan.names.items)

    def _once(self, case: Case, one: SubjectAnswers, two: SubjectAnswers) -> Hypothesis:
        gap = (two.right / two.samples - one.right / one.samples)[None, :]
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin  # of shares: as it is
        name = f"difference at one try ({two.name} - {one.name})"
        sample = Sample(gap, 1.0, groups=case.groups)
        test = sample.effect(margin=margin, name=name, unit="share of items")
        more = (test.value or 0.0) > 0.0
        first, second = (float((held.right / held.samples).mean()) for held in (one, two))
        said = (
            f"At one try {two.name} solves {fixed(100 * abs(test.value or 0.0), 1)} points "
            f"{'more' if more else 'fewer'} than {one.name} (pass@1 {fixed(first, 3)} to {fixed(second, 3)}; "
            f"difference {amount(test)})."
        )
        return Hypothesis(
            test=test, margin=margin, evidence=sample, words=PAIR, found=said, alarm=not more,
            otherwise=said, title="Difference at one try (pass@1)",
        )  # fmt: skip


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


def _tables(one: SubjectAnswers, two: SubjectAnswers, found: SolvedItems, ids: tuple[str, ...]) -> list[Block]:
    """How many items each of two solves at least once, and those that one alone solves, the surest first."""
    places, tried = (*found.first, *found.second), f"{one.fewest:,} {'try' if one.fewest == 1 else 'tries'}"
    counts = (f"{count:,}" for count in (found.both, len(found.first), len(found.second), found.neither))
    table = Table(
        title=f"Items solved at least once in {tried}",
        heads=("", "both", f"only {one.name}", f"only {two.name}", "neither", "balance", "single items that are sure"),
        rows=((f"{one.name} vs {two.name}", *counts, f"exact p {found.p:.2g}",
               f"{sum(found.sure) or 'none'} of {len(places):,}"),), place="first",
    )  # fmt: skip
    shown = sorted(range(len(places)), key=lambda at: found.each[at])[:SHOWN]
    few = f" ({len(shown)} of them)" if len(shown) < len(places) else ""
    items = Table(
        title=f"The {len(places):,} items that one alone solves, the surest first{few}: right answers of "
        f"{one.fewest:,}, and p of Fisher's exact test, by itself",
        heads=("item", one.name, two.name, "p"), place="folded",
        rows=tuple(((ids[item] if ids else "") or f"item {item + 1}", str(one.right[item]), str(two.right[item]),
                    f"{found.each[at]:.2g}") for at in shown for item in places[at : at + 1]),
    )  # fmt: skip
    return [table, *([items] if shown else [])]
