"""WT505: do items whose label changes under noise in the weights divide people, beyond what outputs and inputs say?"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Final, final

import numpy as np

from wheeltap.audits.base import Case, Count, Hypothesis, Margin, NoAnswer
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.claims import Words, without_interval
from wheeltap.audits.controls import silent, surely
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.input_shift import FITTING, INPUT_SHIFT, LADDERS, InputShiftSettings
from wheeltap.stats.added_variance import ExplainedVariance, explained
from wheeltap.stats.clusters import Groups, one_group
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.sample import Sample
from wheeltap.suites.lens.audits.headline import lines
from wheeltap.suites.lens.audits.panel import mean_of, panel_of
from wheeltap.suites.lens.specs import LABEL_PROBABILITIES, VOTES
from wheeltap.suites.lens.stats.panels import FLOOR, correlation, entropy, probabilities

DOSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Relative noise in the weights."""

WORTH: Final = 0.02
"""Smallest share of the variance that counts as added, as in every claim that a disturbance detects something."""

FEWEST: Final = 50
"""Items, for a regression on some ten scores to be more than luck."""

FOLDS: Final = 10

_LIMITS: Final = (
    "Scores are combined linearly; the entropy of a few votes scatters, so that no score explains all of it."
)


class ItemNoiseSettings(InputShiftSettings, frozen=True, kw_only=True):
    """How often weights are disturbed, and thresholds.

    Attributes:
        weight_draws: Draws of noise in the weights at each dose.
        margin: Smallest share of the variance of interest.
    """

    weight_draws: Count = 8
    margin: Margin = WORTH


@final
@dataclass(frozen=True, eq=False)
class VotedItems:
    """What is known of each item that enough people voted on.

    Attributes:
        people: Entropy of the votes, nats.
        outputs: ``[item, 3]``: entropy, probability and lead of the most likely label.
        inputs: ``[item, score]``: for each disturbance of the inputs the score lost, and how undecided it is.
        weights: ``[item, 2]``: how often the label changes under noise in the weights, and how undecided it is.
        groups: ``[item]``; see ``Case.groups``.
    """

    name: str
    people: FloatArray
    outputs: FloatArray
    inputs: FloatArray
    weights: FloatArray
    groups: Groups | None = None


@final
class ItemNoiseAudit(SingleReadingAudit[VotedItems]):
    """Share of the variance of people's entropy that noise in the weights adds to outputs and input noise."""

    name = "item-noise"
    code = "WT505"
    title = "Items under weight noise"
    brief = "added by weights"
    reads = (
        "Whether items whose label changes under noise in the weights are those on which people disagree. It counts "
        "only what is beyond the output's own entropy and margin and beyond noise on the inputs, at equal cost."
    )
    asks = "benchmark"
    answer = staticmethod(lines)
    settings_type = ItemNoiseSettings
    settings: ItemNoiseSettings
    spares: ClassVar[dict[str, int]] = {"weight_draws": 4}
    reading = LABEL_PROBABILITIES

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Probabilities, votes, and scores under disturbed inputs."""
        how = self.settings
        asked: dict[str, Scalar] = {"shift_draws": self.input_draws, "image": how.image, "shifts": how.shifts}
        more = plan.reading(subject, VOTES.name, {}), plan.reading(subject, INPUT_SHIFT.name, asked)
        return [self.trial(plan, subject), *more]

    @property
    def input_draws(self) -> int:
        """Draws of each disturbance of the inputs, so that they take as many passes as noise in the weights."""
        passes = len(DOSES) * self.settings.weight_draws
        return max(2, math.ceil(passes / (min(map(len, FITTING.values())) * len(LADDERS["noise"]))))

    def _noise(self, plan: Plan, subject: SubjectRecord) -> list[list[Trial]]:
        draws = range(self.settings.weight_draws)
        return [[plan.trial(subject, "relative", dose=dose, seed=seed) for seed in draws] for dose in DOSES]

    def ask(self, case: Case) -> list[Trial]:
        """The readings, and noise in the weights where there are votes."""
        asked = super().ask(case)
        for subject in case.plan.subjects if asked else ():
            votes = case.outcome(case.plan.reading(subject, VOTES.name, {}))
            if votes is not None and votes.status == "done":
                asked += [trial for row in self._noise(case.plan, subject) for trial in row]
        return asked

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """Of the noise in the weights."""
        return tuple(("relative", dose) for dose in DOSES)

    def most(self, plan: Plan) -> int:
        """Readings and noise of every subject."""
        return super().most(plan) + len(plan.subjects) * len(DOSES) * self.settings.weight_draws

    def most_passes(self, plan: Plan) -> float:
        """As if the inputs were of the kind with most disturbances."""
        shifts = max(map(len, FITTING.values())) * len(LADDERS["noise"]) * self.input_draws
        return float(len(plan.subjects) * (2 + shifts + len(DOSES) * self.settings.weight_draws))

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> VotedItems:
        """Scores of every item with votes enough."""
        _, voted, shifted = self.readings(case.plan, subject)
        panel = panel_of(case.reading(voted), labels=(), seed=case.plan.seed, groups=case.groups)
        if panel.refused or len(panel.votes) < FEWEST:
            few = f"{len(panel.votes)} items have votes; {FEWEST} are needed."
            raise NoAnswer("not_applicable", panel.refused or few)
        if one_group(panel.groups):
            raise NoAnswer("not_applicable", "All items are in one group: none is left to predict.")
        p, rows = probabilities(read["probability"])[panel.rows], panel.rows
        lead = np.sort(np.log(np.maximum(p, FLOOR)), axis=1)
        return VotedItems(
            subject.name, people=entropy(panel.held), inputs=_inputs(case.reading(shifted))[rows],
            outputs=np.column_stack([entropy(p), p.max(1), lead[:, -1] - lead[:, -2]]),
            weights=_weights(case, self._noise(case.plan, subject))[rows],
            groups=panel.groups,
        )  # fmt: skip

    def singles(self, case: Case, subject: SubjectRecord, read: VotedItems) -> list[Hypothesis]:
        """What noise in the weights adds; beside it, what each score says alone."""
        made, margin = _added(read, case.plan.seed), self.settings.margin
        test = _gain(made, read.groups, "added by noise in the weights", margin=margin)
        alone = correlation(read.weights[:, 1], read.people, name="correlation with label entropy under weight noise")
        output = correlation(read.outputs[:, 0], read.people, name="correlation with output entropy")
        if read.groups is not None:
            alone, output = (without_interval(one) for one in (alone, output))
        changed = mean_of(read.weights[:, 0], "labels changed by noise in the weights", "share of draws", read.groups)
        numbers = (
            f"Of the variance of people's entropy, outputs and input noise explain {made.without:.3f} on items unseen, "
            f"with noise in the weights {made.with_score:.3f} (added {test})."
        )
        trials = tuple(trial for row in self._noise(case.plan, subject) for trial in row)
        return [
            Hypothesis(
                test=test, margin=margin, evidence=Sample(made.cells[None, :], groups=read.groups),
                one_sided=True, alarm=False,
                words=Words("adds", "adds nothing", "may add", "no evidence of added value"), trials=trials,
                beside=(alone, output, changed),
                found=f"Noise in the weights of {read.name} shows on which items people disagree. {numbers} {_LIMITS}",
                otherwise=f"No evidence that noise in the weights of {read.name} adds anything. {numbers} {_LIMITS}",
            )
        ]  # fmt: skip

    def more_controls(self, case: Case) -> list[Control]:
        """People's entropies, shuffled over items: nothing can explain them."""
        made: list[Control] = []
        for subject in case.plan.subjects:
            try:
                read = self.read(case, subject)
            except NoAnswer:
                continue
            rng = seeds.generator(case.plan.seed, self.name, "dealt", subject.fingerprint)
            dealt = replace(read, people=rng.permutation(read.people))
            margin = self.settings.margin
            gap = _gain(_added(dealt, case.plan.seed), read.groups, "added to shuffled entropies", margin=margin)
            why = f"As many entropies, shuffled over the items of {subject.name}: noise must add nothing."
            name = f"{self.code} entropies shuffled, {subject.name}"
            found = silent(name, gap, margin=margin, min_effect=2 * margin, because=why, one_sided=True)
            made.append(surely(found, gap))
        return made


def _added(read: VotedItems, seed: int) -> ExplainedVariance:
    _, unit = np.unique(np.arange(len(read.people)) if read.groups is None else read.groups, return_inverse=True)
    order = seeds.generator(seed, "item-noise", "folds").permutation(int(unit.max()) + 1)
    return explained(np.hstack([read.outputs, read.inputs]), read.weights, read.people, groups=order[unit] % FOLDS)


def _gain(made: ExplainedVariance, groups: Groups | None, name: str, *, margin: float) -> Estimate:
    return Sample(made.cells[None, :], groups=groups).effect(margin=margin, name=name, unit="share of variance")


def _inputs(read: Arrays) -> FloatArray:
    """For each disturbance the mean score, and how undecided it is at each dose, mean over doses: ``[item, 2 s]``."""
    columns: list[Values] = []
    for shift in np.unique(read["shift"]):
        rows = read["shift"] == shift
        means = [read["score"][rows & (read["level"] == level)].mean(0) for level in np.unique(read["level"])]
        columns += [np.mean(means, axis=0), np.mean([_undecided(mean) for mean in means], axis=0)]
    return np.column_stack(columns).astype(np.float64)


def _weights(case: Case, noise: list[list[Trial]]) -> FloatArray:
    """How often the label changes, and how undecided that is at each dose, mean over doses: ``[item, 2]``."""
    means: list[Values] = []
    for row in noise:
        same = case.measured(row, "agreement")
        if same is None:
            raise NoAnswer("error", "Noise in the weights has not run, or did not record which labels it changed.")
        means.append(same.mean(0))
    return np.column_stack([1.0 - np.mean(means, axis=0), np.mean([_undecided(mean) for mean in means], axis=0)])


def _undecided(share: Values) -> FloatArray:
    """Entropy in nats of a thing that happens in this share of draws; scores outside 0 and 1 are held within."""
    kept = np.clip(np.asarray(share, dtype=np.float64), 0.0, 1.0)
    return entropy(np.stack([kept, 1.0 - kept], axis=-1))
