"""What an audit is: a question, the trials that would answer it, the reading of their outcomes; kinds of settings."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import msgspec

from wheeltap.audits.case import Case
from wheeltap.audits.claims import Hypothesis, NoAnswer, Verdict, ungrouped
from wheeltap.core.errors import UsageError
from wheeltap.core.records import (
    Estimate,
    Finding,
    Instrument,
    Scalar,
    SubjectRecord,
    Trial,
)
from wheeltap.core.registry import Registry
from wheeltap.core.section import Section
from wheeltap.core.settings import LARGE, Component, Settings
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import smallest_detectable

Count = Annotated[int, msgspec.Meta(ge=1)]
"""How many, at least one."""

Share = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
"""A part of a whole, neither nothing nor everything; confidence levels and p-values too."""

Margin = Annotated[float, msgspec.Meta(ge=0.0, le=sys.float_info.max)]
"""Size of an effect that does not matter or that must be seen; not infinite, for nothing would be larger."""

Dose = Annotated[float, msgspec.Meta(gt=0.0, le=sys.float_info.max)]
"""A dose that does something."""

Listed = Annotated[str, msgspec.Meta(pattern=r"^(\d+\.?\d*|\.\d+)(e-?\d+)?(,(\d+\.?\d*|\.\d+)(e-?\d+)?)*$")]
"""Numbers of 0 or more, with commas between."""


class MarginSettings(Settings, frozen=True, kw_only=True):
    """A threshold.

    Attributes:
        margin: Smallest difference, loss or barrier of interest; the plan's, where it is not given.
    """

    margin: Margin | None = None


Answer = Callable[[Sequence[SubjectRecord], Sequence[Finding], Sequence[Section]], list[str]]
"""From the subjects, the settled findings and what is shown beside them to lines of the headline."""


class Audit(Component, ABC):
    """One question about weights.

    Attributes:
        code: Finding code.
        title: What its findings claim, in plain words.
        brief: Heading of its column and chart; the title, where empty.
        reads: Two plain sentences for the page: what it does, and what a change in its number means.
        axis: What its dose is, where it has curves; the unit of the curve, where empty.
        linear: Whether its doses are read in equal steps, not in ratios.
        otherwise: What ``excluded`` says of a single subject, where that is more than nothing.
        asks: Which kind of question it is: see ``Instrument``.
        shows: Whether ``found`` shows something of what is inside.
        large: Settings, unless others are asked for, on a model so large that a pass takes seconds.
        spares: Settings that a budget may lower, each with the fewest that still tell something.
        copies: Gauges of the control copies that it needs: those of the null twin, and ``cancel`` for a planted one.
        by_example: Whether it counts examples one by one, whatever they share: it concludes nothing where they come in
            groups. Of a single claim its evidence says so.
        group: A name by which all audits of its suite are asked for together.
        number: What its first number of a model is: its score, a loss of score, or (empty) something else.
        answer: Makes lines of the headline from the findings of all audits that have the same one; ``None`` where the
            headline says what they found in the words of all audits.
        recorded: Whether it judges recorded answers, in place of the audit of models with its code.
        by_units: Whether its cost depends on how many hidden units a subject has, so that a plan must count them.
    """

    noun = "audit"
    code: ClassVar[str]
    title: ClassVar[str]
    brief: ClassVar[str] = ""
    reads: ClassVar[str] = ""
    axis: ClassVar[str] = ""
    linear: ClassVar[bool] = False
    otherwise: ClassVar[str] = ""
    asks: ClassVar[str] = "weights"
    shows: ClassVar[bool] = False
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {}
    spares: ClassVar[dict[str, int]] = {}
    copies: ClassVar[tuple[str, ...]] = ()
    by_units: ClassVar[bool] = False
    by_example: ClassVar[bool] = False
    group: ClassVar[str] = ""
    number: ClassVar[Literal["", "score", "loss"]] = ""
    answer: ClassVar[Answer | None] = None
    recorded: ClassVar[bool] = False

    @abstractmethod
    def ask(self, case: Case) -> list[Trial]:
        """Every trial wanted, given what is known; asked again after they ran, until nothing new is wanted."""

    @abstractmethod
    def judge(self, case: Case) -> Verdict:
        """The reading of the outcomes."""

    def instruments(self) -> tuple[Instrument, ...]:
        """The words of all that it finds; most audits have one code."""
        return (self.instrument(),)

    @classmethod
    def instrument(cls) -> Instrument:
        """Its words, as a report carries them."""
        return Instrument(
            code=cls.code, name=cls.brief or cls.title, reads=cls.reads, axis=cls.axis, linear=cls.linear,
            otherwise=cls.otherwise, asks=cls.asks, shows=cls.shows,
        )  # fmt: skip

    def unanswered(self, subject: str, gap: NoAnswer, *, title: str = "", scheme: str = "") -> Hypothesis:
        """The finding on a subject or pair whose trials did not give what the audit rests on."""
        finding = Finding(
            code=self.code, title=title or self.title, status=gap.status, subject=subject, because=gap.because,
            scheme=scheme,
        )  # fmt: skip
        return Hypothesis(finding)

    def draft(
        self, case: Case, subject: str, claim: Hypothesis, trials: Iterable[Trial], *, title: str = ""
    ) -> Hypothesis:
        """The finding that a claim makes.

        Args:
            case: Plan and outcomes.
            subject: The subject or pair it is about.
            claim: What is claimed.
            trials: What it rests on.
            title: Of the finding, where neither the claim's own nor the audit's.
        """
        if case.groups is not None and self._alone(claim):
            claim = ungrouped(claim)
        test, shown, resting = claim.test, claim.shown or claim.test, (*trials, *claim.trials)
        covered, reach = case.coverage(resting) if claim.coverage is None else (claim.coverage, claim.coverage)
        least = None
        if shown is not None:
            alpha = case.plan.alpha / claim.among
            df = None if claim.evidence is None else claim.evidence.df
            least = smallest_detectable(shown, alpha=alpha, margin=claim.margin, df=df)
            if least is not None and claim.evidence is not None:
                least += claim.evidence.further(alpha)
        finding = Finding(
            code=self.code, title=claim.title or title or self.title, status=claim.status, subject=subject,
            estimates=(*(() if shown is None else (shown,)), *claim.beside), smallest_detectable=least,
            because=claim.found, trials=tuple(trial.key for trial in resting), alarm=claim.alarm, brief=claim.brief,
            scheme=claim.scheme, margin=None if test is None else claim.margin, coverage=covered,
        )  # fmt: skip
        return replace(claim, finding=finding, reach=reach)

    def _alone(self, claim: Hypothesis) -> bool:
        """Whether a claim counts examples one by one, whatever groups they come in."""
        if self.by_example:
            return claim.status not in ("not_applicable", "error")
        evidence = claim.evidence
        return claim.test is not None and claim.by_example and not (evidence is not None and evidence.over_groups)

    def groups(self) -> tuple[int, ...]:
        """Groups of examples that its settings name, so that a plan can refuse one that there is not."""
        return ()

    def slices(self) -> tuple[str, ...]:
        """What its settings divide the examples by, so that a plan can refuse what a task does not know of them."""
        return ()

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Readings of a subject that its settings ask for, so that a plan can refuse ones that cannot be made."""
        return []

    def named_trials(self, plan: Plan, subject: SubjectRecord) -> list[tuple[str, Trial]]:
        """Disturbances that the settings name, in words and as a trial: a plan refuses those that change nothing."""
        return []

    def files(self) -> tuple[str, ...]:
        """Files as they are shipped that it is about, as they were asked for: a plan finds out what they are."""
        return ()

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """Perturbations and doses that its settings fix, so that a plan can refuse impossible ones at once."""
        return ()

    def most(self, plan: Plan) -> int:
        """Upper bound on the number of trials it may ask for."""
        return len(self.ask(Case(plan, lambda _: None)))

    def more_may_follow(self, case: Case) -> bool:
        """Whether it may ask for more than it asks for now, once that is known: then the time left is not known."""
        return False

    def most_passes(self, plan: Plan) -> float:
        """Upper bound on what they cost, in passes over the task."""
        return float(self.most(plan))

    def cheaper(self, plan: Plan, share: float) -> dict[str, int]:
        """The settings that change where it may cost about this ``share`` of what it costs with its own."""
        wholes = {name: getattr(self.settings, name) for name in self.spares}
        lower = {
            name: max(self.spares[name], math.ceil(share * whole))
            for name, whole in wholes.items()
            if whole is not None  # it follows the plan's effort
        }
        return {name: value for name, value in lower.items() if value < wholes[name]}


RECODED = ("permute", "rescale", "heads", "experts")
"""Changes that relative and function-space noise are silent on, and that readings of units are."""

BUILTIN = {
    "deployment": "wheeltap.audits.deployment:DeploymentAudit",
    "score": "wheeltap.audits.score:ScoreAudit",
    "census": "wheeltap.audits.census:CensusAudit",
    "file": "wheeltap.audits.file:FileAudit",
    "relative-noise": "wheeltap.audits.noise:RelativeNoiseAudit",
    "function-noise": "wheeltap.audits.noise:FunctionNoiseAudit",
    "quantization": "wheeltap.audits.modify:QuantizationAudit",
    "pruning": "wheeltap.audits.modify:PruningAudit",
    "merging": "wheeltap.audits.merging:MergingAudit",
    "fine-tuning": "wheeltap.audits.fine_tuning:FineTuningAudit",
    "bit-flips": "wheeltap.audits.modify:BitFlipAudit",
    "single-point": "wheeltap.audits.single_point:SinglePointAudit",
    "heads": "wheeltap.audits.heads:HeadsAudit",
    "redundancy": "wheeltap.audits.redundancy:RedundancyAudit",
    "entanglement": "wheeltap.audits.entanglement:EntanglementAudit",
    "parts": "wheeltap.audits.parts:PartsAudit",
    "symmetry": "wheeltap.audits.symmetry:SymmetryAudit",
    "improvement": "wheeltap.audits.improvement:ImprovementAudit",
    "input-shift": "wheeltap.audits.input_shift:InputShiftAudit",
}

STRUCTURE = ("redundancy", "entanglement")
"""Research measures of what is inside: asked for by name, or by that of their group, ``structure``. ``parts`` answers
a question of the user's own, and ``heads`` fits transformers alone."""

STUDIES = {
    "declared": "wheeltap.studies.declared:DeclaredStudy",
}

DEFAULT = ("score", "deployment", "single-point")
"""What ``audit``, ``compare`` and ``demo`` run; ``single-point`` is left out on models so large that each weight costs
a pass of seconds. Others are asked for by name."""

GROUPS = {
    "survival": (
        "score", "relative-noise", "function-noise", "quantization", "pruning", "bit-flips",
        "fine-tuning",
    ),
    "noise": ("score", "relative-noise", "function-noise"),
    "structure": ("score", "relative-noise", "function-noise", "single-point", *STRUCTURE),
}  # fmt: skip
"""Names that stand for several audits. ``survival``: everything that deployment or a further edit does to weights."""


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Names of audits, with each group's in its place; each once."""
    found = list[str]()
    for name in names:
        if name in GROUPS or name in audits:
            found += GROUPS.get(name, (name,))
        else:
            grouped = [one for one in audits if audits.get(one).group == name]
            found += sorted(grouped, key=lambda one: audits.get(one).code) or [name]
    return tuple(dict.fromkeys(found))


studies: Registry[Audit] = Registry(  # pyright: ignore[reportAbstractUsage]
    "study", "wheeltap.studies", STUDIES, Audit, {"example-detection": ""}
)
"""Studies by name. Each is an audit whose subjects are the members of cohorts; only ``wheeltap study`` asks for one."""

audits: Registry[Audit] = Registry(  # pyright: ignore[reportAbstractUsage]
    "audit", "wheeltap.audits", BUILTIN, Audit,
    {"relative-race": "relative-noise", "std-noise": "relative-noise", "low-rank-noise": "", "item-noise": "",
     "WT109": "", "WT406": "", "WT505": ""},
)  # fmt: skip


def sparing(name: str, parameters: int) -> dict[str, Scalar | list[int | float]]:
    """Settings of an audit on models of this size, unless others are asked for."""
    return audits.get(name).large if parameters >= LARGE else {}


def named(name: str) -> str:
    """The name of an audit or group, also where its finding code was given: ``WT103`` is ``quantization``."""
    return _coded(name.upper(), recorded=False) or name.upper() if name[:2].upper() == "WT" else name


def _coded(code: str, *, recorded: bool) -> str:
    """The first audit with a code, of models or of recorded answers; empty where there is none."""
    kinds = ((name, audits.get(name)) for name in audits)
    return next((name for name, kind in kinds if (kind.code, kind.recorded) == (code, recorded)), "")


def judging(name: str, *, recorded: bool) -> str:
    """The audit that judges where this one is asked for: of recorded answers it may be one of their own."""
    return (_coded(audits.get(name).code, recorded=True) or name) if recorded else name


def suite_answers(*, recorded: bool) -> dict[str, Answer]:
    """How the installed audits that the kernel does not have answer, by code; those that cannot be loaded are left out.

    Args:
        recorded: Whether the subjects are recorded answers.
    """
    found: dict[str, Answer] = {}
    for name in audits:
        with suppress(UsageError):
            kind = None if name in BUILTIN else audits.get(name)
            if kind is not None and kind.answer is not None and kind.recorded <= recorded:
                found[kind.code] = kind.answer
    return found


create = audits.create


def training_passes(plan: Plan, *, steps: float, batch: int) -> float:
    """Passes over the task that ``steps`` of training take: each a forward and a backward (two) on a batch."""
    examples = plan.task.examples
    return 3.0 * steps * min(batch, examples) / examples


def keeps_less(title: str, reference: SubjectRecord, rival: SubjectRecord, gap: Estimate) -> str:
    """A headline's sentence on a pair: who keeps less of the score under a disturbance, by how much.

    Args:
        title: Of the disturbance.
        reference: The one subject.
        rival: The other.
        gap: How much more the rival loses.
    """
    worse = rival.name
    if (gap.value or 0.0) < 0:
        worse = reference.name
        low, high = (None if end is None else -end for end in (gap.high, gap.low))
        gap = msgspec.structs.replace(gap, value=-(gap.value or 0.0), low=low, high=high)
    return f"Under {title.lower()}, {worse} keeps {gap} less of the score."


def pair(reference: SubjectRecord, rival: SubjectRecord) -> str:
    """How a comparison's subject is called."""
    return f"{reference.name} vs {rival.name}"
