"""Do 95 % intervals cover 95 %, and do tests of nothing fire in 5 %? On planted worlds whose truth is known.

Simulated rates carry a Monte-Carlo error of sqrt(.95 * .05 / runs); the accepted band is nominal +- 3.1 of them (one
sound interval in a thousand would fall out on either side). Where an interval is conservative by design only the lower
edge is asserted. Rates over scores that are counts are summed exactly, with no simulation at all.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from simulation import covers, slack

from wheeltap.stats.curve import Response, band, half_dose, half_dose_ratio
from wheeltap.stats.effect import exceeds, mean_effect, smallest_detectable

DOSES = np.geomspace(0.01, 1.0, 7)
LOGS = np.log(DOSES)
Generator = np.random.Generator


def normal_table(rng: Generator, shape: tuple[int, int], draw: float, example: float) -> np.ndarray:
    """Crossed normal differences of mean 0 with unit residual; ``draw`` and ``example`` are standard deviations."""
    draws, examples = shape
    return (
        draw * rng.normal(size=(draws, 1))
        + example * rng.normal(size=(1, examples))
        + rng.normal(size=(draws, examples))
    )


def probit_table(
    rng: Generator, shape: tuple[int, int], ease: float, noise: tuple[float, float], shift: float
) -> np.ndarray:
    """Disturbed minus clean 0/1 scores: an example is right where its latent ease (plus noise) is above 0."""
    draw, cell = noise
    latent = ease + rng.normal(size=(1, shape[1]))
    disturbed = latent + shift + draw * rng.normal(size=(shape[0], 1)) + cell * rng.normal(size=shape)
    return (disturbed > 0.0) * 1.0 - (latent > 0.0)


def probit_truth(ease: float, noise: tuple[float, float], shift: float) -> float:
    spread = math.sqrt(1 + noise[0] ** 2 + noise[1] ** 2)
    return float(stats.norm.cdf((ease + shift) / spread) - stats.norm.cdf(ease))


def rates(make: Callable[[Generator], np.ndarray], truth: float, runs: int, *, bounded: bool) -> tuple[float, float]:
    """Share of runs whose interval covers ``truth``, and share of runs with p < .05."""
    rng = np.random.default_rng(11)
    found = [mean_effect(make(rng), unit="u", bounded=bounded) for _ in range(runs)]
    held, fired = zip(*((covers(e, truth), e.p is not None and e.p < 0.05) for e in found), strict=True)
    return float(np.mean(held)), float(np.mean(fired))


# One row per world: draws, examples, sd of draws, sd of examples, and whether the coverage is exactly nominal.
NORMAL = [
    (1, 50, 0.0, 1.0, True),
    (2, 50, 3.0, 0.1, True),  # all is between draws: t with 1 degree of freedom, exact
    (2, 360, 0.08, 1.0, False),  # draws and examples carry equal shares
    (32, 50, 0.8, 1.0, True),
    (50, 2, 1.0, 0.8, False),  # the other way round: many draws, two examples
]


@pytest.mark.parametrize(("draws", "examples", "draw", "example", "exact"), NORMAL)
def test_mean_effect_covers_on_normal_tables(
    draws: int, examples: int, draw: float, example: float, exact: bool
) -> None:
    cover, alarm = rates(lambda rng: normal_table(rng, (draws, examples), draw, example), 0.0, 1200, bounded=False)
    assert cover >= 0.95 - slack(0.95, 1200)
    assert alarm == pytest.approx(1 - cover)  # the truth is 0: an alarm is a miss
    assert not exact or cover <= 0.95 + slack(0.95, 1200)


# draws, examples, ease, (noise of draws, of cells), shift: a mid score, a good one that drops, and rare flips.
PROBIT = [
    (1, 360, 2.3, (0.0, 0.1), -0.05),
    (2, 50, 0.0, (0.3, 0.5), 0.0),
    (4, 50, 2.3, (0.05, 0.1), -0.05),
]


@pytest.mark.parametrize(("draws", "examples", "ease", "noise", "shift"), PROBIT)
def test_mean_effect_covers_on_right_and_wrong_answers(
    draws: int, examples: int, ease: float, noise: tuple[float, float], shift: float
) -> None:
    truth = probit_truth(ease, noise, shift)
    cover, _ = rates(lambda rng: probit_table(rng, (draws, examples), ease, noise, shift), truth, 800, bounded=True)
    assert cover >= 0.95 - slack(0.95, 800)


def test_the_imaginary_examples_are_needed() -> None:
    """Without them rare flips are missed: the worlds above can tell an honest interval from the plain one."""
    noise = (0.05, 0.1)
    truth = probit_truth(2.3, noise, -0.05)
    cover, _ = rates(lambda rng: probit_table(rng, (4, 50), 2.3, noise, -0.05), truth, 300, bounded=False)
    assert cover < 0.6


def test_a_margin_is_exceeded_by_chance_in_at_most_one_run_in_forty() -> None:
    """A true effect that equals the margin (the worst null) is called larger in 2.5 % of the runs at most."""
    rng, runs = np.random.default_rng(5), 1500
    found = [mean_effect(0.4 + normal_table(rng, (4, 50), 0.3, 1.0), margin=0.4, unit="u") for _ in range(runs)]
    called = np.mean([exceeds(e, 0.4) for e in found])
    assert 0.002 < called <= 0.025 + slack(0.025, runs)
    assert called == np.mean([e.p is not None and e.p < 0.05 for e in found])


@pytest.mark.parametrize(("shape", "df"), [((1, 360), None), ((4, 50), 3), ((32, 50), None)])
@pytest.mark.parametrize(("alpha", "margin"), [(0.05, 0.0), (0.05 / 3, 0.2)])
def test_the_smallest_detectable_effect_is_detected(
    shape: tuple[int, int], df: int | None, alpha: float, margin: float
) -> None:
    """With few draws, at another alpha than the interval's, their degrees of freedom are given."""
    rng, runs, sigma = np.random.default_rng(6), 500, 0.3 if shape[0] > 1 else 0.0
    df = df if alpha < 0.05 else None
    blank = [mean_effect(normal_table(rng, shape, sigma, 1.0), unit="u") for _ in range(runs)]
    effect = float(np.median([smallest_detectable(e, alpha=alpha, margin=margin, df=df) for e in blank]))
    tables = [effect + normal_table(rng, shape, sigma, 1.0) for _ in range(runs)]
    power = np.mean([exceeds(mean_effect(x, level=1.0 - alpha, unit="u"), margin) for x in tables])
    assert 0.8 - slack(0.8, runs) - (alpha < 0.05) * 0.06 <= power
    assert power <= (0.8 + slack(0.8, runs) if shape[0] != 4 else 0.99)


def exact_difference_rates(n: int, gained: float, lost: float) -> tuple[float, float]:
    """Coverage of the paired interval and rejection rate of its test, summed over all counts that matter."""
    cover = reject = total = 0.0
    counts = np.arange(n + 1)
    for up, share in enumerate(stats.binom.pmf(counts, n, gained)):
        weights = share * stats.binom.pmf(counts, n - up, lost / (1 - gained))
        for down in np.flatnonzero(weights > 1e-6):
            weight = weights[down]
            values = np.repeat([1.0, -1.0, 0.0], [up, down, n - up - down])
            got = mean_effect(values[None, :], bounded=True, unit="accuracy")
            cover += weight * covers(got, gained - lost)
            reject += weight * (got.p is not None and got.p < 0.05)
            total += weight
    assert total > 0.99
    return cover / total, reject / total


@pytest.mark.parametrize(
    ("n", "gained", "lost"),
    [
        (50, 0.001, 0.001),
        (50, 0.1, 0.1),
        (50, 0.01, 0.06),
    ],
)
def test_score_difference_covers(n: int, gained: float, lost: float) -> None:
    cover, reject = exact_difference_rates(n, gained, lost)
    assert cover >= 0.95 and (gained != lost or reject <= 0.05)


def answers(rng: Generator, shape: tuple[int, int], draw: float) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores [dose, draw, example] and clean ones; a lucky guess is right in a tenth of the cases."""
    draws, examples = shape
    latent = 1.3 + rng.normal(size=(1, 1, examples))
    cell = 0.5 * rng.normal(size=(1, draws, examples)) if draws > 1 else 0.0
    known = latent + draw * rng.normal(size=(1, draws, 1)) + cell - wear()[:, None, None] > 0
    guessed = rng.random((7, draws, examples)) < 0.1
    clean = (latent[0, 0] > 0) | (rng.random(examples) < 0.1)
    return (known | guessed) * 1.0, clean * 1.0


def wear() -> np.ndarray:
    """How much each dose takes from every example's latent ease."""
    return np.logaddexp(0.0, 1.2 * (LOGS - np.log(0.04)))


def answers_truth(draws: int, draw: float) -> tuple[np.ndarray, float]:
    """Population score per dose and the half dose of the curve drawn through them."""
    spread = math.sqrt(1 + draw**2 + (0.25 if draws > 1 else 0.0))
    score = 0.1 + 0.9 * stats.norm.cdf((1.3 - wear()) / spread)
    retention = (score - 0.1) / (0.9 * stats.norm.cdf(1.3))
    return score, float(np.exp(np.interp(-0.5, -retention, LOGS)))


@pytest.mark.parametrize(("draws", "examples", "draw"), [(1, 50, 0.0), (2, 50, 0.4), (32, 50, 0.4)])
def test_half_dose_and_band_cover(draws: int, examples: int, draw: float) -> None:
    rng, runs = np.random.default_rng(21), 300 if draws * examples > 2000 else 600
    score, truth = answers_truth(draws, draw)
    inside, half = np.zeros(7), 0.0
    for _ in range(runs):
        values, clean = answers(rng, (draws, examples), draw)
        _, low, high = band(values, bounded=True)
        inside += (low <= score) & (score <= high)
        half += covers(half_dose(Response(values=values, clean=clean, doses=DOSES, chance=0.1)), truth)
    assert (inside / runs >= 0.95 - slack(0.95, runs)).all() and half / runs >= 0.95 - slack(0.95, runs)
    assert draws > 1 or half / runs <= 0.95 + slack(0.95, runs)


@pytest.mark.parametrize(("draws", "examples"), [(1, 50), (4, 50)])
def test_half_dose_ratio_covers(draws: int, examples: int) -> None:
    """Two subjects of one half dose, whose losses share examples and draws: lower is better here (a loss in nats)."""
    rng, runs = np.random.default_rng(22), 800
    rise = 1.8 * stats.norm.cdf(0.9 * (LOGS - np.log(0.1)))[:, None, None]
    hits, alarms = 0, 0
    for _ in range(runs):
        shared = 0.2 * rng.normal(size=(1, 1, examples)) + (draws > 1) * 0.1 * rng.normal(size=(1, draws, 1))
        both: list[Response] = []
        for _ in range(2):
            own = 0.3 * rng.normal(size=(1, 1, examples)) + (draws > 1) * 0.05 * rng.normal(size=(1, draws, 1))
            values = 0.5 + rise * (1 + own) + shared + 0.1 * rng.normal(size=(7, draws, examples))
            both.append(Response(values=values, clean=0.5 + shared[0, 0], doses=DOSES, chance=2.3))
        got = half_dose_ratio(*both)
        hits += covers(got, 1.0)
        alarms += got.p is not None and got.p < 0.05
    assert hits / runs >= 0.95 - slack(0.95, runs) and alarms / runs <= 0.05 + slack(0.05, runs)
