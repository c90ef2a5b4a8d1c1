"""Plain nets: what is refused, each with its reason."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from chain_nets import built, settled
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core.errors import ModelError


class Wired(nn.Module):
    """Two layers and some forward."""

    def __init__(self, run: Callable[["Wired", Tensor], Tensor], **more: nn.Module) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        for name, module in more.items():
            self.add_module(name, module)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def twice(net: Wired, x: Tensor) -> Tensor:
    y = F.relu(net.a(x))
    return net.b(y) + y


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "one layer": (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "fewer than two"),
    "random": (lambda: nn.Sequential(nn.Linear(4, 8), nn.RReLU(), nn.Linear(8, 3)), "RReLU"),
    "slope by value": (lambda: Wired(lambda m, x: m.b(F.leaky_relu(m.a(x), x.sum()))), "depends on other values"),
    "running sum": (lambda: Wired(lambda m, x: m.b(m.a(x).cumsum(-1))), "cumsum"),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)), "LayerNorm"),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Softmax(-1), nn.Linear(8, 3)), "Softmax"),
    "clamp": (lambda: Wired(lambda m, x: m.b(m.a(x).clamp(min=-1))), "bound other than 0"),
    "used twice": (lambda: Wired(twice), "used 2 times"),
    "concatenated": (lambda: Wired(lambda m, x: torch.cat([m.a(x), m.b(x)], -1)), "cat"),
    "called twice": (lambda: Wired(lambda m, x: m.b(F.relu(m.a(F.relu(m.a(x)))))), "a is called 2 times"),
    "bare weight": (lambda: Wired(lambda m, x: m.b(F.relu(m.a(x))) + m.a.weight.sum()), "shares its weights"),
    "unread": (lambda: Wired(lambda m, x: (m.b(x), m.a(x))[0]), "values are not used"),
    "as weight": (lambda: Wired(lambda m, x: F.linear(m.b(x), F.relu(m.a(x)))), "another way"),
    "functional": (lambda: Wired(lambda m, x: F.linear(F.relu(F.linear(x, m.a.weight)), m.b.weight)), "as a module"),
    "branch on data": (lambda: Wired(lambda m, x: m.b(F.relu(m.a(x))) if x.sum() > 0 else x), "cannot be traced"),
    "active dropout": (lambda: Wired(lambda m, x: m.b(F.dropout(F.relu(m.a(x))))), "dropout is active"),
    "grouped": (lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU(), nn.Conv1d(4, 4, 1, groups=2)), "grouped"),
    "wrong axis": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Conv1d(4, 4, 1)), "as its channels"),
    "other axis": (lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU(), nn.Linear(4, 4)), "as its features"),
    "pool mixes": (lambda: nn.Sequential(nn.Linear(6, 8), nn.MaxPool1d(2), nn.Linear(4, 4)), "pooling mixes"),
    "pool 2d on 1d": (lambda: nn.Sequential(nn.Conv1d(2, 4, 1), nn.MaxPool2d(1), nn.Conv1d(4, 2, 1)), "pooling mixes"),
    "pad with ones": (lambda: Wired(lambda m, x: m.b(F.pad(m.a(x), (1, 1), value=1.0))), "not with zeros"),
    "pad units": (lambda: Wired(lambda m, x: m.b(F.pad(m.a(x), (1, 1)))), "padding adds units"),
    "flatten all": (lambda: nn.Sequential(nn.Conv1d(2, 4, 1), nn.Flatten(0), nn.Linear(8, 2)), "flatten"),
    "permuted": (lambda: Wired(lambda m, x: m.b(m.a(x).permute(0, 2, 1))), "permute"),
    "odd view": (lambda: Wired(lambda m, x: m.b(m.a(x).view(-1, 2, 3))), "a view"),
    "mean of units": (lambda: Wired(lambda m, x: m.b(m.a(x).mean(-1))), "a mean mixes units"),
    "batch statistics": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)),
        "statistics of the batch",
    ),
    "subclassed": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))),
        "fewer than two plain",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str) -> None:
    make, reason = REFUSED[name]
    model = make().eval()
    found = gauge.find(model)
    assert isinstance(found, gauge.Refusal)
    assert reason in found.because
    with pytest.raises(ModelError, match="not of the gauge family"):
        gauge.twin(model, gauge.describe("relu-chain", "permute", seed=0))


def test_a_refusal_lists_what_was_recognised() -> None:
    found = gauge.find(nn.Sequential(nn.Linear(4, 8), nn.Softmax(-1), nn.Linear(8, 3)).eval())
    assert isinstance(found, gauge.Refusal)
    assert found.recognised == ("0", "2")


def test_tied_weights_are_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).eval()
    net[4].weight = net[2].weight
    found = gauge.find(net)
    assert isinstance(found, gauge.Refusal)
    assert "shares its weights" in found.because
    # Two parameters that overlap in memory are tied as well.
    whole = torch.randn(9, 6)
    net[2].weight, net[4].weight = nn.Parameter(whole[:6]), nn.Parameter(whole[3:])
    assert isinstance(gauge.find(net), gauge.Refusal)
    # Side by side in one storage is not tied: this is how a mapped file looks.
    whole = torch.randn(12, 6)
    net[2].weight, net[4].weight = nn.Parameter(whole[:6]), nn.Parameter(whole[6:])
    assert isinstance(gauge.find(net), gauge.Family)


def test_hooks_and_replaced_forwards_are_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).eval()
    handle = net[0].register_forward_hook(lambda module, args, output: output + 1)
    assert "forward hooks" in gauge.find(net).because
    handle.remove()
    net[2].forward = lambda x: x.exp()
    assert "forward method was replaced" in gauge.find(net).because


def test_training_dropout_is_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.Linear(6, 6))
    assert "dropout is active" in gauge.find(net).because


def test_a_batch_norm_behind_an_activation_is_not_folded() -> None:
    model = settled(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    found = gauge.find(model)
    assert "fold" not in found.offers
    assert "no batch norm has a layer of its own" in found.why_not("fold")


def test_sixteen_bit_weights_refuse_what_rounds() -> None:
    model, _ = built("conv")
    found = gauge.find(model.half())
    assert found.offers == ("permute", "rescale", "cancel", "dead")
    for name in ("split", "entangle", "fold"):
        with pytest.raises(ModelError, match="not be exact in 16-bit"):
            gauge.twin(model, gauge.describe("relu-chain", name, seed=0))
