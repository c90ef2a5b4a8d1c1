"""Small nets whose code no tracer follows, with the hidden layers that they have; and some whose units may not move."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from twins import Wired

READS, UNITS, OPTIONS = 6, 10, 5


class Odd(nn.Module):
    """A hidden layer between ``first`` and ``last``; ``kind`` says what happens on the way."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(READS, UNITS), nn.Linear(UNITS, OPTIONS)
        if kind in ("read twice", "other branch", "two readers of half"):
            self.other = nn.Linear(UNITS, OPTIONS)
        if kind == "shared":
            self.other = nn.Linear(READS, UNITS)
            self.other.weight = self.first.weight
        if kind == "normed":
            self.norm = nn.LayerNorm(UNITS)
        if kind == "slopes":
            self.gain, self.register = nn.Parameter(torch.rand(UNITS) + 0.5), None
            self.register_buffer("offset", torch.rand(UNITS))
        if kind == "fed back":
            self.back = nn.Linear(UNITS, UNITS)

    def forward(self, x: Tensor) -> Tensor:
        return FORWARDS[self.kind](self, x)


def _fed_back(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x)
    for _ in range(3):
        hidden = torch.tanh(net.first(x) + net.back(hidden))
    return net.last(hidden)


def _branches(net: Any, x: Tensor) -> Tensor:
    hidden = net.first(x).relu()
    return net.last(hidden) if hidden.sum() > 1e6 else net.last(hidden) * 2


def _two_readers_of_half(net: Any, x: Tensor) -> Tensor:
    hidden, half = net.first(x).relu(), slice(UNITS // 2)
    return net.last(hidden) + F.linear(hidden[:, half], net.other.weight[:, half])


FORWARDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "plain": lambda net, x: net.last(net.first(x).relu()),
    "normed": lambda net, x: net.last(net.norm(net.first(x)).relu()),
    "sorted": lambda net, x: net.last(net.first(x).sort(-1).values),
    "weighed": lambda net, x: net.last(net.first(x) * torch.arange(1.0, UNITS + 1, dtype=x.dtype)),
    "slopes": lambda net, x: net.last((net.first(x) * net.gain + net.offset).relu()),
    "shared": lambda net, x: net.last(net.first(x).relu() + net.other(2 * x).relu()),
    "fed back": _fed_back,
    "branches": _branches,
    "other branch": lambda net, x: (net.other if len(x) > 1000 else net.last)(net.first(x).relu()),
    "leaves": lambda net, x: net.last(hidden := net.first(x).relu()) + hidden[:, :OPTIONS],
    "read twice": lambda net, x: net.last(hidden := net.first(x).relu()) + net.other(hidden).tanh(),
    "two readers of half": _two_readers_of_half,
}


class Gated(nn.Module):
    """One tensor for gate and up, as blocks or interleaved, read with ``@``; units may be clamped."""

    def __init__(self, *, interleaved: bool = False, clamped: bool = False, experts: int = 0) -> None:
        super().__init__()
        lead = (experts,) if experts else ()
        self.interleaved, self.clamped, self.experts, self.width = interleaved, clamped, experts, UNITS
        self.both = nn.Parameter(torch.randn(*lead, READS, 2 * UNITS) / math.sqrt(READS))
        self.both_bias = nn.Parameter(torch.randn(*lead, 2 * UNITS) / 4)
        self.down = nn.Parameter(torch.randn(*lead, UNITS, READS) / math.sqrt(UNITS))
        self.head = nn.Linear(READS, OPTIONS)
        self.router = nn.Linear(READS, experts) if experts else None

    def forward(self, x: Tensor) -> Tensor:
        if self.router is None:
            return self.head(x + self.gated(x, self.both, self.both_bias, self.down))
        weights, chosen = self.router(x).softmax(-1).max(-1)
        out = x.clone()
        for expert in range(self.experts):
            rows = (chosen == expert).nonzero()[:, 0]
            mine = self.gated(x[rows], self.both[expert], self.both_bias[expert], self.down[expert])
            out = out.index_add(0, rows, weights[rows, None] * mine)
        return self.head(out)

    def gated(self, x: Tensor, both: Tensor, bias: Tensor, down: Tensor) -> Tensor:
        mixed = x @ both + bias
        if self.interleaved:
            gate, up = mixed[..., ::2], mixed[..., 1::2]
        else:
            gate, up = mixed.view(*mixed.shape[:-1], 2, self.width).unbind(-2)
        if self.clamped:
            up = up.clamp(-1.0, 1.0) + 1
        return (F.silu(gate) * up) @ down


def tied() -> nn.Module:
    """An autoencoder with one matrix for both ways."""
    parts = {"code": nn.Linear(READS, UNITS), "offset": nn.Parameter(torch.randn(READS))}
    return Wired(lambda net, x: net.code(x).relu() @ net.code.weight + net.offset, **parts)


class Pictures(nn.Module):
    """Channels through a skip with batch norms, a depthwise convolution, and a join of two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.widen, self.each, self.each_norm = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 3, groups=12), nn.BatchNorm2d(12)
        self.narrow, self.last = nn.Conv2d(12, 4, 1), nn.Linear(16, OPTIONS)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            x = x.view(len(x), 1, 6, 6)
        x = F.relu(self.norm(self.enter(x)), inplace=True)
        x = x + self.two(self.one(x).relu())
        x = self.each_norm(self.each(self.widen(x).relu())).relu_()
        return self.last(F.max_pool2d(self.narrow(x), 2).flatten(1))


def made(model: nn.Module, *, seed: int = 0) -> Any:
    """The net with every gain, offset and statistic drawn, in double precision and eval mode."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                draw = torch.rand(tensor.shape, generator=random) + 0.5
                signed = torch.randn(tensor.shape, generator=random) / math.sqrt(max(tensor.shape[-1:] or (1,)))
                tensor.copy_(draw if "norm" in name and "bias" not in name and "mean" not in name else signed)
    return model.double().eval()


def running(model: nn.Module, *, seed: int, rows: int = 40, features: int = READS) -> Callable[[nn.Module], Tensor]:
    """What runs a net on inputs drawn with ``seed``."""
    inputs = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))

    def run(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return model(inputs.to(next(model.parameters()).dtype))

    return run
