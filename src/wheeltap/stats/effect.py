"""Scores, paired differences and mean effects, each with an interval; and what such an interval proves."""

import math
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import beta_quantile, normal_quantile, sign_test, t_quantile, t_reach
from wheeltap.stats.clusters import Groups, clustered, enough_moved, spread_over
from wheeltap.stats.crossed import (
    CrossedMean,
    FloatArray,
    Values,
    checked,
    checked_alpha,
    checked_margin,
    crossed,
    within,
)


def score_interval(
    values: Values,
    *,
    level: float = 0.95,
    bounded: bool,
    groups: Groups | None = None,
    name: str = "score",
    unit: str,
) -> Estimate:
    """Mean score over examples drawn from a larger population, in ``unit``.

    Args:
        values: [example].
        level: Confidence level.
        groups: [example], the cluster of each; with clusters a share has the interval of as many answers as vary alike.
        bounded: Whether each value is 0 or 1 (a share of right answers). Clopper-Pearson is used then: near a score
            of 1, where good models are, Wilson's interval covers as little as 84 % (50 examples). Values between 0 and
            1 (a mean over draws) vary less than 0/1 ones of the same mean, so the interval covers them too.
        name: Name of the estimate.
        unit: Unit of the values.

    Raises:
        DataError: If the values are not finite, or not within [0, 1] though ``bounded``.

    Source: Clopper & Pearson (1934), eq. 1-2; Student's t for an unbounded measure; Korn & Graubard (1998), "Confidence
    intervals for proportions with small expected number of positive counts estimated from survey data", for clusters.
    """
    x = checked(values, ("example",), what="values")
    alpha = checked_alpha(level)
    mean, n = float(x.mean()), len(x)
    if not bounded:
        spread = spread_over(x[None, :], groups)
        low, high = _ends(spread, alpha)
        method = f"t over {'examples' if groups is None else 'groups'}"
    else:
        within(x, 0.0, 1.0, what="values")
        count = n if groups is None else effective_count(x, groups, alpha=alpha)
        right = mean * count
        low = beta_quantile(alpha / 2, right, count - right + 1) if mean > 0 else 0.0
        high = beta_quantile(1 - alpha / 2, right + 1, count - right) if mean < 1 else 1.0
        method = "Clopper-Pearson over examples"
        method = method if groups is None else f"Korn-Graubard over {len(np.unique(groups))} groups"
    return Estimate(name=name, value=mean, low=low, high=high, level=level, n=n, unit=unit, method=method)


FEW: Final = 30
"""Items below which the t interval of a mean of shares is not used."""

_NO_WIDTH: Final = 1e-9
"""Width of an interval, or size of a value, in the values' unit, that is none: what rounding leaves of it."""


def effective_count(values: Values, groups: Groups, *, alpha: float = 0.05) -> float:
    """How many examples drawn one by one would tell their mean share as well as these in clusters do.

    At least as many as if all of a cluster were alike, at most as many as there are.

    Args:
        values: [example], in [0, 1].
        groups: [example], the cluster of each.
        alpha: Of the interval in which the number is used: few clusters tell their own spread badly, and so do few that
            have what is rare, be it right or wrong. Student's quantile is for as many as carry that.

    Source: Korn & Graubard (1998), eq. 3; Kish (1965), "Survey Sampling", sec. 8.2 and 11.7, for the least number and
    for those that carry.
    """
    x = checked(values, ("example",), what="values")
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n, least = len(x), _carried_by(sizes)
    variance = float(spread_over(x[None, :], groups).example)
    if len(sizes) == 1 or variance <= 0.0:
        return least
    few = _carried_by(np.bincount(member, weights=x if float(x.mean()) <= 0.5 else 1.0 - x))
    wider = t_quantile(alpha, max(few, 2.0) - 1.0) / t_quantile(alpha, n - 1)
    return float(np.clip(float(x.var()) / variance / wider**2, least, n))


def _carried_by(parts: NDArray[Any]) -> float:
    """How many equal parts would carry a sum as evenly as these do."""
    return float(np.sum(parts) ** 2 / np.square(parts, dtype=np.float64).sum())


def share_interval(values: Values, *, groups: Groups | None = None, name: str = "score", unit: str) -> Estimate:
    """Mean over examples of scores in [0, 1] that need not be 0 or 1: partial credit, means of repeated answers.

    Its interval always has a width: Clopper-Pearson's of 0/1 values, of fewer than ``FEW`` examples and where all
    values are the same; there it is wider than needed, because scores in [0, 1] vary less than 0/1 ones of the same
    mean. Else Student's t, cut at 0 and 1. Its level is .95.

    Args:
        values: [example].
        groups: [example], the cluster of each.
        name: Name of the estimate.
        unit: Unit of the values.

    Raises:
        DataError: If the values are not finite, or not within [0, 1].
    """
    x = within(checked(values, ("example",), what="values"), 0.0, 1.0, what="values")
    spread = score_interval(x, bounded=False, groups=groups, name=name, unit=unit)
    few = len(x) < FEW or bool(np.isin(x, (0.0, 1.0)).all()) or not has_width(spread)
    if few or spread.low is None or spread.high is None:
        return score_interval(x, bounded=True, groups=groups, name=name, unit=unit)
    return msgspec.structs.replace(spread, low=max(spread.low, 0.0), high=min(spread.high, 1.0))


def has_width(estimate: Estimate) -> bool:
    """Whether an estimate has an interval that is more than a point."""
    return estimate.low is None or estimate.high is None or estimate.high - estimate.low > _NO_WIDTH


def without_point(estimate: Estimate) -> Estimate:
    """The estimate without an interval, where that is a point: the same values do not tell how others vary."""
    if has_width(estimate):
        return estimate
    return msgspec.structs.replace(
        estimate, low=None, high=None, method=f"no interval: the same number on all {estimate.n:,} items"
    )


def mean_effect(
    d: Values, *, level: float = 0.95, margin: float = 0.0, bounded: bool = False, name: str = "effect", unit: str
) -> Estimate:
    """Mean of a paired difference over draws and examples, both taken as samples, in ``unit``.

    With one draw (a deterministic disturbance) only the examples are a sample, with one example only the draws. Where
    the measure is ``bounded`` two imaginary examples, one lost and one gained, are added, so that "nothing was seen to
    change" never becomes "nothing changes". With 0/1 scores and one draw this is the adjusted Wald interval and the
    exact McNemar test. They are moved by the typical shift among the examples that moved, counting one more that moved
    all the way: with many draws a shift is a fraction, and +-1 would drown what was measured.

    Args:
        d: [draw, example], disturbed minus clean (or one subject minus another).
        level: Confidence level.
        margin: The p-value tests |mean| <= ``margin``.
        bounded: Whether each difference is one of two scores in [0, 1]. Leave it false where the two arms are known
            to be the same computation: then all-zero differences give the interval [0, 0].
        name: Name of the estimate.
        unit: Unit of the values.

    Raises:
        DataError: If values are not finite, or outside [-1, 1] though ``bounded``.
        UsageError: If ``level`` or ``margin`` cannot be used.

    Source: see ``CrossedMean.half_width``; Owen (2007), "The pigeonhole bootstrap", sec. 3, for the crossed model.
    """
    x = checked(d, ("draw", "example"), what="differences")
    alpha, floor = checked_alpha(level), checked_margin(margin)
    spread = crossed(x, pseudo=amplitude(within(x, -1.0, 1.0, what="differences")) if bounded else 0.0)
    low, high = _ends(spread, alpha)
    p = spread.p_value(floor) if spread.example_df else None
    value = float(x.mean())
    exact = bounded and floor == 0.0 and len(x) == 1 and bool(np.isin(x, (-1.0, 0.0, 1.0)).all())
    if exact:  # a changed example is as likely gained as lost
        p = sign_test(int((x > 0).sum()), int((x != 0).sum()))
    if bounded and low is not None and high is not None:
        touch = [value, 0.0] if exact and p is not None and p >= alpha else [value]
        low, high = max(min(low, *touch), -1.0), min(max(high, *touch), 1.0)
    shape = f"{x.shape[0]} draws x {x.shape[1]} examples"
    method = f"{'adjusted Wald, ' if bounded else ''}crossed t, {shape}{', exact McNemar p' if exact else ''}"
    return Estimate(
        name=name, value=value, low=low, high=high, level=level, n=x.shape[1], unit=unit, method=method, p=p
    )


def share_kept(
    x: Values,
    clean: Values,
    *,
    chance: float,
    bounded: bool = False,
    level: float = 0.95,
    groups: Groups | None = None,
) -> Estimate:
    """Share of the above-chance score that is kept under a disturbance: (score - chance) / (clean - chance).

    What makes losses comparable between subjects whose clean scores differ. The interval is that of the numerator
    minus the share times the denominator, cell by cell, over the denominator (the delta method), through the crossed t.

    Args:
        x: [draw, example], disturbed.
        clean: [example], undisturbed.
        chance: Score of an answer without information.
        bounded: Whether scores lie in [0, 1]: two imaginary examples are then added, as in ``mean_effect``.
        level: Confidence level.
        groups: [example], the cluster of each.

    Returns:
        Without a value or ends where the clean score is chance.

    Raises:
        DataError: If values are not finite or shapes do not fit.

    Source: delta method; see ``CrossedMean.half_width``.
    """
    cells = checked(x, ("draw", "example"), what="scores")
    before = checked(clean, ("example",), what="clean scores")
    if cells.shape[1] != len(before):
        raise DataError(
            "Clean scores are paired with others.", expected=f"{cells.shape[1]} examples", got=str(len(before))
        )
    above, alpha = float(before.mean()) - chance, checked_alpha(level)
    share = low = high = None
    if above != 0.0:
        share = (float(cells.mean()) - chance) / above
        rest = cells - chance - share * (before - chance)
        moved = cells - before
        far = amplitude(clustered(moved, groups), enough=enough_moved(moved, groups))
        spread = spread_over(rest, groups, pseudo=far if bounded else 0.0, unbounded=not bounded)
        to_ends = [side * float(spread.half_width(alpha, side=side)) / above for side in (-1.0, 1.0)]
        low, high = (share + min(to_ends), share + max(to_ends)) if spread.example_df else (None, None)
    return Estimate(
        name="share kept", value=share, low=low, high=high, level=level, n=len(before), unit="share",
        method=f"delta method, crossed t, {cells.shape[0]} draws x {cells.shape[1]} examples",
    )  # fmt: skip


def smallest_detectable(
    estimate: Estimate, *, alpha: float = 0.05, power: float = 0.8, margin: float = 0.0, df: int | None = None
) -> float | None:
    """Smallest true |effect| that a test of |effect| <= ``margin`` at ``alpha`` finds with probability ``power``.

    The standard error is the interval's half width over the quantile of its level: Student's with ``df`` degrees of
    freedom, by which the interval was made and the effect will be tested, or else the normal one. Without ``df`` and
    with few draws the quantile used was larger, so that the number errs upwards for ``alpha`` near 1 - level; for a
    much smaller ``alpha`` it errs downwards, and ``df`` must be given.

    Returns:
        In the estimate's unit; ``None`` where the interval is open, so that an effect of any size may go unseen.

    Raises:
        UsageError: If ``alpha``, ``power`` or ``margin`` cannot be used.

    Source: Cohen (1988), sec. 2.4: the noncentral t distribution, or its normal approximation.
    """
    checked_alpha(alpha)
    checked_alpha(power)
    edge = checked_margin(margin)
    if estimate.low is None or estimate.high is None:
        return None
    half = (estimate.high - estimate.low) / 2
    if df is not None:
        found = edge + half / t_quantile(1 - estimate.level, df) * t_reach(alpha, df, power)
    else:
        error = half / normal_quantile((1 + estimate.level) / 2)
        found = edge + (normal_quantile(1 - alpha / 2) + normal_quantile(power)) * error
    return found if math.isfinite(found) else None


def exceeds(estimate: Estimate, margin: float) -> bool:
    """Whether the interval lies wholly beyond +-``margin``: the effect is larger than that with confidence.

    Raises:
        UsageError: If ``margin`` is negative.
    """
    edge = checked_margin(margin)
    above = estimate.low is not None and estimate.low > edge
    return above or (estimate.high is not None and estimate.high < -edge)


def _ends(spread: CrossedMean, alpha: float) -> tuple[float | None, float | None]:
    """Interval around the centre; ``(None, None)`` where a single number says nothing of its spread."""
    if spread.example_df == 0:
        return None, None
    centre, half = float(spread.centre), float(spread.half_width(alpha))
    return centre - half, centre + half


def amplitude(x: FloatArray, *, enough: bool = False, whole: float = 1.0) -> float:
    """How far the two imaginary examples moved: root mean square over the moved ones and one that moved all the way.

    Of groups few ever do: where ``enough`` of them moved, that one moved twice as far as the furthest. All the way is
    ``whole``: 1 of a difference of two scores in [0, 1].
    """
    moved = np.any(np.abs(x) > _NO_WIDTH, axis=0)  # what clusters leave of 0 is rounding
    squares = np.square(x.mean(axis=0)[moved])
    far = min(4.0 * float(squares.max(initial=0.0)), whole**2) if enough else whole**2
    return float(np.sqrt((far + squares.sum()) / (1.0 + moved.sum())))
