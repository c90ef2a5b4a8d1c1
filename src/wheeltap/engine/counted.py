"""Which numbers a model's answers depend on: its parameters, and what else holds weights, by name and size.

What one example shows (see ``engine.fixed``) is tried where it does not tell: what the forward did not come across is
changed, and the answers to the whole task are compared. Numbers that a forward computes with outside of torch, and that
nothing it holds accounts for (files, texts, caches), stand in local variables of Python functions, and in what these
give: the same ones for each example, also after whatever the model holds has changed.
"""

import functools
import gc
import hashlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any, Final, NamedTuple, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.fingerprint import tensor_attributes
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import restored, to_tensor
from wheeltap.engine.fixed import Leaf, OriginTrace, is_weight, numbers, place

_LIBRARIES: Final = ("torch", "numpy", "wheeltap", "importlib")
"""Whose local variables are no model's."""

_LONG: Final = 256
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
    first = _seen_numbers(lambda: run(0))
    same = first.keys() & _seen_numbers(lambda: run(1)).keys() if first else set[bytes]()
    if same:
        with changed:
            same &= _seen_numbers(lambda: run(0)).keys()
    found = [first[one] for one in first if one in same]
    arrays = [one for one in found if not isinstance(one, bytes)]
    sizes: dict[str, int] = {}
    for one in arrays or found:
        name = "bytes of the forward" if isinstance(one, bytes) else f"an array {list(one.shape)} of the forward"
        sizes[name] = sizes.get(name, 0) + (len(one) // _SINGLE if isinstance(one, bytes) else one.size)
    return sizes


def _seen_numbers(run: Callable[[], object]) -> dict[bytes, Numbers]:
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
                    # The same for an array and for another order of it.
                    held = numbers if isinstance(numbers, bytes) else np.sort(numbers, axis=None).tobytes()
                    found.setdefault(hashlib.blake2b(held, digest_size=16).digest(), numbers)

    before = sys.getprofile()
    with suppress(Exception):  # with other weights, an index may be out of range
        sys.setprofile(look)
        try:
            run()
        finally:
            sys.setprofile(before)
    return found


def _numbers(value: Any, depth: int = 0) -> Iterator[Numbers]:
    """What may be weights in a value, and in containers."""
    if isinstance(value, bytes | bytearray):
        if len(value) >= _LONG:
            yield bytes(value)
    elif isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        wide = sum(size > 1 for size in array.shape) >= _AXES
        if array.dtype.kind in "fiu" and (wide or array.size >= _LONG):  # along one axis a long one with two signs
            with torch.no_grad():
                tells = is_weight(to_tensor(array.astype(np.float64 if array.dtype.kind == "f" else np.int64)))
            if tells:
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
    return array if array.size >= _LONG else None


_LEAST: Final = 0.005
"""Share of the parameters below which what is left open is not tried."""

_FACTORS: Final = 256
"""Different numbers in the code of a forward below which they are scales, and bounds of rounding."""

_SINGLY: Final = 8
"""Tensors that are tried one by one, the largest first; smaller ones count as weights."""

_SAME: Final = 1e-6
"""Largest difference of scores, as a share of the largest one, at which they are the same."""


class _Candidate(NamedTuple):
    """Something that may hold weights: how much, and the tensor, where it can be changed in place."""

    name: str
    size: int
    tensor: Tensor | None


def counted(
    subject: Subject,
    task: BaseTask,
    traces: tuple[OriginTrace, ...],
    *,
    volatile: Set[str],
    scores: Tensor,
) -> float:
    """Counts the weights that are no parameters, and has the subject know of them.

    Args:
        subject: The model.
        task: The examples.
        traces: Of one example, and of another one; none where the forward could not be followed.
        volatile: What each call of it changes: that is no weight.
        scores: Of the undisturbed model, ``[example, option]``.

    Returns:
        Passes over the task that this took.

    Raises:
        ModelError: If answers are computed outside of torch by something that cannot be read.
    """
    held = [one for one in _candidates(subject.model) if not _changes_in_each_call(one.name, volatile)]
    least = _LEAST * sum(parameter.numel() for parameter in subject.model.parameters())
    seen = _TraceResult({}, frozenset(), frozenset(), outside=False)
    if traces:
        seen = _trace_result(traces, held, least=least)
    trial = _ChangeTest(subject, task, scores)
    left = [one for one in held if one.name not in seen.names and (one.tensor is not None or seen.outside)]
    mattering = trial.influential(left) if sum(one.size for one in left) >= least else []
    fixed = {name: size for name, size in seen.fixed.items() if not _changes_in_each_call(name, volatile)}
    fixed |= {one.name: one.size for one in mattering}
    if seen.outside and all(one.tensor is not None for one in mattering):
        # What the forward computes with outside of torch that is not held: a file, a text, a cache.
        batch = next(iter(task.moments()))
        own = [*subject.model.parameters(), *(one.tensor for one in held if one.tensor is not None)]
        with torch.no_grad():
            outside = constants(lambda at: batch.one(at).run(subject.model), _changed(own))
        fixed |= outside if sum(outside.values()) >= least else {}
    unused = [subject.parameter(path) for path in sorted(seen.idle)]
    alone = bool(fixed) and bool(unused) and not trial.alters_answers(unused)
    subject.count(fixed, idle=seen.idle if alone else frozenset(), traced=bool(traces))
    return trial.forwards


class _TraceResult(NamedTuple):
    """What the forward of one example came across.

    Attributes:
        fixed: Weights that are no parameters, by name: how many.
        names: Of everything that the answers depend on.
        idle: Paths of the parameters that they do not depend on.
        outside: Whether some of it was computed outside of torch.
    """

    fixed: dict[str, int]
    names: frozenset[str]
    idle: frozenset[str]
    outside: bool


def _trace_result(traces: tuple[OriginTrace, ...], held: list[_Candidate], *, least: float) -> _TraceResult:
    [first, *_] = traces
    names = {key: one.name for one in reversed(held) if one.tensor is not None for key in place(one.tensor)[:2]}
    # What the answers depend on that the model does not hold. What another example does not have comes from the inputs,
    # outside of torch. In which order constants are met may change: scripted code is compiled while it runs.
    constants_of = [
        [
            leaf
            for leaf in trace.of(trace.reached)
            if not leaf.parameter and not names.keys() & set(place(leaf.tensor)[:2])
        ]
        for trace in traces
    ]
    made = {
        id(leaf)
        for leaf in constants_of[0]
        for other in constants_of[1:]
        if not any(leaf.tensor.shape == one.tensor.shape and torch.equal(leaf.tensor, one.tensor) for one in other)
    }
    fixed: dict[str, int] = {}
    for leaf in first.of(first.weights & first.reached):
        if id(leaf) not in made:
            name = _name(leaf, names)
            fixed[name] = fixed.get(name, 0) + leaf.size
    if len(first.scalars) >= max(least, _FACTORS):
        fixed["numbers in the code of the forward"] = len(first.scalars)
    reached = first.of(first.reached)
    idle = {leaf.parameter for leaf in first.leaves if leaf.parameter} - {leaf.parameter for leaf in reached}
    names_reached = frozenset(_name(leaf, names) for leaf in reached)
    return _TraceResult(fixed, names_reached, frozenset(idle), outside=first.outside or bool(made))


def _candidates(model: nn.Module) -> Iterator[_Candidate]:
    """Whatever is no parameter and may hold weights: buffers first, for their names are the known ones."""
    places = {place(parameter)[1] for parameter in model.parameters()}
    for name, buffer in model.named_buffers():
        places.add(place(buffer)[1])
        yield _Candidate(name, numbers(buffer), buffer)
    for name, tensor in tensor_attributes(model):
        at = place(tensor)[1]
        if not at or at not in places:  # else it is known under another name
            places.add(at)
            yield _Candidate(name, numbers(tensor), tensor)


def _changes_in_each_call(name: str, volatile: Set[str]) -> bool:
    return not volatile.isdisjoint((f"buffer {name}", f"tensor {name}"))


def _name(leaf: Leaf, names: dict[int, str]) -> str:
    storage, start, _ = place(leaf.tensor)
    known = names.get(start) or names.get(storage)
    return leaf.parameter or known or f"a constant {list(leaf.tensor.shape)} of the forward"


@final
class _ChangeTest:
    """Changes what is left open, and looks whether the answers change."""

    def __init__(self, subject: Subject, task: BaseTask, clean: Tensor) -> None:
        self.subject, self.task, self.clean = subject, task, clean
        self.forwards = 0.0

    def influential(self, left: list[_Candidate]) -> list[_Candidate]:
        """Those that the answers depend on, as far as that can be tried."""
        given = [one for one in left if one.tensor is None]
        some = sorted(((one, one.tensor) for one in left if one.tensor is not None), key=lambda pair: -pair[0].size)
        if not self.alters_answers([tensor for _, tensor in some]):
            return given
        single = len(some) == 1
        return given + [
            one for at, (one, tensor) in enumerate(some) if single or at >= _SINGLY or self.alters_answers([tensor])
        ]

    @torch.no_grad()
    def alters_answers(self, tensors: list[Tensor]) -> bool:
        """Whether the answers change with some tensors; these come back as they were."""
        if not tensors:
            return False
        self.forwards += 1.0
        try:
            with _changed(tensors):
                scores = self.task.scores(self.subject.model)
        except Exception:  # an index out of range, say
            return True
        return not bool((scores - self.clean).abs().max() <= _SAME * self.clean.abs().max())


@contextmanager
def _changed(tensors: list[Tensor]) -> Generator[None]:
    """Other numbers of the same range: they come in reverse, floating-point ones larger too."""
    with restored(tensors):
        for tensor in tensors:
            other = tensor.detach().flatten().flip(0).reshape(tensor.shape)
            if other.is_floating_point():
                other = 1.5 * other + other.abs().mean()
            tensor.data.copy_(other)
        yield
