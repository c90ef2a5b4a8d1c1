"""Which of many things matters most, and by how much: chosen on one half of the examples, measured on the other."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from msgspec.structs import replace as with_fields
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats.among import share_of
from wheeltap.stats.clusters import clustered
from wheeltap.stats.crossed import FloatArray, Values, checked
from wheeltap.stats.sample import Sample
from wheeltap.stats.selection import Halves

_ROUNDING = 1e-9
_ALPHA = 1.0 - 0.95


@final
@dataclass(frozen=True)
class TopRankedLoss:
    """What removing the top-ranked of many candidates costs, beside what a candidate drawn at random costs.

    Each example's cost is that of the candidate which costs most on the half that the example is not in (both ways,
    averaged over divisions): so it is not the largest of many noisy numbers, and errs towards too little, since on
    half of the examples another candidate than the truly top-ranked may be chosen. The intervals take the halves to
    vary together wholly and are up to 1.41 times wider than they might be (``Halves.effect``): what is shown is shown.

    Attributes:
        costs: ``[candidate, example]``, in any unit; each on the same examples.
        weights: ``[candidate]``, how many of all things each candidate stands for: 1, or more for one that was drawn
            at random to stand for several that were not measured.
        halves: Divisions of the examples.
        unit: Of the costs.

    Raises:
        DataError: If the shapes do not fit, a cost is not finite, or a weight is not positive.

    Source: Varma & Simon (2006) for the choice on other examples; Horvitz & Thompson (1952) for the weights.
    """

    costs: Values
    weights: Values
    halves: Halves
    unit: str

    def __post_init__(self) -> None:
        costs = checked(self.costs, ("candidate", "example"), what="costs")
        weights = checked(self.weights, ("candidate",), what="weights")
        examples = self.halves.first.shape[1]
        if costs.shape != (len(weights), examples) or float(weights.min()) <= 0.0:
            raise DataError(
                "Candidates cannot be ranked.",
                expected=f"costs [{len(weights)} candidates, {examples} examples], positive weights",
                got=f"costs {list(costs.shape)}, smallest weight {float(weights.min()):g}",
            )

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Candidates by their mean cost over all examples, the largest first."""
        return np.argsort(-np.asarray(self.costs).mean(1), kind="stable")

    @cached_property
    def table(self) -> FloatArray:
        """Cost of the candidate chosen on the half that an example is not in, ``[split, example]``."""
        return self.halves.chosen(self.costs)

    @cached_property
    def random(self) -> FloatArray:
        """What one of all things, drawn at random, costs on average, ``[example]``."""
        shares = np.asarray(self.weights, dtype=np.float64) / float(np.sum(self.weights))
        return shares @ np.asarray(self.costs, dtype=np.float64)

    @property
    def agreed(self) -> float:
        """Share of the halves that choose the candidate which is first in ``order``."""
        return float((self.halves.picked(self.costs) == self.order[0]).mean())

    def cost(self, *, margin: float, level: float = 0.95) -> Estimate:
        """Mean cost of the top-ranked, with the p-value of "no more than ``margin``, or than one drawn at random".

        Both must be refuted, each by its own test, so that no correction for their number is needed.

        Source: Berger (1982), intersection-union test.
        """
        alone = self.halves.effect(
            self.table, level=level, margin=margin, bounded=False, name="cost of the top-ranked", unit=self.unit
        )
        beyond = self.beyond(level=level)
        worse = 1.0 if (beyond.value or 0.0) <= 0.0 else beyond.p
        return with_fields(alone, p=max(alone.p or 0.0, 1.0 if worse is None else worse))

    def beyond(self, *, level: float = 0.95) -> Estimate:
        """How much more the top-ranked costs than one drawn at random, example by example."""
        gaps = self.table - self.random
        if float(np.abs(gaps).max()) <= _ROUNDING * float(np.abs(self.costs).max()):
            gaps = np.zeros_like(gaps)  # rounding of a mean of equals is no difference
        return self.halves.effect(gaps, level=level, bounded=False, name="more than one at random", unit=self.unit)

    def share(self, *, level: float = 0.95) -> Estimate:
        """Its part of the summed costs of all things; without a value where these do not cost in sum."""
        whole, groups = self.random * float(np.sum(self.weights)), self.halves.groups
        sides = [clustered(values[None, :], groups)[0] for values in (self.table.mean(0), whole)]
        found = share_of(*sides, level=level, name="share of the sum")
        return with_fields(found, p=None, method=found.method.partition(";")[0])

    def each(self, candidate: int, *, name: str) -> Estimate:
        """Mean cost of one candidate over all examples; at a level that allows for its having been chosen by it."""
        several = 1.0 - _ALPHA / len(self.weights)
        row = np.asarray(self.costs)[candidate][None, :]
        sample = Sample(row, groups=self.halves.groups)
        return with_fields(sample.effect(level=several, name=name, unit=self.unit), p=None)

    def among(self, candidates: int) -> "TopRankedLoss":
        """The same of the first ``candidates`` alone."""
        return replace(self, costs=self.costs[:candidates], weights=self.weights[:candidates])
