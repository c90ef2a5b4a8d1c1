"""WT501: is a model as close to people as people are to each other, item by item, also where they disagree?"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, cast, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Hypothesis, Margin, NoAnswer, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import PAIR, Words
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.core.section import Axis, Block, Chart, Series, Table
from wheeltap.core.settings import Settings
from wheeltap.plans.plan import Plan
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.effect import has_width, without_point
from wheeltap.suites.lens.audits import sections
from wheeltap.suites.lens.audits.headline import amount, lines, pairs_of
from wheeltap.suites.lens.audits.panel import (
    JS,
    SUBJECT,
    Beliefs,
    HalvesMeasure,
    Panel,
    ShareMeasure,
    among_people,
    hidden,
    in_words,
    one_label,
    panel_of,
)
from wheeltap.suites.lens.audits.sections import Closeness
from wheeltap.suites.lens.specs import LABEL_PROBABILITIES, VOTES
from wheeltap.suites.lens.stats.votes import (
    FLOOR,
    PanelHalves,
    among,
    js_distance,
    kl_divergence,
    manhattan,
    soft_accuracy,
    squared_to_all,
    total_variation,
    wasserstein,
)

Chosen = NDArray[np.bool_]

SPLIT, MOST_AGREE, ALL_AGREE = "fewer than two thirds agree", "two thirds or more agree", "all agree"

LEVELS: Final = 5
"""Levels of confidence in a picture of reliability, with equally many items each."""

FEWEST_ITEMS: Final = 10
"""Items of a band (of a level in it) below which nothing is said of it."""

FAR: Final = 20
"""Items that are listed."""

_FEWEST: Final = {SPLIT: 4, MOST_AGREE: 6, ALL_AGREE: 4}
"""By band, fewest votes of an item of which one less makes halves that can be in the band."""

What = Callable[[FloatArray, PanelHalves], FloatArray]
"""From probabilities ``[item, label]`` and the people in halves to ``[split, item]``."""

_TWO_THIRDS: Final = 2 / 3 - 1e-9

AGAINST: Final = "Distance to people, against that among people"
UNSURE: Final = "Confidence where people disagree"
CLOSER: Final = "Difference of distances to people"

REVERSED: Final = (
    "By squared distance to all people it is the other way ({}): "
    "JS distance to few votes favors a model that is too sure."
)
HALF: Final = "JS distance to half of the people"


def unsure(read: Beliefs, *, margin: float) -> Hypothesis:
    """Whether a model is surer of its most likely label than people who disagree are of it."""
    gap, items = _within(read, SPLIT, _more_sure)
    if items < FEWEST_ITEMS:
        few = f"Half of the people agrees by less than two thirds on {items:.0f} items; {FEWEST_ITEMS} are needed."
        return Hypothesis(test=None, status="not_applicable", title=UNSURE, found=few)
    sample = read.panel.sample(read.panel.by_halves(gap, fewest=_FEWEST[SPLIT]), bound=None)
    test = sample.effect(margin=margin, name="confidence less share of people", unit="probability")
    over = (test.value or 0.0) > 0.0
    sure, chose = (_mean(read, SPLIT, one) for one in (_confidence, _chose))
    numbers = (
        f"where half of the people agrees by less than two thirds (about {items:,.0f} items), {read.name} gives its "
        f"most likely label {sure:.3f}, and {chose:.3f} of the other half chose it (difference {test})."
    )
    if not has_width(test):
        said = f"{numbers[0].upper()}{numbers[1:]} It is the same on all of them, so there is no test."
        return Hypothesis(test=None, status="measured", title=UNSURE, found=said, beside=(without_point(test),))
    way = "overconfident" if over else "underconfident"
    said = f"{way.capitalize()} where people disagree: {numbers}"
    return Hypothesis(
        test=test, margin=margin, evidence=sample, alarm=over, title=UNSURE, found=said,
        otherwise=numbers[0].upper() + numbers[1:], words=Words(way, "calibrated", "may be off"),
        brief=f"{way} where people disagree (gives {sure:.3f} to labels that {chose:.3f} of them chose; difference "
        f"{amount(test)}).",
    )  # fmt: skip


def _more_sure(p: FloatArray, split: PanelHalves) -> FloatArray:
    return _confidence(p, split) - _chose(p, split)


def _confidence(p: FloatArray, split: PanelHalves) -> FloatArray:
    """Probability of the most likely label, ``[split, item]``."""
    return np.broadcast_to(p.max(1), split.one.shape[:2])


def _chose(p: FloatArray, split: PanelHalves) -> FloatArray:
    """Share of the smaller half who chose it, ``[split, item]``."""
    return soft_accuracy(split.target, p)


def bands(split: PanelHalves) -> Mapping[str, Chosen]:
    """By the name of each band, clearest last, which splits and items are in it, ``[split, item]``.

    One person agrees with himself: an item counts where the larger half has two or more.
    """
    agreed, several = split.other.max(-1), split.two.sum(-1) > 1
    whole = agreed > 1.0 - 1e-9
    return {
        SPLIT: several & (agreed < _TWO_THIRDS), MOST_AGREE: several & (agreed >= _TWO_THIRDS) & ~whole,
        ALL_AGREE: several & whole,
    }  # fmt: skip


def _within(read: Beliefs, band: str, what: What, rows: NDArray[np.bool_] | None = None) -> tuple[HalvesMeasure, float]:
    """A measure ``[split, item]`` whose mean over items is that of ``what`` over a band; and its number of items."""

    def parts(split: PanelHalves, at: NDArray[np.integer]) -> tuple[FloatArray, Chosen]:
        return what(read.p[at], split), bands(split)[band] & (True if rows is None else rows[at])

    values, chosen = parts(read.panel.halves, np.arange(len(read.p)))
    cells, items = among(values, chosen)
    mean, share = float(cells.mean()) if len(cells) else 0.0, items / len(read.p)

    def measure(split: PanelHalves, at: NDArray[np.integer]) -> FloatArray:
        values, chosen = parts(split, at)
        return mean + (values - mean) * chosen / share

    return measure, items


def by_agreement(read: Beliefs) -> list[Block]:
    """A model where people agree and where they do not: its reliability, and a row for each band with items enough.

    Half of the people says how far an item's people agree, the other half is what the model is held against.
    """
    rows, levels = list[tuple[str, ...]](), dict[str, list[tuple[float, Estimate]]]()
    for band, fewest in _FEWEST.items():
        too_sure, items = _within(read, band, _more_sure)
        if items < FEWEST_ITEMS:
            continue
        levels[band] = _levels(read, band)
        gap = read.panel.mean(read.panel.by_halves(too_sure, fewest=fewest), "gap", "difference of probabilities")
        ends = ("open" if end is None else f"{end:+.3f}" for end in (gap.value, gap.low, gap.high))
        rows.append((
            band, f"{items:,.0f}", f"{_mean(read, band, _confidence):.3f}", f"{_mean(read, band, _chose):.3f}",
            "{} [{}, {}]".format(*ends),
            f"{_mean(read, band, lambda p, split: total_variation(p, split.target)):.3f}",
            f"{_mean(read, band, lambda _, split: total_variation(split.other, split.target)):.3f}",
        ))  # fmt: skip
    heads = ("half of the people", "items", "probability given", "share of the other half", "too sure by", "DistCE",
             "DistCE of people")  # fmt: skip
    table = Table(title=f"{read.name} by agreement of people", heads=heads, rows=tuple(rows))
    chart = [_reliability(read.name, levels)] if any(levels.values()) else []
    return [*chart, table] if rows else []


def _reliability(name: str, levels: Mapping[str, Sequence[tuple[float, Estimate]]]) -> Chart:
    """The share of people who chose a model's label against the probability that it gave, by band."""
    series = [Series(name="as sure as right", x=(0.0, 1.0), y=(0.0, 1.0), look="reference")]
    for band, points in levels.items():
        bounded = [(level, share) for level, share in points if share.low is not None]
        if bounded:
            series.append(Series(
                name=band, look="points", x=tuple(level for level, _ in bounded),
                y=tuple(share.value or 0.0 for _, share in bounded), low=tuple(share.low for _, share in bounded),
                high=tuple(share.high for _, share in bounded),
            ))  # fmt: skip
    return Chart(
        title=f"Reliability by agreement, {name}", series=tuple(series),
        alt="share of people who chose its label against the probability it gave, for items on which people agree "
        "and do not",
        x=Axis(title="probability of the most likely label", low=0.0, high=1.0),
        y=Axis(title="share of people who chose it", low=0.0, high=1.0),
        note="Half of the people says how clear an item is, the other half who is right. Below the dashed line it "
        "is too sure.",
    )  # fmt: skip


def far_items(read: Beliefs, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Rows of the items where a model is furthest from the votes of people."""
    distance, rows = js_distance(read.p, read.panel.held), list[tuple[str, ...]]()
    for at in np.argsort(-distance, kind="stable")[:FAR]:
        p, votes, item = read.p[at], read.panel.votes[at], int(read.panel.rows[at])
        rows.append((
            (names[item] if names else "") or f"item {item + 1}", " ".join(map(str, votes)),
            " ".join(f"{one:.2f}" for one in p), f"{distance[at]:.3f}",
        ))  # fmt: skip
    return rows


def _levels(read: Beliefs, band: str) -> list[tuple[float, Estimate]]:
    """Mean confidence and share of people at each level of confidence."""
    p = read.p.max(1)
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, LEVELS + 1)[1:-1]))
    level = cast(NDArray[np.intp], np.searchsorted(edges, p, side="left"))
    found: list[tuple[float, Estimate]] = []
    for at in range(len(edges) + 1):
        chose, items = _within(read, band, _chose, level == at)
        if items >= FEWEST_ITEMS:
            share = read.panel.by_halves(chose, fewest=_FEWEST[band])
            confidence = _mean(read, band, _confidence, level == at)
            found.append((confidence, read.panel.mean(share, "share of people", "share")))
    return found


def _mean(read: Beliefs, band: str, what: What, rows: NDArray[np.bool_] | None = None) -> float:
    halves = read.panel.halves
    return float(among(what(read.p, halves), bands(halves)[band] & (True if rows is None else rows))[0].mean())


class DisagreementSettings(Settings, frozen=True, kw_only=True):
    """Thresholds.

    Attributes:
        margin: Smallest difference of JS distances (of shares of people) of interest; the plan's, where not given.
    """

    margin: Margin | None = None


@final
class DisagreementAudit(SingleReadingAudit[Beliefs]):
    """Distances to the votes of people, beside the distance of half of the people to the other half."""

    name = "disagreement"
    code = "WT501"
    title = "Distance to people"
    brief = "JS distance to votes"
    reads = (
        "How far a model's probabilities are from the votes of people on the same items. People differ too: half of "
        "them is as far from the other half as the report says, and a model farther off misses what people say."
    )
    asks = "benchmark"
    answer = staticmethod(lines)
    settings_type = DisagreementSettings
    settings: DisagreementSettings
    reading = LABEL_PROBABILITIES

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Also the votes."""
        return [self.trial(plan, subject), self._voted(plan, subject)]

    def _voted(self, plan: Plan, subject: SubjectRecord) -> Trial:
        return plan.reading(subject, VOTES.name, {})

    def read(self, case: Case, subject: SubjectRecord, *, seed: int = 0) -> Beliefs:
        """See ``SingleReadingAudit.read``; of answers that were recorded without probabilities, why not."""
        trial = self.trial(case.plan, subject, seed=seed)
        if subject.role == "recorded" and not case.known([trial]):
            why = "No probability of each label was recorded, so nothing is known of the distance to people."
            raise NoAnswer("not_applicable", why)
        return self.parsed(case, subject, case.reading(trial))

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Beliefs:
        """See ``SingleReadingAudit.parsed``."""
        panel, p = self._panel(case, subject), read["probability"].astype(np.float64)
        if p.shape[1] != panel.votes.shape[1]:
            why = f"It has probabilities of {p.shape[1]} labels, and people voted on {panel.votes.shape[1]}."
            raise NoAnswer("not_applicable", why)
        p = p[panel.rows]
        return Beliefs(subject.name, panel, p / p.sum(1, keepdims=True))  # kept in single precision

    def _panel(self, case: Case, subject: SubjectRecord) -> Panel:
        read, names = case.reading(self._voted(case.plan, subject)), case.plan.names
        labels = () if names is None else names.labels
        return panel_of(read, labels=labels, seed=case.plan.seed, groups=case.groups)

    def singles(self, case: Case, subject: SubjectRecord, read: Beliefs) -> list[Hypothesis]:
        """Its distances, measured; whether it is further than people from each other; its confidence where they are."""
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin
        return [distances(read), against(read, margin), unsure(read, margin=margin)]

    def judge(self, case: Case) -> Verdict:
        """Also what people say without any model, what one label hides, and each pair; tables for the page."""
        panel = None
        for subject in case.plan.subjects:  # the votes are the same whoever answers
            with suppress(NoAnswer):
                panel = panel or self._panel(case, subject)
        if panel is None:
            return super().judge(case)
        held: list[Beliefs] = []
        verdict = Verdict([self.draft(case, SUBJECT, among_people(panel), [])])
        for subject in case.plan.subjects:
            try:
                one = self.read(case, subject)
            except NoAnswer as gap:
                if subject.name != SUBJECT:
                    verdict.drafts.append(self.unanswered(subject.name, gap))
                continue
            held.append(one)
            trials = self.readings(case.plan, subject)
            verdict.drafts += [
                self.draft(case, subject.name, claim, trials) for claim in self.singles(case, subject, one)
            ]
        verdict.drafts += [self._pair(case, *two) for two in pairs_of(held)]
        # Of systems of which no probabilities are known, scores.
        known, names = {one.name for one in held}, () if case.plan.names is None else case.plan.names.items
        scored = {one.name: case.clean(one)[panel.rows].astype(np.float64) for one in case.plan.subjects
                  if one.name not in known and case.known([case.plan.clean(one)])}  # fmt: skip
        people = one_label(panel, held, scored, seed=case.plan.seed)
        verdict.drafts.append(self.draft(case, SUBJECT, hidden(people), []))
        close = [*map(_close, held), ("half of the people", None, *panel.ceiling)] if held else []
        agreed = [block for one in held for block in by_agreement(one)]
        far = {one.name: far_items(one, names) for one in held}
        verdict.sections.append(sections.people(people, close, agreed, far))
        return verdict

    def _pair(self, case: Case, one: Beliefs, two: Beliefs) -> Hypothesis:
        margin = case.plan.margin if self.settings.margin is None else self.settings.margin
        panel, less = one.panel, f"({two.name} - {one.name})"
        far = [js_distance(held.p, panel.held) for held in (one, two)]
        sample = panel.sample(
            panel.by_shares(lambda held, at: js_distance(two.p[at], held) - js_distance(one.p[at], held))
        )
        test = sample.effect(margin=margin, name=f"difference of JS distances {less}", unit=JS)
        square = panel.by_shares(
            lambda held, at: np.square(held - two.p[at]).sum(-1) - np.square(held - one.p[at]).sum(-1),
            squared_to_all(panel.votes, two.p) - squared_to_all(panel.votes, one.p),
        )
        squared = panel.sample(square, bound=None)
        beside = without_point(squared.effect(name=f"difference of squared distances {less}", unit="of 2"))
        closer, other = (one, two) if (test.value or 0.0) > 0.0 else (two, one)  # further from people is worse
        numbers = f"JS distance to people: {one.name} {far[0].mean():.3f}, {two.name} {far[1].mean():.3f}"
        said = "" if (test.value or 0.0) * (beside.value or 0.0) >= 0.0 else f" {REVERSED.format(beside)}"
        claim = Hypothesis(
            test=test, margin=margin, evidence=sample, words=PAIR, alarm=closer is one, title=CLOSER,
            found=f"{numbers}: {closer.name} is closer than {other.name} (difference {test}).{said}",
            otherwise=f"{numbers} (difference {test}).{said}", beside=(beside,),
            brief=f"{closer.name} is closer to people (JS distance {far[0].mean():.3f} v {far[1].mean():.3f}, "
            f"difference {test}).{said}",
        )  # fmt: skip
        named = {one.name, two.name}
        trials = [self.trial(case.plan, subject) for subject in case.plan.subjects if subject.name in named]
        return self.draft(case, f"{one.name} vs {two.name}", claim, trials)


def distances(read: Beliefs) -> Hypothesis:
    """Everything that is measured of one system, each by its full name."""
    panel, p = read.panel, read.p

    def mean(name: str, unit: str, measure: ShareMeasure, values: FloatArray | None = None) -> Estimate:
        return panel.mean(panel.by_shares(measure, values), name, unit)

    distance = mean("JS distance to votes", JS, lambda held, at: js_distance(p[at], held))
    soft = mean("soft accuracy", "share of people", lambda held, at: soft_accuracy(held, p[at]))
    name, square = "squared distance to all people", squared_to_all(panel.votes, p)
    kept = [
        distance, soft,
        mean(f"KL(people || model), floor {FLOOR:g}", "nats", lambda held, at: kl_divergence(held, p[at])),
        mean("Manhattan distance to votes", "of 2", lambda held, at: manhattan(p[at], held)),
        mean(name, "of 2", lambda held, at: np.square(held - p[at]).sum(-1), square),
    ]  # fmt: skip
    if panel.ordinal:
        kept.append(mean("Wasserstein distance to votes", "steps", lambda held, at: wasserstein(p[at], held)))
    spread, refused = panel.entropies(p)
    said = (
        f"is {in_words(distance)} from the votes of people (JS distance, {JS}; {panel.people} votes an item), and "
        f"{in_words(soft)} of them chose its most likely label (soft accuracy). {refused}"
    )
    brief = said.partition(". ")[0].rstrip(". ")
    return Hypothesis(
        test=None, status="measured", found=f"{read.name} {said}".strip(), brief=f"{brief}.", beside=(*kept, *spread)
    )


def against(read: Beliefs, margin: float) -> Hypothesis:
    """Whether a model is further from half of the people than the other half is."""

    def measure(split: PanelHalves, at: NDArray[np.integer]) -> FloatArray:
        return js_distance(read.p[at], split.target) - js_distance(split.other, split.target)

    halves = read.panel.halves
    own, others = js_distance(read.p, halves.target).mean(), js_distance(halves.other, halves.target).mean()
    sample = read.panel.sample(read.panel.by_halves(measure))
    test = sample.effect(margin=margin, name="further than people", unit=JS)
    further = (test.value or 0.0) > 0.0
    numbers = (
        f"JS distance to half of the people is {own:.3f}, that of the other half {others:.3f} (difference {test})."
    )
    side = "further from people than they are from" if further else "closer to people than they are to"
    return Hypothesis(
        test=test, margin=margin, evidence=sample, alarm=further, title=AGAINST,
        words=Words("further" if further else "closer", "as close as people", "may differ"),
        found=f"{read.name} is {side} each other: its {numbers}",
        otherwise=numbers, 
        brief=f"{side} each other (JS distance to half of them {own:.3f}, theirs {others:.3f}; "
        f"difference {test}).",
    )  # fmt: skip


def _close(read: Beliefs) -> Closeness:
    panel, p = read.panel, read.p
    return (
        read.name,
        panel.mean(panel.by_shares(lambda held, at: js_distance(p[at], held)), "JS", JS),
        panel.mean(panel.by_halves(lambda split, at: js_distance(p[at], split.target)), HALF, JS),
        panel.mean(panel.by_shares(lambda held, at: soft_accuracy(held, p[at])), "soft", "share"),
    )
