"""Detection power: how small a planted defect this plan would find, told from copies with few to many of them."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from wheeltap.core.records import Control, Estimate, SubjectRecord
from wheeltap.plans.plan import Plan
from wheeltap.stats._scipy import ascending
from wheeltap.stats.effect import detection_power

WANTED = 0.8
"""Probability with which the smallest strength told is found."""


def strength_of(subject: SubjectRecord) -> float:
    """Cancelling pairs per hidden layer of a graded copy."""
    assert subject.made is not None, "a graded copy is made by a gauge"
    return float(subject.made.settings["pairs"])


def corrected(plan: Plan) -> float:
    """Level of one test in a comparison of two subjects under this plan: the strictest that Holm's rule asks for."""
    return plan.alpha / len(plan.audits)


def power_control(plan: Plan, code: str, gaps: Sequence[tuple[SubjectRecord, Estimate]], *, margin: float) -> Control:
    """What the audit ``code`` would find of cancelling pairs in a comparison with the reference.

    Args:
        plan: The plan.
        code: Of the audit.
        gaps: The effect on each graded copy, as the audit tests it: several copies of each strength.
        margin: Of that test.
    """
    name = f"{code} detection power"
    if not gaps:
        return Control(name=name, kind="planted", status="skipped", because=NOT_MEASURED)
    powers = powers_of([(strength_of(subject), gap) for subject, gap in gaps], alpha=corrected(plan), margin=margin)
    smallest = smallest_found(powers)
    told = ", ".join(f"{strength:g}: {power:.2f}" for strength, power in powers)
    least = (
        f"The smallest number found with probability {WANTED:g} is {smallest:.2g}."
        if smallest is not None
        else f"None of these is found with probability {WANTED:g}: with more draws or examples smaller effects are."
    )
    return Control(
        name=name,
        kind="planted",
        status="skipped" if smallest is None else "passed",
        estimates=tuple(_estimate(f"found with {s:g} pairs", p, gaps[0][1]) for s, p in powers),
        because=f"Probability that a comparison like this one, with as many draws and examples, finds so many "
        f"cancelling pairs in each hidden layer: {told}. {least} Told from {len(gaps)} planted copies, so roughly; "
        "wheeltap doctor --plant counts as many as you like.",
    )


def powers_of(gaps: Sequence[tuple[float, Estimate]], *, alpha: float, margin: float) -> list[tuple[float, float]]:
    """(strength, probability of being found), strengths rising.

    The mean effect of a strength's copies, made non-decreasing in the strength; the spread between copies of one
    strength is pooled over strengths, because two or three copies say little of it.

    Args:
        gaps: (strength, effect of one copy).
        alpha: Level of the test.
        margin: Of the test.
    """
    strengths = sorted({strength for strength, _ in gaps})
    copies = [[gap for at, gap in gaps if at == strength] for strength in strengths]
    values = [np.array([gap.value or 0.0 for gap in some]) for some in copies]
    means = ascending(np.array([some.mean() for some in values]))
    freedom = len(gaps) - len(strengths)
    squares = sum(float(np.square(some - some.mean()).sum()) for some in values)
    spread = math.sqrt(squares / freedom) if freedom else 0.0
    return [
        (strength, detection_power(_typical(some, float(mean)), alpha=alpha, margin=margin, spread=spread))
        for strength, some, mean in zip(strengths, copies, means, strict=True)
    ]


def _typical(copies: Sequence[Estimate], mean: float) -> Estimate:
    """An effect of size ``mean`` with the typical uncertainty of ``copies``."""
    if any(gap.low is None or gap.high is None for gap in copies):
        return msgspec.structs.replace(copies[0], value=mean, low=None, high=None)
    half = float(np.mean([((gap.high or 0.0) - (gap.low or 0.0)) / 2 for gap in copies]))
    return msgspec.structs.replace(copies[0], value=mean, low=mean - half, high=mean + half)


NOT_MEASURED = (
    "No graded copies were made, so how small a defect this plan would find is not known. "
    "Measure it with: wheeltap doctor --plant MODEL"
)


def smallest_found(powers: Sequence[tuple[float, float]]) -> float | None:
    """The strength at which power first reaches ``WANTED``, between two strengths by straight line on a log axis.

    Args:
        powers: (strength, power), strengths rising.
    """
    for at, (strength, power) in enumerate(powers):
        if power >= WANTED:
            if at == 0:
                return strength
            before, low = powers[at - 1]
            share = (WANTED - low) / (power - low)
            return before * math.exp(share * math.log(strength / before))
    return None


def _estimate(name: str, power: float, gap: Estimate) -> Estimate:
    return Estimate(
        name=name, value=power, low=None, high=None, level=gap.level, n=gap.n, unit="probability",
        method="normal approximation from effects, their standard errors and their spread over planted copies",
    )  # fmt: skip
