"""Estimates as plain strings: what a number is called, and how it was made."""

from collections.abc import Iterable

from wheeltap.core.records import Estimate
from wheeltap.report import words


def caption(estimate: Estimate) -> str:
    """What an estimate's number is: its name and, unless the name says it, its unit."""
    # A word with a point in it is a module's path.
    parts = [part if "." in part else part.replace("_", " ") for part in words.plain(estimate.name).split(" ")]
    name, unit = " ".join(parts), words.plain(estimate.unit)
    return name if not unit or unit in name else f"{name} ({unit})"


def _bounded(estimate: Estimate) -> bool:
    """Whether an estimate has an interval that is not a point known exactly."""
    return estimate.level < 1 and (estimate.low is not None or estimate.high is not None)


def levels(estimates: Iterable[Estimate]) -> str:
    """The confidence level of a set of intervals, or their range."""
    known = sorted({estimate.level for estimate in estimates if _bounded(estimate)})
    if not known:
        return "no intervals"
    if len(known) == 1:
        return f"{words.percent(known[0])} intervals"
    return f"intervals at {words.percent(known[0])} to {words.percent(known[-1])}"


def parts(estimate: Estimate, *, found: bool) -> tuple[str, str]:
    """The value and its interval; of what an exact test found though an approximate interval holds 0, the p-value."""
    value, bracket = words.parts(estimate)
    if found and estimate.p is not None and None not in (estimate.low, estimate.high):
        holds = (estimate.low or 0.0) <= 0.0 <= (estimate.high or 0.0)
        return value, _p(estimate.p) if holds else bracket
    return value, bracket


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def line(estimate: Estimate) -> tuple[str, str, str]:
    """Name, number with interval, and how the interval was made."""
    how = [f"n = {estimate.n:,}", words.plain(estimate.method)]
    if _bounded(estimate):
        how.insert(0, f"{words.percent(estimate.level)} interval")
    if estimate.p is not None:
        how.append(_p(estimate.p))
    return caption(estimate), words.interval(estimate), ", ".join(part for part in how if part)
