"""WT111: what averaging the weights of two checkpoints costs, and what going further than either does."""

from typing import Annotated, final

import msgspec

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, pair
from wheeltap.audits.limits import Margin, Share
from wheeltap.plans import Plan
from wheeltap.records import Estimate, Finding, SubjectRecord, Trial
from wheeltap.stats.effect import mean_effect, score_interval, smallest_detectable


class MergingSettings(AuditSettings, frozen=True, kw_only=True):
    """Places on the line through two checkpoints, and thresholds.

    Attributes:
        between: Shares of the way from the reference to the other; the verdict is about the first.
        beyond: Places outside: negative ones take the other's task away, those above 1 add more of it.
        margin: Barrier that does not matter; the test is of a larger one.
        worth: Smallest barrier that a ``not_found`` must have been able to see.
    """

    between: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1)] = (0.5, 0.25, 0.75)
    beyond: tuple[Annotated[float, msgspec.Meta(ge=-1.0, le=2.0)], ...] = (-0.5, 1.5)
    margin: Margin = 0.02
    worth: Margin = 0.10


@final
class MergingAudit(Audit):
    """Loss of score on the straight line between two checkpoints, against the mean of both ends by the same shares."""

    name = "merging"
    code = "WT111"
    title = "Merging two checkpoints"
    settings_type = MergingSettings

    def ask(self, case: Case) -> list[Trial]:
        """Every place on the line to each rival."""
        if not case.known(case.plan.baselines()):
            return []
        return [trial for rival in case.rivals for trial in self._trials(case.plan, rival).values()]

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """The places."""
        return tuple(("merge", place) for place in self._places())

    def most(self, plan: Plan) -> int:
        """A pass for each place and rival."""
        return len(self._places()) * (len(plan.subjects) - 1)

    def _places(self) -> tuple[float, ...]:
        return tuple(dict.fromkeys((*self.settings.between, *self.settings.beyond)))

    def _trials(self, plan: Plan, rival: SubjectRecord) -> dict[float, Trial]:
        other = {"other": rival.fingerprint}
        return {place: plan.trial(plan.reference, "merge", settings={**other}, dose=place) for place in self._places()}

    def judge(self, case: Case) -> Verdict:
        """One finding per pair; alone, the question does not apply."""
        if not case.rivals:
            gap = Unanswered("not_applicable", "Merging needs two checkpoints: wheeltap compare A B --audits merging")
            return Verdict(drafts=[self.unanswered(case.plan.reference.name, gap)])
        return Verdict(drafts=[self._pair(case, rival) for rival in case.rivals])

    def _barrier(self, case: Case, rival: SubjectRecord, place: float, trial: Trial) -> Values:
        """``[1, example]``: the ends' scores, in the shares of the place, less the score there."""
        sign = 1.0 if case.plan.probe.higher_is_better else -1.0
        ends = (1.0 - place) * case.clean(case.plan.reference) + place * case.clean(rival)
        return sign * (ends - case.values(trial))[None, :]

    def _pair(self, case: Case, rival: SubjectRecord) -> Draft:
        plan, how = case.plan, self.settings
        name, trials = pair(plan.reference, rival), self._trials(case.plan, rival)
        margin, unit = case.worth(how.margin), plan.probe.measure
        try:
            barriers = [
                mean_effect(
                    self._barrier(case, rival, place, trials[place]), margin=margin, bounded=plan.probe.bounded,
                    name=f"barrier at {place:g} of the way", unit=unit,
                )
                for place in how.between
            ]  # fmt: skip
            scores = [self._score(case, place, trials[place]) for place in how.beyond]
        except Unanswered as gap:
            return self.unanswered(name, gap)
        tested = barriers[0]
        words = (
            f"At {how.between[0]:g} of the way from {plan.reference.name} to {rival.name} the score is {tested} below "
            f"what the two have between them"
        )
        means = (
            "Checkpoints that lie in one basin can be averaged; those that do not may still compute the same, written "
            "in another order of units."
        )
        finding = Finding(
            code=self.code, title=self.title, status="found", subject=name, estimates=(*barriers, *scores),
            smallest_detectable=smallest_detectable(tested, alpha=plan.alpha, margin=margin),
            because=f"{words}. {means}", trials=tuple(trial.key for trial in trials.values()),
        )  # fmt: skip
        otherwise = f"{words}: not shown to be more than {margin:.2g}. {means}"
        return Draft(finding, test=tested, worth=case.worth(how.worth), one_sided=True, otherwise=otherwise)

    def _score(self, case: Case, place: float, trial: Trial) -> Estimate:
        """The score beyond either end."""
        probe = case.plan.probe
        name = f"score at {place:g} of the way"
        return score_interval(case.values(trial), bounded=probe.bounded, name=name, unit=probe.measure)
