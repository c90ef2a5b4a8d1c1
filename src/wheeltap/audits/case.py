"""What an audit sees: a plan, and what is known so far of its trials."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.claims import Edge, NoAnswer
from wheeltap.core.records import SET, Estimate, Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.plans.plan import MARGIN, Lookup, Plan
from wheeltap.stats.clusters import Groups, one_by_one, one_group
from wheeltap.stats.effect import score_interval, share_interval
from wheeltap.stats.wilson1927 import wilson_of_statistic

Values = NDArray[np.floating[Any]]
Arrays = dict[str, NDArray[Any]]
"""What a reading gave, by name."""


NO_ERROR = 1e-9
"""Error, as a share of that of an answer without information, below which there is none to take a share of."""

AT_CHANCE, WORSE, TOO_FEW, UNITS = "at chance", "worse than chance", "too few examples", "other units"
"""Why there is nothing to lose, as a verdict."""


_FITTED = 20
"""Examples from which it says something that outputs fit the targets after they are scaled."""

_SKILL = (0.2, 0.5)
"""Share of the error of a constant that outputs in other units explain at most as they are, and at least scaled."""


def _wrong_way(task: TaskRecord) -> str:
    """What may be wrong where a score is worse than chance, or an error is not shown to be better."""
    if task.bounded:
        return "are the labels shifted or in another order than the model's outputs, or is less of the measure better?"
    if task.higher_is_better:
        return "is less of the measure better (higher_is_better = False), or are the targets in another order?"
    if task.log:
        return "it says no more of the text than how often each token comes. Is it of a kind that the model knows?"
    if task.measure in ("nll", "kl"):
        return "are the outputs no logits, or the labels shifted or in another order than the model's outputs?"
    return "are the targets in other units or in another order than the outputs, or are the outputs logits of labels?"


@final
class Case:
    """A plan and what is known so far: the only thing an audit sees.

    Args:
        plan: Subjects, task, effort, seed.
        lookup: From a trial's key to its outcome.
        whole: The plan with all members, those included that could not be made; the same where left out.
        joined: Of one test set, the case of all sets together; itself where left out.
    """

    def __init__(
        self, plan: Plan, lookup: Lookup, whole: Plan | None = None, joined: "Case | None" = None
    ) -> None:  # fmt: skip
        self.plan = plan
        self.whole = whole or plan
        self.joined = joined or self
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
    def sets(self) -> list["Case"]:
        """The same of each test set, where there are several: as a run on that set alone would see it."""
        whole, found, start = self.plan.task, list[Case](), 0
        for at, own in enumerate(whole.sets):
            task = msgspec.structs.replace(
                own, digest=whole.digest, measure=whole.measure, measures=whole.measures, cap=whole.cap
            )
            look = partial(self._within, f"{SET} {at} ", slice(start, start := start + own.examples))
            found.append(Case(msgspec.structs.replace(self.plan, task=task), look, self.whole, self))
        return found

    def _within(self, begins: str, rows: slice, key: str) -> Outcome | None:
        """An outcome with what it holds of the examples of one set, and of a clean pass what is known of that set."""
        if (outcome := self._lookup(key)) is None:
            return None
        known = {name.removeprefix(begins): one for name, one in outcome.values.items() if name.startswith(begins)}
        each, plain = (*self.plan.task.measures, "kl"), outcome.values.items()
        held = {name: one[rows] if name in each else one for name, one in plain if name in each or one.ndim == 0}
        return replace(outcome, values={**held, **known})

    @property
    def rivals(self) -> tuple[SubjectRecord, ...]:
        """The subjects compared with the reference."""
        return self.plan.subjects[1:]

    @property
    def chance(self) -> float:
        """The score that an answer without information gets, by the reference's clean pass.

        Raises:
            NoAnswer: If that pass has not run.
        """
        outcome = self._lookup(self.plan.clean(self.plan.reference).key)
        if outcome is None or "chance" not in outcome.values:
            raise NoAnswer("error", "The clean pass has not run.")
        chance = float(outcome.values["chance"])
        if self.plan.task.cap is None:
            return chance
        # The error of a constant differs from example to example, and is capped for each.
        errors = outcome.values["constant"] if self.plan.task.measure == "squared_error" else np.array([chance])
        return float(self._capped(errors.astype(np.float64)).mean())

    def _capped(self, losses: Values) -> Values:
        return losses if self.plan.task.cap is None else np.minimum(losses, self.plan.task.cap)

    @cached_property
    def groups(self) -> Groups | None:
        """Which group each example is in, ``[example]``, where they come in groups: of the clean pass, or of a reading.

        What was recorded may have no clean pass: where nobody answered, the readings of what is known of the items say.
        """
        plan, recorded = self.plan, [subject for subject in self.plan.subjects if subject.role == "recorded"]
        readings = [plan.reading(subject, name, {}) for subject in recorded for name in plan.versions]
        for trial in (*map(plan.clean, plan.subjects), *readings):
            outcome = self._lookup(trial.key)
            if outcome is not None and not {"chance", "group"}.isdisjoint(outcome.values):
                return outcome.values.get("group")
        return None

    def groups_of(self, rows: NDArray[np.integer[Any] | np.bool_]) -> Groups | None:
        """Those of some examples; ``None`` also where all of these are of one group, which is what they are about."""
        groups = None if self.groups is None else self.groups[rows]
        return None if one_group(groups) and not one_group(self.groups) else groups

    def grouped(self, subject: SubjectRecord) -> str:
        """How many groups the examples come in, and what that costs its score, in words; empty where they do not."""
        if self.groups is None:
            return ""
        if one_group(self.groups):
            return "in one group, which says nothing of others"
        few = one_by_one(self.clean(subject), self.groups)
        return f"in {len(np.unique(self.groups)):,} groups, which count as about {few:,.0f} independent ones"

    def edge(self, *subjects: SubjectRecord, own: float | None = None) -> Edge:
        """The smallest loss of score of interest, in units of the measure.

        Of a share of right answers it is the share that was asked for, yet at most half of what the score has above the
        better of chance and the most common answer: with less than half of that left, little was learned that is not
        lost. Of an error it is a share of the undisturbed one, yet at most half of what that is below the error of the
        best answer that is one for all examples; of a logarithm that of 1 + the share; of what is none of these, a
        share of the way from chance.

        Args:
            *subjects: Whose loss it is: one, or the two of a pair, of which the first one's error counts and the better
                one's score.
            own: The audit's share; the plan's, where it has none.
        """
        edge, capped = self._edge(*subjects, own=own), self.plan.task.capped
        return replace(edge, because=f"{capped} {edge.because}".rstrip()) if capped else edge

    def _edge(self, *subjects: SubjectRecord, own: float | None) -> Edge:
        share, task = self.plan.margin if own is None else own, self.plan.task
        if task.in_points:
            least = max(self.chance, task.common or 0.0)
            clean = max((self.clean(subject) for subject in subjects), key=lambda scores: float(scores.mean()))
            half = (clean - least) / 2.0
            if not 0.0 < float(half.mean()) < share:
                return Edge(share)
            what, value = "chance" if least == self.chance else task.always, float(half.mean())
            because = f"The margin is half of what the undisturbed score has above {what} ({least:.1%}): {value:.2g}."
            return Edge(value, half, because=because)
        if task.log:
            return Edge(math.log1p(share))
        clean = self.clean(subjects[0])
        if self.is_error(subjects[0]):
            least = self._constant
            half = (least - clean) / 2.0
            value, of = float(half.mean()), f"that of an answer without information ({float(np.mean(least)):.3g})"
            if not 0.0 < value < share * float(clean.mean()):
                return Edge(share * float(clean.mean()), share * clean)
            return Edge(value, half, because=f"The margin is half of what the error is below {of}: {value:.2g}.")
        return Edge(self.scaled(share))

    @property
    def _constant(self) -> Values:
        """Of an error, what an answer gets that is one for all examples, ``[example]``."""
        reference = self.plan.clean(self.plan.reference)
        outcome, chance = self._lookup(reference.key), np.full(self.examples(reference), self.chance)
        return chance if outcome is None else self._capped(outcome.values.get("constant", chance).astype(np.float64))

    def is_error(self, subject: SubjectRecord) -> bool:
        """Whether the score is an error of which a share can be taken: without a bound, never below 0, and not 0."""
        task, clean = self.plan.task, self.clean(subject)
        positive = float(clean.min()) >= 0.0 and float(clean.mean()) > NO_ERROR * abs(self.chance)
        return not task.bounded and not task.higher_is_better and not task.log and positive

    def margin(self, own: float | None = None) -> float:
        """The reference's ``edge`` alone."""
        return self.edge(self.plan.reference, own=own).value

    def way(self, own: float | None = None) -> float:
        """The smallest difference of interest of whole curves, which lead from the score to chance: see ``scaled``.

        Of an error the plan's share is one of the error, so an audit that has no share of its own takes the usual one.
        """
        usual = self.plan.margin if self.plan.task.in_points or self.plan.task.higher_is_better else MARGIN
        return self.scaled(usual if own is None else own)

    def scaled(self, share: float) -> float:
        """A share of the score in units of the measure: thresholds must not depend on the unit of the targets.

        The whole is 1 for a share of right answers, and the way from chance to the reference's score for the rest.
        """
        if self.plan.task.in_points:
            return share
        return share * abs(float(self.clean(self.plan.reference).mean()) - self.chance)

    def outcome(self, trial: Trial) -> Outcome | None:
        """The trial's outcome, if it has run."""
        return self._lookup(trial.key)

    def known(self, trials: Iterable[Trial]) -> bool:
        """Whether all of them have run."""
        return all(self._lookup(trial.key) is not None for trial in trials)

    def values(self, trial: Trial) -> Values:
        """The score per example, capped where a cap was given.

        A diverged trial answers nothing: every example counts as chance.

        Raises:
            NoAnswer: If the trial failed, was skipped or has not run.
        """
        outcome = self._lookup(trial.key)
        if outcome is None:
            raise NoAnswer("error", f"A trial has not run ({trial.perturbation}, dose {trial.dose:g}).")
        if outcome.status == "diverged":
            return np.full(self.examples(trial), self.chance)
        if outcome.status != "done":
            raise NoAnswer("error" if outcome.status == "failed" else "not_applicable", outcome.because)
        return self._capped(outcome.values[self.plan.task.measure].astype(np.float64))

    def measured(self, trials: Sequence[Trial], measure: str) -> Values | None:
        """Another measure than the score, ``[trial, example]``; ``None`` where one lacks it or has another shape."""
        outcomes = [self._lookup(trial.key) for trial in trials]
        rows = [o.values[measure] for o in outcomes if o is not None and measure in o.values]
        alike = len(rows) == len(trials) and len({row.shape for row in rows}) == 1
        return np.stack(rows).astype(np.float64) if alike else None

    def examples(self, trial: Trial) -> int:
        """How many examples a trial is measured on."""
        count = self.plan.task.examples
        return count if trial.subset is None else len(trial.subset.examples(count, root=trial.root))

    def reading(self, trial: Trial) -> Arrays:
        """The named arrays that a reading gave.

        Raises:
            NoAnswer: If it failed, was skipped or has not run.
        """
        outcome = self._lookup(trial.key)
        if outcome is None:
            raise NoAnswer("error", f"A reading has not run ({trial.perturbation}).")
        if outcome.status != "done":
            raise NoAnswer("not_applicable" if outcome.status == "skipped" else "error", outcome.because)
        wide = {name: array.astype(np.float64) for name, array in outcome.values.items() if array.dtype.kind == "f"}
        return {**outcome.values, **wide}

    def table(self, trials: Sequence[Sequence[Trial]]) -> Values:
        """Scores ``[dose, draw, example]`` of trials given as ``[dose][draw]``."""
        return np.stack([np.stack([self.values(trial) for trial in row]) for row in trials])

    def norm(self, trials: Iterable[Trial]) -> float | None:
        """||change|| / ||weights||, mean over trials; ``None`` where one does not tell it (because it diverged)."""
        outcomes = [self._lookup(trial.key) for trial in trials]
        norms = [float(o.values["relative_norm"]) for o in outcomes if o is not None and "relative_norm" in o.values]
        return float(np.mean(norms)) if norms and len(norms) == len(outcomes) else None

    def coverage(self, trials: Iterable[Trial]) -> tuple[float | None, float | None]:
        """Least share of the weights that one of these disturbances of all weights touched; ``None`` without any.

        The second is of what no format keeps in full precision, where that is known.
        """
        outcomes = [self._lookup(trial.key) for trial in trials]
        shares = [o.values for o in outcomes if o is not None and "coverage" in o.values]
        own, reached = (
            min((float(one.get(name, one["coverage"])) for one in shares), default=None)
            for name in ("coverage", "reach")
        )
        return own, reached

    def untouched(self, trials: Iterable[Trial]) -> str:
        """Which layers these trials left as they were although they were asked to disturb them, in words."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        reasons = {o.because for o in outcomes if o is not None and o.status == "done" and o.because}
        return " ".join(sorted(reasons))

    def clean(self, subject: SubjectRecord) -> Values:
        """The undisturbed score per example."""
        return self.values(self.plan.clean(subject))

    def score(self, subject: SubjectRecord) -> Estimate:
        """The undisturbed score with its interval."""
        task, clean, carried = self.plan.task, self.clean(subject), self.carried(subject)
        if carried is not None and task.range is not None:
            return wilson_of_statistic(
                clean, worth=float(carried[0]), ends=task.range, groups=self.groups, name=task.measure
            )  # fmt: skip
        if task.bounded:
            return share_interval(clean, groups=self.groups, name=task.measure, unit=task.measure)
        return score_interval(clean, bounded=False, groups=self.groups, name=task.measure, unit=task.measure)

    def carried(self, subject: SubjectRecord) -> Values | None:
        """Of a statistic of all examples: how many carry it, how far one more may move it, how many must.

        The second is that times the number of examples. ``None`` where the score is a mean.
        """
        outcome = self._lookup(self.plan.clean(subject).key)
        return None if outcome is None else outcome.values.get("carried")

    def far(self, subject: SubjectRecord) -> float | None:
        """How far one more example may move a statistic, or a capped loss; ``None`` of other means: see ``Sample``."""
        carried = self.carried(subject)
        return self.plan.task.cap if carried is None else float(carried[1])

    def headroom(self, subject: SubjectRecord) -> tuple[str, str]:
        """Why the undisturbed score leaves nothing to lose: in a word (see ``AT_CHANCE``), and in a sentence.

        Both are empty where the score is shown to be better than chance, so that there is something to lose.
        """
        task, clean, chance = self.plan.task, self.clean(subject), self.chance
        score, carried = self.score(subject), self.carried(subject)
        near, far = (score.low, score.high) if task.higher_is_better else (score.high, score.low)
        common = 0.0 if task.common is None else task.common
        is_constant = (task.bounded and max(chance, common) >= 1.0) or (
            task.measure == "squared_error" and chance <= 0.0
        )
        if is_constant and task.examples > 1:
            return AT_CHANCE, (
                f"{subject.name} scores {score}{task.unit}. All targets are equal, so a constant answer is always "
                "right and there is nothing to lose: give examples with different targets."
            )
        if task.measure == "squared_error":  # chance varies with the same targets
            gap = score_interval(clean - self._constant, bounded=False, groups=self.groups, unit=task.measure)
            near, far = (None if end is None else chance + end for end in (gap.high, gap.low))
            if other := self._other_units(subject):
                return UNITS, f"{subject.name} scores {score}, chance is {chance:.3g}: {other}"
        if near is None or far is None:
            return "", ""  # one example has no spread: its losses still vary from draw to draw
        if carried is not None and carried[0] < carried[2]:
            return TOO_FEW, (
                f"{subject.name} scores {score}, which about {carried[0]:.0f} examples of the rarest class carry: too "
                f"few for an interval of {task.measure} ({carried[2]:.0f} are needed)."
            )
        if task.sign * (near - chance) > 0.0 and (task.common is None or near > common):
            return "", ""
        scores = f"{subject.name} scores {score}{task.unit}"
        if task.sign * (far - chance) < 0.0 and not self._one_answer(subject):
            shown = f"{scores}, shown to be worse than chance ({chance:.3g}), so there is nothing to lose"
            return WORSE, f"{shown}: {_wrong_way(task)}"
        if self._says_nothing(score, far):
            few = f"{task.examples:,} example{'s' * (task.examples != 1)} {self.grouped(subject)}".rstrip()
            least = f"{common if task.bounded and chance < common < 1.0 else chance:.3g}"
            return TOO_FEW, f"{scores} on {few}: too few examples to say whether that is better than {least}."
        if task.sign * (near - chance) <= 0.0:
            why = "." if task.bounded or task.higher_is_better else f": {_wrong_way(task)}"
            return AT_CHANCE, f"{scores}, chance is {chance:.3g}, so there is nothing to lose{why}"
        beaten = f"{task.always} scores {common:.3f}: not shown to be better, so there is nothing to lose."
        other = " By --measure balanced_accuracy each class counts the same." if task.measure == "accuracy" else ""
        return AT_CHANCE, f"{scores}, and {beaten}{other}"

    def _other_units(self, subject: SubjectRecord) -> str:
        """That outputs follow the targets and are in other units, in words; empty where it is not so."""
        outcome = self._lookup(self.plan.clean(subject).key)
        rescaled = None if outcome is None else outcome.values.get("rescaled")
        if rescaled is None or self.plan.task.examples < _FITTED:
            return ""
        least, most = _SKILL
        if float(self.clean(subject).mean()) < (1.0 - least) * self.chance or rescaled > (1.0 - most) * self.chance:
            return ""
        return (
            f"scaled and shifted, each output by itself, the same outputs would score {float(rescaled):.3g}. Give "
            "targets in the units of the outputs."
        )

    def _one_answer(self, subject: SubjectRecord) -> bool:
        """Whether a classifier is below chance by its most common answer, or little else: that of a rare class is.

        Nets that have learned nothing lean one way by accident, also in their other answers. Shifted labels leave
        these hardly a right one.
        """
        scores = self.measured([self.plan.clean(subject)], "scores") if self.plan.task.bounded else None
        if scores is None or scores.shape[2] < 2:
            return False
        answers = scores[0].argmax(1)
        others = answers != np.bincount(answers).argmax()
        if not others.any():
            return True
        rest = score_interval(
            self.clean(subject)[others], bounded=True, groups=self.groups_of(others), unit=self.plan.task.measure
        )
        return rest.high is None or rest.high >= self.chance / 2.0

    def _says_nothing(self, score: Estimate, far: float) -> bool:
        """Whether the examples are too few for a score that may be as good as ``far`` to say anything.

        That is more than half of the way from what is to beat to the best score there is; or not even right answers
        alone would be shown to be better. A score that is no better than the most common answer says what it is.
        """
        task, chance = self.plan.task, self.chance
        if not task.bounded:
            return not task.higher_is_better and far < chance / 2.0
        least, all_right = max(chance, task.common or 0.0), np.ones(task.examples)
        surely = score_interval(all_right, bounded=True, groups=self.groups, unit=task.measure).low
        if surely is not None and (surely <= chance or surely <= least < 1.0):
            return True
        above = least == chance or (score.value or 0.0) > least
        return above and far - least > (1.0 - least) / 2.0

    def require_above_chance(self, subject: SubjectRecord) -> None:
        """Raises ``NoAnswer`` if the subject has nothing to lose."""
        verdict, because = self.headroom(subject)
        if verdict:
            raise NoAnswer("not_applicable", because)

    def skipped(self, trials: Iterable[Trial]) -> bool:
        """Whether all of them were skipped: the disturbance is not defined there."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        return all(outcome is not None and outcome.status == "skipped" for outcome in outcomes)

    def diverged(self, trials: Iterable[Trial]) -> int:
        """How many of them diverged."""
        outcomes = (self._lookup(trial.key) for trial in trials)
        return sum(outcome is not None and outcome.status == "diverged" for outcome in outcomes)
