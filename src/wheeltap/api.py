"""The Python door: audit one model, compare two, plan, run, judge."""

import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import torch

from wheeltap import __version__, gauge, seeds
from wheeltap.audits import base as audits_base
from wheeltap.audits.judge import audits_of, wanted
from wheeltap.audits.judge import judge as judged
from wheeltap.audits.ladder import LadderSettings
from wheeltap.audits.noise import FunctionNoiseAudit
from wheeltap.engine.apply import as_before
from wheeltap.engine.executors import Executor, ProcessPool, Serial
from wheeltap.engine.readings import readings
from wheeltap.engine.run import ONE_THREAD_BELOW
from wheeltap.engine.workshop import Workshop
from wheeltap.errors import UsageError
from wheeltap.judging import noted
from wheeltap.perturb import create, perturbations
from wheeltap.plans import AuditSpec, Effort, Plan
from wheeltap.probe import BaseProbe
from wheeltap.records import Cost, Outcome, Scalar, SubjectRecord, Trial
from wheeltap.report.report import Report
from wheeltap.store import Store
from wheeltap.subject import Subject, derived_record


@dataclass(frozen=True)
class Progress:
    """How far a run is: trials done of those known to be wanted, and passes over the probe made so far."""

    done: int
    total: int
    forwards: float
    label: str


Watch = Callable[[Progress], None]

Audits = Sequence[str | AuditSpec]


LARGE = 20_000_000
"""Parameters from which a pass takes seconds, so that each dose of a curve must earn its place."""

OCTAVES = (-2, 0, 2, 4)
"""Doses of a large model's curves, in half octaves from the last that kept half of the score: the same reach as the
finer default but for the mildest dose, at which next to nothing happens."""


def default_effort(parameters: int) -> Effort:
    """Draws per dose for a model of this size: enough for tight intervals on small ones, minutes on large ones."""
    if parameters <= 2_000_000:
        return Effort(draws=32, control_draws=16, block_draws=8)
    if parameters < LARGE:
        return Effort(draws=8, control_draws=8, block_draws=2)
    return Effort(draws=4, control_draws=4, block_draws=1)


def default_audits(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Names of the audits that are run where none are asked for."""
    names = audits_base.DEFAULT if len(subjects) == 1 else audits_base.DEFAULT_COMPARE
    large = max(subject.record.parameters for subject in subjects) >= LARGE
    return tuple(name for name in names if not (large and name in audits_base.STRUCTURE))


def plan(
    subjects: Subject | Sequence[Subject],
    probe: BaseProbe,
    *,
    audits: Audits | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    **extra: Any,
) -> Plan:
    """What an audit of the first subject, and a comparison of the others with it, would run.

    Args:
        subjects: One model, or several to compare with the first.
        probe: The examples.
        audits: Names (see ``wheeltap list audits``), or specs with settings.
        effort: Draws; by default chosen by the model's size.
        seed: Root of every draw.
        **extra: Further fields of ``Plan`` (``alpha``, ``command``, ``sources``, ``data``).

    Raises:
        UnknownName: If an audit is not registered.
        UsageError: If a setting does not fit, or two subjects share a name.
    """
    several = [subjects] if isinstance(subjects, Subject) else list(subjects)
    _require_names(several)
    parameters = max(subject.record.parameters for subject in several)
    specs = tuple(_spec(audit, parameters) for audit in (audits or default_audits(several)))
    for spec in specs:
        for name, dose in audits_base.create(spec.name, dict(spec.settings)).fixed_doses():
            create(name).require_dose(dose)
    twin, planted, why_not = _controls(several[0], seed)
    graded = _graded(several[0], planted)
    return Plan(
        command=extra.pop("command", "audit" if len(several) == 1 else "compare"),
        subjects=tuple(subject.record for subject in several),
        probe=probe.record,
        audits=specs,
        effort=effort or default_effort(parameters),
        versions={name: kind.get(name).version for kind in (perturbations, readings) for name in kind},
        twin=twin,
        planted=planted,
        graded=graded,
        no_controls=why_not,
        seed=seed,
        **extra,
    )


def _spec(audit: str | AuditSpec, parameters: int) -> AuditSpec:
    """The audit with its settings; on a large model the costly ones are spared unless the settings say otherwise.

    Noise doses then go by octaves, and the block map is left to relative noise.
    """
    spec = AuditSpec(name=audit) if isinstance(audit, str) else audit
    kind = audits_base.audits.get(spec.name)
    if parameters < LARGE or not issubclass(kind.settings_type, LadderSettings):
        return spec
    spared: dict[str, Scalar | list[int | float]] = {"rungs": list(OCTAVES)}
    if kind is FunctionNoiseAudit:
        spared["block_map"] = False
    return msgspec.structs.replace(spec, settings={**spared, **spec.settings})


def _require_names(subjects: list[Subject]) -> None:
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            "Subjects must have different names.",
            expected="one name per subject",
            got=", ".join(names) or "no subject",
            do="Give each a name: wt.Subject(model, name=...).",
        )


PLANTED_PAIRS = 0.25
"""Cancelling pairs planted per hidden layer, as a share of its units: found at once on every net we tried, and a copy
of a large model stays within a quarter more memory."""


GRADED_PAIRS = (1, 2, 4, 8)
"""Cancelling pairs per hidden layer of the copies from which detection power is told."""

GRADED_PLANTS = 3
"""Copies of each number of pairs: how hard a plant is to find differs from plant to plant."""

GRADED_BELOW = 500_000
"""Parameters up to which these copies are part of every plan: they cost as much as subjects."""

RECODED = ("permute", "rescale", "heads")
"""The gauges of the null twin, where they hold: relative and function-space noise must both be silent on them."""


def _controls(subject: Subject, seed: int) -> tuple[SubjectRecord | None, SubjectRecord | None, str]:
    """Records of the re-coded twin and the planted copy, or why there are none."""
    with as_before(subject):  # finding its structure runs its forward
        family = gauge.find(subject.model)
    if isinstance(family, gauge.Refusal):
        return None, None, f"No function-preserving copy is known for this model: {family.because}"
    twin, planted, why_not = None, None, ""
    silent = [name for name in RECODED if name in family.offers]
    if silent:
        twin = derived_record(subject.record, gauge.describe(family, *silent, seed=seed), role="twin")
    else:
        why_not = f"No twin was made: {'; '.join(family.why_not(name) for name in RECODED)}"
    if "cancel" in family.offers:
        cancelling = gauge.describe(family, "cancel", seed=seed, pairs=PLANTED_PAIRS)
        planted = derived_record(subject.record, cancelling, role="planted")
    else:
        why_not = f"{why_not} No cancelling units were planted: {family.why_not('cancel')}".strip()
    return twin, planted, why_not


def _graded(subject: Subject, planted: SubjectRecord | None) -> tuple[SubjectRecord, ...]:
    """Records of copies with few to many cancelling pairs, for a small model that can be planted at all."""
    if planted is None or planted.derivation is None or subject.record.parameters > GRADED_BELOW:
        return ()
    whole = planted.derivation
    records: list[SubjectRecord] = []
    for pairs in GRADED_PAIRS:
        for plant in range(GRADED_PLANTS):
            made = msgspec.structs.replace(
                whole, settings={**whole.settings, "pairs": pairs}, seed=seeds.derive(whole.seed, "graded", plant)
            )
            label = f"{pairs} pairs, {plant + 1}"
            records.append(derived_record(subject.record, made, role="graded", label=label))
    return tuple(records)


def run(
    plan: Plan,
    subjects: Subject | Sequence[Subject],
    probe: BaseProbe,
    *,
    store: str | Path | None = None,
    workers: int = 1,
    watch: Watch | None = None,
) -> Report:
    """Runs what the store lacks of a plan, and judges.

    Args:
        plan: What to run.
        subjects: The models it names.
        probe: The examples it names.
        store: File that keeps every outcome; a rerun resumes. In a temporary file if not given.
        workers: Processes; 1 runs in this one.
        watch: Called after each trial.

    Raises:
        UsageError: If the subjects or the probe are not those of the plan.
        StoreError: If the store cannot be used.
        ModelError: If a clean pass is not finite or not repeatable.
    """
    several = [subjects] if isinstance(subjects, Subject) else list(subjects)
    _require_same(plan, several, probe)
    executor: Executor = Serial() if workers == 1 else ProcessPool(workers)
    with ExitStack() as stack:
        if store is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wheeltap-"))
            store = Path(folder) / "run.wheeltap"
        kept = stack.enter_context(Store(store))
        stack.enter_context(executor)
        kept.put_plan(plan.key, plan.to_bytes())
        kept.put_note("provenance", msgspec.json.encode(provenance(plan, several[0])))
        return _Run(plan, Workshop(several, plan.controls, probe), kept, executor, watch).finish()


def _require_same(plan: Plan, subjects: list[Subject], probe: BaseProbe) -> None:
    got = [(s.name, s.record.fingerprint) for s in subjects]
    expected = [(s.name, s.fingerprint) for s in plan.subjects]
    if got != expected or probe.digest != plan.probe.digest:
        what = "probe" if got == expected else "subjects"
        raise UsageError(
            f"The plan was made for other {what}.",
            expected=", ".join(f"{n} ({f[:8]})" for n, f in expected) + f" on probe {plan.probe.digest[:8]}",
            got=", ".join(f"{n} ({f[:8]})" for n, f in got) + f" on probe {probe.digest[:8]}",
            do="Weights, examples or code changed since: make a new plan.",
        )


class _Run:
    """One run of a plan: asks, carries out what is missing, asks again, until nothing new is wanted."""

    def __init__(self, plan: Plan, workshop: Workshop, store: Store, executor: Executor, watch: Watch | None) -> None:
        self.plan, self.workshop, self.store, self.executor, self.watch = plan, workshop, store, executor, watch
        self.known: dict[str, Outcome] = {}
        self.done = self.total = 0
        self.spent = self.before = 0.0

    def lookup(self, key: str) -> Outcome | None:
        """The outcome of a trial, from memory or the store."""
        if key not in self.known:
            found = self.store.get(key)
            if found is None:
                return None
            self.known[key] = found
        return self.known[key]

    def finish(self) -> Report:
        began = perf_counter()
        asked = self._missing()
        reused = len(wanted(self.plan, self.lookup)) - len(asked)
        while asked:
            self._tell_clean()
            # Clean passes are compared with each other, so they stay in one process.
            clean = all(trial.perturbation == "none" for trial in asked)
            self.before = self.workshop.forwards
            self.spent += (Serial() if clean else self.executor).run(asked, lambda: self.workshop, self._commit)
            asked = self._missing()
        cost = Cost(forwards=self.spent, seconds=perf_counter() - began, trials=self.done, reused=reused)
        return Report(judged(self.plan, self.lookup, cost=cost, provenance=noted(self.store)))

    def _missing(self) -> list[Trial]:
        asked = [trial for trial in wanted(self.plan, self.lookup) if self.lookup(trial.key) is None]
        self.total = max(self.total, self.done + len(asked))
        return asked

    def _tell_clean(self) -> None:
        """Clean scores from the store, so that a resumed run makes no clean pass again."""
        for trial in self.plan.baselines():
            outcome = self.lookup(trial.key)
            if outcome is not None and "scores" in outcome.values:
                self.workshop.know_clean(trial.subject, outcome.values["scores"])

    def _commit(self, outcome: Outcome) -> None:
        self.store.put(outcome)
        self.known[outcome.key] = outcome
        self.done += 1
        if self.watch is not None:
            forwards = self.spent + self.workshop.forwards - self.before
            self.watch(Progress(self.done, self.total, forwards, outcome.status))


def audit(
    subject: Subject,
    probe: BaseProbe,
    *,
    audits: Audits | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    **how: Any,
) -> Report:
    """Plans, runs and judges an audit of one model.

    Args:
        subject: The model; it comes back bit-identical.
        probe: The examples.
        audits: Names or specs; by default all but ``std-noise``.
        store: File that keeps every outcome; a rerun resumes.
        seed: Root of every draw.
        **how: ``effort``, ``alpha`` of the plan; ``workers``, ``watch`` of the run.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    return _planned_and_run([subject], probe, audits=audits, store=store, seed=seed, how=how)


def compare(
    a: Subject,
    b: Subject,
    probe: BaseProbe,
    *,
    audits: Audits | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    **how: Any,
) -> Report:
    """Compares two models on the same examples and the same draws: do scores differ, does fragility?

    Args:
        a: The reference; doses are bracketed on it.
        b: The other model.
        probe: The examples.
        audits: Names or specs; by default score, relative noise and function-space noise.
        store: File that keeps every outcome; a rerun resumes.
        seed: Root of every draw.
        **how: ``effort``, ``alpha`` of the plan; ``workers``, ``watch`` of the run.

    Raises:
        WheeltapError: See ``plan`` and ``run``.
    """
    return _planned_and_run([a, b], probe, audits=audits, store=store, seed=seed, how=how)


def _planned_and_run(
    subjects: list[Subject],
    probe: BaseProbe,
    *,
    audits: Audits | None,
    store: str | Path | None,
    seed: int,
    how: dict[str, Any],
) -> Report:
    running = {key: how.pop(key) for key in ("workers", "watch") if key in how}
    made = plan(subjects, probe, audits=audits, seed=seed, **how)
    return run(made, subjects, probe, store=store, **running)


def provenance(plan: Plan, subject: Subject) -> dict[str, Scalar]:
    """Versions, numerical path and settings that the numbers depend on."""
    return {
        "wheeltap": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "path": subject.path,
        "threads": 1 if subject.record.parameters < ONE_THREAD_BELOW else torch.get_num_threads(),
        "seed": plan.seed,
        "alpha": plan.alpha,
        "draws": plan.effort.draws,
        "plan": plan.key,
    }


def most_trials(plan: Plan) -> int:
    """Upper bound on the trials (and so the passes over the probe) that a plan can ask for."""
    return len(plan.baselines()) + sum(audit.most(plan) for audit in audits_of(plan))
