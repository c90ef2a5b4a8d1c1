"""Does one thing stand out from others like it that were drawn at random?"""

from dataclasses import dataclass, replace
from typing import final

import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats.clusters import Groups, spread_over
from wheeltap.stats.crossed import CrossedMean, FloatArray, Values, checked, is_transformed, required_examples, within
from wheeltap.stats.evidence import Evidence

LEVEL = 0.95
"""Of the interval."""


@final
@dataclass(frozen=True, eq=False)
class Beyond(Evidence):
    """How much more ``one`` gives than things like it drawn at random, per example.

    The hypothesis is that ``one`` is itself such a draw. So the spread among draws counts once for it and once more
    for their mean, and the interval is that of a further draw, not of the mean: one of many like sets differs from
    their mean nearly always, and that proves nothing. Draws are taken to be near normal.

    Attributes:
        one: [example].
        others: [draw, example], on the same examples.
        bounded: Whether each difference is one of two values in [0, 1]; two imaginary examples are then added, one
            lost and one gained, so that the interval never has zero width.
        groups: [example], the cluster of each; ``None`` where examples are independent.

    Raises:
        DataError: If the shapes do not fit, or there are fewer than two draws.

    Source: Crawford & Howell (1998), "Comparing an individual's test score against norms derived from small samples",
    for one against few; ``CrossedMean`` for examples that are a sample too.
    """

    one: Values
    others: Values
    bounded: bool = False
    groups: Groups | None = None

    def __post_init__(self) -> None:
        x = checked(self.one, ("example",), what="values")
        y = checked(self.others, ("draw", "example"), what="values drawn")
        if x.shape[0] != y.shape[1] or len(y) < 2:
            raise DataError(
                "Random draws cannot serve as a comparison.",
                expected=f"at least 2 draws on the same {len(x)} examples",
                got=f"{y.shape[0]} draws on {y.shape[1]} examples",
            )
        if self.bounded:
            within(self._gaps, -1.0, 1.0, what="differences")

    def effect(self, *, margin: float = 0.0, name: str, unit: str) -> Estimate:
        """The mean difference with its interval, and the p-value of "it is within the margin", in ``unit``.

        Without ends where all examples are in one group.
        """
        spread, (draws, examples) = self._spread, self._gaps.shape
        centre = float(spread.centre)
        low, high = (float(centre + side * spread.half_width(1.0 - LEVEL, side=side)) for side in (-1.0, 1.0))
        low, high = (low, high) if spread.example_df else (None, None)
        tested = self._tested(margin, sign=1.0 if centre >= 0.0 else -1.0, side=-1.0)
        several = "" if self.groups is None else f" in {len(np.unique(self.groups))} groups"
        return Estimate(
            name=name, value=float(self._gaps.mean()), low=low, high=high, level=LEVEL, n=examples, unit=unit,
            method=f"one against {draws} random draws, crossed t, {examples} examples{several}",
            p=1.0 if tested is None else tested.p_value(margin),
        )  # fmt: skip

    def below(self, margin: float, *, one_sided: bool) -> float:
        """Of giving more by the margin; giving less is never of interest."""
        del one_sided
        spread = self._tested(margin, sign=1.0, side=1.0)
        if spread is None or (short := margin - float(spread.centre)) <= 0.0:
            return 1.0
        return replace(spread, centre=np.asarray(short), skewness=-spread.skewness).p_value()

    def required(self, margin: float) -> int:
        """As of every evidence."""
        is_asked = not self.bounded and self.groups is None
        return required_examples(self._gaps.mean(0), margin) if is_asked else 0

    def _tested(self, margin: float, *, sign: float, side: float) -> CrossedMean | None:
        """The spread for a test of one end; ``None`` where too few examples leave that open: see ``is_transformed``."""
        if self.bounded or self.groups is not None:
            return self._spread
        transformed = is_transformed(sign * self._gaps.mean(0), margin, side=side)
        if transformed is None:
            return None
        return self._spread if transformed else replace(self._spread, skewness=0.0)

    @property
    def _gaps(self) -> FloatArray:
        """``[draw, example]``."""
        return np.asarray(self.one, dtype=np.float64) - np.asarray(self.others, dtype=np.float64)

    @property
    def _spread(self) -> CrossedMean:
        """Of a further draw; that of a single group is not known."""
        gaps = self._gaps
        spread = spread_over(gaps, self.groups, pseudo=1.0 if self.bounded else 0.0, unbounded=not self.bounded)
        # Of a mean over the draws, the spread among them is known as its nth part; ``one`` adds a whole.
        times = len(gaps) + 1
        if gaps.shape[1] == 1:  # only the draws are a sample: they are counted as the examples of a single draw
            return replace(spread, example=spread.example * times)
        return replace(spread, draw=spread.draw * times, residual=spread.residual * times)
