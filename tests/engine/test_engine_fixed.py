"""Weights that are no parameters: what activations are multiplied by, wherever it is kept, is named and counted."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wheeltap.core.coverage import sizes
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.clean import settle

INPUTS = torch.randn(40, 6, 8, generator=torch.Generator().manual_seed(0))


def task() -> Task:
    return Task(INPUTS, torch.arange(40) % 3)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def frozen(module: nn.Module) -> nn.Module:
    """The same with every parameter a buffer."""
    for inner in module.modules():
        for name, held in list(inner.named_parameters(recurse=False)):
            delattr(inner, name)
            inner.register_buffer(name, held.detach().clone())
    return module


class Net(nn.Module):
    """A body that gives ``[example, step, 12]``, and a head of 12 x 3 + 3 parameters."""

    def __init__(self, body: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.body = body()
        self.head = nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        given = self.body(inputs)
        return self.head((given[0] if isinstance(given, tuple) else given).relu().mean(1))


class Held(nn.Module):
    """Its weight is in a list, in a closure, in an array, computed, or multiplied number by number."""

    def __init__(self, way: str) -> None:
        super().__init__()
        weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
        self.way, self.held = way, [weight]
        self.outer = lambda rows: rows @ weight.T
        self.array = weight.numpy()
        self.register_buffer("base", weight.clone() if way in ("added", "einsum", "summed") else torch.zeros(0))
        if way == "added":
            self.low, self.high = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(12, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        match self.way:
            case "list":
                return F.linear(inputs, self.held[0])
            case "closure":
                return self.outer(inputs)
            case "array":
                return inputs @ torch.from_numpy(self.array).T
            case "added":
                return F.linear(inputs, self.base + self.high @ self.low)
            case "einsum":
                return torch.einsum("eti,oi->eto", inputs, self.base)
            case _:
                return (inputs[..., None, :] * self.base).sum(-1)


UNNAMED = "a constant [12, 8] of the forward"
BODIES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "linear": (lambda: frozen(nn.Linear(8, 12)), {"body.weight": 96}),
    "lstm": (lambda: frozen(nn.LSTM(8, 12, batch_first=True)), {"body.weight_ih_l0": 384, "body.weight_hh_l0": 576}),
    "list": (lambda: Held("list"), {"body.held[0]": 96}),
    "closure": (lambda: Held("closure"), {"body.held[0]": 96}),
    "array": (lambda: Held("array"), {"body.held[0]": 96}),
    "added": (lambda: Held("added"), {"body.base": 96}),
    "einsum": (lambda: Held("einsum"), {"body.base": 96}),
    "summed": (lambda: Held("summed"), {"body.base": 96}),
}


@pytest.mark.parametrize("kind", BODIES)
def test_what_activations_are_multiplied_by_is_counted_where_it_is_no_parameter(kind: str) -> None:
    body, fixed = BODIES[kind]
    model = seeded(lambda: Net(body))
    if kind == "lstm":
        model.get_submodule("body")._init_flat_weights()
    subject = Subject(model)
    settle(subject, task())
    own = sum(parameter.numel() for parameter in model.parameters())
    assert subject.fixed == fixed
    assert subject.record.parameters == own + sum(fixed.values()) and subject.record.covered == own
    assert {one.name: one.size for one in subject.record.untouched} == fixed


class Tables(nn.Module):
    """Nothing here is a weight: positions are added, a mask and a rotation multiply, an adjacency has one sign."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 12), nn.Linear(12, 3)
        self.norm = nn.BatchNorm1d(6)
        angles = torch.arange(6.0)[:, None] * torch.arange(1.0, 13.0)
        self.register_buffer("positions", angles.sin())
        self.register_buffer("rotary", angles.cos())
        self.register_buffer("mask", (torch.randn(12, 8, generator=torch.Generator().manual_seed(2)) > 0).float())
        self.register_buffer("adjacency", (torch.eye(6) + torch.eye(6).roll(1, 0)) / 2)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = F.linear(inputs, self.inner.weight * self.mask, self.inner.bias) + self.positions
        return self.head(self.norm(self.adjacency @ (rows * self.rotary)).relu().mean(1))


def test_tables_are_no_weights() -> None:
    subject = Subject(seeded(Tables))
    settle(subject, task())
    assert subject.fixed == {}


def test_a_copy_that_a_module_keeps_of_its_weights_counts_beside_them() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(8, 12), nn.Linear(12, 3)
            self.kept = self.inner.weight.detach().clone()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(F.linear(inputs, self.kept).relu().mean(1))

    subject = Subject(seeded(Cached))
    settle(subject, task())
    assert subject.fixed == {"kept": 96}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "count"),
    [(lambda: nn.GRU(8, 12, batch_first=True, bidirectional=True), 2 * 36 * 20), (lambda: nn.Linear(8, 12), 96)],
)
def test_what_quantized_layers_pack_into_objects_counts_as_weights(make: Callable[[], nn.Module], count: int) -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(make()), {nn.GRU, nn.Linear}, dtype=torch.qint8)
    assert sizes(quantized) == {"0.packed weights": count}
