"""Digests of the values of each tensor, as sealed and after 16-bit casts: the same in any file and under any name."""

import hashlib
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.errors import FileFormatError
from wheeltap.core.typed import to_array
from wheeltap.seal.record import Packed

CASTS: Final[dict[str, tuple[torch.dtype, ...]]] = {
    "as sealed": (),
    "bfloat16": (torch.bfloat16,),
    "float16": (torch.float16,),
    "float16, then bfloat16": (torch.float16, torch.bfloat16),
}
"""What harmless conversions make of a tensor."""

_BYTES: Final = (6, 16)
"""Of a digest, at least and at most: 48 bits are enough against accidents, 128 against whoever looks for a match."""

_ROOM: Final = 16 * 1024
"""Bytes of all digests, where there are so many tensors that not all can be long."""


def held(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, and buffers that a checkpoint keeps, in order; what is tied once."""
    kept = model.state_dict(keep_vars=True)
    return [*model.named_parameters(), *((name, part) for name, part in model.named_buffers() if name in kept)]


def shapes_digest(model: nn.Module) -> str:
    """Digest of the shapes of all these tensors, in order; of a copy that was cast it is the same."""
    return canon.key("shapes", [list(part.shape) for _, part in held(model)])


def sealed(model: nn.Module) -> Packed:
    """Digests ``[tensor, cast, byte]``."""
    named = held(model)
    length = int(np.clip(_ROOM // (len(named) * len(CASTS)), *_BYTES))
    rows = [[_digest(part, cast, length=length) for cast in CASTS.values()] for _, part in named]
    return Packed.of(np.array([[list(one) for one in row] for row in rows], dtype=np.uint8))


def _digest(part: Tensor, cast: tuple[torch.dtype, ...] = (), *, length: int) -> bytes:
    values = part.detach()
    if values.is_floating_point():
        for dtype in cast:
            values = values.to(dtype)
        data = to_array(values.contiguous()).tobytes()
    else:
        data = values.cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(data, digest_size=length).digest()


def casts_of(model: nn.Module, known: Packed) -> dict[str, tuple[str, ...]]:
    """Of each tensor, by its name, the casts whose values it has; none where it has other values.

    Raises:
        FileFormatError: If the seal's digests do not fit the model.
    """
    named, rows = held(model), known.array()
    length = rows.shape[-1] if rows.ndim == len(("tensor", "cast", "byte")) else 0
    fits = rows.shape[:2] == (len(named), len(CASTS)) and _BYTES[0] <= length <= _BYTES[1]
    if not fits or rows.dtype != np.uint8:
        raise FileFormatError("The seal's digests do not fit its tensors.", expected=f"{len(named)} tensors",
                              got=str(list(rows.shape)))  # fmt: skip
    return {name: _matching(_digest(part, length=length), row) for (name, part), row in zip(named, rows, strict=True)}


def _matching(own: bytes, row: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, known in zip(CASTS, row, strict=True) if own == known.tobytes())
