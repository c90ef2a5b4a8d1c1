"""WT111: what averaging the weights of two checkpoints costs, and what going further than either does."""

from itertools import combinations
from math import comb
from typing import Final, final

from wheeltap.audits.base import Audit, Case, Hypothesis, MarginSettings, NoAnswer, Verdict, pair
from wheeltap.audits.case import Values
from wheeltap.audits.claims import LOSS
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import score_interval
from wheeltap.stats.sample import Sample

BETWEEN: Final = (0.5, 0.25, 0.75)
"""Shares of the way from the reference to the other; the verdict is about the first."""

BEYOND: Final = (-0.5, 1.5)
"""Places outside: negative ones subtract the other's task, those above 1 add more of it."""

TOGETHER: Final = (1.0, 0.5)
"""Of three checkpoints, of which the first is the base: how much of what both of the others changed is added to it, 1
for all, .5 for their average; the verdict is about the first."""


@final
class MergingAudit(Audit):
    """Loss of score on the straight line between two checkpoints, against the mean of both ends by the same shares.

    Of three, also what the tasks of two give together: the first with all that the others changed, against their mean.
    """

    name = "merging"
    code = "WT111"
    title = "Merging two checkpoints"
    brief = "Merging"
    reads = (
        "The weights of two checkpoints are averaged, in several shares, and the score is compared with what the "
        "two have between them. A barrier shows that they are not in one basin."
    )
    asks = "merging"
    settings_type = MarginSettings

    def ask(self, case: Case) -> list[Trial]:
        """Every place on the line to each rival."""
        if not case.known(case.plan.baselines()):
            return []
        lines = [self._trials(case.plan, rival) for rival in case.rivals]
        sums = [self._sums(case.plan, *two) for two in combinations(case.rivals, 2)]
        return [trial for places in (*lines, *sums) for trial in places.values()]

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """The places."""
        return tuple(("merge", place) for place in (*BETWEEN, *BEYOND))

    def most(self, plan: Plan) -> int:
        """A pass for each place and rival, and for each sum of two."""
        rivals = len(plan.subjects) - 1
        return (len(BETWEEN) + len(BEYOND)) * rivals + len(TOGETHER) * comb(rivals, 2)

    def _trials(self, plan: Plan, rival: SubjectRecord) -> dict[float, Trial]:
        other: dict[str, Scalar] = {"other": rival.fingerprint}
        return {place: plan.trial(plan.reference, "merge", settings=other, dose=place) for place in (*BETWEEN, *BEYOND)}

    def _sums(self, plan: Plan, one: SubjectRecord, two: SubjectRecord) -> dict[float, Trial]:
        both: dict[str, Scalar] = {"other": one.fingerprint, "also": two.fingerprint}
        return {share: plan.trial(plan.reference, "merge", settings=both, dose=share) for share in TOGETHER}

    def judge(self, case: Case) -> Verdict:
        """One finding per pair, and per two others together; alone, the question does not apply."""
        if not case.rivals:
            gap = NoAnswer("not_applicable", "Merging needs two checkpoints: wheeltap compare A B --audits merging")
            return Verdict(drafts=[self.unanswered(case.plan.reference.name, gap)])
        sums = [self._sum(case, *two) for two in combinations(case.rivals, 2)]
        return Verdict([*(self._pair(case, rival) for rival in case.rivals), *sums])

    def _pair(self, case: Case, rival: SubjectRecord) -> Hypothesis:
        plan = case.plan
        trials = self._trials(plan, rival)

        def ends(place: float) -> Values:
            return (1.0 - place) * case.clean(plan.reference) + place * case.clean(rival)

        try:
            barriers = {
                f"barrier at {place:g} of the way": self._barrier(case, ends(place), trials[place]) for place in BETWEEN
            }
            scores = [
                score_interval(
                    case.values(trials[place]), bounded=plan.task.bounded, groups=case.groups,
                    name=f"score at {place:g} of the way", unit=plan.task.measure,
                )
                for place in BEYOND
            ]  # fmt: skip
        except NoAnswer as gap:
            return self.unanswered(pair(plan.reference, rival), gap)
        words = (
            f"At {BETWEEN[0]:g} of the way from {plan.reference.name} to {rival.name} the score is {{}} "
            f"below what the two have between them"
        )
        means = (
            "Checkpoints that lie in one basin can be averaged; those that do not may still compute the same, written "
            "in another order of units."
        )
        return self._draft(case, pair(plan.reference, rival), barriers, scores, trials, (words, means))

    def _sum(self, case: Case, one: SubjectRecord, two: SubjectRecord) -> Hypothesis:
        """What two others changed, both added to the reference."""
        base = case.plan.reference.name
        name, trials = f"{base} + {one.name} + {two.name}", self._sums(case.plan, one, two)
        try:
            middle = (case.clean(one) + case.clean(two)) / 2.0
            losses = {
                f"loss with {share:g} of both changes": self._barrier(case, middle, trial)
                for share, trial in trials.items()
            }
        except NoAnswer as gap:
            return self.unanswered(name, gap)
        words = (
            f"With {next(iter(trials)):g} of what {one.name} and {two.name} changed in {base} the score is {{}} "
            f"below the mean of theirs"
        )
        means = "That is task arithmetic where both were trained from the first; where not, the sum means little."
        return self._draft(case, name, losses, [], trials, (words, means))

    def _barrier(self, case: Case, ends: Values, trial: Trial) -> Sample:
        """How far the score of a merged model is below ``ends`` ``[example]``."""
        task = case.plan.task
        lost = task.sign * (ends - case.values(trial))
        return Sample(lost[None, :], 1.0 if task.bounded else None, groups=case.groups)

    def _draft(
        self,
        case: Case,
        name: str,
        losses: dict[str, Sample],
        scores: list[Estimate],
        trials: dict[float, Trial],
        because: tuple[str, str],
    ) -> Hypothesis:
        """The finding that tests the first of ``losses``; ``because`` is what was seen, and what that means."""
        margin, unit = case.margin(self.settings.margin), case.plan.task.measure
        tested, *beside = (lost.effect(margin=margin, name=name, unit=unit) for name, lost in losses.items())
        words, means = because[0].format(tested), because[1]
        claim = Hypothesis(
            test=tested, margin=margin, evidence=next(iter(losses.values())), beside=(*beside, *scores), words=LOSS,
            one_sided=True, found=f"{words}. {means}",
            otherwise=f"{words}: not shown to be more than {margin:.2g}. {means}",
        )  # fmt: skip
        return self.draft(case, name, claim, trials.values())
