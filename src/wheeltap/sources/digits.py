"""Handwritten digits (scikit-learn's 1,797 images of 8 x 8) and the small nets that the demo audits."""

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.recipes.base import Given, spec
from wheeltap.recipes.once import once

DROPOUT = 0.2
"""What the demo's dropout-trained net uses: as accurate as the others after as many epochs."""


@dataclass(frozen=True)
class Split:
    """A fixed split: inputs ``[example, 64]`` in [0, 1], targets ``[example]`` from 0 to 9."""

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor


@cache
def split() -> Split:
    """The fixed split, a third of each digit for testing: 1,198 train and 599 test examples."""
    inputs, targets = _images()
    order = seeds.generator(0, "digits", "split").permutation(len(targets))
    # Sorted by digit (stably, so shuffled within each): every third example is then a stratified third.
    order = order[np.argsort(targets[order], kind="stable")]
    test = np.zeros(len(order), dtype=bool)
    test[order[::3]] = True
    return Split(*(torch.as_tensor(part) for part in (inputs[~test], targets[~test], inputs[test], targets[test])))


def _images() -> tuple["np.ndarray[Any, np.dtype[np.float32]]", "np.ndarray[Any, np.dtype[np.int64]]"]:
    from sklearn.datasets import load_digits

    inputs, targets = cast("tuple[Any, Any]", load_digits(return_X_y=True))
    return (np.asarray(inputs) / 16.0).astype(np.float32), np.asarray(targets).astype(np.int64)


def train(seed: int, *, dropout: float = 0.0) -> nn.Sequential:
    """A net of 64-128-128-10 units trained on the training split, in eval mode: what the recipe ``digits`` makes.

    Equal arguments give equal bits, in a net of the caller's own; a process trains it once.

    Args:
        seed: Of the initial weights, the order of the examples and dropout.
        dropout: Probability with which training drops a hidden unit.
    """
    asked = spec("digits", {"dropout": dropout}, seed=seed)
    return cast("nn.Sequential", once(Given(asked)))


def subject(*, seed: int = 0, dropout: float = 0.0, name: str = "digits") -> Subject:
    """The trained net as a subject; half a second on one core, the first time."""
    return Subject(train(seed, dropout=dropout), name=name)


def task() -> Task:
    """The test split, scored by accuracy; the training inputs help to estimate layer moments."""
    data = split()
    made = Task(data.test_inputs, data.test_targets, name="digits", more=data.train_inputs)
    return made.with_factors(factors(data.test_inputs, data.test_targets))


WRONG = 0.1
"""Share of the labels of ``mislabeled`` that are wrong."""


def mislabeled() -> Task:
    """The training split with some wrong labels, drawn at random: who learns it has to memorize those.

    The factor ``wrong`` is 1 where an image has a wrong label. Every net gets the same ones.
    """
    data = split()
    count, rng = len(data.train_targets), seeds.generator(0, "digits", "wrong labels")
    wrong = torch.zeros(count, dtype=torch.long)
    wrong[torch.as_tensor(rng.permutation(count)[: round(WRONG * count)])] = 1
    off = torch.as_tensor(rng.integers(1, 10, count))
    made = Task(data.train_inputs, (data.train_targets + wrong * off) % 10, name="digits with wrong labels")
    return made.with_factors({"wrong": wrong})


def factors(inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What can be asked of each image besides its digit, ``[example]`` of 0 and 1.

    ``even``: whether the digit is; ``left_heavy``: whether more ink is in the left half; ``much_ink``: whether there
    is more ink than on half of the training images.

    Args:
        inputs: ``[example, 64]`` in [0, 1].
        targets: ``[example]``, the digits.
    """
    left, right = inputs.reshape(-1, 8, 2, 4).sum((1, 3)).unbind(1)
    middle = split().train_inputs.sum(1).quantile(0.5)
    return {
        "even": (targets % 2 == 0).long(),
        "left_heavy": (left > right).long(),
        "much_ink": (inputs.sum(1) > middle).long(),
    }
