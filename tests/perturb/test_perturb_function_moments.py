"""Function-space noise: the moments it is made of, its invariance to recoded layers, and the law of its size."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from basis import directions
from engine_trials import run, trial
from function_cases import inputs_of, made
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from twins import Wired

from tests.cases import MODEL_CASES
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.clean import settle
from wheeltap.engine.needs import moments
from wheeltap.engine.needs.moments import layer_moments
from wheeltap.perturb import create
from wheeltap.perturb.base import Factors, Weights
from wheeltap.perturb.noise import factor
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import PlantedCase, numbers, planted

Matrix = NDArray[np.float64]


# The factor of a moment.


def drawn(seed: int = 0) -> Matrix:
    """Inputs ``[row, 8]`` of full rank."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8))


ROWS: dict[str, tuple[Matrix, int]] = {
    "full rank": (drawn(), 8),
    "dead inputs": (drawn() * [0, 1, 1, 1, 1, 0, 1, 1], 6),
    "scaled duplicates": (np.hstack([drawn(), drawn()[:, 2:5] * [3.0, -0.01, 500.0]]), 8),
    "combinations": (np.hstack([drawn()[:, :4], drawn()[:, :4] @ drawn(1)[:4, :5]]), 4),
    "constant of constants": (np.hstack([np.full((60, 1), 3.0), np.ones((60, 1))]), 1),
    "all dead": (np.zeros((60, 4)), 0),
}
"""Inputs ``[row, input]`` and the rank of their moment."""


def moment(rows: Matrix) -> Matrix:
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("kind", ROWS)
def test_the_factor_squares_to_the_moment_whitens_it_and_has_its_rank_in_any_units(kind: str) -> None:
    rows, rank = ROWS[kind]
    second = moment(rows)
    spread, whiten = factor(second)
    assert spread.shape == (len(second), rank) and whiten.shape == (rank, len(second))
    np.testing.assert_allclose(spread @ spread.T, second, atol=1e-7 * max(1.0, np.abs(second).max()))
    np.testing.assert_allclose(whiten @ spread, np.eye(rank), atol=1e-7)
    np.testing.assert_allclose(moment(rows @ whiten.T), np.eye(rank), atol=1e-6)
    scales = 10.0 ** np.linspace(-6, 6, len(second))
    for units in (scales, scales[::-1], np.full_like(scales, 1e-9), np.full_like(scales, 1e9)):
        assert factor(moment(rows * units))[0].shape[1] == rank


@given(st.lists(st.floats(-9, 9), min_size=8, max_size=8), st.integers(0, 5))
def test_a_change_of_units_is_a_change_of_units_of_the_factor(powers: list[float], seed: int) -> None:
    """Where the rank is full: the draw itself then stays the same."""
    second, units = moment(drawn(seed)), 2.0 ** np.array(powers)
    spread, whiten = factor(second)
    scaled_spread, scaled_whiten = factor(second * np.outer(units, units))
    np.testing.assert_allclose(scaled_spread, spread * units[:, None], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled_whiten, whiten / units, rtol=1e-6, atol=1e-9)


def test_a_moment_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        factor(np.diag([1.0, np.nan, 1.0]))


# Where it is not defined.


def test_too_few_rows_are_skipped() -> None:
    """12 hidden units and a constant: 1.5 x 13 = 20 rows are enough, further inputs count."""
    case = planted("mlp")
    inputs, targets = inputs_of(case), case.task.targets
    few, enough = Task(inputs[:19], targets[:19]), Task(inputs[:20], targets[:20])
    for task, status in (
        (few, "skipped"),
        (enough, "done"),
        (Task(inputs[:8], targets[:8], more=inputs[8:20]), "done"),
    ):
        [outcome] = run(case.subject, task, [trial(case.subject, task, "function", 0.1)])
        assert outcome.status == status and bool(outcome.values) == (status == "done")
    with pytest.raises(ModelError):
        PlantedCase(case.subject, few).factors()


def test_activations_that_are_not_finite_are_refused() -> None:
    case = made(lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), numbers(20, 3, seed=0))
    with torch.no_grad():
        case.subject.model[0].bias.fill_(1e200)
    with pytest.raises(ModelError, match="not finite"):
        case.factors()


def test_attention_sinks_count_as_inputs_and_not_as_outputs() -> None:
    """The first position of a sequence: kept where inputs are whitened, left out where outputs set the scale."""
    with reproducible(0):
        model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 9)).double().eval()
    tokens = torch.randint(9, (30, 5), generator=torch.Generator().manual_seed(2)).tolist()
    contexts = [[0, *row] for row in tokens]
    task = ChoiceTask(contexts, [[[1], [2]]] * 30, [0] * 30)
    factors = moments.layer_moments(Subject(model), task).known["1"]
    with torch.no_grad():
        # Sequences with the same tokens run once.
        hidden = model[0](torch.tensor(sorted(set(map(tuple, contexts)))))
        outs = model[1](hidden)[:, 1:].flatten(0, 1)
    rows = nn.functional.pad(hidden, (0, 1), value=1.0).flatten(0, 1)
    torch.testing.assert_close(factors.out @ factors.out.T, outs.T @ outs / len(outs))
    torch.testing.assert_close(factors.whiten.T @ factors.whiten, torch.linalg.inv(rows.T @ rows / len(rows)))


def test_moments_in_parts_are_the_moments() -> None:
    """However the layers are divided over passes, and the rows over batches."""
    case = planted("conv")
    whole = case.factors()
    single = moments.layer_moments(case.subject, case.task, limit=1).known
    batched = moments.layer_moments(case.subject, Task(inputs_of(case), case.task.targets, batch=7)).known
    for other in (single, batched):
        assert list(other) == list(whole)
        for name, factors in whole.items():
            torch.testing.assert_close(other[name].out, factors.out)
            torch.testing.assert_close(other[name].whiten, factors.whiten)


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


# Invariance in distribution.


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


def ratio(subject: Subject, task: BaseTask, layer: Layer, factors: Factors) -> float:
    """Root mean square of what draws make of a layer's inputs, as a share of that of its outputs."""
    module = subject.model.get_submodule(layer.name)
    held = (subject.parameter(path).detach() for path in (layer.weight, layer.bias) if path is not None)
    moves = list(directions(layer, Weights(*held), factors, factors))
    squares: dict[str, list[Tensor]] = {"out": [], "drawn": []}
    busy = False

    def measure(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        squares["out"].append(output.double().square().flatten())
        for direction in moves:
            weights = {"weight": direction.weight} | ({} if direction.bias is None else {"bias": direction.bias})
            moved = torch.func.functional_call(module, weights, args, kwargs)
            squares["drawn"].append(moved.double().square().flatten())
        busy = False

    hook = module.register_forward_hook(measure, with_kwargs=True)
    with torch.no_grad():
        task.scores(subject.model)
    hook.remove()
    out, moved = (float(torch.cat(squares[name]).mean()) for name in ("out", "drawn"))
    return (len(moves) * moved / out) ** 0.5


def side(one: nn.Module, two: nn.Module) -> nn.Module:
    """Two layers that read one tensor, in this order."""
    return Wired(lambda net, rows: torch.cat([net.one(rows).flatten(1), net.two(rows).flatten(1)], 1), one=one, two=two)


_ROWS, _SERIES, _MAPS = numbers(90, 6, seed=1) + 3.0, numbers(40, 2, 9, seed=1), numbers(40, 2, 5, 6, seed=1) + 0.5
LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "dead and doubled inputs": (lambda: nn.Sequential(nn.Linear(8, 5)), dead_and_doubled()),
    "without and with a bias": (lambda: side(nn.Linear(6, 4, bias=False), nn.Linear(6, 4)), _ROWS),
    "places": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Flatten()), numbers(20, 4, 6, seed=1)),
    "series": (
        lambda: side(nn.Conv1d(2, 4, 3, stride=2, dilation=2, padding=1), nn.Conv1d(2, 4, 4, padding="same")), _SERIES,
    ),
    "maps": (
        lambda: side(
            nn.Conv2d(2, 3, (2, 3), padding=(1, 2), stride=2), nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
        ), _MAPS,
    ),
    "called twice": (
        lambda: Wired(lambda net, rows: net.two(rows) + net.one(net.one(rows).relu()), one=nn.Linear(6, 6),
                      two=nn.Linear(6, 6)), _ROWS,
    ),
}  # fmt: skip
"""Plain layers in double precision, and their inputs."""


def require_law(subject: Subject, task: BaseTask, *, within: float) -> None:
    settle(subject, task)
    known = layer_moments(subject, task)
    plain = [layer for layer in subject.layers if layer.kind in ("linear", "conv", "embedding", "transposed")]
    assert {layer.name for layer in plain} <= known.known.keys() | known.left_out.keys()
    ratios = {
        layer.name: ratio(subject, task, layer, known.known[layer.name]) for layer in plain if layer.name in known.known
    }
    assert ratios and {name: found for name, found in ratios.items() if abs(found - 1.0) > within} == {}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LAYERS)
def test_dose_one_moves_a_layer_by_as_much_as_it_gives(name: str) -> None:
    make, inputs = LAYERS[name]
    case = made(make, inputs)
    require_law(case.subject, case.task, within=1e-6)


@pytest.mark.parametrize("name", ["mlp", "llama", "gpt2"])
def test_dose_one_moves_every_layer_of_a_model_by_as_much_as_it_gives(name: str) -> None:
    case = MODEL_CASES[name].planted()
    require_law(case.subject, case.task, within=1e-3)
