"""The study ``detection``: of copies that compute the same, does comparing weights find those with a planted defect?

Each copy is compared with the net it was made of, as ``wheeltap compare`` would: by its outputs, by noise on the
inputs and by several disturbances of the weights. What weights add to the other two is what a detector is worth.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Annotated, ClassVar, Final, NamedTuple, final

import msgspec

from wheeltap.audits.base import audits
from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.audits.power import WANTED
from wheeltap.audits.score import SAME_OUTPUTS
from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.plans.defects import DEFECTS, SOUND, USUAL, Defect, names_of
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.plans.readings.input_shift import FITTING, LADDERS
from wheeltap.stats.members import Single, exact
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.measures import ANSWERED, PairMetrics, single_of
from wheeltap.studies.rules import WORST, listed
from wheeltap.studies.table import MemberTable, Numbers

COPIES, BASES = "sound copies", "originals"  # names of cohorts
SCORE, ANY, SAME = "score", "any", "same"  # metrics that are of no single audit
CHEAP: Final = ("WT001", "WT701")  # what costs no look at the weights: outputs, and disturbed inputs
LEAST: Final = 0.02  # smallest gain in AUC of interest
ALARMS: Final = 0.05  # share of sound copies of which something may be found by chance
FEWEST: Final = 12
"""Copies from which it is judged what weights add: with fewer not even a perfect detector would be found."""

SHIFT_PASSES: Final = min(map(len, FITTING.values())) * len(LADDERS["noise"])
"""Passes of one net that a draw of disturbed inputs takes at least: where the inputs are a table."""

_GRAIN: Final = 0.01  # share of the smallest difference of interest to which a difference is rounded


@final
class Plant(NamedTuple):
    """A defect at a strength."""

    defect: str
    strength: float

    def __str__(self) -> str:
        return f"{self.defect} {self.strength:g}"


found_key = "{} found".format
"""Key of the metric that says whether a code was found."""


def to_the_grain(number: Single, finding: Finding) -> Single:
    """A difference without what another order of the same sums makes of it, by which copies differ too."""
    step = _GRAIN * (finding.margin or 0.0)
    return number if step == 0.0 else replace(number, value=step * round(number.value / step))


def headline(planned: Sequence[Rule], findings: Sequence[Finding], table: MemberTable) -> str:
    """Which defects weights show beyond what is cheap, by which audits; and how many sound copies were alarms."""
    said = {(one.code, one.title): one.status for one in findings}
    lines: list[str] = []
    for cohort in dict.fromkeys(rule.cohorts[0] for rule in planned if rule.statistic == "added"):
        mine = [rule for rule in planned if rule.statistic == "added" and rule.cohorts[0] == cohort]
        beside = "outputs and disturbed inputs" if len(mine[0].beyond) > 1 else "outputs"
        shown = [rule.code for rule in mine if said.get((rule.code, rule.title)) == "found"]
        rest = [rule.code for rule in mine if rule.code not in shown]
        lines += [f"{cohort}: {listed(shown)} {'add' if len(shown) > 1 else 'adds'} to {beside}."] if shown else []
        lines += [f"{'No' if shown else f'{cohort}: no'} evidence of added value of {listed(rest)}."] if rest else []
    alarms = table.values(COPIES, ANY)
    if not lines:
        lines = [f"What weights add is judged with {FEWEST} copies or more, and was not."]
    return " ".join([*lines, f"Sound copies distinguished from their originals: {sum(alarms):.0f} of {len(alarms)}."])


@control("every copy computes what its original computes", "gate")
def same_function(table: MemberTable) -> Ruling:
    """Every copy must compute what its original computes, or a difference would be no news."""
    values = [value for cohort in table.cohorts for value in table.values(cohort.name, SAME)]
    if not values:
        raise NoAnswer("skipped", "No copy was compared.")
    other = sum(value == 0.0 for value in values)
    said = f"The outputs of {len(values) - other} of {len(values)} copies differ from the original's by no more than"
    exact = Estimate.exact("copies_that_differ", float(other), "copies", n=len(values))
    return "failed" if other else "passed", (exact,), f"{said} rounding."


@control("a planted defect is found", "planted")
def plants_found(table: MemberTable, planted: Sequence[Plant]) -> Ruling:
    """The strongest plants must be found by something, or nothing can be concluded of weaker ones."""
    strongest = {one.defect: str(one) for one in planted}.values()
    shares = {name: sum(values) / len(values) for name in strongest if (values := table.values(name, ANY))}
    if not shares:
        raise NoAnswer("skipped", "No planted copy was compared.")
    best = max(shares, key=lambda one: shares[one])
    values = table.values(best, ANY)
    share = exact(round(sum(values)), len(values), share=WANTED, name="largest_share_found")
    below = share.above(0.0, "less")
    shown = below is not None and below < WORST
    listed_shares = ", ".join(f"{one} {share:.0%}" for one, share in shares.items())
    because = (
        f"Copies with the strongest plants that were distinguished from the original: {listed_shares}; of one "
        f"defect it should be at least {WANTED:.0%}. It fails where it is shown to be less (p below {WORST:g}); in "
        "between, more draws, more copies or a stronger plant would decide."
    )
    return "passed" if shares[best] >= WANTED else "failed" if shown else "skipped", (share.estimate,), because


def notes(table: MemberTable, planted: Sequence[Plant], *, shift: bool) -> tuple[str, ...]:
    """How often each kind was found, by what; and at what cost."""
    kinds = [*(str(one) for one in planted), COPIES]
    cost = "Disturbed inputs were given at least as many passes as any of the disturbances of weights."
    if not shift:
        cost = "Inputs were not disturbed, so weights are compared with outputs alone."
    elif not any(table.values(kind, CHEAP[1]) for kind in kinds):
        cost = (
            "These inputs could not be disturbed, so it is not known what weights add. With --no-shift they are "
            "compared with outputs alone."
        )
    lines = [cost]
    keys = [metric.key for metric in table.metrics]
    for kind in kinds:
        counts = {code: table.values(kind, found_key(code)) for code in keys if found_key(code) in keys}
        seen = [f"{code} {sum(values):.0f}" for code, values in counts.items() if sum(values)]
        whole = max((len(values) for values in counts.values()), default=0)
        lines.append(f"Found of {whole} {kind}: {listed(seen) if seen else 'none'}.")
    return tuple(lines)


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
                got=self.data, do="Give the model too: --model my_nets:net, say.",
            )  # fmt: skip
        if not names_of(self.defects):
            raise UsageError(
                "There is no defect to detect.", where="study detection: defects", expected=", ".join(DEFECTS),
                got=repr(self.defects),
            )  # fmt: skip

    @property
    def planted(self) -> tuple[Plant, ...]:
        """Every defect at every strength, rising."""
        names = [name for name in names_of(self.defects) if name != SOUND]
        return tuple(Plant(name, strength) for name in names for strength in self._of(DEFECTS[name]))

    @property
    def judged(self) -> tuple[Plant, ...]:
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
    small: ClassVar[dict[str, Scalar]] = {"copies": FEWEST, "defects": "cancel,super-weight"}
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

    def cast(self) -> tuple[CohortSpec, ...]:
        """Planted copies, sound ones, and the nets they are made of."""
        how = self.settings
        bases = (MemberSpec(name=self._base(0), source=how.model),)
        if not how.model:
            bases = tuple(
                MemberSpec(name=self._base(at), recipe="digits", seed=seeds.derive(how.seed, self.name, "net", at))
                for at in range(how.copies)
            )
        about = "What the copies are made of and compared with."
        found = [CohortSpec(name=BASES, members=bases, role="given", about=about)]
        for one in (*how.planted, Plant(SOUND, DEFECTS[SOUND].middle)):
            sound = one.defect == SOUND
            name = COPIES if sound else str(one)
            made = tuple(
                MemberSpec(
                    name=f"{name}, copy {at + 1}", recipe="planted", of=(self._base(at),),
                    settings={"defect": one.defect, "strength": one.strength},
                    seed=seeds.derive(how.seed, self.name, "plant", at),
                )
                for at in range(how.copies)
            )  # fmt: skip
            role = "null" if sound else "planted"
            found.append(CohortSpec(name=name, members=made, role=role, about=DEFECTS[one.defect].title))
        return tuple(found)

    def _base(self, at: int) -> str:
        return "original" if self.settings.model else f"net {at + 1}"

    @cached_property
    def _places(self) -> dict[str, int]:
        """Which copy a member is, from 0; of copies alone."""
        return {one.name: at for cast in self.cast()[1:] for at, one in enumerate(cast.members)}

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``: the score; of each audit the effect, and whether anything was found."""
        names = ("score", *(["input-shift"] if self.settings.shift else []), *_WEIGHED)
        score = Metric(key=SCORE, title="Score", unit="", code="WT001", reads="What a benchmark would print.")
        same = Metric(
            key=SAME, title="Same outputs as the original", unit="share", code="WT001", ends=(0.0, 1.0), toward="high",
            reads="Whether outputs differ by no more than rounding.",
        )  # fmt: skip
        some = Metric(
            key=ANY, title="Distinguished from the original", unit="share", ends=(0.0, 1.0),
            reads="Whether a comparison with the original found anything, after one correction over all its tests.",
        )  # fmt: skip
        found, reads = [score, same, some], "Whether a comparison with the original found a difference."
        for kind in map(audits.get, names):
            title, code = kind.brief or kind.title, kind.code
            found += [
                Metric(key=code, title=f"{title}: difference", unit="", code=code, reads=kind.reads),
                Metric(key=found_key(code), title=f"{title}: found", unit="share", code=code, ends=(0.0, 1.0),
                       reads=reads),
            ]  # fmt: skip
        return tuple(found)

    def rules(self) -> tuple[Rule, ...]:
        """See ``Study.rules``: what weights add for each defect, where there are copies enough; and false alarms."""
        how = self.settings
        alarms = Rule(
            code="WT101", title="False alarms", metric=ANY, cohorts=(COPIES,), statistic="exact", direction="more",
            margin=ALARMS, share=ALARMS, alarm=True,
            supports=f"Sound copies are distinguished from the original more often than in {ALARMS:.0%} of "
            "comparisons.",
            refutes=f"Sound copies are distinguished from the original in no more than {2 * ALARMS:.0%} of "
            "comparisons.",
        )  # fmt: skip
        if how.copies < FEWEST:
            return (alarms,)
        cheap = CHEAP if how.shift else CHEAP[:1]
        beside = "outputs and disturbed inputs" if how.shift else "outputs"
        added = [
            Rule(
                code=code, title=f"{title} shows {one.defect}", metric=code, cohorts=(str(one), COPIES),
                statistic="added", direction="more", margin=LEAST, beyond=cheap, within=True,
                supports=f"{title} shows {DEFECTS[one.defect].title} that {beside} do not.",
                refutes=f"{title} adds nothing to {beside} on {DEFECTS[one.defect].title}: less than {LEAST:g} AUC.",
            )
            for one in how.judged
            for code, title in ((kind.code, kind.brief or kind.title) for kind in map(audits.get, _WEIGHED))
        ]  # fmt: skip
        return (*added, alarms)

    def pair(self, case: Case, member: SubjectRecord) -> Case | None:
        """A copy beside the net it is made of, with draws that no other copy has; ``None`` for such a net."""
        at = self._places.get(member.name)
        if at is None:
            return None
        base = next(one for one in case.whole.subjects if one.name == self._base(at))
        return case.on(base, member, seed=seeds.derive(case.whole.seed, self.name, "draws", at))

    def compared(self, plan: Plan) -> PairMetrics:
        """The audits by which two nets are compared; the inputs are given as many passes as any of the weights."""
        weighed = PairMetrics.usual(_WEIGHED, plan, _SETTINGS)
        most = max(audit.most_passes(plan) for audit in weighed.made())
        draws = math.ceil(most / (SHIFT_PASSES * len(plan.subjects)))
        shift = AuditSpec(name="input-shift", settings={"shift_draws": max(2, draws), "weight_draws": 1})
        return PairMetrics((AuditSpec(name="score"), *([shift] if self.settings.shift else []), *weighed.audits))

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

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``: of every audit the effect, and whether it was found."""
        both = self.pair(case, member)
        if both is None:
            return {SCORE: Single(float(case.clean(member).mean()))}
        findings = self.compared(both.plan).findings(both)
        found = {SCORE: Single(float(both.clean(member).mean()))}
        answered = {code: one for code, one in findings.items() if one.status in ANSWERED and one.estimates}
        for code, one in answered.items():
            found[found_key(code)] = Single(float(one.status == "found"))
            if one.estimates[0].value is not None:
                found[code] = to_the_grain(single_of(one.estimates[0]), one)
        if not answered:
            raise NoAnswer("not_applicable", " ".join(dict.fromkeys(one.because for one in findings.values())))
        found[ANY] = Single(float(any(one.status == "found" for one in answered.values())))
        score = answered.get("WT001")
        if score is not None:
            found[SAME] = Single(float(any(one.name == SAME_OUTPUTS for one in score.estimates)))
        return found

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [same_function(table), plants_found(table, self.settings.planted)]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        said = headline(self.rules(), findings, table)
        lines = notes(table, self.settings.planted, shift=self.settings.shift)
        about = f"Copies of {self.settings.model or 'nets trained on handwritten digits'}."
        return StudyAnswer(headline=said, about=about, notes=lines, caveats=self.caveats)
