"""Plain nets: what is recognized, what is refused and why, and that twins compute the same with other weights."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from chain_nets import EXAMPLES, NETS, UNITS, built, scores, settled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from twins import Wired

from wheeltap import gauge
from wheeltap.core import seeds
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import moves
from wheeltap.gauge.hidden import HiddenLayer, Inputs, rows


def test_what_is_recognised_in_each_net_and_what_holds() -> None:
    folded, straight = {"conv", "plain-norm", "resnet"}, tuple(name for name in UNITS if name != "rescale")
    for name, (_, _, layers) in NETS.items():
        model, _ = built(name)
        found = gauge.find(model)
        assert isinstance(found, gauge.Family), found
        assert found.name == "relu-chain"
        assert tuple(layer.name for layer in found.hiddens) == layers
        assert all(layer.widens for layer in found.hiddens)
        units = straight if name.startswith("smooth") else UNITS
        assert found.offers == ((*units, "fold", "regroup") if name in folded else (*units, "regroup")), name


@pytest.mark.parametrize("name", NETS)
def test_twins_compute_the_same_function(name: str) -> None:
    """Each gauge alone, all but the planted defects in both orders, and all of them in both orders."""
    model, inputs = built(name)
    before = weights_digest(model)
    found = gauge.find(model)
    sound = tuple(gauge for gauge in found.offers if gauge not in {"cancel", "entangle"})
    for operations in (*((each,) for each in found.offers), sound, sound[::-1], found.offers, found.offers[::-1]):
        # Entangled halves of cancelling pairs lose digits: planted defects on top of each other are looked at in
        # float64.
        piled = {"cancel", "entangle"} <= set(operations)
        for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-4))[: 1 if piled else 2]:
            model = model.to(dtype)
            twin = gauge.twin(model, gauge.describe(found, *operations, seed=3))
            likeness = gauge.check(scores(model, inputs.to(dtype)), scores(twin, inputs.to(dtype)))
            assert likeness.difference <= bound, (operations, likeness)
            assert likeness.agreement == 1
            assert weights_digest(twin) != weights_digest(model)
            assert not any(module.training for module in twin.modules())
        # To float64 and back is exact, so this covers making both twins.
        assert weights_digest(model.float()) == before


def test_cancel_widens_and_declares_it() -> None:
    model, _ = built("conv")
    twin = gauge.twin(model, gauge.describe("relu-chain", "cancel", seed=0, pairs=3, scale=2.0))
    assert (twin.conv1.out_channels, twin.bn1.num_features, twin.conv2.in_channels) == (12, 12, 12)
    assert (twin.conv2.out_channels, twin.fc1.in_features, twin.fc2.in_features) == (14, 56, 16)
    assert twin.bn1.running_mean.shape == twin.bn1.weight.shape == (12,)
    weight = twin.fc2.weight.detach()
    assert torch.equal(weight[:, :10], model.fc2.weight), "what was there stays"
    assert torch.equal(weight[:, 10::2], -weight[:, 11::2])
    rows = twin.fc1.weight.detach()
    assert torch.equal(rows[10::2], rows[11::2]), "the two of a pair read the same"
    # What a pair writes is `scale` times as wide as what was written before.
    assert 1.2 < float(weight[:, 10::2].std() / model.fc2.weight.detach().std()) < 3.3

    model, _ = built("mlp")
    for pairs, widths in ((0.25, [30, 24, 12]), (30, [80, 76, 68])):
        twin = gauge.twin(model, gauge.describe("relu-chain", "cancel", seed=0, pairs=pairs))
        assert [twin[i].out_features for i in (0, 3, 6)] == widths, "a share of the width, or a number"


def test_sixteen_bit_rescaling_keeps_every_bit_and_what_rounds_is_refused() -> None:
    for name in ("mlp", "conv"):
        model, inputs = built(name)
        model = model.bfloat16()
        assert gauge.find(model).offers == ("permute", "rescale", "cancel", "dead")
        twin = gauge.twin(model, gauge.describe("relu-chain", "rescale", seed=0))
        assert weights_digest(twin) != weights_digest(model)
        with torch.no_grad():
            assert torch.equal(model(inputs.bfloat16()), twin(inputs.bfloat16()))
    for name in ("split", "entangle", "fold"):
        with pytest.raises(ModelError, match="not be exact in 16-bit"):
            gauge.twin(model, gauge.describe("relu-chain", name, seed=0))


@settings(max_examples=12)
@given(
    widths=st.lists(st.integers(1, 8), min_size=3, max_size=4),
    seed=st.integers(0, 2**62),
    operations=st.permutations([*UNITS, "fold"]),
    amount=st.floats(0.01, 1),
    copies=st.integers(2, 5),
)
def test_any_width_and_order(widths: list[int], seed: int, operations: list[str], amount: float, copies: int) -> None:
    torch.manual_seed(seed % 1000)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    model = settled(nn.Sequential(*layers, nn.Linear(widths[-1], 3)).double())
    inputs = torch.randn(20, widths[0]).double()
    # Layers of one unit have no other unit to entangle with.
    held = [name for name in operations if name in gauge.find(model).offers]
    given_settings = {"spread": 2 * amount, "pairs": amount, "share": amount, "units": amount, "copies": copies}
    twin = gauge.twin(model, gauge.describe("relu-chain", *held, seed=seed, **given_settings))
    assert gauge.check(scores(model, inputs), scores(twin, inputs)).difference <= 1e-7


def test_width_in_the_code_is_recoded_not_widened() -> None:
    torch.manual_seed(0)
    """The width after the convolution is written in the code."""
    parts = {"conv": nn.Conv2d(1, 4, 3), "fc1": nn.Linear(16, 6), "fc2": nn.Linear(6, 3)}
    fixed = Wired(lambda net, x: net.fc2(F.relu(net.fc1(F.relu(net.conv(x)).view(-1, 16)))), **parts)
    model, inputs = settled(fixed).double(), torch.randn(EXAMPLES, 1, 4, 4).double()
    found = gauge.find(model)
    assert [(layer.name, layer.widens) for layer in found.hiddens] == [("conv", False), ("fc1", True)]
    for operation in found.offers:
        twin = gauge.twin(model, gauge.describe(found, operation, seed=0))
        assert gauge.check(scores(model, inputs), scores(twin, inputs)).difference <= 1e-10
        assert twin.conv.out_channels == 4
    model.fc1, model.fc2 = nn.Linear(16, 3).double(), nn.Identity()
    only = gauge.find(model)
    assert only.offers == ("permute", "rescale", "regroup")
    with pytest.raises(ModelError, match="the width is written in the model's code"):
        gauge.describe(only, "cancel", seed=0)


def test_a_wrong_gauge_shows() -> None:
    """GELU is not positively homogeneous: rescaling through it moves the outputs, and ``check`` says so."""
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 5)).eval(), torch.randn(EXAMPLES, 6)
    wrong = copy.deepcopy(net)
    layer = HiddenLayer("0", 16, (*rows(net[0], "0"), Inputs(names=("2.weight",), axis=1, outputs=5)))
    moves.permute(wrong, [layer], seeds.generator(0), gauge.GaugeSettings())
    assert gauge.check(scores(net, inputs), scores(wrong, inputs)).difference < 1e-4, "permuting is right"
    moves.rescale(wrong, [layer], seeds.generator(0), gauge.GaugeSettings())
    likeness = gauge.check(scores(net, inputs), scores(wrong, inputs))
    assert likeness.difference > 0.1
    assert likeness.agreement < 1

    model, inputs = built("conv")
    twin = gauge.twin(model, gauge.describe(gauge.find(model), "permute", "rescale", seed=0))
    twin.bn1.load_state_dict(model.bn1.state_dict())
    assert gauge.check(scores(model, inputs), scores(twin, inputs)).difference > 0.01, "the batch norm left out"


def test_dead_units_are_dead_and_write() -> None:
    model, inputs = built("conv")
    twin = gauge.twin(model, gauge.describe("relu-chain", "dead", seed=0, units=0.5))
    assert (twin.conv1.out_channels, twin.conv2.out_channels, twin.fc1.out_features) == (9, 12, 15)
    seen = {}
    twin.fc2.register_forward_pre_hook(lambda module, args: seen.update(units=args[0]))
    scores(twin, inputs)
    assert bool((seen["units"][:, 10:] == 0).all())
    assert 0.3 < float(twin.fc2.weight.detach()[:, 10:].std() / model.fc2.weight.detach().std()) < 3


def wired(read: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    return Wired(read, a=nn.Linear(6, 6), b=nn.Linear(6, 6))


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "random": lambda: nn.Sequential(nn.Linear(4, 8), nn.RReLU(), nn.Linear(8, 3)),
    "running sum": lambda: wired(lambda m, x: m.b(m.a(x).cumsum(-1))),
    "softmax": lambda: nn.Sequential(nn.Linear(4, 8), nn.Softmax(-1), nn.Linear(8, 3)),
    "layer norm": lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)),
    "used twice": lambda: wired(lambda m, x: m.b(y := F.relu(m.a(x))) + y),
    "called twice": lambda: wired(lambda m, x: m.b(F.relu(m.a(F.relu(m.a(x)))))),
    "bare weight": lambda: wired(lambda m, x: m.b(F.relu(m.a(x))) + m.a.weight.sum()),
    "branch on data": lambda: wired(lambda m, x: m.b(F.relu(m.a(x))) if x.sum() > 0 else x),
    "grouped": lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.ReLU(), nn.Conv1d(4, 4, 1, groups=2)),
    "pool mixes": lambda: nn.Sequential(nn.Linear(6, 8), nn.MaxPool1d(2), nn.Linear(4, 4)),
    "pad with ones": lambda: wired(lambda m, x: m.b(F.pad(m.a(x), (1, 1), value=1.0))),
    "odd view": lambda: wired(lambda m, x: m.b(m.a(x).view(-1, 2, 3))),
    "batch statistics": lambda: nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nets_whose_units_may_not_move_are_refused(name: str) -> None:
    model = REFUSED[name]().eval()
    found = gauge.find(model)
    assert isinstance(found, gauge.Refusal) and found.because
    with pytest.raises(ModelError):
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
