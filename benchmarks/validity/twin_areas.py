"""Is a disturbance silent on a gauge's twins? Measured as a difference of curve areas, with its interval."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from wheeltap import gauge
from wheeltap.core.records import Estimate, Scalar
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject, derived_record
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.gather import gather
from wheeltap.engine.units import probe_run
from wheeltap.perturb.base import Perturbation, create
from wheeltap.stats.curve import area_values
from wheeltap.stats.effect import mean_effect
from wheeltap.testing.planted import PlantedCase

DRAWS_PER_TWIN = 8
"""Draws of noise tried on each twin: a twin costs moments of its own, a draw only a pass."""

HALVES = (0.5, 2**-0.5, 1.0, 2**0.5)
"""Doses of a curve, in units of the dose at which half of the score is lost."""


@final
@dataclass(frozen=True)
class Tried:
    """A disturbance as it is tried on twins.

    Attributes:
        perturbation: Registered name.
        doses: Ascending.
        draws: Random draws (for a perturbation that draws nothing: twins).
        settings: Of the perturbation.
    """

    perturbation: str
    doses: tuple[float, ...]
    draws: int
    settings: tuple[tuple[str, Scalar], ...] = ()

    def made(self) -> Perturbation:
        """The perturbation."""
        return create(self.perturbation, dict(self.settings))


def scores(subject: Subject, case: PlantedCase, *, tried: Tried, draws: Sequence[int]) -> NDArray[np.float64]:
    """Score per example under every dose and draw: ``[dose, draw, example]``. A diverged answer counts as wrong."""
    made = tried.made()
    known = gather(made.needs, subject, case.task) if made.needs else None
    found = np.zeros((len(tried.doses), len(draws), len(case.task.targets)))
    with Disturbance(subject, made, WHOLE, known) as disturbance:
        for column, draw in enumerate(draws):
            for row, dose in enumerate(tried.doses):
                disturbance.apply(dose, root=0, seed=draw)
                given = case.task.scores(subject.model)
                found[row, column] = case.task.measure(given, case.task.targets, given).numpy()
    return np.nan_to_num(found)


def half_dose(case: PlantedCase, perturbation: str, *, start: float = 0.125) -> float:
    """A dose at which about half of the clean score is lost, by half octaves up or down from ``start``."""
    given = case.task.scores(case.subject.model)
    clean = float(case.task.measure(given, case.task.targets, given).mean())

    def kept(dose: float) -> bool:
        tried = Tried(perturbation, (dose,), 4)
        return float(scores(case.subject, case, tried=tried, draws=range(4)).mean()) > clean / 2

    dose, up = start, kept(start)
    for _ in range(40):
        following = dose * (2**0.5 if up else 2**-0.5)
        if kept(following) != up:
            return following if up else dose
        dose = following
    return dose


@lru_cache(maxsize=8)
def _original(case: PlantedCase, tried: Tried) -> NDArray[np.float64]:
    """The original's scores, kept while gauge after gauge is compared with them."""
    draws = tried.draws if tried.made().random else 1
    return scores(case.subject, case, tried=tried, draws=range(draws))


def _batches(tried: Tried) -> Iterator[tuple[int, range]]:
    size = DRAWS_PER_TWIN if tried.made().random else 1
    for twin, first in enumerate(range(0, tried.draws, size)):
        yield twin, range(first, min(first + size, tried.draws))


def area_shift(
    case: PlantedCase, operations: Sequence[str], *, tried: Tried, level: float = 0.95, **settings: Scalar
) -> Estimate:
    """Curve area of a gauge's twins minus that of the original, on the same examples and draws, in the score's unit.

    Draws, twins and examples are all taken as samples: each few draws come with a twin of their own.

    Args:
        case: The original and its task.
        operations: Gauges, applied in this order.
        tried: The disturbance, its doses and draws.
        level: Of the interval.
        **settings: Of the gauges.
    """
    run = probe_run(case.task, case.subject.model)
    found = gauge.find(case.subject.model, run)
    assert isinstance(found, gauge.Family), "the case has gauges"
    doses = np.asarray(tried.doses)
    ours = area_values(_original(case, tried), doses)
    theirs: list[NDArray[np.float64]] = []
    for seed, draws in _batches(tried):
        record = derived_record(
            case.subject.record, gauge.describe(found, *operations, seed=seed, **settings), role="twin"
        )
        assert record.made is not None, "a twin is derived"
        twin = case.subject.derived(gauge.twin(case.subject.model, record.made, run, family=found), record)
        theirs.append(area_values(scores(twin, case, tried=tried, draws=draws), doses))
    difference = np.concatenate(theirs) - ours
    return mean_effect(difference, level=level, name="area_shift", unit=case.task.measure.name)
