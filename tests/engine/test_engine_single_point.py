"""Which single weights are named, beside every one removed in turn; what the reading must leave alone and find."""

from typing import Any

import numpy as np
import pytest
import torch
from engine_nets import Unruly, numbers, seeded, taught
from test_engine_restoration import everything
from torch import Tensor, nn
from twins import Wired

from tests.nets.uncommon import uncommon
from wheeltap.core import seeds
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.readings import Readings, create
from wheeltap.models.mlp import mlp
from wheeltap.plans.readings.single_point import held as place_of
from wheeltap.plans.readings.single_point import text


def named(values: dict[str, Any], of: str = "candidate") -> list[tuple[str, tuple[int, ...]]]:
    """Parameter and indices of each number that was named."""
    return [(text(p), place_of(at)) for p, at in zip(values[f"{of}_parameters"], values[f"{of}_places"], strict=True)]


def read(model: nn.Module, task: BaseTask, **settings: float) -> Readings:
    return create("single-point", dict(settings)).read(Subject(model), task, root=0, seed=0)


# ---- what it leaves alone, and refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(("touch", "frozen", "fail_at"), [("inplace", True, -1), ("replace", False, 20)])
def test_nothing_of_the_model_changes(touch: str, frozen: bool, fail_at: int) -> None:
    model = Unruly(touch=touch, fail_at=fail_at)
    model.requires_grad_(not frozen)
    next(model.parameters()).requires_grad_(frozen)
    task = Task(numbers(20, 6, seed=1), torch.zeros(20, dtype=torch.long), batch=10)
    before, objects = everything(model), {name: id(buffer) for name, buffer in model.named_buffers()}
    if fail_at < 0:
        read(model, task)
    else:
        with pytest.raises(RuntimeError, match="told to"):
            read(model, task)
    assert everything(model) == before
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == objects
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_forward_pass_for_each_screen_and_its_price() -> None:
    model, seen = seeded(lambda: mlp((6, 9, 4))), list[Tensor]()
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    task = Task(numbers(50, 6, seed=1), torch.zeros(50, dtype=torch.long))
    assert read(model, task, states=1).forwards == 3.0
    assert torch.equal(torch.cat(seen), task.inputs), "every example once"
    assert len(seen) == 16
    seen.clear()
    assert read(model, task).forwards == 9.0
    assert torch.equal(torch.cat(seen), task.inputs.repeat(3, 1)), "once for each screen"


class Closed(nn.Linear):
    """A model whose forward lets no gradient through."""

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)


def test_models_without_a_gradient_and_settings_out_of_range_are_refused() -> None:
    task = Task(numbers(20, 6, seed=1), torch.zeros(20, dtype=torch.long))
    with torch.inference_mode():
        loaded = mlp((6, 9, 4)).eval().requires_grad_(False)
    with pytest.raises(ModelError, match="inference mode"):
        read(loaded, task)
    with pytest.raises(ModelError, match="switches gradients off"):
        read(Closed(6, 4).eval(), task)

    def overwriting(net: Any, inputs: Tensor) -> Tensor:  # changes what a layer has read before the pass is over
        hidden = inputs * 1.0
        read = net.inner(hidden)
        hidden.add_(1.0)
        return net.outer(read.relu() + hidden)

    model = Wired(overwriting, inner=nn.Linear(6, 6), outer=nn.Linear(6, 4)).eval()
    before = everything(model)
    with pytest.raises(ModelError, match="after the layer has read it"):
        read(model, task)
    assert everything(model) == before
    wrong = [{"confirm": 0}, {"states": 0}, {"states": 4}, {"nulls": -1}, {"within": 1.0}, {"other": 1}]
    for settings in wrong:
        with pytest.raises(UsageError):
            create("single-point", dict(settings))


# ---- what it names ------------------------------------------------------------------------------------------------


def test_random_weights_are_drawn_evenly() -> None:
    """Weights of one size: every one that is no candidate is as likely as any other."""
    model = mlp((5, 4)).eval()
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.where(numbers(4, 5) > 0, 1.0, -1.0))
        model.get_parameter("0.bias").zero_()
    # As many examples as parts: so the candidates do not depend on random signs.
    task, made = (
        Task(numbers(16, 5), torch.zeros(16, dtype=torch.long)),
        create("single-point", {"nulls": 3, "confirm": 3, "states": 1}),
    )
    counts = np.zeros((4, 5))
    chosen = set[tuple[int, ...]]()
    for root in range(100):
        values = made.read(Subject(model), task, root=root, seed=0).values
        chosen |= {place for _, place in named(values)}
        for _, (row, column) in named(values, "null"):
            counts[row, column] += 1
    drawn = np.sort(counts.flatten())
    assert np.all(drawn[:3] == 0), "the candidates"
    expected = 300 / 17
    assert np.square(drawn[3:] - expected).sum() / expected < 39.25  # chi-square, 16 degrees of freedom, p = .001


@pytest.mark.parametrize(("layer", "seed"), [(2, 0), (4, 1)])
def test_one_heavy_weight_among_many_is_named_first(layer: int, seed: int) -> None:
    """A constant unit, heavily weighed and made up for by a bias, in the last and in an inner layer."""
    model = seeded(lambda: mlp((64, 512, 512, 10)), seed)
    inputs = numbers(40, 64, seed=seed)
    task = taught(model, inputs)
    rng = seeds.generator(seed, "heavy", layer)
    reader = model.get_submodule(str(layer))
    row, column = (int(rng.integers(size)) for size in reader.weight.shape)
    with torch.no_grad():
        writer = model.get_submodule(str(layer - 2))
        reader.weight[:, column] = 0.0
        clean = task.scores(model)
        writer.weight[column] = 0.0
        writer.bias[column] = 1.0
        heavy = 20.0 * float(clean.std())
        reader.weight[row, column] = -heavy
        reader.bias[row] += heavy
    assert torch.allclose(task.scores(model), clean, atol=1e-3 * float(clean.std()))
    # Without what makes the unit 1, or what makes up for it, as much is lost.
    alike = {(f"{layer}.weight", (row, column)), (f"{layer - 2}.bias", (column,)), (f"{layer}.bias", (row,))}
    assert set(named(read(model, task, confirm=3, states=1).values)) == alike
    assert (f"{layer}.weight", (row, column)) in named(read(model, task).values)


# ---- against every number removed in turn, and numbers made to matter ---------------------------------------------

KINDS = ("gru", "weight norm", "deconvolved", "bags")

Place = tuple[str, tuple[int, ...]]


@torch.no_grad()
def lost(model: nn.Module, task: BaseTask, place: Place) -> float:
    """Share of right answers that are lost without one number."""
    held, right = model.get_parameter(place[0]), task.scores(model).argmax(-1) == task.targets
    before = float(held[place[1]])
    held[place[1]] = 0.0
    without = task.scores(model).argmax(-1) == task.targets
    held[place[1]] = before
    return float(right.float().mean() - without.float().mean())


def every(model: nn.Module) -> list[Place]:
    return [(name, place) for name, held in model.named_parameters() for place in np.ndindex(*held.shape)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_costs_much_more_than_the_worst_that_is_named(kind: str) -> None:
    """One answer of 40 may be missed."""
    case = uncommon(kind)
    model, task = case.subject.model, case.task
    worst = max(lost(model, task, place) for place in every(model))
    best = max(lost(model, task, place) for place in named(read(model, task, nulls=0).values))
    assert best >= worst - 1 / 40 - 1e-6 and worst > 0.1


class Carried(nn.Module):
    """A recurrent layer, a norm, experts in one tensor and a head; every signal goes through one of each."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.GRU(6, 8, batch_first=True), nn.LayerNorm(8)
        self.router, self.experts = nn.Linear(8, 3), nn.Parameter(0.5 * torch.randn(3, 8, 8))
        self.bias, self.head = nn.Parameter(0.5 * torch.randn(3, 8)), nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.body(inputs)[0][:, -1])
        shares = self.router(hidden).softmax(-1)
        mixed = torch.einsum("ni,eoi->neo", hidden, self.experts) + self.bias
        return self.head(hidden + (shares[..., None] * mixed.relu()).sum(1))


def made_to_matter(model: nn.Module, inputs: Tensor, place: Place, *, seed: int) -> Task:
    """Trains ``model`` so that it is right with one number, which is held, and wrong without it."""
    targets = (inputs[:, -1, :2] > 0).long() @ torch.tensor([2, 1])
    held = model.get_parameter(place[0])
    size = 2.0 if seed % 2 else -2.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        held.data[place[1]] = size
        nn.functional.cross_entropy(model(inputs), targets).backward()
        held.data[place[1]] = 0.0
        right = model(inputs).softmax(-1).gather(1, targets[:, None])
        (-(1.0 - right).clamp_min(1e-4).log().mean()).backward()
        held.data[place[1]] = size
        optimizer.step()
    held.data[place[1]] = size
    return Task(inputs, targets)


@pytest.mark.parametrize("name", ["body.weight_hh_l0", "norm.weight", "experts"])
def test_a_fragile_number_is_named_whatever_it_is(name: str) -> None:
    """Recurrent weights and biases, gains and offsets of a norm, weights and biases of experts in one tensor."""
    for seed in range(3):
        model = seeded(Carried, seed, scale=1.0)
        shape = model.get_parameter(name).shape
        rng = np.random.default_rng(seed)
        place = (name, tuple(int(rng.integers(size)) for size in shape))
        task = made_to_matter(model, numbers(120, 4, 6, seed=seed), place, seed=seed)
        model.eval()
        cost = lost(model, task, place)
        if cost < 0.15:
            continue  # it could not be made to matter
        best = max(lost(model, task, one) for one in named(read(model, task, nulls=0).values))
        assert best >= cost - 1e-6
        return
    raise AssertionError("none could be made to matter")
