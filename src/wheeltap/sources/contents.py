"""What lies in a model's folder: its files of weights, and its tokenizer."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from torch import nn

from wheeltap.core.bounded import Tensor, document, parsing, tensors
from wheeltap.core.files import Contents


@final
@dataclass(frozen=True)
class FolderContents(Contents):
    """Contents of a Hugging Face folder.

    Attributes:
        model: As it was loaded.
        unexpected: Names of tensors in the files of which transformers says that the model has no place for them.
        tokenizer: Loads the folder's tokenizer, where there is one.
    """

    folder: Path
    model: nn.Module
    unexpected: Sequence[str]
    tokenizer: Callable[[], Any] | None

    def tensors(self) -> dict[str, tuple[Path, Tensor]]:
        """See ``Contents.tensors``."""
        return {
            name: (shard, one)
            for shard in loaded_files(self.folder, self.model)
            if shard.suffix != ".json"  # the index
            for name, one in tensors(shard, "file of weights")[0].items()
        }


def loaded_files(folder: Path, model: nn.Module) -> list[Path]:
    """The files of weights that transformers read: the one that the config names, or one, or those in an index."""
    named = str(getattr(model.config, "transformers_weights", None) or "")
    path = folder / (named or "model.safetensors")
    if not named and not path.is_file():
        path = folder / "model.safetensors.index.json"
    if path.suffix == ".safetensors":
        return [path]
    return [path, *(folder / name for name in shards(path))]


def shards(index: Path, *, do: str = "") -> list[str]:
    """File names in an index of shards, in order; each must be a plain name of a safetensors file.

    Raises:
        FileFormatError: If one is not, or the index cannot be read.
    """
    expected = "a JSON object whose weight_map names *.safetensors files in this folder"
    with parsing(index, "The index of the weights cannot be read.", expected=expected, do=do):
        names: list[str] = sorted(set(json.loads(document(index, "index"))["weight_map"].values()))
        if not names or any(Path(name).name != name or Path(name).suffix != ".safetensors" for name in names):
            raise ValueError(f"names such as {', '.join(names[:3])}"[:120])
    return names


def digest_of(value: object, *, ordered: bool = False) -> str:
    """SHA-256 of what JSON says; the order of keys counts in files, where ids may follow it."""
    return hashlib.sha256(json.dumps(value, sort_keys=not ordered, default=plain).encode()).hexdigest()


def plain(value: Any) -> object:
    """What a setting that is no JSON says."""
    state: Any = getattr(value, "__getstate__", lambda: None)()
    return cast("object", state) if isinstance(state, dict) else str(value)
