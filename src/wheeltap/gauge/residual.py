"""The residual stream of a transformer: norms move into the layers that read them, and the stream may be turned.

What a norm multiplies by and adds is an affine map that each layer reading it can do itself. Once RMS norms multiply
by nothing they commute with every rotation, so the whole stream can be written in another orthonormal basis:
``x -> x Q`` in what writes it, ``Q^T`` first in what reads it.

Source: Ashkboos et al. 2024, "SliceGPT", theorem 1 and section 3.2 (folding, then rotating).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.gauge.attention import orthogonal
from wheeltap.gauge.base import GaugeSettings, Refusal, Rewrite, SharedTensors, altered, modules_of
from wheeltap.gauge.hidden import put, weight_of
from wheeltap.gauge.parts import (
    SCALED,
    Affine,
    added_to_gain,
    exact,
    gain_of,
    layer_reason,
    norm_reason,
    of_transformers,
    plain,
)


@final
@dataclass(frozen=True)
class TransformerNet:
    """The transformer of one known class, by class names and by paths.

    Attributes:
        top: Class of the causal language model; ``None`` where what reads the last state is not known.
        base: Class and path in it of what gives the last state of the stream.
        block: Class of a block.
        blocks: In the base, the list of the blocks.
        inner: Class of each child of a block that computes.
        extra: Parts of a block that hold parameters but neither read nor write the stream.
        reads: By norm of a block, the layers that read it.
        writers: Layers of a block that add to the stream.
        embeddings: In the base; the first one is that of the tokens.
        final: In the base.
        fixed: Why the stream cannot be turned, where it cannot.
    """

    top: str | None
    base: tuple[str, str]
    block: str
    blocks: str
    inner: Mapping[str, str]
    extra: tuple[str, ...]
    reads: Mapping[str, tuple[str, ...]]
    writers: tuple[str, ...]
    embeddings: tuple[str, ...]
    final: str
    fixed: str | None = None


_PROJECTIONS: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATED: Final = ("mlp.gate_proj", "mlp.up_proj")
_NORMS: Final = ("self_attn.q_norm", "self_attn.k_norm")
_MEAN: Final = "its norms subtract the mean, which a rotation does not keep"
_AFTER: Final = "its blocks norm what they add to the stream"


def _llama(name: str) -> TransformerNet:
    return TransformerNet(
        top=f"{name}ForCausalLM",
        base=(f"{name}Model", "model"),
        block=f"{name}DecoderLayer",
        blocks="layers",
        inner={"self_attn": f"{name}Attention", "mlp": f"{name}MLP"},
        extra=_NORMS if name in ("Qwen3", "Gemma3") else (),
        reads={"input_layernorm": _PROJECTIONS, "post_attention_layernorm": _GATED},
        writers=("self_attn.o_proj", "mlp.down_proj"),
        embeddings=("embed_tokens",),
        final="norm",
    )


def _gemma(name: str) -> TransformerNet:
    """With norms of what attention and MLP give."""
    plain = _llama(name)
    after = ("post_attention_layernorm", "post_feedforward_layernorm")
    reads = {"input_layernorm": _PROJECTIONS, "pre_feedforward_layernorm": _GATED}
    base = ("Gemma3TextModel", "model") if name == "Gemma3" else plain.base
    return replace(plain, base=base, extra=(*plain.extra, *after), reads=reads, fixed=_AFTER)


def _mamba(name: str, *inside: str) -> TransformerNet:
    return replace(
        _llama(name),
        base=(f"{name}Model", "backbone"),
        block=f"{name}Block",
        inner={"mixer": f"{name}Mixer"},
        extra=("mixer", *(f"mixer.{part}" for part in inside)),
        reads={"norm": ("mixer.in_proj",)},
        writers=("mixer.out_proj",),
        embeddings=("embeddings",),
        final="norm_f",
    )


_PHI3: Final = replace(
    _llama("Phi3"),
    reads={"input_layernorm": ("self_attn.qkv_proj",), "post_attention_layernorm": ("mlp.gate_up_proj",)},
)
_GPT2: Final = replace(
    _llama("GPT2"),
    top="GPT2LMHeadModel",
    base=("GPT2Model", "transformer"),
    block="GPT2Block",
    blocks="h",
    inner={"attn": "GPT2Attention", "mlp": "GPT2MLP"},
    reads={"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",)},
    writers=("attn.c_proj", "mlp.c_proj"),
    embeddings=("wte", "wpe"),
    final="ln_f",
    fixed=_MEAN,
)
_NEOX: Final = replace(
    _llama("GPTNeoX"),
    base=("GPTNeoXModel", "gpt_neox"),
    block="GPTNeoXLayer",
    inner={"attention": "GPTNeoXAttention", "mlp": "GPTNeoXMLP"},
    reads={"input_layernorm": ("attention.query_key_value",), "post_attention_layernorm": ("mlp.dense_h_to_4h",)},
    writers=("attention.dense", "mlp.dense_4h_to_h"),
    embeddings=("embed_in",),
    final="final_layer_norm",
    fixed=_MEAN,
)
_PHI: Final = replace(
    _llama("Phi"),
    extra=("self_attn.q_layernorm", "self_attn.k_layernorm"),
    reads={"input_layernorm": (*_PROJECTIONS, "mlp.fc1")},
    writers=("self_attn.dense", "mlp.fc2"),
    final="final_layernorm",
    fixed=_MEAN,
)
_VIT: Final = replace(
    _llama("ViT"),
    top=None,
    base=("ViTModel", "vit"),
    block="ViTLayer",
    inner={"attention": "ViTAttention", "mlp": "ViTMLP"},
    reads={
        "layernorm_before": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        "layernorm_after": ("mlp.fc1",),
    },
    writers=("attention.o_proj", "mlp.fc2"),
    embeddings=("embeddings",),
    final="layernorm",
    fixed=_MEAN,
)
NETS: Final = (
    *map(_llama, ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma")), *map(_gemma, ("Gemma2", "Gemma3")), _GPT2, _PHI3,
    _mamba("Mamba", "conv1d", "x_proj", "dt_proj"), _mamba("Mamba2", "conv1d", "norm"), _NEOX, _PHI, _VIT,
)  # fmt: skip


_HEAD: Final = "lm_head"
"""Of a causal language model, what reads the last state."""

_SMALLEST_GAIN: Final = 1e-6
"""An offset is divided by its gain only where that is at least this share of the norm's largest gain."""


@final
@dataclass(frozen=True)
class NormReaders:
    """A norm, and the layers that read what it gives. Nothing else reads it.

    Attributes:
        norm: Module path.
        readers: Their weights; the first inputs are the norm's outputs.
    """

    norm: str
    readers: tuple[Affine, ...]


@final
@dataclass(frozen=True)
class Stream:
    """A residual stream of which every writer and every reader is known.

    Attributes:
        embedding: Module path.
        writers: Layers that add to the stream.
        reads: The norms that read the stream, the final one last.
        tied: Path of the head where it uses the embedding's matrix; empty where it has its own.
    """

    embedding: str
    writers: tuple[Affine, ...]
    reads: tuple[NormReaders, ...]
    tied: str


@final
@dataclass(frozen=True)
class Residual:
    """What of a model's residual stream can be rewritten.

    Attributes:
        folds: Norms whose gain can move into their readers.
        shifts: Norms whose offset can move into the biases of their readers.
        stream: What can be turned as a whole; ``None`` where something is not known or is no RMS norm.
        refused: Reasons for what is left as it is.
    """

    folds: tuple[NormReaders, ...]
    shifts: tuple[NormReaders, ...]
    stream: Stream | None
    refused: tuple[str, ...]

    @property
    def moves(self) -> tuple[str, ...]:
        """Those of ``fold``, ``shift`` and ``rotate`` that change anything here."""
        held = {"fold": self.folds, "shift": self.shifts, "rotate": self.stream}
        return tuple(move for move, parts in held.items() if parts)


def fold(model: nn.Module, residual: Residual, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Move the gain of each norm into the columns of the layers that read it, in place; the gain becomes 1.

    The offset of a norm that has one is divided by the gain.
    """
    for normed in residual.folds:
        _absorb(model, normed, turn=None)


def shift(model: nn.Module, residual: Residual, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Move the offset of each norm into the biases of the layers that read it, in place; the offset becomes 0."""
    for normed in residual.shifts:
        norm = model.get_submodule(normed.norm)
        offset = exact(norm, "bias")
        assert offset is not None, "only norms with an offset are listed"
        for reader in normed.readers:
            matrix = reader.read(model)
            matrix[:, -1] += matrix[:, :-1] @ offset
            reader.write(model, matrix)
        put(norm, "bias", torch.zeros_like(offset))


def rotate(model: nn.Module, residual: Residual, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Fold every norm, the final one too, and turn the stream by a random orthogonal matrix; in place.

    A head that used the embedding's matrix gets one of its own, since only one of the two takes the final gain.
    """
    stream = residual.stream
    assert stream is not None, "only offered where the stream is known"
    embedding = model.get_submodule(stream.embedding)
    rows = weight_of(embedding).to("cpu", torch.float64)
    turn = orthogonal(rng, rows.shape[1])
    for normed in stream.reads:
        _absorb(model, normed, turn=turn)
    for writer in stream.writers:
        writer.write(model, turn.T @ writer.read(model))
    # The head read the old rows above, and was given a new parameter: from here on the two are apart.
    put(embedding, "weight", rows @ turn)
    if not stream.tied:
        return
    for module in model.modules():  # what transformers keeps beside the weights says so too
        config: Any = vars(module).get("config")
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
    pairs: dict[str, str] = vars(model).get("all_tied_weights_keys") or {}
    pairs.pop(f"{stream.tied}.weight", None)


REWRITES: Final[Mapping[str, Rewrite]] = {"fold": fold, "shift": shift, "rotate": rotate}


def _absorb(model: nn.Module, normed: NormReaders, *, turn: Tensor | None) -> None:
    """Let the readers of a norm do its gain, and read a stream turned by ``turn``."""
    norm = model.get_submodule(normed.norm)
    gain, offset = gain_of(norm), exact(norm, "bias")
    assert gain is not None, "only norms with a gain are listed"
    for reader in normed.readers:
        matrix = reader.read(model)
        inputs = matrix[:, : len(gain)] * gain
        matrix[:, : len(gain)] = inputs if turn is None else inputs @ turn
        reader.write(model, matrix)
    put(norm, "weight", torch.ones_like(gain) - added_to_gain(norm))
    if offset is not None:
        put(norm, "bias", torch.where(offset == 0, 0, offset / gain))


def find(model: nn.Module) -> Residual | Refusal:
    """What of the residual stream of ``model`` can be rewritten.

    Known: the classes of transformers in ``NETS``. Inside their blocks, wherever those are, norms can be
    folded and shifted; the final norm, and the stream as a whole, only where ``model`` itself is the causal language
    model, so that all that reads the stream is known.
    """
    by_block = {net.block: net for net in NETS}
    kinds = {path: by_block.get(of_transformers(module)) for path, module in modules_of(model).items()}
    blocks = {path: net for path, net in kinds.items() if net is not None}
    if not blocks:
        first, second, *others = (net.block for net in NETS)
        return Refusal(f"no block of a known class ({first}, {second} and {len(others)} others)")
    finder = _Finder(model)
    for path, net in blocks.items():
        problem, prefix = _block_reason(model.get_submodule(path), net), f"{path}." if path else ""
        if problem is not None:
            finder.refused.append(f"{path or 'the model'}: {problem}")
            continue
        for name, readers in net.reads.items():
            finder.add_norm(prefix + name, tuple(prefix + reader for reader in readers))
    stream = finder.add_top(blocks)
    if not finder.folds and not finder.shifts and stream is None:
        return Refusal("; ".join(finder.refused), recognised=tuple(blocks))
    return Residual(tuple(finder.folds), tuple(finder.shifts), stream, tuple(finder.refused))


@final
class _Finder:
    """Collects what is found in one model, and the reasons for the rest."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.sharing = model, SharedTensors(model)
        self.norms: list[NormReaders] = []
        self.folds: list[NormReaders] = []
        self.shifts: list[NormReaders] = []
        self.refused: list[str] = []

    def add_norm(self, path: str, readers: tuple[str, ...]) -> None:
        """Take in one norm and the layers that read it, as far as they can be rewritten."""
        norm = self.model.get_submodule(path)
        problem = norm_reason(norm, self.sharing) or self.layers_reason(readers)
        if problem is not None:
            self.refused.append(f"{path}: {problem}")
            return
        normed = NormReaders(path, tuple(map(self.address, readers)))
        self.norms.append(normed)
        bare = [reader for reader in readers if exact(self.model.get_submodule(reader), "bias") is None]
        problems: dict[str, str | None] = {"fold": None}
        gain, offset = gain_of(norm), exact(norm, "bias")
        if offset is not None:
            problems["shift"] = f"{', '.join(bare)} has no bias" if bare else None
        if gain is not None and offset is not None:
            small = (gain.abs() < _SMALLEST_GAIN * gain.abs().max()) & (offset != 0)
            if small.any():
                problems["fold"] = f"{int(small.sum())} of its gains are too small to divide its offset by"
        for move, problem in problems.items():
            if problem is not None:
                self.refused.append(f"{move}: {path}: {problem}")
            else:
                (self.folds if move == "fold" else self.shifts).append(normed)

    def add_top(self, blocks: Mapping[str, TransformerNet]) -> Stream | None:
        """Take in the final norm; the stream as a whole, where it can be turned."""
        net = next((net for net in NETS if net.top is not None and of_transformers(self.model) == net.top), None)
        unknown = f"what reads the last state of a {type(self.model).__name__} is not known"
        problem = unknown if net is None else _top_reason(self.model, net, blocks)
        if net is None or problem is not None:
            self.refused.append(f"rotate, and fold of the final norm: {problem}")
            return None
        inner = tuple(self.norms)
        embedding, final = (f"{net.base[1]}.{part}" for part in (net.embeddings[0], net.final))
        tied = _HEAD if f"{_HEAD}.weight" in self.users(embedding) else ""
        if tied:
            self.refused.append(f"{final}: {tied}, which reads it, is tied to {embedding}")
        else:
            self.add_norm(final, (_HEAD,))
        writers = tuple(f"{block}.{writer}" for block in blocks for writer in net.writers)
        if len(inner) < len(blocks) * len(net.reads):
            problem = "not every norm of its blocks can be folded"
        else:
            problem = self.stream_reason(net, embedding, final) or self.layers_reason(writers)
        if problem is not None:
            self.refused.append(f"rotate: {problem}")
            return None
        reads = (*inner, NormReaders(final, (self.address(_HEAD),)))
        return Stream(embedding, tuple(map(self.address, writers)), reads, tied)

    def stream_reason(self, net: TransformerNet, embedding: str, final: str) -> str | None:
        """Why the stream cannot be turned as far as its two ends go, or ``None``."""
        if net.fixed is not None:
            return net.fixed
        problem = norm_reason(self.model.get_submodule(final), self.sharing)
        if problem is not None:
            return f"{final}: {problem}"
        scaled = of_transformers(self.model.get_submodule(embedding))
        ends = {embedding: scaled if scaled in SCALED else "Embedding", _HEAD: "Linear"}
        for path, kind in ends.items():
            problem = layer_reason(self.model.get_submodule(path), None, name=kind)
            if self.users(path) - {f"{end}.weight" for end in ends}:
                problem = "it shares its weights with more than the other end of the stream"
            if problem is not None:
                return f"{path}: {problem}"
        if getattr(self.model.get_submodule(embedding), "max_norm", None) is not None:
            return f"{embedding}: it renormalizes its rows"
        return None

    def layers_reason(self, paths: tuple[str, ...]) -> str | None:
        """Why one of some layers cannot be rewritten, or ``None``."""
        for path in paths:
            layer = self.model.get_submodule(path)
            problem = layer_reason(layer, self.sharing, name="Conv1D" if plain(layer, "Conv1D") else "Linear")
            if problem is not None:
                return f"{path}: {problem}"
        return None

    def address(self, path: str) -> Affine:
        """All rows of the layer at ``path``."""
        return Affine(path, transposed=plain(self.model.get_submodule(path), "Conv1D"))

    def users(self, path: str) -> set[str]:
        """The parameters and buffers that lie in the same memory as the weight at ``path``, by each of their names."""
        memory = weight_of(self.model.get_submodule(path)).untyped_storage().data_ptr()
        named: Iterator[tuple[str, Tensor]] = chain(
            self.model.named_parameters(remove_duplicate=False), self.model.named_buffers(remove_duplicate=False)
        )
        return {name for name, tensor in named if tensor.untyped_storage().data_ptr() == memory}


def _strangers(module: nn.Module, known: set[str]) -> str:
    """The parts of ``module`` that hold parameters and are not known."""
    owners = {name.rpartition(".")[0] or "itself" for name, _ in module.named_parameters(remove_duplicate=False)}
    return ", ".join(sorted(owners - known))


def _block_reason(block: nn.Module, net: TransformerNet) -> str | None:
    """Why what a block does is not what its class says, or ``None``."""
    layers = {reader for readers in net.reads.values() for reader in readers} | set(net.writers)
    strange = _strangers(block, {*layers, *net.reads, *net.extra})
    if strange:
        return f"it holds parameters in {strange}, which is not known"
    for name, kind in (("", net.block), *net.inner.items()):
        part = block.get_submodule(name)
        problem = f"it is a {type(part).__name__}, not a {kind}" if of_transformers(part) != kind else altered(part)
        if problem is not None:
            return f"{name}: {problem}" if name else problem
    return None


def _top_reason(model: nn.Module, net: TransformerNet, blocks: Mapping[str, TransformerNet]) -> str | None:
    """Why what a causal language model does around its blocks is not what its class says, or ``None``."""
    name, path = net.base
    base = model.get_submodule(path)
    if of_transformers(base) != name:
        return f"{path} is a {type(base).__name__}, not a {name}"
    own = {f"{path}.{net.blocks}.{name}" for name, _ in base.get_submodule(net.blocks).named_children()}
    foreign = own ^ {block for block, kind in blocks.items() if kind is net}
    if foreign:
        return f"{min(foreign)} is not one of its own blocks, or is none of a known class"
    inside = {name for name in modules_of(model) if name.startswith(tuple(f"{block}." for block in blocks))}
    ends = {f"{path}.{part}" for part in (*net.embeddings, net.final)}
    strange = _strangers(model, {*inside, *ends, _HEAD})
    if strange:
        return f"it holds parameters in {strange}, which is not known"
    return altered(model) or altered(base)
