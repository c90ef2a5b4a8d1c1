"""How the arrays of an outcome become bytes: few, and the same to the bit when they come back.

All arrays of an outcome are one raw deflate stream. Numbers of four bytes go in as four planes (the lowest byte of
every number, then the next one, ...): signs and exponents are alike, and compress well apart from the noise of the
last digits. Flags go in as one bit each, and so do floats that are all exactly 0 or 1, as right answers are.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import StoreError

LARGEST: Final = 2**28
"""Most bytes that the arrays of one outcome may have, at four per number. No file can make a reader expand more."""

_RAW: Final = -zlib.MAX_WBITS
_OWN_BLOCK: Final = 64
"""Bytes from which a part gets a Huffman code of its own: parts have little in common, and a code costs bytes."""

_FLOAT_ONE: Final = 0x3F800000
_CODES: Final = {"f": "<f4", "i": "<i4"}

_Form = Literal["f", "i", "?", "1"]
"""float32, int32, flags, or float32 of zeros and ones alone."""
_Length = Annotated[int, msgspec.Meta(ge=0)]


class _Layout(msgspec.Struct, frozen=True, array_like=True):
    """What comes next in a stream."""

    name: str
    form: _Form
    shape: Annotated[tuple[_Length, ...], msgspec.Meta(max_length=64)]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def packed(self) -> int:
        """Bytes in the stream."""
        return 4 * self.numbers if self.form in _CODES else -(-self.numbers // 8)


_layouts = msgspec.msgpack.Decoder(list[_Layout])


def kept(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array in the type it is kept in: flags as bool, whole numbers as int32, other numbers as float32.

    Raises:
        StoreError: If it holds a whole number that int32 cannot hold, or no numbers.
    """
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large is infinite: the store's own error, or a status
            return array.astype(np.float32, copy=False)
    least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    if array.dtype.kind in "iu":
        if not array.size or (least <= int(array.min()) and int(array.max()) <= most):
            return array.astype(np.int32, copy=False)
        got = f"whole numbers from {array.min()} to {array.max()}"
    else:
        got = str(array.dtype)
    raise StoreError(
        "A value that a store cannot keep was about to be stored.",
        where=name,
        expected=f"floats, flags, or whole numbers from {least} to {most}",
        got=got,
        do="Report a bug of the measure or reading; a plug-in can give the numbers as floats.",
    )


def pack(values: Mapping[str, NDArray[Any]]) -> tuple[bytes, bytes]:
    """Their layouts and their packed bytes, in order of their names.

    Args:
        values: Arrays as ``kept`` gives them.
    """
    layouts: list[_Layout] = []
    parts: list[bytes] = []
    for name, array in sorted(values.items()):
        form, own = _parts(array)
        layouts.append(_Layout(name, form, array.shape))
        parts += own
    return msgspec.msgpack.encode(layouts), _deflated(parts)


def unpack(layouts: bytes, packed: bytes) -> dict[str, NDArray[Any]]:
    """The arrays, as they were.

    Raises:
        ValueError: If the bytes are not what the layouts promise, or that is more than ``LARGEST``.
    """
    stated = _layouts.decode(layouts)
    total = sum(4 * layout.numbers for layout in stated)
    if total > LARGEST:
        raise ValueError(f"{total} bytes are promised where {LARGEST} are the most")
    data = np.frombuffer(_inflated(packed, sum(layout.packed for layout in stated)), dtype=np.uint8)
    ends = accumulate(layout.packed for layout in stated)
    values = {
        layout.name: _array(layout, data[end - layout.packed : end]) for layout, end in zip(stated, ends, strict=True)
    }
    if len(values) < len(stated):
        raise ValueError("two arrays of one name")
    return values


def _parts(array: NDArray[Any]) -> tuple[_Form, list[bytes]]:
    if array.dtype == np.bool_:
        return "?", [np.packbits(array).tobytes()]
    form: _Form = "f" if array.dtype == np.float32 else "i"
    flat = np.ascontiguousarray(array, dtype=_CODES[form]).reshape(-1)
    if form == "f":
        # By their bits: a negative zero is no flag.
        bits = flat.view("<u4")
        ones = bits == _FLOAT_ONE
        if bool((ones | (bits == 0)).all()):
            return "1", [np.packbits(ones).tobytes()]
    planes = flat.view(np.uint8).reshape(-1, 4).T
    return form, [planes[:3].tobytes(), planes[3].tobytes()]


def _array(layout: _Layout, data: NDArray[np.uint8]) -> NDArray[Any]:
    if layout.form in _CODES:
        numbers = data.reshape(4, -1).T.copy().view(_CODES[layout.form])
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False).reshape(layout.shape)
    flags = np.unpackbits(data, count=layout.numbers).reshape(layout.shape)
    return flags.view(np.bool_) if layout.form == "?" else flags.astype(np.float32)


def _deflated(parts: Iterable[bytes]) -> bytes:
    # Run lengths alone: a search for longer repeats takes several times as long and finds hardly any.
    stream = zlib.compressobj(1, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    done: list[bytes] = []
    for part in parts:
        done.append(stream.compress(part))
        if len(part) >= _OWN_BLOCK:
            done.append(stream.flush(zlib.Z_BLOCK))
    return b"".join([*done, stream.flush()])


def _inflated(packed: bytes, size: int) -> bytes:
    """The ``size`` bytes that were packed. At most one byte more is ever expanded.

    Raises:
        ValueError: If they are not as many, or damaged.
    """
    stream = zlib.decompressobj(_RAW)
    try:
        data = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(data) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"the packed numbers are not the {size} bytes that were promised")
    return data
