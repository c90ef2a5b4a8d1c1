"""What was measured of one subject under one kind of noise, and how two such measurements are compared."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.stats.clusters import Groups
from wheeltap.stats.curve import Response, area_values
from wheeltap.stats.sample import Sample


@dataclass(frozen=True)
class Measured:
    """A subject's response to every dose, and the trials behind it."""

    subject: SubjectRecord
    response: Response
    trials: list[Trial]

    def at(self, doses: list[int]) -> "Measured":
        """The same at some of the doses, by index."""
        some = self.response
        return replace(self, response=replace(some, values=some.values[doses], doses=np.asarray(some.doses)[doses]))


def area_cells(one: Measured, two: Measured) -> NDArray[np.float64]:
    """How much more of its score ``one`` keeps, ``[draw, example]``, on the draws and examples they share.

    Positive where ``one`` is the sounder, also for a measure of which less is better.
    """
    a, b = one.response, two.response
    sign = 1.0 if np.mean(a.clean) >= a.chance else -1.0
    shared = min(a.values.shape[1], b.values.shape[1])
    areas = [area_values(response.values[:, :shared], response.doses) for response in (a, b)]
    return np.asarray(sign * (areas[0] - areas[1]), dtype=np.float64)


def area_difference(
    one: Measured, two: Measured, *, level: float = 0.95, margin: float, groups: Groups | None, unit: str
) -> Estimate:
    """Mean of ``area_cells``: area minus area, tested against the margin.

    Noise is drawn at random, so a single draw says nothing of how much draws differ: the interval is open then.
    """
    cells = area_cells(one, two)
    found = Sample(cells, groups=groups).effect(level=level, margin=margin, name="area_difference", unit=unit)
    if len(cells) == 1:
        return msgspec.structs.replace(found, low=None, high=None, p=None, method=f"{found.method}: no spread of draws")
    both = (one.response, two.response)
    shares = all(response.values.min() >= 0.0 and response.values.max() <= 1.0 for response in both)
    return within_range(found, -1.0, 1.0) if shares else found


def within_range(estimate: Estimate, low: float, high: float) -> Estimate:
    """The estimate with its interval cut to what the number can be at all."""
    ends = (
        None if estimate.low is None else max(estimate.low, low),
        None if estimate.high is None else min(estimate.high, high),
    )
    return msgspec.structs.replace(estimate, low=ends[0], high=ends[1])
