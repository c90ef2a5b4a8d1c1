"""How likely a test would have missed an effect that other draws have measured: what makes a missed plant a failure."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.seeds import generator
from wheeltap.stats._scipy import normal_share, t_quantile
from wheeltap.stats.clusters import Groups, spread_over
from wheeltap.stats.crossed import CrossedMean, Values, checked, checked_alpha

FloatArray = NDArray[np.float64]

_REPETITIONS = 20_000
"""Imaginary repetitions: a probability of .001 is known to within .0002."""


def missed_again(reference: Values, plant: Values, *, level: float, groups: Groups | None = None) -> float | None:
    """Probability that a comparison of ``reference`` with new draws of a plant does not show that it scores less.

    The reference's draws are held fixed, since the comparison has them already. The new draws of the plant are
    predicted from those at hand: normal, with a mean and a spread that a few draws tell only roughly, so that few
    draws never promise much.

    Args:
        reference: ``[draw, example]``, larger is sounder; at least two draws.
        plant: ``[draw, example]`` of the plant, from draws that the comparison does not use; at least two.
        level: Confidence level of the comparison's two-sided interval.
        groups: ``[example]``, the cluster of each; ``None`` where examples are independent.

    Returns:
        ``None`` where a single draw says nothing of their spread.

    Source: Geisser (1993), "Predictive inference", sec. 2.2: normal draws with the reference prior.
    """
    known, pilot = (checked(x, ("draw", "example"), what="areas") for x in (reference, plant))
    draws, seen, alpha = len(known), len(pilot), checked_alpha(level)
    if min(draws, seen) < 2:
        return None
    shared = min(draws, seen)
    about = spread_over(known[:shared] - pilot[:shared], groups)
    rows, ours = pilot.mean(1), known.mean(1)
    inflation, shifts, deviations = _random_numbers(seen, draws)
    spread = rows.std(ddof=1) * inflation
    centre = rows.mean() + spread * shifts / np.sqrt(seen)
    gaps = ours - (centre + spread * deviations)
    repeated = CrossedMean(
        centre=gaps.mean(1), draw=gaps.var(1, ddof=1) / draws, example=about.example * np.ones(_REPETITIONS),
        residual=about.residual * np.full(_REPETITIONS, shared / draws), draw_df=draws - 1,
        example_df=about.example_df,
    )  # fmt: skip
    return float((repeated.centre <= repeated.half_width(alpha)).mean())


@lru_cache(maxsize=4)
def _random_numbers(seen: int, draws: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return factors of the spread of ``seen`` draws, and standard normal numbers for their mean and for new draws.

    They are the same in every call, so repeated calls with equal numbers of draws share them.
    """
    rng = generator(0, "missing")
    inflation = np.sqrt((seen - 1) / rng.chisquare(seen - 1, size=(_REPETITIONS, 1)))
    return inflation, rng.standard_normal((_REPETITIONS, 1)), rng.standard_normal((_REPETITIONS, draws))


def missed_by(effect: float, error: float, *, df: int, level: float) -> float:
    """Probability that a repetition does not show an effect to be positive that was measured once.

    Both the measurement and its repetition have this standard error.

    Args:
        effect: As measured.
        error: Its standard error.
        df: Degrees of freedom of the error.
        level: Confidence level of the two-sided interval.
    """
    if error == 0.0:
        return float(effect <= 0.0)
    return normal_share((t_quantile(checked_alpha(level), df) - effect / error) / np.sqrt(2.0))
