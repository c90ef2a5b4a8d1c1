"""A random Llama small enough to check against, and a tokenizer for it."""

import importlib.util
from typing import Any

import pytest
import torch

from wheeltap.sources import hf

WORDS = ("[unk]", "the", "a", "dog", "dogs", "cat", "cats", "near", "is", "are", "runs", "run", ",", "old", "and", "it")


def tiny_llama(*, vocabulary: int = len(WORDS)) -> Any:
    """A random Llama of two layers with grouped-query attention."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    transformers = hf.library(needed_for="tests")
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with hf.quiet(transformers):
            model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0) if parameter.ndim == 2 else None
    return model
