"""What an audit is: a question, the trials that would answer it, and the reading of their outcomes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.claims import Draft, Tested, Unanswered, Verdict
from wheeltap.core.records import (
    Asks,
    Estimate,
    Finding,
    Instrument,
    Outcome,
    Scalar,
    SubjectRecord,
    Trial,
)
from wheeltap.core.registry import Registry
from wheeltap.core.settings import Configured
from wheeltap.plans.plan import Lookup, Plan
from wheeltap.stats.effect import score_interval, smallest_detectable

Values = NDArray[np.floating[Any]]
Arrays = dict[str, NDArray[Any]]
"""What a reading gave, by name."""


@final
class Case:
    """A plan and what is known so far: the only thing an audit sees.

    Args:
        plan: Subjects, task, effort, seed.
        lookup: From a trial's key to its outcome.
    """

    def __init__(self, plan: Plan, lookup: Lookup) -> None:
        self.plan = plan
        self._lookup = lookup

    @property
    def rivals(self) -> tuple[SubjectRecord, ...]:
        """The subjects compared with the reference."""
        return self.plan.subjects[1:]

    @property
    def chance(self) -> float:
        """The score that an answer without information gets, as the reference's clean pass told.

        Raises:
            Unanswered: If that pass has not run.
        """
        outcome = self._lookup(self.plan.clean(self.plan.reference).key)
        if outcome is None or "chance" not in outcome.values:
            raise Unanswered("error", "The clean pass has not run.")
        return float(outcome.values["chance"])

    def margin(self, own: float | None = None) -> float:
        """The smallest loss of score of interest, in units of the measure: an audit's own, or else the plan's."""
        return self.scaled(self.plan.margin if own is None else own)

    def scaled(self, share: float) -> float:
        """A share of the score in units of the measure: thresholds must not depend on the unit of the targets.

        The whole is 1 for a share of right answers, and the way from chance to the reference's score for the rest.
        """
        if self.plan.task.bounded:
            return share
        return share * abs(float(self.clean(self.plan.reference).mean()) - self.chance)

    def outcome(self, trial: Trial) -> Outcome | None:
        """The trial's outcome, if it has run."""
        return self._lookup(trial.key)

    def known(self, trials: Iterable[Trial]) -> bool:
        """Whether all of them have run."""
        return all(self._lookup(trial.key) is not None for trial in trials)

    def values(self, trial: Trial) -> Values:
        """The score per example. A diverged trial answers nothing: every example counts as chance.

        Raises:
            Unanswered: If the trial failed, was skipped or has not run.
        """
        outcome = self._lookup(trial.key)
        if outcome is None:
            raise Unanswered("error", f"A trial has not run ({trial.perturbation}, dose {trial.dose:g}).")
        if outcome.status == "diverged":
            return np.full(self.examples(trial), self.chance)
        if outcome.status != "done":
            raise Unanswered("error" if outcome.status == "failed" else "not_applicable", outcome.because)
        return outcome.values[self.plan.task.measure].astype(np.float64)

    def measured(self, trials: Sequence[Trial], measure: str) -> Values | None:
        """Another measure than the score, ``[trial, example]``; ``None`` where a trial does not have it."""
        outcomes = [self._lookup(trial.key) for trial in trials]
        rows = [o.values[measure] for o in outcomes if o is not None and measure in o.values]
        return np.stack(rows).astype(np.float64) if rows and len(rows) == len(trials) else None

    def examples(self, trial: Trial) -> int:
        """How many examples a trial is measured on."""
        count = self.plan.task.examples
        return count if trial.subset is None else len(trial.subset.examples(count, root=trial.root))

    def reading(self, trial: Trial) -> Arrays:
        """The named arrays that a reading gave.

        Raises:
            Unanswered: If it failed, was skipped or has not run.
        """
        outcome = self._lookup(trial.key)
        if outcome is None:
            raise Unanswered("error", f"A reading has not run ({trial.perturbation}).")
        if outcome.status != "done":
            raise Unanswered("not_applicable" if outcome.status == "skipped" else "error", outcome.because)
        wide = {name: array.astype(np.float64) for name, array in outcome.values.items() if array.dtype.kind == "f"}
        return {**outcome.values, **wide}

    def table(self, trials: Sequence[Sequence[Trial]]) -> Values:
        """Scores ``[dose, draw, example]`` of trials given as ``[dose][draw]``."""
        return np.stack([np.stack([self.values(trial) for trial in row]) for row in trials])

    def norm(self, trials: Iterable[Trial]) -> float | None:
        """||change|| / ||weights||, mean over trials; ``None`` where one does not tell it (because it diverged)."""
        outcomes = [self._lookup(trial.key) for trial in trials]
        told = [float(o.values["relative_norm"]) for o in outcomes if o is not None and "relative_norm" in o.values]
        return float(np.mean(told)) if told and len(told) == len(outcomes) else None

    def coverage(self, trials: Iterable[Trial]) -> float | None:
        """Least share of the weights that one of these disturbances of all weights touched; ``None`` without any."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        shares = [float(o.values["coverage"]) for o in outcomes if o is not None and "coverage" in o.values]
        return min(shares, default=None)

    def untouched(self, trials: Iterable[Trial]) -> str:
        """Which layers these trials left as they were although they were asked to disturb them, in words."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        told = {o.because for o in outcomes if o is not None and o.status == "done" and o.because}
        return " ".join(sorted(told))

    def clean(self, subject: SubjectRecord) -> Values:
        """The undisturbed score per example."""
        return self.values(self.plan.clean(subject))

    def at_chance(self, subject: SubjectRecord) -> str:
        """Why nothing can be lost, in words, if the undisturbed score is not shown to be better than chance."""
        task, clean, chance = self.plan.task, self.clean(subject), self.chance
        score = score_interval(clean, bounded=task.bounded, name=task.measure, unit=task.measure)
        near = score.low if task.higher_is_better else score.high
        if near is None:
            return ""
        if task.sign * (near - chance) <= 0.0:
            return f"{subject.name} scores {score}, chance is {chance:.3f}: there is nothing to lose."
        if task.common is not None and near <= task.common:
            return (
                f"{subject.name} scores {score}, and always giving the most common answer scores {task.common:.3f}: "
                "not shown to be better, so there is nothing to lose."
            )
        return ""

    def require_above_chance(self, subject: SubjectRecord) -> None:
        """Raises ``Unanswered`` if the subject has nothing to lose."""
        why = self.at_chance(subject)
        if why:
            raise Unanswered("not_applicable", why)

    def skipped(self, trials: Iterable[Trial]) -> bool:
        """Whether all of them were skipped: the disturbance is not defined there."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        return all(outcome is not None and outcome.status == "skipped" for outcome in outcomes)

    def diverged(self, trials: Iterable[Trial]) -> int:
        """How many of them diverged."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        return sum(outcome is not None and outcome.status == "diverged" for outcome in outcomes)


class Audit(Configured, ABC):
    """One question about weights.

    Attributes:
        code: Finding code.
        title: What its findings claim, in plain words.
        brief: Heading of its column and chart; the title, where empty.
        reads: Two plain sentences for the page: what it does, and what a change in its number means.
        axis: What its dose is, where it has curves; the unit of the curve, where empty.
        linear: Whether its doses are read in equal steps, not in ratios.
        otherwise: What ``excluded`` says of a single subject, where that is more than nothing.
        asks: Which kind of question it is: see ``Instrument``.
        shows: Whether ``found`` shows something of what is inside.
        large: Settings, unless others are asked for, on a model so large that a pass takes seconds.
        spares: Settings that a budget may lower, each with the fewest that still tell something.
        copies: Gauges of the control copies that it needs: those of the null twin, and ``cancel`` for a planted one.
        by_units: Whether its cost depends on how many hidden units a subject has, so that a plan must count them.
    """

    noun = "audit"
    code: ClassVar[str]
    title: ClassVar[str]
    brief: ClassVar[str] = ""
    reads: ClassVar[str] = ""
    axis: ClassVar[str] = ""
    linear: ClassVar[bool] = False
    otherwise: ClassVar[str] = ""
    asks: ClassVar[Asks] = "weights"
    shows: ClassVar[bool] = False
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {}
    spares: ClassVar[dict[str, int]] = {}
    copies: ClassVar[tuple[str, ...]] = ()
    by_units: ClassVar[bool] = False

    @abstractmethod
    def ask(self, case: Case) -> list[Trial]:
        """Every trial wanted, given what is known; asked again after they ran, until nothing new is wanted."""

    @abstractmethod
    def judge(self, case: Case) -> Verdict:
        """The reading of the outcomes."""

    @classmethod
    def instrument(cls) -> Instrument:
        """Its words, as a report carries them."""
        return Instrument(
            code=cls.code, name=cls.brief or cls.title, reads=cls.reads, axis=cls.axis, linear=cls.linear,
            otherwise=cls.otherwise, asks=cls.asks, shows=cls.shows,
        )  # fmt: skip

    def unanswered(self, subject: str, gap: Unanswered, *, title: str = "", scheme: str = "") -> Draft:
        """The finding on a subject or pair whose trials did not give what the audit rests on."""
        finding = Finding(
            code=self.code, title=title or self.title, status=gap.status, subject=subject, because=gap.because,
            scheme=scheme,
        )  # fmt: skip
        return Draft(finding)

    def draft(self, case: Case, subject: str, claim: Tested, trials: Iterable[Trial], *, title: str = "") -> Draft:
        """The finding that a claim makes.

        Args:
            case: Plan and outcomes.
            subject: The subject or pair it is about.
            claim: What is claimed.
            trials: What it rests on.
            title: Of the finding, where neither the claim's own nor the audit's.
        """
        test, shown, resting = claim.test, claim.shown or claim.test, (*trials, *claim.trials)
        covered = case.coverage(resting) if claim.coverage is None else claim.coverage
        least = None
        if shown is not None:
            least = smallest_detectable(shown, alpha=case.plan.alpha / claim.among, margin=claim.margin)
        finding = Finding(
            code=self.code, title=claim.title or title or self.title, status=claim.status, subject=subject,
            estimates=(*(() if shown is None else (shown,)), *claim.beside), smallest_detectable=least,
            because=claim.found, trials=tuple(trial.key for trial in resting), alarm=claim.alarm, brief=claim.brief,
            scheme=claim.scheme, margin=None if test is None else claim.margin, coverage=covered,
        )  # fmt: skip
        return Draft(
            finding, test=test, margin=claim.margin, cells=claim.cells, one_sided=claim.one_sided,
            otherwise=claim.otherwise, fallback=claim.fallback, words=claim.words,
        )  # fmt: skip

    def groups(self) -> tuple[int, ...]:
        """Groups of examples that its settings name, so that a plan can refuse one that there is not."""
        return ()

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Readings of a subject that its settings ask for, so that a plan can refuse ones that cannot be made."""
        return []

    def asked_for(self, plan: Plan, subject: SubjectRecord) -> list[tuple[str, Trial]]:
        """Disturbances that the settings name, in words and as a trial: a plan refuses those that change nothing."""
        return []

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """Perturbations and doses that its settings fix, so that a plan can refuse impossible ones at once."""
        return ()

    def most(self, plan: Plan) -> int:
        """Upper bound on the number of trials it may ask for."""
        return len(self.ask(Case(plan, lambda _: None)))

    def most_passes(self, plan: Plan) -> float:
        """Upper bound on what they cost, in passes over the task."""
        return float(self.most(plan))

    def cheaper(self, plan: Plan, share: float) -> dict[str, int]:
        """The settings that change where it may cost about this ``share`` of what it costs with its own."""
        wholes = {name: getattr(self.settings, name) for name in self.spares}
        lower = {
            name: max(self.spares[name], math.ceil(share * whole))
            for name, whole in wholes.items()
            if whole is not None  # it follows the plan's effort
        }
        return {name: value for name, value in lower.items() if value < wholes[name]}


RECODED = ("permute", "rescale", "heads", "experts")
"""Changes that relative and function-space noise are silent on, and that readings of units are."""

BUILTIN = {
    "deployment": "wheeltap.audits.deployment:DeploymentAudit",
    "score": "wheeltap.audits.score:ScoreAudit",
    "census": "wheeltap.audits.census:CensusAudit",
    "relative-noise": "wheeltap.audits.noises:RelativeNoiseAudit",
    "function-noise": "wheeltap.audits.noises:FunctionNoiseAudit",
    "relative-race": "wheeltap.audits.race:RaceAudit",
    "std-noise": "wheeltap.audits.noises:StdNoiseAudit",
    "quantization": "wheeltap.audits.families:QuantizationAudit",
    "pruning": "wheeltap.audits.families:PruningAudit",
    "merging": "wheeltap.audits.merging:MergingAudit",
    "fine-tuning": "wheeltap.audits.fine_tuning:FineTuningAudit",
    "bit-flips": "wheeltap.audits.families:BitFlipAudit",
    "low-rank-noise": "wheeltap.audits.noises:LowRankNoiseAudit",
    "single-point": "wheeltap.audits.single_point:SinglePointAudit",
    "heads": "wheeltap.audits.heads:HeadsAudit",
    "redundancy": "wheeltap.audits.redundancy:RedundancyAudit",
    "entanglement": "wheeltap.audits.entanglement:EntanglementAudit",
    "parts": "wheeltap.audits.parts:PartsAudit",
    "relearning": "wheeltap.audits.relearning:RelearningAudit",
    "decodable": "wheeltap.audits.decodable:DecodableAudit",
    "symmetry": "wheeltap.audits.symmetry:SymmetryAudit",
    "improvement": "wheeltap.audits.improvement:ImprovementAudit",
    "input-shift": "wheeltap.audits.input_shift:InputShiftAudit",
}

STRUCTURE = ("redundancy", "entanglement")
"""Research measures of what is inside: asked for by name, or by that of their group, ``structure``. ``parts`` answers
a question of the user's own, and ``heads`` fits transformers alone."""

DEFAULT = ("score", "deployment", "single-point")
"""What ``audit``, ``compare`` and ``demo`` run; ``single-point`` is left out on models so large that each weight costs
a pass of seconds. Others are asked for by name. ``std-noise`` alarms on reparametrized copies."""

GROUPS = {
    "survival": (
        "score", "relative-noise", "function-noise", "low-rank-noise", "quantization", "pruning", "bit-flips",
        "fine-tuning",
    ),
    "noise": ("score", "relative-noise", "function-noise"),
    "structure": ("score", "relative-noise", "function-noise", "single-point", *STRUCTURE),
}  # fmt: skip
"""Names that stand for several audits. ``survival``: everything that deployment or a further edit does to weights."""


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Names of audits, with each group's in its place; each once."""
    return tuple(dict.fromkeys(one for name in names for one in GROUPS.get(name, (name,))))


audits: Registry[Audit] = Registry("audit", "wheeltap.audits", BUILTIN, Audit)  # pyright: ignore[reportAbstractUsage]


def named(name: str) -> str:
    """The name of an audit or group, also where its finding code was given: ``WT103`` is ``quantization``."""
    asked = name.upper()
    return next((known for known in audits if audits.get(known).code == asked), name) if asked[:2] == "WT" else name


def create(name: str, settings: dict[str, Any] | None = None) -> Audit:
    """The audit registered as ``name``.

    Raises:
        UnknownName: If there is none.
        UsageError: If a setting does not fit.
    """
    return audits.get(name)(settings)


def training_passes(plan: Plan, *, steps: float, batch: int) -> float:
    """Passes over the task that ``steps`` of training take: each a forward and a backward (two) on a batch."""
    examples = plan.task.examples
    return 3.0 * steps * min(batch, examples) / examples


def keeps_less(title: str, reference: SubjectRecord, rival: SubjectRecord, gap: Estimate) -> str:
    """A headline's sentence on a pair: who keeps less of the score under a disturbance, by how much.

    Args:
        title: Of the disturbance.
        reference: The one subject.
        rival: The other.
        gap: How much more the rival loses.
    """
    worse = rival.name
    if (gap.value or 0.0) < 0:
        worse = reference.name
        low, high = (None if end is None else -end for end in (gap.high, gap.low))
        gap = msgspec.structs.replace(gap, value=-(gap.value or 0.0), low=low, high=high)
    return f"Under {title.lower()}, {worse} keeps {gap} less of the score."


def pair(reference: SubjectRecord, rival: SubjectRecord) -> str:
    """How a comparison's subject is called."""
    return f"{reference.name} vs {rival.name}"
