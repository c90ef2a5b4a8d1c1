"""Training a classifier so that the same settings give the same bits."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from wheeltap.core.errors import DataError, UsageError

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a classifier is trained.

    Attributes:
        seed: Of the order of the examples and of dropout.
        epochs: Passes over the examples.
        batch: Examples per step.
        rate: Adam's first step size; it falls linearly to nearly zero.
        decay: L2 penalty.
    """

    seed: int = 0
    epochs: int = 40
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or self.rate <= 0 or self.decay < 0:
            raise UsageError(
                "These training settings cannot be used.",
                where="wheeltap.recipes.train",
                expected="epochs and batch of at least 1, a positive rate, a decay of at least 0",
                got=f"epochs {self.epochs}, batch {self.batch}, rate {self.rate}, decay {self.decay}",
            )


def own_random_numbers() -> AbstractContextManager[None]:
    """A block after which torch's global generator is as it was before."""
    return cast("AbstractContextManager[None]", torch.random.fork_rng(devices=[]))  # pyright: ignore[reportUnknownMemberType]


@contextmanager
def reproducible(seed: int) -> Generator[None]:
    """A block whose random numbers follow from ``seed`` and whose arithmetic runs on one thread.

    One thread, because the order of a parallel sum (and so the last bits of every weight) would depend on the
    machine's load. The global generator, thread count and grad mode are as before afterwards.
    """
    threads = torch.get_num_threads()
    with own_random_numbers(), torch.enable_grad():
        # Not torch.manual_seed: that would seed the accelerators too, which nothing here restores.
        torch.default_generator.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def train_classifier(model: Net, inputs: Tensor, *, targets: Tensor, settings: TrainSettings) -> Net:
    """Train ``model`` in place by cross-entropy and give it back in eval mode, without gradients left behind.

    Args:
        model: Called as ``model(inputs)``, gives logits ``[example, class]``.
        inputs: ``[example, ...]``.
        targets: Integer ``[example]``.
        settings: How to train; equal settings on an equally initialised model give equal bits.

    Raises:
        DataError: If there are no examples or a different number of targets.
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise DataError(
            "There is nothing to train on." if len(inputs) == 0 else "Inputs and targets differ in number.",
            where="wheeltap.recipes.train",
            expected="at least one example, and one target for each",
            got=f"{len(inputs)} inputs, {len(targets)} targets",
        )
    with reproducible(settings.seed):
        _fit(model, inputs, targets, settings)
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval()


def _fit(model: nn.Module, inputs: Tensor, targets: Tensor, settings: TrainSettings) -> None:
    steps = settings.epochs * -(-len(inputs) // settings.batch)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / steps, total_iters=steps)
    order = torch.Generator().manual_seed(settings.seed)
    model.train()
    for _ in range(settings.epochs):
        for rows in cast("Sequence[Tensor]", torch.randperm(len(inputs), generator=order).split(settings.batch)):  # pyright: ignore[reportUnknownMemberType]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            optimizer.step()  # pyright: ignore[reportUnknownMemberType]
            schedule.step()
