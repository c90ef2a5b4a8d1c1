"""Nets of which it is known which factors their hidden layer holds, and which of these the outputs hang on."""

from dataclasses import dataclass, replace
from typing import Final, cast

import torch
from torch import Tensor, nn

from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_once
from wheeltap.testing.planted import PlantedCase, numbers

USED: Final = "used"
UNUSED: Final = "unused"

CLASSES: Final = 4

TRAINING: Final = 4000
"""Examples that a net is trained on: with few it leans on idle features by chance."""


@dataclass(frozen=True)
class Design:
    """What is built.

    Attributes:
        signals: Independent signals that the outputs are computed from; the first is the used factor's.
        idle: Features that vary and that no output reads, beside the unused factor's.
        examples: Of the task.
        gap: Distance between the two values of a factor, in standard deviations of what else varies there.
        leak: Weight of the unused factor's signal in the outputs, as a share of that of the used one.
        outputs: ``classes`` for a classifier, ``numbers`` for regression.
    """

    signals: int = 3
    idle: int = 44
    examples: int = 300
    gap: float = 3.0
    leak: float = 0.0
    outputs: str = "classes"

    @property
    def features(self) -> int:
        """Of the inputs: signals, the unused factor's, idle ones."""
        return self.signals + 1 + self.idle


def constructed(*, seed: int = 0, design: Design | None = None) -> PlantedCase:
    """A net of one hidden layer whose outputs are linear in a few mixed signals, and in nothing else.

    The hidden units are the inputs in a random basis, far on the rising side of their ReLUs; the outputs read the
    signals back exactly. So the factor ``used`` moves them as much as any signal, and ``unused`` not at all, though a
    probe reads both off the hidden layer equally well.

    Args:
        seed: Of the basis, the readout and the examples.
        design: See ``Design``.
    """
    made = design or Design()
    inputs, factors = _examples(made, seed)
    basis = cast("Tensor", torch.linalg.qr(numbers(made.features, made.features, seed=3 * seed + 1))[0])  # pyright: ignore[reportUnknownMemberType]
    readout = _readout(made, seed)
    model = mlp((made.features, made.features, len(readout)))
    lift = 20.0
    first, last = (module for module in model if isinstance(module, nn.Linear))
    with torch.no_grad():
        first.weight.copy_(basis)
        first.bias.fill_(lift)
        last.weight.copy_(readout @ basis.T)
        last.bias.copy_(-lift * (readout @ basis.T).sum(1))
    return _planted(model.eval(), inputs, factors, made, name="constructed")


def trained(*, seed: int = 0, design: Design | None = None, epochs: int = 12) -> PlantedCase:
    """A net of 96-96 hidden units trained on the answers of ``constructed``: it may learn to leave the idle ones out.

    Args:
        seed: As there, and of the initial weights.
        design: See ``Design``; a classifier.
        epochs: Of training.
    """
    made = design or Design(examples=600)
    inputs, factors = _examples(made, seed)
    more, _ = _examples(replace(made, examples=TRAINING), seed + 500_000)
    answers = (more.double() @ _readout(made, seed).T).argmax(1)
    with reproducible(seed):
        model = mlp((made.features, 96, 96, CLASSES))
    train_once(model, more, targets=answers, settings=TrainSettings(seed=seed, epochs=epochs))
    return _planted(model, inputs, factors, made, name="trained")


def _examples(design: Design, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs ``[example, feature]`` and the two factors: independent, and nothing else is known of them."""
    inputs = numbers(design.examples, design.features, seed=3 * seed + 2)
    random = torch.Generator().manual_seed(3 * seed + 3)
    factors: dict[str, Tensor] = {}
    for name, column in ((USED, 0), (UNUSED, design.signals)):
        labels = torch.randint(0, 2, (design.examples,), generator=random)
        inputs[:, column] += design.gap * (labels - 0.5)
        factors[name] = labels
    return inputs.float(), factors


def _readout(design: Design, seed: int) -> Tensor:
    """What the outputs make of the inputs, ``[output, feature]``: signals alone, and what leaks."""
    outputs = CLASSES if design.outputs == "classes" else 2
    readout = torch.zeros(outputs, design.features, dtype=torch.float64)
    drawn = numbers(outputs, design.signals + 1, seed=3 * seed + 4)
    drawn = drawn - drawn.mean(0) if design.outputs == "classes" else drawn
    drawn = drawn / drawn.square().sum(0).sqrt()
    readout[:, : design.signals + 1] = drawn
    readout[:, design.signals] *= design.leak
    return readout


def _planted(model: nn.Module, inputs: Tensor, factors: dict[str, Tensor], design: Design, *, name: str) -> PlantedCase:
    with torch.no_grad():
        scores = model(inputs)
    targets = scores.argmax(1) if design.outputs == "classes" else scores
    task = Task(inputs, targets, name=name).with_factors(factors)
    return PlantedCase(Subject(model, name=name), task)
