"""Random numbers and arithmetic that are the same each time, and leave torch as it was."""

from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, cast

import torch
from torch import Tensor

CPU: Final = torch.device("cpu")

States = dict[str, Tensor]
"""Of torch's global generators that a computation on a device may draw from, by name."""


def own_random_numbers() -> AbstractContextManager[None]:
    """A block after which torch's global generator is as it was before."""
    return cast("AbstractContextManager[None]", torch.random.fork_rng(devices=[]))  # pyright: ignore[reportUnknownMemberType]


@contextmanager
def reproducible(seed: int, *, device: torch.device = CPU) -> Generator[None]:
    """A block whose random numbers follow from ``seed`` and whose arithmetic runs on one thread.

    One thread, because the order of a parallel sum (and so the last bits of every weight) would depend on the
    machine's load. The global generator, thread count and grad mode are as before afterwards.

    Args:
        seed: Of torch's global generator, and of the device's own.
        device: Where the block computes: on CUDA its generator is restored too, and convolutions are deterministic.
    """
    with ExitStack() as held:
        held.enter_context(own_random_numbers())
        held.enter_context(torch.enable_grad())
        # Not torch.manual_seed: that would seed every accelerator, which nothing here restores.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            held.callback(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
            held.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True))
        held.enter_context(one_thread())
        yield


@contextmanager
def one_thread() -> Generator[None]:
    """A block in which this thread computes alone, so that sums are taken in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def random_states(device: torch.device) -> States:
    """The states of the generators that training on this device may draw from."""
    states = {"random": torch.default_generator.get_state()}
    return states | ({"random on the device": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_states(states: States, device: torch.device) -> None:
    """Puts the generators back to ``random_states``."""
    torch.default_generator.set_state(states["random"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["random on the device"], device)
