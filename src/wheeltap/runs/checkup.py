"""A check of a model before it is audited: what is covered, and which controls will run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from wheeltap import gauge
from wheeltap.audits.base import GROUPS, audits
from wheeltap.audits.case import Case
from wheeltap.audits.census import ALWAYS
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import TWIN_TOLERANCE
from wheeltap.audits.deployment import DeploymentAudit
from wheeltap.audits.headline import percent
from wheeltap.audits.noise import NoiseAudit
from wheeltap.audits.schemes import scheme
from wheeltap.audits.settle import audits_of, usable
from wheeltap.core.coverage import packed
from wheeltap.core.records import Outcome, SubjectRecord, Trial, UntouchedModule
from wheeltap.core.settings import LARGE, SMALL
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.apply import verified_restoration
from wheeltap.engine.clean import in_line, settle, threads_for
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.engine.units import probe_run, spread
from wheeltap.gauge import general
from wheeltap.plans.plan import Plan
from wheeltap.runs.budget import most_passes
from wheeltap.runs.planning import default_audits, plan, priced, settled_on

TWIN: Final = "twin"
PLANTED: Final = "planted at"
"""What the proofs of control copies are called; those of planted ones with their strength behind it."""

PROVEN_ON: Final = ((SMALL, 512), (LARGE, 64), (None, 16))
"""Examples on which copies are compared with the model, by its size: up to so many parameters, so many."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one gauge holds on the model: what its copy answered, just now.

    Attributes:
        gauge: Its name.
        holds: Whether the copy computes the same, by the rule that decides whether a run uses it.
        difference: Largest difference of a score, in units of the logit scale; ``None`` where there is no copy.
        agreement: Share of the examples that get the same answer.
        because: Why there is no copy.
    """

    gauge: str
    holds: bool
    difference: float | None = None
    agreement: float | None = None
    because: str = ""


def proofs(subject: Subject, some: BaseTask, family: gauge.Family) -> Iterator[Proof]:
    """Makes a copy by each gauge that a family offers, and compares what it answers.

    Args:
        subject: The model.
        some: Examples to compare on.
        family: As found in it.
    """
    original = to_array(some.scores(subject.model))
    for name in family.offers:
        try:
            copied = gauge.twin(subject.model, gauge.describe(family, name, seed=0), family=family)
            # Not by one pass alone: a copy must also bear what a run does with it before anything else.
            alike = gauge.check(original, to_array(settle(Subject(copied, name=name), some).scores))
        except Exception as error:  # whatever a copy of the model raises
            yield Proof(gauge=name, holds=False, because=in_line(error))
            continue
        holds = alike.difference <= TWIN_TOLERANCE and alike.agreement == 1.0
        yield Proof(gauge=name, holds=holds, difference=alike.difference, agreement=alike.agreement)


def _outcomes(trials: list[Trial], runner: TrialRunner) -> dict[str, Outcome]:
    """What trials give, by their keys."""
    found: list[Outcome] = []
    run_trials(trials, runner, found.append)
    return {outcome.key: outcome for outcome in found}


def used(made: Plan, runner: TrialRunner) -> Iterator[Proof]:
    """The same of the copies that are a plan's controls, as a run makes, passes and judges them.

    That is of the twin first, then of the planted ones, by their strength.

    Args:
        made: The plan.
        runner: With its subjects and examples.
    """
    records = (*(() if made.twin is None else (made.twin,)), *made.plants)
    outcomes = _outcomes([made.clean(record) for record in (made.reference, *records)], runner)
    kept = usable(made, outcomes.get).controls
    original = outcomes[made.clean(made.reference).key].values["scores"]
    for record in records:
        outcome, name = outcomes[made.clean(record).key], TWIN
        if record.role != "twin" and record.made is not None:
            name = f"{PLANTED} {record.made.settings['scale']:g}"  # in the outgoing weights of its layer
        if outcome.status != "done":
            yield Proof(gauge=name, holds=False, because=outcome.because)
            continue
        alike = gauge.check(original, outcome.values["scores"])
        yield Proof(gauge=name, holds=record in kept, difference=alike.difference, agreement=alike.agreement)


ENOUGH: Final = 0.95
"""Share of the weights from which coverage is no gap."""

LEAST: Final = 0.5
"""Share of the weights below which audits conclude nothing at all, unless they are asked to all the same."""

SLACK: Final = 0.005
"""Share of the weights by which a noise may reach less than all disturbances together."""

_ROWS: Final = "rows of input"
"""What the reason says where a noise is not defined for want of examples."""

_NAMED: Final = 3
"""Modules that a sentence names."""

TIMING: Final = 1.0
"""Seconds that timing some trials may take."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What one noise touches.

    Attributes:
        audit: That draws it.
        share: Of the model's weights, packed ones among them; ``None`` where it is not defined on the model.
        because: Which layers it leaves as they are, and why.
    """

    audit: str
    share: float | None
    because: str = ""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What some audits take.

    Attributes:
        audits: Their names.
        passes: Upper bound on the passes over the task.
        seconds: About how long these take on this machine.
    """

    audits: tuple[str, ...]
    passes: float
    seconds: float


class MissingPart(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing.

    Attributes:
        title: In a few words.
        what: In full.
        do: What to do about it.
    """

    title: str
    what: str
    do: str


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model before it is audited.

    Attributes:
        subject: The model; what is in no layer is named there.
        examples: How many the task has.
        packed: Modules that hold weights as integers, which nothing disturbs.
        fixed: Weights that are no parameters.
        complex: Parameters of complex numbers, which no disturbance is defined on.
        at_chance: Why there is nothing to lose, where that is so.
        family: How its structure was recognized; empty where it was not.
        hidden: Hidden layers that copies rewrite.
        units: How many units these have.
        proofs: Of each gauge that is offered.
        controls: Proofs of the copies that are the controls: the twin, and the planted one of each strength.
        proven_on: Examples that the copies answered.
        refused: Why other gauges, or parts of the model, are left alone.
        gauges: Those of the twin, the null control.
        graded: Further planted copies, from which detection power is measured.
        vouched: Audits whose controls are these copies.
        no_controls: Why a copy is missing.
        reaches: What each noise touches.
        rounded: Share of the weights that rounding touches, which leaves biases; ``None`` where it is not defined.
        costs: Of the default audits, and of those that have all of these controls.
    """

    subject: SubjectRecord
    examples: int
    packed: tuple[UntouchedModule, ...] = ()
    fixed: tuple[UntouchedModule, ...] = ()
    complex: tuple[UntouchedModule, ...] = ()
    at_chance: str = ""
    family: str = ""
    hidden: int = 0
    units: int = 0
    proofs: tuple[Proof, ...] = ()
    controls: tuple[Proof, ...] = ()
    proven_on: int = 0
    refused: tuple[str, ...] = ()
    gauges: tuple[str, ...] = ()
    graded: int = 0
    vouched: tuple[str, ...] = ()
    no_controls: str = ""
    reaches: tuple[Reach, ...] = ()
    rounded: float | None = None
    costs: tuple[Price, ...] = ()

    @property
    def covered(self) -> float:
        """Share of the weights that some disturbance changes; packed ones count as weights."""
        return self.subject.covered / self.subject.parameters

    @property
    def reported(self) -> float:
        """Share of the weights that a report on deployment calls covered: what its mildest disturbance touches."""
        return self.covered if self.rounded is None else min(self.covered, self.rounded)

    @property
    def twin(self) -> bool:
        """Whether there is a null control: a twin that computes the same."""
        return any(one.holds for one in self.controls if one.gauge == TWIN)

    @property
    def planted(self) -> tuple[str, ...]:
        """Strengths of the planted copies that compute the same, in the outgoing weights of their layer."""
        return tuple(
            one.gauge.removeprefix(PLANTED).strip() for one in self.controls if one.holds and one.gauge != TWIN
        )

    @property
    def usable(self) -> bool:
        """Whether an audit of the model concludes anything."""
        return self.covered >= LEAST and not self.at_chance

    @property
    def gaps(self) -> tuple[MissingPart, ...]:
        """What is missing, the gravest first."""
        return (*_uncovered(self), *_uncontrolled(self), *_unproven(self), *_unreached(self))


def checkup(subject: Subject, task: BaseTask) -> Checkup:
    """Runs the model, its copies, and a few trials of the default audits; the model comes back bit-identical.

    Args:
        subject: The model.
        task: The examples.

    Raises:
        ModelError: If an audit refuses the model: it fails on the task, changes its weights in each pass, or is not
            deterministic.
    """
    task = settled_on(task, [subject])
    made = plan(subject, task, audits=(*default_audits([subject]), *GROUPS["noise"]))
    both = [made.clean(made.reference, seed=seed) for seed in (0, 1)]
    outcomes = _outcomes(both, TrialRunner([subject], (), task))
    with verified_restoration(subject), threads_for(subject.record.parameters):
        found = gauge.find(subject.model, probe_run(task, subject.model))
        parameters = subject.record.parameters
        some = spread(task, next(count for limit, count in PROVEN_ON if limit is None or parameters < limit))
        tried: dict[str, Any] = {}
        if isinstance(found, gauge.Family):
            units = sum(hidden.units for hidden in found.hiddens)
            tried = {"family": found.name, "hidden": len(found.hiddens), "units": units,
                     "proofs": tuple(proofs(subject, some, found))}  # fmt: skip
    return Checkup(
        subject=made.reference,
        examples=made.task.examples,
        packed=packed(subject.model),
        fixed=_largest(subject.fixed),
        complex=_largest({name: one.numel() for name, one in subject.model.named_parameters() if one.is_complex()}),
        at_chance=_at_chance(made, outcomes),
        refused=_reasons(found),
        gauges=() if made.twin is None or made.twin.made is None else made.twin.made.operations,
        graded=len(made.graded),
        controls=tuple(used(made, TrialRunner([subject], made.controls, task))),
        proven_on=len(some.targets),
        vouched=tuple(spec.name for spec in made.audits if audits.get(spec.name).copies),
        no_controls=made.no_controls,
        reaches=tuple(_reaches(made, subject, task)),
        rounded=_rounded(made, subject, task),
        costs=tuple(
            Price(
                audits=tuple(spec.name for spec in one.audits),
                passes=most_passes(one),
                seconds=priced(one, [subject], task, seconds=TIMING).seconds(one),
            )
            for one in _runs(made, subject)
        ),
        **tried,
    )


def _largest(sizes: Mapping[str, int]) -> tuple[UntouchedModule, ...]:
    return tuple(UntouchedModule(name, size) for name, size in sorted(sizes.items(), key=lambda item: -item[1]))


def _at_chance(made: Plan, outcomes: Mapping[str, Outcome]) -> str:
    """Why an audit would find nothing to lose, in its words; empty where it would not."""
    try:
        return Case(made, outcomes.get).headroom(made.reference)[1]
    except NoAnswer as gap:
        return gap.because


def _reasons(found: gauge.Family | gauge.Refusal) -> tuple[str, ...]:
    """Why gauges, or parts of the model, are left alone; one reason for several gauges is given once.

    Where nothing fits, that is why probing found nothing, which is asked last.
    """
    if isinstance(found, gauge.Family):
        stated = found.refused
    else:
        stated = tuple(found.because.rpartition(f"; {general.NAME}: ")[2].split("; "))
    gauges: dict[str, list[str]] = {}
    for reason in stated:
        about, colon, why = reason.partition(": ")
        known = bool(colon) and set(about.replace(",", " ").split()) <= set(gauge.GAUGES)
        gauges.setdefault(why if known else reason, []).extend([about] if known else [])
    return tuple(f"{', '.join(names)}: {why}" if names else why for why, names in gauges.items())


def _runs(made: Plan, subject: Subject) -> Iterator[Plan]:
    """The plans whose cost is reported: that of the default audits, which need no planted copy, and the whole."""
    usual = tuple(spec for spec in made.audits if spec.name in (*default_audits([subject]), *ALWAYS))
    yield msgspec.structs.replace(made, audits=usual, planted=None, stronger=(), graded=())
    yield msgspec.structs.replace(made, audits=tuple(spec for spec in made.audits if spec.name in GROUPS["noise"]))


def _reaches(made: Plan, subject: Subject, task: BaseTask) -> Iterator[Reach]:
    """One draw of each noise, for what it touches."""
    noises = [audit for audit in audits_of(made) if isinstance(audit, NoiseAudit)]
    trials = [made.trial(made.reference, one.perturbation, dose=one.settings.start) for one in noises]
    outcomes = _outcomes([made.clean(made.reference), *trials], TrialRunner([subject], (), task))
    for audit, trial in zip(noises, trials, strict=True):
        outcome = outcomes[trial.key]
        share = float(outcome.values["coverage"]) if "coverage" in outcome.values else None
        yield Reach(audit=audit.name, share=share, because=outcome.because)


def _rounded(made: Plan, subject: Subject, task: BaseTask) -> float | None:
    """What rounding to 8 bits touches."""
    trial = DeploymentAudit().trials(made, made.reference, scheme("int8"))[0]
    outcome = _outcomes([made.clean(made.reference), trial], TrialRunner([subject], (), task))[trial.key]
    return float(outcome.values["coverage"]) if "coverage" in outcome.values else None


def _uncovered(found: Checkup) -> Iterator[MissingPart]:
    title, concluded = f"{1 - found.covered:.1%} of the weights are", "Nothing is concluded of these. "
    if found.packed:
        title = f"{title} packed and not disturbed"
        what = f"These modules hold their weights as integers, which no disturbance changes: {_named(found.packed)}."
        do = "Load the checkpoint in 16 or 32 bits, and name the scheme with --for."
    elif found.covered >= ENOUGH:
        return
    elif found.fixed:
        title = f"{title} no parameters and not disturbed"
        what = f"The answers are computed from these, too: {_named(found.fixed)}."
        do = f"{concluded}Make them parameters (torch.nn.Parameter) of the modules that use them."
    elif found.complex:
        title = f"{title} not disturbed"
        what = f"They are complex numbers, which no disturbance is defined on: {_named(found.complex)}."
        do = f"{concluded}Store real and imaginary parts as real parameters."
    else:
        title = f"{title} not disturbed"
        what = f"They are in no layer that is known: {_named(found.subject.untouched)}."
        do = f"{concluded}Make them parameters with two axes or more."
    yield MissingPart(title=title, what=what, do=do)


def _named(modules: Sequence[UntouchedModule]) -> str:
    more = f" and {len(modules) - _NAMED} more" if len(modules) > _NAMED else ""
    return f"{', '.join(f'{one.name} ({one.size:,})' for one in modules[:_NAMED])}{more}"


def _uncontrolled(found: Checkup) -> Iterator[MissingPart]:
    copies = {"reparametrized copy": found.twin, "planted copy": bool(found.planted)}
    missing = [name for name, held in copies.items() if not held]
    if found.vouched and missing:
        first = next((one for one in found.controls if not one.holds), None)
        inexact = "no gauge holds" if first is None else f"the copy ({first.gauge}) is none: {_why(first)}"
        why = "; ".join(found.refused) if not found.family else found.no_controls.rstrip(".") or inexact
        yield MissingPart(
            title=f"no {' and no '.join(missing)} as a control",
            what=f"The reason: {why}.",
            do="Every audit still runs, and its report names the controls that could not: what it says is then not "
            "backed by copies of this very model.",
        )


def _unproven(found: Checkup) -> Iterator[MissingPart]:
    wrong = [proof for proof in found.proofs if not proof.holds]
    if wrong:
        yield MissingPart(
            title=f"copies by {', '.join(one.gauge for one in wrong)} are not exact",
            what=f"They should give the same answers: {'; '.join(f'{one.gauge}: {_why(one)}' for one in wrong)}.",
            do="Runs leave out a copy that is not exact.",
        )


def _why(wrong: Proof) -> str:
    """Why a copy does not hold."""
    if not wrong.because and not wrong.difference:
        return "all scores are alike, so a wrong copy would not show"
    return wrong.because or f"scores differ by {wrong.difference:.1g} of their scale"


def _unreached(found: Checkup) -> Iterator[MissingPart]:
    most = min(ENOUGH, found.covered - SLACK)
    for reach in found.reaches:
        if reach.share is None or reach.share < most:
            share = "none" if reach.share is None else f"only {percent(reach.share)}"
            yield MissingPart(
                title=f"{reach.audit} reaches {share} of the weights",
                what=reach.because,
                do="Give more examples." if _ROWS in reach.because else "Of the other layers, other audits tell.",
            )
