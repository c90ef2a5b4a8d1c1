"""Rules: how a study decides, from the table of its members to drafts that one correction settles."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import numpy as np

from wheeltap.audits.claims import CLAIM, Hypothesis, NoAnswer
from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.plain import many
from wheeltap.core.records import Control, Estimate, Finding
from wheeltap.core.study import Cohort, Metric, MetricRow, Rule, Statistic, StudySpec
from wheeltap.stats import members
from wheeltap.stats.evidence import Members
from wheeltap.stats.members import MemberTest, NumberScale, PlannedTest, dead_because, difference, seen_alone
from wheeltap.studies.measures import score_after, score_before
from wheeltap.studies.table import LEVEL, MemberTable, scale_of, within

WORST = 0.001
"""A null control fails below this p-value, corrected for all its tests: a sound study is rarely void by chance."""


def draft(rule: Rule, table: MemberTable, *, among: int, alpha: float) -> Hypothesis:
    """The finding that a rule makes of a table, before the correction.

    Args:
        rule: Fixed beforehand.
        table: Of all members.
        among: How many rules there are: what could have been found is given for the strictest test.
        alpha: Of all rules together.
    """
    finding = Finding(
        code=rule.code, title=rule.title, status="inconclusive", subject=subject_of(rule), alarm=rule.alarm
    )
    try:
        test = tested(rule, table)
    except NoAnswer as gap:
        return Hypothesis(msgspec.structs.replace(finding, status=gap.status, because=gap.because))
    margin = margin_of(rule, table)
    shown = within(table.metric(rule.metric), test.estimate) if rule.statistic == "exact" else test.estimate
    effect = msgspec.structs.replace(shown, p=test.above(margin, rule.direction))
    said = f"{_numbers(rule, table)} {_WORDS[rule.statistic]}: {effect}."
    finding = msgspec.structs.replace(
        finding, status="found", estimates=(effect, *_means(rule, table)), margin=margin,
        because=f"{rule.supports} {said}".strip(),
        smallest_detectable=test.smallest_detectable(margin, rule.direction, alpha=alpha / among),
    )  # fmt: skip
    if effect.p is None:
        why = f"{_otherwise(rule)} {said} Nothing can be tested: {test.method}.".strip()
        return Hypothesis(msgspec.structs.replace(finding, status="inconclusive", because=why))
    more = test.needed(margin, rule.direction, alpha=alpha / among) if margin > 0.0 else None
    return Hypothesis(
        finding, test=effect, margin=margin, otherwise=f"{_otherwise(rule)} {said}".strip(), words=CLAIM,
        evidence=Members(test, rule.direction),
        undecided=f"About {more} members would decide." if more is not None and more > test.count else "",
    )  # fmt: skip


def subject_of(rule: Rule) -> str:
    """What a rule's finding is about."""
    pooled = rule.statistic in ("association", "exact") and len(rule.cohorts) > 1
    return f"over {listed(rule.cohorts)}" if pooled else " vs ".join(rule.cohorts)


def margin_of(rule: Rule, table: MemberTable) -> float:
    """The smallest effect of interest, in units of the statistic."""
    if not rule.relative:
        return rule.margin
    values = table.values(rule.cohorts[-1], rule.metric)
    return rule.margin * abs(float(np.mean(values)))


def tested(rule: Rule, table: MemberTable) -> MemberTest:
    """The rule's statistic on a table.

    Raises:
        NoAnswer: If members lack the numbers, so that there is none.
    """
    keys = [key for key in (rule.metric, rule.with_metric, *rule.beyond) if key]
    for cohort in rule.cohorts:
        if not table.having(cohort, keys):
            why = "; ".join(dict.fromkeys(table.lost[m] for m in table.cohort(cohort).members if m in table.lost))
            raise NoAnswer("not_applicable", f"No member of {cohort} has this number. {why}".strip())
    try:
        return _statistic(rule, table, scale_of(table.metric(rule.metric)), keys)
    except DataError as error:
        raise NoAnswer("error", error.in_line()) from error


def _statistic(rule: Rule, table: MemberTable, scale: NumberScale, keys: Sequence[str]) -> MemberTest:
    key, first, last = rule.metric, rule.cohorts[0], rule.cohorts[-1]
    if rule.statistic == "association":
        return _association(rule, table, keys)
    if rule.statistic == "exact":
        values = [value for cohort in rule.cohorts for value in table.values(cohort, key)]
        return members.exact(sum(value > rule.above for value in values), len(values), share=rule.share, name=key)
    if rule.statistic == "mean":
        return members.mean(table.singles(first, key), name=key, scale=scale)
    if rule.statistic == "added":
        return _added(rule, table)
    if rule.statistic == "one_of":
        return members.one_of(table.singles(first, key)[0], table.values(last, key), name=key, scale=scale)
    if rule.statistic == "paired":
        one, two = ([table.numbers[name][key].value for name in side] for side in _paired(rule, table, [key]))
        return members.paired(one, two, name=key, scale=scale)
    one, two = table.values(first, key), table.values(last, key)
    if rule.statistic == "auc":
        return members.auc(one, two, name=key)
    return members.difference(one, two, name=key, scale=scale)


def _paired(rule: Rule, table: MemberTable, keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Members of both cohorts at the same places, where both have these numbers."""
    one, two = (table.having(cohort, keys) for cohort in rule.cohorts)
    places = zip(*(table.cohort(cohort).members for cohort in rule.cohorts), strict=True)
    both = [(a, b) for a, b in places if a in one and b in two]
    return [a for a, _ in both], [b for _, b in both]


def _added(rule: Rule, table: MemberTable) -> MemberTest:
    """Numbers that are compared by ratios, on logarithms."""
    keys = [*rule.beyond, rule.metric]
    one, two = _paired(rule, table, keys) if rule.within else [table.having(cohort, keys) for cohort in rule.cohorts]
    scores = [np.array([[table.numbers[name][key].value for key in keys] for name in side]) for side in (one, two)]
    for at, key in enumerate(keys):
        if table.metric(key).log:
            for side in scores:
                side[:, at] = members.logarithms(side[:, at], which=key)
    return members.added(*scores, within=rule.within, name=rule.metric)


def _association(rule: Rule, table: MemberTable, keys: Sequence[str]) -> MemberTest:
    names = [(cohort, name) for cohort in rule.cohorts for name in table.having(cohort, keys)]
    columns = {key: [table.numbers[name][key].value for _, name in names] for key in keys}
    groups = [cohort for cohort, _ in names] if rule.within else ()
    return members.association(
        columns[rule.metric], columns[rule.with_metric], beyond=[columns[key] for key in rule.beyond], groups=groups,
        name=f"{rule.metric} with {rule.with_metric}",
    )  # fmt: skip


_WORDS = {
    "one_of": "Its distance from their mean",
    "paired": "Mean difference of pairs",
    "difference": "Difference of the means",
    "mean": "Mean over members",
    "association": "Correlation over members",
    "added": "Gain in AUC",
    "auc": "Probability that one of the first has more than one of the second",
    "exact": "Share of members",
}


def _otherwise(rule: Rule) -> str:
    """What is said of a rule that was not found."""
    return rule.otherwise or ("No evidence of added value." if rule.statistic == "added" else "")


def _means(rule: Rule, table: MemberTable) -> tuple[Estimate, ...]:
    """The number of each cohort, beside the effect."""
    rows = {row.metric.key: row for row in table.rows()}
    if rule.statistic in ("association", "mean", "exact"):
        return ()
    return tuple(row.mean for row in rows[rule.metric].cohorts if row.cohort in rule.cohorts)


def _numbers(rule: Rule, table: MemberTable) -> str:
    """The cohorts' numbers in a sentence."""
    metric = table.metric(rule.metric)
    title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
    if rule.statistic == "association":
        other = table.metric(rule.with_metric).title
        beyond = [table.metric(key).title.lower() for key in rule.beyond]
        return f"{title} against {other.lower()}{f', beyond {listed(beyond)}' if beyond else ''}."
    if rule.statistic == "exact":
        return f"{title} above {rule.above:g} in {listed(rule.cohorts)}."
    if rule.statistic == "mean":
        return f"{title} of {listed(rule.cohorts)} ({many(len(table.values(rule.cohorts[0], rule.metric)), 'net')})."
    if rule.statistic == "added":
        title += f", added to {listed([table.metric(key).title.lower() for key in rule.beyond])}"
    [row] = [row for row in table.rows() if row.metric.key == rule.metric]
    phrases = [
        f"{one.cohort} {one.mean} ({many(len(one.values), 'net')})" for one in row.cohorts if one.cohort in rule.cohorts
    ]
    return f"{title}: {', '.join(phrases)}."


def listed(words: Sequence[str]) -> str:
    """Words with commas between, and ``and`` before the last."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def headline(planned: Sequence[Rule], findings: Sequence[Finding]) -> str:
    """What was supported and what refuted, then how much is undecided."""
    rules = {(rule.code, rule.title, subject_of(rule)): rule for rule in planned}
    pairs = [(rules[key], one) for one in findings if (key := (one.code, one.title, one.subject)) in rules]
    found = [rule.supports or f"{rule.title}: found." for rule, one in pairs if one.status == "found"]
    out = [rule.refutes or f"{rule.title}: excluded." for rule, one in pairs if one.status == "excluded"]
    still: dict[str, list[str]] = {}
    for rule, one in pairs:
        if one.status == "inconclusive":
            still.setdefault(_otherwise(rule).rstrip(".") or "Not decided", []).append(rule.title)
    without = [rule.title for rule, one in pairs if one.status in ("not_applicable", "error")]
    said = [one if one.rstrip().endswith((".", "!", "?")) else f"{one.rstrip()}." for one in (*found, *out)]
    said += [f"{words} ({len(titles)} of {len(pairs)}): {'; '.join(titles)}." for words, titles in still.items()]
    if without:
        said.append(f"Not answered: {'; '.join(without)}.")
    return " ".join(said) or "The study has no rules."


def worse(rows: Sequence[MetricRow], planned: Sequence[Rule], sign: float) -> list[str]:
    """A sentence for each rule on a loss whose cohort that loses less scores worse before and after."""
    held = {(row.cohort, one.metric.key): row.values for one in rows for row in one.cohorts}
    return list(dict.fromkeys(filter(None, (_worse(held, rule, sign) for rule in planned))))


def _worse(held: Mapping[tuple[str, str], Sequence[float]], rule: Rule, sign: float) -> str:
    keys = (rule.metric, score_before(rule.metric), score_after(rule.metric))
    if len(rule.cohorts) != 2 or any(not held.get((cohort, key)) for cohort in rule.cohorts for key in keys):
        return ""
    less, more = sorted(rule.cohorts, key=lambda cohort: float(np.mean(held[cohort, rule.metric])))
    scores: list[str] = []
    for key in keys[1:]:
        low, high = (sign * np.array(held[cohort, key]) for cohort in (less, more))
        several = min(len(low), len(high)) > 1
        test = difference(low.tolist(), high.tolist(), name=key, scale=NumberScale("")) if several else None
        if low.mean() >= high.mean() or (test is not None and (test.above(0.0, "less") or 1.0) > 1.0 - LEVEL):
            return ""
        scores.append(f"{abs(low.mean()):.3f} against {abs(high.mean()):.3f}")
    return f"{less} loses less than {more}, but is worse all along: its score is {scores[0]} before, {scores[1]} after."


def left_out(table: MemberTable, planned: Sequence[Rule]) -> list[Control]:
    """Controls that every study has: nets made alike against each other; members that were not made."""
    whole = sum(len(cohort.members) for cohort in table.cohorts)
    lost = "; ".join(f"{name} ({why})" for name, why in table.lost.items())
    made = Control(
        name="every member has its numbers", kind="gate", status="skipped" if lost else "passed",
        estimates=(Estimate.exact("members_left_out", float(len(table.lost)), "members", n=whole),),
        because=f"{whole - len(table.lost)} of {whole} members have."
        + (f" Left out of every number: {lost}." if lost else ""),
    )  # fmt: skip
    return [_alike(table, planned), made]


def _alike(table: MemberTable, planned: Sequence[Rule]) -> Control:
    """Nets made alike against each other, by the statistic of each rule: none may be called different.

    Of a rule about one net, each net of the other cohort is left out in turn; of a rule about two cohorts, the second
    one is cut in two halves, several times.
    """
    name, tests = "nets made alike are not called different", list[tuple[MemberTest, float]]()
    for rule in planned:
        values = table.values(rule.cohorts[-1], rule.metric)
        if len(values) >= _FEWEST and rule.margin > 0.0:
            margin = margin_of(rule, table)
            with suppress(DataError):  # a ratio of numbers that are not positive: the rule itself says so
                tests += [
                    (seen_alone(test), margin) for test in _among_alike(rule, table, values) if test.law is not None
                ]
    if not tests:
        return Control(name=name, kind="null", status="skipped", because=_NOT_ALIKE)
    found = [test.above(margin) for test, margin in tests]
    least = min([1.0, *(p * len(tests) for p in found if p is not None)])
    could = [test.smallest_detectable(margin, alpha=WORST / len(tests)) for test, margin in tests]
    blind = not any(size is not None and size <= 2.0 * margin for size, (_, margin) in zip(could, tests, strict=True))
    share = float(np.mean([(test.above(0.0) or 1.0) <= 1.0 - LEVEL for test, _ in tests]))
    status = "failed" if least < WORST else "skipped" if blind else "passed"
    why = f" No power: {len(tests)} tests with so few nets would not show a difference of twice the margin."
    estimate = Estimate(
        name="share_below_05", value=share, low=None, high=None, level=LEVEL, n=len(tests), unit="share of tests",
        method="the tests share nets",
    )  # fmt: skip
    return Control(
        name=name, kind="null", status=status, estimates=(estimate,),
        because=f"{share:.0%} of {len(tests)} tests of nets made alike are below .05; the smallest p-value beyond the "
        f"margin, corrected for all, is {least:.2g} (fails below {WORST:g})." + (why if status == "skipped" else ""),
    )  # fmt: skip


_NOT_ALIKE = (
    "It takes a rule that compares one net, pairs or means, with a margin, and four nets or more in its second cohort."
)

_FEWEST = 4
"""Nets of a cohort that are compared with each other."""

_HALVES = 4
"""Ways in which a cohort is cut in two."""


def _among_alike(rule: Rule, table: MemberTable, values: Sequence[float]) -> list[MemberTest]:
    key, scale = rule.metric, scale_of(table.metric(rule.metric))
    if rule.statistic == "one_of":
        rest = [[*values[:at], *values[at + 1 :]] for at in range(len(values))]
        singles = [members.Single(value) for value in values]
        return [members.one_of(one, others, name=key, scale=scale) for one, others in zip(singles, rest, strict=True)]
    if rule.statistic not in ("difference", "paired"):
        return []
    found: list[MemberTest] = []
    for at in range(_HALVES):
        order = seeds.generator(0, "halves", at).permutation(len(values))
        middle = len(values) // 2
        one, two = ([values[int(place)] for place in part] for part in (order[:middle], order[middle:]))
        found.append(members.difference(one, two, name=key, scale=scale))
    return found


def with_verdicts(
    rows: Sequence[MetricRow], planned: Sequence[Rule], findings: Sequence[Finding]
) -> tuple[MetricRow, ...]:
    """The table with a word on each metric that the first of its rules is about."""
    said = {(one.code, one.title, one.subject): one for one in findings}
    found: list[MetricRow] = []
    for row in rows:
        own = (said.get((r.code, r.title, subject_of(r))) for r in planned if r.metric == row.metric.key)
        first = next(filter(None, own), None)
        if first is not None:
            alarm, word = first.status == "found" and first.alarm, first.verdict or first.status.replace("_", " ")
            found.append(msgspec.structs.replace(row, verdict=word, alarm=alarm))
        else:
            found.append(row)
    return tuple(found)


_TWO: tuple[Statistic, ...] = ("one_of", "paired", "difference", "auc", "added")
"""Statistics of two cohorts."""


def require_sound(spec: StudySpec, *, alpha: float) -> None:
    """Refuses a study whose cohorts or rules make no sense, or with a rule that no outcome could trip.

    Args:
        spec: The study.
        alpha: Of all rules together.

    Raises:
        UnknownName: If a rule names a cohort or a metric that there is not.
        UsageError: If names are given twice, cohorts do not fit a statistic, or a rule is dead.
    """
    _require_once("cohort", (cohort.name for cohort in spec.cohorts), spec.name)
    _require_once("metric", (metric.key for metric in spec.metrics), spec.name)
    if not spec.rules:
        raise UsageError(
            "The study has no rule.",
            where=spec.name,
            expected="at least one rule that says beforehand how its question is decided",
            got="none",
            do='Add one: metric, cohorts, statistic ("difference", say), direction and margin.',
        )
    for cohort in spec.cohorts:
        _require_once("member", cohort.members, f"cohort {cohort.name}")
    # A finding is known by these three: with the same title, one rule would get the verdict of the other.
    _require_once("rule", (f"{rule.title} ({rule.code}, {subject_of(rule)})" for rule in spec.rules), spec.name)
    for rule in spec.rules:
        _require_known(rule, spec)
        _require_cohorts(rule, spec)
        _require_alive(rule, spec, alpha / len(spec.rules))


def _require_once(what: str, names: Iterable[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"A {what} is named twice.", where=where, expected=f"another name for each {what}", got=twice[0]
        )


def _require_known(rule: Rule, spec: StudySpec) -> None:
    keys = [metric.key for metric in spec.metrics]
    if rule.statistic == "association" and not rule.with_metric:
        raise UsageError(
            "An association is between two metrics.", where=f"rule {rule.title}",
            expected=f"with_metric = one of {', '.join(keys)}", got="no with_metric",
        )  # fmt: skip
    for name in (rule.metric, *([rule.with_metric] if rule.statistic == "association" else []), *rule.beyond):
        if name not in keys:
            raise UnknownName("metric", name, keys)
    names = [cohort.name for cohort in spec.cohorts]
    for name in rule.cohorts:
        if name not in names:
            raise UnknownName("cohort", name, names)


def _require_cohorts(rule: Rule, spec: StudySpec) -> None:
    """Raises ``UsageError`` if a statistic cannot be one of these cohorts."""
    members = [set(_cohort(spec, name).members) for name in rule.cohorts]
    sizes, wanted = [len(_cohort(spec, name).members) for name in rule.cohorts], ""
    if rule.statistic in _TWO and len(sizes) != 2:
        wanted = "two cohorts"
    elif rule.statistic == "one_of" and sizes[0] != 1:
        wanted = "one net in the first cohort"
    elif rule.statistic == "mean" and (len(sizes) != 1 or _metric(spec.metrics, rule.metric).log):
        wanted = "one cohort, and a metric that is not compared by ratios: 0 is no ratio"
    elif rule.statistic == "added" and not rule.beyond:
        wanted = "metrics in beyond: what the metric is added to"
    elif rule.relative and rule.statistic in ("mean", "added"):
        wanted = "a margin that is not relative"
    elif rule.relative and _metric(spec.metrics, rule.metric).log:
        wanted = "a margin that is not relative: a ratio is one already"
    elif (rule.statistic == "paired" or (rule.statistic == "added" and rule.within)) and sizes[0] != sizes[1]:
        wanted = "as many members in both cohorts, in the same order"
    elif rule.statistic in _TWO and members[0] & members[1]:
        wanted = "two cohorts that share no member"
    if wanted:
        raise UsageError(
            f"The statistic {rule.statistic} does not fit these cohorts.",
            where=f"rule {rule.title}",
            expected=wanted,
            got=", ".join(f"{name} ({size})" for name, size in zip(rule.cohorts, sizes, strict=True)),
        )


def _require_alive(rule: Rule, spec: StudySpec, alpha: float) -> None:
    why = dead_because(_asked(rule, spec), alpha=alpha)
    if why is not None:
        raise UsageError(
            "This rule could not be decided by any outcome.",
            where=f"rule {rule.title}",
            expected="a rule that some outcome would decide",
            got=f"{why} ({len(spec.rules) * alpha:g} over {len(spec.rules)} rules)" if len(spec.rules) > 1 else why,
            do=f"Give {_enough(spec, alpha)}, fewer rules, or another margin.",
        )


def _enough(spec: StudySpec, alpha: float) -> str:
    """With how many members no rule would be dead, in words."""
    for more in range(1, _MOST_MORE + 1):
        if all(dead_because(_asked(rule, spec, more), alpha=alpha) is None for rule in spec.rules):
            seeds = spec.settings.get("seeds")
            alike = {len(cohort.members) for cohort in spec.cohorts} == {seeds}
            return f"--seeds {seeds + more} or more" if alike and isinstance(seeds, int) else (
                f"{more} more member{'' if more == 1 else 's'} in each cohort of several"
            )  # fmt: skip
    return "more members"


_MOST_MORE: Final = 30
"""Members more, in each cohort, up to which a number that would do is looked for."""


def _asked(rule: Rule, spec: StudySpec, more: int = 0) -> PlannedTest:
    """The test of a rule, were there so many more members in each cohort of several."""
    sizes = [len(_cohort(spec, name).members) for name in rule.cohorts]
    counts = [size + more if size > 1 or size == spec.settings.get("seeds") else size for size in sizes]
    if rule.statistic == "one_of":
        counts = counts[1:]
    elif rule.statistic == "paired" or (rule.statistic == "added" and rule.within):
        counts = counts[:1]
    elif rule.statistic in ("association", "exact"):
        counts = [sum(counts)]
    metric = _metric(spec.metrics, rule.metric)
    return PlannedTest(
        statistic=rule.statistic, counts=tuple(counts), margin=0.0 if rule.relative else rule.margin,
        direction=rule.direction, ends=metric.ends, share=rule.share,
        used=len(rule.beyond) + (len(rule.cohorts) - 1) * rule.within if rule.statistic == "association" else 0,
    )  # fmt: skip


def _metric(metrics: Sequence[Metric], key: str) -> Metric:
    return next(metric for metric in metrics if metric.key == key)


def _cohort(spec: StudySpec, name: str) -> Cohort:
    return next(cohort for cohort in spec.cohorts if cohort.name == name)
