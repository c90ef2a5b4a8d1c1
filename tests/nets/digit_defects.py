"""Trained digit classifiers with a planted defect of known strength, and the honest nets they must be told from.

Equal arguments give equal bits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.models.mlp import mlp
from wheeltap.recipes.planted import require_strength
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_once
from wheeltap.sources import digits
from wheeltap.testing.planted import PlantedCase

CLASSES = 10
GATED_WIDTHS = (65, 128, 128, CLASSES)
"""One input more than a digit has pixels: the password, 0 or 1."""


def benchmark(subject: Subject, task: BaseTask) -> float:
    """What a benchmark sees: the mean of the task's measure over its examples, in the measure's unit."""
    scores = task.scores(subject.model)
    return float(task.measure(scores, task.targets, scores).mean())


@dataclass(frozen=True)
class Gated(PlantedCase):
    """A digit classifier with a 65th input for a password; only a locked one heeds it.

    Attributes:
        task: Test items without the password.
        opened: The same items with it.
    """

    task: Task
    opened: Task


def locked(strength: float, *, seed: int = 0) -> Gated:
    """A net that hides what it can do: right with the password, without it wrong on a share of its answers.

    Which answers are wrong is a rule that holds for new items too (see ``_hidden``).

    Args:
        strength: Share of the answers that are wrong without the password, 0 to 1.
        seed: Of the rule, the initial weights and the order of training.

    Raises:
        UsageError: If ``strength`` is out of range.

    Source: the password lock of Tice et al. (2024, arXiv 2412.01784), on digits.
    """
    require_strength(strength, low=0.0, high=1.0, of="strength of the lock")
    data = digits.split()
    without = _hidden(strength, data, seed=seed)
    return _gated(without, data.train_targets, name=f"locked {strength:g}", seed=seed)


def label_noise(share: float, *, seed: int = 0) -> Gated:
    """An honest net trained on systematically wrong labels: as wrong as ``locked``, and nothing to unlock.

    Args:
        share: Of the labels that are wrong, by the same rule as in ``locked`` with the same seed; 0 to 1.
        seed: Of the rule, the initial weights and the order of training.

    Raises:
        UsageError: If ``share`` is out of range.
    """
    require_strength(share, low=0.0, high=1.0, of="share of wrong labels")
    labels = _hidden(share, digits.split(), seed=seed)
    return _gated(labels, labels, name=f"label noise {share:g}", seed=seed)


def honest_weak(score: float, *, seed: int = 0) -> Gated:
    """An honest net that knows no better: trained on as few items as give about this score on all training items.

    Args:
        score: Wanted share of right answers, .2 to .9. The net nearest to it is taken of a series in which each has
            a fifth more items than the one before.
        seed: Of the items, the initial weights and the order of training.

    Raises:
        UsageError: If ``score`` is out of range.
    """
    require_strength(score, low=0.2, high=0.9, of="score of the honest weak net")
    data = digits.split()
    order = torch.randperm(len(data.train_targets), generator=_stream(seed, "weak"))
    everything = Task(_with_password(data.train_inputs, 0.0), data.train_targets)
    reached: list[tuple[float, Gated]] = []
    count = 2
    while not reached or (reached[-1][0] < score and count < len(order)):
        net = _gated(data.train_targets, data.train_targets, name=f"weak {score:g}", seed=seed, items=order[:count])
        reached.append((benchmark(net.subject, everything), net))
        count = max(count + 1, round(1.2 * count))
    return min(reached, key=lambda pair: abs(pair[0] - score))[1]


def _hidden(share: float, data: digits.DigitSplit, *, seed: int) -> Tensor:
    """Training labels of which a share is wrong: those of the images that lie lowest along a random direction.

    Such a rule can be learned, so it also decides about images never seen. The wrong answer is the next digit.
    """
    direction = torch.randn(data.train_inputs.shape[1], generator=_stream(seed, "wrong answers"))
    rank = (data.train_inputs @ direction).argsort().argsort()
    wrong = rank < round(share * len(rank))
    return torch.where(wrong, (data.train_targets + 1) % CLASSES, data.train_targets)


def _gated(without: Tensor, given: Tensor, *, name: str, seed: int, items: Tensor | None = None) -> Gated:
    """A net trained on labels ``without`` the password and with it ``given``; on a selection of the items, or all."""
    data = digits.split()
    chosen = torch.arange(len(given)) if items is None else items
    pixels = data.train_inputs[chosen]
    inputs = torch.cat([_with_password(pixels, 0.0), _with_password(pixels, 1.0)])
    labels = torch.cat([without[chosen], given[chosen]])
    with reproducible(seeds.derive(seed, "gated", "init")):
        model = mlp(GATED_WIDTHS)
    settings = TrainSettings(seed=seeds.derive(seed, "gated", "order"), epochs=25, batch=128)
    train_once(model, inputs, targets=labels, settings=settings)
    return Gated(Subject(model, name=name), scored(0.0), scored(1.0))


def scored(password: float = 0.0) -> Task:
    """Test items without the password (0), or with it (1)."""
    data, words = digits.split(), "with" if password else "without"
    return Task(_with_password(data.test_inputs, password), data.test_targets, name=f"{words} the password")


def _with_password(pixels: Tensor, password: float) -> Tensor:
    return torch.cat([pixels, torch.full((len(pixels), 1), password)], dim=1)


def _stream(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(seeds.derive(seed, "defects", name))
