"""Which single weights are named, beside every one removed in turn; what the reading must leave alone and find."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from engine_nets import Unruly, numbers, seeded, taught
from single_nets import CASES, named, read
from test_engine_restoration import everything
from torch import Tensor, nn
from twins import Wired

import wheeltap as wt
from tests.nets.uncommon import uncommon
from wheeltap.core import seeds
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.readings import create
from wheeltap.models.mlp import mlp
from wheeltap.plans.readings.single_point import SORTS

# ---- what it leaves alone, and refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("touch", ["", "inplace", "replace"])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("fail_at", [-1, 1, 20, 45])
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


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_it_reads_inside_what_switches_gradients_off(around: Callable[[], torch.no_grad]) -> None:
    model = seeded(lambda: mlp((6, 9, 4)))
    task = taught(model, numbers(20, 6, seed=1))
    outside = read(model, task).values
    with around():
        inside = read(model, task).values
    assert all(np.array_equal(outside[name], inside[name]) for name in outside)


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


class Inside(BaseTask):
    """A task that calls one module of the model, and cannot be divided."""

    name, digest, tokens = "inside", "inside", 5
    targets = torch.zeros(5, dtype=torch.long)

    def __init__(self, path: str) -> None:
        self.path = path

    def forward(self, model: nn.Module) -> Tensor:
        return model.get_submodule(self.path)(numbers(5, 9).requires_grad_())

    def moments(self) -> None:
        raise NotImplementedError


def test_a_task_that_calls_a_part_of_the_model_reads_that_part() -> None:
    values = read(mlp((6, 9, 4)).eval(), Inside("2"), confirm=50, nulls=0).values
    assert {path for path, _ in named(values)} == {"2.weight", "2.bias"}
    assert float(values["screened"]) == pytest.approx((9 * 4 + 4) / (6 * 9 + 9 + 9 * 4 + 4))
    with pytest.raises(ModelError, match="depend on no parameter"):
        read(mlp((6, 9, 4)).eval(), Inside("1"))


def test_what_no_answer_depends_on_is_not_counted_as_screened() -> None:
    parts = {"attend": nn.MultiheadAttention(6, 2, batch_first=True), "head": nn.Linear(6, 3), "idle": nn.Linear(5, 4)}
    model = Wired(lambda net, x: net.head(net.attend(x, x, x, need_weights=False)[0].mean(1)), **parts)
    values = read(model.eval(), Task(numbers(9, 4, 6), torch.zeros(9, dtype=torch.long)), confirm=250).values
    used = 18 * 6 + 18 + 6 * 6 + 6 + 3 * 6 + 3
    assert float(values["screened"]) == pytest.approx(used / (used + 24))
    assert len(named(values)) == used and not any(path.startswith("idle") for path, _ in named(values))


# ---- what it names ------------------------------------------------------------------------------------------------


def test_regression_is_read_too() -> None:
    model = seeded(lambda: mlp((6, 9, 2)))
    with torch.no_grad():
        model.get_parameter("2.weight")[1, 4] = 300.0
        model.get_parameter("0.bias")[4] = 3.0
    inputs = numbers(20, 6, seed=1)
    values = read(model, Task(inputs, model(inputs).detach())).values
    assert ("2.weight", (1, 4)) in named(values)
    assert values["candidate_values"][named(values).index(("2.weight", (1, 4)))] == 300.0


def test_random_weights_are_of_like_size_and_others() -> None:
    model = seeded(lambda: mlp((64, 60, 60, 10)))
    values = read(model, Task(numbers(30, 64), torch.zeros(30, dtype=torch.long)), confirm=4, nulls=30).values
    parameters = dict(model.named_parameters())
    for of in ("candidate", "null"):
        for (path, place), value in zip(named(values, of), values[f"{of}_values"], strict=True):
            assert float(parameters[path].detach()[place]) == np.float32(value)
    every = [*named(values), *named(values, "null")]
    assert len(every) == 34 == len(set(every)), "none twice"
    shares = [8, 8, 7, 7]
    sizes = np.repeat(np.abs(values["candidate_values"]), shares)
    ratio = np.abs(values["null_values"]) / sizes
    assert np.all((ratio >= 0.5) & (ratio <= 2.0))
    assert len({path for path, _ in named(values, "null")}) > 1, "from more than one layer"


def test_a_permuted_net_has_the_same_candidates_among_weights_of_equal_rank() -> None:
    """Four of six inputs are always 0, so that the rank of all their weights is 0; some of them are candidates."""
    model, inputs = seeded(lambda: mlp((6, 5))), numbers(20, 6, seed=1)
    inputs[:, [0, 1, 4, 5]] = 0.0
    columns, rows = torch.tensor([4, 2, 5, 0, 3, 1]), torch.tensor([2, 0, 4, 1, 3])
    twin = seeded(lambda: mlp((6, 5)))
    with torch.no_grad():
        twin.get_parameter("0.weight").copy_(model.get_parameter("0.weight")[rows][:, columns])
        twin.get_parameter("0.bias").copy_(model.get_parameter("0.bias")[rows])
    targets = model(inputs).argmax(1)
    one = read(model, Task(inputs, targets), confirm=21).values
    two = read(twin, Task(inputs[:, columns], rows.argsort()[targets]), confirm=21).values
    assert np.count_nonzero(one["scores"]) == 15, "and 6 of the 20 without effect"
    np.testing.assert_array_equal(np.sort(one["candidate_values"]), np.sort(two["candidate_values"]))


def test_random_weights_follow_the_seed() -> None:
    model = seeded(lambda: mlp((64, 60, 10)))
    task, made = Task(numbers(30, 64), torch.zeros(30, dtype=torch.long)), create("single-point")
    drawn = [named(made.read(Subject(model), task, root=root, seed=0).values, "null") for root in (0, 0, 1)]
    assert drawn[0] == drawn[1] and drawn[0] != drawn[2]


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
    for root in range(200):
        values = made.read(Subject(model), task, root=root, seed=0).values
        chosen |= {place for _, place in named(values)}
        for _, (row, column) in named(values, "null"):
            counts[row, column] += 1
    drawn = np.sort(counts.flatten())
    assert np.all(drawn[:3] == 0), "the candidates"
    expected = 600 / 17
    assert np.square(drawn[3:] - expected).sum() / expected < 39.25  # chi-square, 16 degrees of freedom, p = .001


def test_a_net_too_small_gives_what_it_has_and_one_of_zeros_is_read() -> None:
    values = read(mlp((2, 2)).eval(), Task(numbers(5, 2), torch.zeros(5, dtype=torch.long)), confirm=3).values
    assert len(named(values)) == 3 and len(named(values, "null")) == 3
    model = seeded(lambda: mlp((4, 5, 3)), scale=0.0)
    values = read(model, Task(numbers(5, 4), torch.zeros(5, dtype=torch.long))).values
    assert all(np.isfinite(array).all() for array in values.values())
    assert not values["scores"].any() and not values["null_values"].any()


@pytest.mark.parametrize("layer", [2, 4])
@pytest.mark.parametrize("seed", range(5))
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


@pytest.mark.parametrize("case", list(CASES))
def test_a_weight_is_printed_as_its_parameter_is_indexed(case: str) -> None:
    """Every address in a finding, put to the model's own parameters, is the weight whose loss is told."""
    make, probing = CASES[case]
    model = seeded(make)
    task = probing(model)
    subject = Subject(model, name="net")
    plan = wt.plan(subject, task, audits=[wt.AuditSpec(name="single-point", settings={"confirm": 12, "nulls": 6})])
    [found] = wt.run(msgspec.structs.replace(plan, twin=None, planted=None, graded=()), subject, task)["WT105"]
    parameters, clean = dict(model.named_parameters()), task.scores(model).argmax(-1)
    losses = [estimate for estimate in found.estimates if " without " in estimate.name]
    assert len(losses) == 12
    for estimate in losses:
        weight, at = addressed(parameters, estimate.name)
        held = weight[at].item()
        with torch.no_grad():
            weight[at] = 0.0
            lost = 1.0 - float((task.scores(model).argmax(-1) == clean).float().mean())
            weight[at] = held
        assert estimate.value == pytest.approx(lost, abs=1e-6)
    weight, at = addressed(parameters, found.estimates[-1].name)
    assert found.estimates[-1].value == pytest.approx(weight[at].item())


@pytest.mark.parametrize("case", list(CASES))
def test_it_is_said_which_index_is_the_input(case: str) -> None:
    """By the layers' own matrices: a row is a unit that is written, a column an input."""
    make, probing = CASES[case]
    model = seeded(make)
    values = read(model, probing(model), confirm=60, nulls=60).values
    layers, seen = {layer.weight: layer for layer in Subject(model).layers}, set[str]()
    for of in ("candidate", "null"):
        for (path, place), sort in zip(named(values, of), values[f"{of}_sorts"], strict=True):
            seen.add(SORTS[int(sort)])
            if path not in layers:
                norm = path.rpartition(".")[0].endswith("norm") and path.endswith("weight")
                assert SORTS[int(sort)] == ("gain of a norm" if norm else "bias")
                continue
            marked = torch.zeros(layers[path].shape)
            marked[place] = 1.0
            [(row, column)] = layers[path].matrix(marked).nonzero().tolist()
            indices = dict(zip(SORTS[int(sort)].split(" and "), place, strict=False))
            taps = np.prod(layers[path].shape[2:], dtype=int)
            assert indices == {"output": row, "input": column // taps}
    weights = {"linear": {"output and input"}, "transposed": {"input and output"},
               "convolutions": {"output and input"},
               "tied": {"input and output", "output and input"}}[case]  # fmt: skip
    assert weights <= seen <= {*weights, "bias", "gain of a norm"}


def addressed(parameters: dict[str, nn.Parameter], text: str) -> tuple[nn.Parameter, tuple[int, ...]]:
    """The parameter and the indices that an estimate's name ends with."""
    before, _, indices = text.partition("[")
    return parameters[before.split()[-1]], tuple(int(index) for index in indices.rstrip("]").split(", "))


# ---- against every number removed in turn, and numbers made to matter ---------------------------------------------

KINDS = (
    "lstm projected", "gru", "rnn", "weight norm", "weight norm of an lstm", "pruned", "deconvolved", "bags", "widths",
)  # fmt: skip

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


@pytest.mark.parametrize(
    "name", ["body.weight_hh_l0", "body.bias_ih_l0", "norm.weight", "norm.bias", "experts", "bias"]
)
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
