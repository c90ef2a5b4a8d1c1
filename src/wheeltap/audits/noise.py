"""How much noise in the weights it takes to lose the score, and which blocks it hurts most: WT101 and WT102."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import msgspec
import numpy as np

from wheeltap.audits.base import (
    RECODED,
    Audit,
    Case,
    Dose,
    Hypothesis,
    Margin,
    NoAnswer,
    Verdict,
    keeps_less,
    pair,
)
from wheeltap.audits.claims import PAIR, Words
from wheeltap.audits.noise_controls import (
    NoiseControls,
    NoiseResponse,
    area_cells,
    area_difference,
    response_at,
    within_range,
)
from wheeltap.audits.power import Gap, PowerData
from wheeltap.core.records import BlockMap, Curve, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import SMALL, Settings
from wheeltap.core.site import WHOLE, Site
from wheeltap.plans.plan import Plan
from wheeltap.stats.curve import area_values, band, band_ends, half_dose, half_dose_ratio
from wheeltap.stats.evidence import NoEvidence
from wheeltap.stats.sample import Sample

_STEP = 2**0.5

WALK = 12
"""Most octaves walked either way."""

BRACKET_DRAWS = 2
"""Draws per dose while walking."""

Rung = Annotated[int, msgspec.Meta(ge=-64, le=64)]
"""Of half octaves: farther from the first dose there are no numbers, or none that do anything."""


def require_ascending(name: str, rungs: Sequence[int]) -> None:
    """Raises ``ValueError`` if the rungs of a setting do not ascend."""
    if list(rungs) != sorted(set(rungs)):
        raise ValueError(f"`{name}` must ascend, each once; they are {list(rungs)}")


class NoiseSettings(Settings, frozen=True, kw_only=True):
    """Which doses are tried, and thresholds.

    Attributes:
        start: First dose tried; from here the walk goes to where half of the score is lost.
        rungs: Doses of the curve, in half octaves from the last dose that kept half of the score; ascending.
        control_rungs: The doses, among ``rungs``, at which controls are measured; ascending.
        fragile_below: A subject is fragile if half of its score is lost below this dose, with confidence.
        margin: Smallest difference of curve area of interest; the plan's margin, where it is not given. This and
            the other thresholds on scores are shares: of right answers, or of the way from chance to the score.
        min_effect: Difference of area that controls must have been able to see, and that a budget must leave in reach.
        block_map: Whether blocks are also disturbed one at a time.
    """

    start: Dose
    rungs: Annotated[tuple[Rung, ...], msgspec.Meta(min_length=1)] = (-4, -2, 0, 1, 2, 4)
    control_rungs: Annotated[tuple[Rung, ...], msgspec.Meta(min_length=1)] = (-2, 0)
    fragile_below: Dose
    margin: Margin | None = None
    min_effect: Margin = 0.10
    block_map: bool = True

    def __post_init__(self) -> None:
        require_ascending("rungs", self.rungs)
        require_ascending("control_rungs", self.control_rungs)
        apart = [rung for rung in self.control_rungs if rung not in self.rungs]
        if apart:
            raise ValueError(f"`control_rungs` must be among `rungs`; {apart} are not in {list(self.rungs)}")


@dataclass(frozen=True)
class Ladder:
    """The doses of one noise audit.

    Attributes:
        start: Dose of rung 0.
        walk: Most octaves walked either way.
    """

    start: float
    walk: int = WALK

    def dose(self, rung: int) -> float:
        """The dose of a rung."""
        return self.start * _STEP**rung

    def doses(self, centre: int, rungs: Iterable[int]) -> list[float]:
        """Doses of rungs counted from ``centre``."""
        return [self.dose(centre + rung) for rung in rungs]

    def bracket(self, kept_half: Callable[[int], bool | None]) -> tuple[int | None, list[int]]:
        """Walks by octaves from rung 0 to the first rung on the other side of half.

        Args:
            kept_half: Whether the score at a rung is still more than half; ``None`` where it is not known yet.

        Returns:
            The last rung that kept half (``None`` if the walk is not over), and the rungs it went through. Where
            half is never crossed, the last rung but one in that direction: the curve around it shows it.
        """
        rung, direction, walked = 0, 0, list[int]()
        for _ in range(self.walk + 1):
            walked.append(rung)
            kept = kept_half(rung)
            if kept is None:
                return None, walked
            if direction and kept != (direction > 0):
                return (rung - 2 if direction > 0 else rung), walked
            direction = 1 if kept else -1
            rung += 2 * direction
        return rung - 2 * direction, walked


_FRAGILE = Words("fragile", "not fragile", "maybe fragile")

_LEAST_SCORE = 0.05
"""How far the clean score must be above chance, as a share of its way, or there is nothing to lose."""

_RECORDED = 2.0
"""Passes, at most, that record what the blocks of a large model give and prove it, before one of them is disturbed."""


class NoiseAudit(Audit):
    """Curve, area, half dose, block map, comparisons and controls for one kind of noise.

    Attributes:
        looks: Passes over the task, at most, by which is read of a subject what the noise must know of it.
    """

    # Doses by octaves: the same reach as the finer default but for the mildest, at which next to nothing happens.
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {"rungs": [-2, 0, 2, 4]}
    perturbation: ClassVar[str]
    noise: ClassVar[str]
    sees: ClassVar[str]
    plant_must_show: ClassVar[bool]
    looks: ClassVar[float] = 0.0
    copies: ClassVar[tuple[str, ...]] = (*RECODED, "cancel")

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """The bracket first; then the curves of every subject and control, and the reference's block map."""
        if not case.known(case.plan.baselines()) or self._nothing_to_lose(case):
            return []
        centre, walked = self._bracket(case)
        wanted = [trial for rung in walked for trial in self._bracketing(case, rung)]
        if centre is not None:
            for subject in self._measured(case):
                wanted += [t for row in self._grid(case, subject, self._doses(centre)) for t in row]
            wanted += [t for row in self._block_grid(case, centre) for t in row]
            wanted += self._vouchers(case, centre).wanted()
        return wanted

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """The dose at which the walk starts."""
        return ((self.perturbation, self.settings.start),)

    def most(self, plan: Plan) -> int:
        """Bracket, curves, block map: an upper bound."""
        case, effort = Case(plan, lambda _: None), plan.effort
        walked = (WALK + 1) * min(BRACKET_DRAWS, effort.draws)
        curves = len(self._measured(case)) * effort.draws * len(self.settings.rungs) + self._vouchers(case, 0).most()
        return walked + curves + len(plan.reference.blocks) * effort.block_draws * self.settings.block_map

    def most_passes(self, plan: Plan) -> float:
        """One for each trial, and what is read of a subject first; of a large one, again after others were read."""
        again = len(plan.audits) if plan.reference.parameters >= SMALL else 0
        read = len(self._measured(Case(plan, lambda _: None))) + (plan.twin is not None)
        looks = self.looks * plan.sizes.moments * (read + again)
        mapped = self.settings.block_map and plan.effort.block_draws and plan.reference.parameters >= SMALL
        return self.most(plan) + looks + (_RECORDED if mapped else 0.0)

    def _measured(self, case: Case) -> list[SubjectRecord]:
        """Whose whole curve is measured: graded copies too, for they stand for subjects."""
        return [*case.plan.subjects, *(case.plan.graded if self.plant_must_show else ())]

    def _vouchers(self, case: Case, centre: int) -> NoiseControls:
        """The control copies, measured only where they tell most."""
        plan, effort, how = case.plan, case.plan.effort, self.settings
        return NoiseControls(
            case=case, code=self.code, doses=self._ladder.doses(centre, self.settings.control_rungs),
            draws=min(effort.control_draws, effort.draws),
            trial=lambda subject, dose, seed: self._trial(case, subject, dose, seed),
            twin=plan.twin,
            plants=plan.plants if self.plant_must_show else (),
            min_effect=how.min_effect,
        )  # fmt: skip

    def _trial(self, case: Case, subject: SubjectRecord, dose: float, seed: int, site: Site = WHOLE) -> Trial:
        return case.plan.trial(subject, self.perturbation, site=site, dose=dose, seed=seed)

    def _grid(self, case: Case, subject: SubjectRecord, doses: list[float]) -> list[list[Trial]]:
        draws = range(case.plan.effort.draws)
        return [[self._trial(case, subject, dose, seed) for seed in draws] for dose in doses]

    def _block_grid(self, case: Case, centre: int) -> list[list[Trial]]:
        """Trials ``[block][draw]`` at a dose at which the whole model has lost half."""
        reference, dose = case.plan.reference, self._ladder.dose(centre + 1)
        if not (self.settings.block_map and case.plan.effort.block_draws):
            return []
        return [
            [
                self._trial(case, reference, dose, seed, Site("layer" if block in reference.layers else "block", block))
                for seed in range(case.plan.effort.block_draws)
            ]
            for block in reference.blocks
        ]

    @property
    def _ladder(self) -> Ladder:
        return Ladder(self.settings.start)

    def _doses(self, centre: int) -> list[float]:
        return self._ladder.doses(centre, self.settings.rungs)

    def _bracket(self, case: Case) -> tuple[int | None, list[int]]:
        def kept_half(rung: int) -> bool | None:
            trials = self._bracketing(case, rung)
            return self._retention(case, trials) >= 0.5 if case.known(trials) else None

        return self._ladder.bracket(kept_half)

    def _bracketing(self, case: Case, rung: int) -> list[Trial]:
        draws = range(min(BRACKET_DRAWS, case.plan.effort.draws))
        return [self._trial(case, case.plan.reference, self._ladder.dose(rung), seed) for seed in draws]

    def _retention(self, case: Case, trials: list[Trial]) -> float:
        chance, clean = case.chance, float(case.clean(case.plan.reference).mean())
        try:
            score = float(np.mean([case.values(trial).mean() for trial in trials]))
        except NoAnswer:
            return 0.0
        return (score - chance) / (clean - chance)

    def _nothing_to_lose(self, case: Case) -> str:
        """Why no curve can be made, if so: the score is at chance, or the layer moments cannot be estimated."""
        plan = case.plan
        try:
            clean = float(case.clean(plan.reference).mean())
        except NoAnswer as gap:
            return gap.because
        above = (clean - case.chance) * plan.task.sign
        if above <= 0.0 or above < _LEAST_SCORE * (1.0 if plan.task.bounded else abs(case.chance)):
            return f"{plan.reference.name} scores {clean:.3f}, chance is {case.chance:.3f}: there is nothing to lose."
        return ""

    # ---- judging ----------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Verdict:
        """Findings per subject and pair, controls, curves, block map."""
        verdict = Verdict()
        why_not = self._nothing_to_lose(case)
        if why_not:
            return self._refused(case, NoAnswer("not_applicable", why_not))
        centre, _ = self._bracket(case)
        if centre is None:
            return self._refused(case, NoAnswer("error", "The doses were not bracketed: the run was cut short."))
        try:
            self._read(case, centre, verdict)
        except NoAnswer as gap:
            return self._refused(case, gap)
        return verdict

    def _refused(self, case: Case, gap: NoAnswer) -> Verdict:
        names = [s.name for s in case.plan.subjects] + [pair(case.plan.reference, r) for r in case.rivals]
        return Verdict(drafts=[self.unanswered(name, gap) for name in names])

    def _read(self, case: Case, centre: int, verdict: Verdict) -> None:
        doses = self._doses(centre)
        measured = {
            subject.name: response_at(case, subject, doses, self._grid(case, subject, doses))
            for subject in self._measured(case)
        }
        vouchers = self._vouchers(case, centre)
        drawn = [*(one for one in measured.values() if one.subject.role != "graded"), *vouchers.copies()]
        verdict.curves += [self._curve(case, one) for one in drawn]
        for subject, curve in zip(case.plan.subjects, verdict.curves, strict=False):
            verdict.drafts.append(self._single(case, curve, measured[subject.name]))
        reference = measured[case.plan.reference.name]
        for rival in case.rivals:
            verdict.drafts.append(self._pair(case, reference, measured[rival.name]))
        blind = f"{self.title} is not silent on reparametrized copies, so none can serve as its control."
        verdict.controls += vouchers.judged(blind=blind, planted=self.plant_must_show)
        if self.plant_must_show:
            copies = case.plan.graded if case.plan.effort.draws > 1 and case.plan.task.examples > 1 else ()
            gaps = [Gap.of_cells(copy, area_cells(reference, measured[copy.name]), case.groups) for copy in copies]
            verdict.graded = PowerData(self.code, case.way(self.settings.margin), gaps)
        if self._block_grid(case, centre):
            verdict.blocks.append(self._block_map(case, centre))

    def _curve(self, case: Case, one: NoiseResponse) -> Curve:
        task, response = case.plan.task, one.response
        draws = np.shape(response.values)[1]
        rows = [one.trials[at : at + draws] for at in range(0, len(one.trials), draws)]
        mean, low, high = band(response.values, bounded=task.bounded, groups=case.groups)
        doses = np.asarray(response.doses)
        half = half_dose(response)
        area = Sample(area_values(response.values, doses), groups=case.groups).effect(name="area", unit=task.measure)
        area = within_range(area, 0.0, 1.0) if task.bounded else area
        return Curve(
            code=self.code, title=self.title, subject=one.subject.name, role=one.subject.role, unit=self.noise,
            measure=task.measure, chance=case.chance, level=0.95, doses=tuple(map(float, doses)),
            score=tuple(map(float, mean)), low=band_ends(low), high=band_ends(high),
            half=half, area=area, norms=tuple(case.norm(row) for row in rows),
        )  # fmt: skip

    def _single(self, case: Case, curve: Curve, one: NoiseResponse) -> Hypothesis:
        """Whether half of the score is lost at a dose so small that the subject must be called fragile."""
        half, limit, trials = curve.half, self.settings.fragile_below, one.trials
        assert half is not None and curve.area is not None
        fragile = half.high is not None and half.high < limit
        sound = half.low is not None and half.low >= limit
        status = "found" if fragile else "excluded" if sound else "inconclusive"
        diverged = case.diverged(trials)
        lost = f"{diverged} of {len(trials)} disturbed runs gave no finite answer and count as chance."
        because = (
            f"Half of {curve.subject}'s above-chance score is lost at {_words(half)} ({self.noise}); it is called "
            f"fragile below {limit:g}.{_sentence(lost if diverged else '')}{_sentence(case.untouched(trials))}"
        )
        claim = Hypothesis(test=None, status=status, found=because, beside=(half, curve.area), words=_FRAGILE)
        return self.draft(case, curve.subject, claim, trials)

    def _pair(self, case: Case, reference: NoiseResponse, rival: NoiseResponse) -> Hypothesis:
        plan, names = case.plan, (reference.subject.name, rival.subject.name)
        margin = case.way(self.settings.margin)
        gap = area_difference(reference, rival, margin=margin, groups=case.groups, unit=plan.task.measure)
        ratio = half_dose_ratio(reference.response, rival.response)
        sound, fragile = names if (gap.value or 0.0) > 0 else names[::-1]
        sees = f"{self.sees}{_sentence(case.untouched([*reference.trials, *rival.trials]))}"
        cells = area_cells(reference, rival)
        bound = 1.0 if plan.task.bounded else None
        sample = Sample(cells, bound, groups=case.groups, skewed=True)
        if len(cells) > 1:
            ends = None if bound is None else (-bound, bound)
            unbounded = Sample(cells, None, ends, groups=case.groups, skewed=True)
            gap = msgspec.structs.replace(gap, p=unbounded.above(margin))
        claim = Hypothesis(
            test=gap, margin=margin, evidence=sample if len(cells) > 1 else NoEvidence(), words=PAIR,
            beside=(ratio,),
            brief=keeps_less(self.title, reference.subject, rival.subject, gap),
            found=f"{fragile} is more fragile than {sound}: the area under the curves differs by {gap} "
            f"({names[0]} minus {names[1]}). {sees}",
            otherwise=f"The areas under the two curves differ by {gap}: not shown to be more than "
            f"{margin:.2g}, after correction for all tests of this report. {sees}",
        )  # fmt: skip
        trials, title = (*reference.trials, *rival.trials), f"{self.title}: difference"
        return self.draft(case, pair(reference.subject, rival.subject), claim, trials, title=title)

    # ---- block map --------------------------------------------------------------------------------------------

    def _block_map(self, case: Case, centre: int) -> BlockMap:
        plan, clean = case.plan, case.clean(case.plan.reference)
        sign = plan.task.sign
        # A block may hold nothing that this noise is defined on (a tied embedding): it is left out of the map.
        rows = {
            block: row
            for block, row in zip(plan.reference.blocks, self._block_grid(case, centre), strict=True)
            if not case.skipped(row)
        }
        drops = tuple(
            Sample(
                sign * (clean - case.table([row])[0]), 1.0 if plan.task.bounded else None, groups=case.groups
            ).effect(name="score_lost", unit=plan.task.measure)
            for row in rows.values()
        )
        return BlockMap(
            code=self.code, title=self.title, subject=plan.reference.name, dose=self._ladder.dose(centre + 1),
            unit=self.noise, blocks=tuple(rows), drops=drops,
        )  # fmt: skip


def _sentence(text: str) -> str:
    """A sentence to follow another one; nothing where there is none."""
    return f" {text}" if text else ""


def _words(half: Estimate) -> str:
    if half.value is not None:
        return f"a dose of {half}"
    if half.low is not None:
        return f"a dose above {half.low:.3g}"
    if half.high is not None:
        return f"a dose below {half.high:.3g}"
    return "no dose that these trials can determine"


class RelativeSettings(NoiseSettings, frozen=True, kw_only=True):
    """Relative noise: a dose of .04 is about the rounding error of a 6-bit grid."""

    start: Dose = 0.125
    fragile_below: Dose = 0.04


class FunctionSettings(NoiseSettings, frozen=True, kw_only=True):
    """Function-space noise: a dose of .01 moves each layer's output by one percent."""

    start: Dose = 0.0625
    fragile_below: Dose = 0.005


@final
class RelativeNoiseAudit(NoiseAudit):
    """How the function is written in coordinates: what rounding and bit flips touch."""

    name = "relative-noise"
    code = "WT101"
    title = "Relative noise in the weights"
    brief = "Relative noise"
    reads = (
        "Every weight is changed at random in proportion to its own size, and the loss of score is measured. It "
        "sees how the function is written down in weights, which is what rounding, compression and bit flips "
        "touch."
    )
    axis = "relative noise (share of each weight's size)"
    settings_type = RelativeSettings
    perturbation = "relative"
    noise = "relative sd of each weight"
    plant_must_show = True
    sees = (
        "Relative noise sees how the function is written in coordinates, redundant and cancelling weights included; "
        "it is silent on permuted and rescaled copies, and on fused or split rows. A conversion that writes other "
        "numbers (a folded norm, a merged adapter, a layer made of two) can change it."
    )


@final
class FunctionNoiseAudit(NoiseAudit):
    """What each layer computes, however it is parametrized within its module."""

    # The block map is left to relative noise.
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {**NoiseAudit.large, "block_map": False}
    name = "function-noise"
    code = "WT102"
    title = "Function-space noise"
    reads = (
        "Each layer's output is disturbed at random in proportion to what it normally carries, by a change of its"
        " weights. Function-preserving copies get the same answer, also where the same maps are cut into other "
        "modules."
    )
    axis = "function-space noise (share of each layer's output)"
    settings_type = FunctionSettings
    perturbation = "function"
    noise = "rms share of each layer's output"
    looks = 1.0  # at the layers' moments
    plant_must_show = False
    sees = (
        "Function-space noise follows what each map carries: it is silent on every function-preserving "
        "reparametrization, cancelling units included, and on other cuts of the same maps into modules (fused or "
        "split projections, a folded batch norm or weight norm, a merged adapter)."
    )
