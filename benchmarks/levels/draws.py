"""Skewed draws, skewed losses and rare ones, at the margin.

Of answers under draws the counts are drawn first, and which examples they are only where the draws' means leave open
that something is decided.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.stats.crossed import CrossedMean, furthest
from wheeltap.stats.sample import Sample

Array = NDArray[np.float64]
Rng = np.random.Generator
Counts = NDArray[np.int64]
Drawn = Callable[[int | tuple[int, int], Rng], Array]
"""What draws cost, in as many numbers or in a table ``[sample, draw]``."""

ALPHA: Final = 0.05
MARGIN: Final = 0.02
ROWS: Final = 13
"""Rows of a report, all at the margin and independent: whatever is decided of one is wrong."""
_DEALT: Final = 4
"""Rows of a report that are drawn; what a report of more says follows, since rows are independent."""

DRAWN: Final[dict[str, Drawn]] = {
    "normal": lambda k, rng: MARGIN + 0.015 * rng.normal(size=k),
    "t, 3 degrees": lambda k, rng: MARGIN + 0.015 * rng.standard_t(3, k) / np.sqrt(3.0),
    "gamma .5": lambda k, rng: rng.gamma(0.5, 2.0 * MARGIN, k),
    "lognormal 1": lambda k, rng: MARGIN * np.exp(rng.normal(0.0, 1.0, k) - 0.5),
    "lognormal 1.5": lambda k, rng: MARGIN * np.exp(rng.normal(0.0, 1.5, k) - 1.125),
}
"""What a draw costs, with the margin as the mean over draws."""

SKEWED: Final = ("gamma .5", "lognormal 1", "lognormal 1.5")


def mirrored(drawn: Drawn) -> Drawn:
    """Few draws cost much less than the others."""
    return lambda k, rng: 2.0 * MARGIN - drawn(k, rng)


PAIRED: Final[dict[str, Callable[[Drawn, int | tuple[int, int], Rng], tuple[Array, Array]]]] = {
    "against steady": lambda drawn, k, rng: (np.full(k, 2.0 * MARGIN), drawn(k, rng)),
    "own draws": lambda drawn, k, rng: (MARGIN + drawn(k, rng), drawn(k, rng)),
    "shared draws": lambda drawn, k, rng: (1.5 * MARGIN + 0.5 * (hard := drawn(k, rng)), hard),
}
"""What a draw costs each of two models, with the margin as the difference of their means."""

VALUED: Final[dict[str, Callable[[int, Rng], Array]]] = {
    "normal": lambda n, rng: MARGIN + 0.1 * rng.normal(size=n),
    "lognormal 1": lambda n, rng: MARGIN * np.exp(rng.normal(size=n) - 0.5),
    "2 % lose exp(1)": lambda n, rng: (rng.random(n) < 0.02) * rng.exponential(1.0, n),
    "5 % lose exp(.4)": lambda n, rng: (rng.random(n) < 0.05) * rng.exponential(0.4, n),
    "t, 3 degrees": lambda n, rng: MARGIN + 0.1 * rng.standard_t(3, n) / np.sqrt(3.0),
}
"""What an example costs under a measure without a bound, one draw."""

TAILS: Final[dict[str, Callable[[int, Rng], Array]]] = {
    "exponential": lambda n, rng: rng.exponential(1.0, n) - 1.0,
    "lognormal .5": lambda n, rng: np.exp(0.5 * rng.normal(size=n)) - np.exp(0.125),
    "chi-square": lambda n, rng: rng.normal(size=n) ** 2 - 1.0,
    "lognormal 1": lambda n, rng: np.exp(rng.normal(size=n)) - np.exp(0.5),
}
"""Tails of losses without a bound, about their mean: most examples lose a little and few gain much, or the reverse."""


def counted(by_draw: Array, examples: int, rng: Rng) -> Counts:
    """How many 0/1 answers each draw loses and gains, ``[..., draw, 2]``; one in a hundred is lost whatever the draw."""
    lost = np.clip(by_draw + 0.01, 0.0, 0.9)
    gained = np.clip(lost - by_draw, 0.0, 0.9)
    fewer = rng.binomial(examples, lost)
    return np.stack([fewer, rng.binomial(examples - fewer, gained / (1.0 - lost))], axis=-1)


def placed(counts: Counts, examples: int, rng: Rng) -> Array:
    """Answers lost less gained, ``[draw, example]``, of one sample's counts."""
    at, (lost, gained) = np.arange(examples), counts.T[..., None]
    return rng.permuted((at < lost) * 1.0 - ((at >= lost) & (at < lost + gained)), axis=1)


def answers(by_draw: Array, examples: int, rng: Rng) -> Array:
    """0/1 answers lost less gained, ``[draw, example]``."""
    return placed(counted(by_draw, examples, rng), examples, rng)


def open_to(means: Array, examples: int, *, one_sided: bool, skewed: bool = True) -> NDArray[np.bool_]:
    """Whether draws of these means, ``[sample, draw]``, leave open that something is decided at ``ALPHA``.

    No interval is narrower than the draws alone make it, and what is added for answers that nobody saw moves its center
    towards 0, by 2 in ``examples`` + 2 at most. How far draws reach that nobody made, noise of examples lowers by half
    of its variance at most.
    """
    mean, draws = means.mean(axis=1), means.shape[1]
    if not one_sided:
        means, mean = means * np.where(mean < 0.0, -1.0, 1.0)[:, None], np.abs(mean)
    zero, spread = np.zeros_like(mean), means.var(axis=1, ddof=1) / draws

    def half(sign: float, room: float) -> Array:
        """Of the interval towards draws that cost more, or less."""
        up = np.sqrt(0.5) * furthest(sign * means, noise=0.0)
        alone = CrossedMean(
            centre=zero, draw=spread, example=zero, residual=zero, draw_df=draws - 1, example_df=1, up=up, room=room
        )
        return alone.half_width(ALPHA, skewed=skewed)

    nearest = np.minimum(mean, mean * examples / (examples + 2.0))
    return np.asarray((mean - MARGIN >= half(-1.0, 1.0)) | (MARGIN - nearest >= half(1.0, np.inf)))


def judged_draws(
    subjects: Sequence[Array], examples: int, *, rng: Rng, one_sided: bool = True, skewed: bool = True
) -> Array:
    """P-values of both sides, ``[sample, side]``, of what draws cost one model, or of the difference of two.

    Args:
        subjects: What each draw costs, ``[sample, draw]``, of one or two models.
        examples: How many answers there are.
        rng: For the answers.
        one_sided: See ``judged``.
        skewed: See ``Sample``.
    """
    counts = [counted(one, examples, rng) for one in subjects]
    each = [(one[..., 0] - one[..., 1]) / examples for one in counts]
    means = each[0] if len(each) == 1 else each[0] - each[1]
    p = np.ones((len(means), 2))
    for at in np.flatnonzero(open_to(means, examples, one_sided=one_sided, skewed=skewed)):
        x = [placed(one[at], examples, rng) for one in counts]
        sample = Sample(x[0] if len(x) == 1 else x[0] - x[1], float(len(x)), skewed=skewed)
        p[at] = judged(sample, one_sided=one_sided)
    return p


def judged(sample: Sample, margin: float = MARGIN, *, one_sided: bool = True) -> tuple[float, float]:
    """P-values of "costs" and of "safe", or of "differ" and of "equivalent"."""
    over = float(np.mean(sample.values)) > margin
    found = sample.above(margin) if over or (not one_sided and float(np.mean(sample.values)) < -margin) else 1.0
    below = 1.0 if over else sample.below(margin, one_sided=one_sided)
    return 0.0 if found is None else found, 1.0 if below is None else below


def families(p: Array, *, design: str, claim: str, one_sided: bool = True) -> list[Row]:
    """False verdicts of one row, and in a report of so many such rows, where Holm is Bonferroni; the worse counts.

    Args:
        p: ``[sample, side]``, of ``_DEALT`` rows a family.
        design: See ``Row``.
        claim: See ``Row``.
        one_sided: Of one model; else of two.
    """
    rows = list[Row]()
    for at, word in enumerate(("costs", "safe") if one_sided else ("differ", "equivalent")):
        alone, strict = (float((p[:, at] <= alpha).mean()) for alpha in (ALPHA, ALPHA / ROWS))
        several = 1.0 - (1.0 - strict) ** ROWS
        rows.append(
            Row(claim=claim, design=design, figure=f"false {word}", rate=max(alone, several), high=WRONG,
                families=len(p) // _DEALT, also=(("alone", alone), (f"report of {ROWS}", several)))
        )  # fmt: skip
    return rows


def price(loss: float, k: int, *, reps: int, rng: Rng) -> Row:
    """What is found of a loss whose draws are normal, with a deviation of a quarter of it, at a score of .9."""
    hits = np.zeros((2, 2))
    for _ in range(reps):
        x = answers(np.clip(rng.normal(loss, loss / 4.0, k), -0.1, 0.9), 1000, rng)
        for at, sample in enumerate((Sample(x, 1.0, (-0.1, 0.9), skewed=True), Sample(x, 1.0))):
            p = sample.above(MARGIN) or 0.0
            hits[at] += p <= ALPHA, p <= ALPHA / ROWS
    (alone, several), (plain, plain_several) = hits / reps
    return Row(
        claim="price over draws", design=f"loss of {loss:g}, {k} draws, 1000 examples", figure="found", rate=alone,
        families=reps,
        also=(("by Student's t", plain), (f"strictest of {ROWS}", several), ("by Student's t", plain_several)),
    )  # fmt: skip


def over_draws(k: int, n: int, *, reps: int, rng: Rng, skewed: bool = True) -> list[Row]:
    """Single models and pairs; not ``skewed`` by Student's t on the side where something is found."""
    rows = list[Row]()
    laws = {**DRAWN, **{f"mirrored {name}": mirrored(DRAWN[name]) for name in SKEWED}}
    size, shape = f"{k} draws, {n} examples", (_DEALT * reps, k)
    for name, drawn in laws.items():
        p = judged_draws([drawn(shape, rng)], n, rng=rng, skewed=skewed)
        rows += families(p, claim="loss over draws", design=f"{name}, {size}")
    for kind, paired in PAIRED.items():
        for name in SKEWED:
            p = judged_draws(paired(DRAWN[name], shape, rng), n, rng=rng, one_sided=False, skewed=skewed)
            rows += families(p, claim="difference over draws", design=f"{kind}, {name}, {size}", one_sided=False)
    return rows


def run(reps: int, *, draws: Sequence[int] = (4, 16), examples: Sequence[int] = (50, 300, 3000)) -> list[Row]:
    """All designs, ``reps`` families each."""
    rng, rows = np.random.default_rng(7), list[Row]()
    for k in draws:
        for n in examples:
            rows += over_draws(k, n, reps=reps, rng=rng)
        rows += [price(loss, k, reps=reps // 4, rng=rng) for loss in (0.1, 0.2, 0.4)]
    for name, valued in VALUED.items():
        for n in (50, 100, 300, 1000):
            p = np.array([judged(Sample(valued(n, rng)[None])) for _ in range(_DEALT * reps)])
            rows += families(p, claim="loss without a bound", design=f"{name}, {n} examples")
    for name, tail in TAILS.items():
        for side, n in product((1.0, -1.0), (50, 100, 300, 1000)):
            p = np.array([judged(Sample(MARGIN + side * tail(n, rng)[None])) for _ in range(_DEALT * reps)])
            design = f"{name} tail to the {'right' if side > 0.0 else 'left'}, {n} examples"
            rows += families(p, claim="loss without a bound", design=design)
    return rows
