"""The study ``rlvr``: reinforcement learning with verifiable rewards in a laboratory where the truth was planted.

What the answers of a net say of its training: more ability, the same with more certainty, a memory of the test, or
rewards that had nothing to do with what is right. After Wu et al. 2025, arXiv:2507.14843 (what rewards do to support);
Yue et al. 2025, arXiv:2504.13837 (sharpened, and distilled); Shao et al. 2025, arXiv:2506.10947 (spurious rewards).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import Unanswered
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import Asked, Cast, CohortRole, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies.base import Said, Study
from wheeltap.studies.rules import headline
from wheeltap.studies.table import Numbers, Table
from wheeltap.suites.lens.specs import SAMPLES
from wheeltap.suites.lens.stats.support import entropy
from wheeltap.suites.lens.studies import rlvr_rules as own

Shares = NDArray[np.float64]

_ABOUT: Final = {
    own.BASE: "Taught by a corpus that is partly wrong: it gives right answers to most items sometimes, to some never.",
    own.TEACHER: "Taught right answers alone.",
    own.REWARDED: "From a base, by rewards for right answers to the items of the lesson.",
    own.DISTILLED: "From a base, taught the answers of a teacher to the items of the lesson.",
    own.CONTAMINATED: "From a base, taught the right answers to seen items, on which all nets are measured.",
    own.MAJORITY: "From a base, by rewards for the answer that the base gives most often, right or not.",
    own.RANDOM: "From a base, by rewards that a coin decides.",
}

_REWARDS: Final = {own.REWARDED: "right", own.MAJORITY: "majority", own.RANDOM: "random"}

_SEEN: Final = 0
"""Group of the items that contaminated nets were taught."""


class RlvrSettings(Settings, frozen=True, kw_only=True):
    """How many nets, and how long they are trained.

    Attributes:
        seeds: Bases; of each, one net of each other kind is made.
        seed: Root of what nets are made from.
        draws: Answers sampled to each item.
        base_steps: Of bases and of teachers.
        reward_steps: Of training by rewards.
        distill_steps: Of distillation.
        test_steps: Of contamination.
    """

    seeds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 24
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    draws: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 16
    base_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 300
    reward_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    distill_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    test_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 60


@final
class Rlvr(Study):
    """Nets made from one base in five ways: do their answers say which?"""

    name = "rlvr"
    title = "Do sampled answers say what training did: ability, sharpening, memory, or nothing?"
    code = "WT504"
    settings_type = RlvrSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 12}
    settings: RlvrSettings
    version: ClassVar[int] = 1
    caveats = (
        "Small nets on modular arithmetic with one answer and no chain of reasoning: nothing is known here of language "
        "models. What a base cannot answer was planted in its corpus.",
        "All nets are measured on the same items; seeds differ in weights, order and sampled answers. Signatures were "
        "chosen for these five kinds: training that mixes them may have another signature, or none.",
        "Fresh twins are known to be drawn as seen items are. Of a public benchmark that is rarely so.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "wheeltap.suites.lens.nets:task"

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[Cast, ...]:
        """Bases and teachers, and what is made of them."""
        roles: dict[str, CohortRole] = {own.BASE: "compared", own.TEACHER: "compared"}
        return tuple(
            Cast(
                name=kind, members=tuple(self._asked(kind, at) for at in range(self.settings.seeds)),
                role=roles.get(kind, "studied"), about=_ABOUT[kind],
            )
            for kind in (own.BASE, own.TEACHER, *own.TRAINED)
        )  # fmt: skip

    def _asked(self, kind: str, at: int) -> Asked:
        how, base = self.settings, named(own.BASE, at)
        recipe = "rewarded" if kind in _REWARDS else "arithmetic"
        given: dict[str, dict[str, Scalar]] = {
            own.BASE: {"lesson": "corpus", "steps": how.base_steps},
            own.TEACHER: {"lesson": "right", "steps": how.base_steps},
            own.DISTILLED: {"lesson": "teacher", "steps": how.distill_steps},
            own.CONTAMINATED: {"lesson": "test", "steps": how.test_steps, "rate": 2e-3},
            **{one: {"reward": reward, "steps": how.reward_steps} for one, reward in _REWARDS.items()},
        }
        of = {own.BASE: (), own.TEACHER: (), own.DISTILLED: (base, named(own.TEACHER, at))}.get(kind, (base,))
        # Another version of the rules is never tried on nets seen before.
        seed = seeds.derive(how.seed, self.name, self.version, "teacher" if kind == own.TEACHER else "base", at)
        test = kind == own.CONTAMINATED
        return Asked(name=named(kind, at), recipe=recipe, settings=given[kind], seed=seed, of=of, on_task=test)

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        return own.metrics(self.settings.draws)

    def rules(self) -> tuple[Rule, ...]:
        """See ``Study.rules``."""
        return own.rules()

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Sampled answers; of a base twice, by other draws: a net must not differ from itself."""
        return [self._sampled(case.plan, member, again) for again in range(1 + (_kind(member) == own.BASE))]

    def _sampled(self, plan: Plan, member: SubjectRecord, again: int = 0) -> Trial:
        return plan.reading(member, SAMPLES.name, {"draws": self.settings.draws}, seed=again)

    # ---- judging --------------------------------------------------------------------------------------------------

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        answers = case.reading(self._sampled(case.plan, member))
        fresh = answers["group"] != _SEEN
        found = {
            own.ONCE: float((answers["right"] / answers["samples"])[fresh].mean()),
            own.WITHIN: float((answers["right"] > 0)[fresh].mean()),
            own.ENTROPY: float(entropy(answers["answers"].astype(np.int64)[fresh]).mean()),
        }
        if _kind(member) in own.TRAINED:
            found |= self.compared(case, member)
            found[own.NAMED] = float(_signature(found) == own.SIGNATURES[_kind(member)])
        return {key: Single(value) for key, value in found.items()}

    def compared(self, case: Case, member: SubjectRecord, *, again: int = 0) -> dict[str, float]:
        """What differs between a net and its base; ``again`` says which sample of the net's answers.

        Raises:
            Unanswered: If a trial has not run.
        """
        base = _base(case, member)
        one, two = (case.reading(trial) for trial in (self._sampled(case.plan, base),
                                                      self._sampled(case.plan, member, again)))  # fmt: skip
        fresh = one["group"] != _SEEN
        gain = _shares(two) - _shares(one)
        before, after = one["right"][fresh] > 0, two["right"][fresh] > 0
        gained, lost = float((after & ~before).mean()), float((before & ~after).mean())
        best = case.values(case.plan.clean(base))
        return {
            own.GAIN: float(gain[fresh].mean()),
            own.GAINED: gained,
            own.LOST: lost,
            own.BALANCE: gained - lost,
            own.BEYOND: float((_shares(two) - best)[fresh].mean()),
            own.GAP: float(gain[~fresh].mean() - gain[fresh].mean()),
        }

    def controls(self, case: Case, table: Table) -> list[Control]:
        """See ``Study.controls``."""
        return [self._again(case), _able(table)]

    def _again(self, case: Case) -> Control:
        """Is a base that is sampled again called changed?"""
        name, found = "a base that is sampled again is unchanged", dict[str, str]()
        for member in case.plan.subjects:
            if _kind(member) == own.BASE:
                try:
                    found[member.name] = _signature(self.compared(case, member, again=1))
                except Unanswered as gap:
                    return Control(name=name, kind="null", status="skipped", because=gap.because)
        wrong = {base: said for base, said in found.items() if said != own.UNCHANGED}
        listed = ", ".join(f"{base} ({said})" for base, said in wrong.items())
        return Control(
            name=name, kind="null", status="failed" if wrong else "passed" if found else "skipped",
            estimates=(Estimate.exact("bases_called_changed", float(len(wrong)), "nets", n=len(found)),),
            because=f"Other draws from the same net must have no signature. Called changed: {listed or 'none'} of "
            f"{len(found)}.",
        )  # fmt: skip

    def said(self, case: Case, table: Table, findings: Sequence[Finding]) -> Said:
        """See ``Study.said``."""
        return Said(
            headline=f"{_by_seed(table)} {headline(self.rules(), findings)}",
            about="Four operations on digits modulo 13, in a corpus that is partly wrong; transformers of one block.",
            notes=(_by_kind(table),), caveats=self.caveats,
        )  # fmt: skip


def _able(table: Table) -> Control:
    """Can a teacher answer what bases never do, so that there is something to gain?"""
    name = "teachers solve more than bases within many tries"
    one, two = (table.values(kind, own.WITHIN) for kind in (own.BASE, own.TEACHER))
    if not one or not two:
        return Control(name=name, kind="planted", status="skipped", because="No base or no teacher has its numbers.")
    least = float(np.mean(two) - np.mean(one))
    return Control(
        name=name, kind="planted", status="passed" if least > own.CLEAR else "skipped",
        estimates=(Estimate.exact("difference", least, "share of items", n=len(two)),),
        because=f"On average {least:.3f} more of the items; where it is not above {own.CLEAR:g}, there is little that "
        "distillation could widen.",
    )  # fmt: skip


def _by_kind(table: Table) -> str:
    listed = [
        f"{kind} {sum(values):.0f} of {len(values)}"
        for kind in own.TRAINED
        if (values := table.values(kind, own.NAMED))
    ]
    return f"Nets named by their signature: {', '.join(listed) or 'none was made'}."


def _by_seed(table: Table) -> str:
    """How many nets are named right, and of how many bases every one is."""
    kinds = [table.values(kind, own.NAMED) for kind in own.TRAINED]
    count, named_right = sum(map(len, kinds)), sum(map(sum, kinds))
    of_base = zip(*(table.cohort(kind).members for kind in own.TRAINED), strict=True)
    whole = [names for names in of_base if all(own.NAMED in table.numbers.get(name, {}) for name in names)]
    right = sum(all(table.numbers[name][own.NAMED].value > 0.0 for name in names) for names in whole)
    return (
        f"Sampled answers say how {named_right:.0f} of {count} nets were trained. For {right} of {len(whole)} bases "
        f"they say it of all {len(kinds)} nets made from that base."
    )


def _signature(found: dict[str, float]) -> str:
    return own.signature(gap=found[own.GAP], balance=found[own.BALANCE], beyond=found[own.BEYOND])


def _shares(answers: dict[str, NDArray[np.generic]]) -> Shares:
    """Right answers of each item, as a share."""
    return answers["right"].astype(np.float64) / answers["samples"].astype(np.float64)


def _base(case: Case, member: SubjectRecord) -> SubjectRecord:
    """The base that a net was made from; itself where it is one.

    Raises:
        Unanswered: If that was not made.
    """
    at = member.name.rpartition(" ")[2]
    found = next((one for one in case.whole.subjects if one.name == f"{own.BASE} {at}"), None)
    if found is None:
        raise Unanswered("error", f"Its base was not made ({own.BASE} {at}).")
    return found


def _kind(member: SubjectRecord) -> str:
    return member.name.rpartition(" ")[0]


def named(kind: str, at: int) -> str:
    """Name of a net, by its kind and its number from 0."""
    return f"{kind} {at + 1}"
