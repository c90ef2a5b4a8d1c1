"""The page of a study: the answer, rules with verdicts, a dot for every net, metrics by cohort; the rest below."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from wheeltap.core.report import ReportRecord
from wheeltap.core.study import Cohort, MetricRow, StudyRecord
from wheeltap.report import cohorts, figures, words
from wheeltap.report.drawn import markup
from wheeltap.report.grid import Part

MOST_CHARTS: Final = 6
"""Metrics that are drawn: those of the rules first."""

MOST_SERIES: Final = 6
"""Cohorts of one chart, likewise."""

MOST_ROWS: Final = 8
"""Metrics of a table that are not folded away."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One metric drawn: a row for each cohort, a ring for each net; ``alt`` says what it shows."""

    title: str
    code: str
    svg: Any
    alt: str
    word: str
    tone: str
    reads: str


def context(record: ReportRecord, study: StudyRecord) -> dict[str, Any]:
    """What the template of a study shows beside what every page has."""
    parts = cohorts.metric_parts(study)
    shown = cohorts.cohorts(study)[:MOST_SERIES]
    return {
        "study": study,
        "facts": cohorts.facts(record, study),
        "lost": cohorts.left_out(study),
        "decided": cohorts.decided(record, study),
        "rules": cohorts.rules_part(record, study),
        "charts": [_chart(row, shown) for row in cohorts.rows(study)[:MOST_CHARTS]],
        "undrawn": (max(len(study.rows) - MOST_CHARTS, 0), max(len(study.cohorts) - len(shown), 0)),
        "tables": [_cut(part, slice(MOST_ROWS)) for part in parts],
        "more": [_cut(part, slice(MOST_ROWS, None)) for part in parts] if len(study.rows) > MOST_ROWS else [],
        "cohorts": [
            (words.plain(c.name), cohorts.ROLES[c.role], cohorts.counted(study, c), words.plain(c.about))
            for c in study.cohorts
        ],
        "reads": [(words.plain(row.metric.title), cohorts.reads(row)) for row in cohorts.rows(study)],
        "members": cohorts.members(study),
        "notes": (),
    }


def top(record: ReportRecord, study: StudyRecord) -> dict[str, Any]:
    """What a notebook shows of a study."""
    return {
        "heads": (),
        "shipped": (),
        "notes": (cohorts.facts(record, study), *map(words.plain, study.caveats[:1])),
        "verdicts": {"levels": cohorts.level(study)},
        "parts": (cohorts.rules_part(record, study), *cohorts.metric_parts(study)),
    }


def _cut(part: Part, rows: slice) -> Part:
    return replace(part, claims=part.claims[rows])


def _chart(row: MetricRow, shown: Sequence[Cohort]) -> Chart:
    means: list[dict[str, Any]] = []
    nets: list[dict[str, Any]] = []
    there = [cohort for cohort in shown if cohorts.of_cohort(row, cohort) is not None]
    for at, cohort in enumerate(there):
        found = cohorts.of_cohort(row, cohort)
        assert found is not None, "cohorts without the number were left out"
        ends = {"value": found.mean.value, "low": found.mean.low, "high": found.mean.high}
        means.append({"row": at, "studied": cohort.role == "studied", **ends})
        # A single net is its own mean.
        nets += [{"row": at, "value": value} for value in found.values if len(found.values) > 1]
    names, unit = [cohort.name for cohort in there], words.plain(row.metric.unit)
    svg = figures.svg(figures.net_chart(names, means, nets, unit=unit))
    title = words.plain(row.metric.title)
    return Chart(
        title=title, code=words.plain(row.metric.code), svg=markup(svg),
        alt=f"Dot plot of {title}, a row for each cohort. {cohorts.spoken(row, there)}", word=words.plain(row.verdict),
        tone="alarm" if row.alarm else "quiet", reads=cohorts.reads(row),
    )  # fmt: skip
