"""Making plans: which audits with which settings, how many draws, which controls; cut to a budget if there is one."""

from collections.abc import Sequence, Set
from typing import Any

import msgspec
import numpy as np

from wheeltap import gauge
from wheeltap.audits import base as audits_base
from wheeltap.audits.base import LARGE, expanded
from wheeltap.audits.case import NO_ERROR
from wheeltap.audits.census import ALWAYS
from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.literals import checked
from wheeltap.core.measure import chance_of, values_of
from wheeltap.core.records import SubjectRecord
from wheeltap.core.subject import Subject, derived_record
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.apply import as_before
from wheeltap.engine.clean import in_line, settle, threads_for
from wheeltap.engine.inside.units import few, hidden_units
from wheeltap.engine.readings import readings
from wheeltap.perturb import create, perturbations
from wheeltap.plans.plan import ERROR_MARGIN, MARGIN, AuditSpec, Effort, Plan, Sizes
from wheeltap.runs import given
from wheeltap.runs.budget import Budget, within
from wheeltap.runs.given import Audits, Examples, Model
from wheeltap.runs.named import require_named
from wheeltap.runs.pricing import TIMING, priced


def default_effort(parameters: int) -> Effort:
    """Draws per dose for a model of this size: enough for tight intervals on small ones, minutes on large ones."""
    if parameters <= 2_000_000:
        return Effort(draws=32, control_draws=32, block_draws=8)
    if parameters < LARGE:
        return Effort(draws=8, control_draws=8, block_draws=2)
    return Effort(draws=4, control_draws=4, block_draws=1)


def default_audits(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Names of the audits that are run where none are asked for."""
    large = max(subject.record.parameters for subject in subjects) >= LARGE
    return tuple(name for name in audits_base.DEFAULT if not (large and name == "single-point"))


@checked
def plan(  # noqa: PLR0913 - a door: each is a choice of its own
    subjects: Model | Sequence[Model],
    task: Examples,
    *,
    audits: Audits | None = None,
    effort: Effort | None = None,
    budget: Budget | str | None = None,
    seed: int = 0,
    alpha: float = 0.05,
    schemes: str | Sequence[str] | None = None,
    margin: float | None = None,
    partial: bool = False,
    command: str | None = None,
    sources: tuple[str, ...] = (),
    data: str | None = None,
) -> Plan:
    """What an audit of the first subject, and a comparison of the others with it, would run.

    Args:
        subjects: One model, or several to compare with the first; a bare module is called as its class.
        task: The examples: a task, or what one is made of (see ``given.task_of``).
        audits: Names (see ``wheeltap list audits``), or specs with settings, or a single one.
        effort: Draws; by default chosen by the model's size.
        budget: What it may cost, such as ``200f`` (passes) or ``10m``: effort is cut to fit (see ``Plan.cuts``).
        seed: Root of every draw.
        alpha: Probability of any false alarm, over all findings together; of any false reassurance, likewise.
        schemes: How the models will be shipped, such as ``"nf4,int8"``: what the audit ``deployment`` judges.
        margin: Smallest loss of score of interest: a share of right answers (by default .02), of an error without a
            bound (.1), or of the way from chance to any other score (.02).
        partial: Whether verdicts are given although many weights were left alone.
        command: The verb it is for; by default that of as many subjects.
        sources: How the command line loads each subject.
        data: Path of the task's data.

    Raises:
        UsageError: If an audit, a setting or what it names is not known, names are equal, or the budget is too small.
        ModelError: If a model fails on the task, or rewrites its weights in each pass.
    """
    seed, alpha = given.whole_of(seed, name="seed"), given.alpha_of(alpha)
    if margin is not None:
        margin = _margin(margin)
    asked, several, task = _shipped(given.audits_of(audits), schemes), *_settled(subjects, task)
    if margin is not None:
        margin = _margin(margin, of_answers=task.measure.bounded)
    specs = _specs([*(asked or default_audits(several)), *ALWAYS], largest := max(s.record.parameters for s in several))
    made = Plan(
        command=command or ("audit" if len(several) == 1 else "compare"),
        subjects=tuple(subject.record for subject in several), task=task.record, audits=specs,
        effort=given.effort_of(effort) or default_effort(largest), sizes=_sizes(several, task, specs),
        versions={name: kind.get(name).version for kind in (perturbations, readings) for name in kind},
        seed=seed, alpha=alpha, margin=_usual_margin(several[0], task) if margin is None else margin, partial=partial,
        sources=sources, data=data,
        **_copies(several[0], task, specs, seed),
    )  # fmt: skip
    require_named(made, several, task)
    return made if budget is None else _afforded(made, budget, several, task)


def _shipped(asked: Sequence[str | AuditSpec], schemes: str | Sequence[str] | None) -> Sequence[str | AuditSpec]:
    """The audits asked for, with the schemes for the deployment audit to judge."""
    if schemes is None:
        return asked
    names = given.schemes_of(schemes)
    rest = [one for one in asked or ("score",) if one != "deployment"]
    return [*rest, AuditSpec(name="deployment", settings={"schemes": names})]


def _settled(subjects: Model | Sequence[Model], task: Examples) -> tuple[list[Subject], BaseTask]:
    """The subjects after their first pass, by which their fingerprints are known, and the task."""
    examples, several = given.task_of(task).once(), given.subjects_of(subjects)
    _require_names(several)
    for subject in several:
        settle(subject, examples)
    return several, examples


def _margin(margin: Any, *, of_answers: bool = False) -> float:
    """A share; of right answers less than all of them: 1 was meant as a point."""
    if not (isinstance(margin, int | float) and 0.0 < margin <= 1.0) or (of_answers and margin == 1.0):
        raise UsageError(
            "The margin cannot be used.",
            where="margin",
            expected="a share above 0 and below 1, such as .02 (2 points of accuracy), of an error at most 1",
            got=f"{margin!r}",
            do="Give the smallest loss that you care about, as a share: for one point, .01.",
        )
    return float(margin)


def _usual_margin(subject: Subject, task: BaseTask) -> float:
    """The margin where none is asked for: a tenth of an error that has no bound; see ``Case.is_error``."""
    measure = task.measure
    if measure.bounded or measure.higher_is_better or subject.settled is None:
        return MARGIN
    scores, targets = subject.settled.scores, task.targets.cpu()
    errors = values_of(measure, scores, targets, scores)
    some = bool((errors >= 0.0).all()) and float(errors.mean()) > NO_ERROR * abs(chance_of(measure, scores, targets))
    return ERROR_MARGIN if some else MARGIN


def _copies(subject: Subject, task: BaseTask, specs: Sequence[AuditSpec], seed: int) -> dict[str, Any]:
    """Fields of a plan that name its control copies: those that one of the audits needs."""
    needed = {gauge for spec in specs for gauge in audits_base.audits.get(spec.name).copies}
    if not needed:
        return {"no_controls": "None of these audits needs a control copy."}
    twin, planted, why_not = _controls(subject, task, needed, seed)
    more = {"stronger": _stronger(subject, planted), "graded": _graded(subject, planted)}
    return {"twin": twin, "planted": planted, **more, "no_controls": why_not}


def _afforded(made: Plan, budget: Budget | str, subjects: Sequence[Subject], task: BaseTask) -> Plan:
    """The plan cut to its budget; where that is a time, some of its trials are timed."""
    allowed = budget if isinstance(budget, Budget) else Budget.parse(str(budget))
    if allowed.seconds is None:
        return within(made, allowed.forwards or 0.0)
    return within(made, allowed.seconds, priced(made, subjects, task, seconds=TIMING * allowed.seconds))


def _sizes(subjects: Sequence[Subject], task: BaseTask, specs: Sequence[AuditSpec]) -> Sizes:
    """What the cost of readings depends on; units are counted only where an audit asks each of them."""
    counted = any(audits_base.audits.get(spec.name).by_units for spec in specs)
    factors = task.annotations.factors.values()
    return Sizes(
        hidden={subject.record.fingerprint: _hidden(subject, task) for subject in subjects if counted},
        factors=tuple(len(np.unique(to_array(values))) for values in factors),
        symmetric=task.annotations.symmetry is not None,
        moments=task.moment_passes,
    )


def _hidden(subject: Subject, task: BaseTask) -> int:
    """How many hidden units can be ablated; none where the structure is not known."""
    try:
        return sum(hidden.units for hidden in hidden_units(subject, task))
    except Exception:  # no structure is known, or the model cannot be copied
        return 0


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
    specs = tuple(_spec(audit, parameters) for audit in single)
    for spec in specs:
        for name, dose in audits_base.create(spec.name, dict(spec.settings)).fixed_doses():
            create(name).require_dose(dose)
    return specs


def _spec(audit: str | AuditSpec, parameters: int) -> AuditSpec:
    """The audit with its settings; on a large model the costly ones are spared unless the settings say otherwise."""
    spec = AuditSpec(name=audit) if isinstance(audit, str) else audit
    return msgspec.structs.replace(spec, settings={**audits_base.sparing(spec.name, parameters), **spec.settings})


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
        with as_before(subject), threads_for(subject.record.parameters):  # finding its structure runs its forward
            family = gauge.find(subject.model, few(task, subject.model))
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
    made = planted.made
    return tuple(
        derived_record(
            subject.record, msgspec.structs.replace(made, settings={**made.settings, "scale": scale}), role="planted",
            label=f"scale {scale:g}",
        )
        for scale in PLANTED_SCALES[1:]
    )  # fmt: skip


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
