"""Plain nets: what is refused, each with its reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from chain_nets import settled
from torch import Tensor, nn
from twins import Wired

from wheeltap import gauge
from wheeltap.core.errors import ModelError


def wired(read: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    """Two layers and some forward."""
    return Wired(read, a=nn.Linear(6, 6), b=nn.Linear(6, 6))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "one layer": (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "fewer than two"),
    "random": (lambda: nn.Sequential(nn.Linear(4, 8), nn.RReLU(), nn.Linear(8, 3)), "RReLU"),
    "slope by value": (lambda: wired(lambda m, x: m.b(F.leaky_relu(m.a(x), x.sum()))), "depends on other values"),
    "running sum": (lambda: wired(lambda m, x: m.b(m.a(x).cumsum(-1))), "cumsum"),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)), "LayerNorm"),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Softmax(-1), nn.Linear(8, 3)), "Softmax"),
    "clamp": (lambda: wired(lambda m, x: m.b(m.a(x).clamp(min=-1))), "bound other than 0"),
    "used twice": (lambda: wired(lambda m, x: m.b(y := F.relu(m.a(x))) + y), "used 2 times"),
    "concatenated": (lambda: wired(lambda m, x: torch.cat([m.a(x), m.b(x)], -1)), "cat"),
    "called twice": (lambda: wired(lambda m, x: m.b(F.relu(m.a(F.relu(m.a(x)))))), "a is called 2 times"),
    "bare weight": (lambda: wired(lambda m, x: m.b(F.relu(m.a(x))) + m.a.weight.sum()), "shares its weights"),
    "unread": (lambda: wired(lambda m, x: (m.b(x), m.a(x))[0]), "values are not used"),
    "as weight": (lambda: wired(lambda m, x: F.linear(m.b(x), F.relu(m.a(x)))), "another way"),
    "functional": (lambda: wired(lambda m, x: F.linear(F.relu(F.linear(x, m.a.weight)), m.b.weight)), "as a module"),
    "branch on data": (lambda: wired(lambda m, x: m.b(F.relu(m.a(x))) if x.sum() > 0 else x), "cannot be traced"),
    "active dropout": (lambda: wired(lambda m, x: m.b(F.dropout(F.relu(m.a(x))))), "dropout is active"),
    "grouped": (lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU(), nn.Conv1d(4, 4, 1, groups=2)), "grouped"),
    "wrong axis": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Conv1d(4, 4, 1)), "as its channels"),
    "other axis": (lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU(), nn.Linear(4, 4)), "as its features"),
    "pool mixes": (lambda: nn.Sequential(nn.Linear(6, 8), nn.MaxPool1d(2), nn.Linear(4, 4)), "pooling mixes"),
    "pool 2d on 1d": (lambda: nn.Sequential(nn.Conv1d(2, 4, 1), nn.MaxPool2d(1), nn.Conv1d(4, 2, 1)), "pooling mixes"),
    "pad with ones": (lambda: wired(lambda m, x: m.b(F.pad(m.a(x), (1, 1), value=1.0))), "not with zeros"),
    "pad units": (lambda: wired(lambda m, x: m.b(F.pad(m.a(x), (1, 1)))), "padding adds units"),
    "flatten all": (lambda: nn.Sequential(nn.Conv1d(2, 4, 1), nn.Flatten(0), nn.Linear(8, 2)), "flatten"),
    "permuted": (lambda: wired(lambda m, x: m.b(m.a(x).permute(0, 2, 1))), "permute"),
    "odd view": (lambda: wired(lambda m, x: m.b(m.a(x).view(-1, 2, 3))), "a view"),
    "mean of units": (lambda: wired(lambda m, x: m.b(m.a(x).mean(-1))), "a mean mixes units"),
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
    assert found.recognised == ("0", "2") or name != "softmax"
    with pytest.raises(ModelError, match="not of the gauge family"):
        gauge.twin(model, gauge.describe("relu-chain", "permute", seed=0))


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


def test_what_is_not_as_its_class_says_is_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).eval()
    handle = net[0].register_forward_hook(lambda module, args, output: output + 1)
    assert "forward hooks" in gauge.find(net).because
    handle.remove()
    net[2].forward = lambda x: x.exp()
    assert "forward method was replaced" in gauge.find(net).because
    training = nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.Linear(6, 6))
    assert "dropout is active" in gauge.find(training).because
    behind = gauge.find(settled(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3))))
    assert "fold" not in behind.offers
    assert "no batch norm has a layer of its own" in behind.why_not("fold"), "it is behind an activation"
