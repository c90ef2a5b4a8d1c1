"""WT202: how many behaviours does a hidden unit serve, and do units and behaviours fall into modules?"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, pair
from wheeltap.audits.controls import silent
from wheeltap.audits.limits import Count, Margin, Share
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Finding, FindingStatus, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import mean_effect, smallest_detectable
from wheeltap.stats.modularity import (
    Breadth,
    Modularity,
    breadth,
    effect_matrix,
    modularity,
    shuffled_breadth,
    strongest,
)


class EntanglementSettings(AuditSettings, frozen=True, kw_only=True):
    """Thresholds. Differences of breadth are shares of the number of behaviours.

    Attributes:
        limit: Units looked at, at most.
        least: A behaviour with fewer examples is left out; one alone has no spread.
        edges: Share of all pairs of unit and behaviour that are edges of the graph, the strongest.
        rewirings: Graphs with the same degrees that it is compared with; so few that no p-value can be as small as
            ``modular_at`` are refused.
        shuffles: Of the behaviours over the examples, for the breadth of units that serve none in particular.
        modular_at: Largest p-value at which a graph is called more modular than rewired ones.
        margin: Difference of breadth between two subjects that does not matter: nets trained from other seeds (digits)
            differ by as much.
        worth: Smallest difference that a ``not_found`` must have been able to see.
        null_margin: The null control fails if the twin's breadth differs by more than this with ``null_level``.
        null_level: Confidence with which the twin must differ before the audit is void.
    """

    limit: Count = 512
    least: Annotated[int, msgspec.Meta(ge=2)] = 5
    edges: Share = 0.2
    rewirings: Annotated[int, msgspec.Meta(ge=2)] = 199
    shuffles: Count = 10
    modular_at: Share = 0.01
    margin: Margin = 0.04
    worth: Margin = 0.08
    null_margin: Margin = 0.02
    null_level: Share = 0.999

    def __post_init__(self) -> None:
        if (1 + self.rewirings) * self.modular_at < 1.0:
            raise ValueError(
                f"{self.rewirings} `rewirings` give no p-value as small as `modular_at` = {self.modular_at:g}"
            )


@dataclass(frozen=True)
class _Read:
    """What a reading gave of one subject, on the examples of behaviours that are large enough.

    Attributes:
        effects: ``[unit, example]``.
        everything: The same, of all options instead of the right one.
        groups: Behaviour of each example, from 0 without gaps.
        layers: Layer of each unit.
        total: Hidden units there are, those that were not looked at included.
    """

    effects: Values
    everything: Values
    groups: NDArray[np.int64]
    layers: NDArray[np.int64]
    total: int

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
class EntanglementAudit(Audit):
    """Effective number of behaviours per unit, and modularity of units and behaviours beside rewired graphs."""

    name = "entanglement"
    code = "WT202"
    title = "Behaviours per unit"
    brief = "Entanglement"
    reads = (
        "Each hidden unit is ablated in turn. The number says over how many kinds of examples the effect of one "
        "unit is spread; few means that units have a task of their own. Untrained networks can look alike, so "
        "read it beside the others."
    )
    asks = "structure"
    shows = True
    settings_type = EntanglementSettings
    spares: ClassVar[dict[str, int]] = {"limit": 32}
    by_units = True

    def ask(self, case: Case) -> list[Trial]:
        """One reading of each subject and of the re-coded twin."""
        if not case.known(case.plan.baselines()):
            return []
        return [self._trial(case, subject) for subject in self._measured(case.plan)]

    def most(self, plan: Plan) -> int:
        """One reading each."""
        return len(self._measured(plan))

    def most_passes(self, plan: Plan) -> float:
        """One for each unit, the clean pass, the means, and the contributions that units are drawn by."""
        return float(sum(self._passes(plan, subject) for subject in self._measured(plan)))

    def cheaper(self, plan: Plan, share: float) -> dict[str, int]:
        """A share of the units that there are."""
        counts = [plan.hidden(subject) for subject in plan.subjects]
        whole = min(self.settings.limit, max((self.settings.limit if n is None else n for n in counts), default=0))
        limit = max(self.spares["limit"], math.ceil(share * whole))
        return {"limit": limit} if limit < whole else {}

    def _passes(self, plan: Plan, subject: SubjectRecord) -> int:
        hidden, limit = plan.hidden(subject), self.settings.limit
        if hidden is None:
            return 3 + limit
        return 2 + hidden if hidden <= limit else 3 + limit

    def _measured(self, plan: Plan) -> list[SubjectRecord]:
        return [*plan.subjects, *([] if plan.twin is None else [plan.twin])]

    def _trial(self, case: Case, subject: SubjectRecord) -> Trial:
        return case.plan.reading(subject, "unit-effects", {"limit": self.settings.limit})

    def _read(self, case: Case, subject: SubjectRecord) -> _Read:
        values = case.reading(self._trial(case, subject))
        found = values["groups"].astype(np.int64)
        kept = np.bincount(found)[found] >= self.settings.least
        groups = np.unique(found[kept], return_inverse=True)[1]
        if len(np.unique(groups)) < 2:
            raise Unanswered(
                "not_applicable",
                "Fewer than two groups of examples are large enough: give the task groups, one per behaviour "
                "(task.with_groups; groups in .npz, group in .jsonl).",
            )
        everything = values["all"][:, kept]
        effects = values["right"][:, kept] if "right" in values else everything
        return _Read(effects, everything, groups, values["layer"].astype(np.int64), int(values["total"]))

    def judge(self, case: Case) -> Verdict:
        """One finding per subject, one per pair; the re-coded twin as a control."""
        verdict = Verdict()
        for subject in case.plan.subjects:
            verdict.drafts.append(self._single(case, subject))
        for rival in case.rivals:
            verdict.drafts.append(self._pair(case, rival))
        verdict.controls.append(self._null(case))
        return verdict

    def _single(self, case: Case, subject: SubjectRecord) -> Draft:
        """Not a test: a subject alone is never found guilty, for no number of behaviours is the right one."""
        try:
            read = self._read(case, subject)
        except Unanswered as gap:
            return self.unanswered(subject.name, gap)
        graph = strongest(effect_matrix(read.effects, read.groups), share=self.settings.edges)
        rng = seeds.generator(case.plan.seed, "entanglement", "rewirings")
        divided = modularity(graph, rewirings=self.settings.rewirings, rng=rng)
        modular = divided.p <= self.settings.modular_at
        status: FindingStatus = "not_found" if modular else "inconclusive"
        estimates = self._estimates(case, read, divided)
        finding = Finding(
            code=self.code, title=self.title, status=status, subject=subject.name, estimates=estimates,
            because=_words(subject.name, read, estimates, divided, modular=modular),
            trials=(self._trial(case, subject).key,),
        )  # fmt: skip
        return Draft(finding)

    def _estimates(self, case: Case, read: _Read, divided: Modularity) -> tuple[Estimate, ...]:
        rng = seeds.generator(case.plan.seed, "entanglement", "shuffles")
        careless = shuffled_breadth(read.effects, read.groups, shuffles=self.settings.shuffles, rng=rng)
        by_layer = [
            _breadth(breadth(read.effects[read.layers == layer], read.groups).examples[None, :], f"_layer_{layer + 1}")
            for layer in np.unique(read.layers)
        ]
        everything = breadth(read.everything, read.groups).examples[None, :]
        return (
            _breadth(read.pieces),
            _point("shuffled", careless, unit="behaviours", method=f"mean of {self.settings.shuffles} shuffles"),
            *by_layer,
            _breadth(everything, "_all_options"),
            _modular(divided),
        )

    def _pair(self, case: Case, rival: SubjectRecord) -> Draft:
        plan, title = case.plan, f"{self.title}: difference"
        name = pair(plan.reference, rival)
        try:
            one, two = self._read(case, plan.reference), self._read(case, rival)
        except Unanswered as gap:
            return self.unanswered(name, gap, title=title)
        margin = self.settings.margin * one.behaviours
        gap = _gap(one, two, margin=margin)
        words = f"A unit of {rival.name} serves {gap} behaviours more than one of {plan.reference.name}."
        limits = "Cancelling units and the way a net was trained (dropout, other labels) change this number too."
        finding = Finding(
            code=self.code, title=title, status="found", subject=name, estimates=(gap,), because=f"{words} {limits}",
            smallest_detectable=smallest_detectable(gap, alpha=plan.alpha, margin=margin),
            trials=tuple(self._trial(case, subject).key for subject in (plan.reference, rival)),
        )  # fmt: skip
        otherwise = f"{words} Not shown to be more than {margin:.2g} either way."
        return Draft(finding, test=gap, worth=self.settings.worth * one.behaviours, otherwise=otherwise)

    def _null(self, case: Case) -> Control:
        name, twin = f"{self.code} re-coded twin", case.plan.twin
        if twin is None:
            return Control(name=name, kind="null", status="skipped", because=case.plan.no_controls)
        try:
            one, two = self._read(case, case.plan.reference), self._read(case, twin)
        except Unanswered as gap:
            return Control(name=name, kind="null", status="skipped", because=gap.because)
        level, margin = self.settings.null_level, self.settings.null_margin * one.behaviours
        gap = _gap(one, two, margin=margin, level=level)
        return silent(
            name, gap, margin=margin, worth=self.settings.worth * one.behaviours,
            because=f"A copy with permuted and rescaled units must not look different: its units serve {gap} "
            f"behaviours more ({level:.1%} interval); the audit is void if they surely differ by over {margin:.2g}.",
        )  # fmt: skip


def _gap(one: _Read, two: _Read, *, margin: float, level: float = 0.95) -> Estimate:
    """How much broader the units of ``two`` are, on the same examples; with samples of units, those by rank."""
    a, b = one.pieces, two.pieces
    shared = min(len(a), len(b))
    gaps = b - a if shared == 1 else b[:shared] - a[:shared]
    return mean_effect(gaps, level=level, margin=margin, name="breadth_difference", unit="behaviours")


def _breadth(pieces: Values, of: str = "") -> Estimate:
    """Without a p-value: that it is not 0 is no news."""
    return msgspec.structs.replace(mean_effect(pieces, name=f"behaviours_per_unit{of}", unit="behaviours"), p=None)


def _point(name: str, value: float, *, unit: str, method: str) -> Estimate:
    return Estimate(name=name, value=value, low=None, high=None, level=0.95, n=0, unit=unit, method=method)


def _modular(divided: Modularity) -> Estimate:
    low, high = (float(np.quantile(divided.rewired, at)) for at in (0.025, 0.975))
    method = f"z {divided.z:.1f} to {len(divided.rewired)} rewired graphs, 95% of them from {low:.3f} to {high:.3f}"
    return Estimate(
        name="modularity", value=divided.value, low=None, high=None, level=0.95, n=len(divided.rewired), unit="Q",
        method=method, p=divided.p,
    )  # fmt: skip


def _words(name: str, read: _Read, estimates: tuple[Estimate, ...], divided: Modularity, *, modular: bool) -> str:
    whole, careless = estimates[:2]
    sample = "" if len(read.effects) == read.total else f" (a sample of {len(read.effects)} of {read.total} units)"
    compared = "more modular than" if modular else "not shown to be more modular than"
    return (
        f"Losing one hidden unit of {name}{sample} tells on {whole} of {read.behaviours} behaviours, each unit counted "
        f"by its effect; units that serve none in particular would give {careless.value:.2f}. The graph of units and "
        f"their strongest behaviours is {compared} rewired ones (Q {divided.value:.3f}, theirs "
        f"{divided.rewired.mean():.3f}, p {divided.p:.3f}). Neither number alone tells a sound net: untrained and "
        "wrongly trained nets differ in the first, hardly in the second, and few behaviours per unit do not mean that "
        "each is served by one mechanism."
    )
