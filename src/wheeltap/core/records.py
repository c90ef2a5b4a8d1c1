"""The records that travel between floors and into files: frozen, typed, free of torch."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon, seeds
from wheeltap.core.canon import ArtifactSpec, Scalar
from wheeltap.core.plain import fixed
from wheeltap.core.settings import ChoiceRecord
from wheeltap.core.site import WHOLE, Site

TrialKind = Literal["clean", "disturb", "read", "make", "ship"]
OutcomeStatus = Literal["done", "diverged", "failed", "skipped"]
FindingStatus = Literal["found", "excluded", "inconclusive", "measured", "not_applicable", "skipped", "error", "void"]

Role = Literal["subject", "twin", "planted", "graded", "recorded"]
"""Recorded: answers of a model that is not at hand, so that nothing can be run."""

UNCOVERED: Final = "too few weights"
"""Verdict of a finding that concludes nothing because too many weights were left alone."""

OWN: Final = "the model's own answers"
"""What readings call the factor that every model has and uses, made of its outputs: no other may be called so."""


SLICE: Final = "slice "
"""How the names of a clean pass's arrays begin that say which slice each example is in: ``slice class``."""

SET: Final = "set"
"""What examples of several test sets are divided by; how the names of arrays of one set begin: ``set 0 chance``."""


class MemberOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """How a member is made from another one: a control copy by gauges, one after another.

    Attributes:
        family: Kind of architecture.
        operations: Names of the gauges, in the order in which they are applied.
        settings: Of these gauges, defaults included.
        seed: Root of the draws.
        version: Of the gauges' code. Another version is refused.
    """

    family: str
    operations: tuple[str, ...]
    settings: dict[str, Scalar]
    seed: int
    version: int


class UntouchedModule(msgspec.Struct, frozen=True):
    """A module, by its path, and how many weights of it no disturbance can reach."""

    name: str
    size: int


class SubjectRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a store knows of a subject.

    Attributes:
        fingerprint: Digest of architecture, weights and buffers; of the base and how it is made for a control.
        parameters: Number of trainable and frozen parameters, tied ones once.
        blocks: Module paths of the blocks that a block map disturbs one by one.
        layers: Names of the layers a disturbance can touch.
        weights: Their parameters' names, in the same order.
        widest: Inputs (with the constant) of the widest dense layer: what function-space noise must estimate.
        path: Numerical path class of its trials.
        ends: Layers that turn tokens into vectors, and vectors into scores of tokens: deployment leaves them alone.
        untouched: Modules with weights that are in no layer, the largest first; norms and biases among them.
        covered: Number of weights in layers.
        mixes: Whether an example's answer depends on which others are in its batch.
        composed: Modules whose weights the forward computes from parts, by parametrizations or adapters, where any are.
        output: Which part of what it returns are its scores, where that was asked for.
        artifact: How a recipe makes it, for the member of a study that is made when it is first needed.
    """

    name: str
    fingerprint: str
    parameters: int
    blocks: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    untouched: tuple[UntouchedModule, ...] = ()
    covered: int = 0
    widest: int = 0
    mixes: bool | None = None
    composed: tuple[str, ...] | None = None
    output: str | None = None
    path: str = "plain"
    role: Role = "subject"
    base: str | None = None
    made: MemberOrigin | None = None
    artifact: ArtifactSpec | None = None


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a store knows of a task.

    Attributes:
        measure: What the benchmark would score.
        measures: Everything recorded per example in each trial.
        chance: The score an answer without information gets, in units of ``measure``; known after a clean pass.
        bounded: Whether the measure is a share of right answers (0 or 1 per example).
        range: The least and the most of a statistic of all examples together (F1, AUC), of which an example has the
            influence, which may lie beyond; ``None`` where the score is a mean over examples.
        chosen: How the examples are scored, in words, where targets are no plain classes, or answers are generated.
        left_out: How many examples were left out because the measure gives them no number.
        sets: The test sets that these are, one behind the other; none of a single one.
        tokens: Distinct rows (tokens or examples) the weights' inputs can be estimated from.
        common: Share of the examples with the most common right answer, where answers are classes.
        answer: The most common right answer, where at least half of the examples have it.
        repeats: How many further examples were given that repeat these: each counts once.
        distinct: How many examples differ in their inputs, where these are clearly fewer than the examples.
        alike: How many sets there are of examples whose inputs are much nearer to each other than to all others.
        found: How many groups of examples were noticed, and what these share, in words, where none were declared.
        cap: Most that the loss of an example counts as, where a cap was given; what is stored has none.
    """

    name: str
    digest: str
    examples: int
    measure: str
    measures: tuple[str, ...]
    chance: float | None = None
    higher_is_better: bool = True
    bounded: bool = True
    tokens: int = 0
    common: float | None = None
    answer: int | None = None
    repeats: int | None = None
    distinct: int | None = None
    alike: int | None = None
    found: str | None = None
    cap: float | None = None
    range: tuple[float, float] | None = None
    chosen: str | None = None
    left_out: int | None = None
    sets: tuple["TaskRecord", ...] = ()

    @property
    def in_points(self) -> bool:
        """Whether the score is a share, so that losses of it are points, also where an example's value is none."""
        return self.bounded or self.range == (0.0, 1.0)

    @property
    def reach(self) -> float | None:
        """Most by which two scores of an example can differ; ``None`` where nothing bounds them."""
        return 1.0 if self.bounded else self.cap

    @property
    def capped(self) -> str:
        """That losses are capped, as a sentence; empty where they are not."""
        return "" if self.cap is None else f"The loss per example is capped at {self.cap:g}."

    @property
    def sign(self) -> float:
        """1 where more of the measure is better, -1 where less is: what makes a change a gain."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def log(self) -> bool:
        """Whether the measure is the logarithm of what is reported: a loss is then the logarithm of a ratio."""
        return self.measure == "log_perplexity"

    @property
    def reported(self) -> str:
        """What scores are reported as."""
        return self.measure.removeprefix("log_") if self.log else self.measure

    @property
    def unit(self) -> str:
        """What follows a number of the measure, where it has a unit."""
        return " nats per token" if self.log else ""

    def loss_text(self, loss: "Estimate", *, more: bool = False) -> str:
        """Describe a loss with its interval, after "loses": in points if the score is a share.

        Args:
            loss: In the unit of the score.
            more: Whether it is how much more one model loses than another.
        """
        relation = " more" if more else ""
        if not self.in_points:
            return f"{loss}{relation} of its {'log-likelihood (nats per token)' if self.log else 'score'}"
        value, low, high = ("open" if end is None else fixed(100 * end, 1) for end in (loss.value, loss.low, loss.high))
        return f"{value} points [{low}, {high}]{relation}"

    @property
    def always(self) -> str:
        """What a net does that answers without looking, in words."""
        return (
            "always giving the most common answer" if self.answer is None else f"always answering class {self.answer}"
        )


class Subset(msgspec.Struct, frozen=True):
    """Some of a task's examples: one of ``of`` nearly equal parts of them in a random order.

    Attributes:
        at: Which one. From ``of`` on the examples are put in a new order and come round again.
    """

    of: int
    at: int

    def examples(self, count: int, *, root: int) -> NDArray[np.intp]:
        """Indices of its examples among ``count``, in rising order; the order comes from the plan's root seed."""
        turn, place = divmod(self.at, self.of)
        order = seeds.generator(root, "part", self.of, turn).permutation(count)
        return np.sort(np.array_split(order, self.of)[place])


class Trial(ChoiceRecord, frozen=True, kw_only=True, dict=True):
    """One disturbance of one subject on one task. Its ``key`` is its identity.

    Attributes:
        subject: Fingerprint of the subject.
        task: Digest of the task.
        measures: Names of the per-example measures recorded.
        kind: A clean pass, a pass of the disturbed model, a reading of the undisturbed one, its making, or a look at a
            file that was made from it to be shipped.
        perturbation: Registered name of the perturbation, reading or recipe; ``none`` of a clean pass; of a file what
            is asked: see ``plans.shipped.Question``.
        version: Version of its code: a changed plug-in makes a new key.
        dose: In the perturbation's own unit.
        seed: Index of the draw.
        root: The plan's root seed.
        path: Numerical path class (device, dtype, engine path).
        subset: The examples it is measured on; all of them where ``None``.
        generation: See ``Plan.generation``.
    """

    subject: str
    task: str
    measures: tuple[str, ...]
    kind: TrialKind = "disturb"
    perturbation: str
    version: int
    settings: dict[str, Scalar] = msgspec.field(default_factory=dict[str, Scalar])
    site: Site = WHOLE
    dose: float = 0.0
    seed: int = 0
    root: int = 0
    path: str = "plain"
    subset: Subset | None = None
    generation: int = 0

    @cached_property  # looked up many times: by what is stored, what is missing, and every audit
    def key(self) -> str:
        """Content key, 32 hex characters."""
        return canon.key("trial", self)

    def on(self, subset: Subset) -> "Trial":
        """The same trial, measured on these examples alone."""
        return msgspec.structs.replace(self, subset=subset)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one trial gave. ``values`` maps a measure's name to one float per example, in task order.

    Attributes:
        values: Also other named arrays, of float32, int32 or bool: what a reading gives.
        because: Why it is not done; of a done one, which layers it had to leave as they were.
        path: How the engine came by it, where that was not one plain pass with the weights written and put back.
    """

    key: str
    status: OutcomeStatus
    values: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    seconds: float = 0.0
    forwards: float = 0.0
    because: str = ""
    path: str = ""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its uncertainty.

    Attributes:
        low: Lower end of the interval, in ``unit``; ``None`` where it is unbounded or unknown.
        high: Upper end.
        level: Confidence level of the interval.
        n: Number of resampling units (examples unless ``method`` says otherwise).
        method: How the interval was made.
        p: P-value of "no effect", where the estimate is a tested effect.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    unit: str
    method: str
    p: float | None = None

    @classmethod
    def exact(cls, name: str, value: float, unit: str, *, n: int = 1) -> "Estimate":
        """A number that was computed and not sampled: its interval is the number itself."""
        return cls(name=name, value=value, low=value, high=value, level=1.0, n=n, unit=unit, method="exact")

    def __str__(self) -> str:
        def show(number: float | None) -> str:
            if number is None:
                return "open"
            return f"{number:.3g}" if abs(number) >= 100 else fixed(number, 3)

        value = "?" if self.value is None else show(self.value)
        return f"{value} [{show(self.low)}, {show(self.high)}]"


class Power(ChoiceRecord, frozen=True, kw_only=True):
    """What a test held against a margin can decide.

    Attributes:
        found: Probability that an effect of twice the margin is found; ``None`` where that is not known.
        excluded: Probability that no effect at all is excluded; ``None`` where that is not known.
        examples: Fewest examples that give the right verdict with probability .8 in one more look, averaged over the
            true effects that these data leave possible; ``None`` where 20 times as many as there are do not.
        draws: The same of draws; also ``None`` where nothing is drawn.
        groups: How many groups of the sizes there are that many examples make, where examples come in groups.
        together: Whether it takes both, so many examples and so many draws; else either is enough.
        near: Whether the effect may well be within half a margin of the margin, so that no number is likely to decide.
    """

    found: float | None
    excluded: float | None
    examples: int | None = None
    draws: int | None = None
    groups: int | None = None
    together: bool = False
    near: bool = False


class Finding(ChoiceRecord, frozen=True, kw_only=True):
    """One coded claim about a subject (or a pair, "A vs B"), with the numbers behind it.

    Attributes:
        scheme: Name of the deployment scheme it is about.
        verdict: The status in the words of the question: ``costs``, ``may cost``, ``safe``, ``cannot tell``, say.
        margin: Smallest effect of interest, in the unit of the first estimate, where something was tested.
        power: What the test can decide.
        coverage: Least share of the weights that one of its disturbances of all weights touched, where there is one.
        leaning: Whether it is undecided, yet an effect was shown: the interval lies beyond zero, where alarms do.
        partly: Whether so many of the weights were left alone that no larger effect of the model is excluded.
        verdict_alone: The verdict of an undecided test without the correction for the other tests of the report, where
            that decides it.
        because: Plain words: what was seen and what it does and does not prove.
        smallest_detectable: The smallest effect this test would have found with probability .8.
        trials: Keys of the trials it rests on.
        alarm: Whether ``found`` is bad news. A claim that was shown (this part is necessary) is none.
        brief: The sentence for a headline where it was found; the first one of ``because``, where empty.
    """

    code: str
    title: str
    status: FindingStatus
    subject: str
    estimates: tuple[Estimate, ...] = ()
    smallest_detectable: float | None = None
    because: str = ""
    trials: tuple[str, ...] = ()
    alarm: bool = True
    brief: str = ""
    scheme: str = ""
    verdict: str = ""
    margin: float | None = None
    power: Power | None = None
    coverage: float | None = None
    leaning: bool = False
    partly: bool = False
    verdict_alone: str = ""

    @property
    def said(self) -> str:
        """What was found, in one sentence."""
        return self.brief or f"{self.because.split('. ')[0].rstrip('.')}."


class Instrument(ChoiceRecord, frozen=True, kw_only=True):
    """The words of one audit, which its report carries: renderers know no code.

    Attributes:
        name: Heading of its column and chart.
        reads: Two plain sentences: what it does and what a change in it means.
        axis: What the dose is.
        linear: Whether equal steps of the dose are equal steps of the axis; noise is read in ratios instead.
        otherwise: What ``excluded`` says of a single subject, where that is more than nothing.
        asks: What it is about: ``score`` itself; ``deployment`` or ``weights``: what disturbed weights do to it;
            ``learning``: how fast it is learned; ``structure``: what is inside; ``merging`` of two checkpoints;
            ``census``: whether the weights are of a plausible size; ``benchmark``: what the score leaves out; or a word
            of a suite's own.
        shows: Whether ``found`` shows something of what is inside.
    """

    code: str
    name: str
    reads: str = ""
    axis: str = ""
    linear: bool = False
    otherwise: str = ""
    asks: str = "weights"
    shows: bool = False


class Control(ChoiceRecord, frozen=True, kw_only=True):
    """A check on the instrument itself."""

    name: str
    kind: Literal["null", "planted", "baseline", "gate"]
    status: Literal["passed", "failed", "skipped"]
    estimates: tuple[Estimate, ...] = ()
    because: str = ""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Score against dose for one subject and one instrument, with a pointwise band.

    Attributes:
        code: Finding code of the instrument.
        doses: In ``unit``, ascending.
        score: Mean score per dose; ``low`` and ``high`` its band at ``level``, ``None`` where it has no end.
        half: Dose at which half of the above-chance score is lost.
        area: Mean score over the log-dose range.
        variant: Which way of doing it, where an instrument has several; empty for the one its verdict is about.
        norms: ||change|| / ||weights|| at each dose, mean over draws: what makes instruments comparable.
    """

    code: str
    title: str
    subject: str
    role: Role
    unit: str
    measure: str
    chance: float
    level: float
    doses: tuple[float, ...]
    score: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    half: Estimate | None = None
    area: Estimate | None = None
    variant: str = ""
    norms: tuple[float | None, ...] = ()


class BlockMap(msgspec.Struct, frozen=True, kw_only=True):
    """Loss of score when one block at a time is disturbed at the same dose."""

    code: str
    title: str
    subject: str
    dose: float
    unit: str
    blocks: tuple[str, ...]
    drops: tuple[Estimate, ...]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the run cost.

    Attributes:
        forwards: Passes over the whole task made by this run, those for layer moments included.
        seconds: Wall-clock.
        trials: Trials carried out by this run.
        reused: Trials whose outcome came from the store.
    """

    forwards: float
    seconds: float
    trials: int = 0
    reused: int = 0
