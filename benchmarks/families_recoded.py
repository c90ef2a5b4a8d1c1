"""Re-codings of the zoo made by hand, family by family, without ``wheeltap.gauge``: the same function, other weights."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slot:
    """Where the units of a group are along one axis of a tensor.

    Attributes:
        path: Of the parameter or buffer.
        size: Entries of one unit that lie together.
        starts: Where the units begin; of several (fused) parts each.
        power: Of a unit's factor that multiplies its entries.
        scaled: The starts whose entries are multiplied; all by default.
        of: The first index, where the units are those of one expert.
    """

    path: str
    axis: int = 0
    size: int = 1
    starts: tuple[int, ...] = (0,)
    power: int = 0
    scaled: tuple[int, ...] | None = None
    of: int | None = None


@dataclass(frozen=True)
class Units:
    """Units that may be permuted (unless ``still``), and scaled where a slot has a power."""

    count: int
    slots: tuple[Slot, ...]
    still: bool = False


def recoded(name: str, model: nn.Module, *, seed: int) -> nn.Module:
    """A copy of a member of the zoo, its units in another order and of another scale."""
    twin, random = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    tensors = {**dict(twin.named_parameters(remove_duplicate=False)), **dict(twin.named_buffers())}
    with torch.no_grad():
        for units in GROUPS[name]():
            order = torch.arange(units.count) if units.still else torch.randperm(units.count, generator=random)
            factor = torch.randn(units.count, generator=random).mul(0.5).exp()
            for slot in units.slots:
                tensor = tensors[slot.path] if slot.of is None else tensors[slot.path][slot.of]
                tensor.copy_(_moved(tensor, slot, order, factor))
    return twin


def _moved(tensor: Tensor, slot: Slot, order: Tensor, factor: Tensor) -> Tensor:
    length = tensor.shape[slot.axis]
    index, scale = torch.arange(length), torch.ones(length)
    blocks = (order[:, None] * slot.size + torch.arange(slot.size)).flatten()
    for start in slot.starts:
        index[start : start + len(blocks)] = start + blocks
        if start in (slot.starts if slot.scaled is None else slot.scaled):
            scale[start : start + len(blocks)] = factor.repeat_interleave(slot.size) ** slot.power
    shape = [-1 if axis == slot.axis else 1 for axis in range(tensor.ndim)]
    return tensor.index_select(slot.axis, index) * scale.view(shape).to(tensor.dtype)


def _dense(one: str, two: str, count: int = 64, *, homogeneous: bool = False) -> Units:
    """Two layers with biases and what lies between."""
    power = int(homogeneous)
    writes = (Slot(f"{one}.weight", power=power), Slot(f"{one}.bias", power=power))
    return Units(count, (*writes, Slot(f"{two}.weight", 1, power=-power)))


def _gated(at: str, count: int = 64) -> Units:
    up, down = Slot(f"{at}.up_proj.weight", power=1), Slot(f"{at}.down_proj.weight", 1, power=-1)
    return Units(count, (Slot(f"{at}.gate_proj.weight"), up, down))


def _heads(at: str, *, queries: int = 2, out: str = "o_proj", count: int = 2, bias: bool = False) -> Units:
    """Heads of 8 that share keys and values, with all of their queries."""
    sizes = {"q_proj": 8 * queries, "k_proj": 8, "v_proj": 8}
    parts = ("weight", "bias") if bias else ("weight",)
    reads = (Slot(f"{at}.{name}.{part}", size=size) for name, size in sizes.items() for part in parts)
    return Units(count, (*reads, Slot(f"{at}.{out}.weight", 1, 8 * queries)))


def _llama(*, bias: bool = False) -> Iterator[Units]:
    for at in _blocks("model.layers"):
        yield from (_gated(f"{at}.mlp"), _heads(f"{at}.self_attn", bias=bias))


def _blocks(path: str) -> tuple[str, str]:
    return f"{path}.0", f"{path}.1"


def _gpt2() -> Iterator[Units]:
    for at in _blocks("transformer.h"):
        fc, proj = f"{at}.mlp.c_fc", f"{at}.mlp.c_proj.weight"
        yield Units(64, (Slot(f"{fc}.weight", 1), Slot(f"{fc}.bias"), Slot(proj)))
        qkv, starts = f"{at}.attn.c_attn", (0, 32, 64)
        heads = Slot(f"{qkv}.weight", 1, 8, starts), Slot(f"{qkv}.bias", 0, 8, starts)
        yield Units(4, (*heads, Slot(f"{at}.attn.c_proj.weight", 0, 8)))


def _phi() -> Iterator[Units]:
    for at in _blocks("model.layers"):
        yield _dense(f"{at}.mlp.fc1", f"{at}.mlp.fc2")
        yield _heads(f"{at}.self_attn", queries=1, out="dense", count=4, bias=True)


def _phi3() -> Iterator[Units]:
    for at in _blocks("model.layers"):
        both = Slot(f"{at}.mlp.gate_up_proj.weight", starts=(0, 64), power=1, scaled=(64,))
        yield Units(64, (both, Slot(f"{at}.mlp.down_proj.weight", 1, power=-1)))
        qkv = f"{at}.self_attn.qkv_proj.weight"
        parts = (Slot(qkv, size=16), Slot(qkv, size=8, starts=(32, 48)))
        yield Units(2, (*parts, Slot(f"{at}.self_attn.o_proj.weight", 1, 16)))


def _neox() -> Iterator[Units]:
    for at in _blocks("gpt_neox.layers"):
        yield _dense(f"{at}.mlp.dense_h_to_4h", f"{at}.mlp.dense_4h_to_h")
        qkv = f"{at}.attention.query_key_value"
        heads = (Slot(f"{qkv}.weight", size=24), Slot(f"{qkv}.bias", size=24))
        yield Units(4, (*heads, Slot(f"{at}.attention.dense.weight", 1, 8)))


def _opt() -> Iterator[Units]:
    for at in _blocks("model.decoder.layers"):
        yield _dense(f"{at}.fc1", f"{at}.fc2", homogeneous=True)
        yield _heads(f"{at}.self_attn", queries=1, out="out_proj", count=4, bias=True)


def _bloom() -> Iterator[Units]:
    for at in _blocks("transformer.h"):
        yield _dense(f"{at}.mlp.dense_h_to_4h", f"{at}.mlp.dense_4h_to_h", 128)


def _falcon(*, grouped: bool) -> Iterator[Units]:
    for at in _blocks("transformer.h"):
        one, two = (f"{at}.mlp.dense_{way}.weight" for way in ("h_to_4h", "4h_to_h"))
        yield Units(64, (Slot(one), Slot(two, 1)))
        count, size = (2, 32) if grouped else (4, 8)
        qkv, out = f"{at}.self_attention.query_key_value.weight", f"{at}.self_attention.dense.weight"
        yield Units(count, (Slot(qkv, size=size), Slot(out, 1, 16 if grouped else 8)))


def _experts(at: str, router: str, count: int) -> Iterator[Units]:
    """The units of each fused expert, and the experts."""
    both, down = f"{at}.experts.gate_up_proj", f"{at}.experts.down_proj"
    for expert in range(4):
        wide = Slot(both, starts=(0, count), power=1, scaled=(count,), of=expert)
        yield Units(count, (wide, Slot(down, 1, power=-1, of=expert)))
    yield Units(4, (Slot(both), Slot(down), Slot(f"{at}.{router}")))


def _mixtral() -> Iterator[Units]:
    for at in _blocks("model.layers"):
        yield from _experts(f"{at}.mlp", "gate.weight", 64)
        yield _heads(f"{at}.self_attn")


def _qwen2_moe() -> Iterator[Units]:
    for at in _blocks("model.layers"):
        yield from _experts(f"{at}.mlp", "gate.weight", 32)
        yield from (_gated(f"{at}.mlp.shared_expert", 32), _heads(f"{at}.self_attn", bias=True))


def _gpt_oss() -> Iterator[Units]:
    for at in _blocks("model.layers"):
        experts, router = f"{at}.mlp.experts", f"{at}.mlp.router"
        both, bias, down = f"{experts}.gate_up_proj", f"{experts}.gate_up_proj_bias", f"{experts}.down_proj"
        for expert in range(4):
            laced = (Slot(both, 1, 2, of=expert), Slot(bias, 0, 2, of=expert))
            yield Units(64, (*laced, Slot(down, 0, of=expert)))
        held = (both, bias, down, f"{experts}.down_proj_bias", f"{router}.weight", f"{router}.bias")
        yield Units(4, tuple(map(Slot, held)))
        heads = _heads(f"{at}.self_attn", bias=True)
        yield Units(2, (*heads.slots, Slot(f"{at}.self_attn.sinks", size=2)))


def _deepseek() -> Iterator[Units]:
    one, two = _blocks("model.layers")
    yield from (_gated(f"{one}.mlp"), _gated(f"{two}.mlp.shared_experts", 32))
    yield from _experts(f"{two}.mlp", "gate.weight", 32)
    for at in (one, two):
        attention = f"{at}.self_attn"
        latent = (Slot(f"{attention}.q_b_proj.weight", size=12), Slot(f"{attention}.kv_b_proj.weight", size=16))
        yield Units(4, (*latent, Slot(f"{attention}.o_proj.weight", 1, 8)))


def _mamba() -> Iterator[Units]:
    for at in _blocks("backbone.layers"):
        mixer = f"{at}.mixer"
        rows = ("conv1d.weight", "conv1d.bias", "dt_proj.weight", "dt_proj.bias", "A_log", "D")
        reads = (Slot(f"{mixer}.x_proj.weight", 1), Slot(f"{mixer}.out_proj.weight", 1))
        yield Units(
            64, (Slot(f"{mixer}.in_proj.weight", starts=(0, 64)), *(Slot(f"{mixer}.{r}") for r in rows), *reads)
        )


def _mamba2() -> Iterator[Units]:
    for at in _blocks("backbone.layers"):
        mixer = f"{at}.mixer"
        wide = (
            Slot(f"{mixer}.in_proj.weight", size=16, starts=(0, 64)),
            Slot(f"{mixer}.in_proj.weight", starts=(144,)),
        )
        rows = (Slot(f"{mixer}.conv1d.weight", size=16), Slot(f"{mixer}.conv1d.bias", size=16))
        heads = (Slot(f"{mixer}.dt_bias"), Slot(f"{mixer}.A_log"), Slot(f"{mixer}.D"))
        yield Units(
            4, (*wide, *rows, *heads, Slot(f"{mixer}.norm.weight", size=16), Slot(f"{mixer}.out_proj.weight", 1, 16))
        )


def _rwkv() -> Iterator[Units]:
    for at in _blocks("rwkv.blocks"):
        inner, attention = f"{at}.feed_forward", f"{at}.attention"
        yield Units(64, (Slot(f"{inner}.key.weight"), Slot(f"{inner}.value.weight", 1)))
        rows = ("key.weight", "value.weight", "receptance.weight", "time_decay", "time_first")
        yield Units(32, (*(Slot(f"{attention}.{row}") for row in rows), Slot(f"{attention}.output.weight", 1)))


def _bert() -> Iterator[Units]:
    for at in _blocks("body.bert.encoder.layer"):
        yield _dense(f"{at}.intermediate.dense", f"{at}.output.dense")
        reads = [
            Slot(f"{at}.attention.self.{n}.{p}", size=8) for n in ("query", "key", "value") for p in ("weight", "bias")
        ]
        yield Units(4, (*reads, Slot(f"{at}.attention.output.dense.weight", 1, 8)))


def _t5() -> Iterator[Units]:
    for stack, last in (("encoder", 1), ("decoder", 2)):
        for at in _blocks(f"body.{stack}.block"):
            dense = f"{at}.layer.{last}.DenseReluDense"
            yield Units(64, (Slot(f"{dense}.wi.weight", power=1), Slot(f"{dense}.wo.weight", 1, power=-1)))
    for at in _blocks("body.decoder.block"):
        attention = f"{at}.layer.1.EncDecAttention"
        yield Units(4, (*(Slot(f"{attention}.{n}.weight", size=8) for n in "qkv"), Slot(f"{attention}.o.weight", 1, 8)))


def _vit() -> Iterator[Units]:
    for at in _blocks("body.vit.layers"):
        yield _dense(f"{at}.mlp.fc1", f"{at}.mlp.fc2")
        yield _heads(f"{at}.attention", queries=1, count=4, bias=True)


def _norm(at: str, *, power: int = 0) -> tuple[Slot, ...]:
    """Gain and offset, scaled, and the statistics of a batch norm."""
    statistics = (Slot(f"{at}.running_mean"), Slot(f"{at}.running_var"))
    return (Slot(f"{at}.weight", power=power), Slot(f"{at}.bias", power=power), *statistics)


def _cnn() -> Iterator[Units]:
    yield Units(12, (Slot("0.weight"), Slot("0.bias"), *_norm("1", power=1), Slot("4.weight", 1, power=-1)))
    yield Units(24, (Slot("4.weight"), Slot("4.bias"), *_norm("5", power=1), Slot("9.weight", 1, 4, power=-1)))


def _resnet() -> Iterator[Units]:
    inner: list[Slot] = [Slot("0.weight"), Slot("0.bias"), Slot("6.weight", 1, 4)]
    for at in ("2", "3"):
        yield Units(
            16, (Slot(f"{at}.one.weight"), *_norm(f"{at}.norm_one", power=1), Slot(f"{at}.two.weight", 1, power=-1))
        )
        inner += [Slot(f"{at}.one.weight", 1), Slot(f"{at}.two.weight"), *_norm(f"{at}.norm_two")]
    yield Units(16, tuple(inner))


def _depthwise() -> Iterator[Units]:
    first = (Slot("0.weight", power=1), Slot("0.bias", power=1), Slot("2.0.weight", power=-1))
    yield Units(16, (*first, *_norm("2.1"), Slot("2.3.weight", 1)))
    yield Units(
        32,
        (
            Slot("2.3.weight"),
            *_norm("2.4", power=1),
            Slot("4.0.weight", power=-1),
            *_norm("4.1"),
            Slot("4.3.weight", 1),
        ),
    )
    yield Units(64, (Slot("4.3.weight"), *_norm("4.4", power=1), Slot("7.weight", 1, 4, power=-1)))


def _unet() -> Iterator[Units]:
    def wide(at: str) -> tuple[Slot, Slot]:
        return Slot(f"{at}.weight", power=1), Slot(f"{at}.bias", power=1)

    yield Units(12, (*wide("enter"), Slot("down.weight", 1, power=-1), Slot("join.weight", 1, power=-1)))
    yield Units(24, (*wide("down"), Slot("across.weight", 1, power=-1)))
    yield Units(24, (*wide("across"), Slot("up.weight", 0, power=-1)))
    up = (Slot("up.weight", 1, power=1), Slot("up.bias", power=1))
    yield Units(12, (*up, Slot("join.weight", 1, starts=(12,), power=-1)))
    yield Units(16, (*wide("join"), Slot("head.weight", 1, 4, power=-1)))


def _mixer() -> Iterator[Units]:
    for at in _blocks("blocks"):
        yield from (_dense(f"{at}.across.0", f"{at}.across.2", 32), _dense(f"{at}.within.0", f"{at}.within.2"))


def _convnext() -> Iterator[Units]:
    stream = [Slot("stem.weight"), Slot("stem.bias"), Slot("norm.weight"), Slot("norm.bias"), Slot("head.weight", 1)]
    for at in _blocks("blocks"):
        yield _dense(f"{at}.widen", f"{at}.narrow", 72)
        rows = ("depthwise.weight", "depthwise.bias", "norm.weight", "norm.bias")
        stream += [*(Slot(f"{at}.{row}") for row in rows), Slot(f"{at}.widen.weight", 1)]
        stream += [Slot(f"{at}.narrow.weight"), Slot(f"{at}.narrow.bias"), Slot(f"{at}.scale")]
    yield Units(24, tuple(stream))
    for at in _blocks("blocks"):  # the scale of each channel, against the layer before it
        narrow = (Slot(f"{at}.narrow.weight", power=1), Slot(f"{at}.narrow.bias", power=1))
        yield Units(24, (*narrow, Slot(f"{at}.scale", power=-1)), still=True)


def _mlp() -> Iterator[Units]:
    yield from (_dense("0", "2", homogeneous=True), _dense("2", "4", homogeneous=True))


def _weight_norm() -> Iterator[Units]:
    for one, two, count in (("0", "2", 64), ("2", "4", 48)):
        made = f"{one}.parametrizations.weight.original"
        reads = Slot(f"{two}.parametrizations.weight.original1", 1)
        yield Units(count, (Slot(f"{made}0"), Slot(f"{made}1"), Slot(f"{one}.bias"), reads))


def _tied() -> Iterator[Units]:
    yield Units(48, (Slot("encode.weight"), Slot("encode.bias")))


def _listed() -> Iterator[Units]:
    for expert in range(4):
        yield _dense(f"experts.{expert}.0", f"experts.{expert}.2", 32, homogeneous=True)


def _recurrent(gates: int) -> Iterator[Units]:
    starts = tuple(40 * gate for gate in range(gates))
    rows = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    reads = (Slot("body.weight_hh_l0", 1), Slot("head.weight", 1))
    yield Units(40, (*(Slot(f"body.{row}", starts=starts) for row in rows), *reads))


def _encoder() -> Iterator[Units]:
    for at in _blocks("body.layers"):
        yield _dense(f"{at}.linear1", f"{at}.linear2", homogeneous=True)
        packed = [Slot(f"{at}.self_attn.in_proj_{part}", size=8, starts=(0, 32, 64)) for part in ("weight", "bias")]
        yield Units(4, (*packed, Slot(f"{at}.self_attn.out_proj.weight", 1, 8)))


GROUPS: dict[str, Callable[[], Iterator[Units]]] = {
    "gpt2": _gpt2, "llama": _llama, "mistral": _llama, "gemma": _llama, "gemma2": _llama, "gemma3": _llama,
    "qwen2": lambda: _llama(bias=True), "qwen3": _llama, "phi": _phi, "phi3": _phi3, "neox": _neox, "opt": _opt,
    "bloom": _bloom, "falcon": lambda: _falcon(grouped=False), "falcon-new": lambda: _falcon(grouped=True),
    "mixtral": _mixtral, "qwen2-moe": _qwen2_moe, "gpt-oss": _gpt_oss, "deepseek": _deepseek, "mamba": _mamba,
    "mamba2": _mamba2, "rwkv": _rwkv, "bert": _bert, "t5": _t5, "vit": _vit, "cnn": _cnn, "resnet": _resnet,
    "depthwise": _depthwise, "unet": _unet, "mixer": _mixer, "convnext": _convnext, "mlp": _mlp,
    "weight-norm": _weight_norm, "tied": _tied, "experts": _listed, "lstm": lambda: _recurrent(4),
    "gru": lambda: _recurrent(3), "encoder": _encoder,
}  # fmt: skip
"""By member of the zoo, the groups of its units."""
