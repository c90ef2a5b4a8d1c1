"""From the numbers of every net to findings: is the net under study one more of the trained ones?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Draft
from wheeltap.audits.settle import settle
from wheeltap.core.records import Estimate, Finding
from wheeltap.fer.metrics import BY_KEY, ERROR, METRICS
from wheeltap.report import words
from wheeltap.report.fer import CohortRow, Likeness, Metric, MetricRow
from wheeltap.stats._scipy import normal_quantile, t_quantile
from wheeltap.stats.cohorts import Scale, Single, apart, next_net, over_nets
from wheeltap.stats.effect import smallest_detectable

TRAINED: Final = "sgd"
"""The kind of nets that the net under study is compared with; all other kinds are controls."""

LEVEL: Final = 0.95

ROUNDING: Final = 1e-6
"""Share of a number that a difference may be by rounding alone."""

FAR: Final = 20.0
"""Decibels below which pictures are called far from each other: a mean squared error of .01."""

VOID: Final = "Void: a control failed, so this study proves nothing about the net."


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """Every number of a study.

    Attributes:
        name: Of the net under study.
        own: Its numbers, by metric.
        cohorts: For each kind of net the numbers of each, by metric: those that a kind lacks are left out.
    """

    name: str
    own: Mapping[str, Single]
    cohorts: Mapping[str, Sequence[Mapping[str, float]]]

    @property
    def errors(self) -> list[float]:
        """Mean squared error of each trained net's picture."""
        return [net[ERROR] for net in self.cohorts[TRAINED]]

    @property
    def psnr(self) -> list[float]:
        """The same in decibels."""
        return [decibels(error) for error in self.errors]


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of colours from 0 to 1 with this mean squared error; 120 at most."""
    return float(-10.0 * np.log10(max(error, 1e-12)))


def rows(measured: Measured) -> tuple[MetricRow, ...]:
    """Every metric that the net under study has, beside every kind of nets."""
    found: list[MetricRow] = []
    tests = sum(metric.tested and metric.key in measured.own for metric in METRICS)
    for metric in METRICS:
        own = measured.own.get(metric.key)
        if own is None:
            continue
        cohorts = [
            _cohort(metric, own, name, nets, alpha=(1 - LEVEL) / max(tests, 1))
            for name, nets in measured.cohorts.items()
        ]
        kept = tuple(cohort for cohort in cohorts if cohort is not None)
        found.append(MetricRow(metric=metric, own=_of_one(metric, own), cohorts=kept))
    return tuple(found)


def _of_one(metric: Metric, own: Single) -> Estimate:
    half = _quantile(own) * own.se
    made = Estimate(
        name=metric.key, value=own.value, low=own.value - half, high=own.value + half,
        level=1.0 if own.se == 0.0 else LEVEL, n=1, unit=metric.unit, method=own.method,
    )  # fmt: skip
    return _within(metric, made)


def _within(metric: Metric, made: Estimate) -> Estimate:
    """An interval that ends where the number must."""
    least, most = metric.ends
    low = made.low if made.low is None or least is None else max(made.low, least)
    high = made.high if made.high is None or most is None else min(made.high, most)
    return msgspec.structs.replace(made, low=low, high=high)


def _quantile(own: Single) -> float:
    return normal_quantile((1 + LEVEL) / 2) if own.df is None else t_quantile(1 - LEVEL, own.df)


def _cohort(
    metric: Metric, own: Single, name: str, nets: Sequence[Mapping[str, float]], *, alpha: float
) -> CohortRow | None:
    values = [net[metric.key] for net in nets if np.isfinite(net.get(metric.key, np.nan))]
    if not values:
        return None
    scale = Scale(metric.unit, metric.grain)
    mean = over_nets(values, name=f"{metric.key}_{name}", scale=scale, level=LEVEL)
    gap = apart(own, values, name=f"{metric.key}_gap", scale=scale, level=LEVEL)
    return CohortRow(
        cohort=name,
        values=tuple(values),
        mean=_within(metric, mean),
        next_net=_ends(metric, next_net(values, scale=scale, level=LEVEL)),
        gap=gap,
        likeness="" if name == TRAINED else _likeness(metric, own, gap, alpha=alpha),
    )


def _ends(metric: Metric, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """A range that ends where the number must."""
    if ends is None:
        return None
    least, most = metric.ends
    low, high = ends
    return low if least is None else max(low, least), high if most is None else min(high, most)


def _likeness(metric: Metric, own: Single, gap: Estimate, *, alpha: float) -> Likeness:
    """How nets made alike look beside the net under study, by this number alone.

    They pass for unified where their mean is within the net's own interval, or beyond it on the side of unified nets.
    They are told apart at the level of the strictest test of the verdict, so that no control net is told apart more
    easily than a trained one.
    """
    if not metric.unified:
        return ""
    ahead = (gap.value or 0.0) * (1.0 if metric.unified == "high" else -1.0)
    if ahead <= _quantile(own) * own.se + ROUNDING * abs(own.value):
        return "passes"
    if gap.p is None:
        return "alone"
    return "apart" if gap.p <= alpha else "open"


def findings(measured: Measured, table: Sequence[MetricRow], *, alpha: float) -> list[Finding]:
    """The distance of the pictures, then one finding for each tested metric, corrected together."""
    tested = [row for row in table if row.metric.tested]
    # What could have been found is told for the smallest level that the correction may ask for.
    drafts = [_draft(measured, row, alpha / len(tested)) for row in tested]
    settled = [_open_still(draft, found) for draft, found in zip(drafts, settle(drafts, alpha=alpha), strict=True)]
    there = {row.metric.key for row in table}
    missing = [_missing(measured, metric) for metric in METRICS if metric.tested and metric.key not in there]
    return [_pictures(measured), *settled, *missing]


def _open_still(draft: Draft, found: Finding) -> Finding:
    """Not found after the correction, though the test alone would have found it: that is no evidence of none."""
    test = draft.test
    if found.status == "found" or test is None or test.p is None or test.p > 1 - LEVEL:
        return found
    because = f"{draft.finding.because} That is outside, but not shown after the correction for all tests."
    return msgspec.structs.replace(found, status="inconclusive", because=because)


_WHY: Final = {
    "response_symmetry": "No symmetry of the picture is known, or fewer than two weights change it enough.",
    "feature_symmetry": "The picture has no symmetry, or more than one mirror (even and odd parts are those of one), "
    "or no hidden unit of the net is alive.",
    "distinct_maps": "No hidden unit of the net is alive.",
    "regions": "No parts of the picture are known, or fewer than two weights change it enough.",
    "noise_symmetry": "No symmetry of the picture is known, or the noise is not defined on this net, or no draw of it "
    "changes the picture enough.",
}
"""Why a net under study may lack a tested number."""


def _missing(measured: Measured, metric: Metric) -> Finding:
    return Finding(
        code=metric.code, title=metric.title, status="not_applicable", subject=pair(measured), because=_WHY[metric.key]
    )


def pair(measured: Measured) -> str:
    """How findings call the comparison."""
    return f"{measured.name} vs {TRAINED}"


def _pictures(measured: Measured) -> Finding:
    unit = "mean squared error in color from 0 to 1"
    error = _within(BY_KEY[ERROR], over_nets(measured.errors, name="squared_error", scale=Scale(unit)))
    psnr = over_nets(measured.psnr, name="psnr", scale=Scale("dB"))
    apart_all = min(measured.errors) > 0.0
    return Finding(
        code="WT001", title="Distance of the pictures", status="found" if apart_all else "inconclusive",
        subject=pair(measured), estimates=(error, psnr), alarm=False,
        because=f"The trained nets draw the picture to {words.interval(psnr)} dB (mean squared error "
        f"{words.interval(error)}). Part of any difference below may be a difference of the pictures; more steps of "
        "training bring them nearer.",
    )  # fmt: skip


def _draft(measured: Measured, row: MetricRow, alpha: float) -> Draft:
    metric, name = row.metric, pair(measured)
    trained = next((cohort for cohort in row.cohorts if cohort.cohort == TRAINED), None)
    finding = Finding(
        code=metric.code, title=metric.title, status="inconclusive", subject=name,
        estimates=(row.own, *(cohort.mean for cohort in row.cohorts)),
    )  # fmt: skip
    if trained is None or trained.gap.p is None:
        because = "An answer takes at least two trained nets that differ in this number; a single one has no spread."
        return Draft(_with(finding, because=because))
    worth = worth_of(metric, trained)
    seen = smallest_detectable(trained.gap, alpha=alpha, df=trained.gap.n - 1)
    said = _said(measured, row, trained)
    finding = _with(
        finding, because=said, status="found", smallest_detectable=seen, estimates=(trained.gap, *finding.estimates)
    )
    return Draft(finding, test=trained.gap, margin=worth, otherwise=f"{said} It could be one more of them.")


def worth_of(metric: Metric, trained: CohortRow) -> float:
    """Smallest difference worth telling, in the metric's unit."""
    return metric.worth * (abs(trained.mean.value or 0.0) if metric.relative else 1.0)


def _with(finding: Finding, **changes: object) -> Finding:
    return msgspec.structs.replace(finding, **changes)


def _said(measured: Measured, row: MetricRow, trained: CohortRow) -> str:
    unit = row.metric.unit
    text = (
        f"{measured.name} has {words.interval(row.own)} ({unit}), the {len(trained.values)} trained nets "
        f"{words.interval(trained.mean)}"
    )
    if trained.next_net is not None:
        low, high = (words.number(end) for end in trained.next_net)
        text += f"; one more such net would lie between {low} and {high}"
    unified = row.metric.unified
    side = (trained.gap.value or 0.0) * (1.0 if unified == "high" else -1.0)
    return f"{text}. {'Towards' if side > 0 else 'Away from'} a unified net." if unified else f"{text}."


def headline(measured: Measured, table: Sequence[MetricRow], found: Sequence[Finding]) -> str:
    """The result in one sentence."""
    tested = {f.title: f for f in found if f.code != "WT001"}
    count = len(measured.psnr)
    nets = f"{count} net{'s' if count > 1 else ''} trained to draw it"
    near = float(np.mean(measured.psnr))
    psnr = f"matched to {near:.1f} dB (PSNR){'' if near >= FAR else ' (that is far apart: train longer)'}"
    start = f"{measured.name} and {nets}"
    by_title = {row.metric.title: row for row in table}
    unified = [t for t, f in tested.items() if f.status == "found" and _towards(by_title[t])]
    other = [t for t, f in tested.items() if f.status == "found" and t not in unified]
    asked = [f for f in tested.values() if f.status != "not_applicable"]
    still = sum(f.status == "inconclusive" for f in asked)
    if not unified and not other and still:
        return f"{start}, {psnr}: not enough to decide whether the wiring differs ({still} of {len(asked)} tests open)."
    if not unified and not other:
        return f"Pictures {psnr}, no difference in wiring found: {start}."
    parts: list[str] = []
    if unified:
        parts.append(f"more unified by {_listed(unified)} ({len(unified)} of {len(asked)} tests)")
    if other:
        parts.append(f"less unified by {_listed(other)}")
    return f"Pictures {psnr}, different wiring: beside {nets}, {measured.name} is {'; '.join(parts)}."


def _listed(titles: Sequence[str]) -> str:
    small = [title[:1].lower() + title[1:] for title in titles]
    return small[0] if len(small) == 1 else f"{', '.join(small[:-1])} and {small[-1]}"


def _towards(row: MetricRow) -> bool:
    trained = next(cohort for cohort in row.cohorts if cohort.cohort == TRAINED)
    return ((trained.gap.value or 0.0) > 0) == (row.metric.unified == "high")


def fooled(measured: Measured, table: Sequence[MetricRow]) -> tuple[str, ...]:
    """For each kind of control nets, the numbers by which they pass for unified, and those that tell them apart."""
    lines: list[str] = []
    for name in measured.cohorts:
        if name == TRAINED:
            continue
        said: dict[str, list[str]] = {}
        for row in table:
            for cohort in row.cohorts:
                if cohort.cohort == name and cohort.likeness:
                    said.setdefault(cohort.likeness, []).append(_beside(row, cohort))
        count = len(measured.cohorts[name])
        starts = {
            "passes": "Look unified", "open": f"Not distinguished, with {count} of them,",
            "alone": "One net or no spread, so not tested", "apart": "Shown to differ",
        }  # fmt: skip
        told = [f"{start} by {'; '.join(said[kind])}." for kind, start in starts.items() if kind in said]
        if told:
            lines.append(f"{name}: {' '.join(told)}")
    return tuple(lines)


def _beside(row: MetricRow, cohort: CohortRow) -> str:
    own, theirs = words.number(row.own.value), words.number(cohort.mean.value)
    return f"{row.metric.title[:1].lower()}{row.metric.title[1:]} ({theirs}, against {own})"


def noise_answer(table: Sequence[MetricRow], found: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    """Whether function-space noise separates the nets where weight sweeps do."""
    titles = {row.metric.key: row for row in table}
    status = {finding.title: finding.status for finding in found}
    if not {"noise_symmetry", "response_symmetry"} <= titles.keys():
        return ()
    sweeps, noise = titles["response_symmetry"], titles["noise_symmetry"]
    shown = status.get(sweeps.metric.title) == "found", status.get(noise.metric.title) == "found"
    answer = {
        (True, True): "Yes. Both do.",
        (True, False): "Weight sweeps do; for function-space noise it is not shown.",
        (False, True): "It does; for weight sweeps it is not shown.",
        (False, False): "It is shown for neither.",
    }[shown]
    if shown == (True, True) and _towards(sweeps) != _towards(noise):
        answer = "Both do, in opposite directions: they disagree on which net is the more symmetric."
    told = "; ".join(
        f"{row.metric.title.lower()} {words.number(row.own.value)} against {_trained(row)}" for row in (sweeps, noise)
    )
    dose = titles.get("noise_dose")
    more = (
        ""
        if dose is None
        else f" The dose that changes the picture as much: {words.number(dose.own.value)} against {_trained(dose)}."
    )
    question = "Does function-space noise separate them where weight sweeps do?"
    return ((question, f"{answer} {told[:1].upper()}{told[1:]}.{more}"),)


def _trained(row: MetricRow) -> str:
    found = next((cohort.mean for cohort in row.cohorts if cohort.cohort == TRAINED), None)
    return words.UNKNOWN if found is None else words.interval(found)
