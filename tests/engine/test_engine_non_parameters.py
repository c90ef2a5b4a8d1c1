"""Weights that are no parameters: whatever the answers are computed from, wherever it is kept, is named and counted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_nets import numbers, seeded
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from twins import Wired

from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.clean import settle

INPUTS = numbers(40, 6, 8)


def task() -> Task:
    return Task(INPUTS, torch.arange(40) % 3)


def settled(make: Callable[[], nn.Module]) -> Subject:
    subject = Subject(seeded(make, scale=1.0))
    settle(subject, task())
    return subject


def hidden(make: Callable[[], nn.Module]) -> dict[str, int]:
    """Weights that are no parameters, of a model that has settled."""
    return settled(make).fixed


def frozen(module: nn.Module) -> nn.Module:
    """The same with every parameter a buffer."""
    for inner in module.modules():
        for name, held in list(inner.named_parameters(recurse=False)):
            delattr(inner, name)
            inner.register_buffer(name, held.detach().clone())
    if isinstance(module, nn.LSTM):
        module._init_flat_weights()
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
        weight = numbers(12, 8, seed=1)
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


BODIES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "linear": (lambda: frozen(nn.Linear(8, 12)), {"body.weight": 96, "body.bias": 12}),
    "lstm": (
        lambda: frozen(nn.LSTM(8, 12, batch_first=True)),
        {"body.weight_hh_l0": 576, "body.weight_ih_l0": 384, "body.bias_ih_l0": 48, "body.bias_hh_l0": 48},
    ),
    "list": (partial(Held, "list"), {"body.held.0": 96}),
    "closure": (partial(Held, "closure"), {"body.held.0": 96}),
    "added": (partial(Held, "added"), {"body.base": 96}),
    "einsum": (partial(Held, "einsum"), {"body.base": 96}),
}


@pytest.mark.parametrize("kind", BODIES)
def test_what_activations_are_multiplied_by_is_counted_where_it_is_no_parameter(kind: str) -> None:
    body, fixed = BODIES[kind]
    subject = settled(lambda: Net(body))
    own = sum(parameter.numel() for parameter in subject.model.parameters())
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
        self.register_buffer("mask", (numbers(12, 8, seed=2) > 0).float())
        self.register_buffer("adjacency", (torch.eye(6) + torch.eye(6).roll(1, 0)) / 2)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = F.linear(inputs, self.inner.weight * self.mask, self.inner.bias) + self.positions
        return self.head(self.norm(self.adjacency @ (rows * self.rotary)).relu().mean(1))


def test_tables_are_no_weights() -> None:
    assert hidden(Tables) == {}


def test_a_copy_that_a_module_keeps_of_its_weights_counts_beside_them() -> None:
    class Cached(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 12)
            self.kept = self.weight.detach().clone()

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return F.linear(input, self.kept)

    assert hidden(lambda: Net(Cached)) == {"body.kept": 96}


def test_a_view_that_shares_its_storage_with_a_parameter_is_none() -> None:
    both = torch.randn(24, 8)
    parts = {"own": nn.Parameter(both[:12]), "other": nn.Buffer(both[12:])}
    shared = Wired(lambda net, x: F.linear(x, net.own).relu() * F.linear(x, net.other).relu(), **parts)
    assert hidden(lambda: Net(lambda: shared)) == {"body.other": 96}


def test_a_file_that_the_forward_reads_counts(tmp_path: Path) -> None:
    drawn = numbers(8, 12)
    (tmp_path / "raw").write_bytes(drawn.numpy().tobytes())
    torch.save(drawn, tmp_path / "weight")
    save_file({"held": drawn}, tmp_path / "safe")
    reads: dict[str, Callable[[Tensor], Tensor]] = {
        "raw": lambda rows: rows @ torch.from_file(str(tmp_path / "raw"), size=96).view(8, 12),
        "pickle": lambda rows: rows @ torch.load(tmp_path / "weight"),
        "safetensors": lambda rows: rows @ load_file(tmp_path / "safe")["held"],
    }
    for kind, read in reads.items():

        class Reading(nn.Module):
            def forward(self, inputs: Tensor, read: Callable[[Tensor], Tensor] = read) -> Tensor:
                return read(inputs)

        assert list(hidden(lambda body=Reading: Net(body)).values()) == [96], kind


def test_weights_unpacked_from_integers_are_counted_singly() -> None:
    codes = torch.randint(256, (12, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def unpacked(net: Any, inputs: Tensor) -> Tensor:
        both = torch.stack([net.codes & 15, net.codes >> 4], -1).flatten(1)
        return F.linear(inputs, both.float() / 8 - 1)

    assert hidden(lambda: Net(lambda: Wired(unpacked, codes=nn.Buffer(codes)))) == {"body.codes": 96}


def test_arrays_outside_of_torch_are_not_seen() -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.array = numbers(8, 12, seed=1).numpy()

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.from_numpy(inputs.numpy() @ self.array)

    assert hidden(lambda: Net(Outside)) == {}


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_part_hides_nothing() -> None:
    assert hidden(lambda: Net(lambda: torch.jit.script(frozen(nn.Linear(8, 12)).eval()))) == {
        "body.weight": 96,
        "body.bias": 12,
    }
