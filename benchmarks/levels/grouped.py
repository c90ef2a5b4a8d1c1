"""Statistics of other kinds over examples that come in groups: curves, ranks, choices, pass@k."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks.levels import WRONG, Row
from benchmarks.levels.groups import ALIKE, COUNTS, grouped
from wheeltap.core.records import Estimate
from wheeltap.stats.beyond import Beyond
from wheeltap.stats.clusters import clustered
from wheeltap.stats.curve import Response, band, half_dose, half_dose_ratio
from wheeltap.stats.effect import share_interval, share_kept
from wheeltap.stats.mogstad2024 import rank_intervals
from wheeltap.stats.selection import Halves
from wheeltap.stats.simultaneous import band as whole_band
from wheeltap.stats.top_ranked import TopRankedLoss
from wheeltap.stats.unpaired import unpaired_effect
from wheeltap.suites.lens.stats.passk import pass_at

Array = NDArray[np.float64]
Groups = NDArray[np.intp]
Rng = np.random.Generator
Wrong = Callable[[Groups, float, Rng], float]

LOGS: Final = np.array([-1.5, -0.75, 0.0, 0.75, 1.5])
DRAWS, OWN = 4, 0.3
TRIES: Final = 8
CANDIDATES: Final = 8


def shared(groups: Groups, alike: float, rng: Rng, *, rows: int = 1) -> Array:
    """Normal numbers ``[row, example]`` of variance 1, of which groups share a part."""
    of_group = rng.normal(size=(rows, int(groups.max()) + 1))[:, groups]
    return np.sqrt(alike) * of_group + np.sqrt(1.0 - alike) * rng.normal(size=(rows, len(groups)))


def _fallen(groups: Groups, alike: float, rng: Rng) -> Response:
    """Right until the dose is above what an example stands, about 1."""
    stands = shared(groups, alike, rng) + OWN * rng.normal(size=(DRAWS, len(groups)))
    values = (stands[None] > LOGS[:, None, None]) * 1.0
    return Response(values=values, clean=np.ones(len(groups)), doses=np.exp(LOGS), chance=0.0, groups=groups)


def _outside(found: Estimate, truth: float) -> float:
    return float((found.low is not None and found.low > truth) or (found.high is not None and found.high < truth))


def _band(groups: Groups, alike: float, rng: Rng) -> float:
    """Share of the doses at which the band misses the curve."""
    _, low, high = band(_fallen(groups, alike, rng).values, bounded=True, groups=groups)
    truth = ndtr(-LOGS / np.sqrt(1.0 + OWN**2))
    return float(((truth < low) | (truth > high)).mean())


def _half(groups: Groups, alike: float, rng: Rng) -> float:
    return _outside(half_dose(_fallen(groups, alike, rng)), 1.0)


def _ratio(groups: Groups, alike: float, rng: Rng) -> float:
    found = half_dose_ratio(*(_fallen(groups, alike, rng) for _ in range(2)))
    return float(found.p is not None and found.p <= 0.05)


def _kept(groups: Groups, alike: float, rng: Rng) -> float:
    response = _fallen(groups, alike, rng)
    truth = float(ndtr(0.75 / np.sqrt(1.0 + OWN**2)))
    found = share_kept(response.values[1], response.clean, chance=0.0, bounded=True, groups=groups)
    return _outside(found, truth)


def _partial(groups: Groups, alike: float, rng: Rng) -> float:
    """A score of partial credit, .5 on average."""
    return _outside(share_interval(ndtr(shared(groups, alike, rng)[0]), groups=groups, unit="share"), 0.5)


def _unpaired(groups: Groups, alike: float, rng: Rng) -> float:
    found = unpaired_effect(*shared(groups, alike, rng, rows=2), groups=groups, unit="")
    return float(found.p is not None and found.p <= 0.05)


def _ranked(groups: Groups, alike: float, rng: Rng) -> float:
    """Three subjects of equal mean."""
    ranks = rank_intervals(clustered(shared(groups, alike, rng, rows=3), groups))
    return float(any((rank.low, rank.high) != (1.0, 3.0) for rank in ranks))


def _chosen(groups: Groups, alike: float, rng: Rng) -> float:
    """The top-ranked of several candidates none of which costs anything."""
    halves = Halves.drawn(len(groups), splits=4, groups=groups, rng=rng)
    ranked = TopRankedLoss(shared(groups, alike, rng, rows=CANDIDATES), np.ones(CANDIDATES), halves, "nats")
    cost = ranked.cost(margin=0.0)
    return float((cost.value or 0.0) > 0.0 and cost.p is not None and cost.p <= 0.05)


def _beyond(groups: Groups, alike: float, rng: Rng) -> float:
    """A set of units that is one of the random ones."""
    one, *others = shared(groups, alike, rng, rows=1 + CANDIDATES)
    found = Beyond(one, np.array(others), groups=groups).effect(name="", unit="")
    return float(found.p is not None and found.p <= 0.05)


def _tries(groups: Groups, alike: float, rng: Rng) -> float:
    """The whole curve of pass@k, of items that are solved with any probability."""
    right = rng.binomial(TRIES, ndtr(shared(groups, alike, rng)[0]))
    solved = pass_at(right, np.full(len(groups), TRIES), most=TRIES)
    made = whole_band(solved, groups=groups, draws=2000, rng=rng)
    ks = np.arange(1, TRIES + 1)
    truth = ks / (ks + 1.0)
    return float(((truth < made.low) | (truth > made.high)).any())


STATISTICS: Final[dict[str, Wrong]] = {
    "band of a curve": _band, "half dose": _half, "ratio of half doses": _ratio, "share kept": _kept,
    "partial credit": _partial, "unpaired difference": _unpaired, "ranks": _ranked,
    "chosen on halves": _chosen, "beyond random sets": _beyond, "band of pass@k": _tries,
}  # fmt: skip

FOUND: Final = ("ratio of half doses", "unpaired difference", "ranks", "chosen on halves", "beyond random sets")
"""Those in which something may be found; of the others an interval misses what is true."""


def run(reps: int, *, counts: Sequence[int] = COUNTS, alike: Sequence[float] = ALIKE) -> list[Row]:
    """All statistics of all designs, ``reps`` samples each."""
    rng, rows = np.random.default_rng(12), list[Row]()
    for count in counts:
        for share in alike:
            for name, wrong in STATISTICS.items():
                wrongs = [wrong(grouped(count, rng), share, rng) for _ in range(reps)]
                rate, design = float(np.mean(wrongs)), f"{count} groups, correlation {share:g}"
                held = name not in FOUND
                rows.append(
                    Row(
                        claim=name, design=design, figure="whole curve held" if held else "false found",
                        rate=1.0 - rate if held else rate, low=1.0 - WRONG if held else 0.0,
                        high=1.0 if held else WRONG, families=reps,
                    )
                )  # fmt: skip
    return rows
