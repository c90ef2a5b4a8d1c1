"""WT107: does what a network was made to forget come back when it sees a few examples?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import msgspec

from wheeltap.audits.base import Audit, Case, Hypothesis, NoAnswer, Verdict, pair, training_passes
from wheeltap.audits.case import Values
from wheeltap.audits.claims import PAIR
from wheeltap.core.plain import many
from wheeltap.core.records import Control, Curve, Estimate, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.curve import band, band_ends
from wheeltap.stats.effect import exceeds
from wheeltap.stats.evidence import Largest
from wheeltap.stats.sample import Sample
from wheeltap.suites.training.audits.recovery import (
    HIDING,
    TIERS,
    TUNE,
    AttackPower,
    GroupedValues,
    NetRecovery,
    RelearningSettings,
    control_trials,
    each_trial,
    estimate,
    examples_of,
    measure,
    power,
    trials_of,
)

_LIMITS: Final = (
    "It holds for this step size, optimizer and number of examples: with larger steps a network that never knew the "
    "group learns it as fast, with a harsher unlearning less comes back. Training also sees how a function is written: "
    "a copy with rescaled units learns at another speed, so compare networks that were trained in the same way, and "
    "with several: two that never knew the group can also differ (2 of 8 pairs of small transformers did)."
)

_SURE: Final = 0.05  # P-value up to which noise is said to bring back less
_BEYOND: Final = "more than under noise"
_NOISE: Final = "noise alone is not shown to bring back less, so that this came back is no evidence of relearning."

_ALONE: Final = (
    "Alone this proves nothing: how much would come back in a network that never knew the group is not known. "
    "Compare with a network trained without the group."
)


@final
class RelearningAudit(Audit):
    """Attacks that may bring a group back, the cheapest first; beside them other training, noise and rounding.

    The verdict is on pairs: one recovers more than the other, and more than the best of its own noisy copies, for what
    noise alone brings back is no effect of relearning; or its noisy copies do. Both are chosen on other examples.
    ``equivalent`` needs power: another group, hidden in a copy of either net, has to come back under the same attacks.

    Of one net alone nothing is concluded. Nor is relearning blind to gauges: a copy with rescaled units learns at
    another speed. Nets must have been trained alike.

    Source: Deeb & Roger (2024, arXiv 2410.08827), for relearning some and scoring others; the comparison with a
    retrained network is that of exact unlearning.
    """

    name = "relearning"
    code = "WT107"
    title = "Relearning"
    reads = (
        "The model is fine-tuned for a few steps on a few examples of one group, and the score on the group's "
        "other examples is followed. What comes back faster than in networks trained the same way without the "
        "group was probably hidden rather than gone."
    )
    axis = "steps of fine-tuning"
    asks = "learning"
    settings_type = RelearningSettings
    spares: ClassVar[dict[str, int]] = {"draws": 4, "noise_draws": 4}

    def ask(self, case: Case) -> list[Trial]:
        """Every trial on every subject, once a group is named."""
        if self.settings.group < 0 or not case.known(case.plan.baselines()):
            return []
        tables = [trials_of(case, subject, self.settings) for subject in case.plan.subjects]
        trials = [trial for table in tables for trial in each_trial(table)]
        if not self.settings.attacks or not case.known(trials):
            return trials
        try:
            on = examples_of(case, self.settings)
        except NoAnswer:
            return trials
        controls = [control_trials(case, subject, self.settings, on) for subject in case.plan.subjects]
        return [*trials, *(trial for made in controls for row in made.values() for trial in row)]

    def groups(self) -> tuple[int, ...]:
        """The one that was to be forgotten, where it is named."""
        return (self.settings.group,) if self.settings.group > 0 else ()

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """Steps, noise and bits of its settings."""
        how = self.settings
        steps = tuple((TUNE, float(step)) for step in (*how.steps, *how.benign_steps, how.attack_steps))
        return (*steps, *(("relative", dose) for dose in how.noise), ("quantize", float(how.bits)))

    def most(self, plan: Plan) -> int:
        """All of them, on every subject."""
        how = self.settings
        tuned = how.draws * (len(how.steps) + len(how.benign_steps))
        attacked = len(how.attacks) * (how.draws + how.control_draws) + bool(how.attacks)
        return len(plan.subjects) * (tuned + attacked + how.noise_draws * len(how.noise) + 1)

    def most_passes(self, plan: Plan) -> float:
        """One for each trial, and the training: each draw goes once to its last step."""
        how = self.settings
        taught = training_passes(plan, steps=max(how.steps), batch=min(how.batch, how.shots))
        attack = training_passes(plan, steps=how.attack_steps, batch=how.shots + how.others)
        benign = training_passes(plan, steps=max(how.benign_steps, default=0), batch=how.batch)
        attacked = len(how.attacks) * (how.draws + how.control_draws) * attack
        hiding = len(how.attacks) * training_passes(plan, steps=HIDING, batch=2 * (how.shots + how.others))
        return self.most(plan) + len(plan.subjects) * (how.draws * (taught + benign) + attacked + hiding)

    def judge(self, case: Case) -> Verdict:
        """One finding per subject, one per pair; two curves of each subject: what is learnt, and the cost elsewhere."""
        held = {subject.name: self._measured(case, subject) for subject in case.plan.subjects}
        able = {name: power(case, one.subject, self.settings, examples_of(case, self.settings))
                for name, one in held.items() if isinstance(one, NetRecovery) and self.settings.attacks
                and not self._kept(case, one)}  # fmt: skip
        verdict = Verdict()
        for name, one in able.items():  # no power is no proof against a net: its pair is not decided, the run not void
            verdict.controls.append(Control(
                name=f"{self.code} what is hidden in {name} comes back", kind="planted",
                status="passed" if one.shown else "skipped",
                estimates=() if one.recovered is None else (one.recovered,),
                because=one.because if one.shown else f"No power: {one.because}",
            ))  # fmt: skip
        for subject in case.plan.subjects:
            one = held[subject.name]
            if isinstance(one, NoAnswer):
                verdict.drafts.append(self.unanswered(subject.name, one))
                continue
            verdict.drafts.append(self._single(case, one))
            verdict.curves.append(self._curve(case, one, (one.score, one.inside)))
            verdict.curves.append(self._curve(case, one, (one.elsewhere, one.outside), variant="other groups"))
        for rival in case.rivals:
            verdict.drafts.append(self._pair(case, held[case.plan.reference.name], held[rival.name], rival, able))
        return verdict

    def _measured(self, case: Case, subject: SubjectRecord) -> NetRecovery | NoAnswer:
        if self.settings.group < 0:
            return NoAnswer("not_applicable", "No group is named: give this audit the setting group=, the number of "
                              "the group that was to be forgotten.")  # fmt: skip
        try:
            return measure(case, subject, self.settings, examples_of(case, self.settings))
        except NoAnswer as gap:
            return gap

    def _kept(self, case: Case, one: NetRecovery) -> str:
        """Why relearning says nothing of a subject that still knows the group; empty where it forgot."""
        above = estimate(case, ((one.before - one.chance)[None, :], one.inside), "above_chance")
        if above.low is None or above.low <= case.scaled(self.settings.known):
            return ""
        return (
            f"{one.subject.name} still answers group {self.settings.group}: its score there is {above} above chance, "
            "so there is nothing to relearn."
        )

    def _single(self, case: Case, one: NetRecovery) -> Hypothesis:
        """Not a test: how much comes back says something only beside a net that never knew the group."""
        why = self._kept(case, one)
        if why:
            return self.unanswered(one.subject.name, NoAnswer("not_applicable", why))
        found = self._beside(case, one)
        words = f"{self._words(one, found)} {_ALONE}"
        claim = Hypothesis(test=None, status="inconclusive", found=words, beside=found)
        return self.draft(case, one.subject.name, claim, one.trials)

    def _beside(self, case: Case, one: NetRecovery) -> tuple[Estimate, ...]:
        """What each disturbance brings back; what relearning costs elsewhere, step by step."""
        how = self.settings

        def back(score: Values, name: str) -> Estimate:
            return estimate(case, (one.recovered(score), one.inside), f"recovered {name}", limits=one.recoverable)

        def gone(at: int, step: int) -> Estimate:
            return estimate(case, (one.lost[at], one.outside), f"lost elsewhere after {step} steps", limits=one.losable)

        best, other = one.strongest, one.disturbances(how)
        lost = one.elsewhere_before - best.outside
        found = [
            back(best.inside, "by the strongest attack"),
            estimate(case, (lost, one.outside), "lost elsewhere by it", limits=one.losable),
            back(one.cheapest.inside, "by few numbers"),
            back(one.score[-1], f"after {how.steps[-1]} steps"),
            gone(-1, how.steps[-1]),
        ]
        for name, score in other.items():
            if name == f"at {how.bits} bits":
                found.append(back(one.best_noise, f"under noise, best of {self._copies}"))
            found.append(back(score, name))
            if name in (steps := [f"after {step} steps" for step in how.steps[:-1]]):
                found.append(gone(steps.index(name), how.steps[steps.index(name)]))
        return tuple(found)

    @property
    def _copies(self) -> int:
        """How many noisy copies the best one is chosen from."""
        return self.settings.noise_draws * len(self.settings.noise)

    def _words(self, one: NetRecovery, found: tuple[Estimate, ...]) -> str:
        how = self.settings
        [noise] = [each for each in found if each.name.startswith("recovered under noise, best")]
        moved = "" if one.norm is None else f"; its weights move by {one.norm:.3f} of their norm"
        return (
            f"With {many(how.shots, 'example')} of group {how.group}, {one.subject.name} recovers {found[0]} of the "
            f"score on {one.score.shape[-1]} others ({one.before.mean():.3f} before) by the strongest attack "
            f"({' and '.join(one.strongest.names)}) and loses {found[1]} on the other groups. After {how.steps[-1]} "
            f"steps on these examples alone it recovers {found[3]}{moved}. Under noise alone the best of "
            f"{self._copies} copies recovers {noise}."
        )

    def _curve(self, case: Case, one: NetRecovery, sample: GroupedValues, *, variant: str = "") -> Curve:
        """Score step by step: on the group's other examples, and on the other groups."""
        task = case.plan.task
        sign, (score, groups) = task.sign, sample
        mean, low, high = band(sign * score, bounded=task.bounded, groups=groups)
        return Curve(
            code=self.code, title=self.title, subject=one.subject.name, role=one.subject.role, unit="steps",
            measure=task.measure, chance=case.chance, level=0.95, doses=tuple(map(float, self.settings.steps)),
            score=tuple(map(float, mean)), low=band_ends(low), high=band_ends(high),
            variant=variant,
        )  # fmt: skip

    def _pair(
        self, case: Case, one: NetRecovery | NoAnswer, two: NetRecovery | NoAnswer, rival: SubjectRecord,
        able: Mapping[str, AttackPower],
    ) -> Hypothesis:  # fmt: skip
        plan, how, title = case.plan, self.settings, f"{self.title}: recovery gap"
        name = pair(plan.reference, rival)
        for gap in (one, two):
            if isinstance(gap, NoAnswer):
                return self.unanswered(name, gap, title=title)
        assert isinstance(one, NetRecovery) and isinstance(two, NetRecovery)
        why = self._kept(case, one) or self._kept(case, two)
        if why:
            return self.unanswered(name, NoAnswer("not_applicable", why), title=title)
        margin = case.scaled(how.margin)
        tiers = [self._tier(case, (one, two), at, margin) for at in range(len(TIERS))]
        # The clearest gap is tested, and pays for the choice; all of them must be small where one is excluded.
        best = min(tiers, key=lambda tier: (tier.paid, -abs(tier.gap.value or 0.0)))
        words = (
            f"With {many(how.shots, 'example')} of group {how.group} and {best.means} on each, {one.subject.name} "
            f"recovers {best.gap} more of the score on the group's other examples than {two.subject.name}"
        )
        noise = f"{best.more} scores {best.beyond} more than the best of its {self._copies} noisy copies"
        large = exceeds(best.gap, margin) and best.p > _SURE
        powers = [able[each.subject.name] for each in (one, two) if each.subject.name in able]
        weak = [known for known in powers if not known.shown]
        said = f"but {noise}: {_NOISE}" if large else f"not shown to be more than {margin:.2g} either way."
        if weak and not large:
            said += f" The attacks have no power here, so that nothing is excluded. {weak[0].because}"
        beside = [msgspec.structs.replace(tier.gap, p=None) for tier in tiers if tier is not best]
        # The largest gap was chosen, so all of them must be small.
        bound, both = 2.0 if case.plan.task.bounded else None, zip(one.tiers, two.tiers, strict=True)
        gaps = [Sample(one.recovered(a) - two.recovered(b), bound, groups=one.inside) for a, b in both]
        claim = Hypothesis(
            test=msgspec.structs.replace(best.gap, p=best.paid), evidence=Largest(gaps),
            shown=best.gap, margin=margin, words=PAIR, by_example=one.inside is not None,
            beside=(*beside, *filter(None, [best.beyond]), *self._gaps(case, one, two)),
            found=f"{words}{f'; {noise}' if best.beyond else ''}. {_LIMITS}", otherwise=f"{words}: {said} {_LIMITS}",
            fallback="inconclusive" if large or weak else None,
        )  # fmt: skip
        return self.draft(case, name, claim, (*one.trials, *two.trials), title=title)

    def _tier(self, case: Case, both: tuple[NetRecovery, NetRecovery], at: int, margin: float) -> "_Tier":
        """How much more the first of two recovers by one tier."""
        one, two = both
        means, by, share = TIERS[at]
        named = {"copies": self._copies, "steps": self.settings.steps[-1]}
        values = one.recovered(one.tiers[at]) - two.recovered(two.tiers[at])
        gap = estimate(case, (values, one.inside), f"gap {by.format(**named)}", margin=margin, limits=one.apart(two))
        more = one if (gap.value or 0.0) >= 0.0 else two
        above = more.tiers[at] - more.best_noise, more.inside
        beyond = estimate(case, above, f"{_BEYOND}: {more.subject.name}", margin=0.0)
        noisy = at == len(TIERS) - 1
        return _Tier(means.format(**named), gap, more.subject.name, None if noisy else beyond, share)

    def _gaps(self, case: Case, one: NetRecovery, two: NetRecovery) -> list[Estimate]:
        """How much more the first recovers, by each disturbance that is not tested."""
        how = self.settings

        def gap(first: Values, second: Values, name: str) -> Estimate:
            values = one.recovered(first) - two.recovered(second)
            return estimate(case, (values, one.inside), f"gap {name}", limits=one.apart(two))

        first, second = one.disturbances(how), two.disturbances(how)
        return [gap(score, second[name], name) for name, score in first.items() if name in second]


@dataclass(frozen=True)
class _Tier:
    """A gap of a pair."""

    means: str  # what both nets went through, in words
    gap: Estimate  # how much more the first recovers
    more: str  # the net that recovers more
    beyond: Estimate | None  # how much more it recovers than by noise alone; none of the gap that is under noise
    share: float  # of alpha

    @property
    def paid(self) -> float:
        """The p-value after the choice among the tiers."""
        return min(1.0, self.p / self.share)

    @property
    def p(self) -> float:
        """Of "there is no gap, or noise alone brings back as much".

        Source: Berger (1982), intersection-union test: both must reject, so no correction for their number.
        """
        own = 1.0 if self.gap.p is None else self.gap.p
        if self.beyond is None:
            return own
        return 1.0 if self.beyond.p is None or (self.beyond.value or 0.0) <= 0.0 else max(own, self.beyond.p)
