"""WT101 and WT102: how much noise in the weights it takes to lose the score, and which blocks it hurts most."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, pair
from wheeltap.plans import Plan
from wheeltap.records import BlockMap, Control, Curve, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.site import WHOLE, Site
from wheeltap.stats.curve import Response, area_values, band, half_dose, half_dose_ratio
from wheeltap.stats.effect import exceeds, mean_effect, smallest_detectable

_STEP = 2**0.5
"""Doses lie on a ladder of half octaves."""


class NoiseSettings(AuditSettings, frozen=True, kw_only=True):
    """Doses and thresholds.

    Attributes:
        start: First dose tried; from here the bracket walks to where half of the score is lost.
        rungs: Doses of the curve, in half octaves from the last dose that kept half of the score.
        bracket_draws: Draws per dose while bracketing.
        walk: Most octaves walked either way.
        fragile_below: A subject is fragile if half of its score is lost below this dose, with confidence.
        margin: Differences of curve area up to this are not worth telling; the test is of a larger one.
        worth: Smallest difference of area that a ``not_found`` must have been able to see.
        null_margin: The null control fails if the twin's area differs by more than this with confidence
            ``control_level``.
        control_level: Confidence level of the controls.
        least_score: The clean score must be this far above chance, or there is nothing to lose.
    """

    start: float
    rungs: tuple[int, ...] = (-4, -2, 0, 1, 2, 4)
    bracket_draws: int = 2
    walk: int = 12
    fragile_below: float
    margin: float = 0.02
    worth: float = 0.10
    null_margin: float = 0.05
    control_level: float = 0.999
    least_score: float = 0.05


class RelativeSettings(NoiseSettings, frozen=True, kw_only=True):
    """Relative noise: a dose of .04 is about the rounding error of a 6-bit grid."""

    start: float = 0.125
    fragile_below: float = 0.04


class FunctionSettings(NoiseSettings, frozen=True, kw_only=True):
    """Function-space noise: a dose of .01 moves each layer's output by one per cent."""

    start: float = 0.0625
    fragile_below: float = 0.005


@dataclass(frozen=True)
class _Bracket:
    """Where half of the score is lost: the rung of the last dose that kept half, or what to try next."""

    rung: int | None
    wanted: list[Trial]


class NoiseAudit(Audit):
    """Curve, area, half dose, block map, comparisons and controls for one kind of noise."""

    perturbation: ClassVar[str]
    noise: ClassVar[str]
    reads: ClassVar[str]
    plant_must_show: ClassVar[bool]

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """The bracket first; then the curves of every subject and control, and the reference's block map."""
        if not case.known(case.plan.baselines()) or self._nothing_to_lose(case):
            return []
        bracket = self._bracket(case)
        if bracket.rung is None:
            return bracket.wanted
        doses = self._doses(bracket.rung)
        wanted = [*bracket.wanted]
        for subject in self._measured(case):
            wanted += [t for row in self._grid(case, subject, doses) for t in row]
        wanted += [t for row in self._block_grid(case, bracket.rung) for t in row]
        return wanted

    def most(self, plan: Plan) -> int:
        """Bracket, curves, block map: an upper bound."""
        effort = plan.effort
        curves = len(self.settings.rungs) * (
            len(plan.subjects) * effort.draws + (len(plan.controls)) * effort.control_draws
        )
        blocks = len(plan.reference.blocks) * effort.block_draws
        return (self.settings.walk + 1) * self.settings.bracket_draws + curves + blocks

    def _measured(self, case: Case) -> list[SubjectRecord]:
        plan = case.plan
        plant = plan.planted if self.plant_must_show else None
        return [*plan.subjects, *(s for s in (plan.twin, plant) if s is not None)]

    def _draws(self, case: Case, subject: SubjectRecord) -> int:
        effort = case.plan.effort
        return effort.draws if subject.role == "subject" else min(effort.control_draws, effort.draws)

    def _trial(self, case: Case, subject: SubjectRecord, dose: float, seed: int, site: Site = WHOLE) -> Trial:
        settings: dict[str, Scalar] = {}
        return case.plan.trial(
            subject, self.perturbation, settings=settings, site=site, dose=dose, seed=seed
        )

    def _grid(self, case: Case, subject: SubjectRecord, doses: list[float]) -> list[list[Trial]]:
        draws = range(self._draws(case, subject))
        return [[self._trial(case, subject, dose, seed) for seed in draws] for dose in doses]

    def _block_grid(self, case: Case, rung: int) -> list[list[Trial]]:
        """Trials ``[block][draw]`` at the whole model's half dose."""
        reference, dose = case.plan.reference, self._doses(rung, (1,))[0]
        return [
            [
                self._trial(case, reference, dose, seed, _site_of(reference, block))
                for seed in range(case.plan.effort.block_draws)
            ]
            for block in reference.blocks
        ]

    def _doses(self, rung: int, rungs: tuple[int, ...] | None = None) -> list[float]:
        return [self.settings.start * _STEP ** (rung + r) for r in rungs or self.settings.rungs]

    def _bracket(self, case: Case) -> _Bracket:
        """Walks the ladder by octaves from ``start`` to the first dose on the other side of half."""
        tried: list[Trial] = []
        rung, direction = 0, 0
        for _ in range(self.settings.walk + 1):
            trials = self._grid_at(case, rung)
            tried += trials
            if not case.known(trials):
                return _Bracket(None, tried)
            kept = self._retention(case, trials) >= 0.5
            if direction and kept != (direction > 0):
                return _Bracket(rung - 2 if direction > 0 else rung, tried)
            direction = 1 if kept else -1
            rung += 2 * direction
        # Never crossed: the curve around the last dose shows it, and the half dose is reported as beyond it.
        return _Bracket(rung - 2 * direction, tried)

    def _grid_at(self, case: Case, rung: int) -> list[Trial]:
        dose = self._doses(rung, (0,))[0]
        draws = min(self.settings.bracket_draws, case.plan.effort.draws)
        return [self._trial(case, case.plan.reference, dose, seed) for seed in range(draws)]

    def _retention(self, case: Case, trials: list[Trial]) -> float:
        chance, clean = case.chance, float(case.clean(case.plan.reference).mean())
        try:
            score = float(np.mean([case.values(trial).mean() for trial in trials]))
        except Unanswered:
            return 0.0
        return (score - chance) / (clean - chance)

    def _nothing_to_lose(self, case: Case) -> str:
        """Why no curve can be made, if so: the score is at chance, or the layer moments cannot be estimated."""
        plan = case.plan
        try:
            clean = float(case.clean(plan.reference).mean())
        except Unanswered as gap:
            return gap.because
        above = (clean - case.chance) * (1 if plan.probe.higher_is_better else -1)
        if above < self.settings.least_score:
            return (
                f"{plan.reference.name} scores {clean:.3f}, chance is {case.chance:.3f}: there is nothing to lose."
            )
        return ""

    # ---- judging ----------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Verdict:
        """Findings per subject and pair, controls, curves, block map."""
        verdict = Verdict()
        why_not = self._nothing_to_lose(case)
        if why_not:
            return self._refused(case, Unanswered("not_applicable", why_not))
        bracket = self._bracket(case)
        if bracket.rung is None:
            return self._refused(case, Unanswered("error", "The doses were not bracketed: the run was cut short."))
        try:
            self._read(case, bracket.rung, verdict)
        except Unanswered as gap:
            return self._refused(case, gap)
        return verdict

    def _refused(self, case: Case, gap: Unanswered) -> Verdict:
        names = [s.name for s in case.plan.subjects] + [pair(case.plan.reference, r) for r in case.rivals]
        return Verdict(
            drafts=[
                Draft(Finding(code=self.code, title=self.title, status=gap.status, subject=name, because=gap.because))
                for name in names
            ]
        )

    def _read(self, case: Case, rung: int, verdict: Verdict) -> None:
        doses = self._doses(rung)
        grids = {s.fingerprint: self._grid(case, s, doses) for s in self._measured(case)}
        tables = {fingerprint: case.table(grid) for fingerprint, grid in grids.items()}
        reference = case.plan.reference
        for subject in self._measured(case):
            verdict.curves.append(self._curve(case, subject, doses, tables[subject.fingerprint]))
        for subject, curve in zip(case.plan.subjects, verdict.curves, strict=False):
            verdict.drafts.append(self._single(case, curve, grids[subject.fingerprint]))
        for rival in case.rivals:
            both = (reference.fingerprint, rival.fingerprint)
            trials = [t.key for f in both for row in grids[f] for t in row]
            responses = [self._response(case, s, doses, tables[s.fingerprint]) for s in (reference, rival)]
            verdict.drafts.append(self._pair(case, rival, responses, trials))
        verdict.controls += self._controls(case, doses, tables)
        if case.plan.effort.block_draws:
            verdict.blocks.append(self._block_map(case, rung))

    def _response(self, case: Case, subject: SubjectRecord, doses: list[float], table: Values) -> Response:
        return Response(
            values=table, clean=case.clean(subject), doses=np.array(doses), chance=case.chance
        )

    def _curve(self, case: Case, subject: SubjectRecord, doses: list[float], table: Values) -> Curve:
        probe = case.plan.probe
        mean, low, high = band(table, bounded=probe.bounded)
        half = half_dose(table, case.clean(subject), doses=np.array(doses), chance=case.chance, unit="dose")
        area = mean_effect(area_values(table, np.array(doses)), name="area", unit=probe.measure)
        return Curve(
            code=self.code, title=self.title, subject=subject.name, role=subject.role, unit=self._unit(),
            measure=probe.measure, chance=case.chance, level=0.95, doses=tuple(doses),
            score=tuple(map(float, mean)), low=tuple(map(float, low)), high=tuple(map(float, high)),
            half=half, area=area,
        )  # fmt: skip

    def _unit(self) -> str:
        return self.noise

    def _single(self, case: Case, curve: Curve, grid: list[list[Trial]]) -> Draft:
        """Whether half of the score is lost at a dose so small that the subject must be called fragile."""
        half, limit = curve.half, self.settings.fragile_below
        assert half is not None and curve.area is not None
        trials = [t for row in grid for t in row]
        fragile = half.high is not None and half.high < limit
        sound = half.low is not None and half.low >= limit
        status = "found" if fragile else "not_found" if sound else "inconclusive"
        diverged = case.diverged(trials)
        because = (
            f"Half of {curve.subject}'s above-chance score is lost at {_words(half)} ({self._unit()}); "
            f"it is called fragile below {limit:g}."
            + (f" {diverged} of {len(trials)} disturbed runs gave no finite answer and count as chance." if diverged else "")
        )
        finding = Finding(
            code=self.code, title=self.title, status=status, subject=curve.subject, estimates=(half, curve.area),
            smallest_detectable=limit, because=because, trials=tuple(t.key for t in trials),
        )  # fmt: skip
        return Draft(finding)

    def _pair(self, case: Case, rival: SubjectRecord, responses: list[Response], trials: list[str]) -> Draft:
        plan = case.plan
        one, two = responses
        difference = area_values(one.values, one.doses) - area_values(two.values, two.doses)
        gap = mean_effect(difference, margin=self.settings.margin, name="area_difference", unit=plan.probe.measure)
        ratio = half_dose_ratio(one, two)
        a, b = (plan.reference.name, rival.name) if (gap.value or 0.0) > 0 else (rival.name, plan.reference.name)
        finding = Finding(
            code=self.code,
            title=f"{self.title}: difference",
            status="found",
            subject=pair(plan.reference, rival),
            estimates=(gap, ratio),
            smallest_detectable=smallest_detectable(gap, alpha=plan.alpha, margin=self.settings.margin),
            because=f"{b} is more fragile than {a}: the area under the curves differs by {gap} "
            f"({plan.reference.name} minus {rival.name}). {self.reads}",
            trials=tuple(trials),
        )
        return Draft(
            finding,
            test=gap,
            worth=self.settings.worth,
            otherwise=f"The areas under the two curves differ by {gap}: no more than {self.settings.margin:g}, "
            f"as far as this test can see. {self.reads}",
        )

    # ---- controls ---------------------------------------------------------------------------------------------

    def _controls(self, case: Case, doses: list[float], tables: dict[str, Values]) -> list[Control]:
        plan = case.plan
        found = [self._null(case, doses, tables)] if plan.twin else [self._missing(case, "null")]
        if self.plant_must_show:
            found.append(self._plant(case, doses, tables) if plan.planted else self._missing(case, "planted"))
        return found

    def _missing(self, case: Case, kind: str) -> Control:
        name = f"{self.code} {'re-coded twin' if kind == 'null' else 'planted cancelling units'}"
        return Control(
            name=name,
            kind="null" if kind == "null" else "planted",
            status="skipped",
            because=case.plan.no_controls or "No control was asked for.",
        )

    def _against(self, case: Case, other: SubjectRecord, doses: list[float], tables: dict[str, Values]) -> Estimate:
        """Area of the reference minus that of a control, on the draws they share."""
        a, b = tables[case.plan.reference.fingerprint], tables[other.fingerprint]
        shared = min(a.shape[1], b.shape[1])
        grid = np.array(doses)
        return mean_effect(
            area_values(a[:, :shared], grid) - area_values(b[:, :shared], grid),
            level=self.settings.control_level,
            name="area_difference",
            unit=case.plan.probe.measure,
        )

    def _null(self, case: Case, doses: list[float], tables: dict[str, Values]) -> Control:
        assert case.plan.twin is not None
        gap = self._against(case, case.plan.twin, doses, tables)
        failed = exceeds(gap, self.settings.null_margin)
        return Control(
            name=f"{self.code} re-coded twin",
            kind="null",
            status="failed" if failed else "passed",
            estimates=(gap,),
            because=f"A copy that computes the same function must not look different: its area differs by {gap}, "
            f"allowed is {self.settings.null_margin:g} ({self.settings.control_level:.1%} confidence).",
        )

    def _plant(self, case: Case, doses: list[float], tables: dict[str, Values]) -> Control:
        assert case.plan.planted is not None
        gap = self._against(case, case.plan.planted, doses, tables)
        found = gap.low is not None and gap.low > 0.0
        return Control(
            name=f"{self.code} planted cancelling units",
            kind="planted",
            status="passed" if found else "failed",
            estimates=(gap,),
            because=f"A copy made fragile on purpose must be found: its area is smaller by {gap} "
            f"({self.settings.control_level:.1%} confidence).",
        )

    # ---- block map --------------------------------------------------------------------------------------------

    def _block_map(self, case: Case, rung: int) -> BlockMap:
        plan = case.plan
        clean = case.clean(plan.reference)
        drops = tuple(
            mean_effect(
                clean - case.table([row])[0], bounded=plan.probe.bounded, name="score_lost", unit=plan.probe.measure
            )
            for row in self._block_grid(case, rung)
        )
        return BlockMap(
            code=self.code, title=self.title, subject=plan.reference.name, dose=self._doses(rung, (1,))[0],
            unit=self._unit(), blocks=plan.reference.blocks, drops=drops,
        )  # fmt: skip


def _site_of(subject: SubjectRecord, block: str) -> Site:
    return Site("layer" if block in subject.layers else "block", block)


def _words(half: Estimate) -> str:
    if half.value is not None:
        return f"a dose of {half}"
    if half.low is not None:
        return f"a dose above {half.low:.3g}"
    if half.high is not None:
        return f"a dose below {half.high:.3g}"
    return "no dose that these trials can tell"


@final
class RelativeNoiseAudit(NoiseAudit):
    """How the function is written in coordinates: what rounding and bit flips touch."""

    name = "relative-noise"
    code = "WT101"
    title = "Relative noise in the weights"
    settings_type = RelativeSettings
    perturbation = "relative"
    noise = "relative sd of each weight"
    plant_must_show = True
    reads = (
        "Relative noise sees how the function is written in coordinates, redundant and cancelling weights included; "
        "it is silent on permuted and rescaled copies."
    )


@final
class FunctionNoiseAudit(NoiseAudit):
    """The function alone, however it is written."""

    name = "function-noise"
    code = "WT102"
    title = "Function-space noise"
    settings_type = FunctionSettings
    perturbation = "function"
    noise = "rms share of each layer's output"
    plant_must_show = False
    reads = (
        "Function-space noise sees the function alone: it is silent on every linear re-coding of a layer, "
        "cancelling units included, so a difference here is not in the coordinates."
    )


@final
class StdNoiseAudit(NoiseAudit):
    """What most people use; alarms on rescaled copies of the same function."""

    name = "std-noise"
    code = "WT101"
    title = "Std-normalised noise in the weights"
    settings_type = RelativeSettings
    perturbation = "std"
    noise = "standard deviations of the tensor"
    plant_must_show = False
    reads = "Std-normalised noise changes with the scale in which each unit is written: a difference may mean nothing."
