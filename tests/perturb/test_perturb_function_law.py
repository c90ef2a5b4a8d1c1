"""The law of function-space noise: at dose 1 the root mean square of dW x is that of y, for every layer it touches.

The oracle is slow and knows nothing of moments: the layer's own module is called with directions
of noise in place of its weights.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from basis import directions
from law_nets import LAYERS, NETS
from torch import Tensor, nn

from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.moments import layer_moments
from wheeltap.perturb.base import Draw, Factors, Weights
from wheeltap.perturb.noise import FunctionNoise

BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.10, torch.float64: 1e-6}
DRAWS = 100
"""With 16 bits: their sum is rounded, not each of its parts, so draws are made as in a run."""


@dataclass
class Powers:
    """Mean squares, of outputs and of what draws make of the same inputs."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("out", "drawn"), 0.0))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("out", "drawn"), 0))

    def add(self, name: str, values: Tensor) -> None:
        self.sums[name] += float(values.double().square().sum())
        self.counts[name] += values.numel()

    @property
    def ratio(self) -> float:
        return float((self.sums["drawn"] / self.counts["drawn"] / (self.sums["out"] / self.counts["out"])) ** 0.5)


def drawn(subject: Subject, layer: Layer, factors: Factors) -> tuple[list[Weights], float]:
    """Directions, and by how much to multiply the mean of their squares."""
    clean = Weights(
        subject.parameter(layer.weight).detach(), None if layer.bias is None else subject.parameter(layer.bias).detach()
    )
    if clean.weight.dtype != torch.bfloat16:
        every = list(directions(layer, clean, factors, factors))
        return every, float(len(every))
    return [FunctionNoise().direction(layer, clean, Draw(0, seed, factors)) for seed in range(DRAWS)], 1.0


def ratio(subject: Subject, task: BaseTask, layer: Layer, factors: Factors) -> float:
    module = subject.model.get_submodule(layer.name)
    directions, times = drawn(subject, layer, factors)
    powers, busy, now = Powers(), [False], [next(iter(task.moments()))]

    def measure(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if busy[0]:
            return
        busy[0] = True
        # Sinks are where activations become massive, later on: what a table gives of them is like the rest.
        places, first = now[0].inputs, 0 if layer.kind == "embedding" else now[0].sinks
        rows = (
            output.reshape(*places.shape, -1)
            if first and output.numel() // output.shape[-1] == places.numel()
            else None
        )
        powers.add("out", output if rows is None else rows[:, first:])
        for direction in directions:
            weights = {"weight": direction.weight} | ({} if direction.bias is None else {"bias": direction.bias})
            powers.add("drawn", torch.func.functional_call(module, weights, args, kwargs))
        busy[0] = False

    hook = module.register_forward_hook(measure, with_kwargs=True)
    try:
        with torch.no_grad():
            for batch in task.moments():
                now[0] = batch
                subject.model(batch.inputs)
    finally:
        hook.remove()
    return powers.ratio * times**0.5


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, dtype) for name in NETS for dtype in BOUNDS if dtype != torch.float64),
     *((name, torch.float64) for name in LAYERS)],
)  # fmt: skip
def test_dose_one_moves_every_layer_by_as_much_as_it_gives(name: str, dtype: torch.dtype) -> None:
    make, task_of = {**NETS, **LAYERS}[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subject = Subject(make().to(dtype).eval(), name=name)
    task = task_of(dtype)
    settle(subject, task)
    moments = layer_moments(subject, task)
    ratios = {
        layer.name: ratio(subject, task, layer, moments.known[layer.name])
        for layer in subject.layers
        if layer.name in moments.known
    }
    assert ratios.keys() | moments.left_out.keys() == {layer.name for layer in subject.layers}
    assert {layer: found for layer, found in ratios.items() if abs(found - 1.0) > BOUNDS[dtype]} == {}
    assert len(ratios) >= (1 if name in LAYERS else 2)
