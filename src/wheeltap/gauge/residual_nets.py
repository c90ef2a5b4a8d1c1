"""How transformers of known classes are put together around their residual stream."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, final


@final
@dataclass(frozen=True)
class Net:
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
        head: In the top.
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
    head: str = "lm_head"
    fixed: str | None = None


_PROJECTIONS: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATED: Final = ("mlp.gate_proj", "mlp.up_proj")
_NORMS: Final = ("self_attn.q_norm", "self_attn.k_norm")
_MEAN: Final = "its norms subtract the mean, which a rotation does not keep"
_AFTER: Final = "its blocks norm what they add to the stream"


def _llama(name: str) -> Net:
    return Net(
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


def _gemma(name: str) -> Net:
    """With norms of what attention and MLP give."""
    plain = _llama(name)
    after = ("post_attention_layernorm", "post_feedforward_layernorm")
    reads = {"input_layernorm": _PROJECTIONS, "pre_feedforward_layernorm": _GATED}
    base = ("Gemma3TextModel", "model") if name == "Gemma3" else plain.base
    return replace(plain, base=base, extra=(*plain.extra, *after), reads=reads, fixed=_AFTER)


def _mamba(name: str, *inside: str) -> Net:
    return Net(
        top=f"{name}ForCausalLM",
        base=(f"{name}Model", "backbone"),
        block=f"{name}Block",
        blocks="layers",
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
_GPT2: Final = Net(
    top="GPT2LMHeadModel",
    base=("GPT2Model", "transformer"),
    block="GPT2Block",
    blocks="h",
    inner={"attn": "GPT2Attention", "mlp": "GPT2MLP"},
    extra=(),
    reads={"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",)},
    writers=("attn.c_proj", "mlp.c_proj"),
    embeddings=("wte", "wpe"),
    final="ln_f",
    fixed=_MEAN,
)
_NEOX: Final = Net(
    top="GPTNeoXForCausalLM",
    base=("GPTNeoXModel", "gpt_neox"),
    block="GPTNeoXLayer",
    blocks="layers",
    inner={"attention": "GPTNeoXAttention", "mlp": "GPTNeoXMLP"},
    extra=(),
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
_VIT: Final = Net(
    top=None,
    base=("ViTModel", "vit"),
    block="ViTLayer",
    blocks="layers",
    inner={"attention": "ViTAttention", "mlp": "ViTMLP"},
    extra=(),
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
