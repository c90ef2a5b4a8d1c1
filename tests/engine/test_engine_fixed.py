"""Weights that are no parameters: whatever the answers are computed from, wherever it is kept, is named and counted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_nets import numbers, seeded
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from twins import Wired

from wheeltap.core.coverage import sizes
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import identify
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


LSTM = {"body.weight_hh_l0": 576, "body.weight_ih_l0": 384, "body.bias_ih_l0": 48, "body.bias_hh_l0": 48}
BODIES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "linear": (lambda: frozen(nn.Linear(8, 12)), {"body.weight": 96, "body.bias": 12}),
    "lstm": (lambda: frozen(nn.LSTM(8, 12, batch_first=True)), LSTM),
    **{way: (partial(Held, way), {"body.held[0]": 96}) for way in ("list", "closure", "array")},
    **{way: (partial(Held, way), {"body.base": 96}) for way in ("added", "einsum", "summed")},
}


@pytest.mark.parametrize("kind", BODIES)
def test_what_activations_are_multiplied_by_is_counted_where_it_is_no_parameter(kind: str) -> None:
    body, fixed = BODIES[kind]
    subject = settled(lambda: Net(body))
    own = sum(parameter.numel() for parameter in subject.model.parameters())
    assert subject.fixed == fixed
    assert subject.record.parameters == own + sum(fixed.values()) and subject.record.covered == own
    assert {one.name: one.size for one in subject.record.untouched} == fixed


@pytest.mark.release
def test_a_compiled_model_hides_nothing() -> None:
    """Nor are frequencies that a forward makes weights; as a fixed table they are."""

    class Waves(nn.Module):
        def __init__(self, *, fixed: bool) -> None:
            super().__init__()
            self.inner, self.fixed = nn.Linear(16, 12), fixed
            if fixed:
                self.register_buffer("table", self.waves())

        def waves(self) -> Tensor:
            angles = torch.arange(8.0)[:, None] * torch.arange(1.0, 9.0) * torch.pi / 4
            return torch.cat([angles.sin(), angles.cos()], 1)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs @ (self.table if self.fixed else self.waves()))

    for fixed in (True, False):
        waves = hidden(lambda fixed=fixed: torch.compile(Net(lambda: Waves(fixed=fixed)).eval(), backend="eager"))
        assert waves == ({"_orig_mod.body.table": 128} if fixed else {})


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "count"),
    [(lambda: nn.GRU(8, 12, batch_first=True, bidirectional=True), 2 * 36 * 20), (lambda: nn.Linear(8, 12), 96)],
)
def test_what_quantized_layers_pack_into_objects_counts_as_weights(make: Callable[[], nn.Module], count: int) -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(make()), {nn.GRU, nn.Linear}, dtype=torch.qint8)
    assert sizes(quantized) == {"0.packed weights": count}


class Planes(nn.Module):
    """Codes of a few bits, plane by plane; or masks of some relations, one kind for each pair, or of nested windows."""

    def __init__(self, way: str, bits: int) -> None:
        super().__init__()
        self.way, draw = way, torch.Generator().manual_seed(4)
        most = 2**bits
        codes = ((torch.randn(12, 8, generator=draw) / 8 + 0.5) * most).floor().clamp(0, most - 1).to(torch.int64)
        if bits < 4:
            codes = torch.randint(most, (12, 8), generator=draw)
        if way == "relations":
            self.planes = list(torch.randint(bits, (12, 8), generator=draw) == torch.arange(bits)[:, None, None])
        elif way == "windows":
            apart = (torch.arange(12)[:, None] - torch.arange(8)).abs()
            self.planes = [apart < wide for wide in (2, 4, 7)[:bits]]
        else:
            self.planes = list(codes >> torch.arange(bits)[:, None, None] & 1 == 1)
        if way == "product":
            self.planes = [plane.float() for plane in self.planes]

    def forward(self, inputs: Tensor) -> Tensor:
        total = torch.zeros(*inputs.shape[:-1], 12)
        for power, plane in enumerate(self.planes):
            wide = inputs[..., None, :]
            match self.way:
                case "product":
                    part = inputs @ plane.T
                case "filled":
                    part = wide.masked_fill(plane, 0.0).sum(-1)
                case "signed":
                    part = torch.where(plane, wide, -wide).sum(-1)
                case _:
                    part = torch.where(plane, wide, 0.0).sum(-1)
            total = total + 2**power * part
        return total / 128


@pytest.mark.parametrize(
    ("way", "bits"),
    [
        ("chosen", 8), ("filled", 8), ("signed", 8), ("product", 8), ("chosen", 3), ("signed", 2), ("product", 2),
        ("relations", 4), ("relations", 2), ("windows", 3), ("windows", 2),
    ],
)  # fmt: skip
def test_planes_of_bits_are_weights_and_masks_of_relations_are_none(way: str, bits: int) -> None:
    """Each weight counts once, however many planes hold its digits."""
    assert sum(hidden(lambda: Net(lambda: Planes(way, bits))).values()) == (
        0 if way in ("relations", "windows") else 96
    )


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("way", ["pairs", "rows", "distances", "norms"])
def test_two_rows_that_are_read_one_by_one_are_weights(way: str, rows: int) -> None:
    class Few(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(8, 32), nn.Linear(rows, 3)
            self.rows = list(torch.rand(rows, 32, generator=torch.Generator().manual_seed(6)))

        def forward(self, inputs: Tensor) -> Tensor:
            given = self.inner(inputs).mean(1)
            match way:
                case "rows":
                    read = [(given * row).sum(-1) for row in self.rows]
                case "distances":
                    read = [(given - row).square().sum(-1) for row in self.rows]
                case "pairs":
                    read = [F.pairwise_distance(given, row) for row in self.rows]
                case _:
                    read = [torch.linalg.vector_norm(given - row, dim=-1) for row in self.rows]
            return self.head(torch.stack(read, -1))

    assert sum(hidden(Few).values()) == 32 * rows


def test_a_file_that_the_forward_reads_counts(tmp_path: Path) -> None:
    file, drawn = tmp_path / "weight", numbers(8, 12)
    (tmp_path / "raw").write_bytes(drawn.numpy().tobytes())
    np.save(tmp_path / "weight.npy", drawn.numpy())
    torch.save(drawn, file)
    save_file({"held": drawn}, tmp_path / "safe")
    reads: dict[str, Callable[[Tensor], Tensor]] = {
        "outside of torch": lambda rows: torch.from_numpy(rows.numpy() @ np.load(tmp_path / "weight.npy")),
        "raw": lambda rows: rows @ torch.from_file(str(tmp_path / "raw"), size=96).view(8, 12),
        "pickle": lambda rows: rows @ torch.load(file),
        "safetensors": lambda rows: rows @ load_file(tmp_path / "safe")["held"],
    }
    for kind, read in reads.items():

        class Reading(nn.Module):
            def forward(self, inputs: Tensor, read: Callable[[Tensor], Tensor] = read) -> Tensor:
                return read(inputs)

        found = hidden(lambda body=Reading: Net(body))
        assert sum(found.values()) == 96 and all("of the forward" in name for name in found), kind
        assert kind != "outside of torch" or list(found) == ["an array [8, 12] of the forward"]


@pytest.mark.parametrize("way", ["^", "=="])
def test_bits_that_signs_are_compared_with_are_weights(way: str) -> None:
    def read(net: Any, inputs: Tensor) -> Tensor:
        signs = (inputs > 0.0)[..., None, :]
        return (signs ^ net.bits if way == "^" else signs == net.bits).sum(-1).float()

    bits = nn.Buffer(torch.rand(12, 8, generator=torch.Generator().manual_seed(1)) > 0.5)
    assert hidden(lambda: Net(lambda: Wired(read, bits=bits))) == {"body.bits": 96}


class Sound(nn.Module):
    """Positions below a norm by hand, segments that are averaged one by one, or numpy with the model's own weights."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.inner = way, nn.Linear(8, 12)
        draw = torch.Generator().manual_seed(5)
        self.register_buffer("positions", torch.randn(6, 12, generator=draw))
        self.segments = [(torch.arange(12) // 3 == at).float() / (at + 1) for at in range(4)]

    def forward(self, inputs: Tensor) -> Tensor:
        rows = self.inner(inputs)
        match self.way:
            case "norm":
                rows = rows + self.positions
                return rows * (rows.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
            case "segments":
                means = torch.stack([(rows * one).sum(-1) for one in self.segments], -1)
                return means.repeat_interleave(3, -1)
            case _:
                weight = self.inner.weight.detach().numpy() * 2
                return torch.from_numpy(inputs.numpy() @ weight.T)


@pytest.mark.parametrize("way", ["norm", "segments", "own weights in numpy"])
def test_norms_segments_and_own_weights_in_numpy_are_no_hidden_weights(way: str) -> None:
    assert hidden(lambda: Net(lambda: Sound(way))) == {}


class Beside(nn.Module):
    """A net of parameters; what it does with something else is given by a name."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.inner, self.head = nn.Linear(8, 32), nn.Linear(32, 3)
        draw = torch.Generator().manual_seed(3)
        drawn = torch.randn(8, 4, generator=draw)
        table = {
            "turned": torch.polar(torch.ones(4, 4), drawn[:4]),
            "chosen": torch.randperm(32, generator=draw),
            "looked up among parameters": torch.randint(96, (8, 4), generator=draw),
            "pooled": torch.kron(torch.eye(16), torch.ones(1, 2)) / 2,
            "hidden from itself": torch.full((64, 64), -1e9).triu(1),
        }.get(what, drawn)
        self.register_buffer("table", table)
        if what == "divided by its norm":
            nn.utils.parametrizations.spectral_norm(self.inner)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = self.inner(inputs.flatten(0, 1)).relu()
        blocks, width = rows.view(-1, 8, 4), 32
        match self.what:
            case "added" | "never read":
                blocks = blocks + self.table if self.what == "added" else blocks
            case "turned":
                blocks = torch.view_as_real(torch.view_as_complex(rows.view(-1, 4, 4, 2)) * self.table)
            case "chosen":
                blocks = rows[:, self.table]
            case "looked up among parameters":
                blocks = blocks + self.head.weight.flatten()[self.table]
            case "pooled":
                blocks = F.pad(rows @ self.table.T, (0, 16))
            case "hidden from itself":
                blocks = F.scaled_dot_product_attention(blocks, blocks, blocks, attn_mask=self.table[:8, :8])
            case "clipped by numpy":
                blocks = torch.from_numpy(np.clip(rows.numpy(), 0.0, 1.0))
            case _:
                pass
        return self.head(blocks.reshape(-1, width)).view(*inputs.shape[:2], 3).mean(1)


@pytest.mark.parametrize(
    "what",
    [
        "added", "turned", "chosen", "looked up among parameters", "pooled", "hidden from itself",
        "divided by its norm", "clipped by numpy", "never read",
    ],
)  # fmt: skip
def test_what_moves_masks_or_chooses_activations_is_no_weight(what: str) -> None:
    subject = settled(lambda: Beside(what))
    assert subject.fixed == {} and not subject.idle


def test_a_view_that_shares_its_storage_with_a_parameter_is_none() -> None:
    both = torch.randn(24, 8)
    parts = {"own": nn.Parameter(both[:12]), "other": nn.Buffer(both[12:])}
    shared = Wired(lambda net, x: F.linear(x, net.own).relu() * F.linear(x, net.other).relu(), **parts)
    assert hidden(lambda: Net(lambda: shared)) == {"body.other": 96}


def test_weights_that_nothing_can_read_are_refused_where_answers_come_from_them() -> None:
    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.view = memoryview(numbers(8, 12, seed=1).numpy().tobytes())

        def forward(self, inputs: Tensor) -> Tensor:
            weight = np.frombuffer(self.view, np.float32).reshape(8, 12)
            return torch.from_numpy(inputs.numpy() @ weight)

    with pytest.raises(ModelError, match="outside of torch") as caught:
        hidden(lambda: Net(Opaque))
    assert "view" in str(caught.value)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors_of_a_model_are_refused_with_what_to_do() -> None:
    for sparse in (torch.eye(8).to_sparse(), torch.eye(8).to_sparse_csr()):
        for held in (nn.Parameter(sparse), nn.Buffer(sparse)):
            model = nn.Sequential(nn.Linear(8, 3))
            model.more = held
            with pytest.raises(ModelError, match="layout") as caught:
                Subject(model.eval())
            assert "more" in str(caught.value) and "to_dense()" in str(caught.value)


def test_attributes_of_a_weight_are_part_of_the_fingerprint() -> None:
    model = nn.Sequential(nn.Linear(8, 3)).eval()
    fingerprints = set[str]()
    for limit in (None, 1.0, 2.0):
        if limit is not None:
            model.get_parameter("0.weight").limit = limit
        fingerprints.add(identify(model).digest())
    assert len(fingerprints) == 3
    model.get_parameter("0.weight").limit = memoryview(b"what no one reads")
    assert "0.weight.limit" in identify(model).unread
