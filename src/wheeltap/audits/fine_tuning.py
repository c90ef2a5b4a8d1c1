"""What fine-tuning on one group of examples costs elsewhere: the frontier of learning and forgetting."""

from dataclasses import replace
from typing import Annotated, ClassVar, Final, Literal, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, NoAnswer, Verdict, training_passes
from wheeltap.audits.claims import Words
from wheeltap.audits.losses import Losses
from wheeltap.audits.modify import DoseScores, ModifyAudit, ModifySettings
from wheeltap.audits.schemes import Scheme
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.sample import Sample

_COVERED: Final = (
    "Every example outside group {group} already has the answer that the group is taught, so a model that gives that "
    "answer to everything would lose nothing. Name another group, or take a task with more answers."
)


class FineTuningSettings(ModifySettings, frozen=True, kw_only=True):
    """Steps of training, and what is trained.

    Attributes:
        group: The group of examples that is taught new answers, by its number in the task.
        lr: Step size.
        batch: Examples per step.
        adapter: ``full`` trains every weight, ``lora`` changes of low rank.
    """

    doses: tuple[float, ...] = (1, 4, 16, 64)
    tested: float = 16
    group: Annotated[int, msgspec.Meta(ge=0)] = 0
    lr: Annotated[float, msgspec.Meta(gt=0.0, le=1e30)] = 1e-3
    batch: Annotated[int, msgspec.Meta(ge=1)] = 32
    adapter: Literal["full", "lora"] = "full"


_WORDS = Words("loses", "keeps", "may lose")
"""No ``costs``, which fails a gate."""


@final
class FineTuningAudit(ModifyAudit):
    """Score lost on other examples while one group is taught new answers, and while more of the same is taught."""

    name = "fine-tuning"
    code = "WT110"
    title = "Fine-tuning"
    reads = (
        "One group of examples is taught new answers, step by step, and the score on all other examples is "
        "followed: what is forgotten, and what is learned."
    )
    axis = "steps of fine-tuning"
    settings_type = FineTuningSettings
    unit = "steps"
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {
        "draws": 2, "doses": [4, 16], "adapter": "lora", "batch": 8, "lr": 1e-3,
    }  # fmt: skip

    def family(self) -> tuple[Scheme, ...]:
        """One group taught other answers first, which is what can be forgotten for; then all taught their own."""
        how, doses = self.settings, self._listed()
        shared: dict[str, Scalar] = {
            "lr": how.lr, "batch": how.batch, "optimizer": "adam", "adapter": how.adapter, "rank": 8,
        }  # fmt: skip
        new: dict[str, Scalar] = {**shared, "data": "targeted", "group": how.group, "labels": "wrong"}
        more, rest = "on more of the same", {**shared, "data": "all"}
        return (
            Scheme(label="", perturbation="fine-tune", ladder=doses, settings=new, draws=how.draws),
            Scheme(label=more, perturbation="fine-tune", ladder=doses, settings=rest, draws=how.draws),
        )

    def groups(self) -> tuple[int, ...]:
        """The one that is taught, where it is not the default."""
        return (self.settings.group,) if self.settings.group > 0 else ()

    def most_passes(self, plan: Plan) -> float:
        """One for each trial, and the training: each draw goes once to its last dose."""
        each = training_passes(plan, steps=max(self._listed()), batch=self.settings.batch)
        return super().most_passes(plan) + each * sum(
            one.draws for subject in plan.subjects for one in self._wanted_of(subject)
        )

    def label(self, scheme: Scheme, dose: float) -> str:
        """Steps and data."""
        taught = scheme.label or f"on group {self.settings.group} with new answers"
        return f"{dose:g} step{'s' * (dose != 1)} {taught}"

    def shipped(self, there: Losses, subject: SubjectRecord) -> str:
        """What was kept of the other examples."""
        grown = there.grown(subject)
        if grown is not None:
            return f"The error of the other examples is {grown} times the undisturbed one."
        return f"Of their score above chance the other examples keep {there.kept}."

    def scored(self, case: Case, trials: list[list[Trial]]) -> NDArray[np.bool_]:
        """Examples that no draw trained on; where one group was taught new answers, those of the others.

        Raises:
            NoAnswer: If none is left, or all of them have the very answer that a draw taught.
        """
        on = np.ones(case.plan.task.examples, dtype=bool)
        for trial in (trial for row in trials for trial in row):
            known = case.measured([trial], "trained"), case.measured([trial], "group")
            if known[0] is None or known[1] is None:
                continue  # diverged: it counts as chance on whatever is scored
            on &= known[0][0] == 0.0
            if trial.settings.get("data") == "targeted":
                on &= known[1][0] != float(self.settings.group)
        if not on.any():
            raise NoAnswer("not_applicable", "Every example was trained on: none is left to score.")
        for trial in (trial for row in trials for trial in row if trial.settings.get("labels") == "wrong"):
            covered = case.measured([trial], "covered")
            if covered is not None and covered[0][on].all():
                raise NoAnswer("not_applicable", _COVERED.format(group=self.settings.group))
        return on

    def judge(self, case: Case) -> Verdict:
        """As of every modification, with what was learnt beside what was forgotten."""
        verdict = super().judge(case)
        for at, subject in enumerate(case.plan.subjects):
            draft = verdict.drafts[at]
            if draft.test is None:
                continue
            read = self._read(case, subject, self.family()[0])
            learnt = self._learnt(case, read)
            # Enough steps make any net forget: alone it is a measurement, and only a difference of two is news.
            estimates = (*draft.finding.estimates, *learnt)
            finding = msgspec.structs.replace(draft.finding, estimates=estimates, alarm=False)
            verdict.drafts[at] = replace(draft, finding=finding, words=_WORDS)
        return verdict

    def _learnt(self, case: Case, read: DoseScores) -> list[Estimate]:
        """Share of the group's other examples that get the new answer, step by step."""
        found: list[Estimate] = []
        for dose, row in zip(read.scheme.ladder, read.trials, strict=True):
            taught, group = case.measured(row, "taught"), case.measured(row, "group")
            trained = case.measured(row, "trained")
            if taught is None or group is None or trained is None:
                continue
            held = (group[0] == float(self.settings.group)) & (trained.sum(0) == 0.0)
            if held.any():
                name = f"new answers learned after {dose:g} step{'s' * (dose != 1)}"
                groups = None if case.groups is None else case.groups[held]
                found.append(Sample(taught[:, held], groups=groups).effect(name=name, unit="share of answers"))
        return found
