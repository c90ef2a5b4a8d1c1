"""Score against dose: area, pointwise band, and the dose at which half of the score is lost."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import descending
from wheeltap.stats.clusters import Groups, clustered, one_group, spread_over
from wheeltap.stats.crossed import CrossedMean, FloatArray, Values, checked, checked_alpha, crossed, within

_LEVEL = 0.95  # of half doses
_LARGEST_LOG = 700.0  # of what a float can hold
_STEPS = 65  # grid points between two doses on which the confidence set is traced


def area_weights(doses: Values) -> FloatArray:
    """Weight of each dose in the mean score over log dose (trapezoid rule), summing to 1; no unit.

    Args:
        doses: [dose], positive, strictly ascending. One dose has weight 1.

    Raises:
        DataError: If the doses are not positive and ascending.
    """
    x = _log_doses(doses)
    if len(x) == 1:
        return np.ones(1)
    gaps = np.diff(x)
    weights = (np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0)) / 2
    return weights / weights.sum()


def area_values(values: Values, doses: Values) -> FloatArray:
    """Mean score over log dose for each draw and example, in the score's unit: ``[draw, example]``.

    Args:
        values: [dose, draw, example].
        doses: [dose], positive, strictly ascending.

    Raises:
        DataError: If the values are not finite or the doses are not theirs.
    """
    x = _checked_values(values, doses)
    return np.tensordot(area_weights(doses), x, axes=1)


def band(
    values: Values, *, level: float = 0.95, bounded: bool, groups: Groups | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean score per dose and the ends of its pointwise interval, each ``[dose]``, in the score's unit.

    Args:
        values: [dose, draw, example]; draws and examples are both taken as samples.
        level: Confidence level at each dose by itself.
        bounded: Whether the scores lie in [0, 1]: the band is clipped there, and one right and one wrong imaginary
            example keep it from zero width where every answer is the same.
        groups: [example], the cluster of each; ``None`` where examples are independent.

    Returns:
        (mean, low, high). With one draw and one example low and high are infinite (``band_ends``: ``None``) or the
        measure's range.

    Raises:
        DataError: If the values are not finite, or outside [0, 1] though ``bounded``.

    Source: see ``CrossedMean.half_width``; Agresti & Caffo (2000) for the two added examples.
    """
    x = checked(values, ("dose", "draw", "example"), what="values")
    alpha = checked_alpha(level)
    mean = x.mean(axis=(1, 2))
    if not bounded:
        spread = spread_over(x, groups)
        half = spread.half_width(alpha)
        return mean, mean - half, mean + half
    spread = spread_over(within(x, 0.0, 1.0, what="values") - 0.5, groups, pseudo=0.5)
    half = spread.half_width(alpha)
    low = np.clip(np.minimum(spread.centre + 0.5 - half, mean), 0.0, 1.0)
    high = np.clip(np.maximum(spread.centre + 0.5 + half, mean), 0.0, 1.0)
    return mean, low, high


def band_ends(values: FloatArray) -> tuple[float | None, ...]:
    """Ends of a band as a record holds them: ``None`` where there is none."""
    return tuple(float(end) if np.isfinite(end) else None for end in values)


@dataclass(frozen=True, kw_only=True)
class Response:
    """One subject's scores under a range of doses.

    Attributes:
        values: [dose, draw, example].
        clean: [example], the undisturbed score.
        doses: [dose], positive, strictly ascending.
        chance: Score of an answer without information.
        groups: [example], the cluster of each; ``None`` where examples are independent.
    """

    values: Values
    clean: Values
    doses: Values
    chance: float
    groups: Groups | None = None


@dataclass(frozen=True, kw_only=True)
class _HalfPoint:
    """Excess of the above-chance score over half of the clean one, and where its mean falls through zero.

    Attributes:
        excess: [dose, draw, example], signed so that a sound subject starts above 0; by clusters, where there are any.
        logs: [dose], natural log of the doses.
        mean: [dose], mean excess after isotonic regression.
        pseudo: Amplitude of the two imaginary examples; .5 for a share of right answers.
        segment: Index of the dose before the crossing.
        share: Position of the crossing within the segment, 0 to 1.
        crosses: "within", or "before" the first or "after" the last dose.
    """

    excess: FloatArray
    logs: FloatArray
    mean: FloatArray
    pseudo: float
    crosses: str
    segment: int = 0
    share: float = 0.0

    @property
    def log_half(self) -> float:
        """Natural log of the half dose."""
        if len(self.logs) == 1:
            return float(self.logs[0])
        return float((1 - self.share) * self.logs[self.segment] + self.share * self.logs[self.segment + 1])

    def pull(self) -> FloatArray | None:
        """How far each cell [draw, example] moves the log half dose; ``None`` without a crossing that has a slope."""
        k, w = self.segment, self.share
        if self.crosses != "within" or len(self.logs) == 1 or self.mean[k] == self.mean[k + 1]:
            return None
        slope = (self.mean[k] - self.mean[k + 1]) / (self.logs[k + 1] - self.logs[k])
        return ((1 - w) * self.excess[k] + w * self.excess[k + 1]) / slope


def half_dose(response: Response, *, unit: str = "dose") -> Estimate:
    """Dose at which half of the above-chance score is lost, in ``unit`` of the doses.

    The retention r(dose) = (score - chance) / (clean - chance) is interpolated linearly in log dose after isotonic
    regression. The interval is the set of doses at which "r = .5" is not rejected by the crossed t test of
    score - chance - (clean - chance) / 2 (Fieller's argument: no ratio, no bootstrap, and honest for 2 draws, where a
    bootstrap of draws cannot be). Works for measures where lower is better: the sign of clean - chance decides, so
    check that a subject is on the right side of chance.

    Args:
        response: Its scores.
        unit: Unit of the doses.

    Returns:
        Where the curve never crosses, ``value`` and ``high`` are ``None`` and ``low`` is a lower bound (at most the
        last dose); where it is below half at the first dose, ``value`` and ``low`` are ``None`` and ``high`` is an
        upper bound. An end that the doses tried do not settle is ``None``. All ``None`` if clean is not
        distinguished from chance.

    Raises:
        DataError: If values are not finite or shapes do not fit.

    Source: Fieller (1954), sec. 2; see ``CrossedMean.half_width``.
    """
    alpha = 1.0 - _LEVEL
    found, (_, draws, examples) = _halving(response, alpha), np.shape(response.values)
    shape = f"{draws} draws x {examples} examples"
    shape += "" if response.groups is None else f" in {len(np.unique(response.groups))} groups"
    value = low = high = None
    method = f"not estimated: the clean score is not distinguished from chance, {shape}"
    if found is not None:
        method = f"isotonic crossing, Fieller set of the crossed t, {shape}"
        value = float(np.exp(found.log_half)) if found.crosses == "within" else None
        low, high = (None, None) if one_group(response.groups) else _confidence_set(found, alpha)
    return Estimate(
        name="half_dose", value=value, low=low, high=high, level=_LEVEL, n=examples, unit=unit, method=method
    )


def half_dose_ratio(first: Response, second: Response) -> Estimate:
    """Half dose of ``first`` over that of ``second``, on the same draws and examples, with the p-value of "ratio 1".

    Each cell's pull on log half dose is its excess at the crossing over the slope there (the delta method); the
    difference of the two subjects' pulls is paired cell by cell and goes through the crossed t.

    Returns:
        ``value``, ``low``, ``high`` and ``p`` are ``None`` where either subject has no half dose within its doses.

    Raises:
        DataError: If values are not finite, shapes do not fit, or the two are not measured on the same grid of draws
            and examples.

    Source: delta method; see ``CrossedMean.half_width``.
    """
    alpha = 1.0 - _LEVEL
    if np.shape(first.values)[1:] != np.shape(second.values)[1:]:
        raise DataError(
            "Half doses are compared on the same draws and examples.",
            expected=str(list(np.shape(first.values)[1:])),
            got=str(list(np.shape(second.values)[1:])),
            do="Run both subjects on one task with one set of seeds.",
        )
    halves = [_halving(response, alpha) for response in (first, second)]
    pulls = [None if half is None else half.pull() for half in halves]
    n = np.shape(first.values)[2]
    missing = Estimate(
        name="half_dose_ratio", value=None, low=None, high=None, level=_LEVEL, n=n, unit="ratio",
        method="not estimated: a half dose is outside the doses tried",
    )  # fmt: skip
    if pulls[0] is None or pulls[1] is None or halves[0] is None or halves[1] is None:
        return missing
    spread = crossed(pulls[0] - pulls[1])
    log_ratio = halves[0].log_half - halves[1].log_half
    spread = replace(spread, centre=np.asarray(log_ratio))
    half = float(spread.half_width(alpha))
    known = spread.example_df > 0 and not one_group(first.groups)
    # An end that is too large, or too near to 0, for a number is open.
    low, high = (
        float(np.exp(log)) if known and abs(log) < _LARGEST_LOG else None
        for log in (log_ratio - half, log_ratio + half)
    )
    return msgspec.structs.replace(
        missing,
        value=float(np.exp(log_ratio)),
        low=low,
        high=high,
        p=spread.p_value() if known else None,
        method="delta method on log half dose, paired crossed t",
    )


def _halving(response: Response, alpha: float) -> _HalfPoint | None:
    """Excess over half of the clean score and its crossing; ``None`` if clean is not distinguished from chance."""
    x = _checked_values(response.values, response.doses)
    clean = checked(response.clean, ("example",), what="clean scores")
    if len(clean) != x.shape[2]:
        raise DataError("Clean scores are paired with others.", expected=f"{x.shape[2]} examples", got=str(len(clean)))
    above = clean - response.chance
    spread = spread_over(above[None, :], response.groups)
    known = spread.example_df > 0  # one example is a fixed number: nothing to be unsure of
    if abs(float(spread.centre)) <= (float(spread.half_width(alpha)) if known else 0.0):
        return None
    excess = np.sign(above.mean()) * (x - response.chance - above / 2)
    share = bool(np.isin(x, (0.0, 1.0)).all())
    logs = _log_doses(response.doses)
    mean = descending(excess.mean(axis=(1, 2)))
    cells = clustered(excess, response.groups)
    result = _HalfPoint(excess=cells, logs=logs, mean=mean, pseudo=0.5 if share else 0.0, crosses="within")
    if mean[0] < 0.0:
        return replace(result, crosses="before")
    if mean[-1] > 0.0:
        return replace(result, crosses="after")
    after = int(np.argmax(mean <= 0.0))
    if after == 0:
        return result
    return replace(result, segment=after - 1, share=float(mean[after - 1] / (mean[after - 1] - mean[after])))


def _confidence_set(found: _HalfPoint, alpha: float) -> tuple[float | None, float | None]:
    """Hull of the doses at which a half-lost score is not rejected; ends that the doses leave open are ``None``."""
    positions, gap = _trace(found, alpha)
    inside = np.flatnonzero(gap <= 0.0)
    first, last = float(np.exp(found.logs[0])), float(np.exp(found.logs[-1]))
    point = {"before": first, "after": last, "within": float(np.exp(found.log_half))}[found.crosses]
    low: float | None = point
    high: float | None = point
    if len(inside):
        i, j = int(inside[0]), int(inside[-1])
        low = None if i == 0 else min(point, _edge(positions, gap, i, i - 1))
        high = None if j == len(gap) - 1 else max(point, _edge(positions, gap, j, j + 1))
    return (None if found.crosses == "before" else low), (None if found.crosses == "after" else high)


def _trace(found: _HalfPoint, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Log doses on a fine grid, and how far beyond its interval the mean excess is from zero there."""
    nodes = crossed(found.excess, pseudo=found.pseudo)
    if len(found.logs) == 1:
        return found.logs, np.abs(nodes.centre) - nodes.half_width(alpha)
    middle = crossed((found.excess[:-1] + found.excess[1:]) / 2, pseudo=found.pseudo)
    w = np.linspace(0.0, 1.0, _STEPS)

    def between(at_nodes: FloatArray, at_middle: FloatArray) -> FloatArray:
        # Mean squares are quadratic in w and means are linear, so three points give them exactly.
        rows = (at_nodes[:-1, None] * ((1 - w) * (1 - 2 * w)), at_nodes[1:, None] * (w * (2 * w - 1)))
        return (rows[0] + rows[1] + at_middle[:, None] * (4 * w * (1 - w))).ravel()

    spread = CrossedMean(
        centre=between(nodes.centre, middle.centre),
        draw=np.maximum(between(nodes.draw, middle.draw), 0.0),
        example=np.maximum(between(nodes.example, middle.example), 0.0),
        residual=np.maximum(between(nodes.residual, middle.residual), 0.0),
        draw_df=nodes.draw_df,
        example_df=nodes.example_df,
    )
    positions = (found.logs[:-1, None] * (1 - w) + found.logs[1:, None] * w).ravel()
    return positions, np.abs(spread.centre) - spread.half_width(alpha)


def _edge(positions: FloatArray, gap: FloatArray, inside: int, outside: int) -> float:
    """Dose at which the gap passes zero between two grid points."""
    share = gap[outside] / (gap[outside] - gap[inside])
    return float(np.exp(positions[outside] + share * (positions[inside] - positions[outside])))


def _checked_values(values: Values, doses: Values) -> FloatArray:
    x = checked(values, ("dose", "draw", "example"), what="values")
    if len(x) != len(_log_doses(doses)):
        raise DataError("Values and doses do not fit.", expected=f"{len(x)} doses", got=f"{np.shape(doses)[0]} doses")
    return x


def _log_doses(doses: Values) -> FloatArray:
    x = checked(doses, ("dose",), what="doses")
    if x[0] <= 0.0 or bool(np.any(np.diff(x) <= 0.0)):
        raise DataError(
            "The doses cannot be put on a log axis.",
            expected="positive and strictly ascending",
            got=", ".join(f"{dose:g}" for dose in x),
            do="Sort the doses and leave the clean model (dose 0) out.",
        )
    return np.log(x)
