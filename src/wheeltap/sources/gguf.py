"""GGUF files: dequantised once through transformers, then kept as safetensors under the user's cache."""

import hashlib
import importlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from wheeltap.core.errors import FileFormatError, ModelError, WheeltapError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.recipes.train import own_random_numbers
from wheeltap.sources import hf
from wheeltap.sources.gguf_header import GgufHeader, read_header
from wheeltap.sources.text import LanguageModel

_CONVERSION = 1
"""Raise it when the conversion changes: older caches are then left alone and made anew."""

_MANIFEST = "wheeltap.json"


def load_gguf(path: Path, *, name: str, cache: Path | None = None) -> LanguageModel:
    """The language model in a GGUF file, dequantized to float32, in eval mode, on the CPU.

    Args:
        path: The file.
        name: Of the subject.
        cache: Where converted models are kept; by default the user's cache directory.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it is not GGUF or is cut short.
        MissingExtra: If transformers or gguf is not installed.
        ModelError: If transformers does not know the architecture.
    """
    header = read_header(path)
    transformers = hf.library(needed_for=name)
    _require_whole(path, header, hf.library("gguf", needed_for=name))
    folder = (cache or cache_folder()) / f"{_file_digest(path)}-{_CONVERSION}"
    cached = _cached(transformers, folder, name)
    if cached is not None:
        return cached
    _convert(transformers, path, folder)
    converted = _cached(transformers, folder, name)
    if converted is None:
        raise ModelError(
            "The converted model cannot be read back.",
            where=str(folder),
            got="files that differ from what was written",
            do="Check the disk, or set XDG_CACHE_HOME to another one.",
        )
    return converted


def cache_folder() -> Path:
    """Where converted models are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("wheeltap")) / "gguf"


def _require_whole(path: Path, header: GgufHeader, gguf: Any) -> None:
    """Check that the file reaches to the last byte of its last tensor."""
    sizes = {int(kind): block for kind, block in gguf.GGML_QUANT_SIZES.items()}
    end, last = header.data, ""
    for tensor in header.tensors:
        if tensor.kind not in sizes:
            raise FileFormatError(
                "The GGUF file holds a quantization that the gguf package does not know.",
                where=f"{path}: {tensor.name}",
                got=f"kind {tensor.kind}",
                do="pip install --upgrade gguf",
            )
        block, width = sizes[tensor.kind]
        stop = header.data + tensor.offset + math.prod(tensor.shape) // block * width
        if stop > end:
            end, last = stop, tensor.name
    size = path.stat().st_size
    if not header.tensors or end > size:
        raise FileFormatError(
            "The GGUF file is cut short." if header.tensors else "The GGUF file holds no weights.",
            where=f"{path}: {last}" if last else str(path),
            expected=f"at least {end} bytes",
            got=f"{size} bytes",
            do="Download it again.",
        )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _cached(transformers: Any, folder: Path, name: str) -> LanguageModel | None:
    """The converted model in ``folder``; ``None`` where there is none or any byte of it is not as written."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if any(_file_digest(folder / file) != wanted for file, wanted in manifest["files"].items()):
            return None
        hf.require_safetensors(folder / "model.safetensors")
        subject = Subject(hf.read_model(transformers, folder), name=name)
        if weights_digest(subject.model) != manifest["weights"]:
            return None
        return LanguageModel(subject, hf.read_tokenizer(transformers, folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, WheeltapError):
        return None


def _convert(transformers: Any, path: Path, folder: Path) -> None:
    """Write the converted model to a folder beside ``folder``, then move it there in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        _write(transformers, path, temporary)
        if folder.exists():
            # Renamed before it is deleted, so that no reader ever meets half a folder.
            folder.rename(temporary / "broken")
        try:
            os.replace(temporary, folder)
        except OSError:
            # Another process was faster; what it wrote serves as well.
            if not folder.is_dir():
                raise
        shutil.rmtree(folder / "broken", ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(transformers: Any, path: Path, folder: Path) -> None:
    with hf.translated(transformers, path, "GGUF file"):
        where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **where)
        model = _dequantised(transformers, path, where)
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    files = [p.name for p in sorted(folder.iterdir()) if p.suffix != ".safetensors"]
    manifest = {
        "files": {file: _file_digest(folder / file) for file in files},
        "weights": weights_digest(cast("nn.Module", model)),
        "source": path.name,
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def _dequantised(transformers: Any, path: Path, where: dict[str, Any]) -> Any:
    """A fresh model with the file's weights.

    Not ``from_pretrained(gguf_file=...)``: that wants accelerate, and gives a model that refuses to be saved.
    """
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    config = transformers.AutoConfig.from_pretrained(str(path.parent), **where)
    # The initial weights are drawn only to be overwritten: the user's random numbers stay as they were.
    with own_random_numbers():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = reader.load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    model.load_state_dict(tensors, strict=False)
    named = dict(cast("nn.Module", model).named_parameters(remove_duplicate=False))
    filled = {id(named[name]) for name in tensors if name in named}
    absent = [name for name, parameter in named.items() if id(parameter) not in filled]
    if absent:
        raise ModelError(
            "The GGUF file does not hold all of the model's weights.",
            where=f"{path}: {absent[0]}",
            expected="a tensor for every parameter of the architecture",
            got=f"{len(absent)} parameters without one",
            do="Use another conversion of this model.",
        )
    return model
