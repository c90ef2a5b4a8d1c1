"""What was read of a circuit: losses by every definition, and how much of a task that leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Arrays
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import t_quantile
from wheeltap.stats.sample import Sample
from wheeltap.suites.circuits.specs import DEFINITIONS, RESAMPLED

Floats = NDArray[np.float64]

Statistic = Callable[[NDArray[np.intp]], float]

CHANCE: Final = float(np.log(2.0))
"""Loss of a guess between two answers, nats."""

NO_OTHERS: Final = "No two held-out pairs have contexts of equal length, so no value of another prompt can be taken."


@final
@dataclass(frozen=True, eq=False)
class CircuitRead:
    """Losses on held-out pairs, nats: mean over the two sides of each.

    Attributes:
        name: Of the model.
        read: The reading's arrays.
    """

    name: str
    read: Arrays

    def loss(self, definition: str) -> Floats:
        """By one definition, ``[pair]``; by random subsets (``subsets``) and other prompts the mean over draws.

        With values of other prompts only of pairs that have one: see ``comparable``.
        """
        if definition == "subsets":
            return np.mean([two_sided(one) for one in self.read["subset"]], axis=0)
        if definition in RESAMPLED:
            draws = self.read["resampled"][RESAMPLED.index(definition)]
            return np.mean([two_sided(one) for one in draws], axis=0)[self.comparable]
        return two_sided(self.read["gap"][DEFINITIONS.index(definition)])

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Which held-out pairs have another prompt of their length, ``[pair]``."""
        return ~self.read["alone"].astype(np.bool_)

    def whole(self, definition: str) -> Floats:
        """Loss of the whole net on the pairs that a definition is measured on, ``[pair]``."""
        return self.loss("whole")[self.comparable] if definition in RESAMPLED else self.loss("whole")

    def asked(self, definition: str) -> bool:
        """Whether there is a pair that a definition can be measured on."""
        return definition not in RESAMPLED or bool(self.comparable.any())

    def left_out(self, definition: str) -> str:
        """How many pairs a definition leaves out, in words; empty where it leaves out none."""
        missing = int((~self.comparable).sum()) if definition in RESAMPLED else 0
        if not missing:
            return ""
        return f"{missing:,} of {len(self.comparable):,} pairs are left out: no other pair is as long."

    @property
    def searched(self) -> Floats:
        """Loss of the circuit alone on the pairs searched, by the ablation it was searched by, ``[searched pair]``."""
        return two_sided(self.read["searched"])

    def gaps(self, definition: str) -> Floats:
        """Mean score of the right answer less that of the other one, ``[pair]``."""
        return self.read["gap"][DEFINITIONS.index(definition)].astype(np.float64).mean(0)

    @property
    def own(self) -> float:
        """Loss of the whole net."""
        return float(self.loss("whole").mean())

    @property
    def beyond(self) -> float:
        """What the net does beyond chance, nats."""
        return CHANCE - self.own

    @property
    def size(self) -> str:
        """Units and weights of the circuit, of how many; components and edges where it is of edges."""
        units, edges, all_units, all_edges = (int(self.read[key]) for key in ("units", "edges", "all_units",
                                                                             "all_edges"))  # fmt: skip
        parts, between = ("units", "weights between units") if self.weights else ("components", "edges")
        return f"{units:,} of {all_units:,} {parts}, {edges:,} of {all_edges:,} {between}"

    @property
    def weights(self) -> bool:
        """Whether it is a circuit of units, whose weights were disturbed: an edge has none of its own."""
        return "disturbed" in self.read

    def rises(self, definition: str, *, share: float) -> Sample:
        """How much higher the loss is than the whole net's; the margin is a share of what that does beyond chance."""
        whole = self.whole(definition)
        # A pair that nobody drew may lose all that the net does.
        return Sample((self.loss(definition) - whole)[None, :], margins=share * (CHANCE - whole), least=1.0 / share)

    def faithfulness(self) -> tuple[Estimate, Estimate]:
        """Share of what is between the ablated and the whole net that the circuit gives under mean ablation.

        Of the difference of scores (linear), as is usual, and of the logarithm of the loss, where going from .01 to
        .001 counts as much as from .1 to .01. Each with an interval over pairs (jackknife).

        Source: Wang et al. 2022, arXiv:2211.00593, section 4; the logarithm is ours.
        """
        whole, empty, kept = (self.gaps(name) for name in ("whole", "empty", "keep mean"))
        losses = tuple(self.loss(name) for name in ("whole", "empty", "keep mean"))
        linear = _jackknife(
            lambda rows: _share(whole[rows].mean(), empty[rows].mean(), kept[rows].mean()), len(whole),
            name="faithfulness, linear: share of the score difference",
        )  # fmt: skip
        logged = _jackknife(
            lambda rows: _share(*(float(np.log(one[rows].mean() + 1e-12)) for one in losses)), len(whole),
            name="faithfulness, logarithmic: share of the log loss",
        )  # fmt: skip
        return linear, logged


def two_sided(gaps: NDArray[np.generic]) -> Floats:
    """Cross-entropy of the right one of two answers, from score gaps ``[side, pair]``: ``[pair]``, nats."""
    wide = np.asarray(gaps, dtype=np.float64)
    return np.logaddexp(0.0, -wide).mean(0)


def _share(whole: float, empty: float, kept: float) -> float:
    return (kept - empty) / (whole - empty) if abs(whole - empty) > 1e-9 else 0.0


def _jackknife(of: Statistic, count: int, *, name: str) -> Estimate:
    """A statistic of pairs with an interval from leaving out a part of them at a time."""
    rows, parts = np.arange(count), min(count, _PARTS)
    value = float(of(rows))
    if count < 2:
        return Estimate(
            name=name, value=value, low=None, high=None, level=0.95, n=count, unit="share", method="one pair"
        )
    left = np.array([of(rows[rows % parts != part]) for part in range(parts)])
    error = float(np.sqrt((parts - 1) / parts * ((left - left.mean()) ** 2).sum()))
    half = float(t_quantile(0.05, parts - 1)) * error
    return Estimate(
        name=name, value=value, low=value - half, high=value + half, level=0.95, n=count, unit="share",
        method=f"jackknife over {parts} parts of the pairs",
    )  # fmt: skip


_PARTS: Final = 20
