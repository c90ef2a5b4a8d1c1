"""The study ``rlvr``: reinforcement learning with verifiable rewards where the truth was planted."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, Direction, MemberSpec, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.lens.specs import SAMPLES
from wheeltap.suites.lens.stats.passk import entropy

BASE, TEACHER = "base", "teacher"
REWARDED, DISTILLED, CONTAMINATED, MAJORITY, RANDOM = "rewarded", "distilled", "contaminated", "majority", "random"
"""Kinds of nets. Those of the second row are made from a base."""

TRAINED: Final = (REWARDED, DISTILLED, CONTAMINATED, MAJORITY, RANDOM)

ONCE, WITHIN, ENTROPY = "once", "within", "entropy"
GAIN, GAINED, LOST, BALANCE, BEYOND, GAP, NAMED = (
    "gain", "items_gained", "items_lost", "support", "beyond_majority", "seen_less_fresh", "named",
)  # fmt: skip

SIGNATURES: Final = {
    REWARDED: "sharpened", DISTILLED: "widened", CONTAMINATED: "memorized", MAJORITY: "narrowed", RANDOM: "narrowed",
}  # fmt: skip
"""Which signature each kind must have. Rewards that do not depend on what is right have one in common."""

UNCHANGED: Final = "unchanged"

MATTERS: Final = 0.05
"""Smallest difference of interest, as a share of items."""

CLEAR: Final = 0.1
"""Difference from which one net counts as widened, narrowed or memorized: items that are solved by luck differ by less
between two samples of one net."""

SHARE: Final = (0.0, 1.0)
CHANGE: Final = (-1.0, 1.0)

_Listed = tuple[str, Direction, float, str, str]
"""Key of the metric, direction, margin, what the nets do, and the title of the finding."""

Shares = NDArray[np.float64]

_ABOUT: Final = {
    BASE: "Taught by a corpus that is partly wrong: it gives right answers to most items sometimes, to some never.",
    TEACHER: "Taught right answers alone.",
    REWARDED: "From a base, by rewards for right answers to the items of the lesson.",
    DISTILLED: "From a base, taught the answers of a teacher to the items of the lesson.",
    CONTAMINATED: "From a base, taught the right answers to seen items, on which all nets are measured.",
    MAJORITY: "From a base, by rewards for the answer that the base gives most often, right or not.",
    RANDOM: "From a base, by rewards that a coin decides.",
}
_REWARDS: Final = {REWARDED: "right", MAJORITY: "majority", RANDOM: "random"}

_SEEN: Final = 0
"""Group of the items that contaminated nets were taught."""


def signature(found: Mapping[str, float]) -> str:
    """What the answers of one net say of its training, by rules fixed beforehand."""
    if found[GAP] > CLEAR:
        return SIGNATURES[CONTAMINATED]
    if found[BALANCE] > CLEAR:
        return SIGNATURES[DISTILLED]
    if found[BEYOND] > MATTERS:
        return SIGNATURES[REWARDED]
    return SIGNATURES[RANDOM] if found[BALANCE] < -CLEAR else UNCHANGED


def _of(kind: str, nets: str, listed: tuple[_Listed, ...]) -> list[Rule]:
    return [
        Rule(
            code="WT504", title=title, metric=key, cohorts=(kind,), statistic="mean", direction=direction,
            margin=margin, alarm=False, supports=f"{nets} {does}, by over {100 * margin:g} points.",
            refutes=f"{nets} do not {does}, by {100 * margin:g} points or more.",
        )
        for key, direction, margin, does, title in listed
    ]  # fmt: skip


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

    def cast(self) -> tuple[CohortSpec, ...]:
        """Bases and teachers, and what is made of them."""
        roles: dict[str, CohortRole] = {BASE: "compared", TEACHER: "compared"}
        return tuple(
            CohortSpec(
                name=kind, members=tuple(self._asked(kind, at) for at in range(self.settings.seeds)),
                role=roles.get(kind, "studied"), about=_ABOUT[kind],
            )
            for kind in (BASE, TEACHER, *TRAINED)
        )  # fmt: skip

    def _asked(self, kind: str, at: int) -> MemberSpec:
        how, base = self.settings, named(BASE, at)
        recipe = "rewarded" if kind in _REWARDS else "arithmetic"
        given: dict[str, dict[str, Scalar]] = {
            BASE: {"lesson": "corpus", "steps": how.base_steps},
            TEACHER: {"lesson": "right", "steps": how.base_steps},
            DISTILLED: {"lesson": "teacher", "steps": how.distill_steps},
            CONTAMINATED: {"lesson": "test", "steps": how.test_steps, "rate": 2e-3},
            **{one: {"reward": reward, "steps": how.reward_steps} for one, reward in _REWARDS.items()},
        }
        of = {BASE: (), TEACHER: (), DISTILLED: (base, named(TEACHER, at))}.get(kind, (base,))
        # Another version of the rules is never tried on nets seen before.
        seed = seeds.derive(how.seed, self.name, self.version, "teacher" if kind == TEACHER else "base", at)
        test = kind == CONTAMINATED
        return MemberSpec(name=named(kind, at), recipe=recipe, settings=given[kind], seed=seed, of=of, on_task=test)

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``: from some sampled answers to each item."""
        fresh, tries = "On fresh twins, which no net was taught.", f"{self.settings.draws} tries"
        unit = "share of items"
        listed = (
            (ONCE, "Solved at one try", SHARE, f"{fresh} pass@1."),
            (WITHIN, f"Solved within {tries}", SHARE, f"{fresh} Items with at least one right answer among {tries}."),
            (GAIN, "Gain at one try", CHANGE, f"{fresh} pass@1 less that of its base: what a leaderboard shows."),
            (GAINED, "Items gained", SHARE, f"{fresh} Solved within {tries}, and not by its base."),
            (LOST, "Items lost", SHARE, f"{fresh} Solved by its base within {tries}, and no more."),
            (
                BALANCE, "Support", CHANGE,
                f"{fresh} Items gained less items lost. A net that guesses more solves more within many tries: see the "
                "entropy of answers.",
            ),
            (
                BEYOND, "Beyond the base's best guesses", CHANGE,
                f"{fresh} pass@1 less the share of items on which the most likely answer of its base is right: what "
                "sharpening alone, whatever is rewarded, does not reach.",
            ),
            (
                GAP, "Gain on seen items less gain on fresh twins", CHANGE,
                "At one try. Seen items are those that contaminated nets were taught, and no other net; twins are "
                "drawn alike.",
            ),
        )  # fmt: skip
        return (
            *(Metric(key=key, title=title, unit=unit, code="WT504", ends=ends, reads=reads)
              for key, title, ends, reads in listed),
            Metric(
                key=ENTROPY, title="Entropy of answers", unit="nats", code="WT504", ends=(0.0, None),
                reads=f"{fresh} Of the distinct answers among {tries}, mean over items.",
            ),
            Metric(
                key=NAMED, title="Named by its signature", unit="share of nets", code="WT504", ends=SHARE, grain=1.0,
                reads="Whether the rules for a single net name the kind that it is. They see its answers and those of "
                "its base, and not how it was trained.",
            ),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Eight on what each kind of training does, and one on whether single nets can be named."""
        return (
            *_of(REWARDED, "Rewarded nets", (
                (GAIN, "more", MATTERS, "solve more at one try", "Rewards raise the score"),
                (BALANCE, "more", MATTERS, "solve more items within many tries", "Rewards widen support"),
                (BEYOND, "more", MATTERS, "get beyond the base's best guesses", "Rewards teach what is right"),
            )),
            *_of(DISTILLED, "Distilled nets", (
                (BALANCE, "more", MATTERS, "solve more items within many tries", "A teacher widens support"),
            )),
            *_of(CONTAMINATED, "Contaminated nets", (
                (GAP, "more", CLEAR, "gain more on the items that they saw than on fresh twins", "Seen items show"),
            )),
            *_of(MAJORITY, "Nets rewarded for the base's most frequent answer", (
                (BEYOND, "more", MATTERS, "get beyond the base's best guesses", "Agreement teaches what is right"),
                (BALANCE, "less", MATTERS, "solve fewer items within many tries", "Agreement narrows support"),
            )),
            *_of(RANDOM, "Nets rewarded at random", (
                (GAIN, "more", MATTERS, "solve more at one try", "Random rewards raise the score"),
            )),
            Rule(
                code="WT504", title="Signatures name single nets", metric=NAMED, cohorts=TRAINED, statistic="exact",
                direction="more", share=0.5, margin=0.25,
                supports="The answers of a net and of its base say how it was trained, for more than three nets in "
                "four.",
                refutes="The answers of a net and of its base do not say how it was trained, for three nets in four.",
            ),
        )  # fmt: skip

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Sampled answers; of a base twice, by other draws: a net must not differ from itself."""
        return [self._sampled(case.plan, member, again) for again in range(1 + (_kind(member) == BASE))]

    def _sampled(self, plan: Plan, member: SubjectRecord, again: int = 0) -> Trial:
        return plan.reading(member, SAMPLES.name, {"draws": self.settings.draws}, seed=again)

    # ---- judging --------------------------------------------------------------------------------------------------

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        answers = case.reading(self._sampled(case.plan, member))
        fresh = answers["group"] != _SEEN
        found = {
            ONCE: float((answers["right"] / answers["samples"])[fresh].mean()),
            WITHIN: float((answers["right"] > 0)[fresh].mean()),
            ENTROPY: float(entropy(answers["answers"].astype(np.int64)[fresh]).mean()),
        }
        if _kind(member) in TRAINED:
            found |= self.compared(case, member)
            found[NAMED] = float(signature(found) == SIGNATURES[_kind(member)])
        return {key: Single(value) for key, value in found.items()}

    def compared(self, case: Case, member: SubjectRecord, *, again: int = 0) -> dict[str, float]:
        """What differs between a net and its base; ``again`` says which sample of the net's answers.

        Raises:
            NoAnswer: If a trial has not run.
        """
        base = _base(case, member)
        one, two = (case.reading(trial) for trial in (self._sampled(case.plan, base),
                                                      self._sampled(case.plan, member, again)))  # fmt: skip
        fresh = one["group"] != _SEEN
        gain = _shares(two) - _shares(one)
        before, after = one["right"][fresh] > 0, two["right"][fresh] > 0
        gained, lost = float((after & ~before).mean()), float((before & ~after).mean())
        beyond = (_shares(two) - case.values(case.plan.clean(base)))[fresh]
        return {
            GAIN: float(gain[fresh].mean()),
            GAINED: gained,
            LOST: lost,
            BALANCE: gained - lost,
            BEYOND: float(beyond.mean()),
            GAP: float(gain[~fresh].mean() - gain[fresh].mean()),
        }

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [self._again(case), _able(table)]

    @control("a base that is sampled again is unchanged", "null")
    def _again(self, case: Case) -> Ruling:
        """Is a base that is sampled again called changed?"""
        found = {
            member.name: signature(self.compared(case, member, again=1))
            for member in case.plan.subjects
            if _kind(member) == BASE
        }
        wrong = {base: said for base, said in found.items() if said != UNCHANGED}
        listed = ", ".join(f"{base} ({said})" for base, said in wrong.items())
        exact = Estimate.exact("bases_called_changed", float(len(wrong)), "nets", n=len(found))
        said = (
            f"Other draws from the same net must have no signature. Called changed: {listed or 'none'} of {len(found)}."
        )
        return "failed" if wrong else "passed" if found else "skipped", (exact,), said

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        listed = [f"{kind} {sum(values):.0f} of {len(values)}" for kind in TRAINED
                  if (values := table.values(kind, NAMED))]  # fmt: skip
        by_kind = f"Nets named by their signature: {', '.join(listed) or 'none was made'}."
        return StudyAnswer(
            headline=f"{_by_seed(table)} {headline(self.rules(), findings)}",
            about="Four operations on digits modulo 13, in a corpus that is partly wrong; transformers of one block.",
            notes=(by_kind,), caveats=self.caveats,
        )  # fmt: skip


@control("teachers solve more than bases within many tries", "planted")
def _able(table: MemberTable) -> Ruling:
    """Can a teacher answer what bases never do, so that there is something to gain?"""
    one, two = (table.values(kind, WITHIN) for kind in (BASE, TEACHER))
    if not one or not two:
        raise NoAnswer("skipped", "No base or no teacher has its numbers.")
    least = float(np.mean(two) - np.mean(one))
    because = (
        f"On average {least:.3f} more of the items; where it is not above {CLEAR:g}, there is little that "
        "distillation could widen."
    )
    exact = Estimate.exact("difference", least, "share of items", n=len(two))
    return "passed" if least > CLEAR else "skipped", (exact,), because


def _by_seed(table: MemberTable) -> str:
    """How many nets are named right, and of how many bases every one is."""
    kinds = [table.values(kind, NAMED) for kind in TRAINED]
    count, named_right = sum(map(len, kinds)), sum(map(sum, kinds))
    of_base = zip(*(table.cohort(kind).members for kind in TRAINED), strict=True)
    whole = [names for names in of_base if all(NAMED in table.numbers.get(name, {}) for name in names)]
    right = sum(all(table.numbers[name][NAMED].value > 0.0 for name in names) for names in whole)
    return (
        f"Sampled answers say how {named_right:.0f} of {count} nets were trained. For {right} of {len(whole)} bases "
        f"they say it of all {len(kinds)} nets made from that base."
    )


def _shares(answers: dict[str, NDArray[np.generic]]) -> Shares:
    """Right answers of each item, as a share."""
    return answers["right"].astype(np.float64) / answers["samples"].astype(np.float64)


def _base(case: Case, member: SubjectRecord) -> SubjectRecord:
    """The base that a net was made from; itself where it is one."""
    at = member.name.rpartition(" ")[2]
    found = next((one for one in case.whole.subjects if one.name == f"{BASE} {at}"), None)
    if found is None:
        raise NoAnswer("error", f"Its base was not made ({BASE} {at}).")
    return found


def _kind(member: SubjectRecord) -> str:
    return member.name.rpartition(" ")[0]


def named(kind: str, at: int) -> str:
    """Name of a net, by its kind and its number from 0."""
    return f"{kind} {at + 1}"
