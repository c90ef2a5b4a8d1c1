"""A random Llama small enough to check against, and a tokenizer for it."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from wheeltap.sources import hf

WORDS = ("[unk]", "the", "a", "dog", "dogs", "cat", "cats", "near", "is", "are", "runs", "run", ",", "old", "and", "it")


def tiny_llama(*, vocabulary: int = len(WORDS), positions: int = 64) -> Any:
    """A random Llama of two layers with grouped-query attention."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    transformers = hf.library(needed_for="tests")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=positions,
        rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True, **sizes,
    )  # fmt: skip
    return _random(config, "LlamaForCausalLM")


def _random(config: Any, kind: str) -> Any:
    """A random model of a class of transformers, with weights that make scores differ."""
    transformers = hf.library(needed_for="tests")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with hf.quiet(transformers):
            model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0) if parameter.ndim == 2 else None
    return model


_SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny_bert(kind: str = "BertForSequenceClassification", **settings: Any) -> Any:
    """A random BERT of two layers that reads 12 positions."""
    transformers = hf.library(needed_for="tests")
    labels = {"id2label": {0: "bad", 1: "fine", 2: "good"}, "label2id": {"bad": 0, "fine": 1, "good": 2}}
    config = transformers.BertConfig(
        **{"vocab_size": len(WORDS), "max_position_embeddings": 12, "pad_token_id": 0, **_SIZES, **labels, **settings}
    )
    return _random(config, kind)


def tiny_vit(kind: str = "ViTForImageClassification", **settings: Any) -> Any:
    """A random ViT of two layers for images of 3 x 8 x 8."""
    transformers = hf.library(needed_for="tests")
    config = transformers.ViTConfig(**{"image_size": 8, "patch_size": 4, "num_labels": 4, **_SIZES, **settings})
    return _random(config, kind)


def save_tokenizer(folder: Path, **special: str) -> None:
    """A tokenizer that splits at spaces, without marks at the ends."""
    import tokenizers
    import transformers

    words: Any = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[unk]")
    raw = tokenizers.Tokenizer(words)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[unk]", **special).save_pretrained(folder)
