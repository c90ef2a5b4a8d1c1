"""Two-way bootstrap over items and raters: the same few raters vote on many items, so both are samples.

Items and raters are resampled independently, and a vote counts as often as its item times its rater was drawn.

Source: Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1:386.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast, final

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from wheeltap.core import seeds
from wheeltap.stats.clusters import Groups, clustered
from wheeltap.stats.crossed import FloatArray, crossed
from wheeltap.suites.lens.stats.votes import Counts, PanelHalves, halves, shares, splits_for

DRAWS, _FEWEST_DRAWS, _CELLS = 1000, 100, 10_000_000
"""Resamples: the standard error is then known within 2%. Fewer where their weights would take more than 80 MB."""

MAX_ROWS: Final = 200
"""Rows of a table: from that many raters on, Student's quantile is the normal one."""

FEWEST: Final = 2
"""Votes of an item from which two raters can agree."""

_table = cast(Callable[..., Any], sparse.csr_array)


@final
@dataclass(frozen=True, eq=False)
class Ballots:
    """Who chose what: each rater has at most one vote on an item.

    Attributes:
        item: ``[ballot]``, row of ``votes``.
        rater: ``[ballot]``, any whole numbers.
        label: ``[ballot]``, column of ``votes``.
        votes: ``[item, label]``, how many raters chose it; two or more on each item.
        groups: ``[item]``, what items share, where they come in groups: groups are then resampled in place of items.
        seed: Of resamples and halves.
    """

    item: Counts
    rater: Counts
    label: Counts
    votes: Counts
    groups: Groups | None = None
    seed: int = 0

    @cached_property
    def raters(self) -> int:
        """Number of raters."""
        return len(np.unique(self.rater))

    @cached_property
    def effective_raters(self) -> float:
        """Number of raters with equally many votes who would tell as much.

        Source: Kish (1965), "Survey Sampling", sec. 11.7, the effective number.
        """
        loads = np.unique(self.rater, return_counts=True)[1]
        return float(loads.sum() ** 2 / np.square(loads).sum())

    @cached_property
    def chance_agreement(self) -> float:
        """Probability that votes of two different raters, on items drawn one by one, are the same."""
        raters = np.unique(self.rater, return_inverse=True)[1]
        weights = np.zeros((self.raters, self.votes.shape[1]))
        np.add.at(weights, (raters, self.label), 1.0 / self.votes.sum(1)[self.item] / len(self.votes))
        different = 1.0 - float(np.square(weights.sum(1)).sum())
        alike = float(np.square(weights.sum(0)).sum() - np.square(weights).sum())
        return alike / different if self.raters > 1 else 1.0

    @cached_property
    def others(self) -> Counts:
        """Votes of the other raters on the same item, ``[ballot, label]``."""
        left = self.votes[self.item].copy()
        left[np.arange(len(left)), self.label] -= 1
        return left

    @cached_property
    def _units(self) -> Counts:
        """``[item]``, what is resampled: the item or its group."""
        return np.unique(np.arange(len(self.votes)) if self.groups is None else self.groups, return_inverse=True)[1]

    @cached_property
    def _weights(self) -> tuple[FloatArray, FloatArray]:
        """How often each item or group ``[draw, unit]`` and each rater ``[draw, rater]`` is drawn."""
        sizes = int(self._units.max()) + 1, self.raters
        draws = int(np.clip(_CELLS // max(sizes), _FEWEST_DRAWS, DRAWS))
        rng = seeds.generator(self.seed, "raters", "resamples")
        of_units, of_raters = (rng.multinomial(n, np.full(n, 1.0 / n), size=draws) for n in sizes)
        return of_units.astype(np.float64), of_raters.astype(np.float64)

    def table(self, values: FloatArray, without: FloatArray, *, fewest: int = FEWEST + 1) -> FloatArray:
        """A table ``[rater, item]`` of a mean over items, whose spread is that of the bootstrap.

        A row shifts all items alike, by what raters add to the spread: it is tested by ``crossed``, with Student's t.

        Args:
            values: ``[item]``.
            without: ``[ballot]``, the item's value had this rater not voted on it.
            fewest: Votes from which ``without`` is known; an item with fewer leaves the mean together with its rater.

        Returns:
            One row where nothing shows how other raters would vote.
        """
        sizes = self.votes.sum(1)
        small = sizes < fewest
        whole = small.all() and int(np.unique(self.rater, return_counts=True)[1].max()) == len(sizes)
        if self.raters < FEWEST or len(sizes) < FEWEST or whole:
            return values[None, :]
        mean_without = np.bincount(self.item, weights=without, minlength=len(sizes)) / sizes
        # Change of an item's value per unit of weight of the rater, [ballot].
        pulls: FloatArray = (mean_without[self.item] - without) * (1.0 - 1.0 / sizes[self.item])
        pulls = np.where(small[self.item], values[self.item] - values.mean(), pulls)
        by_items = float(crossed(clustered(values[None, :], self.groups)).example)
        of_units, of_raters = self._weights
        column = np.unique(self.rater, return_inverse=True)[1]
        cells: Any = _table((pulls, (self._units[self.item], column)), shape=(of_units.shape[1], self.raters))
        # Weights vary less over resamples of n raters than over n new ones, by the factor (n - 1) / n in variance.
        moved: FloatArray = (of_units @ cells) * (of_raters - 1.0) * np.sqrt(self.raters / (self.raters - 1.0))
        sums, counts = np.bincount(self._units, weights=values), np.bincount(self._units)
        means: FloatArray = (of_units @ sums + moved.sum(1)) / (of_units @ counts)
        # A resample counts the noise of single votes three times (Owen 2007): by item, by rater, and by both.
        variance = float(means.var(ddof=1)) - 2.0 * float(np.square(cells.data).sum()) / len(values) ** 2
        by_raters = max(variance - by_items, 0.0)
        pattern = np.linspace(-1.0, 1.0, rows := int(np.clip(self.effective_raters, FEWEST, MAX_ROWS)))
        return values + np.sqrt(by_raters * rows / pattern.var(ddof=1)) * pattern[:, None]

    def of_shares(self, values: FloatArray, measure: Callable[[FloatArray, Counts], FloatArray]) -> FloatArray:
        """The table of a measure from shares of votes ``[ballot, label]`` and items ``[ballot]`` to ``[ballot]``."""
        return self.table(values, measure(shares(self.others), self.item), fewest=FEWEST)

    def of_halves(
        self, values: FloatArray, measure: Callable[[PanelHalves, Counts], FloatArray], *, fewest: int = FEWEST + 1
    ) -> FloatArray:
        """The table of a measure from two halves of the raters of items ``[ballot]`` to ``[split, ballot]``."""
        without, known = np.zeros(len(self.item)), self.others.sum(1) >= FEWEST
        if known.any():
            without[known] = measure(self._halves, self.item[known]).mean(0)
        return self.table(values, without, fewest=fewest)

    @cached_property
    def _halves(self) -> PanelHalves:
        """Halves of the other raters, for each ballot beside which there are two votes or more."""
        others = self.others[self.others.sum(1) >= FEWEST]
        return halves(others, splits=splits_for(*others.shape), rng=seeds.generator(self.seed, "raters", "halves"))
