"""The one training loop: a model goes down a loss, batch by batch, and can be stopped at any step.

The same settings give the same bits, however often it was stopped and taken up again from what it said of itself.
"""

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.core.settings import Settings
from wheeltap.core.typed import to_tensor
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.recipes.base import State, Status, counted
from wheeltap.recipes.make import numbers, put, weights, with_weights
from wheeltap.recipes.randomness import random_states, reproducible, set_random_states

Loss = Callable[[Tensor, int], Tensor]
"""Of the rows ``[example]`` of a batch and the number of steps taken, the mean loss, with a gradient."""

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["linear", "cosine", "constant"]

RECORDS: Final = 40  # intervals over which the loss is recorded

_KEPT: Final[Mapping[str, tuple[str, ...]]] = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
}
"""What each optimizer remembers of a parameter."""


class TrainingSettings(Settings, frozen=True, kw_only=True):
    """How a net is trained: what every recipe that trains one can be asked for.

    Attributes:
        epochs: Passes over the examples.
        batch: Examples per step.
        rate: First step size.
        decay: L2 penalty; with ``adamw``, share of every weight lost in a step, over the rate.
        optimizer: Of torch.
        momentum: Of ``sgd``.
        schedule: The step size falls linearly or as a half cosine to nearly zero, or stays.
    """

    epochs: int = 40
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.0
    optimizer: Optimizer = "adam"
    momentum: float = 0.0
    schedule: Schedule = "linear"

    def __post_init__(self) -> None:
        self.training(0)

    def training(self, seed: int) -> "TrainSettings":
        """How one net is trained; without epochs it stays as it is. ``UsageError`` if it cannot be."""
        how = {name: getattr(self, name) for name in TrainingSettings.__struct_fields__ if name != "epochs"}
        return TrainSettings(seed=seed, epochs=self.epochs or 1, steps=None if self.epochs else 0, **how)

    def hooks(self) -> "list[Hook]":
        """What else is done at each step."""
        return []


class TrainSettings(TrainingSettings, frozen=True, kw_only=True):
    """How one net is trained.

    Attributes:
        seed: Of the order of the examples and of dropout.
        steps: Steps in all, in place of ``epochs``; 0 leaves a net untrained.
    """

    seed: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        known = self.optimizer in get_args(Optimizer) and self.schedule in get_args(Schedule)
        whole = self.epochs >= 1 and self.batch >= 1 and (self.steps is None or self.steps >= 0)
        if not (known and whole and self.rate > 0 and self.decay >= 0 and 0 <= self.momentum < 1):
            raise UsageError(
                "These training settings cannot be used.",
                where="wheeltap.recipes.train",
                expected="epochs and batch of at least 1, a positive rate, a decay of at least 0, a momentum from 0 to "
                "below 1, steps of at least 0; adam, adamw or sgd; linear, cosine or constant",
                got=f"epochs {self.epochs}, batch {self.batch}, rate {self.rate}, decay {self.decay}, "
                f"momentum {self.momentum}, steps {self.steps}, {self.optimizer}, {self.schedule}",
            )

    def optimizer_of(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.rate, momentum=self.momentum, weight_decay=self.decay)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, lr=self.rate, weight_decay=self.decay)

    def schedule_of(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """The step sizes over this many steps."""
        steps = max(steps, 1)
        if self.schedule == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        last = 1.0 / steps if self.schedule == "linear" else 1.0
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, last, total_iters=steps)


class Hook(ABC):  # noqa: B024  (all of it is optional)
    """Something that is done at each step. What it remembers from one step to the next it gives in ``tensors``."""

    def start(self, fit: "Fit") -> None:  # noqa: B027
        """Before the first step."""

    def before(self, fit: "Fit") -> None:  # noqa: B027
        """Before the gradient is taken."""

    def after_gradient(self, fit: "Fit") -> None:  # noqa: B027
        """Between the gradient and the step: may change gradients, or take others."""

    def after_step(self, fit: "Fit") -> None:  # noqa: B027
        """After a step, which is counted already."""

    def finish(self, fit: "Fit") -> None:  # noqa: B027
        """After the last step: may change the weights that are kept."""

    def tensors(self) -> dict[str, Tensor]:
        """What its next calls depend on; always of the same names and shapes. Written into to resume."""
        return {}

    def report(self) -> dict[str, NDArray[Any]]:
        """What it recorded: see ``State.report``."""
        return {}


@final
class Fit(State):
    """A model in training.

    Args:
        model: With its initial weights; changed in place, and moved nowhere: it is trained where it is.
        loss: What it goes down. It may use torch's global generator, whose state is kept.
        examples: How many rows there are to draw batches from; 0 if the loss needs none.
        settings: How to train.
        hooks: What else is done at each step. Those listed first act first, and undo last what they did.
        lesson: Inputs ``[example, ...]`` and classes ``[example]``, where the loss is their mean cross-entropy and
            nothing else: such nets can be trained together (see ``recipes.together``).
    """

    def __init__(
        self, model: nn.Module, loss: Loss, *, examples: int, settings: TrainSettings, hooks: Sequence[Hook] = (),
        lesson: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.settings, self.hooks, self.lesson = model, settings, tuple(hooks), lesson
        self.step, self.status = 0, cast("Status", "training")
        self._loss, self._examples = loss, examples
        self._in_epoch = max(-(-examples // settings.batch), 1)
        self.steps = settings.epochs * self._in_epoch if settings.steps is None else settings.steps
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.trained[0].device if self.trained else torch.device("cpu")
        self._optimizer = settings.optimizer_of(self.trained)
        self._schedule = settings.schedule_of(self._optimizer, self.steps)
        self._order = torch.Generator().manual_seed(settings.seed)
        self._before_epoch = self._order.get_state()
        self._epoch: Sequence[Tensor] = ()
        self._rows = torch.zeros(0, dtype=torch.long)
        with reproducible(settings.seed, device=self.device):
            self._random = random_states(self.device)
        self._start = weights(model)
        self._ends = np.unique(np.linspace(0, self.steps, RECORDS + 1).round().astype(np.int32))[1:]
        self._losses = np.zeros(len(self._ends), dtype=np.float32)
        self._sum = torch.zeros((), dtype=torch.float64, device=self.device)
        for hook in self.hooks:
            hook.start(self)

    def advance(self, until: int) -> None:
        """See ``State.advance``."""
        with reproducible(self.settings.seed, device=self.device):
            set_random_states(self._random, self.device)
            self.model.train()
            while self.status == "training" and self.step < min(until, self.steps):
                self._advance()
            if self.status == "training" and self.step >= self.steps:
                for hook in reversed(self.hooks):
                    hook.finish(self)
                self.status = "done"
                if not all(np.isfinite(array).all() for array in weights(self.model).values()):
                    self._diverge()
            self._random = random_states(self.device)

    def gradient(self) -> Tensor:
        """The loss of the batch at the weights as they are; leaves its gradient in the parameters."""
        self._optimizer.zero_grad()
        loss = self._loss(self._rows, self.step)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        return loss.detach()

    def made(self) -> nn.Module:
        """See ``State.made``."""
        for parameter in self.model.parameters():
            parameter.grad = None
        return self.model.eval()

    def report(self) -> dict[str, NDArray[Any]]:
        """``losses``, the mean over the batches of each interval, and ``steps``, the steps at the end of each.

        Where training has diverged, the losses that follow are the last finite one, or 0 where there was none. And what
        hooks recorded.
        """
        report: dict[str, NDArray[Any]] = {"losses": self._losses.copy(), "steps": self._ends}
        for hook in self.hooks:
            report |= hook.report()
        return report

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``State.arrays``."""
        found = {f"model.{name}": array for name, array in weights(self.model).items()}
        for at, parameter in enumerate(self.trained):
            for name, tensor in self._remembered(parameter).items():
                found[f"optimizer.{at}.{name}"] = numbers(tensor)
        for at, hook in enumerate(self.hooks):
            found |= {f"hook.{at}.{name}": numbers(tensor) for name, tensor in hook.tensors().items()}
        rates = [cast("float", group["lr"]) for group in self._optimizer.param_groups]
        # The generator's state before the epoch that the next step is part of.
        order = self._before_epoch if self.step % self._in_epoch else self._order.get_state()
        found |= {"rates": np.array(rates), "order": numbers(order), "losses": self._losses.copy()}
        return found | {name: numbers(state) for name, state in self._random.items()} | {"sum": numbers(self._sum)}

    def resume(self, arrays: Arrays, note: Note) -> None:
        """See ``State.resume``."""
        self.step = counted(note, {"step": self.steps})["step"]
        self.status = cast("Status", note["status"])
        own = {name.removeprefix("model."): one for name, one in arrays.items() if name.startswith("model.")}
        with_weights(self.model, own)
        kept: dict[int, dict[str, Tensor]] = {}
        for at, parameter in enumerate(self.trained):
            kept[at] = {name: tensor.clone() for name, tensor in self._remembered(parameter).items()}
            for name, tensor in kept[at].items():
                put(arrays[f"optimizer.{at}.{name}"], tensor)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": kept if self.step else {}, "param_groups": groups})
        for group, rate in zip(self._optimizer.param_groups, arrays["rates"].tolist(), strict=True):
            group["lr"] = rate
        self._schedule.last_epoch = self.step
        for at, hook in enumerate(self.hooks):
            for name, tensor in hook.tensors().items():
                put(arrays[f"hook.{at}.{name}"], tensor)
        put(arrays["sum"], self._sum)
        self._losses[:] = arrays["losses"]
        self._random = {name: to_tensor(np.array(arrays[name])) for name in self._random}
        self._before_epoch = to_tensor(np.array(arrays["order"]))
        try:
            torch.Generator().set_state(self._random["random"])
            self._order.set_state(self._before_epoch)
        except RuntimeError as error:
            raise FileFormatError(
                "A state of training is one that there cannot be.",
                expected="states of random number generators",
                got=str(error).splitlines()[0],
            ) from error
        self._epoch = ()

    @property
    def rate(self) -> float:
        """Size of the next step."""
        return cast("float", self._optimizer.param_groups[0]["lr"])

    def _remembered(self, parameter: Tensor) -> dict[str, Tensor]:
        """What the optimizer remembers of a parameter; zeros until it has taken a step with it."""
        state = cast("dict[str, Tensor]", self._optimizer.state.get(parameter, {}))
        names = _KEPT[self.settings.optimizer] if self.settings.momentum or self.settings.optimizer != "sgd" else ()
        blank = {name: torch.zeros(()) if name == "step" else torch.zeros_like(parameter) for name in names}
        return {name: state.get(name, tensor) for name, tensor in blank.items()}

    def _advance(self) -> None:
        at = self.step % self._in_epoch
        if not self._epoch or at == 0:
            if at == 0:
                self._before_epoch = self._order.get_state()
            order = torch.randperm(self._examples, generator=self._order)
            self._epoch = cast("Sequence[Tensor]", order.split(self.settings.batch))  # pyright: ignore[reportUnknownMemberType]
        self._rows = self._epoch[at]
        for hook in self.hooks:
            hook.before(self)
        loss = self.gradient()
        for hook in reversed(self.hooks):
            hook.after_gradient(self)
        self._optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        self._schedule.step()
        self.step += 1
        for hook in self.hooks:
            hook.after_step(self)
        self._record(loss)

    def _record(self, loss: Tensor) -> None:
        self._sum += loss
        at = int(np.searchsorted(self._ends, self.step))
        if self.step == self._ends[at]:
            total = float(self._sum)
            self._sum.zero_()
            if not math.isfinite(total):
                self._diverge()
                return
            self._losses[at:] = total / (self.step - (int(self._ends[at - 1]) if at else 0))

    def _diverge(self) -> None:
        """Ends it with the weights of the start: finite ones."""
        self.status = "diverged"
        with_weights(self.model, self._start)
