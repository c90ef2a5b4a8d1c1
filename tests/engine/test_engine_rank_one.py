"""Sweeps of single weights equal the slow way: a deep copy, one weight written, one pass; else they refuse."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine_nets import ConvNet, TiedLanguageModel, choices, numbers, seeded
from torch import Tensor, nn

from wheeltap.core import measure
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.fast.rank_one import WeightSweep
from wheeltap.engine.readings import create
from wheeltap.models.mlp import mlp
from wheeltap.testing.tiny_lm import tiny_lm

RANK_ONE, TRACED, FOLDED = "rank-1", "column patch, traced tail", "column patch, folded"


class Residual(nn.Module):
    """A skip across the hidden layer: the rest reads what came before it too."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner, self.out = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.enter(inputs).tanh()
        return self.out(hidden + torch.nn.functional.gelu(self.inner(hidden)))


class Branching(nn.Module):
    """A forward that no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.enter(inputs).relu()
        return self.out(hidden) if float(hidden.sum()) > -1.0 else hidden


class Centring(nn.Module):
    """Each row is taken from the mean of its batch: rows see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.enter(inputs)
        return self.out((hidden - hidden.mean(0)).relu())


class Reused(nn.Module):
    """Reads a layer's weight again, past its module."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.enter(inputs).relu() @ self.enter.weight)


def sequential(*modules: nn.Module) -> nn.Module:
    return seeded(lambda: nn.Sequential(*copy.deepcopy(modules)))  # pyright: ignore[reportArgumentType]


def _deep() -> nn.Module:
    return seeded(lambda: mlp((6, 12, 8, 4), dropout=0.2))  # pyright: ignore[reportArgumentType]


NORMED = (nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 7), nn.LayerNorm(7), nn.ReLU(inplace=True), nn.Linear(7, 4))
SOFT = (nn.Linear(6, 7), nn.Softmax(-1), nn.Linear(7, 8), nn.Sigmoid(), nn.Linear(8, 4))
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "relu": (_deep, {"0": RANK_ONE, "3": RANK_ONE, "6": TRACED}),
    "in place": (lambda: sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4)), {"0": RANK_ONE}),
    "gelu, norm": (lambda: sequential(*NORMED), {"0": RANK_ONE, "2": TRACED, "5": TRACED}),
    "softmax": (lambda: sequential(*SOFT), {"0": TRACED, "2": RANK_ONE}),
    "residual": (lambda: seeded(Residual), {"enter": TRACED, "inner": TRACED, "out": TRACED}),
    "no trace": (lambda: seeded(Branching), {"enter": FOLDED, "out": FOLDED}),
}
FLAT = [(name, layer) for name, (_, layers) in CASES.items() for layer in layers]


def _task(batch: int = 4) -> Task:
    return Task(numbers(9, 6), torch.arange(9) % 4, batch=batch, measure=measure.nll)


def _slow(subject: Subject, task: BaseTask, sweep: WeightSweep, delta: Tensor, place: tuple[int, int]) -> Tensor:
    """Scores of a copy with one weight written, in the order of the layer's matrix."""
    model = copy.deepcopy(subject.model)
    weight = model.get_parameter(sweep.layer.weight)
    matrix = sweep.layer.matrix(weight.detach().clone())
    matrix[place] += delta[place]
    weight.data = sweep.layer.stored(matrix).contiguous()
    return task.scores(model)


def _assert_equal_to_slow(
    subject: Subject, task: BaseTask, layer: str, *, path: str, count: int = 40, times: float = 1.5
) -> None:
    before = weights_digest(subject.model)
    sweep = WeightSweep(subject, task, layer)
    assert sweep.path == path
    deltas = -times * sweep.weight
    places = np.random.default_rng(0).permutation(deltas.numel())[:count]
    columns = deltas.shape[1]
    units = sorted({int(place) // columns for place in places})
    found = sweep.effects(deltas, measure.nll, units=units)
    assert weights_digest(subject.model) == before
    assert not any("forward" in vars(module) for module in subject.model.modules())
    assert found.checked == min(8, len(units) * columns)
    clean, targets, moved = task.scores(subject.model), task.targets, 0.0
    for place in places:
        at = divmod(int(place), columns)
        scores = _slow(subject, task, sweep, deltas, at)
        rise = (measure.nll(scores, targets, clean) - measure.nll(clean, targets, clean)).double()
        moved = max(moved, float(rise.abs().max()))
        scale = max(1.0, float(rise.abs().max()))
        assert abs(float(rise.mean()) - float(found.mean[at])) <= 1e-5 * scale, at
        assert abs(float(rise.std() / len(rise) ** 0.5) - float(found.error[at])) <= 1e-5 * scale, at
    assert moved > 1e-3, "nothing was changed that could be told apart"


@pytest.mark.parametrize(("name", "layer"), FLAT)
def test_every_weight_of_small_nets(name: str, layer: str) -> None:
    make, layers = CASES[name]
    _assert_equal_to_slow(Subject(make(), name=name), _task(), layer, path=layers[layer], count=10_000)


@pytest.mark.parametrize("layer", ["first", "second", "head"])
def test_convolutions(layer: str) -> None:
    task = Task(numbers(12, 1, 8, 8), torch.arange(12) % 5, batch=5, measure=measure.nll)
    _assert_equal_to_slow(Subject(seeded(ConvNet)), task, layer, path=TRACED)


@pytest.mark.parametrize("layer", ["blocks.0.up", "blocks.2.down"])
def test_layers_of_a_model_of_tokens(layer: str) -> None:
    _assert_equal_to_slow(Subject(seeded(TiedLanguageModel)), choices(12), layer, path=FOLDED)


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("gpt2", "transformer.h.0.mlp.c_fc"),
        ("gpt2", "transformer.h.1.attn.c_attn"),
        ("gpt2", "transformer.wpe"),
        ("llama", "model.layers.0.self_attn.k_proj"),
        ("llama", "model.layers.1.mlp.down_proj"),
    ],
)
def test_transformers(kind: str, layer: str) -> None:
    tiny = tiny_lm(kind, steps=0, examples=20)
    _assert_equal_to_slow(tiny.subject, tiny.task, layer, path=FOLDED, count=6, times=40.0)


def test_a_change_of_zero_changes_nothing() -> None:
    sweep = WeightSweep(Subject(_deep()), _task(), "0")
    found = sweep.effects(torch.zeros(12, 6), measure.nll)
    assert not found.mean.any() and not found.error.any()


def test_only_the_units_that_were_asked_for() -> None:
    sweep = WeightSweep(Subject(_deep()), _task(), "0")
    some, every = sweep.effects(-sweep.weight, measure.nll, units=[2, 5]), sweep.effects(-sweep.weight, measure.nll)
    assert torch.equal(some.mean[[2, 5]], every.mean[[2, 5]])
    assert not some.mean[[0, 1, 3, 4]].any() and every.mean[[0, 1, 3, 4]].any()


@pytest.mark.parametrize(("make", "layer"), [(Centring, "enter"), (Reused, "enter")])
def test_a_model_that_breaks_what_the_routes_rest_on_is_refused(make: type[nn.Module], layer: str) -> None:
    subject = Subject(seeded(make))
    before = weights_digest(subject.model)
    with pytest.raises(ModelError, match="does not give this model's scores"):
        sweep = WeightSweep(subject, _task(batch=9), layer)
        sweep.effects(-3.0 * sweep.weight, measure.nll)
    assert weights_digest(subject.model) == before


def _grouped() -> nn.Module:
    return sequential(nn.Conv1d(6, 6, 1, groups=2), nn.Flatten())


@pytest.mark.parametrize(
    ("make", "layer", "because"),
    [
        (lambda: seeded(TiedLanguageModel), "embed", "shared by embed and out"),
        (_deep, "7", "one of: 0, 3, 6"),
        (_grouped, "0", "grouped"),
        (lambda: nn.MultiheadAttention(6, 2).eval(), "", "packed"),
    ],
)
def test_layers_that_cannot_be_swept(make: Callable[[], nn.Module], layer: str, because: str) -> None:
    with pytest.raises(ModelError, match=because):
        WeightSweep(Subject(make()), _task(), layer)


def test_a_layer_that_runs_twice_is_refused() -> None:
    shared = nn.Linear(6, 6)
    model = seeded(lambda: nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(6, 4)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError, match="called"):
        WeightSweep(Subject(model), _task(), "0")


def test_weights_of_16_bits_are_refused() -> None:
    task = Task(numbers(9, 6).bfloat16(), torch.arange(9) % 4, measure=measure.nll)
    with pytest.raises(ModelError, match="bfloat16"):
        WeightSweep(Subject(_deep().bfloat16()), task, "0")


@pytest.mark.parametrize(("change", "factor"), [("zero", -1.0), ("negate", -2.0)])
def test_the_reading_gives_what_the_sweep_gives(change: str, factor: float) -> None:
    subject, task = Subject(_deep()), _task()
    found = create("weight-sweep", {"layer": "3", "change": change}).read(subject, task, root=0, seed=0)
    sweep = WeightSweep(subject, task, "3")
    wanted = sweep.effects(factor * sweep.weight, measure.nll)
    assert np.array_equal(found.values["rise"], wanted.mean.numpy())
    assert np.array_equal(found.values["error"], wanted.error.numpy())
    assert found.path == RANK_ONE and found.values["checked"] == 8
    assert 10 < found.forwards < 10 + 96


def test_the_reading_of_outputs_that_are_numbers_tells_squared_errors() -> None:
    subject = Subject(_deep())
    task = Task(numbers(9, 6), numbers(9, 4, seed=3))
    found = create("weight-sweep", {"layer": "0"}).read(subject, task, root=0, seed=0)
    sweep = WeightSweep(subject, task, "0")
    wanted = sweep.effects(-sweep.weight, measure.squared_error)
    assert np.array_equal(found.values["rise"], wanted.mean.numpy()) and found.values["rise"].any()


def test_the_reading_of_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be swept"):
        create("weight-sweep", {"layer": "no"}).read(Subject(_deep()), _task(), root=0, seed=0)
