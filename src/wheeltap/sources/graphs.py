"""Graphs of other runtimes (ONNX, TFLite) as models: run as they are, their stored weights read and written.

A graph's weights are parameters of a module. Where they are changed, the graph is started anew with what they are then;
as long as they are not, it is the file's own graph.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.bounded import parsing
from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.sources.base import LoadedModel, ModelSource, refuse_pickle
from wheeltap.sources.shipped import Array, ShippedModel, StoredWeights

Numbers = NDArray[Any]

LARGEST: Final = 2**31 - 1
"""Bytes of a file: what protobuf and flatbuffers can address."""

PACKED: Final = 256
"""Whole numbers of one byte from which they may be weights in a way that is not known."""


@final
@dataclass(frozen=True, kw_only=True)
class Grid:
    """Whole numbers that stand for others: (code - zero) * scale.

    Attributes:
        scale: Of the shape of the codes, or of one that is spread to it.
        zero: The same.
        low: Of the codes.
        high: Of the codes.
        block: Values along a row (see ``GraphWeight.matrix``) with a scale of their own; 0: a whole row.
    """

    scale: Numbers
    zero: Numbers
    low: int
    high: int
    block: int = 0

    def values(self, codes: Numbers) -> Array:
        """What codes stand for."""
        return ((codes.astype(np.float32) - self.zero.astype(np.float32)) * self.scale).astype(np.float32)

    def codes(self, values: Numbers) -> Numbers:
        """The nearest codes."""
        steps = np.divide(values, self.scale, out=np.zeros(values.shape, np.float32), where=self.scale != 0)
        return np.clip(np.rint(steps) + self.zero, self.low, self.high)


def spread(given: Numbers, shape: Sequence[int], axis: int, *, block: int = 0) -> Array:
    """Scales or zero points, to be spread to codes of a shape: one for all, for each along an axis, or for blocks."""
    held = given.astype(np.float32)
    if block and held.ndim == len(shape):
        return np.repeat(held, block, axis)[tuple(map(slice, shape))]
    return held.reshape([-1 if at == axis % len(shape) and held.size > 1 else 1 for at in range(len(shape))])


@final
@dataclass(frozen=True, kw_only=True)
class GraphInput:
    """What a graph reads.

    Attributes:
        name: In the graph.
        shape: ``None`` for a length that is left open; the first one is of examples.
        dtype: Of the numbers.
        grid: Of whole numbers that stand for others.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: "np.dtype[Any]"
    grid: Grid | None = None


@final
@dataclass(frozen=True, kw_only=True)
class GraphWeight:
    """A constant of a graph that activations are computed with.

    Attributes:
        name: Of its tensor.
        shape: Of that, as it is stored.
        dtype: Of the numbers that are stored.
        axes: The order of its axes in torch, units first: of a convolution ``[unit, in, *kernel]``.
        grid: Of whole numbers that stand for others, as they are stored.
        bias_of: Name of the weight that it is added to the product with.
        opaque: Whether it is not known what its numbers stand for.
    """

    name: str
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    axes: tuple[int, ...]
    grid: Grid | None = None
    bias_of: str = ""
    opaque: bool = False

    @property
    def whole(self) -> bool:
        """Whether whole numbers are stored; else a grid says what they become when they are loaded."""
        return "int" in self.dtype.name

    @property
    def laid(self) -> tuple[int, ...]:
        """Its shape in torch."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def matrix(self) -> tuple[int, int]:
        """See ``matrix_of``."""
        return matrix_of(self.laid)

    def grid_of_rows(self, start: int = 0, stop: int | None = None) -> Grid | None:
        """The grid of some rows of its matrix, a scale and a zero point for each value."""
        if self.grid is None:
            return None
        scale, zero = (
            np.broadcast_to(one, self.shape).transpose(self.axes).reshape(self.matrix)[start:stop]
            for one in (self.grid.scale, self.grid.zero)
        )
        return replace(self.grid, scale=scale, zero=zero)

    def rows(self, stored: Numbers, start: int = 0, stop: int | None = None) -> Array:
        """Values of some rows of its matrix, in single precision; what is opaque, as it is stored."""
        if self.opaque:
            return stored
        held, grid = stored.transpose(self.axes).reshape(self.matrix)[start:stop], self.grid_of_rows(start, stop)
        if grid is None:
            return held.astype(np.float32)
        return grid.values(held if self.whole else grid.codes(held.astype(np.float32)))

    def stored(self, rows: Numbers) -> Numbers:
        """What is stored for all rows."""
        if self.opaque:
            return rows
        grid, held = self.grid_of_rows() if self.whole else None, rows.reshape(self.matrix)
        codes = held if grid is None else grid.codes(held)
        return np.ascontiguousarray(codes.reshape(self.laid).transpose(np.argsort(self.axes)).astype(self.dtype))


def matrix_of(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a weight ``[unit, ...]``; what is long along one axis alone is a row."""
    long = [length for length in shape if length > 1]
    return (long[0], math.prod(long[1:])) if len(long) > 1 else (1, math.prod(shape))


Run = Callable[[Mapping[str, Numbers]], Numbers]
"""Gives the first output, or that called ``logits``, for inputs by name."""


class RuntimeGraph(ABC):
    """A graph in a file; what it holds is checked before a runtime sees it.

    Attributes:
        path: Of the file.
        digest: Of its bytes, and of those of the files that it refers to.
        inputs: What it reads.
        weights: What it holds.
    """

    digest: str
    inputs: tuple[GraphInput, ...]
    weights: tuple[GraphWeight, ...]

    def __init__(self, path: Path) -> None:
        refuse_pickle(path)
        self.path = path

    @abstractmethod
    def read(self, name: str) -> Numbers:
        """A weight as it is stored."""

    @abstractmethod
    def start(self, changed: Mapping[str, Numbers]) -> Run:
        """The runtime with the file's graph.

        Args:
            changed: Weights in place of those of the file, as they would be stored.

        Raises:
            FileFormatError: If the runtime refuses it.
        """


@final
@dataclass
class _Running:
    """A graph in its runtime.

    Attributes:
        run: Of that.
        held: Weights that it was started with.
    """

    graph: RuntimeGraph
    run: Run
    held: dict[str, Numbers]


_RUNNING: Final[WeakKeyDictionary[nn.Module, _Running]] = WeakKeyDictionary()
"""Apart from the modules: what a runtime holds can neither be copied nor described."""


@final
class GraphModule(nn.Module):
    """A graph as a module.

    Args:
        graph: Which.
        disturbed: Whether its weights are parameters, see ``GraphWeight.matrix``, and opaque ones buffers.
    """

    def __init__(self, graph: RuntimeGraph, *, disturbed: bool) -> None:
        super().__init__()
        self._digest, self._of, self._places = graph.digest, type(graph), dict[str, str]()
        self._begin(graph, [weight.name for weight in graph.weights] if disturbed else [])
        for name, values in _RUNNING[self].held.items():
            self._places[name] = _put(self, name, to_tensor(values.copy()).squeeze(0))
        if not self._places:
            self.none = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.eval()

    def _begin(self, graph: RuntimeGraph, names: Collection[str]) -> None:
        held = {one.name: one.rows(graph.read(one.name)) for one in graph.weights if one.name in names}
        _RUNNING[self] = _Running(graph, graph.start({}), held)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, and other processes: these open the file again."""
        return {**self.__dict__, "_path": _RUNNING[self].graph.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy."""
        path = state.pop("_path")
        self.__dict__.update(state)
        graph = self._of(path)
        if graph.digest != self._digest:
            raise ModelError(
                "The graph changed since it was loaded.", where=str(path), expected=self._digest[:8],
                got=graph.digest[:8], do="Start again.",
            )  # fmt: skip
        self._begin(graph, self._places)

    def forward(self, *given: Tensor, **named: Tensor) -> Tensor:
        """The graph's answers ``[example, ...]``, as its runtime gives them."""
        running = _RUNNING[self]
        feeds = dict(_feeds(running.graph, given, named))
        run, lengths = self._current(running), {one.shape[0] for one in running.graph.inputs if one.shape}
        size = next((length for length in lengths if length is not None), None)
        count = len(next(iter(feeds.values())))
        found: list[Numbers] = []
        for start in range(0, count, size or max(count, 1)):
            part = {name: one[start : start + (size or count)] for name, one in feeds.items()}
            short = (size or 0) - len(next(iter(part.values())))
            if short > 0:  # the graph is of so many examples: the last one fills up
                part = {name: np.concatenate([one, one[-1:].repeat(short, 0)]) for name, one in part.items()}
            with parsing(running.graph.path, "The runtime fails on the graph.", expected="answers to these inputs"):
                found.append(run(part))
        return to_tensor(np.concatenate(found)[:count])

    def _current(self, running: _Running) -> Run:
        """The runtime with the weights as they are now."""
        named = dict(self.named_parameters()) | dict(self.named_buffers())
        own = {name: named[place].detach().cpu().numpy() for name, place in self._places.items()}
        if any(bool((one != running.held[name].reshape(one.shape)).any()) for name, one in own.items()):
            known = {weight.name: weight for weight in running.graph.weights}
            running.run = running.graph.start({name: known[name].stored(one) for name, one in own.items()})
            running.held = {name: one.copy() for name, one in own.items()}
        return running.run


def _put(root: nn.Module, name: str, held: Tensor) -> str:
    """Makes a tensor a parameter (whole numbers: a buffer) at the place that its name says; gives that place."""
    plain = re.fullmatch(r"\w+(\.\w+)*", name)
    *path, last = name.split(".") if plain else [name.replace(".", "/")]
    place: list[str] = []
    for part in path:
        inner = dict(root.named_children())
        free = _free(part, set(dir(root)) - inner.keys())
        if free not in inner:
            root.add_module(free, nn.Module())
        root = root.get_submodule(free)
        place.append(free)
    last = _free(last, set(dir(root)))
    if held.is_floating_point():
        root.register_parameter(last, nn.Parameter(held, requires_grad=False))
    else:
        root.register_buffer(last, held)
    return ".".join([*place, last])


def _free(name: str, taken: Set[str]) -> str:
    while name in taken:  # by what every module has, say
        name += "_"
    return name


def _feeds(graph: RuntimeGraph, given: Sequence[Tensor], named: Mapping[str, Tensor]) -> Iterator[tuple[str, Numbers]]:
    """What each input of a graph is given, in its dtype.

    Raises:
        ModelError: If inputs have other names, shapes, or kinds of numbers.
    """
    wanted = [one.name for one in graph.inputs]
    names = list(named) or wanted[: len(given)]
    if set(names) != set(wanted) or len(given) > len(wanted):
        raise ModelError(
            "The graph reads other inputs than the task has.", where=str(graph.path), expected=", ".join(wanted),
            got=", ".join(named) or f"{len(given)} without a name",
            do="Give the task inputs by these names (arrays of the .npz file), or export the graph with the task's.",
        )  # fmt: skip
    values = dict(zip(names, (*given, *named.values()), strict=True))
    for port in graph.inputs:
        array = to_array(values[port.name]) if values[port.name].is_floating_point() else values[port.name].numpy()
        fits = len(array.shape) == len(port.shape) and all(
            length in (None, held) for length, held in zip(port.shape[1:], array.shape[1:], strict=True)
        )
        cast = _cast(array, port) if fits else None
        if cast is None:
            kind, mine = ", ".join(str(length or "any") for length in port.shape[1:]), list(array.shape[1:])
            raise ModelError(
                "The graph reads inputs of another shape or kind than the task has.",
                where=f"{graph.path}: {port.name}", expected=f"{port.dtype} [example, {kind}]",
                got=f"{values[port.name].dtype} [example, {str(mine)[1:-1]}]".replace("torch.", ""),
                do="Export the graph for the task's inputs, or give a task with the graph's.",
            )  # fmt: skip
        yield port.name, cast


def _cast(array: Numbers, port: GraphInput) -> Numbers | None:
    """Numbers in the dtype of an input; none where that would change them by more than rounding."""
    if port.grid is not None and array.dtype.kind == "f":
        return port.grid.codes(array).astype(port.dtype)
    if array.dtype == port.dtype or array.dtype.kind == port.dtype.kind == "f":
        return array.astype(port.dtype, copy=False)
    if array.dtype.kind not in "iu" or port.dtype.kind not in "iu":
        return None
    cast = array.astype(port.dtype)
    return cast if np.array_equal(cast, array) else None


@final
class ShippedGraph(ShippedModel):
    """A graph beside the model that it was made from."""

    def __init__(self, graph: RuntimeGraph, *, reference: Subject) -> None:
        self._graph, self._reference = graph, reference

    def fingerprint(self) -> str:
        """See ``ShippedModel.fingerprint``."""
        return self._graph.digest

    def model(self) -> nn.Module:
        """See ``ShippedModel.model``."""
        return GraphModule(self._graph, disturbed=False)

    def weights(self) -> StoredWeights:
        """See ``ShippedModel.weights``."""
        from wheeltap.sources.graph_match import GraphMatcher

        return GraphMatcher(self._graph, self._reference.model).found()


class GraphFiles(ModelSource):
    """Graphs of one runtime.

    Attributes:
        opened: Opens a file.
    """

    place = "file"
    opened: ClassVar[type[RuntimeGraph]]

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        graph = self.opened(Path(rest).expanduser())
        return LoadedModel(Subject(GraphModule(graph, disturbed=True), name=name))

    def shipped(self, rest: str, *, reference: Subject) -> ShippedGraph:
        """See ``ModelSource.shipped``."""
        return ShippedGraph(self.opened(Path(rest).expanduser()), reference=reference)
