"""Causal transformers: GPT-2, Llama and their like, and those with parallel residuals, ALiBi or learned positions."""

from typing import Any, Final

from torch import nn

from tests.nets.zoo.member import LENGTH, VOCABULARY, Member, Sums
from wheeltap.recipes.train import TrainSettings
from wheeltap.sources import hf

SUMS: Final = Sums()

SPREAD: Final = 0.15
"""Standard deviation of initial weights: that of large models (.02) would take ten times as long to learn from."""
TOKENS: Final = {
    "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
    "max_position_embeddings": 2 * LENGTH,
}  # fmt: skip
SMALL: Final = {
    **TOKENS, "initializer_range": SPREAD,
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
GROUPED: Final = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}


def causal(kind: str, **settings: Any) -> nn.Module:
    """A causal language model of transformers with random weights."""
    library = hf.library(needed_for="the zoo")
    with hf.quiet(library):
        config = getattr(library, "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config")(**settings)
        name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
        return getattr(library, name)(config)


def decoder(name: str, title: str, made: Any, *, epochs: int = 6, rate: float = 4e-3, batch: int = 128) -> Member:
    """A member that learns sums."""
    training = TrainSettings(epochs=epochs, rate=rate, batch=batch)
    return Member(name, title, made, SUMS, training=training, of_transformers=True)


MEMBERS: Final = (
    decoder("gpt2", "GPT-2", lambda: causal(
        "GPT2", vocab_size=VOCABULARY, n_positions=2 * LENGTH, n_embd=32, n_layer=2, n_head=4, n_inner=64,
        bos_token_id=0, eos_token_id=1, initializer_range=SPREAD, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ), epochs=8, rate=3e-3, batch=64),
    decoder("llama", "Llama", lambda: causal("Llama", **GROUPED)),
    decoder("mistral", "Mistral", lambda: causal("Mistral", **GROUPED, sliding_window=4)),
    decoder("gemma", "Gemma", lambda: causal("Gemma", **GROUPED)),
    decoder("gemma2", "Gemma 2", lambda: causal("Gemma2", **GROUPED, query_pre_attn_scalar=8, sliding_window=4)),
    decoder("gemma3", "Gemma 3", lambda: causal("Gemma3", **GROUPED, query_pre_attn_scalar=8, sliding_window=4)),
    decoder("qwen2", "Qwen2", lambda: causal("Qwen2", **GROUPED)),
    decoder("qwen3", "Qwen3", lambda: causal("Qwen3", **GROUPED)),
    decoder("phi", "Phi", lambda: causal("Phi", **SMALL)),
    decoder("phi3", "Phi-3", lambda: causal("Phi3", **SMALL, num_key_value_heads=2)),
    decoder("neox", "GPT-NeoX", lambda: causal("GPTNeoX", **SMALL)),
    decoder("opt", "OPT", lambda: causal(
        "OPT", **TOKENS, hidden_size=32, ffn_dim=64, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=4,
        dropout=0.0, init_std=SPREAD,
    ), epochs=8, rate=3e-3, batch=64),
    decoder("bloom", "BLOOM", lambda: causal(
        "Bloom", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, initializer_range=SPREAD,
    )),
    decoder("falcon", "Falcon", lambda: causal("Falcon", **SMALL, ffn_hidden_size=64, multi_query=True, alibi=False)),
    decoder("falcon-new", "Falcon, grouped queries", lambda: causal(
        "Falcon", **SMALL, ffn_hidden_size=64, new_decoder_architecture=True, num_kv_heads=2, alibi=False,
    )),
)  # fmt: skip
