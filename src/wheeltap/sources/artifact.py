"""Nets that a recipe of this package made, in one file that says how: ``artifact:FILE``. Nothing in it is code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, final

import msgspec
import torch
from torch import Tensor, nn

from wheeltap.core.bounded import contents, decoded, parsing, tensors
from wheeltap.core.canon import ArtifactSpec
from wheeltap.core.errors import FileFormatError
from wheeltap.core.files import Contents, Digests, write_whole
from wheeltap.core.subject import Subject
from wheeltap.recipes.base import Given, recipe_of
from wheeltap.recipes.make import weights, with_weights
from wheeltap.sources.base import LoadedModel, ModelSource
from wheeltap.sources.contents import digest_of

_HOW: Final = "wheeltap artifact"
"""Key of the file's header under which it says how the net was made."""

_NO_NET: Final = "This is no net that a recipe made."
_EXPECTED: Final = "safetensors of wheeltap circuits train"
_DO: Final = "Load weights of a model of your own in a function of yours, and name that: module:callable."

_LARGEST: Final = 2**31
"""Bytes of a file that is read."""


@final
@dataclass(frozen=True)
class HeaderContents(Contents):
    """The header of a file of weights that says how its net is made."""

    settings: Mapping[str, str]

    def digests(self) -> Digests:
        """A digest of each entry."""
        return {"config": {f"header {key}": digest_of(value) for key, value in self.settings.items()}}


@final
class ArtifactFiles(ModelSource):
    """See ``load_artifact``."""

    form = "artifact:FILE"
    title = "A net that a recipe of wheeltap made, in the file that says how."
    place = "file"

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        return load_artifact(Path(rest).expanduser(), name=name)


def save(model: nn.Module, spec: ArtifactSpec, path: Path) -> None:
    """Writes a net and how it was made, whole or not at all.

    Raises:
        FileError: If the file cannot be written.
    """
    from safetensors.numpy import save as bytes_of

    write_whole(path, bytes_of(weights(model), {_HOW: msgspec.json.encode(spec).decode()}))


def load_artifact(path: Path, *, name: str = "") -> LoadedModel:
    """The net in a file, in eval mode, with the tokenizer that its recipe says.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is none of ``save``, or was made from other nets or examples.
        UnknownName: If there is no such recipe.
    """
    from safetensors.numpy import load

    held, said = tensors(path, "artifact", do="Make one: wheeltap circuits train -o FILE")
    if _HOW not in said:
        raise _wrong(path, "weights that do not say what they are of")
    spec = decoded(said[_HOW].encode(), ArtifactSpec, path, _NO_NET, expected=_EXPECTED, do=_DO)
    if spec.of or spec.data:
        raise _wrong(path, f"a net that is made from {len(spec.of)} others or from examples")
    recipe = recipe_of(spec)
    # Without memory first: settings may ask for a net that is larger than the file, or than the machine.
    with torch.device("meta"), parsing(path, _NO_NET, expected=_EXPECTED, do=_DO):
        state = cast("dict[str, Tensor]", recipe.blank(Given(spec)).state_dict())
        shapes = {name: tuple(one.shape) for name, one in state.items()}
    if {name: one.shape for name, one in held.items()} != shapes:
        raise _wrong(path, "other weights than the recipe makes")
    blank = recipe.blank(Given(spec))
    with parsing(path, _NO_NET, expected=_EXPECTED, do=_DO):
        arrays = load(contents(path, "artifact", limit=_LARGEST))
    if any(arrays[name].dtype != array.dtype for name, array in weights(blank).items()):
        raise _wrong(path, "other weights than the recipe makes")
    subject = Subject(with_weights(blank, arrays).eval(), name=name or path.stem)
    subject.contents = HeaderContents(said)
    return LoadedModel(subject, tokenizer=recipe.tokenizer)


def _wrong(path: Path, got: str) -> FileFormatError:
    return FileFormatError(_NO_NET, where=str(path), expected=_EXPECTED, got=got, do=_DO)
