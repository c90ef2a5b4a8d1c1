"""The variance of a mean over draws x examples when both are samples of something larger.

A disturbance is measured with a few random draws on a few hundred examples, every draw on every example. Neither is
exhaustive, so the 32 x 360 cells are not 11,520 independent numbers: a draw that hits hard hits all its examples.

Student's t calls a mean of left-skewed values too high (exponential tails, 50 examples, 13 rows: .22 of reports at a
level of .05), so the examples of an unbounded measure have Hall's transformation, and no verdict where they are few for
their skewness: see ``CrossedMean.example_reach`` and ``required_examples``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats._scipy import root, t_quantile

Values = NDArray[np.floating[Any]]
FloatArray = NDArray[np.float64]


_EVEN = (0.25, 0.03, 1.2)
"""Up to how many times as far as the lowest draw the highest may lie so that draws count as even: of k, the first and k
times the second, at most the third. Skewed draws lie so in less than 1 of 200 samples."""

_FADE = 0.3
"""Share of that beyond which they do not count as even at all."""

_NOISY = 0.1
"""Share of draws' variance that is noise of examples, from which nobody sees whether they are even."""

_ROUNDING = 1e-12
_NO_SKEWNESS = 1e-6  # below it the transformation is t, and its closed form loses digits

PER_SKEWNESS = 50.0
"""Examples for each squared unit of skewness below which Hall's transformation is not enough: with them 13 rows of
exponential, lognormal and chi-square tails are falsely decided in .064 of reports at most, at a level of .05."""

_LOG_TINY = -300.0  # a p-value below 1e-130 is called 0; smaller ones overflow the squared quantile


@dataclass(frozen=True, kw_only=True)
class CrossedMean:
    """Centre and variance components of a mean over draws x examples; arrays share the leading shape.

    Attributes:
        centre: Centre of the interval, in the values' unit (shrunk towards 0 where pseudo-examples were added).
        draw: MS_draw / (draws x examples), in squared units; 0 with one draw.
        example: MS_example / (draws x examples).
        residual: MS_residual / (draws x examples); 0 with one factor.
        draw_df: Degrees of freedom of ``draw``; 0 with one factor.
        example_df: Degrees of freedom of ``example``; 0 if there is a single number.
        up: How far the mean of the highest draw lies above that of all draws, less what noise from the examples adds.
        room: How far the mean of a draw can lie above that of all draws at most.
        skewness: Of the examples' means, where they have Hall's transformation; 0 where they have Student's t alone.
    """

    centre: FloatArray
    draw: FloatArray
    example: FloatArray
    residual: FloatArray
    draw_df: int
    example_df: int
    up: FloatArray | float = 0.0
    room: float = np.inf
    skewness: FloatArray | float = 0.0

    @property
    def df(self) -> int:
        """Degrees of freedom of the whole: those of examples or draws, whichever its error is from, or in between.

        Source: Satterthwaite (1946), "An approximate distribution of estimates of variance components".
        """
        draw, example = float(self.draw), max(float(self.example - self.residual), 0.0)
        if not self.draw_df or draw <= 0.0:
            return self.example_df
        return int((draw + example) ** 2 / (draw**2 / self.draw_df + example**2 / self.example_df))

    def half_width(self, alpha: float, *, skewed: bool = False, side: float = 0.0) -> FloatArray:
        """Half width of the 1 - ``alpha`` interval; infinite where nothing varies by design.

        Of examples with a ``skewness`` it is the distance to the upper end where ``side`` is 1, to the lower one at -1.

        Each component is multiplied by its own squared t quantile (as Cochran and Cox do for two means) instead of
        one Satterthwaite quantile for the sum: with 2 draws Satterthwaite's 95 % interval covers as little as 89 %,
        because the estimate of its degrees of freedom is least reliable when it matters. The residual lies in both
        mean squares and has to be counted once; counted with either factor, the wider result is taken, so the
        interval is never narrower than either factor alone implies, whatever the signs of the ANOVA estimates.

        Student's t supposes draws that are near normal. Where they may be ``skewed``, what reaches upwards also allows
        for draws that nobody made: see ``unseen_reach``.

        Source: Searle, Casella & McCulloch (1992), sec. 4.3 (components); Cochran & Cox (1957), sec. 4.14 (weights).
        """
        if self.example_df == 0:
            return np.full_like(self.centre, np.inf)
        examples = np.square(self.example_reach(alpha, side))
        draws = t_quantile(alpha, self.draw_df) ** 2 if self.draw_df else 0.0
        tail = np.square(self.tail(alpha)) if skewed and self.draw_df else 0.0
        by_draw = np.maximum(draws * self.draw, tail)
        with_draw = by_draw + examples * np.maximum(self.example - self.residual, 0.0)
        rest = np.maximum(draws * np.maximum(self.draw - self.residual, 0.0), tail)
        return np.sqrt(np.maximum(with_draw, examples * self.example + rest))

    def example_reach(self, alpha: float, side: float) -> FloatArray:
        """Standard errors of the examples from the center to the end of the interval on this side.

        Hall's transformation of a studentized mean, t + g t^2 / 3 sqrt(n) + g^2 t^3 / 27 n + g / 6 sqrt(n), solved
        for t.

        Source: Hall (1992), "On the removal of skewness by transformation", eq. 2.3, with Student's quantile.
        """
        t, root_n = t_quantile(alpha, self.example_df), np.sqrt(self.example_df + 1)
        if isinstance(self.skewness, float) and abs(self.skewness) <= _NO_SKEWNESS:
            return np.full_like(self.centre, t)
        g = -side * np.asarray(self.skewness, dtype=np.float64)
        scale = np.where(np.abs(g) > _NO_SKEWNESS, g / root_n, 1.0)
        transformed = 3.0 / scale * (np.cbrt(1.0 + scale * (t - g / root_n / 6.0)) - 1.0)
        return np.where(np.abs(g) > _NO_SKEWNESS, np.maximum(transformed, 0.0), t)

    def tail(self, alpha: float) -> FloatArray:
        """How far up draws that nobody made may move the mean, at a two-sided ``alpha``.

        Where a draw's mean is bounded, no further than if all draws that were made were as the highest, and those that
        were not, as high as can be.
        """
        draws = self.draw_df + 1
        far = self.up * unseen_reach(draws, alpha)
        if not np.isfinite(self.room):
            return np.asarray(far)
        most = unseen(draws, alpha / 2.0)
        return np.minimum(far, (1.0 - most) * np.minimum(self.up, self.room) + most * self.room)

    def p_value(self, margin: float = 0.0, *, skewed: bool = False) -> float:
        """P-value of |mean| <= ``margin``: the alpha at which the interval's near end would touch the margin.

        So it is below 1 - level exactly when the interval at that level lies beyond the margin.
        """
        distance, side = abs(float(self.centre)) - margin, -float(np.sign(self.centre))
        if distance <= 0.0 or self.example_df == 0:
            return 1.0

        def gap(log_alpha: float) -> float:
            return float(self.half_width(float(np.exp(log_alpha)), skewed=skewed, side=side)) - distance

        if gap(_LOG_TINY) <= 0.0:
            return 0.0
        if gap(0.0) >= 0.0:
            return 1.0
        return float(np.exp(root(gap, _LOG_TINY, 0.0)))


def crossed(values: Values, *, pseudo: FloatArray | float = 0.0, unbounded: bool = False) -> CrossedMean:
    """Variance components of the mean of ``values[..., draw, example]``, by two-way ANOVA without replication.

    Args:
        values: At least two axes; the last two are draws and examples. One draw is taken as no sampling of draws (a
            deterministic disturbance), one example as no sampling of examples.
        pseudo: Where positive, one example at ``+pseudo`` and one at ``-pseudo`` are added to the examples: the
            adjusted Wald rule, which keeps the interval honest where every value is the same.
        unbounded: Whether the examples, of an unbounded measure, have Hall's transformation.

    Source: Searle, Casella & McCulloch (1992), sec. 4.3; Bonett & Price (2012) for the two added examples.
    """
    x = np.asarray(values, dtype=np.float64)
    skewness = skewness_of(x.mean(axis=-2)) if unbounded and x.shape[-1] > 1 else 0.0
    if x.shape[-1] == 1:
        x = np.swapaxes(x, -1, -2)
    draws, examples = x.shape[-2:]
    columns = x.mean(axis=-2)
    rows = x.mean(axis=-1)
    grand = columns.mean(axis=-1)
    amplitude = np.broadcast_to(np.asarray(pseudo, dtype=np.float64), grand.shape)
    units = examples + 2 if bool(np.any(amplitude > 0.0)) else examples
    centre = grand * (examples / units)
    spread = np.square(columns - grand[..., None]).sum(axis=-1)
    # The two added examples pull the centre from the grand mean to ``centre``: shift of origin, then their squares.
    spread = spread + examples * np.square(grand - centre) + (units - examples) * (amplitude**2 + centre**2)
    zero = np.zeros_like(grand)
    example = spread / max(units - 1, 1) / units
    if draws == 1:
        return CrossedMean(
            centre=centre, draw=zero, example=example, residual=zero, draw_df=0, example_df=units - 1, skewness=skewness
        )  # fmt: skip
    row_spread = np.square(rows - grand[..., None]).sum(axis=-1)
    rest = x - rows[..., :, None] - columns[..., None, :] + grand[..., None, None]
    residual = np.square(rest).sum(axis=(-1, -2)) / ((draws - 1) * (examples - 1)) / (draws * examples)
    draw = row_spread / (draws - 1) / draws
    return CrossedMean(
        centre=centre,
        draw=draw,
        example=example,
        residual=residual,
        draw_df=draws - 1,
        example_df=units - 1,
        up=furthest(rows, noise=residual * draws),
        skewness=skewness,
    )


def skewness_of(examples: FloatArray) -> FloatArray:
    """Skewness of ``[..., example]``; 0 where nothing varies but rounding."""
    off = examples - examples.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.square(off).mean(axis=-1))
    varies = spread > _ROUNDING * np.abs(examples).max(axis=-1)
    return np.asarray(np.where(varies, (off**3).mean(axis=-1) / np.where(varies, spread, 1.0) ** 3, 0.0))


def required_examples(examples: FloatArray, margin: float) -> int:
    """Fewest examples for a verdict on the mean of ``[example]``, of an unbounded measure; 0 where any will do.

    Where all of them lie on one side of the margin, skewness is no reason to doubt on which side their mean does.
    """
    if len(examples) < 2 or not float(examples.min()) <= margin <= float(examples.max()):
        return 0
    return int(np.ceil(PER_SKEWNESS * float(skewness_of(examples)) ** 2))


def is_transformed(examples: FloatArray, margin: float, *, side: float) -> bool | None:
    """Whether the upper (1) or lower (-1) end of a mean of ``[example]`` has Hall's transformation in a test.

    Where there are fewer than ``required_examples``, a long tail on the other side makes Student's t err less often
    than it may, so that it decides (``False``); one on this side leaves the verdict open (``None``).
    """
    if len(examples) >= required_examples(examples, margin):
        return True
    return None if side * float(skewness_of(examples)) > 0.0 else False


def furthest(means: FloatArray, *, noise: FloatArray | float) -> FloatArray:
    """How far the highest of draws lies above their mean, by itself.

    Few draws tell the noise that examples add to them badly from their own spread, so half of it is left out. Draws
    that lie as evenly about their mean as skewed ones hardly ever do count as having none beyond them: the highest of
    16 draws is at most .73 times as far out as the lowest, of 32 at most 1.2 times.

    Args:
        means: ``[..., draw]``, of each draw.
        noise: ``[...]``, variance that examples add to each.
    """
    draws, grand = means.shape[-1], means.mean(axis=-1)
    above, below, spread = means.max(axis=-1) - grand, grand - means.min(axis=-1), means.var(axis=-1, ddof=1)
    share = noise / np.where(spread > 0.0, spread, 1.0)
    uneven = np.clip(
        (above / np.where(below > 0.0, below, 1.0) / min(_EVEN[0] + _EVEN[1] * draws, _EVEN[2]) - 1.0) / _FADE, 0.0, 1.0
    )
    uneven = np.where(share > _NOISY, 1.0, uneven)
    return np.asarray(above * uneven * np.sqrt(np.clip(1.0 - share / 2.0, 0.5, 1.0)))


def unseen(draws: int, alpha: float) -> float:
    """Largest probability that what none of ``draws`` showed may have, with confidence 1 - ``alpha``.

    Source: Hahn & Meeker (1991), "Statistical Intervals", sec. 5.3.1.
    """
    return 1.0 - alpha ** (1.0 / draws)


def unseen_reach(draws: int, alpha: float) -> float:
    """How far unseen draws may move a mean, in distances from the mean to the furthest of ``draws``, at ``alpha``.

    What none of k draws showed may have a probability (``unseen``), and such a draw is taken to lie
    (30 / alpha)^(.8 / sqrt(k)), and no less than (30 / alpha)^.13, times as far out as the furthest seen. The second
    factor is no theorem: it is the least simple one by which means over lognormal draws with a log standard deviation
    of 1.5, over gamma draws of shape .5, over exponential, normal and t(3) draws, and over draws mirrored to these, are
    kept within the bound in a share of 1 - ``alpha`` of samples of 4 to 256 draws on 50 to 10,000 examples, at an alpha
    of .05 to .004 (``python -m benchmarks.levels draws``).
    """
    return float(unseen(draws, alpha / 2.0) * (30.0 / alpha) ** max(0.8 / np.sqrt(draws), 0.13))


def checked(values: Values, axes: tuple[str, ...], *, what: str) -> FloatArray:
    """``values`` as finite float64 with the named axes, none of them empty.

    Raises:
        DataError: If the number of axes is another, an axis is empty, or a value is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != len(axes) or 0 in x.shape:
        raise DataError(
            f"The {what} have the wrong shape.",
            expected=f"[{', '.join(axes)}], none empty",
            got=str(list(x.shape)),
            do="Stack the per-example values in that order of axes.",
        )
    if not bool(np.isfinite(x).all()):
        raise DataError(
            f"The {what} contain NaN or infinity.",
            expected="finite numbers",
            got=f"{int((~np.isfinite(x)).sum())} of {x.size} not finite",
            do="Leave out trials whose status is not 'done' before estimating.",
        )
    return x


def within(x: FloatArray, low: float, high: float, *, what: str) -> FloatArray:
    """``x`` itself, if a bounded measure could have given it.

    Raises:
        DataError: If a value lies outside [``low``, ``high``].
    """
    if float(x.min()) < low or float(x.max()) > high:
        raise DataError(
            f"The {what} are not those of a bounded measure.",
            expected=f"values in [{low:g}, {high:g}]",
            got=f"values in [{float(x.min()):g}, {float(x.max()):g}]",
            do="Pass bounded=False for a measure that is not a share of right answers.",
        )
    return x


def checked_margin(margin: float) -> float:
    """``margin`` itself.

    Raises:
        UsageError: If it is negative.
    """
    if not margin >= 0.0:
        raise UsageError("The margin cannot be used.", expected="0 or more", got=str(margin))
    return margin


def positive_margin(margin: float) -> float:
    """``margin`` itself.

    Raises:
        UsageError: If it is not more than 0.
    """
    if not margin > 0.0:
        raise UsageError("The margin cannot be used.", expected="more than 0", got=str(margin))
    return margin


def checked_alpha(level: float) -> float:
    """1 - ``level``.

    Raises:
        UsageError: If ``level`` is not strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise UsageError("The confidence level cannot be used.", expected="between 0 and 1", got=str(level))
    return 1.0 - level
