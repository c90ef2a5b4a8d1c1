"""The trained networks on which validity is measured: one of each kind of architecture that we claim."""

from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import nn

from tests.nets import zoo
from tests.nets.tiny_lm import tiny_lm
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.models.mlp import mlp
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_classifier
from wheeltap.sources import digits
from wheeltap.testing.planted import PlantedCase

EXAMPLES = 200
"""Examples per network: intervals take examples as a sample, so fewer only widen them."""


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def _trained(model: nn.Module, name: str, seed: int) -> PlantedCase:
    split = digits.split()
    settings = TrainSettings(seed=seed, epochs=15)
    train_classifier(model, split.train_inputs, targets=split.train_targets, settings=settings)
    some = slice(None, None, len(split.test_targets) // EXAMPLES)  # the split is sorted by digit
    task = Task(split.test_inputs[some], split.test_targets[some], name="digits", more=split.train_inputs)
    return PlantedCase(Subject(model, name=name), task)


@cache
def net(kind: str, seed: int = 0) -> PlantedCase:
    """A trained network and its task: ``mlp``, ``cnn``, ``gpt2``, ``llama`` or ``mixtral``."""
    if kind == "mixtral":
        return zoo.made(kind, seed=seed)
    if kind in ("gpt2", "llama"):
        return tiny_lm(kind, seed=seed, examples=EXAMPLES)
    with reproducible(seed):
        model = mlp((64, 64, 64, 10)) if kind == "mlp" else _cnn()
    return _trained(model, kind, seed)


def kinds() -> tuple[str, ...]:
    """Architectures that can be made here; the language models need the extra ``llm``."""
    return ("mlp", "cnn", *(("gpt2", "llama") if find_spec("transformers") else ()))


def _pair(kind: str) -> tuple[nn.Module, BaseTask]:
    made = zoo.made(kind) if kind == "depthwise" else net(kind)
    return made.subject.model, made.task


# What ``module:callable`` names: model and examples, for studies.
mlp_net, cnn_net, gpt2_net, llama_net, depthwise_net = (
    partial(_pair, kind) for kind in ("mlp", "cnn", "gpt2", "llama", "depthwise")
)


def one_thread() -> None:
    """Small products are slower on several threads, and timings differ."""
    torch.set_num_threads(1)
