"""What a control may say: it has passed only if it could have failed, and failed only where a sound audit hardly could.

A sound run is void in fewer than one of a thousand runs. So what looks wrong is looked at twice: a null control fails
only where fresh draws show the same, a plant is missed only where fresh draws say that it could hardly be missed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal, ParamSpec, final

import msgspec
import numpy as np

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.core.records import Control, Estimate, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import exceeds, smallest_detectable

BASELINE_TOLERANCE = 1e-6
"""Largest difference of two clean passes, as a share of the scores' scale."""

TWIN_TOLERANCE = 1e-4
"""Largest difference between a gauge copy's scores and the original's, as a share of the scores' scale."""

COARSE = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
"""The same where sums are rounded to 16 bits: two of their steps, for a copy sums the same numbers in another order."""


def _compared(case: Case, one: Trial, two: Trial) -> tuple[Estimate, float, bool] | None:
    """Two clean trials side by side; ``None`` where one of them has no scores.

    Returns:
        The largest difference of their scores, as a share of the scores' scale; the share of equal answers; and whether
        every example has the same scores, so that much could differ and not be seen.
    """
    outcomes = [case.outcome(trial) for trial in (one, two)]
    if any(outcome is None or "scores" not in outcome.values for outcome in outcomes):
        return None
    a, b = (outcome.values["scores"].astype(np.float64) for outcome in outcomes if outcome is not None)
    # A single output has nothing beside it in its row: its scale is that over the examples, or its own size.
    spread = a - a.mean(1 if a.shape[1] > 1 else 0, keepdims=True)
    scale = float(np.abs(spread).max()) or float(np.abs(a).max()) or 1.0
    gap = float(np.abs(a - b).max()) / scale
    same, constant = float((a.argmax(1) == b.argmax(1)).mean()), len(a) > 1 and bool((a == a[0]).all())
    return Estimate.exact("largest_difference", gap, "share of the scores' scale", n=len(a)), same, constant


def baseline(case: Case) -> Control:
    """Do two passes without any disturbance agree?"""
    plan, name = case.plan, "two clean passes agree"
    both = [plan.clean(plan.reference, seed=seed) for seed in (0, 1)]
    compared = _compared(case, *both)
    if compared is None:
        known = case.known(both)
        why, status = ("A clean pass failed.", "failed") if known else ("The clean passes have not run.", "skipped")
        return Control(name=name, kind="baseline", status=status, because=why)
    estimate, _, constant = compared
    gap = estimate.value or 0.0
    failed = gap > BASELINE_TOLERANCE
    words = f"Two passes without any disturbance differ by at most {gap:.1e} of the scores' scale."
    return Control(
        name=name,
        kind="baseline",
        status="failed" if failed else "skipped" if constant else "passed",
        estimates=(estimate,),
        because=words if failed or not constant else f"{words} {_CONSTANT} would not show either.",
    )


_CONSTANT = "But every example has the same scores, so what is random in the model, or wrong in a copy of it,"


def copies(plan: Plan, case: Case) -> list[Control]:
    """For each control subject: is it really a copy that computes the same function?"""
    found: list[Control] = []
    kinds = {"twin": "reparametrized copy", "planted": "planted copy"}
    for subject in (*(() if plan.twin is None else (plan.twin,)), *plan.plants):
        if subject in plan.stronger and case.outcome(plan.clean(subject)) is None:
            continue  # it was not needed
        kind = kinds[subject.role]
        if subject in plan.stronger and subject.made is not None:
            kind += f" at {subject.made.settings.get('scale', 0.0):g} times the outgoing weights"
        exact, why, estimate = same_function(case, subject)
        found.append(
            Control(
                name=f"{kind} computes the same function",
                kind="gate",
                status="passed" if exact else "skipped",
                estimates=() if estimate is None else (estimate,),
                because=why if exact else f"{why} So it is not used as a control.",
            )
        )
    return found


def same_function(case: Case, subject: SubjectRecord) -> tuple[bool, str, Estimate | None]:
    """Whether a copy is exact, why it is said, and how far its scores are from the original's."""
    plan = case.plan
    compared = _compared(case, plan.clean(plan.reference), plan.clean(subject))
    if compared is None:
        return False, "The copy gave no finite answer.", None
    estimate, same, constant = compared
    gap = estimate.value or 0.0
    words = f"Its scores differ by at most {gap:.1e} of the scores' scale; {same:.1%} of answers are equal."
    exact = gap <= COARSE.get(subject.path.rpartition("/")[2], TWIN_TOLERANCE) and same == 1.0
    if exact and constant:
        return False, f"{words} {_CONSTANT} would not show.", estimate
    return exact, words, estimate


Kind = Literal["null", "planted", "gate"]

Arguments = ParamSpec("Arguments")

Ruling = tuple[Literal["passed", "failed", "skipped"], tuple[Estimate, ...], str]
"""What a check says: the control's status, its numbers, and the reason."""


def control(name: str, kind: Kind) -> Callable[[Callable[Arguments, Ruling]], Callable[Arguments, Control]]:
    """Makes a control of a check: it is skipped, with the reason, where the check raises ``NoAnswer``.

    Args:
        name: Of the control.
        kind: Whether it must show nothing, must be found, or says whether numbers can be used.
    """

    def made(check: Callable[Arguments, Ruling]) -> Callable[Arguments, Control]:
        @wraps(check)
        def answered(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Control:
            try:
                status, estimates, because = check(*args, **kwargs)
            except NoAnswer as gap:
                return Control(name=name, kind=kind, status="skipped", because=gap.because)
            return Control(name=name, kind=kind, status=status, estimates=estimates, because=because)

        return answered

    return made


Check = tuple[str, Kind, Callable[[str], Control]]
"""The name of a control, its kind, and what makes it by its name: that raises where it has no answer."""


def controls_of(*checks: Check) -> list[Control]:
    """What each check says; it is skipped, with the reason, where what it rests on has no answer."""
    found: list[Control] = []
    for name, kind, check in checks:
        try:
            found.append(check(name))
        except NoAnswer as gap:
            found.append(Control(name=name, kind=kind, status="skipped", because=gap.because))
    return found


def twin_of(plan: Plan) -> SubjectRecord:
    """The reparametrized copy; raises ``NoAnswer`` where there is none."""
    if plan.twin is None:
        raise NoAnswer("skipped", plan.no_controls)
    return plan.twin


NO_POWER = "No power"
"""What the reason begins with where a control was skipped because it could show nothing here."""

BLIND = 0.01
"""Probability that an instrument that sees no plant passes a planted control, over all strengths that are tried."""

MISSED = 0.001
"""A planted control fails where a sound audit would have missed the plant with a smaller probability than this."""

WRONG_WAY = 0.001
"""Two-sided p-value from which a planted copy is called sounder than the original: no plant makes it so."""

SURELY = 0.001
"""P-value from which a copy that is looked at once is said to differ."""

NULL_LEVEL = 0.999
"""Confidence with which a copy that is looked at once must differ before the run is void."""

AGAIN = 0.99
"""Confidence of the second look at a copy that seemed to differ, to the same side: after a first look at 95 %, 1 sound
run in 4,000 is void."""

AGAIN_DRAWS = 3
"""Draws of that look, in draws of the first, so that it confirms what is there."""


@final
@dataclass(frozen=True, kw_only=True)
class Null:
    """What must show nothing, looked at once or, where it seemed to differ, twice.

    Attributes:
        gap: The effect.
        again: The same by fresh draws, where there was a second look.
        margin: Effect that does not matter.
        min_effect: Effect that the audit must be able to see.
        df: Degrees of freedom of the first look's standard error; ``None`` where it is a normal one.
    """

    gap: Estimate
    again: Estimate | None = None
    margin: float
    min_effect: float
    df: int | None = None

    @property
    def apart(self) -> bool:
        """Whether the first look surely shows more than the margin."""
        return exceeds(self.gap, self.margin)

    @property
    def confirmed(self) -> bool:
        """Whether every look does, and to the same side."""
        again = self.gap if self.again is None else self.again
        same = ((again.value or 0.0) > 0.0) == ((self.gap.value or 0.0) > 0.0)
        return self.apart and same and exceeds(again, self.margin)


def silent_twice(name: str, null: Null, *, because: str) -> Control:
    """A null control: fails where both looks surely exceed the margin; else the last of them says what it is worth."""
    if null.confirmed:
        estimates = (null.gap,) if null.again is None else (null.gap, null.again)
        return Control(name=name, kind="null", status="failed", estimates=estimates, because=because)
    last = null.gap if null.again is None else null.again
    words = "" if null.again is None else f" It seemed to, but not with fresh draws: {last}."
    if null.again is None and exceeds(last, null.margin):
        words = " It seems to; a budget left no fresh draws to be sure."
    alpha, df = 1.0 - last.level, null.df if null.again is None else None
    why = _blind(smallest_detectable(last, alpha=alpha, margin=null.margin, df=df), null.min_effect)
    status = "skipped" if why or exceeds(last, null.margin) else "passed"
    return Control(name=name, kind="null", status=status, estimates=(last,), because=f"{because}{words}{why}")


def silent(
    name: str, gap: Estimate, *, margin: float, min_effect: float, because: str, one_sided: bool = False
) -> Control:
    """A null control: what must show nothing.

    It fails where the effect surely exceeds ``margin``, at the level of its interval. It passes only where a true
    effect of ``min_effect`` would have failed it 4 times out of 5; else it is skipped, for it vouches for nothing.

    Args:
        name: Of the control.
        gap: The effect.
        margin: Effect that does not matter.
        min_effect: Effect that the audit must be able to see.
        because: What was compared, in words.
        one_sided: Only a positive effect fails it.
    """
    if exceeds(gap, margin) and not (one_sided and (gap.value or 0.0) <= 0.0):
        return Control(name=name, kind="null", status="failed", estimates=(gap,), because=because)
    why = _blind(smallest_detectable(gap, alpha=1.0 - gap.level, margin=margin), min_effect)
    return Control(
        name=name, kind="null", status="skipped" if why else "passed", estimates=(gap,), because=f"{because}{why}"
    )


def surely(control: Control, effect: Estimate) -> Control:
    """A null control that is looked at once: it stays failed only where its p-value is as small as ``SURELY``."""
    if control.status != "failed" or effect.p is None or effect.p <= SURELY:
        return control
    why = f"{control.because} It seems to differ, but not so surely (p = {effect.p:.2g}) that the run is void."
    return msgspec.structs.replace(control, status="skipped", because=why)


@final
@dataclass(frozen=True, kw_only=True)
class Plants:
    """What an audit says of planted copies of rising strength, as far as they were tried.

    Attributes:
        effect: Of the last one tried: its interval is of ``plant_level``, its p-value of "no more than the margin".
        copy: The last one tried.
        weaker: How many weaker ones were tried before.
        missed: Probability that a sound audit would have missed the last one; ``None`` where that was not measured.
    """

    effect: Estimate
    copy: SubjectRecord
    weaker: int = 0
    missed: float | None = None

    @property
    def found(self) -> bool:
        """Whether the last one is surely found."""
        return self.effect.low is not None and self.effect.low > 0.0

    @property
    def strength(self) -> str:
        """What was planted, in words."""
        settings = {} if self.copy.made is None else self.copy.made.settings
        size = f" at {settings['scale']:g} times the outgoing weights" if "scale" in settings else ""
        return f"cancelling units{size}"


def plant_level(strengths: int) -> float:
    """Confidence level at which each of so many strengths is tested, so that all together are found by mistake rarely.

    Of a two-sided interval of which one end counts.
    """
    return 1.0 - 2.0 * BLIND / max(strengths, 1)


def found_planted(name: str, plants: Plants, *, because: str) -> Control:
    """A planted control: what must be found, at the first strength that is strong enough.

    It passes where a strength is surely found. It fails where the last one is missed although a sound audit would
    hardly have missed it, or is shown to make the copy sounder; else it is skipped, for it has no power here.

    Args:
        name: Of the control.
        plants: What was found.
        because: What was planted and what the instrument says of it, in words.
    """
    effect, missed = plants.effect, plants.missed
    estimates = (effect,)
    if missed is not None:
        predicted = Estimate(
            name="missed by a sound audit", value=missed, low=None, high=None, level=effect.level, n=effect.n,
            unit="probability", method="predicted from draws of their own",
        )  # fmt: skip
        estimates = (effect, predicted)
    if plants.found:
        return Control(name=name, kind="planted", status="passed", estimates=estimates, because=because)
    wrong = effect.p is not None and effect.p <= WRONG_WAY and (effect.value or 0.0) < 0.0
    if wrong or (missed is not None and missed < MISSED):
        how = "taken for sounder" if wrong else f"missed, as it is in less than {MISSED:g} of sound runs"
        why = f"{because} It was {how}."
        return Control(name=name, kind="planted", status="failed", estimates=estimates, because=why)
    chance = "" if missed is None else f"; with as many draws and examples it is missed with probability {missed:.2g}"
    others = " (nor were weaker ones)" if plants.weaker else ""
    why = (
        f" {NO_POWER}: it is not shown to be found{chance}{others}. So this run does not show that the audit sees such "
        "defects in this model. More draws may."
    )
    return Control(name=name, kind="planted", status="skipped", estimates=estimates, because=f"{because}{why}")


def destroyed(name: str, effect: Estimate, *, least: float, surely: Estimate | None, because: str) -> Control:
    """A planted control of what costs most of the score: what must be large is not shown by a little.

    Args:
        name: Of the control.
        effect: What is lost.
        least: Loss that must be exceeded.
        surely: The same at a level so high that no sound run ends below ``least``; ``None`` while draws are too few.
        because: What was done, in words.
    """
    if effect.low is not None and effect.low > least:
        return Control(name=name, kind="planted", status="passed", estimates=(effect,), because=because)
    if surely is not None and surely.high is not None and surely.high < least:
        missed = (
            f" It is shown to cost less than {least:.2g}: the score does not rest on the weights that disturbances "
            "reach."
        )
        return Control(name=name, kind="planted", status="failed", estimates=(effect,), because=f"{because}{missed}")
    why = f" {NO_POWER}: the interval is too wide to show that it costs more than {least:.2g}, or that it does not."
    return Control(name=name, kind="planted", status="skipped", estimates=(effect,), because=f"{because}{why}")


def _blind(least: float | None, min_effect: float) -> str:
    """Why a control could hardly have failed; empty where it could."""
    if least is None:
        return f" {NO_POWER}: it could not have failed, whatever was different: its interval is open."
    if least > min_effect:
        return (
            f" {NO_POWER}: it could hardly have failed: only a difference of {least:.2g} or more would have failed it "
            f"4 times out of 5, and the smallest effect of interest is {min_effect:.2g}. Measure more, or lower the "
            "margin."
        )
    return ""
