"""Small models that these tests disturb; importable, so that worker processes can load them too."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp

TOKENS = itertools.count()
CALLS: Counter[int] = Counter()
"""Forwards of each counting model and of its copies, which share its token."""


class ConvNet(nn.Module):
    """Two convolutions and a linear head on 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8 * 9, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.second(self.first(inputs).relu()).relu()
        return self.head(hidden.flatten(1))


class Block(nn.Module):
    """Pre-norm feed-forward block that mixes positions causally."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        steps = torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)[:, None]
        past = hidden.cumsum(1) / steps
        return hidden + self.down(self.up(self.norm(past)).relu())


class TiedLanguageModel(nn.Module):
    """Token ids to logits; the output layer is the embedding, transposed."""

    def __init__(self, vocabulary: int = 13, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.out = nn.Linear(width, vocabulary, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.out(hidden)


class Exponential(nn.Module):
    """A gaussian-like classifier whose hidden units are exponentials: large weights overflow to infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 16)
        self.outer = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.outer(self.inner(inputs).exp())


class Unruly(nn.Module):
    """A small net whose forward counts its calls and misbehaves at one of them, or always.

    Args:
        fail_at: The call (from 0) at which ``error`` is raised.
        error: What is raised.
        flip: Whether each forward turns training mode on.
        touch: ``inplace`` or ``replace``: how each forward changes its buffer.
        random: Whether each forward takes numbers from torch's global generator.
    """

    seen: Tensor

    def __init__(
        self,
        *,
        fail_at: int = -1,
        error: type[BaseException] = RuntimeError,
        flip: bool = False,
        touch: str = "",
        random: bool = False,
    ) -> None:
        super().__init__()
        self.body = mlp((6, 12, 4))
        self.register_buffer("seen", torch.zeros(3))
        self._fail_at, self._error, self._flip, self._touch, self._random = fail_at, error, flip, touch, random
        self._token = next(TOKENS)
        self.eval()

    def fail_next(self) -> None:
        self._fail_at = CALLS[self._token]

    def forward(self, inputs: Tensor) -> Tensor:
        CALLS[self._token] += 1
        if CALLS[self._token] - 1 == self._fail_at:
            raise self._error("told to")
        if self._flip:
            self.train()
            self.requires_grad_(False)
        if self._touch == "inplace":
            self.seen.add_(1.0)
        elif self._touch == "replace":
            self.seen = torch.ones(CALLS[self._token])
        if self._random:
            torch.rand(5)
        return self.body(inputs)


class Deadly(nn.Module):
    """A net whose forward kills its process at the ``after``-th call in any process but the one it was made in."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self.body = mlp((6, 12, 4))
        self._home, self._after, self._calls = os.getpid(), after, 0
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self._calls += 1
        if os.getpid() != self._home and self._calls > self._after:
            os.kill(os.getpid(), 9)
        return self.body(inputs)


class Counting(nn.Module):
    """Wraps a net and counts the forwards that really happen."""

    def __init__(self, body: nn.Module, *, pause: float = 0.0) -> None:
        super().__init__()
        self.body = body
        self._token, self._pause = next(TOKENS), pause
        self.eval()

    @property
    def calls(self) -> int:
        return CALLS[self._token]

    def forward(self, inputs: Tensor) -> Tensor:
        CALLS[self._token] += 1
        time.sleep(self._pause)
        return self.body(inputs)


def seeded(make: Callable[[], nn.Module], seed: int = 0, *, scale: float = 2.0) -> nn.Module:
    """A model with weights of its own seed, in eval mode; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for parameter in model.parameters():
            # Default initial weights are so small that nothing much happens.
            parameter.data.mul_(scale)
        return model.eval()


def taught(model: nn.Module, inputs: Tensor, *, name: str = "taught", more: Tensor | None = None) -> Task:
    """A task whose right answers are the model's own, so that its score is 1."""
    with torch.no_grad():
        targets = model(inputs).argmax(-1)
    return Task(inputs, targets, name=name, more=more)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers of their own stream."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def choices(items: int = 40, *, vocabulary: int = 13, seed: int = 0) -> ChoiceTask:
    """Contexts of two to six tokens with three options of one or two tokens."""
    stream = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return [int(token) for token in torch.randint(vocabulary, (count,), generator=stream)]

    contexts = [tokens(2 + item % 5) for item in range(items)]
    options = [[tokens(1 + (item + option) % 2) for option in range(3)] for item in range(items)]
    return ChoiceTask(contexts, options, [item % 3 for item in range(items)], more=[tokens(6) for _ in range(20)])
