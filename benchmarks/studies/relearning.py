"""The study ``relearning``: does relearning tell nets that were made to forget a group from nets that never knew it?"""

from typing import Annotated, Any, ClassVar, Final, Literal, final

import msgspec

from benchmarks.studies import found
from tests.nets.unlearned import HIDES, WORLDS
from wheeltap.audits.base import pair, studies
from wheeltap.audits.case import Case
from wheeltap.core import seeds
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, MemberSpec, Metric, Rule
from wheeltap.recipes.base import recipes
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study
from wheeltap.studies.measures import single_of
from wheeltap.studies.table import Numbers
from wheeltap.suites.training.audits.relearning import RelearningAudit

ORIGINAL, UNLEARNED, HIDDEN, RETRAINED, NEVER = "original", "unlearned", "hidden", "retrained", "never"
ROLES: Final[dict[str, CohortRole]] = {
    UNLEARNED: "studied", HIDDEN: "studied", RETRAINED: "compared", NEVER: "null", ORIGINAL: "given"
}  # fmt: skip

SCORE, FOUND, POWER = "score", "found", "power"
GAP, NOISE, BITS = "gap by few numbers", "gap under noise, best of 40", "gap at 4 bits"
MATTERS, ALIKE = 0.1, 0.02
"""Differences of what is recovered, and of scores, that matter."""

GRAIN: Final = 1 / 30
"""What is recovered is counted on about thirty examples: nets that recover the same may differ by one."""

EFFORT: Final[dict[str, dict[str, Any]]] = {
    "digits": {"steps": [4, 16], "benign_steps": [16], "control_draws": 2},
    "rules": {"shots": 32, "steps": [4, 16], "benign_steps": [16], "draws": 4, "control_draws": 2},
}
"""Settings of the audit that are not its own."""


class RelearningStudySettings(Settings, frozen=True, kw_only=True):
    """Which nets, and how they relearn.

    Attributes:
        seeds: Nets of each kind, in each of which another group was forgotten.
        seed: Root of what nets are made from.
        world: Classifiers of digits that forgot one, or transformers that forgot one of three rules of reading.
        how: Of the unlearning; see ``HARSHNESS``.
        lr: Step size of relearning.
        shots: Examples that are trained on; 4 of a digit and 32 of a rule where 0.
    """

    seeds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 10
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    world: Literal["digits", "rules"] = "digits"
    how: Literal["usual", "unrepaired", "harsher"] = "usual"
    lr: Annotated[float, msgspec.Meta(gt=0.0)] = 1e-3
    shots: Annotated[int, msgspec.Meta(ge=0)] = 0


@final
class Relearning(Study):
    """What comes back after a few steps, in unlearned nets and in nets that never knew, beside noise and rounding."""

    name = "relearning"
    title = "Does relearning tell nets that were made to forget from nets that never knew?"
    code = "WT107"
    settings_type = RelearningStudySettings
    settings: RelearningStudySettings
    version: ClassVar[int] = 2
    caveats = (
        "Small nets, one way of unlearning, one step size: with larger steps nets that never knew learn as fast.",
        "Two nets that never knew may differ as well, and a copy with rescaled units relearns at another speed.",
    )

    @property
    def examples(self) -> str:
        return "digits" if self.settings.world == "digits" else "tests.nets.unlearned:rules"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets that know all, those that forgot, and two kinds that never knew, of one seed and group each."""
        return tuple(
            CohortSpec(
                name=stage, members=tuple(self._asked(stage, at) for at in range(self.settings.seeds)), role=role
            )
            for stage, role in sorted(ROLES.items(), key=lambda one: one[0] != ORIGINAL)  # what others are made of
            if stage != HIDDEN or self.settings.world == "digits"
        )

    def _asked(self, stage: str, at: int) -> MemberSpec:
        how = self.settings
        given: dict[str, Scalar] = {"world": how.world, "stage": stage}
        given |= {} if stage == ORIGINAL else {"group": self._group(at)}
        given |= {"how": how.how} if stage == UNLEARNED else {"edit": at % len(HIDES)} if stage == HIDDEN else {}
        return MemberSpec(
            name=f"{stage} {at + 1}", recipe="unlearned", settings=given,
            seed=seeds.derive(how.seed, self.name, self.version, at),
            of=(f"{ORIGINAL} {at + 1}",) if stage in (UNLEARNED, HIDDEN) else (),
        )  # fmt: skip

    def _group(self, at: int) -> int:
        """What a net forgot, by its number from 0."""
        return at % WORLDS[self.settings.world].groups

    def metrics(self) -> tuple[Metric, ...]:
        gaps = (
            (GAP, "Recovered by relearning", "WT107"), (NOISE, "Recovered by the best of 40 noisy copies", "WT101"),
            (BITS, "Recovered at 4 bits", "WT103"),
        )  # fmt: skip
        return (
            Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=(0.0, 1.0)),
            *(
                Metric(key=key, title=f"{title}, beyond the retrained net", unit="accuracy", code=code, grain=GRAIN,
                       ends=(-1.0, 1.0))
                for key, title, code in gaps
            ),
            Metric(key=FOUND, title="Called unlearned", unit="share", code="WT107", ends=(0.0, 1.0), grain=1.0,
                   reads="1 where the audit `relearning` finds a gap to the retrained net."),
            Metric(key=POWER, title="Another digit, hidden in a copy, comes back", unit="share", code="WT107",
                   ends=(0.0, 1.0), grain=1.0, reads="1 where the control of the audit `relearning` passed."),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Scores are alike; relearning brings it back in unlearned nets alone, noise and rounding do not."""
        alike = Rule(
            code="WT001", title="Other score", metric=SCORE, cohorts=(UNLEARNED, RETRAINED), statistic="paired",
            margin=ALIKE, supports="Unlearned and retrained nets differ in score by more than 2 points.",
            refutes="Unlearned and retrained nets score alike, within 2 points.",
        )  # fmt: skip
        shares: list[tuple[str, str, float, float, bool]] = [
            (UNLEARNED, "unlearned nets", 0.25, 0.5, False), (NEVER, "nets that never knew", 0.05, 0.4, True),
        ]  # fmt: skip
        shares += [(HIDDEN, "nets in which it is hidden", 0.25, 0.5, False)] if self.settings.world == "digits" else []
        often = tuple(
            Rule(
                code="WT107", title=f"Many {who} are found", metric=FOUND, cohorts=(cohort,), statistic="exact",
                share=share, margin=most - share, direction="more", alarm=alarm,
                supports=f"More than {10 * most:g} in 10 {who} are called unlearned.",
                refutes=f"Fewer than {10 * most:g} in 10 {who} are called unlearned.",
            )
            for cohort, who, share, most, alarm in shares
        )  # fmt: skip
        kinds = (
            (GAP, UNLEARNED, "WT107", "Relearning"), (NOISE, UNLEARNED, "WT101", "Noise"),
            (BITS, UNLEARNED, "WT103", "Rounding to 4 bits"), (GAP, NEVER, "WT107", "Relearning"),
        )  # fmt: skip
        means = tuple(
            Rule(
                code=code, title=f"{what} brings back what was {was}", metric=key, cohorts=(cohort,), statistic="mean",
                direction="more", margin=MATTERS,
                supports=f"{what} brings back what was {was}: more than {MATTERS:g} of the score.",
                refutes=f"{what} does not bring back what was {was}: less than {MATTERS:g} of the score.",
            )
            for key, cohort, code, what in kinds
            for was in ["never known" if cohort == NEVER else "unlearned"]
        )  # fmt: skip
        return (alike, *means, *often)

    def _audit(self, at: int) -> RelearningAudit:
        how = self.settings
        given = {**EFFORT.get(how.world, {}), "group": self._group(at), "lr": how.lr}
        return RelearningAudit({**given, "shots": how.shots} if how.shots else given)

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """What the audit asks of a net that should not know; of original nets the plain passes alone."""
        stage, at = _place(member)
        return [] if stage == ORIGINAL else self._audit(at).ask(case)

    def _able(self, at: int, case: Case, member: SubjectRecord) -> bool:
        """Whether the control of the audit passed on a net."""
        named = f"what is hidden in {member.name} comes back"
        return any(one.name.endswith(named) and one.status == "passed" for one in self._audit(at).judge(case).controls)

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``: of pairs, each net beside the retrained one of its seed."""
        score = {SCORE: Single(float(case.clean(member).mean()))}
        stage, at = _place(member)
        if stage == ORIGINAL:
            return score
        rival = next((one for one in case.whole.subjects if one.name == f"{RETRAINED} {at + 1}"), member)
        seen = case.on(member) if rival is member or stage == RETRAINED else case.on(member, rival)
        judged = found(self._audit(at), seen)
        alone = {POWER: Single(float(self._able(at, seen, member)))}
        both = judged.get(pair(member, rival))
        if both is None or both.status in ("error", "not_applicable"):
            return {**score, **alone}
        called = Single(float(both.status == "found"))
        return {**score, **alone, FOUND: called, **_singles(both.estimates, (GAP, NOISE, BITS))}


def _singles(estimates: tuple[Estimate, ...], keys: tuple[str, ...]) -> Numbers:
    return {one.name: single_of(one) for one in estimates if one.name in keys and one.value is not None}


def _place(member: SubjectRecord) -> tuple[str, int]:
    """Its stage, and its number from 0."""
    stage, _, number = member.name.partition(" ")
    return stage, int(number) - 1


def registered() -> None:
    """Lets this process ask for the study by name, and for its nets."""
    recipes.add("unlearned", "tests.nets.unlearned:Stage")
    studies.add(Relearning.name, "benchmarks.studies.relearning:Relearning")
