"""Attention of classes that nobody knows: what holds is found by trying, on inputs other than those it is tested on."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from twins import BOUND, Wired, apart, on

from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import attention as attentions
from wheeltap.gauge.attention import TRIED, AttentionLayer
from wheeltap.gauge.base import SharedTensors

WIDTH, HEADS = 24, 4
PROBED = on(torch.randn(10, 6, WIDTH, generator=torch.Generator().manual_seed(0)))
FRESH = on(torch.randn(20, 9, WIDTH, generator=torch.Generator().manual_seed(1)))


def attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """``[row, head, place, width]`` each; ``[row, place, head x width]``."""
    scores = query @ key.mT / query.shape[-1] ** 0.5 + bias
    places = torch.ones(scores.shape[-2:]).tril().bool()
    mixed = scores.masked_fill(~places, float("-inf")).softmax(-1) @ value
    return mixed.transpose(1, 2).flatten(2)


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def turned(x: Tensor, *, interleaved: bool = False) -> Tensor:
    """By place: halves, or neighbors."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * torch.tensor([0.3**k for k in range(half)])
    one, two = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


class Packed(nn.Module):
    """Queries, keys and values in one layer, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head = HEADS
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(attended(*(split(part, HEADS) for part in self.c_attn(x).chunk(3, -1))))


class Interleaved(Packed):
    """In one layer, head after head."""

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(attended(*split(self.c_attn(x), HEADS).chunk(3, -1)))


class Grouped(nn.Module):
    """Four layers; two heads read one key; turned by place."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = HEADS, 2, WIDTH // HEADS
        self.wq, self.wo = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.wk, self.wv = (nn.Linear(WIDTH, WIDTH // 2, bias=False) for _ in range(2))

    def shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return turned(split(self.wq(x), HEADS)), turned(split(self.wk(x), 2).repeat_interleave(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(attended(*self.shaped(x), split(self.wv(x), 2).repeat_interleave(2, 1)))


class Neighbors(Grouped):
    """Turned by place in pairs of neighbors."""

    def shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = split(self.wq(x), HEADS), split(self.wk(x), 2).repeat_interleave(2, 1)
        return turned(query, interleaved=True), turned(key, interleaved=True)


class Slopes(nn.Module):
    """Each head has a slope of its own over places."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.to_query, self.to_key, self.to_value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        slopes = 0.5 ** torch.arange(HEADS)[:, None, None] * (places - places[:, None])
        parts = (split(part(x), HEADS) for part in (self.to_query, self.to_key, self.to_value))
        return self.to_out(attended(*parts, bias=slopes))


class Gated(Packed):
    """What heads give is multiplied by a number for each place in each head."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        mixed = attended(*(split(part, HEADS) for part in self.c_attn(x).chunk(3, -1)))
        return self.c_proj(mixed * self.gate)


class Uncounted(Packed):
    """Nothing says how many heads there are."""

    def __init__(self) -> None:
        super().__init__()
        del self.n_head


class Threefold(nn.Module):
    """No attention: three times as many hidden units, by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head = HEADS
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.up(x).chunk(3, -1)
        return self.down(one * two.tanh() + three)


def _stacked(net: Any, x: Tensor) -> Tensor:
    for block in net.blocks:
        x = x + block(x)
    return net.head(x[:, -1])


def net(kind: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    model = Wired(_stacked, blocks=nn.ModuleList(kind() for _ in range(2)), head=nn.Linear(WIDTH, 7))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


def found(model: nn.Module) -> tuple[AttentionLayer, ...]:
    return attentions.find(model, SharedTensors(model), run=PROBED)[0]


HOLD: dict[type[nn.Module], tuple[str, ...]] = {
    Packed: ("heads", "value", "query"),
    Interleaved: ("heads", "value", "query"),
    Grouped: ("heads", "value", "query"),
    Neighbors: ("heads", "value"),
    Slopes: ("value", "query"),
    Gated: ("query",),
    Uncounted: (),
    Threefold: (),
}


@pytest.mark.parametrize("kind", HOLD)
def test_what_holds_is_found(kind: type[nn.Module]) -> None:
    model = net(kind)
    before = weights_digest(model)
    assert attentions.find(model, SharedTensors(model))[0] == ()
    layers = found(model)
    assert weights_digest(model) == before
    assert [layer.path for layer in layers] == (["blocks.0", "blocks.1"] if HOLD[kind] else [])
    for layer in layers:
        groups = 2 if issubclass(kind, Grouped) else HEADS
        assert (layer.heads, layer.groups, layer.moves) == (HEADS, groups, HOLD[kind])
    for move in HOLD[kind]:
        twin = copy.deepcopy(model)
        for layer in layers:
            TRIED[move](twin, layer, np.random.default_rng(5))
        assert weights_digest(twin) != before
        assert apart(FRESH, model, twin) <= BOUND


def test_layers_that_are_not_what_they_seem_are_left_alone() -> None:
    model = net(Packed)
    model.blocks[1].register_forward_hook(lambda module, args, output: output)
    assert [layer.path for layer in found(model)] == ["blocks.0"]
    model = net(Packed)
    model.blocks[1].c_attn.weight = model.blocks[0].c_attn.weight
    assert not found(model)


def test_known_classes_are_not_tried() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(6 * WIDTH, 7)).eval()
    assert found(model) == attentions.find(model, SharedTensors(model))[0] != ()
