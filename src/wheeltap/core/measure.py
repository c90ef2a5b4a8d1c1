"""Measures: one value per example from a model's scores over the options each example offers."""

import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.fingerprint import source_of

_SETTING = str | int | float | bool | None
"""Types of a measure's attributes that identify it: others are noticed by the values that it gives."""


class Measure(ABC):
    """Gives one value per example.

    Attributes:
        name: Recorded in trial keys.
        higher_is_better: Direction.
        bounded: Whether each example's value is 0 or 1, or a share between.
    """

    name: str
    higher_is_better: bool = True
    bounded: bool = False

    @abstractmethod
    def __call__(
        self, scores: Float[Tensor, "example option"], targets: Tensor, clean: Float[Tensor, "example option"]
    ) -> Float[Tensor, " example"]:
        """Value per example.

        Args:
            scores: The disturbed model's scores (logits, or summed log-likelihoods of the options).
            targets: Index of the right option per example; or the wanted outputs, for regression.
            clean: The undisturbed model's scores.
        """

    def chance(self, scores: Float[Tensor, "example option"], targets: Tensor) -> float:
        """The value that an answer without information gets on average."""
        uniform = torch.zeros_like(scores)
        return float(self(uniform, targets, uniform).mean())

    def constant(self, scores: Float[Tensor, "example option"], targets: Tensor) -> Float[Tensor, " example"]:
        """What an answer gets that is one for all examples: the best one, where that is known; else the mean scores."""
        return self(scores.mean(0).expand_as(scores), targets, scores)

    @property
    def identity(self) -> list[str]:
        """What identifies the measure in tasks and keys: its name; for a user's own measure also its source text."""
        if type(self) is type(BY_NAME.get(self.name)):
            return [self.name]
        settings = [f"{name}={value!r}" for name, value in sorted(vars(self).items()) if isinstance(value, _SETTING)]
        functions = [source_of(value) for _, value in sorted(vars(self).items()) if callable(value)]
        return [self.name, *settings, *functions, *map(source_of, type(self).__mro__[:-1])]

    @property
    def range(self) -> tuple[float, float] | None:
        """What a statistic of all examples can be; ``None`` of a mean over examples."""
        return None

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is: what makes a change a gain."""
        return 1.0 if self.higher_is_better else -1.0

    def __repr__(self) -> str:
        return f"wt.measure.{self.name}"


def values_of(
    one: Measure, scores: Float[Tensor, "example option"], targets: Tensor, clean: Float[Tensor, "example option"]
) -> Float[Tensor, " example"]:
    """A measure's value per example; of a measure that is not ours, checked.

    Infinite values are left: where outputs are huge, an error is. So is NaN of an example that has no number
    undisturbed: it is left out when a plan is made.

    Raises:
        UsageError: If it fails, there is not one number per example, one is NaN that was a number undisturbed, or one
            is not within the bounds it claims.
    """
    if isinstance(one, MeasureFamily) or type(one) is type(BY_NAME.get(one.name)):
        return one(scores, targets, clean)
    try:
        given: Any = one(scores, targets, clean)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise UsageError(
            "The measure fails on the model's outputs.", where=one.name,
            expected=f"a tensor [{len(scores)}]: one finite number per example", got=f"{type(error).__name__}: {error}",
            do="Call it on outputs of the model yourself: measure(scores, targets, scores).",
        ) from error  # fmt: skip
    expected = f"a tensor [{len(scores)}]: one finite number per example"
    if not isinstance(given, Tensor) or given.shape != (len(scores),):
        got = f"shape {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise UsageError(
            "The measure does not give one number per example.",
            where=one.name,
            expected=expected,
            got=got,
            do="Take the mean over all axes but the first: values.flatten(1).mean(1).",
        )
    values = given.float()
    undefined = values.isnan()
    fresh = undefined & ~one(clean, targets, clean).isnan() if bool(undefined.any()) else undefined
    if bool(fresh.any()):
        first = int(fresh.nonzero()[0])
        raise UsageError(
            "The measure gives NaN, although the model's outputs are finite.",
            where=f"{one.name}: example {first}",
            expected=f"{expected}, where the undisturbed model has one",
            got=f"NaN for {int(fresh.sum())} of {len(values)} examples",
            do="Say in the measure what such an example is worth (an empty mask that is left empty: 1). What has no "
            "number undisturbed is left out.",
        )
    beyond = (values < 0.0) | (values > 1.0)
    if one.bounded and bool(beyond.any()):
        first = int(beyond.nonzero()[0])
        raise UsageError(
            "The measure says that it is bounded, and is not.",
            where=f"{one.name}: example {first}",
            expected="values from 0 to 1",
            got=f"{float(values[first]):g}",
            do="Set bounded = False in the measure, or scale its values.",
        )
    return values


def chance_of(one: Measure, scores: Float[Tensor, "example option"], targets: Tensor) -> float:
    """The value that an answer without information gets on average.

    Raises:
        UsageError: If it is not finite.
    """
    found = float(one.chance(scores, targets))
    if not math.isfinite(found):
        raise UsageError(
            "The measure gives no finite value for an answer without information.",
            where=f"{one.name}: chance",
            expected="a finite number",
            got=f"{found:g}, by default the mean of what it gives where all scores are 0",
            do="Define chance(self, scores, targets) in the measure: the value of answers that ignore the inputs.",
        )
    return found


@final
class Accuracy(Measure):
    """Share of examples whose highest-scored option is the right one. Unit: share."""

    name = "accuracy"
    bounded = True

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return (scores.argmax(-1) == targets).float()

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """One in the number of options."""
        return 1.0 / scores.shape[-1]


_SUM = 0.01
"""How far the sum of probabilities in 16 bits may be from 1."""


def log_probabilities(
    scores: Float[Tensor, "example option"], clean: Float[Tensor, "example option"]
) -> Float[Tensor, "example option"]:
    """Log-probabilities of the options, of logits or of probabilities.

    They are the latter where every row of the undisturbed scores is a distribution over the options, as after a
    softmax: logits never are.
    """
    shares = clean.shape[1] >= 2 and clean.is_floating_point() and bool((clean >= 0.0).all())
    if not (shares and bool(((clean.sum(1) - 1.0).abs() <= _SUM).all())):
        return scores.log_softmax(-1)
    return scores.clamp_min(torch.finfo(torch.float32).tiny).log().log_softmax(-1)


@final
class NLL(Measure):
    """Negative log-likelihood of the right option among those offered, of logits or probabilities. Unit: nats."""

    name = "nll"
    higher_is_better = False

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return torch.nn.functional.nll_loss(log_probabilities(scores, clean), targets, reduction="none")

    def constant(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The right options by their frequencies."""
        return -(targets.bincount().float() / len(targets)).log()[targets]


@final
class Margin(Measure):
    """Score of the right option minus the best other one. Unit: that of the scores (logits, nats)."""

    name = "margin"

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        right = scores.gather(-1, targets[:, None])
        others = scores.scatter(-1, targets[:, None], -torch.inf)
        return right[:, 0] - others.amax(-1)


@final
class Agreement(Measure):
    """Share of examples on which the disturbed model gives the clean model's answer. Unit: share."""

    name = "agreement"
    bounded = True

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return (scores.argmax(-1) == clean.argmax(-1)).float()

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """One in the number of options."""
        return 1.0 / scores.shape[-1]


@final
class KL(Measure):
    """Kullback-Leibler divergence from the clean model's distribution over the options to this one. Unit: nats."""

    name = "kl"
    higher_is_better = False

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        here, there = log_probabilities(scores, clean), log_probabilities(clean, clean)
        return (there.exp() * (there - here)).sum(-1).clamp_min(0.0)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The divergence from the clean model's distribution to one without information."""
        return float(self(torch.zeros_like(scores), targets, scores).mean())


@final
class SquaredError(Measure):
    """Sum over outputs of the squared difference to the wanted output. Unit: that of the outputs, squared."""

    name = "squared_error"
    higher_is_better = False

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return (scores - targets).square().sum(-1)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The error of always answering the mean of the targets."""
        return float(self.constant(scores, targets).mean())

    def constant(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The mean of the targets."""
        return (targets - targets.mean(0)).square().sum(-1)

    def rescaled(self, scores: Float[Tensor, "example option"], targets: Tensor) -> float:
        """The mean error were each output scaled and shifted so that it fits best."""
        given, wanted = scores - scores.mean(0), targets - targets.mean(0)
        slope = (given * wanted).sum(0) / given.square().sum(0).clamp_min(torch.finfo(given.dtype).tiny)
        return float((wanted - slope * given).square().sum(-1).mean())


@final
class LogPerplexity(Measure):
    """Mean negative log-likelihood of an example's tokens, the logarithm of their perplexity. Unit: nats per token.

    Scores are log-likelihoods of tokens, ``[example, token]``.

    Args:
        guessing: What it is for one who knows only how often each token comes.
    """

    name = "log_perplexity"
    higher_is_better = False

    def __init__(self, guessing: float) -> None:
        self.guessing = guessing

    @property
    def identity(self) -> list[str]:
        """The name alone: what guessing gets follows from the tokens."""
        return [self.name]

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return -scores.mean(-1)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """What guessing gets."""
        return self.guessing

    def constant(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The same for every example."""
        return torch.full((len(scores),), self.guessing)


@final
class FunctionMeasure(Measure):
    """See ``of``."""

    @property
    def identity(self) -> list[str]:
        """The name and the function's source text."""
        return [self.name, source_of(self.function)]

    def __init__(
        self, function: Callable[[Tensor, Tensor], Tensor], *, name: str, higher_is_better: bool, bounded: bool
    ) -> None:
        self.function, self.name = function, name
        self.higher_is_better, self.bounded = higher_is_better, bounded

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``; of copies, into which the function may write."""
        return self.function(scores.clone(), targets.clone())


def of(
    function: Callable[[Tensor, Tensor], Tensor], *, name: str = "", higher_is_better: bool = True,
    bounded: bool = False,
) -> Measure:  # fmt: skip
    """A measure of one's own: a function of the scores ``[example, option]`` and the targets, of all examples at once.

    It gives one number per example, NaN where an example has none: such examples are left out.

    Args:
        function: ``function(scores, targets)``.
        name: What reports call it; by default the function's.
        higher_is_better: Direction.
        bounded: Whether each number is from 0 to 1.
    """
    called = name or str(getattr(function, "__name__", "measure"))
    return FunctionMeasure(function, name=called, higher_is_better=higher_is_better, bounded=bounded)


# Families build on ``Measure``: they can be imported only now.
from wheeltap.core.measures.boxes import AveragePrecision  # noqa: E402
from wheeltap.core.measures.classes import (  # noqa: E402
    AUC,
    F1,
    MCC,
    BalancedAccuracy,
    ExactLabels,
    LabelAccuracy,
    LinearStatistic,
    MacroF1,
    MicroF1,
    Precision,
    Recall,
)
from wheeltap.core.measures.family import Kind, MeasureFamily  # noqa: E402
from wheeltap.core.measures.grades import CUT, EMPTY, Contains, ExactMatch, Grade  # noqa: E402
from wheeltap.core.measures.masks import IoU, PixelAccuracy, TokenAccuracy  # noqa: E402
from wheeltap.core.measures.ranking import MRR, NDCG, RecallAt  # noqa: E402

accuracy, nll, margin, agreement, kl, squared_error = Accuracy(), NLL(), Margin(), Agreement(), KL(), SquaredError()
f1, precision, recall, balanced_accuracy, mcc, auc = F1(), Precision(), Recall(), BalancedAccuracy(), MCC(), AUC()
label_accuracy, exact_labels, macro_f1, micro_f1 = LabelAccuracy(), ExactLabels(), MacroF1(), MicroF1()
pixel_accuracy, iou, token_accuracy = PixelAccuracy(), IoU(), TokenAccuracy()
mrr, average_precision = MRR(), AveragePrecision

STANDARD: tuple[Measure, ...] = (accuracy, nll, margin, agreement, kl)
"""Of options; every one can be what a task is scored by."""

RECORDED: tuple[Measure, ...] = (accuracy, nll, agreement)
"""What every trial records beside the task's own measure: what audits read. Others would double a store's size."""

BY_NAME: dict[str, Measure] = {
    m.name: m
    for m in (
        *STANDARD, squared_error, f1, precision, recall, balanced_accuracy, mcc, auc, label_accuracy, exact_labels,
        macro_f1, micro_f1, pixel_accuracy, iou, token_accuracy, mrr, RecallAt(10), NDCG(10), ExactMatch(),
        Contains(),
    )
}  # fmt: skip

_FIRST = {"recall": RecallAt, "ndcg": NDCG}
_NUMBERED = re.compile(r"(recall|ndcg)@(\d{1,9})")


def named(given: Any, *, where: str) -> Measure:
    """The measure that was given: one itself, its name (``recall@5``), or a class of one that needs no arguments.

    Raises:
        UnknownName: If no measure has this name.
        UsageError: If it is anything else.
    """
    if isinstance(given, Measure):
        return given
    if isinstance(given, str):
        if found := _NUMBERED.fullmatch(given):
            return _FIRST[found[1]](int(found[2]))
        if given not in BY_NAME:
            raise UnknownName("measure", given, BY_NAME)
        return BY_NAME[given]
    got = type(given).__name__
    if inspect.isclass(given):
        got = f"the class {given.__name__}"
        if issubclass(given, Measure) and not inspect.isabstract(given):
            ours = next((one for one in BY_NAME.values() if type(one) is given), None)
            if ours is not None:
                return ours
            try:
                return given()
            except TypeError as error:
                got = f"{got}: {error}"
    raise UsageError(
        "This is no measure.",
        where=f"{where}: measure",
        expected=f"{', '.join(sorted(BY_NAME))}, or an instance of a subclass of wt.measure.Measure",
        got=got,
        do="Give a name such as measure='nll', or an instance: measure=MyMeasure(...).",
    )


def beside(one: Measure, scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What undisturbed scores tell beside the values: what carries a statistic; its classes; how answers end."""
    found: dict[str, Tensor] = {}
    if isinstance(one, LinearStatistic):
        found["carried"] = torch.tensor([*one.carried(scores, targets), one.enough])
    if isinstance(one, MeasureFamily) and (each := one.by_class(scores, targets)):
        found["by_class"] = torch.tensor(list(each.items()))
    if isinstance(one, Grade) and scores.shape[1] > EMPTY:
        found |= {"cut": scores[:, CUT].mean(0), "empty": scores[:, EMPTY].mean(0)}
    return found


def fitting(kind: Kind) -> list[str]:
    """Names of the measures that read targets of this kind."""
    return [name for name, one in BY_NAME.items() if kind in kinds_of(one)]


def kinds_of(one: Measure) -> tuple[Kind, ...]:
    """Kinds of targets that a measure reads; none where it is not known, as of a measure of one's own."""
    if isinstance(one, MeasureFamily):
        return one.fits
    return ("classes",) if one in STANDARD else ("outputs",) if one is squared_error else ()


__all__ = [
    "AUC",
    "BY_NAME",
    "F1",
    "KL",
    "MCC",
    "MRR",
    "NDCG",
    "NLL",
    "RECORDED",
    "STANDARD",
    "Accuracy",
    "Agreement",
    "AveragePrecision",
    "BalancedAccuracy",
    "ExactLabels",
    "FunctionMeasure",
    "IoU",
    "LabelAccuracy",
    "LinearStatistic",
    "LogPerplexity",
    "MacroF1",
    "Margin",
    "Measure",
    "MeasureFamily",
    "MicroF1",
    "PixelAccuracy",
    "Precision",
    "Recall",
    "RecallAt",
    "SquaredError",
    "TokenAccuracy",
    "accuracy",
    "agreement",
    "auc",
    "average_precision",
    "balanced_accuracy",
    "beside",
    "chance_of",
    "exact_labels",
    "f1",
    "fitting",
    "iou",
    "kinds_of",
    "kl",
    "label_accuracy",
    "log_probabilities",
    "macro_f1",
    "margin",
    "mcc",
    "micro_f1",
    "mrr",
    "named",
    "nll",
    "of",
    "pixel_accuracy",
    "precision",
    "recall",
    "squared_error",
    "token_accuracy",
    "values_of",
]  # fmt: skip
