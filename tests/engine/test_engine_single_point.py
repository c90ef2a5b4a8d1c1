"""The screens of single weights against slow loops; what they must leave alone; what they must find."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from engine_nets import Counting, TiedLanguageModel, Unruly, choices, numbers, seeded, taught
from screens_oracle import slowly
from test_engine_restoration import everything
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.inside.screens import Screen, screened
from wheeltap.engine.readings import Readings, create
from wheeltap.models.mlp import mlp


class Odd(nn.Module):
    """Convolutions in every way of padding, stride, dilation and groups, then a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.mirrored = nn.Conv2d(4, 6, (1, 3), padding="same", padding_mode="reflect", dilation=(1, 2), bias=False)
        self.line = nn.Conv1d(6, 3, 2, padding_mode="circular", padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.mirrored(self.grouped(inputs).relu()).relu_()
        return self.head(self.line(hidden.flatten(2)).tanh().mean(2))


def transposed() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return nn.Sequential(Conv1D(5, 6), nn.ReLU(inplace=True), Conv1D(3, 5))


def images(model: nn.Module) -> BaseTask:
    """Of several answers: a net that gives only one is at chance, and has nothing to lose."""
    inputs = numbers(12, 2, 8, 8, seed=1)
    with torch.no_grad():
        model.get_parameter("head.bias").sub_(model(inputs).mean(0))
    return taught(model, inputs)


def own_answers(model: nn.Module, task: ChoiceTask) -> BaseTask:
    return ChoiceTask(task.contexts, task.choices, task.scores(model).argmax(-1).tolist())


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], BaseTask]]] = {
    "linear": (lambda: mlp((6, 9, 9, 4)), lambda model: taught(model, numbers(20, 6, seed=1))),
    "transposed": (transposed, lambda model: taught(model, numbers(20, 6, seed=1))),
    "convolutions": (Odd, images),
    # Three tokens of the model's 13 never come up, but its answers are about them too.
    "tied": (TiedLanguageModel, lambda model: own_answers(model, choices(8, vocabulary=10))),
}


def screens_of(model: nn.Module, task: BaseTask) -> dict[str, Screen]:
    subject = Subject(model)
    found = screened(subject, task, signs=np.random.default_rng(0))
    return {subject.layers[index].name: screen for index, screen in found.items()}


@pytest.mark.parametrize("case", list(CASES))
def test_both_screens_are_what_slow_loops_give(case: str) -> None:
    make, probing = CASES[case]
    model = seeded(make)
    task = probing(model)
    first_order, spikes = slowly(model, task)
    found = screens_of(model, task)
    assert found.keys() == first_order.keys()
    for name, screen in found.items():
        assert torch.allclose(screen.first_order().double(), first_order[name], rtol=2e-4, atol=1e-6), name
        if screen.layer.kind == "conv":
            # A channel's largest value at any place bounds what one tap sees, and is what some tap sees.
            per_channel = spikes[name].reshape(screen.layer.units, screen.layer.shape[1], -1)
            ours = screen.spikes().double().reshape(per_channel.shape)
            assert bool((ours >= per_channel * (1 - 1e-4)).all()), name
            assert bool((ours <= 3.0 * per_channel.clamp_min(1e-12)).float().mean() > 0.9), name
        else:
            assert torch.allclose(screen.spikes().double(), spikes[name], rtol=2e-4), name


def test_batches_do_not_matter() -> None:
    model = seeded(lambda: mlp((6, 9, 9, 4)))
    inputs = numbers(50, 6, seed=1)
    targets = torch.zeros(50, dtype=torch.long)
    one, many = (screens_of(model, Task(inputs, targets, batch=size)) for size in (50, 7))
    for name, screen in one.items():
        assert torch.allclose(screen.first_order(), many[name].first_order(), rtol=1e-4)
        assert torch.allclose(screen.spikes(), many[name].spikes(), rtol=1e-4)


def test_a_model_that_is_right_and_sure_is_still_read() -> None:
    """The gradient of its loss would be zero to the last digit."""
    model = seeded(lambda: mlp((6, 9, 4)))
    with torch.no_grad():
        model.get_parameter("2.weight").mul_(1e4)
    for screen in screens_of(model, taught(model, numbers(20, 6, seed=1))).values():
        assert (screen.first_order() > 0.0).float().mean() > 0.3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = seeded(lambda: mlp((6, 9, 4)))
    task = taught(model, numbers(20, 6, seed=1))
    plain = screens_of(model, task)
    for name, screen in screens_of(model.to(dtype), Task(task.inputs.to(dtype), task.targets)).items():
        for one, other in ((screen.first_order(), plain[name].first_order()), (screen.spikes(), plain[name].spikes())):
            assert torch.allclose(one.float(), other, rtol=0.1, atol=0.02 * float(other.max()))


# ---- what it leaves alone, and refuses ----------------------------------------------------------------------------


def read(model: nn.Module, task: BaseTask, **settings: float) -> Readings:
    return create("single-point", dict(settings)).read(Subject(model), task, root=0, seed=0)


@pytest.mark.parametrize("touch", ["", "inplace", "replace"])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("fail_at", [-1, 1])
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


def test_one_forward_pass_and_its_price() -> None:
    body = seeded(lambda: mlp((6, 9, 4)))
    model = Counting(body)
    task = Task(numbers(20, 6, seed=1), torch.zeros(20, dtype=torch.long), batch=20)
    assert read(model, task).forwards == 3.0
    assert model.calls == 1


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_it_reads_inside_what_switches_gradients_off(around: Callable[[], torch.no_grad]) -> None:
    model = seeded(lambda: mlp((6, 9, 4)))
    task = taught(model, numbers(20, 6, seed=1))
    outside = read(model, task).values
    with around():
        inside = read(model, task).values
    assert all(np.array_equal(outside[name], inside[name]) for name in outside)


class Closed(nn.Module):
    """A model whose forward lets no gradient through."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp((6, 9, 4))

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)


class Overwriting(nn.Module):
    """A model that changes what a layer has read before the pass is over."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs * 1.0
        read = self.inner(hidden)
        hidden.add_(1.0)
        return self.outer(read.relu() + hidden)


def test_models_without_a_gradient_are_refused() -> None:
    task = Task(numbers(20, 6, seed=1), torch.zeros(20, dtype=torch.long))
    with torch.inference_mode():
        loaded = mlp((6, 9, 4)).eval().requires_grad_(False)
    with pytest.raises(ModelError, match="inference mode"):
        read(loaded, task)
    with pytest.raises(ModelError, match="switches gradients off"):
        read(Closed().eval(), task)
    model = Overwriting().eval()
    before = everything(model)
    with pytest.raises(ModelError, match="after the layer has read it"):
        read(model, task)
    assert everything(model) == before


def test_a_task_that_never_calls_the_model_is_refused() -> None:
    class Inside(BaseTask):
        name, digest, tokens = "inside", "inside", 5
        targets = torch.zeros(5, dtype=torch.long)

        def forward(self, model: nn.Module) -> Tensor:
            return model.get_submodule("2")(numbers(5, 9))

        def moments(self) -> None:
            raise NotImplementedError

    with pytest.raises(ModelError, match="only parts of the model"):
        read(mlp((6, 9, 4)).eval(), Inside())


def test_what_cannot_be_read_is_not_counted_as_screened() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.attend(inputs, inputs, inputs, need_weights=False)[0].mean(1))

    values = read(Attending().eval(), Task(numbers(9, 4, 6), torch.zeros(9, dtype=torch.long))).values
    # The packed weight is 18 x 6, what leaves it 6 x 6 (used by torch's own function), the head 3 x 6.
    assert float(values["screened"]) == pytest.approx(18 / (108 + 36 + 18))
    assert set(values["candidates"][:, 0]) == {2.0}


@pytest.mark.parametrize("settings", [{"confirm": 0}, {"nulls": -1}, {"within": 1.0}, {"other": 1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        create("single-point", dict(settings))


# ---- what it names ------------------------------------------------------------------------------------------------


def test_regression_is_read_too() -> None:
    model = seeded(lambda: mlp((6, 9, 2)))
    with torch.no_grad():
        model.get_parameter("2.weight")[1, 4] = 300.0
        model.get_parameter("0.bias")[4] = 3.0
    inputs = numbers(20, 6, seed=1)
    values = read(model, Task(inputs, model(inputs).detach())).values
    assert values["candidates"][0].tolist() == [1.0, 1.0, 4.0]
    assert values["candidate_values"][0] == 300.0


def test_random_weights_are_of_like_size_and_others() -> None:
    model = seeded(lambda: mlp((64, 60, 60, 10)))
    values = read(model, Task(numbers(30, 64), torch.zeros(30, dtype=torch.long)), confirm=4, nulls=30).values
    matrices = [p.detach().numpy() for n, p in model.named_parameters() if n.endswith("weight")]
    for places, held in (("candidates", "candidate_values"), ("nulls", "null_values")):
        for (layer, row, column), value in zip(values[places].astype(int), values[held], strict=True):
            assert matrices[layer][row, column] == np.float32(value)
    every = [tuple(place) for name in ("candidates", "nulls") for place in values[name]]
    assert len(every) == 34 == len(set(every)), "none twice"
    shares = [8, 8, 7, 7]
    sizes = np.repeat(np.abs(values["candidate_values"]), shares)
    ratio = np.abs(values["null_values"]) / sizes
    assert np.all((ratio >= 0.5) & (ratio <= 2.0))
    assert len(set(values["nulls"][:, 0])) > 1, "from more than one layer"


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
    one = read(model, Task(inputs, targets), confirm=16).values
    two = read(twin, Task(inputs[:, columns], rows.argsort()[targets]), confirm=16).values
    assert np.count_nonzero(one["scores"].prod(1)) == 10
    np.testing.assert_array_equal(np.sort(one["candidate_values"]), np.sort(two["candidate_values"]))


def test_random_weights_follow_the_seed() -> None:
    model = seeded(lambda: mlp((64, 60, 10)))
    task, made = Task(numbers(30, 64), torch.zeros(30, dtype=torch.long)), create("single-point")
    drawn = [made.read(Subject(model), task, root=root, seed=0).values["nulls"] for root in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_random_weights_are_drawn_evenly() -> None:
    """Weights of one size: every one that is no candidate is as likely as any other."""
    model = mlp((5, 4)).eval()
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.where(numbers(4, 5) > 0, 1.0, -1.0))
    task, made = Task(numbers(30, 5), torch.zeros(30, dtype=torch.long)), create("single-point", {"nulls": 3})
    counts = np.zeros((4, 5))
    for root in range(200):
        for _, row, column in made.read(Subject(model), task, root=root, seed=0).values["nulls"].astype(int):
            counts[row, column] += 1
    drawn = np.sort(counts.flatten())
    assert np.all(drawn[:3] == 0), "the candidates"
    expected = 600 / 17
    assert np.square(drawn[3:] - expected).sum() / expected < 39.25  # chi-square, 16 degrees of freedom, p = .001


def test_a_net_too_small_gives_what_it_has() -> None:
    values = read(mlp((2, 2)).eval(), Task(numbers(5, 2), torch.zeros(5, dtype=torch.long))).values
    assert len(values["candidates"]) == 3 and len(values["nulls"]) == 1


def test_a_net_of_zeros_is_read() -> None:
    model = mlp((4, 5, 3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
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
    values = read(model, task).values
    assert values["candidates"][0].tolist() == [layer // 2, row, column]


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
    """Shapes tell: an index that is called an input is below the number of inputs, the other below that of outputs."""
    make, probing = CASES[case]
    model = seeded(make)
    values = read(model, probing(model), confirm=40, nulls=40).values
    subject, kinds = Subject(model), set[str]()
    for points, places in (("candidates", "candidate_places"), ("nulls", "null_places")):
        for (layer, row, column), (input_axis, *stored) in zip(values[points], values[places], strict=True):
            one = subject.layers[int(layer)]
            at = tuple(int(index) for index in stored if index >= 0)
            matrix = one.matrix(subject.parameter(one.weight))
            assert subject.parameter(one.weight)[at] == matrix[int(row), int(column)]
            assert at[1 - int(input_axis)] == row, "the other index is the unit that the weight writes"
            kinds.add(one.kind)
    assert kinds == {"linear": {"linear"}, "transposed": {"transposed"}, "convolutions": {"conv", "linear"},
                     "tied": {"embedding", "linear"}}[case]  # fmt: skip


def addressed(parameters: dict[str, nn.Parameter], text: str) -> tuple[nn.Parameter, tuple[int, ...]]:
    """The parameter and the indices that an estimate's name ends with."""
    before, _, indices = text.partition("[")
    return parameters[before.split()[-1]], tuple(int(index) for index in indices.rstrip("]").split(", "))
