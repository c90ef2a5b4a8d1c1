"""Copies of a net at hand with the same outputs and a planted defect of known strength.

Equal arguments give equal bits.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core import seeds
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.site import Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.units import few
from wheeltap.gauge import moves
from wheeltap.recipes.train import own_random_numbers


@dataclass(frozen=True)
class Range:
    """The strengths that a defect can be planted with, ends included."""

    low: float
    high: float

    def require(self, value: float, *, of: str) -> None:
        """Raises ``UsageError`` if ``value`` is outside."""
        if not self.low <= value <= self.high:
            raise UsageError(
                "A defect cannot be planted at this strength.",
                where=of,
                expected=f"{self.low:g} to {self.high:g}",
                got=f"{value:g}",
                do="Choose a strength inside the range.",
            )


SUPER = Range(0.0, 100.0)
BRITTLE = Range(0.1, 100.0)


def _stream(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(seeds.derive(seed, "defects", name))


@dataclass(frozen=True)
class SuperWeight:
    """A copy of a net in which one number keeps every answer from being the same.

    Attributes:
        subject: The copy, in eval mode.
        site: That number.
        answer: The class that everything becomes when it is lost.
    """

    subject: Subject
    site: Site
    answer: int


def super_weight(model: nn.Sequential, task: BaseTask, *, strength: float, seed: int = 0) -> SuperWeight:
    """A copy with the same outputs that depends on one weight.

    One unit is added to the last hidden layer: no incoming weights, bias 1, so always 1. The last layer's weight from
    it to one class is -``strength`` logit scales, and the class's bias is raised by as much. Outputs are equal up to
    rounding; without that single weight the class is ``strength`` logit scales too high.

    Args:
        model: A ``Sequential`` that ends in Linear, ReLU (and Dropout), Linear, both with a bias.
        task: On which the logit scale is measured: the standard deviation of the scores about each example's mean.
        strength: In logit scales, 0 to 100.
        seed: Of the class and the place of the unit.

    Raises:
        UsageError: If ``strength`` is out of range.
        ModelError: If the model has another structure.

    Source: what one weight can carry: Yu et al. (2024, arXiv 2411.07191), here planted in closed form.
    """
    SUPER.require(strength, of="strength of the super weight")
    hidden, last = _ends(model)
    scores = task.scores(model)
    lift = strength * float((scores - scores.mean(1, keepdim=True)).square().mean().sqrt())
    draw = _stream(seed, "super weight")
    writer, reader = _linear(model[hidden]), _linear(model[last])
    answer = int(torch.randint(reader.out_features, (), generator=draw))
    column = int(torch.randint(writer.out_features + 1, (), generator=draw))
    heavy = reader.weight.new_zeros(reader.out_features, 1)
    heavy[answer] = -lift
    bias = reader.bias.detach().clone()
    bias[answer] += lift
    twin = copy.deepcopy(model)
    twin[hidden] = _rebuilt(
        _inserted(writer.weight, writer.weight.new_zeros(1, writer.in_features), at=column, dim=0),
        _inserted(writer.bias, writer.bias.new_ones(1), at=column, dim=0),
    )
    twin[last] = _rebuilt(_inserted(reader.weight, heavy, at=column, dim=1), bias)
    subject = Subject(twin.eval(), name=f"super weight {strength:g}")
    return SuperWeight(subject, Site.weight(str(last), row=answer, column=column), answer)


def _ends(model: nn.Sequential) -> tuple[int, int]:
    """Indices of the two last layers, between which there are only ReLU and Dropout."""
    kinds = [type(module) for module in model] if type(model) is nn.Sequential else []
    layers = [index for index, kind in enumerate(kinds) if kind is nn.Linear]
    between = kinds[layers[-2] + 1 : -1] if len(layers) > 1 else []
    sound = nn.ReLU in between and set(between) <= {nn.ReLU, nn.Dropout} and layers[-1] == len(kinds) - 1
    if not sound or any(_linear(model[index]).bias is None for index in layers[-2:]):  # pyright: ignore[reportUnnecessaryComparison]
        raise ModelError(
            "A super weight cannot be planted in this model.",
            where=type(model).__name__,
            expected="a Sequential that ends in Linear, ReLU (and Dropout), Linear, both with a bias",
            got=", ".join(kind.__name__ for kind in kinds[-4:]) or "no Sequential",
            do="Plant it in a model such as wheeltap.models.mlp makes.",
        )
    return layers[-2], layers[-1]


def _linear(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module


def _inserted(tensor: Tensor, new: Tensor, *, at: int, dim: int) -> Tensor:
    before, after = tensor.detach().tensor_split([at], dim=dim)
    return torch.cat([before, new, after], dim=dim)


def _rebuilt(weight: Tensor, bias: Tensor) -> nn.Linear:
    with own_random_numbers():
        made = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made


@dataclass(frozen=True)
class BrittleBlock:
    """A copy of a net, with the same outputs, in which one hidden layer breaks before the rest does.

    Attributes:
        subject: The copy, in eval mode.
        sites: The layer that writes the brittle hidden layer, and the one that reads it.
    """

    subject: Subject
    sites: tuple[Site, Site]


def brittle_block(model: nn.Module, task: BaseTask, *, strength: float, seed: int = 0) -> BrittleBlock:
    """A copy to one hidden layer of which pairs of units were added that read the same and write the opposite.

    Args:
        model: Any in which hidden layers are recognised that can be widened.
        task: What the copy is measured on.
        strength: Size of what a pair writes, in units of the layer's outgoing weights, .1 to 100. There are half as
            many pairs as units.
        seed: Of the choice of the layer and of the pairs.

    Raises:
        UsageError: If ``strength`` is out of range.
        ModelError: If no hidden layer can be widened.
    """
    BRITTLE.require(strength, of="strength of the brittle block")
    family = gauge.find(model, few(task, model))
    hiddens = () if isinstance(family, gauge.Refusal) else family.hiddens
    wide = [
        hidden for hidden in hiddens if hidden.widens and "cancel" not in hidden.refused and len(hidden.readers) == 1
    ]
    if not wide:
        raise ModelError(
            "A brittle block cannot be planted in this model.",
            where=type(model).__name__,
            expected="a hidden layer to which units can be added",
            got=family.because if isinstance(family, gauge.Refusal) else "; ".join(family.refused),
            do="Plant it in a model such as wheeltap.models.mlp makes.",
        )
    rng = seeds.generator(seed, "defects", "brittle block")
    hidden = wide[int(rng.integers(len(wide)))]
    twin = copy.deepcopy(model)
    moves.cancel(twin, [hidden], rng, gauge.Settings(scale=strength))
    sites = Site("layer", hidden.name), Site("layer", hidden.reader.label)
    return BrittleBlock(Subject(twin, name=f"brittle block {strength:g}"), sites)
