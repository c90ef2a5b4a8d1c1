"""What an audit sees: a plan, and what is known so far of its trials."""

from collections.abc import Iterable, Sequence
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.claims import Unanswered
from wheeltap.core.records import Outcome, SubjectRecord, Trial
from wheeltap.plans.plan import Lookup, Plan
from wheeltap.stats.effect import score_interval

Values = NDArray[np.floating[Any]]
Arrays = dict[str, NDArray[Any]]
"""What a reading gave, by name."""


@final
class Case:
    """A plan and what is known so far: the only thing an audit sees.

    Args:
        plan: Subjects, task, effort, seed.
        lookup: From a trial's key to its outcome.
        whole: The plan with all members, those included that could not be made; the same where left out.
    """

    def __init__(self, plan: Plan, lookup: Lookup, whole: Plan | None = None) -> None:
        self.plan = plan
        self.whole = whole or plan
        self._lookup = lookup

    def on(self, *members: SubjectRecord, seed: int | None = None) -> "Case":
        """The same of one member alone, or of two that are compared: so any audit is a measure of a study's members.

        Args:
            *members: Who the audits see.
            seed: Root of every draw, where it is not the plan's.
        """
        alone = msgspec.structs.replace(
            self.plan, subjects=members, twin=None, planted=None, stronger=(), graded=(), study=None,
            seed=self.plan.seed if seed is None else seed,
            no_controls="A member of a study has no control copies of its own.",
        )  # fmt: skip
        return Case(alone, self._lookup, self.whole)

    @property
    def rivals(self) -> tuple[SubjectRecord, ...]:
        """The subjects compared with the reference."""
        return self.plan.subjects[1:]

    @property
    def chance(self) -> float:
        """The score that an answer without information gets, as the reference's clean pass told.

        Raises:
            Unanswered: If that pass has not run.
        """
        outcome = self._lookup(self.plan.clean(self.plan.reference).key)
        if outcome is None or "chance" not in outcome.values:
            raise Unanswered("error", "The clean pass has not run.")
        return float(outcome.values["chance"])

    def margin(self, own: float | None = None) -> float:
        """The smallest loss of score of interest, in units of the measure: an audit's own, or else the plan's."""
        return self.scaled(self.plan.margin if own is None else own)

    def scaled(self, share: float) -> float:
        """A share of the score in units of the measure: thresholds must not depend on the unit of the targets.

        The whole is 1 for a share of right answers, and the way from chance to the reference's score for the rest.
        """
        if self.plan.task.bounded:
            return share
        return share * abs(float(self.clean(self.plan.reference).mean()) - self.chance)

    def outcome(self, trial: Trial) -> Outcome | None:
        """The trial's outcome, if it has run."""
        return self._lookup(trial.key)

    def known(self, trials: Iterable[Trial]) -> bool:
        """Whether all of them have run."""
        return all(self._lookup(trial.key) is not None for trial in trials)

    def values(self, trial: Trial) -> Values:
        """The score per example. A diverged trial answers nothing: every example counts as chance.

        Raises:
            Unanswered: If the trial failed, was skipped or has not run.
        """
        outcome = self._lookup(trial.key)
        if outcome is None:
            raise Unanswered("error", f"A trial has not run ({trial.perturbation}, dose {trial.dose:g}).")
        if outcome.status == "diverged":
            return np.full(self.examples(trial), self.chance)
        if outcome.status != "done":
            raise Unanswered("error" if outcome.status == "failed" else "not_applicable", outcome.because)
        return outcome.values[self.plan.task.measure].astype(np.float64)

    def measured(self, trials: Sequence[Trial], measure: str) -> Values | None:
        """Another measure than the score, ``[trial, example]``; ``None`` where a trial does not have it."""
        outcomes = [self._lookup(trial.key) for trial in trials]
        rows = [o.values[measure] for o in outcomes if o is not None and measure in o.values]
        return np.stack(rows).astype(np.float64) if rows and len(rows) == len(trials) else None

    def examples(self, trial: Trial) -> int:
        """How many examples a trial is measured on."""
        count = self.plan.task.examples
        return count if trial.subset is None else len(trial.subset.examples(count, root=trial.root))

    def reading(self, trial: Trial) -> Arrays:
        """The named arrays that a reading gave.

        Raises:
            Unanswered: If it failed, was skipped or has not run.
        """
        outcome = self._lookup(trial.key)
        if outcome is None:
            raise Unanswered("error", f"A reading has not run ({trial.perturbation}).")
        if outcome.status != "done":
            raise Unanswered("not_applicable" if outcome.status == "skipped" else "error", outcome.because)
        wide = {name: array.astype(np.float64) for name, array in outcome.values.items() if array.dtype.kind == "f"}
        return {**outcome.values, **wide}

    def table(self, trials: Sequence[Sequence[Trial]]) -> Values:
        """Scores ``[dose, draw, example]`` of trials given as ``[dose][draw]``."""
        return np.stack([np.stack([self.values(trial) for trial in row]) for row in trials])

    def norm(self, trials: Iterable[Trial]) -> float | None:
        """||change|| / ||weights||, mean over trials; ``None`` where one does not tell it (because it diverged)."""
        outcomes = [self._lookup(trial.key) for trial in trials]
        told = [float(o.values["relative_norm"]) for o in outcomes if o is not None and "relative_norm" in o.values]
        return float(np.mean(told)) if told and len(told) == len(outcomes) else None

    def coverage(self, trials: Iterable[Trial]) -> float | None:
        """Least share of the weights that one of these disturbances of all weights touched; ``None`` without any."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        shares = [float(o.values["coverage"]) for o in outcomes if o is not None and "coverage" in o.values]
        return min(shares, default=None)

    def untouched(self, trials: Iterable[Trial]) -> str:
        """Which layers these trials left as they were although they were asked to disturb them, in words."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        told = {o.because for o in outcomes if o is not None and o.status == "done" and o.because}
        return " ".join(sorted(told))

    def clean(self, subject: SubjectRecord) -> Values:
        """The undisturbed score per example."""
        return self.values(self.plan.clean(subject))

    def at_chance(self, subject: SubjectRecord) -> str:
        """Why nothing can be lost, in words, if the undisturbed score is not shown to be better than chance."""
        task, clean, chance = self.plan.task, self.clean(subject), self.chance
        score = score_interval(clean, bounded=task.bounded, name=task.measure, unit=task.measure)
        near = score.low if task.higher_is_better else score.high
        if near is None:
            return ""
        if task.sign * (near - chance) <= 0.0:
            return f"{subject.name} scores {score}, chance is {chance:.3f}: there is nothing to lose."
        if task.common is not None and near <= task.common:
            return (
                f"{subject.name} scores {score}, and always giving the most common answer scores {task.common:.3f}: "
                "not shown to be better, so there is nothing to lose."
            )
        return ""

    def require_above_chance(self, subject: SubjectRecord) -> None:
        """Raises ``Unanswered`` if the subject has nothing to lose."""
        why = self.at_chance(subject)
        if why:
            raise Unanswered("not_applicable", why)

    def skipped(self, trials: Iterable[Trial]) -> bool:
        """Whether all of them were skipped: the disturbance is not defined there."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        return all(outcome is not None and outcome.status == "skipped" for outcome in outcomes)

    def diverged(self, trials: Iterable[Trial]) -> int:
        """How many of them diverged."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        return sum(outcome is not None and outcome.status == "diverged" for outcome in outcomes)
