"""Values by draw and example whose mean is an effect: its interval, and its tests on either side of a margin."""

import math
from dataclasses import dataclass, replace
from typing import final

import msgspec
import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate, Power
from wheeltap.stats import rare, three_sided
from wheeltap.stats.clusters import ENOUGH, Groups, by_signs, clustered, enough_moved, one_group
from wheeltap.stats.crossed import (
    CrossedMean,
    FloatArray,
    Values,
    checked,
    checked_alpha,
    crossed,
    is_transformed,
    required_examples,
)
from wheeltap.stats.effect import amplitude, mean_effect
from wheeltap.stats.evidence import Candidate, Evidence, Largest

_ENOUGH_FOR_SKEWNESS = 30
"""Groups from which their skewness is allowed for: the power of normal values is then as by Student's t."""


@final
@dataclass(frozen=True, eq=False)
class Sample(Evidence):
    """Draws and examples (or the groups that these come in) are both samples of something larger.

    Attributes:
        values: ``[draw, example]``, in the unit of the effect.
        bound: Most that the size of a value can be: 1 of a difference of two scores in [0, 1], 2 of a difference of two
            such differences; ``None`` where nothing bounds it.
        ends: The least and the most of a draw's mean; ``None`` where nothing is known but the bound. Of draws that are
            not ``skewed``, few hit hard, and how hard the ends alone say: see ``rare``.
        groups: ``[example]``, which group each is in; ``None`` where examples are independent.
        skewed: Whether draws are random disturbances, of which some may hit much harder, or milder, than any that was
            made: its tests allow for them, its interval is that of draws like those that were made.
        margins: ``[example]``, each example's part of the margin, whose mean the margin is, where it was estimated from
            the same examples: each value is then held against its own part, so that the margin's noise is in the test.
        least: How many margins an example that nobody drew may lose at least, where nothing bounds it.
        far: How far an example may move that nobody drew, of values that are a statistic's, linearized, or whose bound
            is a cap: two imaginary ones are added then, as of differences of scores in [0, 1].

    Raises:
        DataError: If values are not finite or beyond the bound, or shapes do not fit.
    """

    values: Values
    bound: float | None = None
    ends: rare.Ends | None = None
    groups: Groups | None = None
    margins: Values | None = None
    skewed: bool = False
    least: float = three_sided.LEAST
    far: float | None = None

    def __post_init__(self) -> None:
        x = checked(self.values, ("draw", "example"), what="differences")
        for name, one in (("group", self.groups), ("margin", self.margins)):
            if one is not None and np.shape(one) != x.shape[1:]:
                expected = f"one {name} for each of {x.shape[1]} examples"
                got = str(list(np.shape(one)))
                raise DataError("Values and what is known of them do not fit.", expected=expected, got=got)
        if self.bound is not None and float(np.abs(x).max()) > self.bound:
            raise DataError(
                "A difference is larger than it can be.", expected=f"at most {self.bound:g}",
                got=f"{float(np.abs(x).max()):g}",
            )  # fmt: skip

    @property
    def margin(self) -> float:
        """The margin, where it was estimated from the same examples; 0 where it is a number that was given."""
        return 0.0 if self.margins is None else float(np.mean(self.margins))

    @property
    def _plain(self) -> bool:
        """Whether examples are independent and their values differences of two scores, held against one margin."""
        scores = self.bound is not None and float(np.abs(self.values).max()) <= 1.0
        return scores and self.groups is None and self.margins is None and self.far is None

    @property
    def _unbounded(self) -> bool:
        """Whether nothing is known of how far values reach, so that their skewness is allowed for: see ``crossed``.

        Of few groups it is known too badly: with 10 Hall's transformation would cost .07 of the power of normal values.
        """
        enough = self.groups is None or len(np.unique(self.groups)) >= _ENOUGH_FOR_SKEWNESS
        return enough and self.bound is None and self.far is None and (self.ends is None or None in self.ends)

    @property
    def _unseen(self) -> bool:
        """Whether its tests allow for random draws that nobody made."""
        return self.skewed and len(self.values) > 1

    def _within(self, cells: Values) -> bool:
        """Whether imaginary examples are added, one that gains and one that loses: see ``mean_effect``."""
        return self.bound is not None and self.far is None and float(np.abs(cells).max()) <= 1.0

    def effect(self, *, margin: float = 0.0, level: float = 0.95, name: str, unit: str) -> Estimate:
        """The mean with its interval, and the p-value of "it is within the margin"; see ``mean_effect``.

        Values that come in groups are judged as their groups' jackknife values are: see ``by_cluster``.

        Raises:
            UsageError: If ``level`` or ``margin`` cannot be used.
        """
        x = np.asarray(self.values, dtype=np.float64)
        if self.ends is not None and not self.skewed:
            cells = clustered(x, self.groups)
            made = rare.rare_effect(cells, self.ends, margin=margin, bounded=self._within(cells), name=name, unit=unit)
            return msgspec.structs.replace(made, n=x.shape[1])
        if self._plain:
            made = mean_effect(x, level=level, margin=margin, bounded=True, name=name, unit=unit)
            return msgspec.structs.replace(made, p=self.above(margin)) if self._unseen else made
        alpha, value, cells = checked_alpha(level), float(x.mean()), clustered(x, self.groups)
        adjusted = (self._within(x) or self.far is not None) and not self._signs(x, margin)
        enough, whole = enough_moved(x, self.groups), self.far or 1.0
        pseudo = amplitude(cells, enough=enough, whole=whole) if adjusted else 0.0
        spread = crossed(cells, pseudo=pseudo, unbounded=self._unbounded)
        low = high = None
        if spread.example_df and not one_group(self.groups):
            low, high = (float(spread.centre + side * spread.half_width(alpha, side=side)) for side in (-1.0, 1.0))
            low, high = min(low, value), max(high, value)
        p, signs = self.above(margin), self._signs(x, margin)
        if self.bound is not None and low is not None and high is not None:
            ends = (low, high, 0.0) if signs and p is not None and p >= alpha else (low, high)
            low, high = max(min(ends), -self.bound), min(max(ends), self.bound)
        several = "" if self.groups is None else f" in {len(np.unique(self.groups))} groups"
        test = f"crossed t{' and signs' if signs else ''}{', transformed' if np.any(spread.skewness) else ''}"
        method = f"{test}, {len(x)} draws x {x.shape[1]} examples{several}"
        return Estimate(
            name=name, value=value, low=low, high=high, level=level, n=x.shape[1], unit=unit, p=p,
            method=f"adjusted Wald, {method}" if adjusted else method,
        )  # fmt: skip

    def above(self, margin: float) -> float | None:
        """P-value of "the effect is within the margin, either way"; ``None`` where a single number has no spread."""
        sign = 1.0 if float(np.mean(self.values)) >= 0.0 else -1.0
        x = self._toward(sign)
        if self._plain and not self._unseen:
            return mean_effect(x, margin=margin, bounded=True, unit="").p
        if one_group(self.groups):
            return None
        transformed = self._transformed(x, margin, side=-1.0)
        if transformed is None:
            return 1.0
        spread = self._milder(sign) if self._unseen else self._spread(x, margin)
        spread = spread if transformed else replace(spread, skewness=0.0)
        p = spread.p_value(margin, skewed=self._unseen) if spread.example_df else None
        if p is not None and self.bound is not None and self.far is not None:  # a cap leaves skewness
            cells, bound = clustered(x, self.groups), self._bound(-sign)
            p = max(p, three_sided.p_above(cells, margin=margin, bound=bound, far=self.far))
        if p is None or self.groups is None or not self._signs(x, margin):
            return p
        return max(p, by_signs(x.sum(0), self.groups))

    @property
    def df(self) -> int | None:
        """As of every evidence."""
        return (None if one_group(self.groups) else self._spread(self._toward(1.0), 1.0).df) or None

    def further(self, alpha: float) -> float:
        """As of every evidence: what random draws that nobody made may take away of an effect."""
        if not self._unseen or one_group(self.groups):
            return 0.0
        spread = self._milder(1.0 if float(np.mean(self.values)) >= 0.0 else -1.0)
        if not spread.example_df:
            return 0.0
        return float(spread.half_width(alpha, skewed=True, side=1.0) - spread.half_width(alpha, side=1.0))

    def required(self, margin: float) -> int:
        """As of every evidence; of groups, whose sizes make them skewed too, any number will do."""
        is_asked = self._unbounded and self.groups is None
        return required_examples(self._toward(1.0).mean(0), margin) if is_asked else 0

    def below(self, margin: float, *, one_sided: bool) -> float | None:
        """As of every evidence; where few draws hit hard, what no draw has shown decides."""
        if margin <= 0.0 or one_group(self.groups):
            return None
        each = [self._below(sign, margin) for sign in ((1.0,) if one_sided else (1.0, -1.0))]
        known = [p for p in each if p is not None]
        return max(known) if len(known) == len(each) else None

    def power(self, margin: float, *, one_sided: bool, alpha: float) -> Power | None:
        """As of every evidence; in groups of the sizes that they have."""
        if margin <= 0.0 or one_group(self.groups):
            return None
        cells = clustered(self._toward(1.0), self.groups)
        if self.ends is not None and not self.skewed:
            return rare.power_of(cells, self.ends, margin=margin, bounded=self._within(cells), alpha=alpha)
        bound = self._bound(1.0)
        found = three_sided.power_of(
            cells,
            margin=margin,
            bound=bound,
            one_sided=one_sided,
            alpha=alpha,
            skewed=self.skewed,
            unbounded=self._beyond_seen(margin),
        )
        if found is None or found.examples is None or self.groups is None:
            return found
        examples = int(np.ceil(found.examples * len(self.groups) / cells.shape[1]))
        return msgspec.structs.replace(found, examples=examples, groups=found.examples)

    def _toward(self, sign: float) -> FloatArray:
        """The values, turned by ``sign``, whose mean compared with the margin is compared with it exactly."""
        x = sign * np.asarray(self.values, dtype=np.float64)
        return x if self.margins is None else x - (self.margins - np.mean(self.margins))

    def _below(self, sign: float, margin: float) -> float | None:
        cells = clustered(self._toward(sign), self.groups)
        transformed = self._transformed(self._toward(sign), margin, side=1.0)
        if transformed is None:
            return 1.0
        p = three_sided.p_below(
            cells,
            margin=margin,
            bound=self._bound(sign),
            one_sided=True,
            skewed=self.skewed,
            unbounded=replace(self._beyond_seen(margin), transformed=transformed),
        )
        if self.ends is None or self.skewed or p is None:
            return p
        least, most = self.ends
        ends = (least, most) if sign > 0.0 else (None if most is None else -most, None if least is None else -least)
        return max(p, rare.p_below(cells, ends, margin=margin, bounded=self._within(cells), one_sided=True))

    def _milder(self, sign: float) -> CrossedMean:
        """Spread of the values turned by minus ``sign``, so that draws milder than those made lie above."""
        least, most = (None, None) if self.ends is None else self.ends
        end = least if sign > 0.0 else None if most is None else -most
        end = -self.bound if end is None and self.bound is not None else end
        room = math.inf if end is None else sign * float(np.mean(self.values)) - end
        return replace(self._spread(-self._toward(sign), 1.0), room=room)

    def _bound(self, sign: float) -> float | None:
        """Of a cell: what a group can lose that is like none seen, until several show what losses are like."""
        if self.bound is None:
            return None
        shifted = 0.0 if self.margins is None else float(np.abs(self.margins - np.mean(self.margins)).max())
        if self.groups is None:
            return self.bound + shifted
        lost = sign * np.asarray(self.values, dtype=np.float64).mean(0) > 0.0
        _, sizes = np.unique(self.groups, return_counts=True)
        if len(np.unique(self.groups[lost])) >= ENOUGH and sizes.max() > 1:
            return None
        most = (self.bound + shifted) * float(sizes.max()) * len(sizes) / float(sizes.sum())
        return max(most, float(np.abs(clustered(np.asarray(self.values, dtype=np.float64), self.groups)).max()))

    def _beyond_seen(self, margin: float) -> three_sided.Unbounded:
        """Of an example; of a group of them it is their mean's part."""
        least = self.least if self.far is None else max(self.least, self.far / margin)
        least = least if self.groups is None else least * len(np.unique(self.groups)) / len(self.groups)
        return three_sided.Unbounded(least, transformed=self._unbounded, far=self.far)

    def _transformed(self, x: FloatArray, margin: float, *, side: float) -> bool | None:
        if self.groups is not None or not self._unbounded:
            return self._unbounded
        return is_transformed(x.mean(0), margin, side=side)

    def _spread(self, x: FloatArray, margin: float) -> CrossedMean:
        cells = clustered(x, self.groups)
        adjusted = (self._within(x) or self.far is not None) and not self._signs(x, margin)
        pseudo = amplitude(cells, whole=self.far or 1.0) if adjusted else 0.0
        return crossed(cells, pseudo=pseudo, unbounded=self._unbounded)

    def _signs(self, x: FloatArray, margin: float) -> bool:
        """Whether any difference of bounded values is looked for, in enough groups that differ: see ``by_signs``."""
        return margin <= 0.0 and self._within(x) and enough_moved(x, self.groups)


def largest_gap(first: Values, second: Values, *, bound: float | None, groups: Groups | None) -> Evidence:
    """What excludes that the largest effect of ``second`` exceeds that of ``first`` by the margin, or the reverse.

    Each effect of the one is held against that of the other which is largest in these data, and was chosen from them.

    Args:
        first: ``[candidate, example]``.
        second: ``[candidate, example]``, on the same examples.
        bound: Of a difference; see ``Sample``.
        groups: ``[example]``.
    """
    sides: list[Evidence] = []
    for one, other in ((first, second), (second, first)):
        beside = one[int(one.mean(1).argmax())]
        sides += [Candidate(Sample((each - beside)[None], bound, groups=groups), among=len(one)) for each in other]
    return Largest(sides)
