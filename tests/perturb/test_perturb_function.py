"""Function-space noise: its scale, its factors, and its invariance to every linear reparametrization of a layer.

A draw is dW = dose A G P / sqrt(r) with Gaussian G, so its distribution is known from A A' and P' P alone. Equality in
distribution is therefore tested exactly, on these two matrices, and once more by what drawn noise does to outputs.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from function_cases import inputs_of, made
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core.layer import Layer
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs import moments
from wheeltap.perturb import create
from wheeltap.perturb.base import Factors
from wheeltap.recipes.train import reproducible
from wheeltap.testing.planted import Attention, PlantedCase, Tokens, clusters, numbers, planted


def covariances(layer: Layer, factors: Factors) -> tuple[Tensor, Tensor]:
    """Row covariance A A' and column covariance P' P / r of the noise at dose 1, in full coordinates."""
    whiten = torch.diag(factors.whiten) if factors.whiten.ndim == 1 else factors.whiten
    columns = whiten.T @ whiten / len(factors.whiten)
    if factors.support is not None:
        full = columns.new_zeros(layer.fan_in, layer.fan_in)
        full[factors.support[:, None], factors.support[None, :]] = columns
        columns = full
    return factors.out @ factors.out.T, columns


# Scale: E|dW x|^2 = dose^2 E|y|^2 on the task's own inputs.


def dead_and_doubled() -> Tensor:
    """Eight inputs of which one is dead and two repeat others."""
    inputs = numbers(80, 8, seed=3) + 0.5
    inputs[:, 4] = 0.0
    inputs[:, 6], inputs[:, 7] = inputs[:, 0], -2 * inputs[:, 1]
    return inputs


def flat(module: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(copy.deepcopy(module), nn.Flatten())


SCALES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5, bias=False)), numbers(80, 6, seed=1)),
    "linear, bias": (lambda: nn.Sequential(nn.Linear(6, 5)), numbers(80, 6, seed=1) + 1),
    "linear, dead and doubled inputs": (lambda: nn.Sequential(nn.Linear(8, 5)), dead_and_doubled()),
    "linear on positions": (flat(nn.Linear(6, 5)), numbers(20, 4, 6, seed=1)),
    "conv1d": (flat(nn.Conv1d(2, 4, 3)), numbers(20, 2, 9, seed=2)),
    "conv1d, stride, dilation": (flat(nn.Conv1d(2, 4, 3, stride=2, dilation=2, padding=1)), numbers(40, 2, 9, seed=2)),
    "conv1d, same": (flat(nn.Conv1d(2, 4, 4, padding="same")), numbers(40, 2, 9, seed=2)),
    "conv2d": (flat(nn.Conv2d(2, 3, 2)), numbers(20, 2, 5, 5, seed=2)),
    "conv2d, padding, stride": (flat(nn.Conv2d(2, 3, (2, 3), padding=(1, 2), stride=2)), numbers(40, 2, 5, 6, seed=2)),
    "conv2d, circular": (flat(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), numbers(20, 2, 5, 5, seed=2)),
    "conv2d, reflect": (flat(nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect")), numbers(20, 2, 5, 5, seed=2)),
    "conv2d, no bias": (flat(nn.Conv2d(2, 3, 2, bias=False)), numbers(20, 2, 5, 5, seed=2)),
}  # fmt: skip


def shares(case: PlantedCase, module: nn.Module, inputs: Tensor, *, dose: float, draws: int) -> Tensor:
    """E|dW x|^2 over E|y|^2 in each draw, both over the task's inputs."""
    factors = case.factors()
    with torch.no_grad():
        clean, found = module(inputs), []
        with Disturbance(case.subject, create("function"), WHOLE, factors) as disturbance:
            for seed in range(draws):
                disturbance.apply(dose, root=0, seed=seed)
                found.append((module(inputs) - clean).square().sum() / clean.square().sum())
    return torch.stack(found)


def require_mean(found: Tensor, expected: float, *, within: float) -> None:
    error = float(found.std()) / len(found) ** 0.5
    assert error < within * expected, f"the test is too weak: {error:g}"
    assert abs(float(found.mean()) - expected) < 4.5 * error, f"{float(found.mean()):g} for {expected:g}"


def test_an_embedding_moves_by_the_dose() -> None:
    ids = torch.randint(11, (60, 5), generator=torch.Generator().manual_seed(1)).clamp_min(3)
    case = made(Tokens, ids)
    embed = case.subject.model.get_submodule("embed")
    require_mean(shares(case, embed, ids, dose=0.5, draws=300), 0.25, within=0.04)
    before = case.subject.parameter("embed.weight").detach().clone()
    with Disturbance(case.subject, create("function"), Site("layer", "embed"), case.factors()) as disturbance:
        disturbance.apply(0.5, root=0, seed=0)
        moved = (case.subject.parameter("embed.weight") != before).any(1)
    assert moved.tolist() == [False] * 3 + [True] * 8, "only tokens that the task holds have a scale"


def test_queries_keys_and_values_move_by_the_dose() -> None:
    inputs = numbers(40, 5, 8, seed=1)
    case = made(Attention, inputs)
    attend = case.subject.model.get_submodule("attend")
    assert isinstance(attend, nn.MultiheadAttention)
    packed = nn.Linear(8, 24, dtype=torch.float64)
    packed.weight, packed.bias = attend.in_proj_weight, attend.in_proj_bias
    require_mean(shares(case, packed, inputs, dose=0.3, draws=300), 0.09, within=0.04)


# torch warns that it copies the input there: padding on one side more than on the other is what is tested.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("kind", list(SCALES))
def test_the_scale_is_exact_in_expectation(kind: str) -> None:
    """tr(A A') tr(P' P C) / r is E|y|^2: no sampling."""
    build, inputs = SCALES[kind]
    case = made(build, inputs)
    (layer,) = case.subject.layers
    rows, columns = covariances(layer, case.factors()[layer.name])
    with torch.no_grad():
        output = case.subject.model(inputs)
    places = output.numel() / layer.units
    assert float(rows.trace()) == pytest.approx(float(output.square().sum()) / places, rel=1e-6)
    collector = moments.Collector(case.subject, [layer], [layer.name])
    with collector.products, torch.no_grad():
        case.subject.model(inputs)
    gram = collector.grams[layer.name][0]
    assert gram.rows == places
    moment = gram.body
    if layer.bias is not None:
        row = torch.cat([gram.total, gram.total.new_full((1,), gram.rows)])
        moment = torch.cat([torch.cat([moment, gram.total[:, None]], 1), row[None]])
    assert float((columns * moment).sum()) / gram.rows == pytest.approx(1.0, rel=1e-6)


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


class Gated(nn.Module):
    """Gate and up projection in one layer, or the same rows in two."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        rows = 0.3 * numbers(12, 5, seed=13)
        parts = [rows] if fused else [rows[:6], rows[6:]]
        self.maps = nn.ModuleList([nn.Linear(5, len(part), bias=False) for part in parts])
        self.down = nn.Linear(6, 3, bias=False)
        for layer, weight in zip([*self.maps, self.down], [*parts, numbers(3, 6, seed=14)], strict=True):
            layer.weight = nn.Parameter(weight.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        gate, up = torch.cat([one(inputs) for one in self.maps], 1).chunk(2, 1)
        return self.down(nn.functional.silu(gate) * up)


def test_it_does_not_depend_on_how_maps_are_cut_into_modules() -> None:
    """Fused or split, gate and up get the same noise, draw by draw: what is drawn belongs to what they read."""
    inputs = numbers(80, 5, seed=15)
    fused, split = (
        PlantedCase(Subject(Gated(fused=one).eval()), Task(inputs, torch.zeros(80, dtype=torch.long)))
        for one in (True, False)
    )
    with torch.no_grad():
        torch.testing.assert_close(fused.subject.model(inputs), split.subject.model(inputs))
    for seed in range(3):
        one, two = (outputs(case.subject, case.factors(), inputs, dose=0.3, seed=seed) for case in (fused, split))
        with torch.no_grad():
            assert float((one - fused.subject.model(inputs)).abs().max()) > 0.1
        torch.testing.assert_close(one, two)
