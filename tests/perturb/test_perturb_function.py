"""Function-space noise: what has no scale, and invariance to every linear reparametrization of a layer.

A draw is dW = dose A G P / sqrt(r) with Gaussian G, so its distribution is known from A A' and P' P alone. Equality in
distribution is therefore tested exactly, on these two matrices. Scales: see the law.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from basis import directions
from function_cases import inputs_of, made
from law_nets import LAYERS, NETS
from torch import Tensor, nn
from twins import Wired

from wheeltap import gauge
from wheeltap.core.layer import Layer
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.moments import layer_moments
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Factors, Weights
from wheeltap.perturb.noise import FunctionNoise
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import PlantedCase, Tokens, clusters, numbers, planted


def covariances(layer: Layer, factors: Factors) -> tuple[Tensor, Tensor]:
    """Row covariance A A' and column covariance P' P / r of the noise at dose 1, in full coordinates."""
    whiten = torch.diag(factors.whiten) if factors.whiten.ndim == 1 else factors.whiten
    columns = whiten.T @ whiten / len(factors.whiten)
    if factors.support is not None:
        full = columns.new_zeros(layer.fan_in, layer.fan_in)
        full[factors.support[:, None], factors.support[None, :]] = columns
        columns = full
    return factors.out @ factors.out.T, columns


def dead_and_doubled() -> Tensor:
    """Eight inputs of which one is dead and two repeat others."""
    inputs = numbers(80, 8, seed=3) + 0.5
    inputs[:, 4] = 0.0
    inputs[:, 6], inputs[:, 7] = inputs[:, 0], -2 * inputs[:, 1]
    return inputs


def test_only_tokens_that_the_task_holds_have_a_scale() -> None:
    ids = torch.randint(11, (60, 5), generator=torch.Generator().manual_seed(1)).clamp_min(3)
    case = made(Tokens, ids)
    before = case.subject.parameter("embed.weight").detach().clone()
    with Disturbance(case.subject, create("function"), Site("layer", "embed"), case.factors()) as disturbance:
        disturbance.apply(0.5, root=0, seed=0)
        moved = (case.subject.parameter("embed.weight") != before).any(1)
    assert moved.tolist() == [False] * 3 + [True] * 8


def test_a_dead_input_and_a_dead_layer_stay_alone() -> None:
    case = made(lambda: nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 4)), dead_and_doubled())
    with torch.no_grad():
        case.subject.model[1].weight.zero_()
        case.subject.model[1].bias.zero_()
    before = [p.detach().clone() for p in case.subject.model.parameters()]
    with Disturbance(case.subject, create("function"), WHOLE, case.factors()) as disturbance:
        disturbance.apply(0.5, root=0, seed=0)
        after = [p.detach().clone() for p in case.subject.model.parameters()]
    assert torch.equal(before[0][:, 4], after[0][:, 4]), "no output depends on an input that is always zero"
    assert not torch.equal(before[0][:, 0], after[0][:, 0])
    assert torch.equal(before[2], after[2]), "an output that is always zero has no scale"


# Invariance, draw by draw: a diagonal re-coding maps each draw onto the same draw.


def outputs(subject: Subject, factors: dict[str, Factors], inputs: Tensor, *, dose: float, seed: int) -> Tensor:
    with torch.no_grad(), Disturbance(subject, create("function"), WHOLE, factors) as disturbance:
        disturbance.apply(dose, root=0, seed=seed)
        return subject.model(inputs)


def twin_of(case: PlantedCase, operation: str, *, seed: int = 1, **settings: float | bool) -> PlantedCase:
    family = gauge.find(case.subject.model)
    assert isinstance(family, gauge.Family)
    copied = gauge.twin(case.subject.model, gauge.describe(family, operation, seed=seed, **settings))
    return PlantedCase(Subject(copied), case.task)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["mlp", "conv", "conv1d", "clusters"])
def test_rescaled_twins_get_the_same_disturbed_outputs(kind: str, spread: float) -> None:
    case = clusters() if kind == "clusters" else planted(kind)
    twin, inputs = twin_of(case, "rescale", spread=spread), inputs_of(case)
    mine, theirs = case.factors(), twin.factors()
    with torch.no_grad():
        scale = float(case.subject.model(inputs).std())
    for seed in range(5):
        for dose in (0.05, 0.5):
            one = outputs(case.subject, mine, inputs, dose=dose, seed=seed)
            two = outputs(twin.subject, theirs, inputs, dose=dose, seed=seed)
            assert float((one - two).abs().max()) < 1e-4 * scale


# Invariance in distribution.


def test_a_permuted_twin_has_the_permuted_distribution() -> None:
    """Of the middle layer of a net whose hidden units change places."""
    with reproducible(0):
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    inputs = numbers(60, 4, seed=1)
    order_in, order_out = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([4, 2, 0, 1, 3])
    other = copy.deepcopy(model)
    with torch.no_grad():
        for part in ("weight", "bias"):
            other[0].get_parameter(part).copy_(model[0].get_parameter(part)[order_in])
            other[2].get_parameter(part).copy_(model[2].get_parameter(part)[order_out])
        other[2].weight.copy_(other[2].weight[:, order_in])
        other[4].weight.copy_(model[4].weight[:, order_out])
    cases = [PlantedCase(Subject(m), Task(inputs, torch.zeros(60, dtype=torch.long))) for m in (model, other)]
    torch.testing.assert_close(model(inputs), other(inputs))
    layer = cases[0].subject.layers[1]
    (rows, columns), (rows2, columns2) = (covariances(layer, case.factors()["2"]) for case in cases)
    with_bias = torch.cat([order_in, torch.tensor([6])])
    torch.testing.assert_close(rows2, rows[order_out][:, order_out])
    torch.testing.assert_close(columns2, columns[with_bias][:, with_bias])


def gram(rows: Tensor, columns: Tensor, *, bias: bool) -> Tensor:
    """Covariance of the noise between every two of the layer's inputs."""
    full = torch.cat([rows, rows.new_ones(len(rows), 1)], 1) if bias else rows
    return full @ columns @ full.T


@pytest.mark.parametrize("bias", [True, False])
def test_any_invertible_recoding_between_two_linear_layers(bias: bool) -> None:
    """h -> A h + c between layers without a nonlinearity: what the noise does behind them stays, exactly."""
    with reproducible(0):
        model = nn.Sequential(nn.Linear(5, 6, bias=bias), nn.Linear(6, 4, bias=bias)).double().eval()
    code = numbers(6, 6, seed=7)
    shift = numbers(6, seed=8) if bias else torch.zeros(6, dtype=torch.float64)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.copy_(code @ model[0].weight)
        other[1].weight.copy_(model[1].weight @ torch.linalg.inv(code))
        if bias:
            other[0].bias.copy_(code @ model[0].bias + shift)
            other[1].bias.copy_(model[1].bias - other[1].weight @ shift)
    inputs = numbers(60, 5, seed=1) + 0.3
    torch.testing.assert_close(model(inputs), other(inputs))
    cases = [PlantedCase(Subject(m), Task(inputs, torch.zeros(60, dtype=torch.long))) for m in (model, other)]
    effects: list[tuple[Tensor, Tensor]] = []
    for case in cases:
        factors = case.factors()
        one, two = case.subject.layers
        assert factors["1"].out.shape[1] == 0, "the two are one map: its noise is in the first"
        rows, columns = covariances(one, factors["0"])
        behind = case.subject.parameter(two.weight)
        effects.append((behind @ rows @ behind.T, columns))
    torch.testing.assert_close(effects[1][0], effects[0][0])
    torch.testing.assert_close(effects[1][1], effects[0][1])


def test_duplicate_units_that_cancel_are_invisible() -> None:
    """Splitting units in two that read the same leaves the reader's noise as it was, on every input of the task."""
    case = planted("mlp")
    twin = twin_of(case, "cancel", pairs=5)
    mine, theirs = case.factors(), twin.factors()
    inputs = inputs_of(case)
    with torch.no_grad():
        hidden, wider = case.subject.model[:2](inputs), twin.subject.model[:2](inputs)
    assert wider.shape[1] == hidden.shape[1] + 10
    assert len(theirs["2"].whiten) == len(mine["2"].whiten), "units that repeat others add no rank"
    layer, wide = case.subject.layers[1], twin.subject.layers[1]
    one = gram(hidden.double(), covariances(layer, mine["2"])[1].double(), bias=True)
    two = gram(wider.double(), covariances(wide, theirs["2"])[1].double(), bias=True)
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-3)
    rows, rows2 = covariances(layer, mine["2"])[0], covariances(wide, theirs["2"])[0]
    torch.testing.assert_close(rows2[: len(rows), : len(rows)], rows, rtol=1e-3, atol=1e-3)


def gated(*parts: Tensor) -> PlantedCase:
    """Gate and up projection in one layer, or the same rows in two."""

    def read(net: Any, inputs: Tensor) -> Tensor:
        gate, up = torch.cat([one(inputs) for one in net.maps], 1).chunk(2, 1)
        return net.down(nn.functional.silu(gate) * up)

    layers = [nn.Linear(5, len(part), bias=False) for part in parts]
    down = nn.Linear(6, 3, bias=False)
    for layer, weight in zip([*layers, down], [*parts, numbers(3, 6, seed=14)], strict=True):
        layer.weight = nn.Parameter(weight.clone())
    model = Wired(read, maps=nn.ModuleList(layers), down=down).eval()
    return PlantedCase(Subject(model), Task(numbers(80, 5, seed=15), torch.zeros(80, dtype=torch.long)))


def test_it_does_not_depend_on_how_maps_are_cut_into_modules() -> None:
    """Fused or split, gate and up get the same noise, draw by draw: what is drawn belongs to what they read."""
    inputs, rows = numbers(80, 5, seed=15), 0.3 * numbers(12, 5, seed=13)
    fused, split = gated(rows), gated(rows[:6], rows[6:])
    with torch.no_grad():
        torch.testing.assert_close(fused.subject.model(inputs), split.subject.model(inputs))
    for seed in range(3):
        one, two = (outputs(case.subject, case.factors(), inputs, dose=0.3, seed=seed) for case in (fused, split))
        with torch.no_grad():
            assert float((one - fused.subject.model(inputs)).abs().max()) > 0.1
        torch.testing.assert_close(one, two)


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
