"""Fingerprints: digests of named tensors and of the source text of module classes."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pairs import Base, fingerprint, made
from torch import Tensor, nn

from wheeltap.core.fingerprint import identify, tensor_parts
from wheeltap.testing.planted import CASES, planted


class Holding(Base):
    """Has a buffer, and tensors as plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3))
        self.table = torch.arange(4.0)
        self.nested = {"pool": [torch.zeros(2), torch.ones(2)]}


class Doubled(Base):
    def scores(self, inputs: Tensor) -> Tensor:
        return 2.0 * super().scores(inputs)


class Tripled(Base):
    def scores(self, inputs: Tensor) -> Tensor:
        return 3.0 * self.b(torch.relu(self.a(inputs)))


def seeded(kind: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("parameter a.weight", lambda model: model.a.weight.data.view(-1)[3:4].add_(1e-3)),
        ("buffer scale", lambda model: model.scale.neg_()),
        ("tensor table", lambda model: model.table.add_(1.0)),
        ("tensor nested.pool.1", lambda model: model.nested["pool"][1].mul_(2.0)),
    ],
)
def test_each_tensor_is_an_item_of_its_own(name: str, changed: Callable[[nn.Module], object]) -> None:
    model = seeded(Holding)
    before = identify(model)
    changed(model)
    assert before.differing(identify(model)) == {name}
    assert before.digest() != identify(model).digest()
    assert before.digest(without={name}) == identify(model).digest(without={name})


def test_copies_and_models_made_again_are_the_same() -> None:
    assert fingerprint(seeded(Holding)) == fingerprint(seeded(Holding))
    layer, act = nn.Linear(4, 4), nn.ReLU()
    once, twice = nn.Sequential(layer, act), nn.Sequential(layer, act, nn.Identity())
    assert fingerprint(once) != fingerprint(twice)
    for kind in CASES:
        model = planted(kind).subject.model
        assert fingerprint(model) == fingerprint(copy.deepcopy(model))


def test_another_process_gives_the_same_fingerprint() -> None:
    source = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pairs import fingerprint, made\n"
    source += "print(fingerprint(made('a closure', 1.0)))"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "2"}
    )
    assert done.stdout.strip() == fingerprint(made("a closure", 1.0))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_and_traced_modules_are_known_by_their_code() -> None:
    plain, again, tripled = (torch.jit.script(seeded(kind)) for kind in (Base, Base, Tripled))
    assert fingerprint(plain) == fingerprint(again) != fingerprint(tripled)
    graphs = [torch.fx.symbolic_trace(seeded(kind)) for kind in (Base, Base, Doubled)]
    codes = [fingerprint(graph) for graph in graphs]
    assert codes[0] == codes[1] != codes[2]


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:torch.quantize_per:UserWarning")
def test_the_bytes_of_any_tensor_are_read() -> None:
    values = torch.tensor([[0.0, 1.5], [-2.0, 0.0]])
    forms = {
        "strided": values, "transposed": values.t(), "bfloat16": values.bfloat16(), "sparse": values.to_sparse(),
        "compressed": values.to_sparse_csr(), "meta": values.to("meta"),
        "quantized": torch.quantize_per_tensor(values, 0.5, 3, torch.qint8),
        "by channel": torch.quantize_per_channel(
            values, torch.tensor([0.5, 0.25]), torch.tensor([0, 1]), 0, torch.qint8
        ),
    }  # fmt: skip
    parts = {name: _parts(tensor) for name, tensor in forms.items()}
    assert len(set(parts.values())) == len(forms)
    assert parts["strided"] == _parts(values.clone())


def _parts(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    dtype, shape, data = tensor_parts(tensor)
    return dtype, tuple(shape), bytes(data)
