"""A study arranged for reading: rules with their verdicts, metrics by cohort, members; what every renderer shows."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from wheeltap.core.plain import many
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import Cohort, CohortRow, Member, MetricRow, Rule, StudyRecord
from wheeltap.report import deployment, estimates, figures, view, words
from wheeltap.report.drawn import markup
from wheeltap.report.origin import missing_trials
from wheeltap.report.view import MOST_COLUMNS, Cell, Claim, Part
from wheeltap.studies.rules import subject_of

ROLES: Final = {
    "studied": "asked about",
    "compared": "what they are compared with",
    "null": "control: must show nothing",
    "planted": "control: must be found",
    "given": "given, for comparison",
}
"""What a cohort is for, in words."""

_COMPARED: Final = ("one_of", "paired", "difference", "ratio")
"""Statistics that compare sizes: by differences, or by ratios."""

_STATISTICS: Final = {
    "one_of": "distance of {first} from the mean of {last}",
    "paired": "mean of the pairs' differences, {first} minus {last}",
    "difference": "mean of {first} minus mean of {last}",
    "ratio": "geometric mean of {first} divided by that of {last}",
    "auc": "probability that one of {first} has more than one of {last}",
    "association": "rank correlation with {other} over members of {all}",
    "exact": "share of members of {all} above {above}",
    "mean": "mean of {first}",
    "added": "AUC that it adds to {beyond}, for telling {first} from {last}",
}

_RATIOS: Final = {
    "one_of": "ratio of {first} to the geometric mean of {last}",
    "paired": "geometric mean of the pairs' ratios, {first} divided by {last}",
    "difference": _STATISTICS["ratio"],
}
"""The same, of metrics that are compared by ratios."""

_SIDES: Final = {
    "high": "More of it speaks for what the study asks about.",
    "low": "Less of it speaks for what the study asks about.",
    "": "",
}

_NAMED: Final = 3
"""Nets left out for one reason that are named one by one."""


@dataclass(frozen=True, kw_only=True)
class RuleOutcome:
    """One rule with what came of it.

    Attributes:
        name: Its title.
        of: The cohorts that it is about; empty where the title names them.
        asks: The statistic, in words.
        counts: From which value on it counts as an effect.
        least: What four of five such studies would have found.
    """

    name: str
    of: str
    code: str
    asks: str
    counts: str
    value: str
    bracket: str
    word: str
    tone: words.Tone
    least: str
    supports: str
    refutes: str
    because: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Net:
    """One member with all of its numbers, each in words."""

    name: str
    cohort: str
    status: str
    because: str
    note: str
    numbers: tuple[tuple[str, str], ...]


# ---- rules ----------------------------------------------------------------------------------------------------


def decided(record: ReportRecord, study: StudyRecord) -> list[RuleOutcome]:
    """Every rule with its finding."""
    said = {(one.code, one.title, one.subject): one for one in record.findings}
    return [_decided(study, rule, said.get((rule.code, rule.title, subject_of(rule)))) for rule in study.rules]


def _decided(study: StudyRecord, rule: Rule, finding: Finding | None) -> RuleOutcome:
    named = all(cohort in rule.title for cohort in rule.cohorts)
    first = finding.estimates[0] if finding is not None and finding.estimates else None
    value, bracket = ("", "") if first is None else words.parts(first)
    least = None if finding is None else finding.smallest_detectable
    return RuleOutcome(
        name=words.plain(rule.title), of="" if named else words.plain(subject_of(rule)), code=words.plain(rule.code),
        asks=_asks(study, rule), counts=_counts(study, rule, finding), value=value, bracket=bracket,
        word="not judged" if finding is None else view.verdict(finding),
        tone="quiet" if finding is None else view.tone_of(finding),
        least="" if least is None else words.number(least), supports=words.plain(rule.supports),
        refutes=words.plain(rule.refutes),
        because=() if finding is None else words.paragraphs(finding.because),
    )  # fmt: skip


def _asks(study: StudyRecord, rule: Rule) -> str:
    titles = {row.metric.key: row.metric.title for row in study.rows}
    beyond = ", ".join(titles.get(key, key) for key in rule.beyond)
    stated = {**_STATISTICS, **_RATIOS} if _by_ratio(study, rule) else _STATISTICS
    said = stated[rule.statistic].format(
        first=rule.cohorts[0], last=rule.cohorts[-1], all=", ".join(rule.cohorts), above=f"{rule.above:g}",
        other=titles.get(rule.with_metric, rule.with_metric), beyond=beyond,
    )  # fmt: skip
    if beyond and rule.with_metric:
        said += f", the part of {beyond} removed"
    if rule.within:
        said += ", each cohort's mean removed" if rule.with_metric else ", each with its partner"
    return words.plain(f"{titles.get(rule.metric, rule.metric)}: {said}")


def _by_ratio(study: StudyRecord, rule: Rule) -> bool:
    """Whether a rule's effect is a ratio."""
    log = any(row.metric.log for row in study.rows if row.metric.key == rule.metric)
    return rule.statistic == "ratio" or (log and rule.statistic in _COMPARED)


def _counts(study: StudyRecord, rule: Rule, finding: Finding | None) -> str:
    """From where on an effect counts, in units of the statistic."""
    if rule.relative and (finding is None or finding.margin is None):
        share = f"{words.percent(rule.margin)} of the mean of {words.plain(rule.cohorts[-1])}"
        return {"more": f"more by {share}", "less": f"less by {share}", "either": f"off by {share}"}[rule.direction]
    margin = rule.margin if finding is None or finding.margin is None else finding.margin
    known = {"auc": 0.5, "exact": rule.share}  # what is no effect
    null = 1.0 if _by_ratio(study, rule) else known.get(rule.statistic, 0.0)
    low, high = (words.number(end, like=(null - margin, null + margin)) for end in (null - margin, null + margin))
    either = f"not in {low} to {high}" if null else f"beyond \u00b1{high}"
    return {"more": f"above {high}", "less": f"below {low}", "either": either}[rule.direction]


def rules_part(record: ReportRecord, study: StudyRecord) -> Part:
    """The rules as a table: effect, what counts, verdict."""
    claims = [
        Claim(
            name=one.name, code=one.code, caption=one.of,
            cells=(
                Cell(value=one.value, bracket=one.bracket), Cell(value=one.counts), Cell(word=one.word, tone=one.tone),
            ),
        )
        for one in decided(record, study)
    ]  # fmt: skip
    level = estimates.levels(finding.estimates[0] for finding in record.findings if finding.estimates)
    heads = (("Effect", level), ("Counts if", ""), ("Verdict", ""))
    return Part(title="Rules, fixed before the first net was made", heads=heads, claims=tuple(claims), label="Rule")


# ---- metrics --------------------------------------------------------------------------------------------------


def rows(study: StudyRecord) -> list[MetricRow]:
    """Every metric, those that a rule is about first."""
    asked = {rule.metric for rule in study.rules}
    return sorted(study.rows, key=lambda row: row.metric.key not in asked)


def cohorts(study: StudyRecord) -> list[Cohort]:
    """Every cohort, those that a rule is about first."""
    asked = list(dict.fromkeys(name for rule in study.rules for name in rule.cohorts))
    return sorted(study.cohorts, key=lambda cohort: cohort.name not in asked)


def of_cohort(row: MetricRow, cohort: Cohort) -> CohortRow | None:
    """A metric's numbers of one cohort."""
    return next((one for one in row.cohorts if one.cohort == cohort.name), None)


def metric_parts(study: StudyRecord) -> tuple[Part, ...]:
    """Metrics by cohorts, in parts that fit side by side."""
    return tuple(_metric_parts(study))


def _metric_parts(study: StudyRecord) -> Iterator[Part]:
    several, title = cohorts(study), "Mean over nets, with the interval of that mean"
    for start in range(0, len(several), MOST_COLUMNS):
        shown = several[start : start + MOST_COLUMNS]
        claims = [
            Claim(
                name=words.plain(row.metric.title), code=words.plain(row.metric.code),
                caption=words.plain(row.metric.unit), cells=tuple(cell(study, row, cohort) for cohort in shown),
            )
            for row in rows(study)
        ]  # fmt: skip
        heads = tuple((words.plain(cohort.name), counted(study, cohort)) for cohort in shown)
        yield Part(title=f"{title}{', continued' if start else ''}", heads=heads, claims=tuple(claims), label="Metric")


def cell(study: StudyRecord, row: MetricRow, cohort: Cohort) -> Cell:
    """A metric's mean over a cohort; how many nets have it, where some of those measured do not."""
    found = of_cohort(row, cohort)
    if found is None:
        return Cell(word="no number")
    value, bracket = words.parts(found.mean)
    fewer = len(found.values) < _measured(study, cohort)
    said = [words.plain(found.beside), f"{len(found.values)} of {len(cohort.members)} nets" if fewer else ""]
    return Cell(value=value, bracket=bracket, word="; ".join(part for part in said if part))


def _measured(study: StudyRecord, cohort: Cohort) -> int:
    return sum(member.cohort == cohort.name and member.status == "done" for member in study.members)


def counted(study: StudyRecord, cohort: Cohort) -> str:
    """How many nets a cohort has, and of how many there are numbers."""
    there, whole = _measured(study, cohort), len(cohort.members)
    nets = f"{whole} net{'s' * (whole != 1)}"
    return nets if there == whole else f"{there} of {nets}"


def reads(row: MetricRow) -> str:
    """What a metric measures, and on which side the property lies."""
    return " ".join(part for part in (words.plain(row.metric.reads), _SIDES[row.metric.toward]) if part)


# ---- members --------------------------------------------------------------------------------------------------


def left_out(study: StudyRecord) -> list[Member]:
    """Members that are in no number."""
    return [member for member in study.members if member.status != "done"]


def members(study: StudyRecord) -> list[Net]:
    """Every member with every number that it has."""
    return [
        Net(
            name=words.plain(member.name), cohort=words.plain(member.cohort), status=words.plain(member.status),
            because=words.plain(member.because), note=words.plain(member.note),
            numbers=tuple(
                (words.plain(row.metric.title), words.number(value)) for row, value in _numbers(study, member)
            ),
        )
        for member in study.members
    ]  # fmt: skip


def _numbers(study: StudyRecord, member: Member) -> Iterator[tuple[MetricRow, float]]:
    for row in study.rows:
        for one in row.cohorts:
            if one.cohort == member.cohort and member.name in one.members:
                yield row, one.values[one.members.index(member.name)]


def columns(study: StudyRecord) -> dict[str, tuple[type, list[str | float | int | None]]]:
    """Columns of the table with a row for each member and metric, and one for a member without numbers.

    Columns: ``cohort role member status because metric title code unit value``.
    """
    roles = {cohort.name: cohort.role for cohort in study.cohorts}
    found = [(member, pair) for member in study.members for pair in (*_numbers(study, member),) or (None,)]
    metrics = [None if pair is None else pair[0].metric for _, pair in found]
    return {
        "cohort": (str, [member.cohort for member, _ in found]),
        "role": (str, [roles.get(member.cohort) for member, _ in found]),
        "member": (str, [member.name for member, _ in found]),
        "status": (str, [member.status for member, _ in found]),
        "because": (str, [member.because for member, _ in found]),
        "metric": (str, [metric and metric.key for metric in metrics]),
        "title": (str, [metric and metric.title for metric in metrics]),
        "code": (str, [metric and metric.code for metric in metrics]),
        "unit": (str, [metric and metric.unit for metric in metrics]),
        "value": (float, [None if pair is None else pair[1] for _, pair in found]),
    }


# ---- around them ----------------------------------------------------------------------------------------------


def facts(record: ReportRecord, study: StudyRecord) -> str:
    """Nets, examples and controls in one line."""
    whole, lost = len(study.members), len(left_out(study))
    nets = f"{many(whole, 'net')} in {many(len(study.cohorts), 'cohort')}"
    nets += f" ({lost} {'without their numbers so far' if missing_trials(record) else 'left out'})" if lost else ""
    task = f"{many(record.task.examples, 'example')} of {words.plain(record.task.name)}"
    trained = dict.fromkeys(one.training for one in study.cohorts if one.training)
    said = [words.plain(f"{whole[0].lower()}{whole[1:].rstrip('.')}{_of(study, whole, trained)}") for whole in trained]
    return "; ".join([nets, *(said or [task]), deployment.controls_line(record)])


def _of(study: StudyRecord, training: str, known: Collection[str]) -> str:
    """Of which cohorts it is said what they were trained on, where that is not the same of all."""
    mine = [cohort.name for cohort in study.cohorts if cohort.training == training]
    return "" if len(known) == 1 and len(mine) == len(study.cohorts) else f" ({', '.join(mine)})"


def lost_line(record: ReportRecord, study: StudyRecord, *, most: int) -> str:
    """Who is left out and why, in one line; empty where nobody is."""
    reasons: dict[str, list[str]] = {}
    for one in left_out(study):
        because = words.plain(one.because).rstrip(".") or "no reason given"
        reasons.setdefault(because, []).append(words.plain(one.name))
    groups = [f"{_few(names)} ({because})" for because, names in reasons.items()]
    more = sum(len(names) for names in [*reasons.values()][most:])
    head = "Without their numbers so far" if missing_trials(record) else "Left out"
    return "" if not groups else f"{head}: {'; '.join(groups[:most])}{f'; and {more} more' if more > 0 else ''}."


def _few(names: Sequence[str]) -> str:
    """Names of nets that share a fate, the first of them where there are many."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > _NAMED else ", ".join(names)


def level(study: StudyRecord) -> str:
    """What the intervals of its means are over, and their level."""
    levels = estimates.levels(one.mean for row in study.rows for one in row.cohorts)
    alone = any(len(cohort.members) == 1 for cohort in study.cohorts)
    return f"{levels}, of a single net over what was sampled within it" if alone else levels


def spoken(row: MetricRow, shown: Sequence[Cohort]) -> str:
    """A metric of some cohorts in a sentence each."""
    pairs = ((cohort, of_cohort(row, cohort)) for cohort in shown)
    return " ".join(f"{words.plain(c.name)}: {_number(one.mean)}." for c, one in pairs if one is not None)


def _number(mean: Estimate) -> str:
    return words.interval(mean)


# ---- the page --------------------------------------------------------------------------------------------------


MOST_CHARTS: Final = 6
"""Metrics that are drawn: those of the rules first."""

MOST_SERIES: Final = 6
"""Cohorts of one chart, likewise."""

MOST_ROWS: Final = 8
"""Metrics of a table that are not folded away."""


@dataclass(frozen=True, kw_only=True)
class MetricChart:
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
    parts = metric_parts(study)
    shown = cohorts(study)[:MOST_SERIES]
    return {
        "study": study,
        "facts": facts(record, study),
        "lost": left_out(study),
        "decided": decided(record, study),
        "rules": rules_part(record, study),
        "charts": [_chart(row, shown) for row in rows(study)[:MOST_CHARTS]],
        "undrawn": (max(len(study.rows) - MOST_CHARTS, 0), max(len(study.cohorts) - len(shown), 0)),
        "tables": [_cut(part, slice(MOST_ROWS)) for part in parts],
        "more": [_cut(part, slice(MOST_ROWS, None)) for part in parts] if len(study.rows) > MOST_ROWS else [],
        "cohorts": [
            (words.plain(c.name), ROLES[c.role], counted(study, c), words.plain(c.about)) for c in study.cohorts
        ],
        "reads": [(words.plain(row.metric.title), reads(row)) for row in rows(study)],
        "members": members(study),
        "notes": (),
    }


def top(record: ReportRecord, study: StudyRecord) -> dict[str, Any]:
    """What a notebook shows of a study."""
    return {
        "heads": (),
        "shipped": (),
        "notes": (facts(record, study), *map(words.plain, study.caveats[:1])),
        "verdicts": {"levels": level(study)},
        "parts": (rules_part(record, study), *metric_parts(study)),
    }


def _cut(part: Part, rows: slice) -> Part:
    return replace(part, claims=part.claims[rows])


def _chart(row: MetricRow, shown: Sequence[Cohort]) -> MetricChart:
    means: list[dict[str, Any]] = []
    nets: list[dict[str, Any]] = []
    there = [cohort for cohort in shown if of_cohort(row, cohort) is not None]
    for at, cohort in enumerate(there):
        found = of_cohort(row, cohort)
        assert found is not None, "cohorts without the number were left out"
        ends = {"value": found.mean.value, "low": found.mean.low, "high": found.mean.high}
        means.append({"row": at, "studied": cohort.role == "studied", **ends})
        # A single net is its own mean.
        nets += [{"row": at, "value": value} for value in found.values if len(found.values) > 1]
    names, unit = [cohort.name for cohort in there], words.plain(row.metric.unit)
    svg = figures.svg(figures.net_chart(names, means, nets, unit=unit))
    title = words.plain(row.metric.title)
    return MetricChart(
        title=title, code=words.plain(row.metric.code), svg=markup(svg),
        alt=f"Dot plot of {title}, a row for each cohort. {spoken(row, there)}", word=words.plain(row.verdict),
        tone="alarm" if row.alarm else "quiet", reads=reads(row),
    )  # fmt: skip
