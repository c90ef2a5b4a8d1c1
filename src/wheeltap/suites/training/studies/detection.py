"""The study ``detection``: of copies that compute the same, does comparing weights find those with a planted defect?

Each copy is compared with the net it was made of, as ``wheeltap compare`` would: by its outputs, by noise on the
inputs and by several disturbances of the weights. What weights add to the other two is what a detector is worth.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Annotated, ClassVar, Final, final

import msgspec

from wheeltap.audits.base import audits
from wheeltap.audits.case import Case
from wheeltap.audits.claims import Unanswered
from wheeltap.audits.score import SAME_OUTPUTS
from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Control, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import Asked, Cast, Metric, Rule
from wheeltap.plans.defects import DEFECTS, SOUND, USUAL, Defect, names_of
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.plans.readings.input_shift import FITTING, LADDERS
from wheeltap.stats.members import Single
from wheeltap.studies.base import Said, Study
from wheeltap.studies.measures import ANSWERED, Compared, single_of
from wheeltap.studies.table import Numbers, Table
from wheeltap.suites.training.studies import detection_rules as own
from wheeltap.suites.training.studies.detection_rules import Planted

_WEIGHED: Final = ("relative-noise", "function-noise", "single-point", "redundancy", "entanglement")
"""Audits of weights, none of which may cost more passes than the disturbed inputs."""

_SETTINGS: Final[dict[str, dict[str, Scalar | list[int | float]]]] = {
    "relative-noise": {"block_map": False},
    "function-noise": {"block_map": False},
    # Whether one net alone is modular is not asked here, and takes longer to judge than all the rest.
    "entanglement": {"rewirings": 2, "modular_at": 0.5},
}  # fmt: skip


class DetectionSettings(Settings, frozen=True, kw_only=True):
    """Which nets and which defects.

    Attributes:
        model: A net of yours, of which all copies are made; nets of the recipe ``digits`` where empty, one per copy.
        data: Its examples, where it does not bring them.
        defects: Names of defects, with commas between them.
        strengths: ``all`` that are declared of each defect, only the one in the ``middle``, or numbers with commas
            between them. Rules are about the one in the middle of those.
        copies: Of each defect and strength, and sound ones.
        shift: Whether copies are also compared by disturbed inputs: rows of numbers, images and tokens can be.
        seed: Root of what is made.
    """

    model: str = ""
    data: str = ""
    defects: str = ",".join(USUAL)
    strengths: str = "middle"
    copies: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 24
    shift: bool = True
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.strengths not in ("all", "middle") and not self._numbers:
            raise ValueError(f"`strengths` is all, middle or numbers with commas between them, not {self.strengths!r}")
        if self.data and not self.model:
            raise UsageError(
                "The examples are of no model.", where="study detection: data", expected="a model beside them",
                got=self.data, do="Give the model too: --set model=my_nets:net, say.",
            )  # fmt: skip
        if not names_of(self.defects):
            raise UsageError(
                "There is no defect to detect.", where="study detection: defects", expected=", ".join(DEFECTS),
                got=repr(self.defects),
            )  # fmt: skip

    @property
    def planted(self) -> tuple[Planted, ...]:
        """Every defect at every strength, rising."""
        names = [name for name in names_of(self.defects) if name != SOUND]
        return tuple(Planted(name, strength) for name in names for strength in self._of(DEFECTS[name]))

    @property
    def judged(self) -> tuple[Planted, ...]:
        """Every defect at the strength that rules are about."""
        by_name = {one.defect: [each for each in self.planted if each.defect == one.defect] for one in self.planted}
        return tuple(some[len(some) // 2] for some in by_name.values())

    def _of(self, defect: Defect) -> tuple[float, ...]:
        return {"all": defect.strengths, "middle": (defect.middle,)}.get(self.strengths, self._numbers)

    @property
    def _numbers(self) -> tuple[float, ...]:
        with suppress(ValueError):
            return tuple(sorted({float(part) for part in self.strengths.split(",")}))
        return ()


@final
class Detection(Study):
    """Copies that compute the same: which are distinguished from the original, and by what."""

    name = "detection"
    title = "What do weights show of planted defects that outputs and disturbed inputs do not?"
    code = "WT101"
    settings_type = DetectionSettings
    small: ClassVar[dict[str, Scalar]] = {"copies": own.FEWEST, "defects": "cancel,super-weight"}
    settings: DetectionSettings
    caveats = (
        "The defects are planted by construction and change no output: of defects that come of training nothing is "
        "known here.",
        "A copy is compared with the net it was made of. Without such a reference less is found.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return self.settings.data if self.settings.model else "digits"

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[Cast, ...]:
        """Planted copies, sound ones, and the nets they are made of."""
        how = self.settings
        planted = [
            Cast(name=str(one), members=self._copies(str(one), one), role="planted", about=DEFECTS[one.defect].title)
            for one in how.planted
        ]
        null = Planted(SOUND, DEFECTS[SOUND].middle)
        sound = Cast(name=own.SOUND, members=self._copies(own.SOUND, null), role="null", about=DEFECTS[SOUND].title)
        about = "What the copies are made of and compared with."
        return Cast(name=own.BASES, members=self._bases(), role="given", about=about), *planted, sound

    def _bases(self) -> tuple[Asked, ...]:
        how = self.settings
        if how.model:
            return (Asked(name=self._base(0), source=how.model),)
        return tuple(
            Asked(name=self._base(at), recipe="digits", seed=seeds.derive(how.seed, self.name, "net", at))
            for at in range(how.copies)
        )

    def _base(self, at: int) -> str:
        return "original" if self.settings.model else f"net {at + 1}"

    def _copies(self, cohort: str, what: Planted) -> tuple[Asked, ...]:
        given: dict[str, Scalar] = {"defect": what.defect, "strength": what.strength}
        return tuple(
            Asked(
                name=f"{cohort}, copy {at + 1}", recipe="planted", settings=given, of=(self._base(at),),
                seed=seeds.derive(self.settings.seed, self.name, "plant", at),
            )
            for at in range(self.settings.copies)
        )  # fmt: skip

    @cached_property
    def _places(self) -> dict[str, int]:
        """Which copy a member is, from 0; of copies alone."""
        return {one.name: at for cast in self.cast()[1:] for at, one in enumerate(cast.members)}

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        return own.metrics([audits.get(name) for name in self._names])

    def rules(self) -> tuple[Rule, ...]:
        """See ``Study.rules``."""
        weighed = [audits.get(name) for name in _WEIGHED]
        how = self.settings
        return own.rules(how.judged, weighed, copies=how.copies, shift=how.shift)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("score", *(["input-shift"] if self.settings.shift else []), *_WEIGHED)

    # ---- asking ---------------------------------------------------------------------------------------------------

    def pair(self, case: Case, member: SubjectRecord) -> Case | None:
        """A copy beside the net it is made of, with draws that no other copy has; ``None`` for such a net."""
        at = self._places.get(member.name)
        if at is None:
            return None
        base = next(one for one in case.whole.subjects if one.name == self._base(at))
        return case.on(base, member, seed=seeds.derive(case.whole.seed, self.name, "draws", at))

    def compared(self, plan: Plan) -> Compared:
        """The audits by which two nets are compared; the inputs are given as many passes as any of the weights."""
        weighed = Compared.usual(_WEIGHED, plan, _SETTINGS)
        most = max(audit.most_passes(plan) for audit in weighed.made())
        draws = math.ceil(most / (self.fewest_shift_passes(1) * len(plan.subjects)))
        shift = AuditSpec(name="input-shift", settings={"shift_draws": max(2, draws), "weight_draws": 1})
        return Compared((AuditSpec(name="score"), *([shift] if self.settings.shift else []), *weighed.audits))

    @staticmethod
    def fewest_shift_passes(draws: int) -> int:
        """Passes that so many draws of disturbed inputs take of one net, at least: where the inputs are a table."""
        kinds = min(map(len, FITTING.values()))
        return kinds * len(LADDERS["noise"]) * draws

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """See ``Study.ask_of``: of a copy the trials of the comparison."""
        both = self.pair(case, member)
        return [] if both is None else self.compared(both.plan).ask(both)

    def most(self, plan: Plan) -> int:
        """See ``Study.most``."""
        case, count = Case(plan, lambda _: None), 0
        for member in plan.subjects:
            both = self.pair(case, member)
            count += len(case.on(member).plan.baselines())
            count += 0 if both is None else self.compared(both.plan).most(both.plan)
        return count

    # ---- judging --------------------------------------------------------------------------------------------------

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``: of every audit the effect, and whether it was found."""
        both = self.pair(case, member)
        if both is None:
            return {own.SCORE: Single(float(case.clean(member).mean()))}
        findings = self.compared(both.plan).findings(both)
        found = {own.SCORE: Single(float(both.clean(member).mean()))}
        answered = {code: one for code, one in findings.items() if one.status in ANSWERED and one.estimates}
        for code, one in answered.items():
            found[own.found(code)] = Single(float(one.status == "found"))
            if one.estimates[0].value is not None:
                found[code] = own.to_the_grain(single_of(one.estimates[0]), one)
        if not answered:
            raise Unanswered("not_applicable", " ".join(dict.fromkeys(one.because for one in findings.values())))
        found[own.ANY] = Single(float(any(one.status == "found" for one in answered.values())))
        score = answered.get("WT001")
        if score is not None:
            found[own.SAME] = Single(float(any(one.name == SAME_OUTPUTS for one in score.estimates)))
        return found

    def controls(self, case: Case, table: Table) -> list[Control]:
        """See ``Study.controls``."""
        return [own.same_function(table), own.plants_found(table, self.settings.planted)]

    def said(self, case: Case, table: Table, findings: Sequence[Finding]) -> Said:
        """See ``Study.said``."""
        notes = own.notes(table, self.settings.planted, shift=self.settings.shift)
        about = (
            f"Copies of {self.settings.model}."
            if self.settings.model
            else "Copies of nets trained on handwritten digits."
        )
        return Said(
            headline=own.headline(self.rules(), findings, table), about=about, notes=notes, caveats=self.caveats
        )
