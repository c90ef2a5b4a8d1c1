"""What relearning, other training, noise and rounding bring back of a group of examples, per example."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Unanswered
from wheeltap.audits.case import Values
from wheeltap.audits.limits import Count, Dose, Margin, Share
from wheeltap.audits.measured import within_range
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.stats.effect import mean_effect

TUNE: Final = "fine-tune"

Limits = tuple[float, float]


class RelearningSettings(Settings, frozen=True, kw_only=True):
    """What is tried, and thresholds; the latter are shares of right answers, or of the way from chance to the score.

    Attributes:
        group: The forget group, by its number in the task.
        shots: Examples of it that are trained on.
        steps: Of training on them, ascending; the verdict is about the last.
        benign_steps: Of training on every other group, ascending.
        draws: Sets of shots.
        holdout: Share of each group that is never trained on.
        batch: Examples per step.
        lr: Step size. With a large one everything is learned at once, by a net that never knew it too: see the curve.
        optimizer: ``adam`` or ``sgd``.
        adapter: ``full`` trains every weight, ``lora`` changes of low rank.
        rank: Of such a change.
        noise: Doses of relative noise.
        noise_draws: Draws at each.
        bits: Of rounding, one grid per channel.
        known: A group of which more than this is shown, above chance, is still right was not forgotten.
        margin: Difference of what is recovered that does not matter.
    """

    group: Annotated[int, msgspec.Meta(ge=-1)] = -1
    shots: Count = 4
    steps: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)] = (1, 2, 4, 8, 16)
    benign_steps: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)] = (16, 64)
    draws: Annotated[int, msgspec.Meta(ge=2)] = 8
    holdout: Share = 0.5
    batch: Count = 32
    lr: Dose = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    adapter: Literal["full", "lora"] = "full"
    rank: Count = 8
    noise: Annotated[tuple[Dose, ...], msgspec.Meta(min_length=1)] = (0.2, 0.4)
    noise_draws: Annotated[int, msgspec.Meta(ge=2)] = 20
    bits: Annotated[int, msgspec.Meta(ge=2, le=16)] = 4
    known: Share = 0.3
    margin: Margin = 0.1

    def __post_init__(self) -> None:
        for name, steps in (("steps", self.steps), ("benign_steps", self.benign_steps), ("noise", self.noise)):
            if list(steps) != sorted(set(steps)):
                raise ValueError(f"`{name}` must ascend, each once; they are {list(steps)}")


@dataclass(frozen=True)
class Asked:
    """The trials on one subject, ``[dose][draw]``.

    Attributes:
        relearning: On the group's own right answers.
        other: The same examples with other answers than the right ones.
        benign: On every other group.
        noise: Relative noise.
        rounding: To few bits; one dose and draw.
    """

    relearning: list[list[Trial]]
    other: list[list[Trial]]
    benign: list[list[Trial]]
    noise: list[list[Trial]]
    rounding: list[list[Trial]]

    @property
    def every(self) -> list[Trial]:
        """All of them."""
        tables = (self.relearning, self.other, self.benign, self.noise, self.rounding)
        return [trial for table in tables for row in table for trial in row]


def asked(case: Case, subject: SubjectRecord, how: RelearningSettings) -> Asked:
    """The trials that the settings name."""

    def rows(name: str, doses: tuple[float, ...], draws: int, settings: dict[str, Scalar]) -> list[list[Trial]]:
        return [
            [case.plan.trial(subject, name, settings=settings, dose=dose, seed=seed) for seed in range(draws)]
            for dose in doses
        ]

    shared: dict[str, Scalar] = {
        "group": how.group, "holdout": how.holdout, "batch": how.batch, "lr": how.lr, "optimizer": how.optimizer,
        "adapter": how.adapter, "rank": how.rank,
    }  # fmt: skip
    targeted: dict[str, Scalar] = {**shared, "data": "targeted", "shots": how.shots}
    return Asked(
        relearning=rows(TUNE, how.steps, how.draws, targeted),
        other=rows(TUNE, how.steps, how.draws, {**targeted, "labels": "wrong"}),
        benign=rows(TUNE, how.benign_steps, how.draws, {**shared, "data": "benign"}),
        noise=rows("relative", how.noise, how.noise_draws, {}),
        rounding=rows("quantize", (float(how.bits),), 1, {"scale": "channel"}),
    )


@dataclass(frozen=True)
class Relearnt:
    """What was measured of one subject, on examples of the group that no draw trained on.

    Scores are signed, so that more is better; recoveries are scores less what was there before.

    Attributes:
        subject: Whose.
        trials: Behind it.
        before: ``[example]``, undisturbed score.
        chance: Of an answer without information.
        score: ``[step, draw, example]``, after relearning.
        elsewhere: ``[step, draw, example]``, after relearning, of the other groups' examples.
        elsewhere_before: ``[example]``.
        norm: ||change|| / ||weights|| after the last step, mean over draws.
        limits: Least and most that a signed score can be; ``None`` where it has no bounds.
        other: ``[step, draw, example]``: 1 where the answer is the other one that was taught; ``None`` without such.
        benign: ``[step, draw, example]``, score after training on other groups; ``None`` without such.
        noise: ``[dose, draw, example]``.
        rounded: ``[1, example]``.
    """

    subject: SubjectRecord
    trials: tuple[Trial, ...]
    before: Values
    chance: float
    score: Values
    elsewhere: Values
    elsewhere_before: Values
    norm: float | None
    limits: Limits | None
    other: Values | None
    benign: Values | None
    noise: Values
    rounded: Values

    def recovered(self, score: Values) -> Values:
        """Score above what was there: above the undisturbed one of each example, or chance if that is more.

        A score that stays below chance recovers nothing.
        """
        return score - (self.before if self._was_above else min(self.chance, float(score.mean())))

    @property
    def _was_above(self) -> bool:
        """Whether the undisturbed score is above chance."""
        return bool(self.before.mean() > self.chance)

    @property
    def start(self) -> float:
        """Mean score that recoveries are counted from."""
        return max(float(self.before.mean()), self.chance)

    @property
    def recoverable(self) -> Limits | None:
        """Least and most that can be recovered."""
        if self.limits is None:
            return None
        return self.limits[0] - self.start if self._was_above else 0.0, self.limits[1] - self.start

    @property
    def losable(self) -> Limits | None:
        """Least and most that can be lost on the other groups."""
        before = float(self.elsewhere_before.mean())
        return None if self.limits is None else (before - self.limits[1], before - self.limits[0])

    def apart(self, other: "Relearnt") -> Limits | None:
        """Least and most that this one can recover more than another one."""
        mine, theirs = self.recoverable, other.recoverable
        return None if mine is None or theirs is None else (mine[0] - theirs[1], mine[1] - theirs[0])

    @property
    def lost(self) -> Values:
        """``[step, draw, example]``: score lost on the other groups."""
        return self.elsewhere_before - self.elsewhere

    @property
    def best_noise(self) -> Values:
        """``[1, example]``: under the best draw of noise, chosen on the half of the examples that this is not in."""
        draws = self.noise.reshape(-1, self.noise.shape[-1])
        at = np.arange(draws.shape[1]) % 2
        picked = [draws[draws[:, at != half].mean(1).argmax()] for half in (0, 1)] if at.any() else [draws[0]]
        return np.where(at == 0, picked[0], picked[-1])[None, :]

    @property
    def savings(self) -> Values | None:
        """``[draw, example]``: mean over steps of right answers after relearning less other ones after learning those.

        Only for a score that is a share of right answers.
        """
        return None if self.other is None else (self.score - self.other).mean(0)


@dataclass(frozen=True)
class Scored:
    """Which examples are scored, the same for every subject.

    Attributes:
        inside: ``[example]``: those of the group that no draw trained on.
        outside: Those of other groups.
    """

    inside: NDArray[np.bool_]
    outside: NDArray[np.bool_]


def scored(case: Case, how: RelearningSettings) -> Scored:
    """What the trials on all subjects tell of the examples they trained on: a draw trains every subject on the same.

    Raises:
        Unanswered: If they failed or were skipped, or no example is left to score.
    """
    group: Values | None = None
    gap = Unanswered(
        "inconclusive", "No trial tells which examples it trained on; one that diverges does not: take a smaller lr."
    )
    trained = np.zeros(case.plan.task.examples, dtype=bool)
    for trial in (t for subject in case.plan.subjects for row in asked(case, subject, how).relearning for t in row):
        outcome = case.outcome(trial)
        if outcome is not None and {"group", "trained"} <= outcome.values.keys():
            group = outcome.values["group"]
            trained |= outcome.values["trained"] > 0.0
            continue
        try:
            case.values(trial)
        except Unanswered as why:
            gap = why
    if group is None:
        raise gap
    inside = group == how.group
    if not bool((inside & ~trained).any()):
        raise Unanswered("not_applicable", f"Every example of group {how.group} was trained on: none is left to score.")
    if bool(inside.all()):
        because = f"Every example is of group {how.group}: there is no other group on which something could be lost."
        raise Unanswered("not_applicable", because)
    return Scored(inside & ~trained, ~inside)


def measure(case: Case, subject: SubjectRecord, how: RelearningSettings, on: Scored) -> Relearnt:
    """What the trials on a subject gave.

    Raises:
        Unanswered: If a trial it rests on failed or was skipped.
    """
    trials = asked(case, subject, how)
    task = case.plan.task
    sign = task.sign
    inside, outside = on.inside, on.outside
    table, clean = sign * case.table(trials.relearning), sign * case.clean(subject)
    return Relearnt(
        subject=subject,
        trials=tuple(trials.every),
        before=clean[inside],
        chance=sign * case.chance,
        score=table[:, :, inside],
        elsewhere=table[:, :, outside],
        elsewhere_before=clean[outside],
        norm=case.norm(trials.relearning[-1]),
        limits=((0.0, 1.0) if sign > 0 else (-1.0, 0.0)) if task.bounded else None,
        other=_taught(case, trials.other, inside) if task.measure == "accuracy" else None,
        benign=_optional(case, trials.benign, inside, sign),
        noise=sign * case.table(trials.noise)[:, :, inside],
        rounded=sign * case.table(trials.rounding)[0][:, inside],
    )


def _taught(case: Case, trials: list[list[Trial]], inside: NDArray[np.bool_]) -> Values | None:
    rows = [case.measured(row, "taught") for row in trials]
    held = [row[:, inside] for row in rows if row is not None]
    return np.stack(held) if len(held) == len(rows) else None


def _optional(case: Case, trials: list[list[Trial]], inside: NDArray[np.bool_], sign: float) -> Values | None:
    try:
        return sign * case.table(trials)[:, :, inside]
    except Unanswered:
        return None


def estimate(
    case: Case, values: Values, name: str, *, margin: float | None = None, limits: Limits | None = None
) -> Estimate:
    """Mean of ``[draw, example]`` with its interval; tested against a margin if there is one.

    Args:
        case: For the task.
        values: ``[draw, example]``.
        name: Of the estimate.
        margin: Of the test.
        limits: Least and most that such a mean can be: the interval ends there.
    """
    task = case.plan.task
    # Two scores each less its own start may differ by more than a score can.
    bounded = task.bounded and bool(np.abs(values).max() <= 1.0)
    found = mean_effect(values, margin=margin or 0.0, bounded=bounded, name=name, unit=task.measure)
    found = found if limits is None else within_range(found, *limits)
    return found if margin is not None else msgspec.structs.replace(found, p=None)
