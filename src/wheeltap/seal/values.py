"""Digests of the values of each tensor, as sealed and after 16-bit casts: the same in any file and under any name."""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.errors import FileFormatError
from wheeltap.seal.record import Body, Packed

CASTS: Final[dict[str, tuple[torch.dtype, ...]]] = {
    "as sealed": (),
    "bfloat16": (torch.bfloat16,),
    "float16": (torch.float16,),
    "float16, then bfloat16": (torch.float16, torch.bfloat16),
    "bfloat16, then float16": (torch.bfloat16, torch.float16),
}
"""What harmless conversions make of a tensor."""

_BYTES: Final = (3, 16)
"""Of a digest, at least and at most: 24 bits are enough against accidents, 128 against whoever looks for a match."""

_BY: Final = 2**20
"""Numbers that are cast and hashed at a time: the largest tensor is not copied."""

_TEXT: Final = 2**22
"""Bytes of names and shapes, at most."""

_COUNTED: Final = "num_batches_tracked"
"""A buffer that a norm in eval mode does not read."""

_WRAPPERS: Final = ("_orig_mod.", "module.")
"""Before names: of compiled models, and of those on several devices."""


def plain(name: str) -> str:
    """A path without the wrappers that the model is in."""
    compiled, parallel = _WRAPPERS
    return name.replace(compiled, "").removeprefix(parallel)


def stored(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, and buffers that a checkpoint keeps, in order; what is tied once."""
    kept = model.state_dict(keep_vars=True)
    return [*model.named_parameters(), *((name, part) for name, part in model.named_buffers() if name in kept)]


def held(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Those of them that eval mode reads, by names without wrappers."""
    several = [(name, part) for name, part in stored(model) if not name.endswith(_COUNTED)]
    names = [plain(name) for name, _ in several]
    if len(set(names)) < len(names):  # what looks like a wrapper is a part of its own
        return several
    return [(name, part) for name, (_, part) in zip(names, several, strict=True)]


def has_weights(model: nn.Module) -> bool:
    """Whether the model has weights that can be read: parameters, or floating-point buffers of a checkpoint."""
    return any(part.is_floating_point() for _, part in held(model))


def shapes(model: nn.Module) -> str:
    """Names and shapes of all these tensors, in order, as compressed text."""
    listed = [(name, list(part.shape)) for name, part in held(model)]
    return base64.b64encode(zlib.compress(msgspec.json.encode(listed), 9)).decode()


def _listed(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The same read again.

    Raises:
        FileFormatError: If the text is no such list.
    """
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _TEXT)
        return msgspec.json.decode(data, type=list[tuple[str, tuple[int, ...]]])
    except (binascii.Error, zlib.error, msgspec.DecodeError) as error:
        raise FileFormatError("The seal's names of tensors cannot be read.", expected="names and shapes",
                              got=str(error)[:80]) from error  # fmt: skip


def sealed(model: nn.Module, *, length: int) -> Packed:
    """Digests ``[tensor, cast, byte]``, each of so many bytes."""
    rows = [[_digest(part, cast, length=length) for cast in CASTS.values()] for _, part in held(model)]
    return Packed.of(np.array([[list(one) for one in row] for row in rows], dtype=np.uint8))


def _digest(part: Tensor, cast: tuple[torch.dtype, ...] = (), *, length: int) -> bytes:
    """Of the shape and the values in single precision; 0.0 and -0.0 are the same."""
    state = hashlib.blake2b(str(list(part.shape)).encode(), digest_size=length)
    flat = part.detach().reshape(-1)
    for start in range(0, flat.numel(), _BY):
        values = flat[start : start + _BY]
        if values.is_floating_point():
            for dtype in cast:
                values = values.to(dtype)
            values = values.float() + 0.0
        state.update(values.cpu().contiguous().numpy().data)
    return state.digest()


@final
@dataclass(frozen=True)
class Matched:
    """The tensors of a model in the places of those that were sealed, by sealed names.

    Attributes:
        held: The tensor in each place that is filled.
        casts: The casts whose values it has; none where it has other values.
        order: All sealed names, in order.
        extra: Tensors that are in no place and hold no sealed values.
        missing: Places that are not filled and whose values are nowhere.
        reshaped: The first tensor with another shape, in words; empty where there is none.
        moved: Whether values were found under names other than the sealed ones, in another order.
    """

    held: dict[str, Tensor]
    casts: dict[str, tuple[str, ...]]
    order: tuple[str, ...]
    extra: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: str
    moved: bool

    @property
    def changed(self) -> list[str]:
        """Places in which other values are."""
        return [name for name, several in self.casts.items() if not several]

    @property
    def device(self) -> str:
        """Where the tensors are."""
        return next((part.device.type for part in self.held.values()), "cpu")


def matched(model: nn.Module, body: Body) -> Matched:
    """Which tensor is in which place: by name; else in order, where all shapes are as sealed; else by values.

    Raises:
        FileFormatError: If the seal's digests do not fit its own tensors.
    """
    named, known, rows = held(model), _listed(body.shapes), body.values.array()
    length = rows.shape[-1] if rows.ndim == len(("tensor", "cast", "byte")) else 0
    fits = rows.shape[:2] == (len(known), len(CASTS)) and _BYTES[0] <= length <= _BYTES[1]
    if not fits or rows.dtype != np.uint8 or len(dict(known)) != len(known):
        raise FileFormatError("The seal's digests do not fit its tensors.", expected=f"{len(known)} tensors",
                              got=str(list(rows.shape)))  # fmt: skip
    owns = [_digest(part, length=length) for _, part in named]
    digests = [[one.tobytes() for one in row] for row in rows]
    place, moved = _places(named, owns, known, digests)
    at = {name: number for number, (name, _) in enumerate(known)}
    values = {value for row in digests for value in row}
    names = {known[to][0]: number for number, to in place.items()}
    casts = {
        name: tuple(cast for cast, one in zip(CASTS, digests[at[name]], strict=True) if one == owns[number])
        for name, number in sorted(names.items(), key=lambda one: at[one[0]])
    }
    rest = [number for number in range(len(named)) if number not in place]
    present = {one for number, one in enumerate(owns) if number in place}
    empty = [name for name, _ in known if name not in names]
    shape_of = {name: tuple(part.shape) for name, part in named}
    reshaped = next(
        (f"{name} was {list(shape)} and is {list(shape_of[name])}" for name, shape in known
         if name in empty and shape_of.get(name, shape) != shape), "")  # fmt: skip
    return Matched(
        {name: named[names[name]][1] for name in casts}, casts, tuple(at),
        tuple(named[number][0] for number in rest if owns[number] not in values),
        tuple(name for name in empty if not present.intersection(digests[at[name]])), reshaped, moved,
    )  # fmt: skip


_Named = Sequence[tuple[str, Tensor]]
_Known = Sequence[tuple[str, tuple[int, ...]]]


def _places(
    named: _Named, owns: Sequence[bytes], known: _Known, digests: Sequence[Sequence[bytes]]
) -> tuple[dict[int, int], bool]:
    """The sealed place of each tensor, by their numbers; and whether values alone decided."""
    at = {name: number for number, (name, _) in enumerate(known)}
    if at.keys() == {name for name, _ in named}:
        return {
            number: at[name] for number, (name, part) in enumerate(named) if tuple(part.shape) == known[at[name]][1]
        }, False
    if [tuple(part.shape) for _, part in named] == [shape for _, shape in known]:
        return {number: number for number in range(len(named))}, False
    own, sealed = [name for name, _ in named], [name for name, _ in known]
    place = dict[int, int]()
    _fill(place, list(zip(own, owns, strict=True)),
          [[(name, one) for one in row] for name, row in zip(sealed, digests, strict=True)])  # fmt: skip
    _fill(place, owns, digests)
    _fill(place, [(name, tuple(part.shape)) for name, part in named], [[one] for one in known])
    _fill(place, [tuple(part.shape) for _, part in named], [[shape] for _, shape in known])
    return place, any(own[number] != sealed[to] for number, to in place.items())


def _fill(place: dict[int, int], owns: Sequence[Hashable], known: Sequence[Sequence[Hashable]]) -> None:
    """Fills places that are empty with what has one of their keys and is in none yet, in order."""
    free = dict[Hashable, list[int]]()
    taken = set(place.values())
    for to in reversed(range(len(known))):
        for key in set(known[to]) if to not in taken else ():
            free.setdefault(key, []).append(to)
    for number, key in enumerate(owns):
        several = free.get(key, [])
        while several and number not in place:
            if (to := several.pop()) not in taken:
                place[number] = to
                taken.add(to)
