"""Hugging Face folders beside the model that they were made from."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.bounded import parsing, tensors
from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.sources.contents import FolderContents
from wheeltap.sources.hf import config_of, load_folder, weight_files
from wheeltap.sources.shipped import Array, Piece, Shipped, StoredWeights, digest_of_files, of_tensor
from wheeltap.sources.vocabulary import differing, read_vocabulary, vocabulary_of

_READ: Final = (".json", ".safetensors", ".model", ".txt", ".jinja")
"""Endings of files that answers depend on."""

_FLOATS: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

_SAID_ONLY: Final = (
    "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "quantization_config",
    "use_cache", "_attn_implementation_autoset",
)  # fmt: skip
"""Settings that change no answer, or that the weights speak of."""


@final
class ShippedFolder(Shipped):
    """A model in a folder: it runs with its own settings, and is compared tensor by tensor.

    Args:
        folder: With config and safetensors.
        reference: The original.
    """

    def __init__(self, folder: Path, *, reference: Subject) -> None:
        self._folder, self._reference, self._config = folder, reference, config_of(folder)

    def fingerprint(self) -> str:
        """See ``Shipped.fingerprint``."""
        files = (path for path in sorted(self._folder.iterdir()) if path.is_file() and path.suffix in _READ)
        return digest_of_files([path for path in files if not path.name.startswith(".")])

    def model(self) -> nn.Module:
        """See ``Shipped.model``."""
        return load_folder(self._folder, name=self._folder.name).subject.model

    def differences(self) -> tuple[str, ...]:
        """See ``Shipped.differences``."""
        from wheeltap.sources.hf import library, read_tokenizer

        config: Any = getattr(self._reference.model, "config", None)
        if config is None:
            return ()
        own, said = cast("dict[str, Any]", json.loads(config.to_json_string(use_diff=False))), list[str]()
        for name in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers"):
            if name in self._config and self._config[name] != own.get(name):
                raise UsageError(
                    "The folder holds another model than the original.", where=str(self._folder),
                    expected=f"{name} {own.get(name)}, as {self._reference.name} has", got=str(self._config[name]),
                    do="Name the model that it was made from.",
                )  # fmt: skip
        for name, held in self._config.items():
            if name in own and name not in _SAID_ONLY and held != own[name] and held is not None:
                said.append(f"The setting {name} is {own[name]} in the original, and {held} in the folder.")
        mine = vocabulary_of(self._reference)
        if mine is None or not any((self._folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            return tuple(said)
        transformers = library(needed_for=self._folder.name)
        held = read_vocabulary(read_tokenizer(transformers, self._folder).raw)
        return (*said, *differing(held, mine, where=str(self._folder)))

    def weights(self) -> StoredWeights:
        """See ``Shipped.weights``: by the names in the files, or as transformers renames them.

        Raises:
            UsageError: If the weights are packed.
        """
        if "quantization_config" in self._config:
            raise UsageError(
                "Packed weights of a folder are not read one by one.", where=str(self._folder),
                expected="tensors of 16 or 32 bits", got="quantization_config in config.json",
            )  # fmt: skip
        own = dict(self._reference.model.named_parameters(remove_duplicate=False))
        buffers, pieces = dict(self._reference.model.named_buffers()), list[Piece]()
        unread = dict[str, str]()
        for path in weight_files(self._folder):
            for name, one in tensors(path, "file of weights")[0].items():
                if name in own and one.dtype in _FLOATS:
                    pieces.append(_piece(path, name, one.shape, _FLOATS[one.dtype]))
                elif name not in buffers:
                    unread[name] = one.dtype
        held, first, missing = {piece.name for piece in pieces}, dict[int, str](), list[str]()
        first.update((id(own[name]), name) for name in held)
        missing = [name for name, weight in own.items() if name not in held and id(weight) not in first]
        if missing and unread and (renamed := self._renamed(own)) is not None:
            return renamed
        return StoredWeights(pieces, missing, unread)

    def _renamed(self, own: Mapping[str, Tensor]) -> StoredWeights | None:
        """The tensors of the model that transformers makes of the folder; nothing where it makes none."""
        try:
            subject = load_folder(self._folder, name=self._folder.name).subject
        except WheeltapError:
            return None
        named = dict(subject.model.named_parameters(remove_duplicate=False))
        pieces = [of_tensor(name, named[name].detach(), "F32") for name in own if name in named]
        over = subject.contents.unexpected if isinstance(subject.contents, FolderContents) else ()
        return StoredWeights(pieces, [name for name in own if name not in named], dict.fromkeys(over, ""))


def _piece(path: Path, name: str, shape: Sequence[int], dtype: torch.dtype) -> Piece:
    """A tensor of a file, read when it is asked for."""

    def read(start: int, stop: int) -> Array:
        from safetensors import safe_open

        with (
            parsing(path, "A tensor cannot be read.", expected="numbers that torch knows"),
            safe_open(path, "pt") as file,  # pyright: ignore[reportUnknownVariableType]
        ):
            held = cast("Tensor", file.get_tensor(name))  # pyright: ignore[reportUnknownMemberType]
            return of_tensor(name, held, "").read(start, stop)

    return Piece(
        name=name, parameter=name, format=str(dtype).removeprefix("torch."), read=read,
        shape=(math.prod(shape[:-1]), shape[-1] if shape else 1),
        ours=lambda rows, _: to_array(to_tensor(rows).to(dtype)),
    )  # fmt: skip
