"""From what is asked to a plan with its price: names resolved, subjects and task checked."""

import tempfile
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes
from statistics import fmean
from time import perf_counter
from typing import Any, Final, Unpack, final

import msgspec
import numpy as np
import torch

from wheeltap import gauge
from wheeltap.audits import base as audits_base
from wheeltap.audits.base import Audit, Case, expanded
from wheeltap.audits.case import NO_ERROR
from wheeltap.audits.census import ALWAYS
from wheeltap.audits.noise import NoiseAudit
from wheeltap.audits.settle import audits_of as audits_in
from wheeltap.audits.slices import require_slices
from wheeltap.core import seeds
from wheeltap.core.annotations import IN_ORDER
from wheeltap.core.coverage import packed
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.measure import LogPerplexity, label_accuracy, squared_error
from wheeltap.core.records import SET, Outcome, SubjectRecord, Trial
from wheeltap.core.sets import JoinedTask, facts, measured
from wheeltap.core.settings import LARGE, SMALL
from wheeltap.core.subject import Subject, derived_record
from wheeltap.core.targets import are_labels, shows_labels
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.apply import preserved_state
from wheeltap.engine.clean import in_line, settle, threads_for
from wheeltap.engine.readings import create as reading
from wheeltap.engine.readings import readings
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.engine.units import hidden_units, probe_run
from wheeltap.perturb import create, perturbations
from wheeltap.plans.plan import ERROR_MARGIN, FILES, MARGIN, AuditSpec, Effort, Plan, Sizes
from wheeltap.plans.store import Store
from wheeltap.recipes.base import recipes
from wheeltap.runs.budget import Prices, least, within
from wheeltap.runs.given import Model, scored, subjects_of
from wheeltap.runs.request import (
    Budget,
    Given,
    Request,
    RequestOptions,
    audits_of,
    door,
    functions_of,
    margin_of,
    with_cap,
)
from wheeltap.runs.reuse import set_variants
from wheeltap.runs.shipping import found
from wheeltap.sources.examples import Examples, task_of
from wheeltap.stats.serial import serial_groups, strata_of


def require_named(plan: Plan, subjects: Sequence[Subject], task: BaseTask) -> None:
    """Holds what the settings of a plan name against the models and the examples.

    Args:
        plan: With its audits and their settings.
        subjects: Its models, in its order.
        task: Its examples.

    Raises:
        UsageError: If the task has no such group or slices, or too many of these; a disturbance that is asked for by
            name is defined on none of a subject's layers, or a reading names what a subject or the task does not have
            (see ``Reading.require``).
    """
    for audit in audits_in(plan):
        known = sorted({int(one) for one in task.behaviors})
        for group in audit.groups():
            if group not in known:
                raise UsageError(
                    f"The task has no behavior {group}.",
                    where=f"{audit.name}: group",
                    expected=", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else ""),
                    got=str(group),
                    do="Name another, or give others: task.with_behaviors, behaviors in .npz, behavior in .jsonl.",
                )
        sets = {SET: np.arange(len(plan.task.sets))} if plan.task.sets else {}
        require_slices(audit.slices(), {name: np.unique(one) for name, one in task.slices.items()} | sets, plan.task)
        for subject in subjects:
            for trial in audit.readings(plan, subject.record):
                reading(trial.perturbation, trial.settings).require(subject, task)
            for label, trial in audit.named_trials(plan, subject.record):
                kind = create(trial.perturbation, trial.settings)
                covered = [layer for layer in subject.layers if trial.site.covers(layer.name)]
                reached = kind.changes == "cache" or any(kind.accepts(layer) for layer in covered)
                if not reached and not packed(subject.model):  # of a quantized model the row says so
                    raise UsageError(
                        f"{subject.name} cannot be shipped so: {label}.",
                        where=f"--for, {subject.name}",
                        expected=f"a layer on which it is defined ({kind.title})",
                        got=", ".join(layer.name for layer in covered[:5]) or "no layer beside embeddings and head",
                        do="Leave this scheme out, or choose another one: wheeltap list schemes.",
                    )


def require_installed(trials: Sequence[Trial]) -> None:
    """Raises ``UsageError`` if a perturbation or reading that is asked for is not installed, or of another version."""
    kinds = {"read": readings, "make": recipes, "ship": None}
    for known in (perturbations, readings, recipes):
        names = {trial.perturbation for trial in trials if kinds.get(trial.kind, perturbations) is known}
        missing = sorted(names.difference(known))
        if missing:
            raise UsageError(
                f"The {known.kind} {missing[0]!r} that this plan asks for is not installed.",
                where="the plan",
                expected=f"a package that declares {missing[0]!r} in the entry-point group {known.group!r}",
                got=f"no such {known.kind} here",
                do=f"Install that package in this environment; then it is shown by: wheeltap list {known.kind}s",
            )
    for trial in trials:
        if trial.kind == "disturb" and trial.version != (here := perturbations.get(trial.perturbation).version):
            raise UsageError(
                f"The plan was made for another version of the perturbation {trial.perturbation!r}.",
                where="the plan", expected=f"version {trial.version}", got=f"version {here}: it gives other weights",
                do="Make the plan again. What its store holds of other perturbations is not measured again.",
            )  # fmt: skip


_DRAWS: Final = 12
"""Draws that are timed, at most, where one draw has one dose or a noise's few; the first trial warms up."""

TIMING: Final = 0.05
"""Share of a time budget after which no further audit is timed."""


def priced(plan: Plan, subjects: Sequence[Subject], task: BaseTask, *, seconds: float) -> Prices:
    """Times a clean pass of each subject, and trials of the reference until about ``seconds`` are gone.

    Where a pass takes long, little else is timed: drawing and writing weights then takes little beside it.

    Args:
        plan: Whose audits are to be priced.
        subjects: The models it names.
        task: The examples it names.
        seconds: What the timing may take.
    """
    began = perf_counter()
    each = [seconds_of_a_pass(subject, task) for subject in subjects]
    with (
        tempfile.TemporaryDirectory(prefix="wheeltap-") as folder,
        Store(Path(folder) / "timing.wheeltap", key=token_bytes()) as store,
    ):
        timer = _TrialTimer(least(plan), TrialRunner(list(subjects), plan.controls, task), store, each[0])
        if each[0] < seconds:
            timer.run(until=began + seconds)
    slower = fmean(each) / each[0]
    return Prices(
        clean=fmean(each),
        beside={name: seconds * slower for name, seconds in timer.beside.items()},
        kept=fmean(timer.kept or [0.0]),
        copy=timer.copy,
        spent=perf_counter() - began,
    )


def seconds_of_a_pass(subject: Subject, task: BaseTask) -> float:
    """Wall-clock seconds of one clean pass over the task, on the threads that a run would use."""
    with preserved_state(subject), threads_for(subject.record.parameters):
        if subject.settled is None:
            task.scores(subject.model)  # the first pass is slower than the others
        began = perf_counter()
        task.scores(subject.model)
        return max(perf_counter() - began, 1e-9)


@final
class _TrialTimer:
    """Runs some of what each audit would ask of the reference.

    Attributes:
        beside: By audit, what a trial takes beside its passes.
        kept: What keeping each outcome took.
        copy: What making a control copy took; 0 where none was made.
    """

    def __init__(self, plan: Plan, runner: TrialRunner, store: Store, clean: float) -> None:
        self.plan, self.runner, self.store, self.clean = plan, runner, store, clean
        self.beside: dict[str, float] = {}
        self.kept: list[float] = []
        self.copy = 0.0
        self._outcomes: dict[str, Outcome] = {}

    def run(self, *, until: float) -> None:
        """Times audit after audit, those that cost most first, as long as there is time."""
        plan = self.plan
        run_trials([plan.clean(plan.reference)], self.runner, self._commit)
        for audit in sorted(audits_in(plan), key=lambda audit: -audit.most_passes(plan)):
            one = self.clean * max(audit.most_passes(plan), 1.0) / max(audit.most(plan), 1)
            left = until - perf_counter()
            if one < left:
                self._time(audit, most=max(int(left / (2.0 * one)), 2))
        if plan.twin is not None and perf_counter() < until:
            began = perf_counter()
            with self.runner.lending():
                self.runner.subject(plan.twin.fingerprint)
                self.copy = perf_counter() - began

    def _time(self, audit: Audit, *, most: int) -> None:
        """Some trials of each kind that the audit asks for at first, and once these are known; so many at most."""
        kinds: dict[str, list[Trial]] = {}
        each: dict[str, float] = {}
        for _ in range(2):
            kinds = self._asked(audit)
            for kind in kinds.keys() - each.keys():
                some = _some(audit, kinds[kind])[:most]
                run_trials([trial for trial in some if trial.key not in self._outcomes], self.runner, self._commit)
                ran = [self._outcomes[trial.key] for trial in (some[1:] or some)]
                each[kind] = fmean(max(one.seconds - one.forwards * self.clean, 0.0) for one in ran)
        count = sum(map(len, kinds.values()))
        if count:
            self.beside[audit.name] = sum(each.get(kind, 0.0) * len(several) for kind, several in kinds.items()) / count

    def _asked(self, audit: Audit) -> dict[str, list[Trial]]:
        """Trials of the reference, by perturbation or reading."""
        kinds: dict[str, list[Trial]] = {}
        for trial in audit.ask(Case(self.plan, self._lookup)):
            if trial.subject == self.plan.reference.fingerprint and trial.kind not in ("clean", "ship"):
                kinds.setdefault(trial.perturbation, []).append(trial)
        return kinds

    def _lookup(self, key: str) -> Outcome | None:
        """Clean outcomes of other subjects are taken to be the reference's: only what is asked first depends on it."""
        if key in self._outcomes:
            return self._outcomes[key]
        clean = {trial.key for trial in self.plan.baselines()}
        return self._outcomes[self.plan.clean(self.plan.reference).key] if key in clean else None

    def _commit(self, outcome: Outcome) -> None:
        began = perf_counter()
        self.store.put(outcome)
        self.kept.append(perf_counter() - began)
        self._outcomes[outcome.key] = outcome


def _some(audit: Audit, trials: Sequence[Trial]) -> list[Trial]:
    """Every dose of the first draw, which share what is drawn or trained; of one dose, further draws.

    A reading, which has no dose, takes long enough to be timed by one trial.
    """
    one = trials[0]
    doses = [trial for trial in trials if trial.seed == one.seed]
    if len(doses) > 1 or not one.dose:
        return doses
    # Noise is asked for at one dose first, and at several doses of each draw then.
    halved = range(len(audit.settings.rungs) if isinstance(audit, NoiseAudit) else 1)
    return [
        msgspec.structs.replace(one, seed=one.seed + draw, dose=one.dose / 2.0**times)
        for draw in range(_DRAWS)
        for times in halved
    ]


def default_effort(parameters: int) -> Effort:
    """Draws per dose for a model of this size: enough for tight intervals on small ones, minutes on large ones."""
    if parameters <= SMALL:
        return Effort(draws=32, control_draws=32, block_draws=8)
    if parameters < LARGE:
        return Effort(draws=8, control_draws=8, block_draws=2)
    return Effort(draws=4, control_draws=4, block_draws=1)


def effort_of(draws: int | None, parameters: int) -> Effort:
    """Draws: so many of noise, or as many as suit a model of this size."""
    usual = default_effort(parameters)
    if draws is None:
        return usual
    return msgspec.structs.replace(usual, draws=draws, control_draws=min(draws, usual.control_draws))


def default_audits(subjects: Sequence[Subject], task: object = None) -> tuple[str, ...]:
    """Names of the audits that are run where none are asked for: single weights not of large models or several sets."""
    long = max(subject.record.parameters for subject in subjects) >= LARGE or isinstance(task, JoinedTask)
    return tuple(name for name in audits_base.DEFAULT if not (long and name == "single-point"))


@door(Request)
def plan(
    subjects: Model | Sequence[Model],
    task: Examples,
    *,
    command: str | None = None,
    sources: tuple[str, ...] = (),
    data: str | None = None,
    **asked: Unpack[RequestOptions],
) -> Plan:
    """What an audit of the first subject, and a comparison of the others with it, would run.

    Args:
        subjects: One model, or several to compare with the first; a bare module is called as its class.
        task: The examples: a task, or what one is made of (see ``sources.examples.task_of``).
        command: The verb it is for; by default that of as many subjects.
        sources: How the command line loads each subject.
        data: Path of the task's data.
        asked: What is passed on.

    Raises:
        UsageError: If an audit, a setting or what it names is not known, names are equal, or the budget is too small.
        ModelError: If a model fails on the task, or rewrites its weights in each pass.
    """
    return planned(subjects, task, Request(**asked), command=command, sources=sources, data=data)


def planned(
    subjects: Model | Sequence[Model],
    task: Examples,
    request: Request,
    *,
    command: str | None = None,
    sources: tuple[str, ...] = (),
    data: str | None = None,
) -> Plan:
    """The plan of a request; see ``plan``."""
    given, request = functions_of(request.schemes), request.sound()
    several = subjects_of(subjects)
    _require_different(several)
    task = settled_on(task_of(task), several, measure=request.measure)
    set_variants(several)
    margin = _usual_margin(several[0], task) if request.margin is None else request.margin
    if request.margin is not None:
        margin = margin_of(margin, of_answers=task.measure.bounded)
    asked = audits_of(request.audits) or default_audits(several, task)
    largest = max(s.record.parameters for s in several)
    specs = _with_files(_specs([*asked, *ALWAYS], largest), several, given)
    by = next((str(one.settings.get("slices", "")) for one in specs if one.name == "deployment"), "")
    by = f"{SET},{by}" if isinstance(task, JoinedTask) else by  # each set is a slice
    divided = ("deployment", *(("score",) if len(several) > 1 else ())) if by else ()
    specs = tuple(AuditSpec(one.name, {**one.settings, "slices": by}) if one.name in divided else one for one in specs)
    made = Plan(
        command=command or ("audit" if len(several) == 1 else "compare"),
        subjects=tuple(subject.record for subject in several), task=with_cap(task.record, request.cap), audits=specs,
        effort=request.effort or default_effort(largest), sizes=_sizes(several, task, specs),
        versions={name: kind.get(name).version for kind in (perturbations, readings) for name in kind},
        seed=request.seed, alpha=request.alpha, margin=margin, partial=request.partial, sources=sources, data=data,
        **_copies(several[0], task, specs, request.seed),
    )  # fmt: skip
    require_named(made, several, task)
    if request.budget is None:
        return made
    allowed = request.budget if isinstance(request.budget, Budget) else Budget.parse(str(request.budget))
    if allowed.seconds is None:
        return within(made, allowed.forwards or 0.0)
    return within(made, allowed.seconds, priced(made, several, task, seconds=TIMING * allowed.seconds))


def _with_files(specs: tuple[AuditSpec, ...], subjects: Sequence[Subject], given: Given) -> tuple[AuditSpec, ...]:
    """The audits, with what is found out of the files that they are about."""
    asked = dict.fromkeys(file for spec in specs for file in audits_base.create(spec.name, dict(spec.settings)).files())
    mine = next((spec for spec in specs if spec.name == FILES), None)
    if not asked and mine is None:
        return specs
    if not asked or len(subjects) > 1:
        raise UsageError(
            "Files as they are shipped are compared with one original.", where="--for",
            expected="one model, and its files: wheeltap audit ORIGINAL --for gguf:FILE,nf4",
            got=f"{len(asked)} files of {len(subjects)} model{'s' * (len(subjects) != 1)}",
            do="Audit each original with its own files.",
        )  # fmt: skip
    known = msgspec.json.encode(found(asked, subjects[0], given)).decode()
    settings = {**(mine.settings if mine else {}), "known": known}
    return (*(spec for spec in specs if spec.name != FILES), AuditSpec(FILES, settings))


def _require_different(subjects: Sequence[Subject]) -> None:
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            "Subjects must have different names.",
            expected="one name per subject",
            got=", ".join(names) or "no subject",
            do="Give each a name: wt.Subject(model, name=...).",
        )


def settled_on(
    task: BaseTask, subjects: Sequence[Subject], *, measure: str | Callable[..., Any] | None = None
) -> BaseTask:
    """The examples as a plan takes them, after the subjects' first pass over them, by which fingerprints are known.

    They are scored as asked (where nothing was asked, float targets of 0 and 1 as the labels that the outputs show
    them to be), each once, and without those to which the measure gives no number.

    Args:
        task: The examples.
        subjects: The models.
        measure: By what they are scored; by default the task's own.

    Raises:
        DataError: If the measure gives no example a number.
        UsageError: If test sets are scored by different measures, so that there is no score of all.
        ModelError: See ``settle``.
    """
    if isinstance(task, JoinedTask):
        parts = [settled_on(part, subjects, measure=measure) for part in task.parts]
        if len({"accuracy" if part.measure.name == "acc" else part.measure.name for part in parts}) > 1:
            raise UsageError(
                "The test sets are scored by different measures.", where=task.name, expected="one that all can have",
                got=", ".join(f"{part.name}: {part.measure.name}" for part in parts),
                do="Give --measure (of tasks of lm-eval metric=), or audit the sets one by one.",
            )  # fmt: skip
        joined = JoinedTask(parts).once()
        for subject in subjects:
            settle(subject, joined)
        return joined
    task = scored(task, measure).once()
    if task.chosen and task.measure is squared_error and are_labels(task.targets) and subjects:
        labels = task.scored_by(label_accuracy)
        labels.chosen = True
        task = labels if shows_labels(settle(subjects[0], labels).scores, task.targets.cpu()) else task
    undefined = np.zeros(len(task.targets), dtype=bool)
    for subject in subjects:
        settled = settle(subject, task)
        values = to_array(measured(task, settled.scores, settled.scores)[task.measure.name])
        undefined |= np.isnan(values) if bool(torch.isfinite(settled.scores).all()) else False
    if undefined.all():
        raise DataError(
            "The measure gives no example a number.",
            where=f"{task.name}: {task.measure.name}", expected="a number for some", got=f"NaN for {len(undefined)}",
            do="Check the targets: a query needs a relevant document.",
        )  # fmt: skip
    if not undefined.any():
        return _in_order(task, subjects)
    kept = task.part(to_tensor(np.flatnonzero(~undefined)))
    kept.left_out, kept.repeats, kept.more = int(undefined.sum()), task.repeats, task.more
    for subject in subjects:
        settle(subject, kept)
    return _in_order(kept, subjects)


def _in_order(task: BaseTask, subjects: Sequence[Subject]) -> BaseTask:
    """The task, with blocks of the file as groups where what models score depends on the examples before.

    Not where groups were declared or noticed, or a symmetry or suite tells how examples belong together.
    """
    known = task.annotations
    if known.groups is not None or known.symmetry is not None or known.others:
        return task
    scores = [subject.settled.scores for subject in subjects if subject.settled is not None]
    values = [to_array(one) for each in scores for one in measured(task, each, each).values()]
    finite = [one for one in values if one.ndim == 1 and bool(np.isfinite(one).all())]
    strata = strata_of(task.targets.cpu().numpy(), task.slices.values())
    groups = serial_groups(np.array(finite, dtype=np.float64), strata) if finite else None
    if groups is None:
        return task
    grouped = task.with_noticed(to_tensor(groups), IN_ORDER)
    for subject in subjects:  # scores do not depend on groups
        if subject.settled is not None:
            subject.settled = replace(subject.settled, task=grouped.digest)
    return grouped


def _usual_margin(subject: Subject, task: BaseTask) -> float:
    """The margin where none is asked for: a tenth of an error that has no bound; see ``Case.is_error``."""
    measure = task.measure
    if measure.bounded or measure.higher_is_better or isinstance(measure, LogPerplexity) or subject.settled is None:
        return MARGIN
    scores = subject.settled.scores
    errors = measured(task, scores, scores)[measure.name]
    some = bool((errors >= 0.0).all()) and float(errors.mean()) > NO_ERROR * abs(float(facts(task, scores)["chance"]))
    return ERROR_MARGIN if some else MARGIN


def _copies(subject: Subject, task: BaseTask, specs: Sequence[AuditSpec], seed: int) -> dict[str, Any]:
    """Fields of a plan that name its control copies: those that one of the audits needs."""
    needed = {gauge for spec in specs for gauge in audits_base.audits.get(spec.name).copies}
    if not needed:
        return {"no_controls": "None of these audits needs a control copy."}
    twin, planted, why_not = _controls(subject, task, needed, seed)
    more = {"stronger": _stronger(subject, planted), "graded": _graded(subject, planted)}
    return {"twin": twin, "planted": planted, **more, "no_controls": why_not}


def _sizes(subjects: Sequence[Subject], task: BaseTask, specs: Sequence[AuditSpec]) -> Sizes:
    """What the cost of readings depends on; units are counted only where an audit asks each of them."""
    counted = any(audits_base.audits.get(spec.name).by_units for spec in specs)
    factors, hidden = task.annotations.factors.values(), dict[str, int]()
    for subject in subjects if counted else ():
        try:
            hidden[subject.record.fingerprint] = sum(one.units for one in hidden_units(subject, task))
        except Exception:  # no structure is known, or the model cannot be copied
            hidden[subject.record.fingerprint] = 0
    return Sizes(
        hidden=hidden,
        factors=tuple(len(np.unique(to_array(values))) for values in factors),
        symmetric=task.annotations.symmetry is not None,
        moments=task.moment_passes,
    )


def _specs(asked: Sequence[str | AuditSpec], parameters: int) -> tuple[AuditSpec, ...]:
    """The audits with their settings, groups taken apart; settings that make no sense are refused.

    A name that is also given with settings, by itself or in a group, stands for those.
    """
    known = {audit.name for audit in asked if not isinstance(audit, str)}
    single: list[str | AuditSpec] = []
    for audit in (audits_base.named(audit) if isinstance(audit, str) else audit for audit in asked):
        for one in expanded([audit]) if isinstance(audit, str) else (audit,):
            if not isinstance(one, str) or one not in known:
                single.append(one)
            if isinstance(one, str):
                known.add(one)
    given = [AuditSpec(name=audit) if isinstance(audit, str) else audit for audit in single]
    # On a large model the costly settings are spared unless these say otherwise.
    specs = tuple(
        AuditSpec(spec.name, {**audits_base.sparing(spec.name, parameters), **spec.settings}) for spec in given
    )
    for spec in specs:
        for name, dose in audits_base.create(spec.name, dict(spec.settings)).fixed_doses():
            create(name).require_dose(dose)
    return specs


PLANTED_PAIRS = 0.25
"""Cancelling pairs planted per hidden layer, as a share of its units: a copy of a large model stays within a quarter
more memory."""

PLANTED_SCALES = (4.0, 32.0, 256.0)
"""How large the outgoing weights of planted units are, in those of their layer: the first strength that a subject shows
is its control. Nets whose norms hold down what a block writes (Gemma 2) need the second or third."""

GRADED_PAIRS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Cancelling pairs in one hidden layer of the copies that measure detection power, as a share of its units."""

GRADED_PLANTS = 3
"""Copies of each number of pairs, each in a layer drawn at random: how hard a plant is to find differs."""

GRADED_BELOW = 500_000
"""Parameters up to which these copies are part of every plan: they cost as much as subjects."""


def _controls(
    subject: Subject, task: BaseTask, needed: Set[str], seed: int
) -> tuple[SubjectRecord | None, SubjectRecord | None, str]:
    """Records of the re-coded twin and the planted copy, or why there are none."""
    try:
        with preserved_state(subject), threads_for(subject.record.parameters):  # finding its structure runs its forward
            family = gauge.find(subject.model, probe_run(task, subject.model))
    except Exception as error:  # whatever a copy of the model raises
        return None, None, f"No copy of this model could be made: {in_line(error)}"
    if isinstance(family, gauge.Refusal):
        return None, None, f"No function-preserving copy is known for this model: {family.because}"
    twin, planted, why_not = None, None, ""
    wanted = [name for name in audits_base.RECODED if name in needed]
    silent = [name for name in wanted if name in family.offers]
    if silent:
        twin = derived_record(subject.record, gauge.describe(family, *silent, seed=seed), role="twin")
    else:
        why_not = f"No reparametrized copy was made: {'; '.join(family.why_not(name) for name in wanted)}"
    if "cancel" not in needed:
        return twin, None, why_not
    if "cancel" in family.offers:
        cancelling = gauge.describe(family, "cancel", seed=seed, pairs=PLANTED_PAIRS, scale=PLANTED_SCALES[0])
        planted = derived_record(subject.record, cancelling, role="planted")
    else:
        why_not = f"{why_not} No cancelling units were planted: {family.why_not('cancel')}".strip()
    return twin, planted, why_not


def _stronger(subject: Subject, planted: SubjectRecord | None) -> tuple[SubjectRecord, ...]:
    """Records of the same plant at the higher strengths."""
    if planted is None or planted.made is None:
        return ()
    records: list[SubjectRecord] = []
    for scale in PLANTED_SCALES[1:]:
        origin = msgspec.structs.replace(planted.made, settings={**planted.made.settings, "scale": scale})
        records.append(derived_record(subject.record, origin, role="planted", label=f"scale {scale:g}"))
    return tuple(records)


def _graded(subject: Subject, planted: SubjectRecord | None) -> tuple[SubjectRecord, ...]:
    """Records of copies with few to many cancelling pairs in one layer, for a small model that can be planted."""
    if planted is None or planted.made is None or subject.record.parameters > GRADED_BELOW:
        return ()
    whole = planted.made
    records: list[SubjectRecord] = []
    for pairs in GRADED_PAIRS:
        for plant in range(GRADED_PLANTS):
            made = msgspec.structs.replace(
                whole, settings={**whole.settings, "pairs": pairs, "layers": 1},
                seed=seeds.derive(whole.seed, "graded", plant),
            )  # fmt: skip
            label = f"{pairs:.0%} of a layer, {plant + 1}"
            records.append(derived_record(subject.record, made, role="graded", label=label))
    return tuple(records)
