"""The table of a study: what each member's numbers are, cohort by cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import msgspec

from wheeltap.core.errors import UnknownName
from wheeltap.core.records import Estimate
from wheeltap.core.study import Cohort, CohortRow, Metric, MetricRow
from wheeltap.stats._scipy import normal_quantile, t_quantile
from wheeltap.stats.members import NumberScale, Single, exact, next_net, over_nets

LEVEL = 0.95

Numbers = Mapping[str, Single]
"""Of one member, by the metric's key; those that it does not have are left out."""


@final
@dataclass(frozen=True, eq=False)
class MemberTable:
    """Members and their numbers.

    Attributes:
        cohorts: As planned.
        metrics: Every one, in the order in which they are shown.
        numbers: By member.
        lost: Members without numbers, and why.
    """

    cohorts: tuple[Cohort, ...]
    metrics: tuple[Metric, ...]
    numbers: Mapping[str, Numbers]
    lost: Mapping[str, str]

    def cohort(self, name: str) -> Cohort:
        """The cohort of this name; ``UnknownName`` if there is none."""
        known = {cohort.name: cohort for cohort in self.cohorts}
        if name not in known:
            raise UnknownName("cohort", name, known)
        return known[name]

    def metric(self, key: str) -> Metric:
        """The metric with this key; ``UnknownName`` if there is none."""
        known = {metric.key: metric for metric in self.metrics}
        if key not in known:
            raise UnknownName("metric", key, known)
        return known[key]

    def having(self, cohort: str, keys: Sequence[str]) -> list[str]:
        """Names of a cohort's members that have all of these numbers, in the cohort's order."""
        members = self.cohort(cohort).members
        keys = [self.metric(key).key for key in keys]
        return [name for name in members if all(key in self.numbers.get(name, {}) for key in keys)]

    def singles(self, cohort: str, key: str) -> list[Single]:
        """A cohort's numbers, each with its own error."""
        return [self.numbers[name][key] for name in self.having(cohort, [key])]

    def values(self, cohort: str, key: str) -> list[float]:
        """A cohort's numbers."""
        return [single.value for single in self.singles(cohort, key)]

    def rows(self) -> tuple[MetricRow, ...]:
        """Every metric that a member has, cohort by cohort."""
        found: list[MetricRow] = []
        for metric in self.metrics:
            cohorts = [self._row(metric, cohort) for cohort in self.cohorts if self.values(cohort.name, metric.key)]
            if cohorts:
                found.append(MetricRow(metric=metric, cohorts=tuple(cohorts)))
        return tuple(found)

    def _row(self, metric: Metric, cohort: Cohort) -> CohortRow:
        singles, scale = self.singles(cohort.name, metric.key), scale_of(metric)
        values = [single.value for single in singles]
        whole = len(cohort.members) > 1
        if whole and metric.ends == (0.0, 1.0) and set(values) <= {0.0, 1.0}:
            # Whether something holds of each: nets that are all alike are no proof that the next one is.
            mean = exact(round(sum(values)), len(values), name=metric.key).estimate
            mean = msgspec.structs.replace(mean, p=None, unit=metric.unit)
        elif whole:
            mean = over_nets(values, name=metric.key, scale=scale, level=LEVEL)
        else:
            mean = of_one(metric, singles[0])
        ends = next_net(values, scale=scale, level=LEVEL) if whole else None
        return CohortRow(
            cohort=cohort.name, values=tuple(values), mean=within(metric, mean), next_net=_cut(metric, ends),
            members=tuple(self.having(cohort.name, [metric.key])),
        )  # fmt: skip


def scale_of(metric: Metric) -> NumberScale:
    """On which its numbers are compared."""
    low, high = metric.ends
    if low is None or high is None:
        return NumberScale(metric.unit, metric.grain, metric.log)
    return NumberScale(metric.unit, metric.grain, metric.log, bounded=True, ends=(low, high))


def of_one(metric: Metric, own: Single) -> Estimate:
    """The number of one net, with the interval of what was sampled within it."""
    half = quantile(own) * own.se
    return Estimate(
        name=metric.key, value=own.value, low=own.value - half, high=own.value + half,
        level=1.0 if own.se == 0.0 else LEVEL, n=1, unit=metric.unit, method=own.method,
    )  # fmt: skip


def quantile(own: Single) -> float:
    """Standard errors from a net's own number to the end of its interval."""
    return normal_quantile((1 + LEVEL) / 2) if own.df is None else t_quantile(1 - LEVEL, own.df)


def within(metric: Metric, made: Estimate) -> Estimate:
    """An interval that ends where the number must."""
    cut = _cut(metric, None if made.low is None or made.high is None else (made.low, made.high))
    return made if cut is None else msgspec.structs.replace(made, low=cut[0], high=cut[1])


def _cut(metric: Metric, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    if ends is None:
        return None
    least, most = metric.ends
    low, high = ends
    return low if least is None else max(low, least), high if most is None else min(high, most)
