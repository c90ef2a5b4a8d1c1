"""What a plan will be able to find, known before anything runs."""

from functools import cache

import numpy as np

from wheeltap.core import seeds
from wheeltap.stats._scipy import normal_quantile
from wheeltap.stats.crossed import CrossedMean, furthest

DRAW, EXAMPLE, RESIDUAL = 0.10, 0.10, 0.35
"""Standard deviations of a difference of curve area between two networks of equal score: from draw to draw, from
example to example, and of the rest, as shares of right answers. Upper ends of what was measured under relative and
function-space noise on MLPs, CNNs and tiny language models (draw .02 to .14, example .00 to .10, rest .16 to .38)."""

CHANGED = 0.10
"""Share of answers that a deterministic change of the weights alters, where it begins to matter."""

_POWER = 0.8
_RUNS = 4000


@cache
def area_difference(*, draws: int, examples: int, alpha: float = 0.05, margin: float = 0.0) -> float:
    """Smallest difference of curve area that a comparison finds with probability .8, as a share of right answers.

    Of simulated comparisons, since draws that nobody made are allowed for by how the draws lie (``CrossedMean.up``).

    Args:
        draws: Of noise, the same for both subjects.
        examples: The same for both.
        alpha: Level of the test, by itself.
        margin: The test is of a larger difference than this.
    """
    noise, by_example = RESIDUAL**2 / examples, EXAMPLE**2 / examples
    random = seeds.generator(0, "foresee", draws)
    means = np.sqrt(DRAW**2 + noise) * random.standard_normal((_RUNS, draws))
    spread = CrossedMean(
        centre=np.zeros(_RUNS), draw=means.var(axis=1, ddof=1) / draws, residual=np.full(_RUNS, noise / draws),
        example=np.full(_RUNS, by_example + noise / draws), draw_df=draws - 1, example_df=max(examples - 1, 1),
        up=furthest(-means, noise=noise),
    )  # fmt: skip
    error = means.mean(axis=1) + np.sqrt(by_example) * random.standard_normal(_RUNS)
    return margin + float(np.quantile(spread.half_width(alpha, skewed=True) - error, _POWER))


def loss(*, examples: int, alpha: float = 0.05, margin: float = 0.0) -> float:
    """Smallest loss of score under a deterministic change that an audit finds with probability .8, as a share.

    Source: Cohen (1988), sec. 2.4, for paired 0/1 answers of which ``CHANGED`` differ.
    """
    return margin + (normal_quantile(1 - alpha / 2) + normal_quantile(_POWER)) * float(np.sqrt(CHANGED / examples))
