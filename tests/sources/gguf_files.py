"""GGUF files of tiny models, written as converters write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wheeltap.sources import hf

BYTES = [*(chr(c) for c in range(33, 127)), "ab"]
"""GPT-2's tokens for printable bytes, and one merge."""

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleaved(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """llama.cpp's order of the rows of a query or key projection: rotated pairs side by side."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


FALCON = {
    "transformer.word_embeddings": "token_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
    "input_layernorm": "attn_norm",
}


def tiny_falcon() -> Any:
    """A random Falcon of one layer: transformers ties its two embeddings, whatever its file says."""
    transformers = hf.library(needed_for="tests")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "ffn_hidden_size": 128}
    config = transformers.FalconConfig(vocab_size=len(BYTES) + 2, num_kv_heads=1, bias=False, **sizes)
    config.intermediate_size, config.num_key_value_heads = 128, 1
    return transformers.FalconForCausalLM(config).eval()


Change = Callable[[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def write_gguf(
    path: Path, model: Any, *, architecture: str = "llama", leave_out: str = "", change: Callable[[Any], object] = id,
    form: str = "", damage: Change = lambda name, values: values, flip: Change = lambda name, kept: kept,
) -> None:  # fmt: skip
    """A file of a model.

    Args:
        path: Where it goes.
        model: Of transformers.
        architecture: What the file calls it.
        leave_out: Part of the names of tensors that are left out.
        change: Adds entries.
        form: Format of matrices.
        damage: From a tensor's name in the file and its values to those that are written.
        flip: From a tensor's name and what its format stores to what is written.
    """
    gguf = pytest.importorskip("gguf", reason="needs the extra llm")
    writer = gguf.GGUFWriter(str(path), architecture)
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", *BYTES][: config.vocab_size])
    writer.add_token_types([3, 3, *[1] * len(BYTES)][: config.vocab_size])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    change(writer)
    for name, tensor in model.state_dict().items():
        if (name != "lm_head.weight" or architecture == "falcon") and (not leave_out or leave_out not in name):
            named, values = stored(name, tensor.numpy(), config)
            kind = gguf.GGMLQuantizationType[form if form and values.ndim == 2 else "F32"]
            kept = flip(named, gguf.quants.quantize(np.ascontiguousarray(damage(named, values)), kind))
            writer.add_tensor(named, kept, raw_dtype=kind if kept.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored(name: str, weight: np.ndarray[Any, Any], config: Any) -> tuple[str, np.ndarray[Any, Any]]:
    if name.startswith(("transformer.", "lm_head.")):
        part, _, kind = name.removeprefix("transformer.h.0.").rpartition(".")
        return f"{'blk.0.' if '.h.0.' in name else ''}{FALCON[part]}.{kind}", weight
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", weight
    if name == "model.norm.weight":
        return "output_norm.weight", weight
    _, _, block, rest = name.split(".", 3)
    part = rest.removesuffix(".weight")
    if part == "self_attn.q_proj":
        weight = interleaved(weight, config.num_attention_heads)
    if part == "self_attn.k_proj":
        weight = interleaved(weight, config.num_key_value_heads)
    return f"blk.{block}.{NAMES[part]}.weight", np.ascontiguousarray(weight)


PARTS = {part: name for name, part in NAMES.items()}


def by_gguf(path: Path, config: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Weights of a file by the reader of ``gguf``, rows of queries and keys put back one by one."""
    gguf = pytest.importorskip("gguf", reason="needs the extra llm")
    held: dict[str, np.ndarray[Any, Any]] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        bare, name = tensor.name.removesuffix(".weight"), {"token_embd": "embed_tokens", "output_norm": "norm"}
        if bare not in name:
            _, layer, part = bare.split(".")
            name[bare] = f"layers.{layer}.{PARTS[part]}"
            if part in ("attn_q", "attn_k"):
                size, order = config.head_dim, list[int]()
                for head in range(len(values) // size):
                    order += [*range(head * size, (head + 1) * size, 2), *range(head * size + 1, (head + 1) * size, 2)]
                values = values[order]
        held[f"model.{name[bare]}.weight"] = values
    return held
