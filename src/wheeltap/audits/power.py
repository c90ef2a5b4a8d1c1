"""Detection power: how small a planted defect this plan would find, told from copies with few to many of them."""

import math
from collections.abc import Sequence

from wheeltap.plans import Plan
from wheeltap.records import Control, Estimate, SubjectRecord
from wheeltap.stats.effect import detection_power

WANTED = 0.8
"""Probability with which the smallest strength told is found."""


def strength_of(subject: SubjectRecord) -> float:
    """Cancelling pairs per hidden layer of a graded copy."""
    assert subject.derivation is not None, "a graded copy is made by a gauge"
    return float(subject.derivation.settings["pairs"])


def corrected(plan: Plan) -> float:
    """Level of one test in a comparison of two subjects under this plan: the strictest that Holm's rule asks for."""
    return plan.alpha / len(plan.audits)


def power_control(plan: Plan, code: str, gaps: Sequence[tuple[SubjectRecord, Estimate]], *, margin: float) -> Control:
    """What the audit ``code`` would find of cancelling pairs in a comparison with the reference.

    Args:
        plan: The plan.
        code: Of the audit.
        gaps: The effect on each graded copy, as the audit tests it.
        margin: Of that test.
    """
    name = f"{code} detection power"
    if not gaps:
        return Control(name=name, kind="planted", status="skipped", because=NOT_MEASURED)
    alpha = corrected(plan)
    powers = [(strength_of(subject), detection_power(gap, alpha=alpha, margin=margin)) for subject, gap in gaps]
    smallest = smallest_found(powers)
    told = ", ".join(f"{strength:g}: {power:.2f}" for strength, power in powers)
    least = (
        f"The smallest number found with probability {WANTED:g} is {smallest:.2g}."
        if smallest is not None
        else f"None of these is found with probability {WANTED:g}."
    )
    return Control(
        name=name,
        kind="planted",
        status="passed",
        estimates=tuple(
            _estimate(f"found with {s:g} pairs", p, gap) for (s, p), (_, gap) in zip(powers, gaps, strict=True)
        ),
        because=f"Probability that a comparison like this one, with as many draws and examples, finds so many "
        f"cancelling pairs in each hidden layer: {told}. {least} Told from one copy of each kind, so roughly: other "
        "plants of the same number are easier or harder to find (wheeltap doctor --plant counts many).",
    )


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
        method="normal approximation from the effect and its standard error on one planted copy",
    )  # fmt: skip
