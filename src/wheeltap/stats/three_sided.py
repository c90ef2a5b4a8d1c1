"""The other side of a test against a margin: is an effect shown to be smaller than the smallest one of interest?

``mean_effect`` with a margin shows that an effect exceeds it; this shows that it does not, and tells beforehand what
either can decide. All p-values are those of two-sided intervals, and agree with the interval that is displayed.

Student's t is not enough to exclude losses, which are rare and skewed: with 200 examples and an alpha of .005 the
adjusted Wald interval excludes a true loss of 2 % in 1.8 % of samples. So the examples are also weighed at random
(Dirichlet weights), an imaginary one that lost all among them; of losses alone this is Clopper and Pearson's bound. For
any values with a known maximum its validity is a conjecture without a known exception, and for 0/1 answers the tests
enumerate it. Without a maximum no test is valid for every distribution (Bahadur & Savage 1956): the imaginary example
then lies twice as far above the mean as any seen, and 50 times as far as the margin, as a wrong answer does where the
margin is .02: enough where 2 % of the examples, or more, make up the mean.
From draw to draw an imaginary one lies several times as far out as the furthest seen (``crossed.unseen_reach``); a rare
draw that ruins everything is what ``rare`` is for.

Source: Goeman, Solari & Stijnen (2010), "Three-sided hypothesis testing"; Gaffke (2005), "Three test statistics for a
nonparametric one-sided hypothesis on the mean of a nonnegative variable"; Learned-Miller & Thomas (2020), "A new
confidence interval for the mean of a bounded random variable", sec. 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, cast, final

import msgspec
import numpy as np
from scipy import special  # type: ignore[import-untyped]

from wheeltap.core.records import Power
from wheeltap.stats._scipy import normal_quantile, normal_share, root, t_quantile
from wheeltap.stats.crossed import (
    PER_SKEWNESS,
    CrossedMean,
    FloatArray,
    Values,
    checked,
    checked_alpha,
    crossed,
    positive_margin,
    unseen_reach,
    within,
)
from wheeltap.stats.effect import amplitude

_ndtr = cast(Callable[[FloatArray], FloatArray], special.ndtr)
_betaincinv = cast(Callable[[float, float, FloatArray], FloatArray], special.betaincinv)
_gammaincinv = cast(Callable[[float, FloatArray], FloatArray], special.gammaincinv)

ASSURED: Final = 0.8
"""Probability with which a number of examples or draws that is named decides."""

_BEYOND = 2.0
"""How many times as far above the mean as the largest value the imaginary example lies, where nothing bounds it. A mean
of ten rare losses of random size is excluded at an alpha of .005 in 1.7 % of samples with 1, in .5 % with 2."""

LEAST: Final = 50.0
"""How many times as far above the mean as the margin it lies at least: so far are losses of 2 % of the examples."""


@dataclass(frozen=True)
class Unbounded:
    """What is taken of values where nothing bounds them.

    Attributes:
        least: How many margins an example that nobody drew may lose at least.
        transformed: Whether examples have Hall's transformation: see ``crossed``.
        far: How far an example may move that nobody drew, of a statistic's values: see ``Sample``.
    """

    least: float = LEAST
    transformed: bool = True
    far: float | None = None


_Z = 24.0  # normal score of the smallest p-value, 1e-126
_NEAR, _FAR = -30.0, 18.0  # log tilt, in ranges of the values: nearly all weight on the largest, to equal weights
_NODES = 32  # quantiles of the draws' chi-squared distribution
_TRUTHS = 16  # quantiles of the confidence distribution
_GRID = 64  # quantiles of the share of answers that changed, and of those lost among them
_LARGE = 3.0  # margins up to which a true mean is looked for, or up to the mean of the data
_TIMES = 20  # so many times as many examples or draws are the most that are named
_CLOSE, _LIKELY = 0.5, 1.0 / 3.0  # an effect is near the margin if a third of the truths are within half of it
_STEADY = 1.5
"""How many times ``required_examples`` most fresh samples do with: more examples show more of a tail."""


def p_below(
    values: Values,
    *,
    margin: float,
    bound: float | None,
    one_sided: bool,
    skewed: bool = False,
    unbounded: Unbounded = Unbounded(),
) -> float | None:
    """P-value of "the effect is at least ``margin``": the smallest alpha at which it is shown to be less.

    Of a two-sided alpha, like ``Estimate.p``: where the 95 % interval of ``mean_effect`` reaches the margin it is
    above .05. It is the larger p-value of that interval and of one that allows for rare and skewed losses.

    Args:
        values: [draw, example], losses or differences of losses.
        margin: Smallest effect of interest, in the values' unit.
        bound: Most that the size of a value can be: 1 of a difference of two scores in [0, 1], 2 of a difference of two
            such differences; ``None`` where there is no such bound.
        one_sided: Whether only a positive mean is an effect; else the larger p-value of both sides is taken.
        skewed: Whether a draw that nobody made may hit much harder than any of these: see ``unseen_reach``.
        unbounded: What is taken of values where there is no bound.

    Returns:
        ``None`` where a single number says nothing of its spread.

    Raises:
        DataError: If values are not finite, or beyond the bound.
        UsageError: If the margin is not positive: an effect of 0 or more can never be excluded.

    Source: Schuirmann (1987), two one-sided tests; for each of them, those of this module.
    """
    x, edge = _checked(values, bound=bound), positive_margin(margin)
    if x.size == 1:
        return None
    above = _p_one_sided(x, edge, bound=bound, skewed=skewed, unbounded=unbounded)
    return above if one_sided else max(above, _p_one_sided(-x, edge, bound=bound, skewed=skewed, unbounded=unbounded))


def p_above(values: Values, *, margin: float, bound: float | None, far: float) -> float:
    """P-value of "the mean is at most ``margin``" by the weighed mean, of values ``[draw, example]`` up to ``bound``.

    Args:
        values: As for ``p_below``.
        margin: 0 or more.
        bound: As for ``p_below``.
        far: How far an imaginary example of the interval moves.
    """
    x = _checked(values, bound=bound)
    return _p_one_sided(-x, -margin, bound=bound, skewed=False, unbounded=Unbounded(far=far))


def power_of(  # noqa: PLR0913 - as ``p_below``, and alpha
    values: Values, *, margin: float, bound: float | None, one_sided: bool, alpha: float, skewed: bool = False,
    unbounded: Unbounded = Unbounded(),
) -> Power | None:  # fmt: skip
    """What a repetition with as many draws and examples can decide, and how many of either would be enough.

    Enough is what gives the right verdict with probability .8, averaged over the true means that these data leave
    possible (assurance). With the spread that ``values`` have. Of 0/1 answers to one draw the share gained is kept, and
    as much and the effect are lost, so that larger effects vary more; else the values are shifted. Draws are normal.

    Source: O'Hagan, Stevens & Campbell (2005), "Assurance in clinical trial design".

    Args:
        values: [draw, example].
        margin: Smallest effect of interest, in the values' unit.
        bound: As for ``p_below``.
        one_sided: As for ``p_below``; if not, ``found`` is of the direction that is harder to find.
        alpha: Of one test, after correction.
        skewed: As for ``p_below``.
        unbounded: As for ``p_below``.

    Returns:
        ``None`` where a single number says nothing of its spread. With a single example, ``examples`` is ``None``.

    Raises:
        DataError: If values are not finite, or beyond the bound.
        UsageError: If ``margin`` or ``alpha`` cannot be used.
    """
    x, edge = _checked(values, bound=bound), positive_margin(margin)
    checked_alpha(alpha)
    draws, examples = x.shape
    if x.size == 1:
        return None
    most = max(_LARGE * edge, abs(float(x.mean())))
    ends = (0.0 if one_sided else -most, most)
    if draws == 1 and bound is not None and unbounded.far is None and bool(np.isin(x, (-1.0, 0.0, 1.0)).all()):
        gains, losses = int((x < 0.0).sum()), int((x > 0.0).sum())
        share = _churn(losses, gains, one_sided=one_sided) / examples
        worlds = [
            _Means.answers(gained, mean, examples, bound=bound)
            for gained, mean in _answers_like(gains, losses, examples, ends)
        ]
        none, twice = (_Means.answers(share, mean, examples, bound=bound) for mean in (0.0, 2.0 * edge))
    else:
        sample = x if examples > 1 else x.T  # draws of a single example are the only sample, as its examples would be
        none = _Means.of(sample, bound=bound, skewed=skewed, unbounded=unbounded if examples > 1 else Unbounded(0.0))
        wider, truths = _with_imaginary(sample, unbounded), _truths(x, ends, bound=bound, unbounded=unbounded)
        world = _Means.of(wider, bound=bound, skewed=skewed, unbounded=none.unbounded)
        twice, worlds = replace(none, mean=2.0 * edge), [replace(world, mean=mean) for mean in truths]

    def assurance(draws: int, examples: int) -> float:
        return float(np.mean([world.at(draws, examples).decided(edge, alpha, one_sided=one_sided) for world in worlds]))

    found, below = twice.found(edge, alpha), none.below(edge, alpha)
    if not one_sided:
        found = min(found, replace(twice.mirrored(), mean=2.0 * edge).found(edge, alpha))
        below = np.maximum(below + none.mirrored().below(edge, alpha) - 1.0, 0.0)
    close = [abs(abs(world.mean) - edge) < _CLOSE * edge for world in worlds]
    known = Power(found=found, excluded=float(below.mean()), near=bool(np.mean(close) >= _LIKELY))
    if examples == 1:
        return msgspec.structs.replace(known, draws=_smallest(lambda k: assurance(1, k), draws))
    return msgspec.structs.replace(
        known,
        examples=_smallest(lambda n: assurance(draws, n), examples),
        draws=_smallest(lambda k: assurance(k, examples), draws) if draws > 1 else None,
    )


def _answers_like(gains: int, losses: int, examples: int, ends: tuple[float, float]) -> list[tuple[float, float]]:
    """Shares of answers gained, and mean losses between the ends, that these answers leave possible, equally likely.

    Source: Jeffreys (1946): the posterior distribution of three shares, each with a prior count of one half.
    """
    at = (np.arange(_GRID) + 0.5) / _GRID
    changed = _betaincinv(gains + losses + 1.0, examples - gains - losses + 0.5, at)
    lost = changed[:, None] * _betaincinv(losses + 0.5, gains + 0.5, at)
    gained = (changed[:, None] - lost).ravel()
    means = lost.ravel() - gained
    inside = (ends[0] <= means) & (means <= ends[1])
    if inside.sum() >= _TRUTHS:
        gained, means = gained[inside], means[inside]
    means = np.clip(means, *ends)
    order = np.argsort(means, kind="stable")
    taken = order[((np.arange(_TRUTHS) + 0.5) / _TRUTHS * len(order)).astype(int)]
    return list(zip(gained[taken].tolist(), means[taken].tolist(), strict=True))


def _truths(x: FloatArray, ends: tuple[float, float], *, bound: float | None, unbounded: Unbounded) -> list[float]:
    """True means that the data leave possible, equally likely: quantiles of the confidence distribution.

    It is cut at the ends: a mean that is known badly would else seem to lie far from the margin, and to be told from it
    too soon.

    Source: Cox (1958), "Some problems connected with statistical inference": the ends of intervals of every level.
    """
    pseudo = _imaginary(x, bound=bound, unbounded=unbounded)
    spread = crossed(x, pseudo=pseudo, unbounded=bound is None and unbounded.transformed)

    def beyond(mean: float) -> float:
        """Confidence that the true mean is larger."""
        tail = replace(spread, centre=spread.centre - mean).p_value() / 2.0
        return tail if float(spread.centre) < mean else 1.0 - tail

    least, most = (beyond(end) for end in ends[::-1])
    tails = np.clip(least + (most - least) * (np.arange(_TRUTHS) + 0.5) / _TRUTHS, 1e-9, 1.0 - 1e-9)
    sides = [(1.0, tail) if tail < 0.5 else (-1.0, 1.0 - tail) for tail in tails.tolist()]
    each = [float(spread.centre + side * spread.half_width(2.0 * tail, side=side)) for side, tail in sides]
    return np.clip(each, *ends).tolist()


def _imaginary(x: FloatArray, *, bound: float | None, unbounded: Unbounded) -> float:
    """How far the two imaginary examples of the interval moved; 0 where it has none."""
    if unbounded.far is not None:
        return amplitude(x, whole=unbounded.far)
    return amplitude(x) if bound is not None and float(np.abs(x).max()) <= 1.0 else 0.0


def _with_imaginary(x: FloatArray, unbounded: Unbounded) -> FloatArray:
    """A statistic's values with the two imaginary examples of its interval.

    Where few examples changed, those seen tell too little about how far others will move: fresh ones vary more.
    """
    if not unbounded.far:
        return x
    moved = np.full((len(x), 1), amplitude(x, whole=unbounded.far))
    return np.hstack([x, moved, -moved])


@final
@dataclass(frozen=True, kw_only=True)
class _WeightedMean:
    """The mean of values under random weights, one imaginary value among them: exponential weights, scaled to sum to 1.

    That it reaches m has the probability that a sum of exponential numbers times (value - m) is positive. The saddle
    point tells it, and gives m and its normal score for any tilt without a search.

    Attributes:
        points: Distinct values, less their mean.
        weights: How many there are of each.
        most: The imaginary value, at least as large as any.

    Source: Barndorff-Nielsen (1986), the r* approximation; within 5 % of Clopper-Pearson's p-values, on the safe side.
    """

    points: FloatArray
    weights: FloatArray
    most: float

    @classmethod
    def of(cls, points: FloatArray, weights: FloatArray, *, most: float | None, least: float) -> "_WeightedMean":
        """With the imaginary value at ``most``, where the measure is bounded, or beyond the largest and ``least``."""
        largest = float(points.max())
        beyond = max(_BEYOND * largest, least) if most is None else most
        return cls(points=points, weights=weights, most=max(beyond, largest))

    def z(self, mean: float) -> float:
        """Normal score of the weighed mean being as large as ``mean``, which lies above that of the points."""
        if self._range == 0.0 or self._mean_at(_NEAR) <= mean:
            return _Z
        if self._mean_at(_FAR) >= mean:
            return 0.0
        return self._at(root(lambda tilt: _log_ratio(self._mean_at(tilt), mean), _NEAR, _FAR))[1]

    def upper(self, z: float) -> tuple[float, FloatArray]:
        """The weighed mean of this normal score, and how far more of each point moves it: its influence function."""
        if self._range == 0.0:
            return self.most, self.points
        tilt = _FAR if self._at(_FAR)[1] >= z else _NEAR
        if tilt < _FAR and self._at(_NEAR)[1] > z:
            tilt = root(lambda tilt: _log_ratio(self._at(tilt)[1], z), _NEAR, _FAR)
        mean = self._at(tilt)[0]
        slope = 1.0 / (self.most - mean + self._range * math.exp(tilt))
        return mean, -np.log1p(-slope * (self.points - mean)) / slope

    @cached_property
    def _depths(self) -> FloatArray:
        """How far the points lie below the imaginary value."""
        return self.most - self.points

    @cached_property
    def _range(self) -> float:
        return float(self._depths.max())

    def _mean_at(self, tilt: float) -> float:
        """Mean whose saddle point has this tilt."""
        rest = self._range * math.exp(tilt)  # from the imaginary value to the pole: as a difference it would be rounded
        tilted = self.weights / (self._depths + rest)
        return float(tilted @ self.points + self.most / rest) / float(tilted.sum() + 1.0 / rest)

    def _at(self, tilt: float) -> tuple[float, float]:
        """``_mean_at`` the tilt, and its normal score; next to the values' own mean that is 0."""
        mean, rest = self._mean_at(tilt), self._range * math.exp(tilt)
        gaps = self._depths + rest
        off, top = self.points - mean, self.most - mean
        slope = 1.0 / (top + rest)
        square = 2.0 * (float(self.weights @ np.log1p(-slope * off)) + math.log(rest * slope))
        if square < 1e-6:
            return mean, 0.0
        r, u = math.sqrt(square), math.sqrt(float(self.weights @ np.square(off / gaps)) + (top / rest) ** 2)
        return mean, max(r + math.log(u / r) / r, 0.0)


@final
@dataclass(frozen=True, kw_only=True)
class _Means:
    """A repetition whose example means and variance components are known.

    Attributes:
        points: Distinct means of examples over the draws, less their mean.
        shares: Of the examples, of each point.
        draws: How many there are in the repetition; ``examples`` likewise.
        draw: Variance of the mean from draw to draw; ``example`` and ``residual`` likewise.
        pseudo: How far the imaginary examples of ``mean_effect`` moved; 0 of an unbounded measure.
        bound: Of a value; ``None`` of an unbounded measure.
        up: How far the furthest draw lies above their mean.
        down: How far the furthest lies below it.
        unbounded: What is taken of values where there is no bound.
        mean: The true mean.
    """

    points: FloatArray
    shares: FloatArray
    draws: int
    examples: int
    draw: float
    example: float
    residual: float
    pseudo: float
    bound: float | None
    up: float = 0.0
    down: float = 0.0
    unbounded: Unbounded = Unbounded()
    mean: float = 0.0

    @classmethod
    def of(cls, x: FloatArray, *, bound: float | None, skewed: bool, unbounded: Unbounded) -> "_Means":
        spread, means = crossed(x), x.mean(0)
        pseudo = _imaginary(x, bound=bound, unbounded=unbounded)
        points, counts = np.unique(means - means.mean(), return_counts=True)
        draw, example, residual = float(spread.draw), float(spread.example), float(spread.residual)
        return cls(
            points=points, shares=counts / len(means), draws=x.shape[0], examples=x.shape[1], pseudo=pseudo,
            bound=bound, unbounded=unbounded, residual=residual,
            draw=max(draw - residual, 0.0), example=max(example - residual, 0.0),
            up=float(spread.up) if skewed else 0.0, down=float(crossed(-x).up) if skewed else 0.0,
        )  # fmt: skip

    @classmethod
    def answers(cls, gained: float, effect: float, examples: int, *, bound: float) -> "_Means":
        """Of right and wrong answers to one draw: a share is gained, and as much and the effect are lost."""
        gained = min(max(gained, -effect), 1.0)
        lost = min(gained + effect, 1.0 - gained)
        shares = np.array([gained, 1.0 - gained - lost, lost])
        points = np.array([-1.0, 0.0, 1.0]) - (lost - gained)
        return cls(
            points=points, shares=shares, draws=1, examples=examples, pseudo=1.0, bound=bound, mean=lost - gained,
            draw=0.0, example=float(shares @ np.square(points)) / examples, residual=0.0,
        )  # fmt: skip

    def at(self, draws: int, examples: int) -> "_Means":
        """The same with other numbers of draws and examples."""
        by_draw, by_example = self.draws / draws, self.examples / examples
        before, example = (self.example + self.residual) * by_example, self.example * by_example
        residual = self.residual * by_example * by_draw
        scale = math.sqrt((example + residual) / before) if before > 0.0 else 1.0
        return replace(
            self, points=self.points * scale, draws=draws, examples=examples,
            draw=self.draw * by_draw, example=example, residual=residual,
        )  # fmt: skip

    def mirrored(self) -> "_Means":
        """Of the values with the other sign."""
        return replace(self, points=-self.points, up=self.down, down=self.up, mean=-self.mean)

    def decided(self, margin: float, alpha: float, *, one_sided: bool) -> float:
        """Probability that the verdict is given which is right."""
        if abs(self.mean) > margin and (self.mean > 0.0 or not one_sided):
            return (self if self.mean > 0.0 else self.mirrored()).found(margin, alpha)
        below = self.below(margin, alpha)
        if not one_sided:
            below = np.maximum(below + self.mirrored().below(margin, alpha) - 1.0, 0.0)
        return float(below.mean())

    def found(self, margin: float, alpha: float) -> float:
        """Probability that the mean is found to exceed the margin."""
        skewness = self._skewness(margin, side=-1.0)
        if skewness is None:
            return 0.0
        half = self._half_width(alpha, up=self.down, side=-1.0, skewness=skewness)
        middle, t = _median_of_sorted(half), t_quantile(alpha, self._units - 1)
        # Where larger values also make a wider interval, its near end varies less than its centre does.
        bend = t**2 / (2.0 * middle * self.examples) if middle > 0.0 else 0.0
        distance = self.mean * self.examples / self._units - margin
        return float(self._chances(distance - half, self.points - bend * np.square(self.points)).mean())

    def below(self, margin: float, alpha: float) -> FloatArray:
        """Probability that the mean is shown to be below the margin, for each outcome of the draws' mean square."""
        skewness, short = self._skewness(margin, side=1.0), margin - self.mean
        if skewness is None or short <= 0.0:
            return np.zeros_like(self._nodes)
        weighing = _WeightedMean.of(
            self.points,
            self.shares * self.examples,
            most=None if self.bound is None else self.bound - self.mean,
            least=self.unbounded.least * short,
        )
        by_example, pull = weighing.upper(-normal_quantile(alpha / 2.0))
        by_draw = np.maximum((self.draw + self.residual) * self._nodes - self.residual, 0.0)
        draws = t_quantile(alpha, self.draws - 1) if self.draws > 1 else 0.0
        tail = self.up * unseen_reach(self.draws, alpha) if self.draws > 1 else 0.0
        interval = self._half_width(alpha, side=1.0, skewness=skewness)
        upper = np.maximum(np.hypot(by_example, np.maximum(draws * np.sqrt(by_draw), tail)), interval)
        share = by_example / _median_of_sorted(upper) if by_example > 0.0 else 0.0
        return self._chances(short - upper, self.points + share * (pull - self.points))

    def _skewness(self, margin: float, *, side: float) -> float | None:
        """Of a test on this side; ``None`` where too few examples leave it open: see ``is_transformed``."""
        if self.bound is not None or not self.unbounded.transformed:
            return 0.0
        spread = math.sqrt(float(self.shares @ np.square(self.points)))
        skewness = float(self.shares @ self.points**3) / spread**3 if spread > 0.0 else 0.0
        around = float(self.points.min()) <= margin - self.mean <= float(self.points.max())
        if not around or self.examples >= _STEADY * PER_SKEWNESS * skewness**2:
            return skewness
        return None if side * skewness > 0.0 else 0.0

    @property
    def _units(self) -> int:
        return self.examples + 2 if self.pseudo else self.examples

    @cached_property
    def _nodes(self) -> FloatArray:
        """What the draws' mean square may come out as, over its expectation: an interval from few draws varies."""
        if self.draws == 1:
            return np.ones(1)
        half_df = (self.draws - 1) / 2.0
        return _gammaincinv(half_df, (np.arange(_NODES) + 0.5) / _NODES) / half_df

    def _half_width(self, alpha: float, *, up: float = 0.0, side: float, skewness: float) -> FloatArray:
        """Of the interval of ``mean_effect``, and of what draws that nobody made add to it."""
        squares = (self.example + self.residual) * self.examples * (self.examples - 1) + 2.0 * self.pseudo**2
        return CrossedMean(
            centre=np.zeros_like(self._nodes),
            draw=(self.draw + self.residual) * self._nodes,
            example=np.full_like(self._nodes, squares / self._units / (self._units - 1)),
            residual=np.full_like(self._nodes, self.residual),
            draw_df=self.draws - 1,
            example_df=self._units - 1,
            up=up,
            skewness=skewness,
        ).half_width(alpha, skewed=up > 0.0, side=side)

    def _chances(self, distance: FloatArray, influence: FloatArray) -> FloatArray:
        """Probabilities that a number with this influence of examples, and that of draws, errs by less."""
        variance = self.draw + float(self.shares @ np.square(influence - self.shares @ influence)) / self.examples
        return _ndtr(distance / math.sqrt(variance)) if variance > 0.0 else (distance > 0.0).astype(np.float64)


def _p_one_sided(x: FloatArray, margin: float, *, bound: float | None, skewed: bool, unbounded: Unbounded) -> float:
    """P-value of "the mean is at least ``margin``"."""
    if (mean := float(x.mean())) >= margin:
        return 1.0
    pseudo = 0.0 if bound is None else _imaginary(x, bound=bound, unbounded=unbounded)  # as in the interval shown
    spread = crossed(x, pseudo=pseudo, unbounded=bound is None and unbounded.transformed)
    short = replace(spread, centre=np.asarray(margin - float(spread.centre)), skewness=-spread.skewness)
    by_interval = short.p_value(skewed=skewed)
    cells = (x if x.shape[1] > 1 else x.T) - mean
    points, counts = np.unique(cells.mean(0), return_counts=True)
    most = None if bound is None else bound - mean
    # Draws of a single example are no examples: what none of them showed is ``unseen_reach``'s matter.
    far = unbounded.least * (margin - mean) if x.shape[1] > 1 else 0.0
    examples = _WeightedMean.of(points, counts.astype(np.float64), most=most, least=far)
    part = max(float(spread.draw - spread.residual), 0.0)
    if not spread.draw_df:
        return max(by_interval, _two_sided(examples.z(margin - mean)))

    def beyond(z: float) -> float:
        alpha = _two_sided(z)
        by_draw = t_quantile(alpha, spread.draw_df) * math.sqrt(part)
        by_draw = max(by_draw, float(spread.tail(alpha))) if skewed else by_draw
        return math.log(max(math.hypot(examples.upper(z)[0], by_draw), 1e-300) / (margin - mean))

    z = 0.0 if beyond(0.0) >= 0.0 else _Z if beyond(_Z) <= 0.0 else root(beyond, 0.0, _Z)
    return max(by_interval, _two_sided(z))


def _log_ratio(value: float, target: float) -> float:
    """Zero where the two are equal; nearly linear in the tilt, so that its root takes a third fewer steps."""
    return math.log(max(value / target, 1e-6))


def _median_of_sorted(values: FloatArray) -> float:
    """Median of values in order, as those for ``_Means._nodes`` are; sorting them again would take most of the time."""
    last = len(values) - 1
    return float(values[last // 2] + values[(last + 1) // 2]) / 2.0


def _two_sided(z: float) -> float:
    return 2.0 * normal_share(-min(z, _Z))


def _churn(lost: int, gained: int, *, one_sided: bool) -> float:
    """How many answers are gained whatever the effect is."""
    # If it may be either way, half of what changed beyond it: the smaller number would be too small, by chance.
    effect = math.sqrt(max((lost - gained) ** 2 - lost - gained, 0))
    return gained if one_sided else (lost + gained - effect) / 2.0


def _smallest(assurance: Callable[[int], float], now: int) -> int | None:
    """Smallest number above ``now``, to 2 %, with that assurance; ``None`` where 20 times ``now`` do not."""
    low, high = now, _TIMES * now
    if assurance(high) < ASSURED:
        return None
    while high > low + max(1, low // 50):
        middle = round(math.sqrt(low * high))
        low, high = (low, middle) if assurance(middle) >= ASSURED else (middle, high)
    return high


def _checked(values: Values, *, bound: float | None) -> FloatArray:
    x = checked(values, ("draw", "example"), what="losses")
    return x if bound is None else within(x, -bound, bound, what="losses")
