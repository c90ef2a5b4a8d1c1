"""The study ``decodable-shift``: nets hold the same decodable factors, organized or not. Are the latter fragile?

After Kumar et al. 2025, arXiv:2505.11581 (fractured entangled representations), which measures none of this.

Numbers and rules were fixed before the first net was made. Version 1 held mixed nets against the modular nets that they
imitate. On its nets, modular nets that imitate lost more under the shift than those that learned from labels. So
version 2 holds mixed nets against modular nets that imitate as well, and draws nets of its own. See
docs/results/validity.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case, Values
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control, controls_of, silent, surely
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, Direction, MemberSpec, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.input_shift import INPUT_SHIFT
from wheeltap.stats import members
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.members import NumberScale, Single
from wheeltap.stats.modularity import effective_number
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.decodable.specs import DECODABLE, FACTOR_EFFECTS, On


@final
@dataclass(frozen=True, kw_only=True)
class Domain:
    """What nets read.

    Attributes:
        about: In a sentence.
        factors: Their names.
        task: What nets are measured on, by its spec.
        disturbed: How inputs are disturbed: settings of the reading ``input-shift``.
        lesson: Examples of a lesson.
        rewritten: Gauges that write a net in another way: those that its activations let through.
        doses: Of function-space and of relative noise in the weights. Chosen on ordinary nets of other seeds: between
            them they lose little and nearly all.
    """

    about: str
    factors: tuple[str, ...]
    task: str
    disturbed: Mapping[str, Scalar]
    lesson: int
    rewritten: str = "permute,rescale"
    doses: tuple[tuple[float, ...], tuple[float, ...]] = ((0.125, 0.25, 0.5), (0.25, 0.5, 1.0))


DOMAINS: Final[Mapping[On, Domain]] = {
    "images": Domain(
        about="Images with four independent factors; ReLU nets of two hidden layers.",
        factors=("shape", "place", "ground", "slope"),
        task="wheeltap.suites.decodable.nets:shapes",
        disturbed={"shifts": "noise", "image": "12x12"},
        lesson=8192,
    ),
    "pictures": Domain(
        about="Points of a picture with four independent factors; nets of sines and Gaussians (CPPNs) that paint it.",
        factors=("column", "row", "stripe", "ring"),
        task="wheeltap.suites.decodable.nets:points",
        disturbed={"shifts": "feature noise"},
        lesson=16384,
        rewritten="permute",
        doses=((0.03, 0.06, 0.125), (0.125, 0.25, 0.5)),
    ),
}


HIDDEN: Final = "1,3"
"""Modules whose outputs are the hidden layers of these nets."""

MODULES, GUIDED, ORDINARY, SCATTERED, MIXED = "modules", "guided", "ordinary", "scattered", "mixed"
"""Kinds of trained nets, from organized to disorganized."""

COPIED: Final = "copied"
"""Modular nets that imitate, as mixed ones do: what mixed ones are held against."""

TRAINED: Final = (MODULES, GUIDED, ORDINARY, SCATTERED, MIXED)

SCORE, LOSS, DECODED, USED, SPREAD = "score", "loss", "decodability", "use", "disorganization"
NOISE, RELATIVE, BITS4, BITS3 = "function_noise", "relative_noise", "bits4", "bits3"
SHIFT, INPUTS = "shift", "input_noise"

FAMILIAR: Final = "combinations of training"

SHARE: Final = (0.0, 1.0)
LOST: Final = (-1.0, 1.0)

ALIKE: Final = 0.02
"""Difference of scores, or of shares of right probes, below which two kinds of nets count as equal."""

MATTERS: Final = 0.05
"""Smallest difference of interest in the score lost."""

GOES_WITH: Final = 0.3
"""Smallest correlation over nets of interest: it accounts for a tenth of what varies among them."""


SAME: Final = {SCORE: 0.005, SHIFT: 0.005, DECODED: 0.01, SPREAD: 1e-3}
"""Differences between a net and a copy with permuted and rescaled units that rounding may make: an example or two."""

FOUND: Final = 0.001
"""P-value up to which a canceling copy counts as found fragile."""

RECODED, CANCELING = "reparametrized", "canceling"
"""Kinds of copies, as controls."""


@control(f"{RECODED} copies have the same numbers", "null")
def alike(table: MemberTable) -> Ruling:
    """Has a reparametrized copy the numbers of its net?"""
    known = dict[str, float]()
    for key in SAME:
        if partners := _partners(table, MODULES, RECODED, key):
            known[key] = max(abs(one - two) for one, two in partners)
    if not known:
        raise NoAnswer("skipped", "No copy has any number.")
    failed = any(gap > SAME[key] for key, gap in known.items())
    each = ", ".join(f"{table.metric(key).title.lower()} {gap:.2g} ({SAME[key]:g})" for key, gap in known.items())
    exact = (Estimate.exact(f"largest difference: {key}", gap, table.metric(key).unit) for key, gap in known.items())
    because = f"They compute the same function. Largest difference (allowed): {each}."
    return "failed" if failed else "passed", tuple(exact), because


@control("disorganization is seen where it was built", "planted")
def wiring(table: MemberTable) -> Ruling:
    """Does the number of disorganization tell nets apart that are disorganized by construction?"""
    partners = _partners(table, MODULES, MIXED, SPREAD)
    if not partners:
        raise NoAnswer("skipped", "No pair of nets has the number.")
    least = min(two - one for one, two in partners)
    highest = max(one for one, _ in partners)
    sound = least > 0.0 and highest <= 1.0 + SAME[SPREAD]
    because = (
        f"No unit of a modular net can move more than one factor: the most is {highest:.4f}, and it must be 1. "
        f"Every mixed net must have more than the modular net of its seed: the least difference is {least:.3g}."
    )
    exact = Estimate.exact("least_difference", least, "factors per unit", n=len(partners))
    return "passed" if sound else "failed", (exact,), because


def imitation(table: MemberTable) -> list[str]:
    """What imitation does to modular nets: beside the rules, not corrected, no verdict."""
    each = [
        f"{table.metric(key).title.lower()} {members.difference(copied, learned, name=key, scale=_ACCURACY).estimate}"
        for key in (NOISE, SHIFT)
        if (copied := table.values(COPIED, key)) and (learned := table.values(MODULES, key))
    ]
    start = "Modular nets that imitate, less modular nets that learned from labels (not corrected): "
    return [f"{start}{'; '.join(each)}."] if each else []


_ACCURACY: Final = NumberScale("accuracy", normal=True)


@control("trained nets score alike", "gate")
def equal_scores(table: MemberTable) -> Ruling:
    """Which nets do not score as the others do?"""
    scores = {
        member: single.value
        for kind in TRAINED
        for member, single in zip(table.having(kind, [SCORE]), table.singles(kind, SCORE), strict=True)
    }
    if not scores:
        raise NoAnswer("skipped", "No net has a score.")
    middle = float(np.median(list(scores.values())))
    outside = {member: score for member, score in scores.items() if abs(score - middle) > ALIKE}
    each = ", ".join(f"{member} {score:.3f}" for member, score in outside.items())
    because = (
        f"Their median score is {middle:.3f}; {len(outside)} of {len(scores)} lie more than {ALIKE:g} from "
        f"it{f': {each}. They stay in every number' if outside else ''}."
    )
    exact = Estimate.exact("nets_outside", float(len(outside)), "nets", n=len(scores))
    return "skipped" if outside else "passed", (exact,), because


def within_kinds(table: MemberTable) -> list[str]:
    """What goes with what among nets of one kind, beside what the rules say of all: not corrected, no verdict."""
    lines: list[str] = []
    kinds = [kind for kind in TRAINED if len(table.having(kind, [SPREAD, LOSS])) >= _SHOWN_WITHIN]
    for key in (NOISE, SHIFT):
        needed = [key, SPREAD, LOSS]
        names = [(kind, member) for kind in kinds for member in table.having(kind, needed)]
        if names:
            number, spread, loss = ([table.numbers[member][one].value for _, member in names] for one in needed)
            test = members.association(number, spread, beyond=[loss], groups=[kind for kind, _ in names], name=key)
            lines.append(
                f"Within kinds of nets, beyond the clean loss, {table.metric(key).title.lower()} goes with "
                f"disorganization at {test.estimate} ({len(names)} nets; not corrected)."
            )
    return lines


def _partners(table: MemberTable, one: str, two: str, key: str) -> list[tuple[float, float]]:
    """A number of the first members of two cohorts, of the second of both, and so on, where both have it."""
    pairs = zip(table.cohort(one).members, table.cohort(two).members, strict=False)
    found = [[table.numbers.get(name, {}).get(key) for name in pair] for pair in pairs]
    return [(one.value, two.value) for one, two in found if one is not None and two is not None]


_NOISES: Final = {NOISE: "function", RELATIVE: "relative"}
_BITS: Final = {BITS4: 4, BITS3: 3}

_ABOUT: Final = {
    MODULES: "Organized by construction: no weight leads from a unit of one factor to another factor.",
    GUIDED: "Organized by training: weights that lead from one factor to another are penalized.",
    ORDINARY: "All weights, trained on the right answers alone.",
    SCATTERED: "As many weights as in modules, at places drawn at random: what sparsity alone does.",
    MIXED: "Disorganized: each imitates a modular net, and its last hidden units are pressed to serve all factors "
    "alike.",
    COPIED: "Organized: modular nets that imitate the same nets, from the same lessons and starts as mixed ones.",
    RECODED: "The same function as the modular net, units permuted and, where possible, rescaled: must show nothing.",
    CANCELING: "The same function as the modular net, with units that cancel each other: must be found fragile.",
}

_WIRINGS: Final[dict[str, str]] = {ORDINARY: "plain", COPIED: "modules"}

_SHOWN_WITHIN: Final = 4
"""Nets of a kind from which a correlation within it is shown."""


class DecodableShiftSettings(Settings, frozen=True, kw_only=True):
    """Which nets, and how much of each is looked at.

    Attributes:
        on: What nets read: small images (ReLU nets), or points of a picture that they paint (CPPNs).
        seeds: Nets of each kind.
        control_seeds: Reparametrized and canceling copies, of the first modular nets.
        seed: Root of what nets are made from.
        units: Of each hidden layer, for each factor.
        examples: Of a lesson; where not given, as many as ordinary nets need.
        epochs: Passes over them.
        pressure: Weight of the penalties that organize and mix.
        draws: Of noise in the weights, at each dose.
    """

    on: On = "images"
    seeds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 36
    control_seeds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 6
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    units: Annotated[int, msgspec.Meta(ge=2, le=64)] = 16
    examples: Annotated[int, msgspec.Meta(ge=16, le=65_536)] | None = None
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 15
    pressure: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] = 1.0
    draws: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 12

    def __post_init__(self) -> None:
        if self.control_seeds > self.seeds:
            raise ValueError(f"`control_seeds` {self.control_seeds} is more than `seeds` {self.seeds}")


@final
class DecodableShift(Study):
    """Nets with equal scores and equally decodable factors: does disorganization predict what they lose?"""

    name = "decodable-shift"
    title = "Are nets fragile whose factors can be read off but are not kept apart?"
    code = "WT203"
    settings_type = DecodableShiftSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 12, "control_seeds": 3}
    settings: DecodableShiftSettings
    version: ClassVar[int] = 2
    caveats = (
        "Small nets on generated examples with four factors: nothing is known here of other nets, tasks and sizes.",
        "Kinds of nets differ in more than organization: modular nets have fewer weights (scattered ones as many), and "
        "mixed nets were trained to imitate (copied ones too). A correlation over all nets is one of kinds as well.",
        "The shift is one: pairs of values that never went together. Disorganization is one number of many possible.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return self.domain.task

    @property
    def domain(self) -> Domain:
        """What nets read."""
        return DOMAINS[self.settings.on]

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[CohortSpec, ...]:
        """Five kinds of trained nets; modular nets that imitate modular ones, and copies of these."""
        roles: dict[str, CohortRole] = {
            **dict.fromkeys((MODULES, ORDINARY, COPIED), "compared"),
            SCATTERED: "null", RECODED: "null", CANCELING: "planted",
        }  # fmt: skip
        kinds = {kind: self._trained(kind) for kind in (*TRAINED, COPIED)}
        for kind, gauges in ((RECODED, self.domain.rewritten), (CANCELING, "cancel")):
            kinds[kind] = tuple(
                MemberSpec(
                    name=f"{kind} {at + 1}", recipe="recoded", settings={"gauges": gauges}, seed=at,
                    of=(f"{MODULES} {at + 1}",),
                )
                for at in range(self.settings.control_seeds)
            )  # fmt: skip
        return tuple(
            CohortSpec(name=kind, members=members, role=roles.get(kind, "studied"), about=_ABOUT[kind])
            for kind, members in kinds.items()
        )

    def _trained(self, kind: str) -> tuple[MemberSpec, ...]:
        how = self.settings
        given: dict[str, Scalar] = {
            "on": how.on, "wiring": _WIRINGS.get(kind, kind), "pressure": how.pressure, "units": how.units,
            "examples": self.domain.lesson if how.examples is None else how.examples, "epochs": how.epochs,
        }  # fmt: skip
        imitates = kind in (MIXED, COPIED)
        return tuple(
            MemberSpec(
                name=f"{kind} {at + 1}", recipe="organized", settings=given,
                # One seed, one lesson and start: nets of one number differ by their kind alone. Who imitates has a
                # lesson that its teacher had not. Another version of the rules is never tried on nets seen before.
                seed=seeds.derive(how.seed, self.name, self.version, "imitate" if imitates else "learn", at),
                of=(f"{MODULES} {at + 1}",) if imitates else (),
            )
            for at in range(how.seeds)
        )  # fmt: skip

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``; a unit may serve as many factors as there are."""
        unit = "accuracy"
        rounded = (
            f"On {FAMILIAR}; every weight rounded, one grid per unit. A copy with rescaled units, the same function, "
            "can lose far more."
        )
        losses = (
            (
                NOISE, "under function-space noise", "WT102",
                f"On {FAMILIAR}, mean over doses. Every layer's output is disturbed by the same share, whatever its "
                "weights: the same on copies with permuted or rescaled units.",
            ),
            (
                RELATIVE, "under relative noise", "WT101",
                f"On {FAMILIAR}, mean over doses. Weights that are 0 stay 0, so nets with fewer weights are disturbed "
                "in fewer places.",
            ),
            (BITS4, "at 4 bits", "WT103", rounded),
            (BITS3, "at 3 bits", "WT103", rounded),
            (
                SHIFT, "under shift", "WT701",
                f"Score on {FAMILIAR} less the score on combinations that were held out: each value was in the lesson, "
                "the pair never.",
            ),
            (INPUTS, "under disturbed inputs", "WT701", f"On {FAMILIAR}, mean over doses."),
        )  # fmt: skip
        return (
            Metric(
                key=SCORE, title="Score", unit=unit, code="WT001", ends=SHARE, toward="high",
                reads=f"Share of examples with {FAMILIAR} on which all factors are right.",
            ),
            Metric(
                key=LOSS, title="Loss", unit="nats", code="WT001", ends=(0.0, None), log=True, toward="low",
                reads="Negative log-likelihood of the right answer on the same examples: what two nets of equal score "
                "may still differ in.",
            ),
            Metric(
                key=DECODED, title="Decodability", unit="share", code="WT203", ends=SHARE, toward="high",
                reads="Share of examples on which a linear probe is right that was fitted on others: mean over factors "
                f"and hidden layers, on {FAMILIAR}.",
            ),
            Metric(
                key=USED, title="Use of what can be read", unit="share", code="WT203", ends=(0.0, None), toward="high",
                reads="How far the outputs move without a factor's subspace, as a share of what they move without the "
                "subspace of the same rank that they depend on most: mean over factors and hidden layers.",
            ),
            Metric(
                key=SPREAD, title="Disorganization", unit="factors per unit", code="WT202",
                ends=(1.0, float(len(self.domain.factors))), toward="low",
                reads="Over how many factors the effect of a single hidden unit is spread (effective number; units "
                "count by their effect). 1: every unit serves one factor. The same on copies with permuted or rescaled "
                "units; not on copies with units that cancel each other, which are another wiring.",
            ),
            *(
                Metric(key=key, title=f"Score lost {title}", unit=unit, code=code, ends=LOST, toward="low", reads=reads)
                for key, title, code, reads in losses
            ),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Eight: two on what must be equal, two on what disorganized nets lose, four on what goes with what."""
        same, least = f"{100 * ALIKE:g} points", f"{100 * MATTERS:g} points"
        paired = partial(Rule, cohorts=(MIXED, COPIED), statistic="paired")
        predictors: tuple[tuple[str, str, Direction], ...] = (
            (SPREAD, "Disorganization", "more"), (DECODED, "Decodability", "either"),
        )  # fmt: skip
        return (
            paired(
                code="WT001", title="Other score", metric=SCORE, margin=ALIKE,
                supports=f"Mixed and modular nets differ in score by more than {same}.",
                refutes=f"Mixed and modular nets score alike, within {same}.",
            ),
            paired(
                code="WT203", title="Other decodability", metric=DECODED, margin=ALIKE,
                supports=f"The factors' decodability differs by more than {same} between mixed and modular nets.",
                refutes=f"The factors are as decodable in mixed nets as in modular ones, within {same}.",
            ),
            *(
                paired(
                    code=code, title=title, metric=metric, direction="more", margin=MATTERS, alarm=True,
                    supports=f"Mixed nets lose more {under} than modular ones, by over {least}.",
                    refutes=f"Mixed nets do not lose more {under} than modular ones, by {least} or more.",
                )
                for code, title, metric, under in (
                    ("WT102", "Disorganized nets are fragile", NOISE, "under weight disturbance"),
                    ("WT701", "Disorganized nets lose under shift", SHIFT, "under the shift"),
                )
            ),
            *(
                Rule(
                    code=code, title=f"{title} goes with {goal}", metric=metric, with_metric=key, beyond=(LOSS,),
                    cohorts=TRAINED, statistic="association", direction=direction, margin=GOES_WITH,
                    supports=f"Beyond the clean loss, {title.lower()} goes with {goal}.",
                    refutes=f"Beyond the clean loss, {title.lower()} does not go with {goal} by a correlation of "
                    f"{GOES_WITH:g} or more.",
                )
                for key, title, direction in predictors
                for code, metric, goal in (
                    ("WT102", NOISE, "fragility under weight disturbance"),
                    ("WT701", SHIFT, "loss under shift"),
                )
            ),
        )  # fmt: skip

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Noise and rounding in the weights, and three readings."""
        noise = [trial for key in _NOISES for row in self._noise(case.plan, member, key) for trial in row]
        return [*noise, *self._rounded(case.plan, member).values(), *self._readings(case.plan, member)]

    def _noise(self, plan: Plan, member: SubjectRecord, key: str) -> list[list[Trial]]:
        """Trials of noise in the weights, ``[dose][draw]``, that a metric rests on."""
        draws, doses = range(self.settings.draws), dict(zip(_NOISES, self.domain.doses, strict=True))
        return [[plan.trial(member, _NOISES[key], dose=dose, seed=seed) for seed in draws] for dose in doses[key]]

    def _rounded(self, plan: Plan, member: SubjectRecord) -> dict[str, Trial]:
        """Trials of rounding, by metric."""
        return {key: plan.trial(member, "quantize", settings={"scale": "channel"}, dose=float(bits))
                for key, bits in _BITS.items()}  # fmt: skip

    def _readings(self, plan: Plan, member: SubjectRecord) -> tuple[Trial, Trial, Trial]:
        asked: dict[str, Scalar] = {
            "layers": HIDDEN, "draws": 8, "matched": 1, "held": 1, "controls": 2, "group": 0,
        }  # fmt: skip
        return (
            plan.reading(member, FACTOR_EFFECTS.name, {}),
            plan.reading(member, DECODABLE.name, asked),
            plan.reading(member, INPUT_SHIFT.name, {**self.domain.disturbed, "shift_draws": 2}),
        )

    # ---- judging --------------------------------------------------------------------------------------------------

    def _familiar(self, case: Case, member: SubjectRecord) -> NDArray[np.bool_]:
        """Which examples have a combination of training, ``[example]``.

        Raises:
            NoAnswer: If it was not read.
        """
        return np.equal(case.reading(self._readings(case.plan, member)[0])["belongs"], 0)

    def _lost(self, case: Case, member: SubjectRecord, key: str) -> Values:
        """Score lost under noise on combinations of training, mean over doses, ``[draw, example]``.

        Raises:
            NoAnswer: If a trial has not run.
        """
        known = self._familiar(case, member)
        clean = case.values(case.plan.clean(member))[known]
        return clean - case.table(self._noise(case.plan, member, key))[:, :, known].mean(0)

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        plan, known = case.plan, self._familiar(case, member)
        effects, probes, shifted = (case.reading(trial) for trial in self._readings(plan, member))
        right, clean = case.values(plan.clean(member)), case.outcome(plan.clean(member))
        score = float(right[known].mean())
        found = {SCORE: score, SHIFT: score - float(right[~known].mean())}
        if clean is not None and "nll" in clean.values:
            found[LOSS] = float(clean.values["nll"].astype(np.float64)[known].mean())
        found[SPREAD] = effective_number(effects["effect"][0])
        found[INPUTS] = score - float(shifted["score"][:, known].mean())
        found |= {key: float(self._lost(case, member, key).mean()) for key in _NOISES}
        for key, trial in self._rounded(plan, member).items():
            found[key] = score - float(case.values(trial)[known].mean())
        measured = [name for name in self.domain.factors if f"{name}|correct" in probes]
        if measured:
            found[DECODED] = float(np.mean([probes[f"{name}|correct"].mean() for name in measured]))
        moved = [(probes[f"{name}|erased"].mean(1), probes[f"{name}|steepest"].mean(1)) for name in measured]
        used = [one / most for ones, mosts in moved for one, most in zip(ones, mosts, strict=True) if most > 0.0]
        if used:
            found[USED] = float(np.mean(used))
        return {key: Single(value) for key, value in found.items() if np.isfinite(value)}

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [
            alike(table),
            *controls_of(("noise costs reparametrized copies as much", "null", partial(self._silent_noise, case))),
            self._canceling(case),
            wiring(table),
            equal_scores(table),
        ]

    def _silent_noise(self, case: Case, name: str) -> Control:
        """Does noise in the weights cost a reparametrized copy as much as its net?"""
        gap = self._gap(case, RECODED, NOISE, margin=ALIKE)
        because = f"Function-space noise costs the copies {gap} more of the score than their nets: it must be nothing."
        return surely(silent(name, gap, margin=ALIKE, min_effect=MATTERS, because=because), gap)

    @control("canceling units are found", "planted")
    def _canceling(self, case: Case) -> Ruling:
        """Is a copy with canceling units found to be fragile?"""
        gap = self._gap(case, CANCELING, RELATIVE, margin=MATTERS)
        found = gap.p is not None and gap.p <= FOUND and (gap.value or 0.0) > MATTERS
        undecided = gap.high is None or gap.high > MATTERS
        why = " It may be there: too few draws to be sure." if undecided and not found else ""
        because = (
            f"Copies with canceling units compute the same function and lose {gap} more of the score under "
            f"relative noise; more than {MATTERS:g} must be found at p <= {FOUND:g}.{why}"
        )
        return "passed" if found else "skipped" if undecided else "failed", (gap,), because

    def _gap(self, case: Case, kind: str, key: str, *, margin: float) -> Estimate:
        """How much more copies lose than their nets, mean over them: draws and examples are the sample."""
        there = {member.name: member for member in case.plan.subjects}
        names = ((f"{MODULES} {at + 1}", f"{kind} {at + 1}") for at in range(self.settings.seeds))
        each = [self._lost(case, there[copy], key) - self._lost(case, there[net], key)
                for net, copy in names if net in there and copy in there]  # fmt: skip
        if not each:
            raise NoAnswer("not_applicable", "No copy was made.")
        return mean_effect(np.mean(each, 0), margin=margin, bounded=True, name="loss_difference", unit="accuracy")

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        notes = (
            "Disorganization is 1 where every unit serves one factor, and "
            f"{len(self.domain.factors)} where every unit serves all of them alike.",
            *within_kinds(table),
            *imitation(table),
        )
        return StudyAnswer(
            headline=headline(self.rules(), findings), about=self.domain.about, notes=notes,
            caveats=self.caveats,
        )  # fmt: skip
