"""Measures: one value per example from a model's scores over the options each example offers."""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.literals import checked


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


@final
class NLL(Measure):
    """Negative log-likelihood of the right option among those offered. Unit: nats."""

    name = "nll"
    higher_is_better = False

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return torch.nn.functional.cross_entropy(scores, targets, reduction="none")


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
        here, there = scores.log_softmax(-1), clean.log_softmax(-1)
        return (there.exp() * (there - here)).sum(-1).clamp_min(0.0)


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
        return float((targets - targets.mean(0)).square().sum(-1).mean())


accuracy, nll, margin, agreement, kl, squared_error = Accuracy(), NLL(), Margin(), Agreement(), KL(), SquaredError()

STANDARD: tuple[Measure, ...] = (accuracy, nll, margin, agreement, kl)
"""Of options; every one can be what a task is scored by."""

RECORDED: tuple[Measure, ...] = (accuracy, nll, agreement)
"""What every trial records beside the task's own measure: what audits read. Others would double a store's size."""


BY_NAME: dict[str, Measure] = {m.name: m for m in (*STANDARD, squared_error)}


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


def of_outputs(one: Measure | None) -> bool:
    """Whether a measure was chosen that may be of wanted outputs: any but ours of options."""
    return one is not None and one not in STANDARD


@checked
def require_suited(one: Measure, *, outputs: bool, where: str) -> None:
    """Raises ``UsageError`` if a measure of ours reads other targets than a task has.

    Args:
        one: The measure.
        outputs: Whether the targets are wanted outputs; else they are indices of right options.
        where: Name of the task.
    """
    if (one in STANDARD and outputs) or (one is squared_error and not outputs):
        raise UsageError(
            f"The measure {one.name} does not fit these targets.",
            where=f"{where}: measure",
            expected="squared_error" if outputs else ", ".join(each.name for each in STANDARD),
            got=f"{one.name}, with {'floating-point' if outputs else 'whole'} numbers as targets",
            do="Class labels are whole numbers: targets.long(). Wanted outputs are floating point: targets.float().",
        )
