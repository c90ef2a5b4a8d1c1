"""Before anything is made: is a study one whose rules could come out either way?"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.study import Cast, Cohort, Metric, Rule, Statistic, StudySpec
from wheeltap.stats.members import Asked, dead_because

_TWO: tuple[Statistic, ...] = ("one_of", "paired", "difference", "ratio", "auc", "added")
"""Statistics of two cohorts."""


def cohort_of(cast: Cast) -> Cohort:
    """A cohort as a plan keeps it."""
    return Cohort(
        name=cast.name, members=tuple(one.name for one in cast.members), role=cast.role, about=cast.about
    )  # fmt: skip


def require_sound(spec: StudySpec, *, alpha: float) -> None:
    """Refuses a study whose cohorts or rules make no sense, or with a rule that no outcome could trip.

    Args:
        spec: The study.
        alpha: Of all rules together.

    Raises:
        UnknownName: If a rule names a cohort, a metric or a statistic that there is not.
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
    for name in (rule.metric, *([rule.with_metric] if rule.statistic == "association" else []), *rule.beyond):
        if name not in keys:
            raise UnknownName("metric", name, keys)
    names = [cohort.name for cohort in spec.cohorts]
    for name in rule.cohorts:
        if name not in names:
            raise UnknownName("cohort", name, names)
    if rule.statistic not in get_args(Statistic):
        raise UnknownName("statistic", rule.statistic, get_args(Statistic))


def _require_cohorts(rule: Rule, spec: StudySpec) -> None:
    """Raises ``UsageError`` if a statistic cannot be one of these cohorts."""
    sizes = [len(_cohort(spec, name).members) for name in rule.cohorts]
    wanted = ""
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
    elif rule.relative and (rule.statistic == "ratio" or _metric(spec.metrics, rule.metric).log):
        wanted = "a margin that is not relative: a ratio is one already"
    elif (rule.statistic == "paired" or (rule.statistic == "added" and rule.within)) and sizes[0] != sizes[1]:
        wanted = "as many members in both cohorts, in the same order"
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
            "No outcome could ever trip this rule.",
            where=f"rule {rule.title}",
            expected="a rule that some outcome would decide",
            got=why,
            do="Give more members, or another margin.",
        )


def _asked(rule: Rule, spec: StudySpec) -> Asked:
    counts = [len(_cohort(spec, name).members) for name in rule.cohorts]
    if rule.statistic == "one_of":
        counts = counts[1:]
    elif rule.statistic == "paired" or (rule.statistic == "added" and rule.within):
        counts = counts[:1]
    elif rule.statistic in ("association", "exact"):
        counts = [sum(counts)]
    metric = _metric(spec.metrics, rule.metric)
    return Asked(
        statistic=rule.statistic, counts=tuple(counts), margin=0.0 if rule.relative else rule.margin,
        direction=rule.direction, ends=metric.ends, share=rule.share,
        used=len(rule.beyond) + (len(rule.cohorts) - 1) * rule.within if rule.statistic == "association" else 0,
    )  # fmt: skip


def _metric(metrics: Sequence[Metric], key: str) -> Metric:
    return next(metric for metric in metrics if metric.key == key)


def _cohort(spec: StudySpec, name: str) -> Cohort:
    return next(cohort for cohort in spec.cohorts if cohort.name == name)
