"""The study ``decodable-shift``: nets hold the same decodable factors, organized or not. Are the latter fragile?

After Kumar et al. 2025, arXiv:2505.11581 (fractured entangled representations), which measures none of this.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case, Values
from wheeltap.core import seeds
from wheeltap.core.records import Control, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import Asked, Cast, CohortRole, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.input_shift import INPUT_SHIFT
from wheeltap.stats.effective import effective_number
from wheeltap.stats.members import Single
from wheeltap.studies.base import Said, Study
from wheeltap.studies.rules import headline
from wheeltap.studies.table import Numbers, Table
from wheeltap.suites.decodable.specs.decodable import DECODABLE
from wheeltap.suites.decodable.specs.factor_effects import FACTOR_EFFECTS
from wheeltap.suites.decodable.studies import shift_controls as controls
from wheeltap.suites.decodable.studies import shift_rules as own
from wheeltap.suites.decodable.studies.shift_worlds import WORLDS, On, World

RECODED, CANCELING = "reparametrized", "canceling"
"""Kinds of copies, as controls."""

_NOISES: Final = {own.NOISE: "function", own.RELATIVE: "relative"}
_BITS: Final = {own.BITS4: 4, own.BITS3: 3}

_ABOUT: Final = {
    own.MODULES: "Organized by construction: no weight leads from a unit of one factor to another factor.",
    own.GUIDED: "Organized by training: weights that lead from one factor to another are penalized.",
    own.ORDINARY: "All weights, trained on the right answers alone.",
    own.SCATTERED: "As many weights as in modules, at places drawn at random: what sparsity alone does.",
    own.MIXED: "Disorganized: each imitates a modular net, and its last hidden units are pressed to serve all factors "
    "alike.",
    own.COPIED: "Organized: modular nets that imitate the same nets, from the same lessons and starts as mixed ones.",
    RECODED: "The same function as the modular net, units permuted and, where possible, rescaled: must show nothing.",
    CANCELING: "The same function as the modular net, with units that cancel each other: must be found fragile.",
}

_WIRINGS: Final[dict[str, str]] = {own.ORDINARY: "plain", own.COPIED: "modules"}

_SHOWN_WITHIN: Final = 4
"""Nets of a kind from which a correlation within it is shown."""


class DecodableShiftSettings(Settings, frozen=True, kw_only=True):
    """Which nets, and how much of each is looked at.

    Attributes:
        on: What nets read: small images (ReLU nets), points of a picture that they paint (CPPNs), or starts of
            sentences whose verb is to agree (transformers).
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
        return self.world.task

    @property
    def world(self) -> World:
        """What nets read."""
        return WORLDS[self.settings.on]

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[Cast, ...]:
        """Five kinds of trained nets; modular nets that imitate modular ones, and copies of these."""
        roles: dict[str, CohortRole] = {
            **dict.fromkeys((own.MODULES, own.ORDINARY, own.COPIED), "compared"),
            own.SCATTERED: "null", RECODED: "null", CANCELING: "planted",
        }  # fmt: skip
        kinds = {kind: self._trained(kind) for kind in (*own.TRAINED, own.COPIED)}
        kinds |= {RECODED: self._recoded(RECODED, self.world.rewritten), CANCELING: self._recoded(CANCELING, "cancel")}
        return tuple(
            Cast(name=kind, members=members, role=roles.get(kind, "studied"), about=_ABOUT[kind])
            for kind, members in kinds.items()
        )

    def _trained(self, kind: str) -> tuple[Asked, ...]:
        how = self.settings
        given: dict[str, Scalar] = {
            "on": how.on, "wiring": _WIRINGS.get(kind, kind), "pressure": how.pressure, "units": how.units,
            "examples": self.world.lesson if how.examples is None else how.examples, "epochs": how.epochs,
        }  # fmt: skip
        imitates = kind in (own.MIXED, own.COPIED)
        return tuple(
            Asked(
                name=named(kind, at), recipe="organized", settings=given,
                # One seed, one lesson and start: nets of one number differ by their kind alone. Who imitates has a
                # lesson that its teacher had not. Another version of the rules is never tried on nets seen before.
                seed=seeds.derive(how.seed, self.name, self.version, "imitate" if imitates else "learn", at),
                of=(named(own.MODULES, at),) if imitates else (),
            )
            for at in range(how.seeds)
        )  # fmt: skip

    def _recoded(self, kind: str, gauges: str) -> tuple[Asked, ...]:
        return tuple(
            Asked(
                name=named(kind, at), recipe="recoded", settings={"gauges": gauges}, seed=at,
                of=(named(own.MODULES, at),),
            )
            for at in range(self.settings.control_seeds)
        )  # fmt: skip

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        return own.metrics(len(self.world.factors))

    def rules(self) -> tuple[Rule, ...]:
        """See ``Study.rules``."""
        return own.rules()

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Noise and rounding in the weights, and three readings."""
        noise = [trial for key in _NOISES for row in self.noise(case.plan, member, key) for trial in row]
        rounded = [self._rounded(case.plan, member, bits) for bits in _BITS.values()]
        return [*noise, *rounded, *self._readings(case.plan, member)]

    def noise(self, plan: Plan, member: SubjectRecord, key: str) -> list[list[Trial]]:
        """Trials of noise in the weights, ``[dose][draw]``, that a metric rests on."""
        draws, doses = range(self.settings.draws), dict(zip(_NOISES, self.world.doses, strict=True))
        return [[plan.trial(member, _NOISES[key], dose=dose, seed=seed) for seed in draws] for dose in doses[key]]

    def _rounded(self, plan: Plan, member: SubjectRecord, bits: int) -> Trial:
        return plan.trial(member, "quantize", settings={"scale": "channel"}, dose=float(bits))

    def _readings(self, plan: Plan, member: SubjectRecord) -> tuple[Trial, Trial, Trial]:
        asked: dict[str, Scalar] = {
            "layers": self.world.hidden, "draws": 8, "matched": 1, "held": 1, "controls": 2, "group": 0,
        }  # fmt: skip
        shifted: dict[str, Scalar] = {**self.world.disturbed, "shift_draws": 2}
        return (
            plan.reading(member, FACTOR_EFFECTS.name, {}),
            plan.reading(member, DECODABLE.name, asked),
            plan.reading(member, INPUT_SHIFT.name, shifted),
        )

    # ---- judging --------------------------------------------------------------------------------------------------

    def familiar(self, case: Case, member: SubjectRecord) -> NDArray[np.bool_]:
        """Which examples have a combination of training, ``[example]``.

        Raises:
            Unanswered: If it was not read.
        """
        return np.equal(case.reading(self._readings(case.plan, member)[0])["belongs"], 0)

    def lost(self, case: Case, member: SubjectRecord, key: str) -> Values:
        """Score lost under noise on combinations of training, mean over doses, ``[draw, example]``.

        Raises:
            Unanswered: If a trial has not run.
        """
        known = self.familiar(case, member)
        clean = case.values(case.plan.clean(member))[known]
        return clean - case.table(self.noise(case.plan, member, key))[:, :, known].mean(0)

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        plan, known = case.plan, self.familiar(case, member)
        effects, probes, shifted = (case.reading(trial) for trial in self._readings(plan, member))
        right, clean = case.values(plan.clean(member)), case.outcome(plan.clean(member))
        score = float(right[known].mean())
        found = {own.SCORE: score, own.SHIFT: score - float(right[~known].mean())}
        if clean is not None and "nll" in clean.values:
            found[own.LOSS] = float(clean.values["nll"].astype(np.float64)[known].mean())
        found[own.SPREAD] = effective_number(effects["effect"][0])
        found[own.INPUTS] = score - float(shifted["score"][:, known].mean())
        found |= {key: float(self.lost(case, member, key).mean()) for key in _NOISES}
        for key, bits in _BITS.items():
            found[key] = score - float(case.values(self._rounded(plan, member, bits))[known].mean())
        measured = [name for name in self.world.factors if f"{name}|correct" in probes]
        if measured:
            found[own.DECODABLE] = float(np.mean([probes[f"{name}|correct"].mean() for name in measured]))
        moved = [(probes[f"{name}|erased"].mean(1), probes[f"{name}|steepest"].mean(1)) for name in measured]
        used = [one / most for ones, mosts in moved for one, most in zip(ones, mosts, strict=True) if most > 0.0]
        if used:
            found[own.USED] = float(np.mean(used))
        return {key: Single(value) for key, value in found.items() if np.isfinite(value)}

    def controls(self, case: Case, table: Table) -> list[Control]:
        """See ``Study.controls``."""
        pairs = {
            kind: controls.pairs(case, [(named(own.MODULES, at), named(kind, at)) for at in range(self.settings.seeds)])
            for kind in (RECODED, CANCELING)
        }
        return [
            controls.alike(table, RECODED),
            controls.silent_noise(self, case, pairs[RECODED]),
            controls.planted(self, case, pairs[CANCELING]),
            controls.wiring(table),
            controls.equal_scores(table),
        ]

    def said(self, case: Case, table: Table, findings: Sequence[Finding]) -> Said:
        """See ``Study.said``."""
        within = controls.within_kinds(table, fewest=_SHOWN_WITHIN)
        notes = (
            "Disorganization is 1 where every unit serves one factor, and "
            f"{len(self.world.factors)} where every unit serves all of them alike.",
            *within,
            *controls.imitation(table),
        )
        return Said(
            headline=headline(self.rules(), findings), about=self.world.about, notes=notes,
            caveats=self.caveats,
        )  # fmt: skip


def named(kind: str, at: int) -> str:
    """Name of a net, by its kind and its number from 0."""
    return f"{kind} {at + 1}"
