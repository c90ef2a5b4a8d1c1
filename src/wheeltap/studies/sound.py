"""Before anything is made: is a study one whose rules could come out either way?"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.study import Cast, Cohort, Metric, Rule, Statistic, StudySpec
from wheeltap.stats.members import Asked, dead_because
from wheeltap.studies.rules import subject_of

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
    elif rule.statistic in _TWO and _share_members(rule, spec):
        wanted = "two cohorts that share no member"
    if wanted:
        raise UsageError(
            f"The statistic {rule.statistic} does not fit these cohorts.",
            where=f"rule {rule.title}",
            expected=wanted,
            got=", ".join(f"{name} ({size})" for name, size in zip(rule.cohorts, sizes, strict=True)),
        )


def _share_members(rule: Rule, spec: StudySpec) -> bool:
    one, two = (set(_cohort(spec, name).members) for name in rule.cohorts)
    return bool(one & two)


def _require_alive(rule: Rule, spec: StudySpec, alpha: float) -> None:
    why = dead_because(_asked(rule, spec), alpha=alpha)
    if why is not None:
        raise UsageError(
            "No outcome could ever trip this rule.",
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


def _asked(rule: Rule, spec: StudySpec, more: int = 0) -> Asked:
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
    return Asked(
        statistic=rule.statistic, counts=tuple(counts), margin=0.0 if rule.relative else rule.margin,
        direction=rule.direction, ends=metric.ends, share=rule.share,
        used=len(rule.beyond) + (len(rule.cohorts) - 1) * rule.within if rule.statistic == "association" else 0,
    )  # fmt: skip


def _metric(metrics: Sequence[Metric], key: str) -> Metric:
    return next(metric for metric in metrics if metric.key == key)


def _cohort(spec: StudySpec, name: str) -> Cohort:
    return next(cohort for cohort in spec.cohorts if cohort.name == name)
