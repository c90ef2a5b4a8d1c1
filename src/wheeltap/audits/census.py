"""WT002: is every weight of a plausible size? Read from the weights alone, in every plan."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, final

import numpy as np

from wheeltap.audits.base import Case, Hypothesis, NoAnswer
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Words
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core.records import Estimate, SubjectRecord
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.census import CENSUS, CensusSettings
from wheeltap.stats.effect import score_interval

ALWAYS: Final = ("census",)
"""Audits of every plan: what they read takes no pass."""

WORDS: Final = Words("outlier weight", "measured", "measured")

DO: Final = (
    "A number like that is a corrupt weight until shown otherwise: compare the file with the original, download it "
    "again, or check what converted its dtype."
)

_SMALLER: Final = "A weight that became smaller, or zero, does not stand out, and is not looked for."

_ROUNDED: Final = 10.0
"""Bits from which a ratio is given as a power of two."""


@final
class CensusAudit(SingleReadingAudit[Arrays]):
    """Looks at the size of every weight and buffer once; it is part of every plan and takes no pass."""

    name = "census"
    code = "WT002"
    title = "Weight census"
    reads = (
        "Every weight is read once and compared with the next largest of its tensor. One that is far larger than all"
        " beside it is corrupt until shown otherwise: a single flipped bit of an exponent does that, and the score need"
        " not change."
    )
    asks = "census"
    settings_type = CensusSettings
    reading = CENSUS

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """None: the model is not run."""
        return 0.0

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Arrays:
        """As it is."""
        return read

    def singles(self, case: Case, subject: SubjectRecord, read: Arrays) -> list[Hypothesis]:
        """Which weights stand out; where none does, what would have."""
        count, tensors, tried, seen = int(read["outliers"]), int(read["tensors"]), read["tried"], read["seen"]
        top, facts = int(tried[0]), _facts(read)  # by exponent bit, the top one first: weights of which it is 0
        numbers = [Estimate.exact("outlier weights", float(count), "weights")]
        if top:
            shown = (np.arange(top) < seen[0]).astype(np.float64)
            numbers.append(score_interval(shown, bounded=True, name="top bit flips seen", unit="share"))
        if not count:
            sight = ""
            if top:
                sight = (
                    f"A flip of the top exponent bit would have shown in {seen[0]:,} of {top:,} weights drawn at "
                    f"random, a flip from 0 to 1 of any exponent bit in {seen.sum():,} of {tried.sum():,}."
                )
            found = f"No weight of {subject.name} stands out by its size ({tensors} tensors read)."
            said = " ".join((found, sight, _SMALLER, facts)).strip()
            return [Hypothesis(test=None, status="measured", found=said, beside=tuple(numbers), words=WORDS)]
        others = self._others(case, subject)
        named = [f"{at} = {said}{_elsewhere(at, others)}" for at, said in _outliers(read).items()]
        more = count - len(named)
        listed = "; ".join(named) + (f"; and {more} more" if more else "")
        first = f"{subject.name}: {named[0]}{f' (and {count - 1} more)' if count > 1 else ''}."
        return [
            Hypothesis(
                test=None, status="found", found=f"{subject.name}: {listed}. {DO} {facts}".strip(),
                brief=f"{first} {DO}", beside=tuple(numbers), words=WORDS,
            )
        ]  # fmt: skip

    def _others(self, case: Case, subject: SubjectRecord) -> dict[str, Arrays]:
        """What was read of the other subjects, as far as it was."""
        found: dict[str, Arrays] = {}
        for other in case.plan.subjects:
            with suppress(NoAnswer):
                found |= {} if other == subject else {other.name: self.read(case, other)}
        return found


def _outliers(read: Arrays) -> dict[str, str]:
    """Those that are named: path and indices, and value and what it is compared with, in words."""
    columns = (read[name] for name in ("letters", "places", "values", "number", "beyond"))
    return dict(_outlier(*one) for one in zip(*columns, strict=True))


def _outlier(
    letters: Sequence[float], places: Sequence[float], value: Sequence[float], number: bool, beyond: Sequence[float]
) -> tuple[str, str]:
    """Where a weight is; its value, and how far it is beyond the next largest."""
    name = "".join(chr(int(letter)) for letter in letters if letter)
    place = ", ".join(str(int(at)) for at in places if at >= 0)
    said = f"{math.ldexp(float(value[0]), int(value[1])):.2g}" if number else "NaN"
    tensor, row = (float(bits) for bits in beyond)
    if tensor >= 0.0:
        said += f", {_times(tensor)} the next largest of its tensor"
    if row > tensor >= 0.0:
        said += f" ({_times(row)} that of its row)"
    return f"{name}[{place}]", said


def _times(bits: float) -> str:
    return f"2^{bits:.0f} times" if bits >= _ROUNDED else f"{2.0**bits:.0f} times"


def _elsewhere(at: str, others: dict[str, Arrays]) -> str:
    """In which other subjects the same weight does not stand out; not known of one with more than are named."""
    known = {name: _outliers(read) for name, read in others.items() if int(read["outliers"]) == len(read["number"])}
    without = [name for name, outliers in known.items() if at not in outliers]
    return f" (no outlier in {', '.join(without)})" if without else ""


def _facts(read: Arrays) -> str:
    """What else was counted, in sentences."""
    rows, dead, repeated, over = (int(read[name]) for name in ("rows", "dead", "repeated", "over"))
    said = (
        (dead, f"Rows that are all zero: {dead:,} of {rows:,}."),
        (repeated, f"Rows that repeat another one bit for bit: {repeated:,} of {rows:,}."),
        (over, f"Values that float16 cannot hold (above 65,504): {over:,}."),
    )
    return " ".join(text for count, text in said if count)
