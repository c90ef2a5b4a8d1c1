"""Whether every claim holds at its level: simulations in which the truth is known."""

from dataclasses import dataclass
from typing import Final

WRONG: Final = 0.06
"""Most of false verdicts at a level of .05."""

HELD: Final = 0.93
"""Least of intervals of 95 % that hold the truth."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one simulated design.

    Attributes:
        claim: What is judged.
        design: The numbers that it is judged on.
        figure: Which share of families is counted.
        rate: That share.
        low: Least that passes.
        high: Most that passes; rates are compared without an allowance for few families.
        families: How many were simulated.
        also: Further figures, by name.
    """

    claim: str
    design: str
    figure: str
    rate: float
    low: float = 0.0
    high: float = 1.0
    families: int
    also: tuple[tuple[str, float], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the rate lies within the bar."""
        return self.low <= self.rate <= self.high

    def __str__(self) -> str:
        """One line."""
        more = "".join(f", {name} {value:.3f}" for name, value in self.also)
        mark = " " if self.passed else "*"
        return f"{mark} {self.claim:24}{self.design:48}{self.figure} {self.rate:.3f}{more} ({self.families:,} families)"
