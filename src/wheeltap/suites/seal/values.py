"""Digests of all bits of all tensors, as sealed and after whole casts: they decide. Short marks locate a change."""

import base64
import hashlib
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Final, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.bounded import parsing
from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.core.typed import copied, named_modules
from wheeltap.suites.seal.record import Body, PackedArray
from wheeltap.suites.seal.structure import unwrapped

Floats = NDArray[np.float64]

AS_SEALED: Final = "as sealed"

_PARTS: Final[dict[str, Callable[[Tensor, str], bool]]] = {
    "": lambda held, kind: True,
    " (parameters only)": lambda held, kind: kind == "parameter",
    " (what a checkpoint keeps)": lambda held, kind: kind != "unsaved",
    " (matrices only)": lambda held, kind: kind == "parameter" and held.ndim > 1,
}
"""Which tensors are cast: everything (``model.to``), parameters or those and kept buffers (``from_pretrained``), or
matrices (GGUF)."""

_KINDS: Final = {
    **{f"{name}{part}": ((dtype,), takes) for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16))
       for part, takes in _PARTS.items()},
    "float16, then bfloat16": ((torch.float16, torch.bfloat16), _PARTS[""]),
    "bfloat16, then float16": ((torch.bfloat16, torch.float16), _PARTS[""]),
    "float32": ((torch.float32,), _PARTS[""]),
}  # fmt: skip
"""What tensors are cast to, and which."""

NAMES: Final = (AS_SEALED, *_KINDS)
"""Of all conversions: a seal admits these and no other mixture."""

WHOLE: Final = (AS_SEALED, "bfloat16", "float16")
"""Conversions after which each tensor has a mark of its own."""


@contextmanager
def converted(model: nn.Module, name: str) -> Generator[bool]:
    """The model with its numbers as the conversion leaves them, in their own dtype; put back from copies afterwards.

    Yields:
        Whether the conversion changes anything, and makes nothing infinite.
    """
    kept = list[tuple[Tensor, Tensor]]()
    with torch.no_grad():
        try:
            for part in [] if name == AS_SEALED else _taken(model, name):
                kept.append((part, part.detach().clone()))  # before it is written to: whatever happens is put back
                for dtype in _KINDS[name][0]:
                    part.copy_(part.to(dtype))
            finite = all(bool((held.isfinite() == before.isfinite()).all()) for held, before in kept)
            yield finite and (name == AS_SEALED or any(not torch.equal(held, before) for held, before in kept))
        finally:
            for held, before in reversed(kept):  # a copy of what shares memory may be of what was written already
                held.copy_(before)


def _taken(model: nn.Module, name: str) -> list[Tensor]:
    """What a conversion casts.

    Raises:
        ModelError: If numbers of a tensor share memory, so that they cannot be written one by one.
    """
    found = [held for held, kind in _kinds(model) if held.is_floating_point() and _KINDS[name][1](held, kind)]
    for held in found:
        if any(step == 0 and size > 1 for step, size in zip(held.stride(), held.shape, strict=True)):
            raise ModelError("Numbers of a tensor share memory.", expected="a place in memory for each number",
                             got=f"{list(held.shape)} with steps {list(held.stride())}",
                             do="Give the model a copy of its own: tensor.contiguous().")  # fmt: skip
    return found


def _kinds(model: nn.Module) -> list[tuple[Tensor, str]]:
    """Parameters and buffers, each once, and what it is."""
    found: dict[int, tuple[Tensor, str]] = {id(part): (part, "parameter") for part in model.parameters()}
    for _, module in named_modules(model):
        unsaved = cast("set[str]", getattr(module, "_non_persistent_buffers_set", set[str]()))
        for name, part in module.named_buffers(recurse=False):
            found.setdefault(id(part), (part, "unsaved" if name in unsaved else "buffer"))
    return [*found.values()]


def in_single_precision(model: nn.Module) -> nn.Module:
    """The model itself if its weights have 32 bits or more; else a copy in which they have.

    So that a pass is as exact for weights of 16 bits, and what is compared is the weights and not the rounding of
    each product.
    """
    short = any(held.is_floating_point() and held.dtype.itemsize < 4 for held, _ in _kinds(model))
    if not short:
        return model
    copy = copied(model).float()
    for _, module in named_modules(copy):
        module.training = False
    return copy


BITS: Final = 128
"""What it takes to find other weights with the same digest: as many tries as numbers of so many bits."""

MARK: Final = 4
"""Bytes by which a changed tensor is located; they never decide."""

_DIGEST: Final = 32
"""Bytes of a digest: 128 bits hold even against whoever chooses both models."""

BLOCK: Final = 2**20
"""Numbers that are hashed at a time: the largest tensor is not copied."""

_TEXT: Final = 2**22
"""Bytes of names and shapes, at most."""

Leaves = dict[str, bytes]
"""Digest of each tensor, by name."""


def held(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and then every buffer, saved or not, by names without wrappers; other names of tied ones last."""
    module, first, others, seen = unwrapped(model), list[tuple[str, Tensor]](), list[tuple[str, Tensor]](), set[int]()
    for name, part in chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    ):
        (others if id(part) in seen else first).append((name, part))
        seen.add(id(part))
    return [*first, *others]


def has_weights(model: nn.Module) -> bool:
    """Whether the model has weights that can be read: parameters, or floating-point buffers."""
    return any(part.is_floating_point() for _, part in held(model))


def shapes(model: nn.Module) -> str:
    """Names, kinds of numbers and shapes of all tensors, in order, as compressed text."""
    listed = [(name, str(part.dtype), list(part.shape)) for name, part in held(model)]
    return base64.b64encode(zlib.compress(msgspec.json.encode(listed), 9)).decode()


_Known = Sequence[tuple[str, str, tuple[int, ...]]]


def _listed(text: str) -> _Known:
    """The same read again.

    Raises:
        FileFormatError: If the text is no such list.
    """
    with parsing("seal", "The seal's names of tensors cannot be read.", expected="names and shapes"):
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _TEXT)
        return msgspec.json.decode(data, type=list[tuple[str, str, tuple[int, ...]]])


# ---- digests ----------------------------------------------------------------------------------------------------


def leaves(model: nn.Module, *, seed: int) -> Leaves:
    """Digest of each tensor: of its shape and of every bit of its values, whatever kind of number stores them.

    Raises:
        ModelError: If a tensor cannot be read.
    """
    known, found = dict[int, bytes](), Leaves()
    for name, part in held(model):
        if id(part) not in known:
            try:
                known[id(part)] = _digest(part.detach(), key=_key(seed))
            except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
                raise ModelError("A tensor of the model cannot be read.", where=name,
                                 expected="numbers in memory, in a dense layout",
                                 got=" ".join(str(error).split())[:100]) from error  # fmt: skip
        found[name] = known[id(part)]
    return found


def total(found: Mapping[str, bytes], *, seed: int) -> str:
    """One digest of all tensors, hexadecimal: of their names and digests."""
    state = hashlib.blake2b(digest_size=_DIGEST, key=_key(seed))
    for name in sorted(found):
        state.update(msgspec.json.encode(name) + found[name])
    return state.hexdigest()


def _key(seed: int) -> bytes:
    return hashlib.blake2b(str(seed).encode(), digest_size=32, person=b"wheeltap-seal").digest()


def _digest(part: Tensor, *, key: bytes) -> bytes:
    floats = part.is_floating_point()
    state = hashlib.blake2b(f"{'float' if floats else part.dtype} {list(part.shape)}".encode(), digest_size=_DIGEST,
                            key=key)  # fmt: skip
    flat = part.resolve_conj().resolve_neg().reshape(-1)
    for start in range(0, flat.numel(), BLOCK):
        values = flat[start : start + BLOCK].cpu().contiguous()
        if floats:
            single = values.float()
            # Numbers of 64 bits that 32 bits hold are the same numbers; others are hashed whole.
            wide = values.dtype == torch.float64 and not torch.equal(
                single.double().view(torch.int64), values.view(torch.int64)
            )
            state.update(b"wide" if wide else b"single")
            values = values if wide else single
        state.update(values.view(torch.uint8).numpy().data)
    return state.digest()


def marks(several: Sequence[Leaves]) -> PackedArray:
    """The beginnings of digests, ``[tensor, cast, byte]``."""
    rows = [[list(found[name][:MARK]) for found in several] for name in several[0]]
    return PackedArray.of(np.array(rows, dtype=np.uint8).reshape(len(rows), len(several), MARK))


# ---- a model beside a seal --------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class TensorMatch:
    """Tensors of a model beside the sealed ones, by name.

    Attributes:
        held: Tensors that were sealed and have the sealed shape.
        casts: Casts whose values each of these seems to have, by short digests; none where it has other values.
        order: All sealed names, in order.
        extra: Names of tensors that were not sealed.
        missing: Sealed names that the model does not have, or has with another shape.
        reshaped: The first tensor with another shape, in words; empty where there is none.
        cast: The admitted cast of all tensors whose digest these have; empty where none fits.
        exact: Whether kinds of numbers are as sealed too.
    """

    held: dict[str, Tensor]
    casts: dict[str, tuple[str, ...]]
    order: tuple[str, ...]
    extra: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: str
    cast: str
    exact: bool

    @property
    def changed(self) -> list[str]:
        """Names of tensors with other values."""
        return [name for name, casts in self.casts.items() if not casts]

    @property
    def device(self) -> str:
        """Where the tensors are."""
        return next((part.device.type for part in self.held.values()), "cpu")


def matched(model: nn.Module, body: Body) -> TensorMatch:
    """The tensors of a model beside those of a seal.

    Raises:
        FileFormatError: If the seal's short digests do not fit its own tensors.
        ModelError: If a tensor cannot be read.
    """
    tensors, sealed, rows = dict(held(model)), _listed(body.shapes), body.values.array()
    order = {name: index for index, (name, _, _) in enumerate(sealed)}
    fits = rows.ndim == len(("tensor", "cast", "byte")) and rows.shape[0] == len(sealed) and rows.shape[2] == MARK
    if not fits or not 0 < rows.shape[1] <= len(WHOLE) or rows.dtype != np.uint8 or len(order) != len(sealed):
        raise FileFormatError("The seal's marks do not fit its tensors.", expected=f"{len(sealed)} tensors",
                              got=str(list(rows.shape)))  # fmt: skip
    digests = leaves(model, seed=body.seed)
    present = {
        name: tensors[name] for name, _, shape in sealed if name in tensors and tuple(tensors[name].shape) == shape
    }
    casts = {
        name: tuple(
            cast for cast, mark in zip(WHOLE, rows[order[name]], strict=False)
            if mark.tobytes() == digests[name][:MARK]
        ) for name in present
    }  # fmt: skip
    whole = total({name: digests[name] for name in present}, seed=body.seed)
    return TensorMatch(
        present, casts, tuple(order), tuple(name for name in tensors if name not in order),
        tuple(name for name in order if name not in present),
        next((f"{name} was {list(shape)} and is {list(tensors[name].shape)}" for name, _, shape in sealed
              if name in tensors and name not in present), ""),
        next((one.name for one in body.casts if one.digest == whole), ""),
        {name: str(part.dtype) for name, part in tensors.items()} == {name: kind for name, kind, _ in sealed},
    )  # fmt: skip
