"""A study arranged for reading: rules with their verdicts, metrics by cohort, members; what every renderer shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wheeltap.core.plain import many
from wheeltap.core.records import Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Block, Cell, Place, Table, Text, Tone
from wheeltap.core.study import Cohort, CohortRow, Member, MetricRow, Rule, StudyRecord
from wheeltap.report import deployment, figures, view, words
from wheeltap.report.blocks import Drawing, ReportPart
from wheeltap.report.origin import missing_trials
from wheeltap.studies.rules import subject_of

_ROLES: Final = {
    "studied": "asked about",
    "compared": "what they are compared with",
    "null": "control: must show nothing",
    "planted": "control: must be found",
    "given": "given, for comparison",
}
"""What a cohort is for, in words."""

_COMPARED: Final = ("one_of", "paired", "difference")
"""Statistics that compare sizes: by differences, or by ratios."""

_STATISTICS: Final = {
    "one_of": "distance of {first} from the mean of {last}",
    "paired": "mean of the pairs' differences, {first} minus {last}",
    "difference": "mean of {first} minus mean of {last}",
    "auc": "probability that one of {first} has more than one of {last}",
    "association": "rank correlation with {other} over members of {all}",
    "exact": "share of members of {all} above {above}",
    "mean": "mean of {first}",
    "added": "AUC that it adds to {beyond}, for telling {first} from {last}",
}

_RATIOS: Final = {
    "one_of": "ratio of {first} to the geometric mean of {last}",
    "paired": "geometric mean of the pairs' ratios, {first} divided by {last}",
    "difference": "geometric mean of {first} divided by that of {last}",
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
    word: str
    tone: Tone
    least: str
    supports: str
    refutes: str


# ---- rules ----------------------------------------------------------------------------------------------------


def decided(record: ReportRecord, study: StudyRecord) -> list[RuleOutcome]:
    """Every rule with its finding."""
    said = {(one.code, one.title, one.subject): one for one in record.findings}
    found = list[RuleOutcome]()
    for rule in study.rules:
        of = subject_of(rule)
        finding = said.get((rule.code, rule.title, of))
        first = finding.estimates[0] if finding is not None and finding.estimates else None
        least = None if finding is None else finding.smallest_detectable
        named = all(cohort in rule.title for cohort in rule.cohorts)
        found.append(RuleOutcome(
            name=words.plain(rule.title), of="" if named else words.plain(of), code=words.plain(rule.code),
            asks=_asks(study, rule), counts=_counts(study, rule, finding),
            value="" if first is None else words.interval(first),
            word="not judged" if finding is None else view.verdict(finding),
            tone="quiet" if finding is None else view.tone_of(finding),
            least="" if least is None else words.number(least), supports=words.plain(rule.supports),
            refutes=words.plain(rule.refutes),
        ))  # fmt: skip
    return found


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
    return log and rule.statistic in _COMPARED


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
    whole, lost = len(study.members), sum(one.status != "done" for one in study.members)
    nets = f"{many(whole, 'net')} in {many(len(study.cohorts), 'cohort')}"
    nets += f" ({lost} {'without their numbers so far' if missing_trials(record) else 'left out'})" if lost else ""
    task = words.examples_of(record.task)
    said = list[str]()
    for training in dict.fromkeys(one.training for one in study.cohorts if one.training):
        mine = [cohort.name for cohort in study.cohorts if cohort.training == training]
        of = "" if len(mine) == len(study.cohorts) else f" ({', '.join(mine)})"
        said.append(words.plain(f"{training[0].lower()}{training[1:].rstrip('.')}{of}"))
    return "; ".join([nets, *(said or [task]), deployment.controls_line(record)])


def lost_line(record: ReportRecord, study: StudyRecord, *, most: int) -> str:
    """Who is left out and why, in one line; empty where nobody is."""
    reasons: dict[str, list[str]] = {}
    for one in study.members:
        if one.status == "done":
            continue
        because = words.plain(one.because).rstrip(".") or "no reason given"
        reasons.setdefault(because, []).append(words.plain(one.name))
    groups = list[str]()
    for because, names in reasons.items():
        few = f"{names[0]} and {len(names) - 1} more" if len(names) > _NAMED else ", ".join(names)
        groups.append(f"{few} ({because})")
    more = sum(len(names) for names in [*reasons.values()][most:])
    head = "Without their numbers so far" if missing_trials(record) else "Left out"
    return "" if not groups else f"{head}: {'; '.join(groups[:most])}{f'; and {more} more' if more > 0 else ''}."


# ---- blocks ---------------------------------------------------------------------------------------------------

_MOST_CHARTS, _MOST_SERIES = 6, 6
"""Metrics that are drawn, and cohorts of one chart: those of the rules first."""

_WIDE: Final = 3
"""Cohorts that have a column each on a first screen; of more, each has a row, with the metrics of the first rules."""

_FEW_METRICS, _MOST_COHORTS = 2, 5
"""Of a first screen, where cohorts are rows."""


def first(record: ReportRecord, study: StudyRecord, *, page: bool) -> ReportPart:
    """What stands first: the rules with their verdicts, charts, metrics by cohort; in a terminal, verdicts last."""
    several, shown = cohorts(study), rows(study)
    blocks: list[Block | Drawing] = []
    charts = [_chart(row, several[:_MOST_SERIES]) for row in shown[:_MOST_CHARTS]]
    if charts:
        left = {"metric": len(shown) - len(charts), "cohort": max(len(several) - _MOST_SERIES, 0)}
        missing = " and ".join(many(count, what) for what, count in left.items() if count)
        said = f"{_RINGS} Not drawn, but in the tables: {missing}." if missing else _RINGS
        blocks = [*charts, Text(place="page", text=said), metrics_table(study, place="first")]
        blocks += [metrics_table(study, place="page")] if len(several) > _WIDE else []
    least = [one.least or "none" for one in decided(record, study)]
    said = Text(text=f"Detectable effect of each, in this order: {', '.join(least)}.")
    rules = (rules_table(record, study), said)
    return ReportPart(blocks=(*rules, *blocks) if page else (*blocks, *rules))


_RINGS: Final = (
    "A ring is one net. The filled mark is the mean over the nets of a cohort, its line the 95 % interval of that "
    "mean; of a single net, the interval over what was sampled within it. Diamond: the nets that are asked about."
)


def rules_table(record: ReportRecord, study: StudyRecord) -> Table:
    """The rules: effect, what counts, verdict."""
    found = decided(record, study)
    same = found[0].of if len({one.of for one in found}) == 1 else ""
    made: list[tuple[str | Cell, ...]] = []
    for one in found:
        name = f"{one.name} ({one.of})" if one.of and not same else one.name
        made.append((name, Cell(number=one.value), one.counts, Cell(word=one.word, tone=one.tone)))
    heads = (f"Rule on {same}" if same else "Rule", "effect", "counts if", "verdict")
    return Table(title=RULES, heads=heads, rows=tuple(made), place="first")


RULES: Final = "Rules, fixed before the first net was made"


def metrics_table(study: StudyRecord, *, place: Place) -> Table:
    """Means over nets: metrics by cohorts; where cohorts are many, on a first screen a row for each of them."""
    several, shown = cohorts(study), rows(study)
    alone = any(len(cohort.members) == 1 for cohort in study.cohorts)
    title = f"Mean over nets, {words.levels(one.mean for row in study.rows for one in row.cohorts)}"
    title += ", of a single net over what was sampled within it" if alone else ""
    if place != "first" or len(several) <= _WIDE:
        heads = ("Metric", *(f"{words.plain(one.name)}, {counted(study, one)}" for one in several))
        made = [
            (
                Cell(word=words.plain(row.metric.title), note=row.metric.code),
                *(cell(study, row, one) for one in several),
            )
            for row in shown
        ]
        return Table(title=title, heads=heads, rows=tuple(made), place=place)
    chosen, more = shown[:_FEW_METRICS], len(shown) - _FEW_METRICS
    heads = ("Cohort", "nets", *(words.plain(row.metric.title) for row in chosen))
    turned = [
        (words.plain(one.name), counted(study, one).removesuffix("s").removesuffix(" net"),
         *(cell(study, row, one) for row in chosen))
        for one in several
    ]  # fmt: skip
    title += f" ({many(more, 'more metric')} with --full)" if more > 0 else ""
    return Table(title=title, heads=heads, rows=tuple(turned), most=_MOST_COHORTS, place=place)


def cell(study: StudyRecord, row: MetricRow, cohort: Cohort) -> Cell:
    """A metric's mean over a cohort; how many nets have it, where some of those measured do not."""
    found = of_cohort(row, cohort)
    if found is None:
        return Cell(word="no number")
    fewer = len(found.values) < _measured(study, cohort)
    said = [words.plain(found.beside), f"{len(found.values)} of {len(cohort.members)} nets" if fewer else ""]
    return Cell(number=words.interval(found.mean), note="; ".join(part for part in said if part))


def detail(record: ReportRecord, study: StudyRecord) -> list[ReportPart]:
    """What stands below it: what is not proven, the rules in full, what is read together, every net."""
    caveats = [f"- {text}" for text in study.caveats] or ["- It holds for these nets and these examples only."]
    parts = [ReportPart(title="What this does not prove", blocks=(Text(text="\n\n".join(caveats), place="page"),))]
    asked = [study.question, study.about]
    for one in decided(record, study):
        of = f" ({one.of})" if one.of else ""
        least = f" Four of five such studies would have found an effect of {one.least}." if one.least else ""
        asked.append(f"{one.name}{of} [{one.code}]: {one.word}. {one.asks}. It counts if {one.counts}.{least}")
        asked += [
            f"- {when}: {text}" for when, text in (("If found", one.supports), ("If excluded", one.refutes)) if text
        ]
    rules = Text(text="\n\n".join(filter(None, asked)), place="page")
    note = "as fixed before the first net was made, and what came of each"
    parts.append(ReportPart(title="Rules", blocks=(rules, *view.findings(record)), folded=True, note=note))
    if study.notes:
        notes = "\n\n".join(f"- {line}" for line in study.notes)
        parts.append(ReportPart(title="Read together", blocks=(Text(text=notes, place="page"),)))
    return parts


def nets(study: StudyRecord) -> ReportPart:
    """Every cohort, and every net with all of its numbers."""
    lost = [one for one in study.members if one.status != "done"]
    said = [f"{words.plain(one.status)} {one.name} ({one.cohort}): {one.because or 'no reason given.'}" for one in lost]
    kinds = tuple((one.name, counted(study, one), _ROLES[one.role], one.about) for one in study.cohorts)
    found: list[tuple[str | Cell, ...]] = []
    for one in study.members:
        numbers = "; ".join(f"{row.metric.title} {words.number(value)}" for row, value in _numbers(study, one))
        why = "" if one.status == "done" else one.status
        found.append(
            (Cell(word=one.name, note=one.note), one.cohort, Cell(word=why, tone="warn", note=one.because), numbers)
        )
    blocks: list[Block] = [Text(text="\n\n".join(said), place="page")] if said else []
    blocks += [
        Table(heads=("Cohort", "nets", "role", "what they have in common"), rows=kinds, most=100),
        Table(title="Every number of every net", heads=("Net", "cohort", "left out", "numbers"), rows=tuple(found),
              most=1000, place="folded"),
    ]  # fmt: skip
    out = f", {len(lost)} left out" if lost else ""
    note = f"{many(len(study.members), 'net')} in {many(len(study.cohorts), 'cohort')}{out}"
    return ReportPart(title="Every net", blocks=tuple(blocks), folded=not lost, note=note)


def _chart(row: MetricRow, shown: Sequence[Cohort]) -> Drawing:
    """One metric drawn: a row for each cohort, a ring for each net."""
    there = [(cohort, found) for cohort in shown if (found := of_cohort(row, cohort)) is not None]
    means = [
        {"row": at, "studied": cohort.role == "studied", "value": found.mean.value, "low": found.mean.low,
         "high": found.mean.high}
        for at, (cohort, found) in enumerate(there)
    ]  # fmt: skip
    # A single net is its own mean.
    rings = [{"row": at, "value": value} for at, (_, found) in enumerate(there) for value in found.values
             if len(found.values) > 1]  # fmt: skip
    title, unit = words.plain(row.metric.title), words.plain(row.metric.unit)
    said = " ".join(f"{words.plain(cohort.name)}: {words.interval(found.mean)}." for cohort, found in there)
    return Drawing(
        title=title, code=row.metric.code, alt=f"Dot plot of {title}, a row for each cohort. {said}",
        draw=lambda: (figures.net_chart([cohort.name for cohort, _ in there], means, rings, unit=unit),),
        chip=Cell(words.plain(row.verdict), tone="alarm" if row.alarm else "quiet") if row.verdict else None,
    )  # fmt: skip
