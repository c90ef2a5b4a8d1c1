"""Nets that a recipe of this package made, in one file that says how: ``artifact:FILE``. Nothing in it is code."""

from pathlib import Path
from typing import Final, cast

import msgspec
from torch import Tensor, nn

from wheeltap.core.artifact import ArtifactSpec
from wheeltap.core.errors import FileFormatError, MissingFile
from wheeltap.core.files import write_whole
from wheeltap.core.subject import Subject
from wheeltap.recipes.base import Given, recipe_of
from wheeltap.recipes.make import weights, with_weights
from wheeltap.sources.contents import HeaderContents

_HOW: Final = "wheeltap artifact"
"""Key of the file's header under which it says how the net was made."""

_LARGEST: Final = 2**31
"""Bytes of a file that is read."""


def save(model: nn.Module, spec: ArtifactSpec, path: Path) -> None:
    """Writes a net and how it was made, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors.numpy import save as bytes_of

    write_whole(path, bytes_of(weights(model), {_HOW: msgspec.json.encode(spec).decode()}))


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the weights of a net that no recipe of this package shapes, for ``load_state_dict``.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors.torch import save as bytes_of

    held = cast("dict[str, Tensor]", model.state_dict())
    write_whole(path, bytes_of({name: tensor.detach().clone().contiguous() for name, tensor in held.items()}))


def load_artifact(path: Path, *, name: str = "") -> Subject:
    """The net in a file, in eval mode.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is none of ``save``, or was made from other nets or examples.
        UnknownName: If there is no such recipe.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    if not path.is_file():
        raise MissingFile("There is no such artifact.", where=str(path), expected="a file of wheeltap circuits train")
    if path.stat().st_size > _LARGEST:
        raise _wrong(path, f"{path.stat().st_size:,} bytes")
    try:
        with safe_open(path, "numpy") as file:  # pyright: ignore[reportUnknownVariableType]
            held = cast("dict[str, str]", file.metadata() or {})  # pyright: ignore[reportUnknownMemberType]
        if _HOW not in held:
            raise _wrong(path, "weights that do not say what they are of")
        spec = msgspec.json.decode(held[_HOW], type=ArtifactSpec)
        arrays = load(path.read_bytes())
    except (SafetensorError, msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise _wrong(path, str(error)[:120]) from error
    if spec.of or spec.data:
        raise _wrong(path, f"a net that is made from {len(spec.of)} others or from examples")
    blank = recipe_of(spec).blank(Given(spec))
    wanted = {key: (array.shape, array.dtype) for key, array in weights(blank).items()}
    if {key: (array.shape, array.dtype) for key, array in arrays.items()} != wanted:
        raise _wrong(path, "other weights than the recipe makes")
    subject = Subject(with_weights(blank, arrays).eval(), name=name or path.stem)
    subject.contents = HeaderContents(held)
    return subject


def _wrong(path: Path, got: str) -> FileFormatError:
    return FileFormatError(
        "This is no net that a recipe made.",
        where=str(path),
        expected="safetensors of wheeltap circuits train",
        got=got,
        do="Load weights of a model of your own in a function of yours, and name that: module:callable.",
    )
