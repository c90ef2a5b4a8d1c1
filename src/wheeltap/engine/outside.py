"""Numbers that a forward computes with outside of torch, and that nothing it holds accounts for: files, texts, caches.

They stand in local variables of Python functions, and in what these give: the same ones for each example, also after
whatever the model holds has changed.
"""

import functools
import gc
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from types import FrameType
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.typed import to_tensor
from wheeltap.engine.fixed import is_weight

_LIBRARIES: Final = ("torch", "numpy", "wheeltap", "importlib")
"""Whose local variables are no model's."""

_LEAST: Final = 256
"""Numbers below which a vector, a list or bytes are settings."""

_DEPTH: Final = 3
"""How far containers are looked into."""

_SINGLE: Final = 4
"""Bytes of a number in single precision."""

_AXES: Final = 2

_CACHE: Final = type(functools.lru_cache(int))
"""Of functions that keep what they gave."""

_KINDS: Final[tuple[type[Any], ...]] = (np.ndarray, bytes, bytearray, list, tuple, dict)

Numbers = NDArray[Any] | bytes


def constants(run: Callable[[int], object], changed: AbstractContextManager[None]) -> dict[str, int]:
    """Weights among the numbers that Python code computes with, by name: how many.

    Args:
        run: Runs the model on the first, or the second example.
        changed: While it is open, all that the model holds is another.
    """
    first = _watched(lambda: run(0))
    same = first.keys() & _watched(lambda: run(1)).keys() if first else set[bytes]()
    if same:
        with changed:
            same &= _watched(lambda: run(0)).keys()
    found = [first[one] for one in first if one in same]
    arrays = [one for one in found if not isinstance(one, bytes)]
    sizes: dict[str, int] = {}
    for one in arrays or found:
        name = "bytes of the forward" if isinstance(one, bytes) else f"an array {list(one.shape)} of the forward"
        sizes[name] = sizes.get(name, 0) + (len(one) // _SINGLE if isinstance(one, bytes) else one.size)
    return sizes


def _watched(run: Callable[[], object]) -> dict[bytes, Numbers]:
    """The numbers that Python code has at hand while a function runs, by their content."""
    found: dict[bytes, Numbers] = {}
    seen: dict[int, Any] = {}  # kept alive, so that no identity is used again

    def look(frame: FrameType, event: str, given: Any) -> None:
        if event != "return":
            return
        some = [given]
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _LIBRARIES:
            some += frame.f_locals.values()
            for name in frame.f_code.co_names:
                one = frame.f_globals.get(name)
                if isinstance(one, _CACHE):
                    some += gc.get_referents(one)
        for value in some:
            if id(value) not in seen and issubclass(type(value), _KINDS):
                seen[id(value)] = value
                for numbers in _numbers(value):
                    found.setdefault(_content(numbers), numbers)

    before = sys.getprofile()
    with suppress(Exception):  # with other weights, an index may be out of range
        sys.setprofile(look)
        try:
            run()
        finally:
            sys.setprofile(before)
    return found


def _content(numbers: Numbers) -> bytes:
    """The same for an array and for another order of it."""
    held = numbers if isinstance(numbers, bytes) else np.sort(numbers, axis=None).tobytes()
    return hashlib.blake2b(held, digest_size=16).digest()


def _numbers(value: Any, depth: int = 0) -> Iterator[Numbers]:
    """What may be weights in a value, and in containers."""
    if isinstance(value, bytes | bytearray):
        if len(value) >= _LEAST:
            yield bytes(value)
    elif isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        if array.dtype.kind in "fiu" and _tells(array):
            yield array
    elif isinstance(value, Mapping | list | tuple):
        listed = [*(cast("Mapping[Any, Any]", value).values() if isinstance(value, Mapping) else cast("Any", value))]
        array = _listed(listed)
        if array is not None:
            yield from _numbers(array)
        elif depth < _DEPTH:
            for part in listed:
                yield from _numbers(part, depth + 1)


def _listed(values: Iterable[Any]) -> NDArray[Any] | None:
    """Numbers in lists, as an array."""
    first: Any = values
    for _ in range(_DEPTH):
        first = cast("Any", first)[0] if isinstance(first, list | tuple) and first else cast("Any", first)
    if not isinstance(first, int | float):
        return None
    try:
        array = np.array(values)
    except ValueError:  # of unequal lengths
        return None
    return array if array.size >= _LEAST else None


def _tells(array: NDArray[Any]) -> bool:
    """Whether it is a weight: along one axis a long one with two signs."""
    wide = sum(size > 1 for size in array.shape) >= _AXES
    if not (wide or array.size >= _LEAST):
        return False
    kind = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    with torch.no_grad():
        return is_weight(to_tensor(kind))
