"""Control copies of a noise audit: the twin, looked at twice where it seems to differ; plants of rising strength."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, NoAnswer
from wheeltap.audits.controls import (
    AGAIN,
    AGAIN_DRAWS,
    Check,
    Null,
    Plants,
    controls_of,
    found_planted,
    plant_level,
    silent_twice,
)
from wheeltap.core.records import Control, Estimate, SubjectRecord, Trial
from wheeltap.stats.clusters import Groups
from wheeltap.stats.curve import Response, area_values
from wheeltap.stats.missing import missed_again
from wheeltap.stats.sample import Sample


@dataclass(frozen=True)
class NoiseResponse:
    """A subject's response to every dose, and the trials behind it."""

    subject: SubjectRecord
    response: Response
    trials: list[Trial]

    def at(self, doses: list[int]) -> "NoiseResponse":
        """The same at some of the doses, by index."""
        some = self.response
        return replace(self, response=replace(some, values=some.values[doses], doses=np.asarray(some.doses)[doses]))


def response_at(case: Case, subject: SubjectRecord, doses: list[float], grid: list[list[Trial]]) -> NoiseResponse:
    """What a subject scores in a grid of trials ``[dose][draw]``.

    Raises:
        NoAnswer: If a trial failed, was skipped or has not run.
    """
    response = Response(
        values=case.table(grid), clean=case.clean(subject), doses=np.array(doses), chance=case.chance,
        groups=case.groups,
    )  # fmt: skip
    return NoiseResponse(subject, response, [trial for row in grid for trial in row])


def area_cells(one: NoiseResponse, two: NoiseResponse) -> NDArray[np.float64]:
    """How much more of its score ``one`` keeps, ``[draw, example]``, on the draws and examples they share.

    Positive where ``one`` is the sounder, also for a measure of which less is better.
    """
    a, b = one.response, two.response
    sign = 1.0 if np.mean(a.clean) >= a.chance else -1.0
    shared = min(a.values.shape[1], b.values.shape[1])
    areas = [area_values(response.values[:, :shared], response.doses) for response in (a, b)]
    return np.asarray(sign * (areas[0] - areas[1]), dtype=np.float64)


def area_difference(
    one: NoiseResponse, two: NoiseResponse, *, level: float = 0.95, margin: float, groups: Groups | None, unit: str
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


_NULL_MARGIN = 0.05
"""Difference of area beyond which the null control fails; it and the next are shares, as thresholds of scores are."""

_PLANT_MARGIN = 0.05
"""The planted control fails if the planted copy's area is shown to be larger by more than this."""

_NULL_LEVEL = 0.95
"""Confidence with which the twin must differ before it is looked at again. The second look, by fresh draws, makes a
void sound run rare; a higher level would leave the control blind to effects of interest."""

_AGAIN_FROM = 20_000  # seeds of draws that no curve has
_PILOT_FROM = 30_000


@final
@dataclass(frozen=True, kw_only=True)
class NoiseControls:
    """Asks for the control copies of one noise audit as far as they are needed, and judges them.

    Attributes:
        case: Plan and outcomes.
        code: Of the audit.
        doses: At which controls are measured.
        draws: Of each control.
        trial: One disturbance of a subject: dose, seed.
        twin: The null copy, where the audit must be silent on it.
        plants: Planted copies of rising strength, where the audit must find them.
        min_effect: See ``NoiseSettings``.
    """

    case: Case
    code: str
    doses: list[float]
    draws: int
    trial: Callable[[SubjectRecord, float, int], Trial]
    twin: SubjectRecord | None
    plants: tuple[SubjectRecord, ...]
    min_effect: float

    # ---- asking -----------------------------------------------------------------------------------------------

    def wanted(self) -> list[Trial]:
        """The next trials, given what is known."""
        found: list[Trial] = []
        for asked in (self._of_twin(), self._of_plants()):
            with suppress(NoAnswer):  # a copy that cannot be measured is skipped, whatever else would be asked of it
                for trial in asked:
                    found.append(trial)
        return found

    def most(self) -> int:
        """Trials at most: with the second look at a twin, which 1 sound run in 20 takes."""
        once, strengths = len(self.doses) * self.draws, len(self.plants)
        pilot = once if strengths > 1 else 0
        looks = 0 if self.twin is None else 1 + 2 * AGAIN_DRAWS * self._looks_again
        return once * looks + once * strengths + max(strengths - 1, 0) + pilot

    @property
    def _looks_again(self) -> bool:
        """Whether a twin that seems to differ is looked at again: not where a budget took the stronger plants."""
        return bool(self.case.plan.stronger) or self.case.plan.planted is None

    def _of_twin(self) -> Iterator[Trial]:
        if self.twin is None:
            return
        yield from self._trials(self.twin)
        if self._known(self.twin) and self._null.apart and self._looks_again:
            yield from self._second_look()

    def _second_look(self) -> list[Trial]:
        assert self.twin is not None, "asked only where there is a twin"
        return [t for one in (self.case.plan.reference, self.twin) for t in self._trials(one, _AGAIN_FROM)]

    def _of_plants(self) -> Iterator[Trial]:
        for tried in self._tried():
            yield self.case.plan.clean(tried)
            if not self.case.known([self.case.plan.clean(tried)]):
                return  # whether it is a copy at all comes first
            yield from self._trials(tried)
        if self._all_missed():
            yield from self._trials(self.plants[-1], _PILOT_FROM)

    def _tried(self) -> Iterator[SubjectRecord]:
        """The plants up to the first that is found, or is not measured yet."""
        for plant in self.plants:
            yield plant
            if not self._known(plant) or self._seen(plant).found:
                return

    def _all_missed(self) -> bool:
        """Whether several strengths were missed; where a budget left but one, there is no more to spend on it."""
        tried = list(self._tried())
        if len(tried) < max(len(self.plants), 2):
            return False
        return self._known(tried[-1]) and not self._seen(tried[-1]).found

    def _trials(self, subject: SubjectRecord, first: int = 0) -> list[Trial]:
        """Dose after dose, its draws from a seed on; a second look has more of them."""
        draws = range(first, first + (AGAIN_DRAWS if first == _AGAIN_FROM else 1) * self.draws)
        return [self.trial(subject, dose, seed) for dose in self.doses for seed in draws]

    def _known(self, copy: SubjectRecord) -> bool:
        """Whether a copy can be compared with the reference."""
        return self.case.known([*self._trials(copy), *self._trials(self.case.plan.reference)])

    # ---- measuring --------------------------------------------------------------------------------------------

    def measured(self, subject: SubjectRecord, first: int = 0) -> NoiseResponse:
        """A copy's response at the doses of controls, by draws from a seed on; see ``response_at``."""
        trials = self._trials(subject, first)
        draws = len(trials) // len(self.doses)
        rows = [trials[at : at + draws] for at in range(0, len(trials), draws)]
        return response_at(self.case, subject, self.doses, rows)

    def copies(self) -> list[NoiseResponse]:
        """What was measured of the twin, and of the plant that decided; nothing of a copy that gave no answer."""
        found: list[NoiseResponse] = []
        with suppress(NoAnswer):
            for copy in (*(() if self.twin is None else (self.twin,)), *list(self._tried())[-1:]):
                found.append(self.measured(copy))
        return found

    @cached_property
    def _reference(self) -> NoiseResponse:
        return self.measured(self.case.plan.reference)

    def _gap(self, one: NoiseResponse, two: NoiseResponse, *, level: float, margin: float) -> Estimate:
        unit = self.case.plan.task.measure
        return area_difference(one, two, level=level, margin=margin, groups=self.case.groups, unit=unit)

    @cached_property
    def _null(self) -> Null:
        """Both looks at the twin, the second where it has been made."""
        assert self.twin is not None, "asked only where there is a twin"
        margin, again = self.case.scaled(_NULL_MARGIN), None
        gap = self._gap(self._reference, self.measured(self.twin), level=_NULL_LEVEL, margin=margin)
        if self.case.known(self._second_look()):
            one, two = (self.measured(one, _AGAIN_FROM) for one in (self.case.plan.reference, self.twin))
            again = self._gap(one, two, level=AGAIN, margin=margin)
        df = self.draws - 1 if self.draws > 1 else None
        return Null(gap=gap, again=again, margin=margin, min_effect=self.case.scaled(self.min_effect), df=df)

    def _seen(self, plant: SubjectRecord) -> Plants:
        level, margin = plant_level(len(self.plants)), self.case.scaled(_PLANT_MARGIN)
        gap = self._gap(self._reference, self.measured(plant), level=level, margin=margin)
        return Plants(effect=gap, copy=plant, weaker=self.plants.index(plant))

    # ---- judging ----------------------------------------------------------------------------------------------

    def judged(self, *, blind: str, planted: bool) -> list[Control]:
        """The twin must not look different; a copy that is made fragile must be found.

        Args:
            blind: Why there is no twin, where the plan does not say.
            planted: Whether the audit must find such copies.
        """
        null: Check = (f"{self.code} reparametrized copy", "null", partial(self._silence, blind))
        plant: Check = (f"{self.code} planted cancelling units", "planted", self._discovery)
        return controls_of(null, *([plant] if planted else []))

    def _silence(self, blind: str, name: str) -> Control:
        if self.twin is None:
            raise NoAnswer("skipped", self.case.plan.no_controls or blind)
        null = self._null
        trials = [*self._reference.trials, *self.measured(self.twin).trials]
        if self.case.diverged(trials) == len(trials):
            raise NoAnswer("skipped", "No disturbed copy gave a finite answer, so none could look different.")
        return silent_twice(
            name, null,
            because=f"A copy that computes the same function must not look different: its area differs by {null.gap} "
            f"({null.gap.level:.1%} interval); the run is void if it is shown to differ by more than "
            f"{null.margin:.2g}, by fresh draws too.",
        )  # fmt: skip

    def _discovery(self, name: str) -> Control:
        if not self.plants:
            raise NoAnswer("skipped", self.case.plan.no_controls)
        seen = self._seen(list(self._tried())[-1])
        missed = None
        if self._all_missed() and self.case.known(self._trials(self.plants[-1], _PILOT_FROM)):
            # Probability that the strongest is missed by a sound audit, from draws that the control does not use.
            pilot, sign = self.measured(self.plants[-1], _PILOT_FROM), self.case.plan.task.sign
            areas = [sign * area_values(one.response.values, np.array(self.doses)) for one in (self._reference, pilot)]
            missed = missed_again(*areas, level=plant_level(len(self.plants)), groups=self.case.groups)
        return found_planted(
            name, replace(seen, missed=missed),
            because=f"A copy made fragile on purpose must be found: with {seen.strength} its area is smaller by "
            f"{seen.effect} ({seen.effect.level:.1%} interval).",
        )  # fmt: skip
