"""What all audits of a circuit share: the search or the given circuit, and what was read of it."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Audit, Case, Count, Hypothesis, Listed, NoAnswer, Share, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats._scipy import t_quantile
from wheeltap.stats.sample import Sample
from wheeltap.suites.circuits import specs
from wheeltap.suites.circuits.audits.headline import lines
from wheeltap.suites.circuits.circuit import packed

Floats = NDArray[np.float64]

Claim = Callable[[Case, SubjectRecord, "CircuitRead"], Hypothesis]
"""A claim on the circuit of one subject, from what was read of it."""

Statistic = Callable[[NDArray[np.intp]], float]

NULLS: Final[dict[specs.Null, str]] = {
    "weights": "the same net with its weights in random order",
    "labels": "the net as it is, with the two answers swapped",
}
"""What is searched where no circuit should be found, in words."""


NO_OTHERS: Final = "No two held-out pairs have contexts of equal length, so no value of another prompt can be taken."


@final
@dataclass(frozen=True, eq=False)
class CircuitRead:
    """Losses on held-out pairs, nats: mean over the two sides of each.

    Attributes:
        read: The reading's arrays.
    """

    read: Arrays

    def loss(self, definition: str) -> Floats:
        """By one definition, ``[pair]``; by random subsets (``subsets``) and other prompts the mean over draws.

        With values of other prompts only of pairs that have one: see ``comparable``.
        """
        if definition == "subsets":
            return np.mean([two_sided(one) for one in self.read["subset"]], axis=0)
        if definition in specs.RESAMPLED:
            draws = self.read["resampled"][specs.RESAMPLED.index(definition)]
            return np.mean([two_sided(one) for one in draws], axis=0)[self.comparable]
        return two_sided(self.read["gap"][specs.DEFINITIONS.index(definition)])

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Which held-out pairs have another prompt of their length, ``[pair]``."""
        return ~self.read["alone"].astype(np.bool_)

    def whole(self, definition: str) -> Floats:
        """Loss of the whole net on the pairs that a definition is measured on, ``[pair]``."""
        return self.loss("whole")[self.comparable] if definition in specs.RESAMPLED else self.loss("whole")

    def asked(self, definition: str) -> bool:
        """Whether there is a pair that a definition can be measured on."""
        return definition not in specs.RESAMPLED or bool(self.comparable.any())

    def left_out(self, definition: str) -> str:
        """How many pairs a definition leaves out, in words; empty where it leaves out none."""
        missing = int((~self.comparable).sum()) if definition in specs.RESAMPLED else 0
        if not missing:
            return ""
        return f"{missing:,} of {len(self.comparable):,} pairs are left out: no other pair is as long."

    @property
    def own(self) -> float:
        """Loss of the whole net."""
        return float(self.loss("whole").mean())

    @property
    def beyond(self) -> float:
        """What the net does beyond chance, nats."""
        return specs.CHANCE - self.own

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
        margins = share * (specs.CHANCE - whole)
        return Sample((self.loss(definition) - whole)[None, :], margins=margins, least=1.0 / share)

    def faithfulness(self) -> tuple[Estimate, Estimate]:
        """Share of what is between the ablated and the whole net that the circuit gives under mean ablation.

        Of the difference of scores (linear), as is usual, and of the logarithm of the loss, where going from .01 to
        .001 counts as much as from .1 to .01. Each with an interval over pairs (jackknife).

        Source: Wang et al. 2022, arXiv:2211.00593, section 4; the logarithm is ours.
        """
        names = ("whole", "empty", "keep mean")
        gaps = [self.read["gap"][specs.DEFINITIONS.index(name)].astype(np.float64).mean(0) for name in names]
        losses = [self.loss(name) for name in names]
        linear = _jackknife(
            lambda rows: _share(*(float(one[rows].mean()) for one in gaps)), len(gaps[0]),
            name="faithfulness, linear: share of the score difference",
        )  # fmt: skip
        logged = _jackknife(
            lambda rows: _share(*(float(np.log(one[rows].mean() + 1e-12)) for one in losses)), len(gaps[0]),
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
    value, method = float(of(rows)), f"jackknife over {parts} parts of the pairs" if count > 1 else "one pair"
    found = Estimate(name=name, value=value, low=None, high=None, level=0.95, n=count, unit="share", method=method)
    if count < 2:
        return found
    left = np.array([of(rows[rows % parts != part]) for part in range(parts)])
    error = float(np.sqrt((parts - 1) / parts * ((left - left.mean()) ** 2).sum()))
    half = float(t_quantile(0.05, parts - 1)) * error
    return msgspec.structs.replace(found, low=value - half, high=value + half)


_PARTS: Final = 20


ABLE: Final = 0.2
"""Share of the loss of a guess that a net's own must be below it for a circuit of it to be judged."""

_OTHER_VERSION: Final = (
    "This run was measured by version {} of {}, and this wheeltap has version {}, which measures other arrays. Run the "
    "command again: what the store holds of other versions is not reused."
)


class CircuitAuditSettings(specs.CircuitSearchSettings, frozen=True, kw_only=True):
    """How a circuit is searched for, or which one is given; what is drawn; thresholds.

    Attributes:
        target: See ``CircuitSearchSettings``; by default what ``recovered`` says.
        circuit: Units (edges) that are kept: ``circuit.packed``; one is searched for where empty.
        subsets: See ``CircuitEffectsSettings``.
        random: See there.
        weight_draws: See there.
        penalties: For each unit that is kept, nats, in turn: the smallest circuit that any of them finds is judged.
            Where a circuit is given, ``penalty`` is the one that found it.
        tolerance: Share of what the net does beyond chance that a circuit may lose and still be sufficient.
        half: Share of it that the rest may not do without the circuit, if that is necessary.
        tries: Searches in each null, by other seeds.
        again: Searches by other seeds, to see which units come back.
        searched_here: Whether a circuit that is given was found on the half of the pairs that is searched on here.
    """

    target: Annotated[float, msgspec.Meta(ge=0.0, lt=0.69)] = 0.0
    circuit: str = ""
    subsets: specs.Subsets = 8
    random: specs.Randoms = 39
    weight_draws: specs.WeightDraws = 8
    penalties: Listed = "5e-4,1e-3,2.5e-3"
    tolerance: Share = 0.2
    half: Share = 0.5
    tries: Count = 2
    again: Count = 3
    searched_here: bool = False


class CircuitAudit(Audit):
    """Searches for the smallest circuit that reaches the target, unless one is given; then reads what it does."""

    asks = "circuit"
    answer = staticmethod(lines)
    group = "circuit"
    settings_type = CircuitAuditSettings
    settings: CircuitAuditSettings

    @abstractmethod
    def claims(self) -> dict[str, Claim]:
        """What is claimed of the circuit of one subject, by title."""

    def more(self, case: Case, subject: SubjectRecord) -> list[Trial]:
        """Trials of its own, once the circuit is known."""
        return []

    def most_more(self) -> int:
        """How many these are."""
        return 0

    # ---- asking -----------------------------------------------------------------------------------------------

    def search(
        self, plan: Plan, subject: SubjectRecord, *, penalty: float, null: specs.Null = "none", seed: int = 0
    ) -> Trial:
        """One search, by this audit's settings."""
        given: dict[str, Scalar] = {
            name: getattr(self.settings, name) for name in specs.CircuitSearchSettings.__struct_fields__
        }
        return plan.reading(subject, specs.CIRCUIT_SEARCH.name, {**given, "penalty": penalty, "null": null}, seed=seed)

    def searches(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """One for each penalty; none where a circuit is given."""
        return [] if self.settings.circuit else [self.search(plan, subject, penalty=one) for one in self.penalties]

    @property
    def penalties(self) -> list[float]:
        """Of each search."""
        if self.settings.method != "masks":
            return [self.settings.penalty]  # which no other method has
        return [float(one) for one in self.settings.penalties.split(",")]

    @property
    def parts(self) -> Literal["units", "edges"]:
        """What a circuit is made of."""
        return "units" if self.settings.method == "masks" else "edges"

    def chosen(self, case: Case, subject: SubjectRecord) -> tuple[str, float]:
        """The circuit that is judged, as a setting, and the penalty that found it: one given, or the smallest found.

        Raises:
            NoAnswer: If no search reached the target.
        """
        if self.settings.circuit:
            return self.settings.circuit, self.settings.penalty
        found = [case.reading(trial) for trial in self.searches(case.plan, subject)]
        _require_able(subject.name, float(found[0]["own"]))
        sizes = {at: int(one["size"]) for at, one in enumerate(found) if int(one["size"])}
        if not sizes:
            raise NoAnswer("not_applicable", _none(subject, found))
        at = min(sizes, key=lambda one: sizes[one])
        return packed(found[at]["rank"] < sizes[at]), self.penalties[at]

    def effects(self, case: Case, subject: SubjectRecord, *, rephrased: bool = False) -> Trial:
        """What the circuit does.

        Raises:
            NoAnswer: If there is none, or the plan is of another version of a reading.
        """
        for spec in (specs.CIRCUIT_SEARCH, specs.CIRCUIT_EFFECTS):
            if (version := case.plan.versions.get(spec.name, spec.version)) != spec.version:
                raise NoAnswer("not_applicable", _OTHER_VERSION.format(version, spec.name, spec.version))
        names = set(specs.CircuitEffectsSettings.__struct_fields__) & set(CircuitAuditSettings.__struct_fields__)
        given: dict[str, Scalar] = {name: getattr(self.settings, name) for name in sorted(names)}
        own = {"circuit": self.chosen(case, subject)[0], "rephrased": rephrased, "parts": self.parts}
        return case.plan.reading(subject, specs.CIRCUIT_EFFECTS.name, {**given, **own})

    def ask(self, case: Case) -> list[Trial]:
        """The searches; then what the circuit does, and more."""
        if not case.known(case.plan.baselines()):
            return []
        wanted = [trial for subject in case.plan.subjects for trial in self.searches(case.plan, subject)]
        for subject in case.plan.subjects if case.known(wanted) else ():
            try:
                wanted += [self.effects(case, subject), *self.more(case, subject)]
            except NoAnswer:
                continue
        return wanted

    def most(self, plan: Plan) -> int:
        """Every search, the reading and what is more."""
        return len(plan.subjects) * (len(self.searches(plan, plan.reference)) + 1 + self.most_more())

    def more_may_follow(self, case: Case) -> bool:
        """While searches run, or where no circuit is known: what is asked of it follows."""
        return len(self.ask(case)) < self.most(case.plan)

    def most_passes(self, plan: Plan) -> float:
        """What they cost at most: a search is many small batches, forward and back."""
        how = self.settings
        steps = how.steps * how.batch * 6.0 / max(plan.task.examples, 1) if how.method == "masks" else 30.0
        each = steps + 30.0
        reading = 12.0 + len(specs.DEFINITIONS) + how.subsets + 2.0 * how.random + 6.0 * how.weight_draws
        searches = len(self.searches(plan, plan.reference)) + self.most_more()
        return len(plan.subjects) * (searches * each + 2.0 * reading)

    # ---- judging ----------------------------------------------------------------------------------------------

    def parsed(self, subject: SubjectRecord, read: Arrays) -> CircuitRead:
        """Losses on held-out pairs.

        Raises:
            NoAnswer: If the whole net cannot do the task: there is nothing to explain.
        """
        found = CircuitRead(read)
        _require_able(subject.name, found.own)
        return found

    def judge(self, case: Case) -> Verdict:
        """What is claimed of each subject's circuit."""
        return Verdict([draft for subject in case.plan.subjects for draft in self._drafts(case, subject)])

    def _drafts(self, case: Case, subject: SubjectRecord) -> list[Hypothesis]:
        try:
            trials = [*self.searches(case.plan, subject), self.effects(case, subject), *self.more(case, subject)]
            read = self.parsed(subject, case.reading(self.effects(case, subject)))
            drafts: list[Hypothesis] = []
            for title, claim in self.claims().items():
                drafts.append(self.draft(case, subject.name, claim(case, subject, read), trials, title=title))
        except NoAnswer as gap:
            return [self.unanswered(subject.name, gap, title=title) for title in self.claims()]
        return drafts


def _none(subject: SubjectRecord, found: list[Arrays]) -> str:
    """Why there is no circuit."""
    own, target = float(found[0]["own"]), float(found[0]["target"])
    if own > target:
        return (
            f"{subject.name} cannot do the task as well as asked: its own loss is {own:.3f} nats, the target is "
            f"{target:.3g}, a guess has {specs.CHANCE:.3f}. There is nothing to explain; set a higher target."
        )
    lows = ", ".join(f"{float(one['losses'].min()):.3f}" for one in found)
    return (
        f"No search reached the target of {target:.3g} nats; lowest losses {lows}. Try smaller penalties or more steps."
    )


def unable(own: float) -> bool:
    """Whether a net of this loss hardly does better than a guess: there is nothing to explain."""
    return own > (1.0 - ABLE) * specs.CHANCE


def _require_able(name: str, own: float) -> None:
    if unable(own):
        because = f"{name} cannot do the task: its own loss is {own:.3f} nats, a guess has {specs.CHANCE:.3f}."
        raise NoAnswer("not_applicable", f"{because} Nothing to explain.")
