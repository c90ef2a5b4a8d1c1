"""The nets that are timed: their weights are random, which timing does not see."""

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine import timing
from wheeltap.core import measure
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp
from wheeltap.sources import hf

VOCABULARY = 50257


class TokenLosses(nn.Module):
    """A language model and its loss: tokens ``[row, place]`` to the negative log-likelihood of each next token."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.lm(tokens).logits[:, :-1]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        return losses.reshape(len(tokens), -1)


class LastPlace(nn.Module):
    """A language model's scores of the next token at the last place, the only one that it computes them at."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm(tokens, logits_to_keep=1).logits[:, -1]


def missing() -> str:
    """Why there is no GPT-2 here; empty if there is one."""
    return "" if importlib.util.find_spec("transformers") else "transformers is not installed (the extra llm)"


@cache
def gpt2() -> nn.Module:
    """GPT-2 small: 124M weights drawn at random."""
    library: Any = hf.library(needed_for="benchmarks")
    with torch.random.fork_rng(devices=[]), hf.quiet(library):
        torch.manual_seed(0)
        return library.GPT2LMHeadModel(library.GPT2Config()).eval().to(timing.DEVICE)


def tokens(rows: int, places: int) -> Tensor:
    return torch.randint(VOCABULARY, (rows, places), generator=torch.Generator().manual_seed(0))


def language(rows: int, places: int) -> tuple[Subject, Task]:
    """GPT-2's loss at every place."""
    ids = tokens(rows, places)
    task = Task(ids, torch.zeros(rows, places - 1), measure=measure.squared_error)
    return Subject(TokenLosses(gpt2()).eval(), name="gpt2"), task


def last_place(rows: int, places: int) -> tuple[Subject, Task]:
    """GPT-2's loss at the last place, of a token drawn at random."""
    ids = tokens(rows, places)
    return Subject(LastPlace(gpt2()).eval(), name="gpt2"), Task(ids, ids[:, 0], measure=measure.nll)


def classifier(batch: int) -> tuple[Subject, Task]:
    """The MLP 784-256-256-10."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp((784, 256, 256, 10)).eval().to(timing.DEVICE)
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(batch, 784, generator=random)
    targets = torch.randint(10, (batch,), generator=random)
    return Subject(model, name="mlp"), Task(inputs, targets, measure=measure.nll)
