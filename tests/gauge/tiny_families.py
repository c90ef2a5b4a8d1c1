"""Tiny random members of the families of transformers that have gauges of their own, and what they are run on."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_transformers import drawn
from torch import Tensor, nn

from wheeltap.sources import hf

VOCABULARY = 61
_TOKENS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
_SMALL: dict[str, Any] = {
    **_TOKENS, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
_GROUPED: dict[str, Any] = {**_SMALL, "num_key_value_heads": 2, "head_dim": 8}
_EXPERTS: dict[str, Any] = {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LATENT: dict[str, Any] = {
    **_SMALL, "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
    "v_head_dim": 6, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1,
}  # fmt: skip
_BERT: dict[str, Any] = {**_SMALL, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 7}
_BLOCKS: dict[str, Any] = {**_TOKENS, "hidden_size": 32, "n_layer": 2, "n_head": 4}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}  # fmt: skip
_FALCON: dict[str, Any] = {**_TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_VIT: dict[str, Any] = {
    "image_size": 8, "patch_size": 2, "num_channels": 1, "hidden_size": 32, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 7,
}  # fmt: skip

_CAUSAL = "ForCausalLM"
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma": ("Gemma", _CAUSAL, _GROUPED),
    "gemma3": ("Gemma3", _CAUSAL, {**_GROUPED, "query_pre_attn_scalar": 8, "sliding_window": 6}),
    "mixtral": ("Mixtral", _CAUSAL, {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": ("Qwen3Moe", _CAUSAL, _EXPERTS),
    "gpt-oss": ("GptOss", _CAUSAL, {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek-v2-grouped": (
        "DeepseekV2", _CAUSAL,
        {**_LATENT, "q_lora_rank": 16, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
    ),
    "deepseek-v3": ("DeepseekV3", _CAUSAL, {**_LATENT, "q_lora_rank": 16, "n_group": 2, "topk_group": 1}),
    "phi": ("Phi", _CAUSAL, {**_SMALL, "num_key_value_heads": 2}),
    "phi3": ("Phi3", _CAUSAL, {**_SMALL, "num_key_value_heads": 2}),
    "neox": ("GPTNeoX", _CAUSAL, _SMALL),
    "opt": ("OPT", _CAUSAL, {**_TOKENS, "hidden_size": 32, "ffn_dim": 40, "word_embed_proj_dim": 32,
                             "num_hidden_layers": 2, "num_attention_heads": 4}),
    "bloom": ("Bloom", _CAUSAL, _BLOCKS),
    "falcon-grouped": ("Falcon", _CAUSAL, {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "bert": ("Bert", "ForSequenceClassification", _BERT),
    "vit": ("ViT", "ForImageClassification", _VIT),
    "t5": ("T5", "ForConditionalGeneration", _T5),
    "mamba": ("Mamba", _CAUSAL, {**_TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "mamba2": ("Mamba2", _CAUSAL, {
        **_TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8,
        "n_groups": 2, "chunk_size": 8,
    }),
}  # fmt: skip


def made(name: str, **settings: Any) -> Any:
    """A member with every parameter drawn anew, in eval mode."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    kind, head, sizes = FAMILIES[name]
    library = hf.library(needed_for="tests")
    with hf.quiet(library):
        config = getattr(library, "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config")(**{**sizes, **settings})
        model: nn.Module = getattr(library, kind + head)(config).eval()
    model = drawn(model)
    with torch.no_grad():
        for path, buffer in model.named_buffers():
            if path.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(3)))
        for path, weight in model.named_parameters():
            if "A_log" in path:
                weight.copy_(weight.abs())
    return model


def run_on(name: str, *, seed: int, rows: int = 12, length: int = 15) -> Callable[[Any], Tensor]:
    """What runs a member on inputs drawn with ``seed``, and gives scores ``[example, option]``."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, VOCABULARY, (rows, length), generator=random)
    images = torch.randn(rows, 1, 8, 8, generator=random)

    def run(model: Any) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": tokens}
        if name == "vit":
            inputs = {"pixel_values": images.to(next(model.parameters()).dtype)}
        if name == "t5":
            inputs["decoder_input_ids"] = tokens[:, :5]
        with torch.no_grad():
            logits: Tensor = model(**inputs).logits
        return logits.flatten(0, -2) if logits.ndim == 3 else logits

    return run
