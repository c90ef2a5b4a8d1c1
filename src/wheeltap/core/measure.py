"""Measures: one value per example from a model's scores over the options each example offers."""

import inspect
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from wheeltap.core.errors import UnknownName, UsageError


class Measure(ABC):
    """Gives one value per example.

    Attributes:
        name: Recorded in trial keys.
        higher_is_better: Direction.
        bounded: Whether each example's value is 0 or 1.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    bounded: ClassVar[bool] = False

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
        """What tasks and keys know it by: its name; of a measure that is not ours its code and settings too."""
        if type(self) is type(BY_NAME.get(self.name)):
            return [self.name]
        from wheeltap.core.describe import digest_of

        return [self.name, digest_of(self)]

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

    Infinite values are left: where outputs are huge, an error is. NaN of finite outputs is the measure's own.

    Raises:
        UsageError: If there is not one number per example, one is NaN, or one is not within the bounds it claims.
    """
    given: Any = one(scores, targets, clean)
    if type(one) is type(BY_NAME.get(one.name)):
        return given
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
    if bool(undefined.any()):
        first = int(undefined.nonzero()[0])
        raise UsageError(
            "The measure gives NaN, although the model's outputs are finite.",
            where=f"{one.name}: example {first}",
            expected=expected,
            got=f"NaN for {int(undefined.sum())} of {len(values)} examples",
            do="Say in the measure what such an example is worth (an empty mask that is left empty: 1), or leave the "
            "example out of the task.",
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
class LabelAccuracy(Measure):
    """Share of an example's labels, each 0 or 1, that its scores get right. Unit: share.

    A score above 0 (a logit) says 1; where all undisturbed scores lie in [0, 1] (probabilities), one above .5 does.
    """

    name = "label_accuracy"
    bounded = True

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        shares = bool((clean >= 0.0).all()) and bool((clean <= 1.0).all())
        return ((scores > (0.5 if shares else 0.0)) == (targets > 0.5)).float().mean(-1)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The share that always giving each label's more common value gets right."""
        ones = (targets > 0.5).float().mean(0)
        return float(torch.maximum(ones, 1.0 - ones).mean())


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


accuracy, nll, margin, agreement, kl, squared_error = Accuracy(), NLL(), Margin(), Agreement(), KL(), SquaredError()
label_accuracy = LabelAccuracy()

STANDARD: tuple[Measure, ...] = (accuracy, nll, margin, agreement, kl)
"""Of options; every one can be what a task is scored by."""

RECORDED: tuple[Measure, ...] = (accuracy, nll, agreement)
"""What every trial records beside the task's own measure: what audits read. Others would double a store's size."""


BY_NAME: dict[str, Measure] = {m.name: m for m in (*STANDARD, squared_error, label_accuracy)}


def named(given: Any, *, where: str) -> Measure:
    """The measure that was given: one itself, its name, or a class of one that needs no arguments.

    Raises:
        UnknownName: If no measure has this name.
        UsageError: If it is anything else.
    """
    if isinstance(given, Measure):
        return given
    if isinstance(given, str):
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
