"""WT202: how many behaviours does a hidden unit serve, and do units and behaviours fall into modules?"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Hypothesis, Margin, NoAnswer, Share
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.controls import NULL_LEVEL
from wheeltap.audits.reading_audit import ReadingAudit
from wheeltap.core import seeds
from wheeltap.core.records import Estimate, SubjectRecord
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.unit_effects import UNIT_EFFECTS, UnitEffectsSettings
from wheeltap.stats.clusters import Groups
from wheeltap.stats.evidence import OwnTest
from wheeltap.stats.modularity import (
    Breadth,
    Modularity,
    breadth,
    effect_matrix,
    modularity,
    shuffled_breadth,
    strongest,
)
from wheeltap.stats.sample import Sample

_NULL_MARGIN = 0.02
"""Difference of the copy's breadth, as a share of the behaviors, beyond which the null control fails."""

_FEWEST = 5
"""Examples below which a kind is left out; one alone has no spread."""

_EDGES = 0.2
"""Share of all pairs of unit and behavior that are edges of the graph, the strongest."""

_SHUFFLES = 10
"""Of the kinds over the examples, for the breadth of units that serve none in particular."""


class EntanglementSettings(UnitEffectsSettings, frozen=True, kw_only=True):
    """Thresholds. Differences of breadth are shares of the number of behaviors.

    Attributes:
        rewirings: Graphs with the same degrees that it is compared with; so few that no p-value can be as small as
            ``modular_at`` are refused.
        modular_at: Largest p-value at which a graph is called more modular than rewired ones.
        margin: Difference of breadth between two subjects that does not matter: nets trained from other seeds (digits)
            differ by as much.
        min_effect: Difference that the null control must have been able to see.
    """

    rewirings: Annotated[int, msgspec.Meta(ge=2)] = 199
    modular_at: Share = 0.01
    margin: Margin = 0.04
    min_effect: Margin = 0.08

    def __post_init__(self) -> None:
        if (1 + self.rewirings) * self.modular_at < 1.0:
            raise ValueError(
                f"{self.rewirings} `rewirings` give no p-value as small as `modular_at` = {self.modular_at:g}"
            )


@dataclass(frozen=True)
class _UnitEffects:
    """What a reading gave of one subject, on the examples of behaviours that are large enough.

    Attributes:
        effects: ``[unit, example]``.
        everything: The same, of all options instead of the right one.
        groups: Behaviour of each example, from 0 without gaps.
        clusters: What examples share, where they come in groups; see ``Case.groups``.
        layers: Layer of each unit.
        total: Hidden units there are, those that were not looked at included.
    """

    effects: Values
    everything: Values
    groups: NDArray[np.int64]
    layers: NDArray[np.int64]
    total: int
    clusters: Groups | None

    @property
    def behaviours(self) -> int:
        return int(self.groups.max()) + 1

    @cached_property
    def breadth(self) -> Breadth:
        return breadth(self.effects, self.groups)

    @cached_property
    def pieces(self) -> Values:
        """A table ``[unit, example]`` whose mean the breadth is; ``[1, example]`` where all units are there."""
        found = self.breadth
        if len(self.effects) == self.total:
            return found.examples[None, :]
        return found.units[:, None] + found.examples[None, :] - found.value


@final
class EntanglementAudit(ReadingAudit[_UnitEffects]):
    """Effective number of behaviours per unit, and modularity of units and behaviours beside rewired graphs."""

    name = "entanglement"
    code = "WT202"
    title = "Behaviors per unit"
    brief = "Entanglement"
    reads = (
        "Each hidden unit is ablated in turn. The number says over how many kinds of examples the effect of one "
        "unit is spread; few means that units are specialized. Untrained networks can look the same, so "
        "read it beside the others."
    )
    asks = "structure"
    shows = True
    settings_type = EntanglementSettings
    spares: ClassVar[dict[str, int]] = {"limit": 32}
    by_units = True
    reading = UNIT_EFFECTS

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """One for each unit, the clean pass, the means, and the contributions that units are drawn by."""
        hidden, limit = plan.hidden(subject), self.settings.limit
        return 3.0 + limit if hidden is None or hidden > limit else 2.0 + hidden

    def cheaper(self, plan: Plan, share: float) -> dict[str, int]:
        """A share of the units that there are."""
        counts = [plan.hidden(subject) for subject in plan.subjects]
        whole = min(self.settings.limit, max((self.settings.limit if n is None else n for n in counts), default=0))
        limit = max(self.spares["limit"], math.ceil(share * whole))
        return {"limit": limit} if limit < whole else {}

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> _UnitEffects:
        """Effects on the behaviours that are large enough."""
        found = read["groups"].astype(np.int64)
        kept = np.bincount(found)[found] >= _FEWEST
        groups = np.unique(found[kept], return_inverse=True)[1]
        if len(np.unique(groups)) < 2:
            raise NoAnswer(
                "not_applicable",
                "Fewer than two groups of examples are large enough: give the task its behaviors "
                "(task.with_behaviors; behaviors in .npz, behavior in .jsonl).",
            )
        everything = read["all"][:, kept]
        effects = read["right"][:, kept] if "right" in read else everything
        clusters = None if case.groups is None else case.groups[kept]
        return _UnitEffects(effects, everything, groups, read["layer"].astype(np.int64), int(read["total"]), clusters)

    def singles(self, case: Case, subject: SubjectRecord, read: _UnitEffects) -> list[Hypothesis]:
        """Not a test: a subject alone is never found guilty, for no number of behaviours is the right one."""
        graph = strongest(effect_matrix(read.effects, read.groups), share=_EDGES)
        rng = seeds.generator(case.plan.seed, "entanglement", "rewirings")
        divided = modularity(graph, rewirings=self.settings.rewirings, rng=rng)
        modular, beside = divided.p <= self.settings.modular_at, self._estimates(case, read, divided)
        words = _words(subject.name, read, beside, divided, modular=modular)
        # Never found; that it is more modular than rewired graphs counts among the tests of the report.
        test = msgspec.structs.replace(_modular(divided), p=None)
        return [
            Hypothesis(
                test=test,
                evidence=OwnTest(divided.p),
                shown=beside[0],
                beside=beside[1:],
                found=words,
                otherwise=words,
                by_example=False,
            )
        ]

    def compared(self, case: Case, rival: SubjectRecord, one: _UnitEffects, two: _UnitEffects) -> Hypothesis:
        """Whose units serve more behaviours."""
        plan = case.plan
        if (plan.reference.layers, plan.reference.parameters) == (rival.layers, rival.parameters):
            _require_same_units(one, two)
        margin, min_effect = (share * one.behaviours for share in (self.settings.margin, self.settings.min_effect))
        sample = Sample(_gaps(one, two), groups=one.clusters)
        gap = sample.effect(margin=margin, name="breadth_difference", unit="behaviours")
        words = f"A unit of {rival.name} serves {gap} behaviors more than one of {case.plan.reference.name}."
        return Hypothesis(
            test=gap, margin=margin, evidence=sample, min_effect=min_effect,
            found=f"{words} Cancelling units and the way a net was trained (dropout, other labels) change this number "
            "too.",
            otherwise=f"{words} Not shown to be more than {margin:.2g} either way.",
        )  # fmt: skip

    def null(self, case: Case, one: _UnitEffects, two: _UnitEffects) -> Hypothesis:
        """Permuted and rescaled units serve as many; where other units were found in the copy, nothing is compared."""
        _require_same_units(one, two)
        margin, min_effect = (share * one.behaviours for share in (_NULL_MARGIN, self.settings.min_effect))
        level = NULL_LEVEL
        sample = Sample(_gaps(one, two), groups=one.clusters)
        gap = sample.effect(level=level, margin=margin, name="breadth_difference", unit="behaviours")
        return Hypothesis(
            test=gap, margin=margin, min_effect=min_effect,
            found=f"A copy with permuted and rescaled units must not look different: its units affect {gap} "
            f"behaviors more ({level:.1%} interval); the run is void if they are shown to differ by more than "
            f"{margin:.2g}.",
        )  # fmt: skip

    def _estimates(self, case: Case, read: _UnitEffects, divided: Modularity) -> tuple[Estimate, ...]:
        rng = seeds.generator(case.plan.seed, "entanglement", "shuffles")
        careless = shuffled_breadth(read.effects, read.groups, shuffles=_SHUFFLES, rng=rng)
        by_layer = [
            _breadth(
                read, breadth(read.effects[read.layers == layer], read.groups).examples[None], f"_layer_{layer + 1}"
            )
            for layer in np.unique(read.layers)
        ]
        everything = breadth(read.everything, read.groups).examples[None, :]
        return (
            _breadth(read, read.pieces),
            Estimate(
                name="shuffled",
                value=careless,
                low=None,
                high=None,
                level=0.95,
                n=0,
                unit="behaviours",
                method=f"mean of {_SHUFFLES} shuffles",
            ),
            *by_layer,
            _breadth(read, everything, "_all_options"),
            _modular(divided),
        )


def _require_same_units(one: _UnitEffects, two: _UnitEffects) -> None:
    """Raises ``NoAnswer`` where other units were found in two models that have as many.

    Structure that no trace gives is found by trying out, which may fail on one of two copies: then a difference of
    breadth is one of which units were looked at.
    """
    found = [len(read.layers) for read in (one, two)]
    if found[0] != found[1]:
        raise NoAnswer(
            "not_applicable",
            f"The two have as many units, but {found[0]} were found in one and {found[1]} in the other, so they are "
            "not compared.",
        )


def _gaps(one: _UnitEffects, two: _UnitEffects) -> Values:
    """How much broader the units of ``two`` are, ``[unit, example]``; with samples of units, those by rank."""
    a, b = one.pieces, two.pieces
    shared = min(len(a), len(b))
    return b - a if shared == 1 else b[:shared] - a[:shared]


def _breadth(read: _UnitEffects, pieces: Values, of: str = "") -> Estimate:
    """Without a p-value: that it is not 0 is no news."""
    found = Sample(pieces, groups=read.clusters).effect(name=f"behaviors_per_unit{of}", unit="behaviors")
    return msgspec.structs.replace(found, p=None)


def _modular(divided: Modularity) -> Estimate:
    low, high = (float(np.quantile(divided.rewired, at)) for at in (0.025, 0.975))
    method = f"z {divided.z:.1f} to {len(divided.rewired)} rewired graphs, 95% of them from {low:.3f} to {high:.3f}"
    return Estimate(
        name="modularity", value=divided.value, low=None, high=None, level=0.95, n=len(divided.rewired), unit="Q",
        method=method, p=divided.p,
    )  # fmt: skip


def _words(
    name: str, read: _UnitEffects, estimates: tuple[Estimate, ...], divided: Modularity, *, modular: bool
) -> str:
    whole, careless = estimates[:2]
    sample = "" if len(read.effects) == read.total else f" (a sample of {len(read.effects)} of {read.total} units)"
    compared = "more modular than" if modular else "not shown to be more modular than"
    return (
        f"Ablating one hidden unit of {name}{sample} affects {whole} of {read.behaviours} behaviors. That counts each "
        f"unit by its effect; units that affect all alike would affect {careless.value:.2f}. The graph of "
        f"units and the behaviours they affect most is {compared} rewired ones (Q {divided.value:.3f}, theirs "
        f"{divided.rewired.mean():.3f}, p {divided.p:.3f}). Neither number alone shows that a net is good: untrained "
        "and wrongly trained nets differ in the first, hardly in the second, and few behaviors per unit do not mean "
        "that each is served by one mechanism."
    )
