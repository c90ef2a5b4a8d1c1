"""Hugging Face folders beside the model that they were made from."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.bounded import document, parsing
from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.sources.contents import FolderContents
from wheeltap.sources.hf import config_of, load_folder
from wheeltap.sources.packed_weights import PackedFolder
from wheeltap.sources.shipped import (
    Piece,
    ShippedModel,
    StoredWeights,
    digest_of_files,
    numbers_of,
    of_tensor,
    unpaired,
)
from wheeltap.sources.smoothed_weights import smoothed

_READ: Final = (".json", ".safetensors", ".model", ".txt", ".jinja")
"""Endings of files that answers depend on."""

_FLOATS: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

_SAID_ONLY: Final = (
    "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "quantization_config",
    "use_cache", "_attn_implementation_autoset", "_from_model_config",
)  # fmt: skip
"""Settings that change no answer, or that the weights speak of."""


@final
class ShippedFolder(ShippedModel):
    """A model in a folder: it runs with its own settings, and is compared tensor by tensor."""

    def __init__(self, folder: Path, *, reference: Subject) -> None:
        self._folder, self._reference, self._config = folder, reference, config_of(folder)

    def fingerprint(self) -> str:
        """See ``ShippedModel.fingerprint``."""
        files = (path for path in sorted(self._folder.iterdir()) if path.is_file() and path.suffix in _READ)
        return digest_of_files([path for path in files if not path.name.startswith(".")])

    def model(self) -> nn.Module:
        """See ``ShippedModel.model``."""
        return load_folder(self._folder, name=self._folder.name).subject.model

    def differences(self) -> tuple[str, ...]:
        """See ``ShippedModel.differences``."""
        config: Any = getattr(self._reference.model, "config", None)
        if config is None:
            return ()
        for name in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers"):
            own: Any = getattr(config, name, None)
            if name in self._config and self._config[name] != own:
                raise UsageError(
                    "The folder holds another model than the original.", where=str(self._folder),
                    expected=f"{name} {own}, as {self._reference.name} has", got=str(self._config[name]),
                    do="Name the model that it was made from.",
                )  # fmt: skip
        said = [*self._settings("config.json", config)]
        if (self._folder / "generation_config.json").is_file():
            said += self._settings("generation_config.json", getattr(self._reference.model, "generation_config", None))
        packed = PackedFolder.of(self._folder, self._config)
        if packed.how and (scales := packed.beside()):
            said.append(
                f"Activation scales are not compared with what inputs give ({scales[0]}, {len(scales)} in all): only"
                " that they are positive is checked."
            )
        return tuple(said)

    def _settings(self, name: str, original: Any) -> Iterator[str]:
        """What a file of settings says otherwise than the original's."""
        path = self._folder / name
        if original is None:
            return
        with parsing(str(path), "The config of a model cannot be read.", expected="one that transformers knows"):
            given = json.loads(document(path, "config"))
            read: Any = cast("Any", type(original)).from_dict(dict(given))  # what is left out is the class's default
            texts: list[str] = [one.to_json_string(use_diff=False) for one in (read, original)]
            held, own = (cast("dict[str, Any]", json.loads(text)) for text in texts)
        for key, value in held.items():
            if key in own and key not in _SAID_ONLY and value != own[key] and value is not None:
                how = "" if key in given else ", by default"
                yield f"The setting {key} is {own[key]} in the original, and {value} in the folder{how}."

    def weights(self) -> StoredWeights:
        """See ``ShippedModel.weights``: by the names in the files, or as transformers renames them.

        Raises:
            FileFormatError: If parts of packed weights are missing or do not fit each other.
            ModelError: If it is not known how they are packed.
        """
        own = numbers_of(self._reference.model)
        buffers, packed = dict(self._reference.model.named_buffers()), PackedFolder.of(self._folder, self._config)
        pieces = packed.pieces(self._reference.model) if packed.how else []
        unread = {piece.name: piece.format for piece in pieces if piece.parameter not in own}
        pieces = [piece for piece in pieces if piece.parameter in own]
        held = {piece.parameter for piece in pieces}
        for name in packed.plain() if packed.how else packed.entries:
            one = packed.entries[name][1]
            if name in own and name not in held and one.dtype in _FLOATS:
                pieces.append(_piece(packed, name, one.shape, _FLOATS[one.dtype]))
            elif name in held or name not in buffers:
                unread[name] = one.dtype
        held = {piece.parameter for piece in pieces}
        tied = {id(own[name]) for name in held}
        missing = {name: "" for name, weight in own.items() if name not in held and id(weight) not in tied}
        if missing and unread and not (packed.how and packed.packages) and (renamed := self._renamed(own)) is not None:
            return renamed
        others = [*unpaired("missing", missing), *unpaired("unread", unread)]
        if packed.how:
            pieces = smoothed(pieces, own)
            others += unpaired("error", {name: "" for name in packed.beside() if not packed.positive(name)})
        return StoredWeights(pieces, others)

    def _renamed(self, own: Mapping[str, Tensor]) -> StoredWeights | None:
        """The tensors of the model that transformers makes of the folder; nothing where it makes none."""
        try:
            subject = load_folder(self._folder, name=self._folder.name).subject
        except WheeltapError:
            return None
        named = numbers_of(subject.model)
        pieces = [of_tensor(name, named[name].detach(), "F32") for name in own if name in named]
        over = subject.contents.unexpected if isinstance(subject.contents, FolderContents) else ()
        missing = {name: "" for name in own if name not in named}
        return StoredWeights(pieces, [*unpaired("missing", missing), *unpaired("unread", dict.fromkeys(over, ""))])


def _piece(folder: PackedFolder, name: str, shape: Sequence[int], dtype: torch.dtype) -> Piece:
    """A tensor of a folder, read when it is asked for."""
    return Piece(
        name=name, parameter=name, format=str(dtype).removeprefix("torch."),
        read=lambda start, stop: of_tensor(name, folder.held(name), "").read(start, stop),
        shape=(math.prod(shape[:-1]), shape[-1] if shape else 1),
        ours=lambda rows, _: to_array(to_tensor(rows).to(dtype)),
    )  # fmt: skip
