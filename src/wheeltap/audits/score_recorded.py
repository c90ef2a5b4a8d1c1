"""Differences of benchmark scores between recorded answers: is one of two systems better on the same items?"""

from collections.abc import Iterable
from itertools import combinations
from typing import Final

import numpy as np

from wheeltap.audits.case import Case
from wheeltap.audits.claims import PAIR, Cells, Tested
from wheeltap.core.lens import SystemScore
from wheeltap.core.records import Estimate, Finding, SubjectRecord
from wheeltap.plans.plan import Plan
from wheeltap.stats.crossed import Values
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.unpaired import unpaired_effect

DIFFERENCE: Final = "Difference of benchmark scores"

MOST: Final = 6
"""Systems up to which every pair is compared; of more, the first one with each of the others."""


def compared(plan: Plan) -> list[tuple[SubjectRecord, SubjectRecord]]:
    """Pairs whose scores are compared; ``support`` does so itself with the reference, at one try."""
    pairs = combinations(plan.subjects, 2)
    some = len(plan.subjects) > MOST
    told = any(spec.name == "support" for spec in plan.audits)
    return [(one, two) for one, two in pairs if (not told if one == plan.reference else not some)]


def alone(subject: SubjectRecord, score: Estimate, *, items: int) -> Tested:
    """The score that recorded answers give; what chance would score is not known of them."""
    said = f"scores {score} on {items:,} items"
    return Tested(
        test=None, status="measured", found=f"{subject.name} {said}. This is all that a benchmark sees.",
        beside=(score,), words=PAIR, brief=f"{said}.",
    )  # fmt: skip


def scores_of(findings: Iterable[Finding]) -> tuple[SystemScore, ...]:
    """Of each system that has one, for the first screen."""
    return tuple(
        SystemScore(subject=one.subject, value=score.value, low=score.low, high=score.high)
        for one in findings
        if one.status == "measured"
        for score in one.estimates[:1]
        if score.value is not None
    )


def of_answers(case: Case, one: SubjectRecord, two: SubjectRecord, *, margin: float) -> Tested:
    """What the answers of two systems to the same items say.

    Found is any difference at all, by McNemar's exact test where each item has one answer; excluded is one of more
    than ``margin``. Answers to one item are averaged first, so that they count once. A comparison of the two scores
    that forgets that the items are the same is printed beside it.
    """
    a, b = case.clean(one), case.clean(two)
    cells, bounded, unit = (a - b)[None, :], case.plan.task.bounded, case.plan.task.measure
    gap = mean_effect(cells, bounded=bounded, name="score_difference", unit=unit)
    apart = unpaired_effect(a, b, name="difference_unpaired", unit=unit)
    first, second = int((cells > 0).sum()), int((cells < 0).sum())
    differ = f"{one.name} does better on {first:,} items, {two.name} on {second:,}"
    if first + second == 0:
        differ = "There is no item on which they differ"
    of_one, of_two = (_number(scores, percent=_shares(a, b)) for scores in (a, b))
    scores = f"{one.name} scores {of_one}, {two.name} {of_two}"
    exact = "exact McNemar" if "exact McNemar" in gap.method else "paired"
    tests = f"{exact} p {_p(gap)}, unpaired p {_p(apart)}"
    better = one.name if (gap.value or 0.0) > 0 else two.name
    words = f"{differ}, of {cells.shape[1]:,} (difference {gap})."
    return Tested(
        test=gap, margin=margin, cells=Cells(cells, bounded), words=PAIR, beside=(apart,),
        found=f"{scores}: {better} is better ({tests}). {words}",
        otherwise=f"{scores}: not shown to differ ({tests}). {words}", alarm=False,
        brief=f"{of_one} v {of_two}: {better} is better ({tests}).",
    )  # fmt: skip


def _number(scores: Values, *, percent: bool) -> str:
    return f"{100 * float(np.mean(scores)):.1f} %" if percent else f"{float(np.mean(scores)):.3g}"


def _shares(a: Values, b: Values) -> bool:
    return bool(min(np.min(a), np.min(b)) >= 0.0 and max(np.max(a), np.max(b)) <= 1.0)


def _p(estimate: Estimate) -> str:
    if estimate.p is None:
        return "unknown"
    return f"{estimate.p:.2g}".replace("0.", ".", 1) if estimate.p >= 1e-4 else f"{estimate.p:.0e}"
