"""What a plan will be able to find, told before anything runs."""

import numpy as np

from wheeltap.stats._scipy import normal_quantile, t_quantile

DRAW, EXAMPLE, RESIDUAL = 0.10, 0.10, 0.35
"""Standard deviations of a difference of curve area between two networks of equal score: from draw to draw, from
example to example, and of the rest, as shares of right answers. Upper ends of what was measured under relative and
function-space noise on MLPs, CNNs and tiny language models (draw .02 to .14, example .00 to .10, rest .16 to .38)."""

CHANGED = 0.10
"""Share of answers that a deterministic change of the weights alters, where it begins to matter."""

_POWER = 0.8


def area_difference(*, draws: int, examples: int, alpha: float = 0.05, margin: float = 0.0) -> float:
    """Smallest difference of curve area that a comparison finds with probability .8, as a share of right answers.

    Args:
        draws: Of noise, the same for both subjects.
        examples: The same for both.
        alpha: Level of the test, by itself.
        margin: The test is of a larger difference than this.

    Source: Cohen (1988), sec. 2.4; the interval's own t quantiles (``Crossed.half_width``).
    """
    by_draw = (DRAW**2 + RESIDUAL**2 / examples) / draws
    by_example = EXAMPLE**2 / examples
    quantiles = t_quantile(alpha, draws - 1) ** 2, t_quantile(alpha, max(examples - 1, 1)) ** 2
    half = float(np.sqrt(quantiles[0] * by_draw + quantiles[1] * by_example))
    return margin + half * (1 + normal_quantile(_POWER) / normal_quantile(1 - alpha / 2))


def loss(*, examples: int, alpha: float = 0.05, margin: float = 0.0) -> float:
    """Smallest loss of score under a deterministic change that an audit finds with probability .8, as a share.

    Source: Cohen (1988), sec. 2.4, for paired 0/1 answers of which ``CHANGED`` differ.
    """
    return margin + (normal_quantile(1 - alpha / 2) + normal_quantile(_POWER)) * float(np.sqrt(CHANGED / examples))
