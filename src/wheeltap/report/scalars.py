"""The report as flat names and numbers, for any logger of experiments."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from wheeltap.core.records import Estimate, Finding, FindingStatus
from wheeltap.core.report import ReportRecord
from wheeltap.report import deployment, gate, view
from wheeltap.report.origin import FILE

VERDICTS: Final[dict[FindingStatus, float]] = {"excluded": -1.0, "inconclusive": 0.0, "found": 1.0}
"""Verdicts as numbers: more is worse. An undecided one that leans to a loss is ``LEANING``; no other has a number."""

LEANING = 0.5

_BESIDE: Final[dict[str, str]] = {"score": "score", "answers changed": "changed", "share kept": "kept"}
"""What stands beside a tested loss, by the name of its estimate."""


def scalars(record: ReportRecord) -> dict[str, float]:
    """Flat names and finite numbers, losses and scores in units of the measure.

    - ``passed`` (1 or 0) and ``coverage`` (the least share of the weights, of all models) are those of the report; a
      report loaded from a file has no ``passed``, because it decides nothing.
    - A model has ``MODEL/score``, and for each scheme ``MODEL/SCHEME/`` followed by ``lost``, ``lost_low``,
      ``lost_high``, ``score``, ``changed``, ``kept`` and ``verdict``.
    - A pair has ``A-vs-B/SCHEME/`` followed by ``difference``, its ends and ``verdict``; ``score`` is a scheme here.
    - A finding without a scheme has its code in that place, and ``value`` with its ends.
    - A metric of a study has ``COHORT/METRIC`` with its ends, the mean over nets, by the metric's key.

    A verdict is -1 for safe (equivalent, excluded), 0 for cannot tell, .5 for may cost (may differ) and 1 for costs
    (differ, found). What concludes nothing has no numbers: in a void report, none has.

    Letters, digits, ``_``, ``-`` and ``.`` stay in names; anything else becomes ``-``.
    """
    found: dict[str, float | None] = {}
    if FILE not in record.provenance:
        found["passed"] = float(gate.exit_code(record, "costs") == gate.PASSED)
    if record.study is None:
        shares = [share for s in record.subjects if (share := deployment.coverage(record, s)) is not None]
        found["coverage"] = min(shares, default=None)
    if record.study is not None and not record.void:  # the mean of every metric over every cohort
        cohorts = _apart(cohort.name for cohort in record.study.cohorts)
        for row in record.study.rows:
            for one in row.cohorts:
                found |= _ends(f"{cohorts[one.cohort]}/{safe(row.metric.key)}", [one.mean])
    names, pairs = _apart(finding.subject for finding in record.findings), set(view.pairs(record))
    for finding, row in zip(record.findings, _rows(record), strict=True):
        if finding.status in gate.MEASURED and not record.void:
            stated = _numbers(record, finding, row, pair=finding.subject in pairs)
            found |= {f"{names[finding.subject]}/{name}": value for name, value in stated}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def _numbers(record: ReportRecord, finding: Finding, row: str, *, pair: bool) -> Iterator[tuple[str, float | None]]:
    """Numbers of one finding, by what follows the name of its subject."""
    asks = record.instrument(finding.code).asks
    if asks == "score" and not pair:
        yield from _ends("score", finding.estimates)
        return
    what = "difference" if pair else "lost" if finding.scheme else "value"
    yield from _ends(f"{row}/{what}", finding.estimates)
    yield f"{row}/verdict", LEANING if finding.leaning else VERDICTS.get(finding.status)
    if finding.scheme and not pair:
        beside = {estimate.name: estimate.value for estimate in finding.estimates}
        yield from ((f"{row}/{key}", beside.get(name)) for name, key in _BESIDE.items())


def _ends(name: str, numbers: Sequence[Estimate]) -> Iterator[tuple[str, float | None]]:
    """The first of some numbers and its ends."""
    for first in numbers[:1]:
        yield from ((name, first.value), (f"{name}_low", first.low), (f"{name}_high", first.high))


def _rows(record: ReportRecord) -> list[str]:
    """What each finding is called below its subject: its scheme or code, with its title where several share that."""
    score = {f.code for f in record.findings if view.is_score(record, f.code)}
    plain = ["score" if f.code in score else safe(f.scheme or f.code) for f in record.findings]
    placed = Counter((f.subject, row) for f, row in zip(record.findings, plain, strict=True))
    several = {row for (_, row), count in placed.items() if count > 1}
    return [f"{row}-{safe(f.title)}" if row in several else row for f, row in zip(record.findings, plain, strict=True)]


def safe(name: str) -> str:
    """A name with nothing in it that has a meaning to loggers."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def _apart(names: Iterable[str]) -> dict[str, str]:
    """A safe name for each, no two the same."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        first = made = safe(name)
        at = 2
        while made in found.values():
            made, at = f"{first}-{at}", at + 1
        found[name] = made
    return found
