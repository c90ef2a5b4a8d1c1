"""TFLite graphs, run by ai-edge-litert; weights are their constant tensors, with what their whole numbers stand for.

Layouts: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

import hashlib
import importlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast, final

import numpy as np
import torch

from wheeltap.core import canon
from wheeltap.core.bounded import contents, parsing
from wheeltap.core.errors import ModelError
from wheeltap.sources.graphs import (
    LARGEST,
    PACKED,
    GraphFiles,
    GraphInput,
    GraphWeight,
    Grid,
    Numbers,
    Run,
    RuntimeGraph,
    spread,
)
from wheeltap.sources.hf import library


class _Operator(NamedTuple):
    """Where a product has its constants among its inputs.

    Attributes:
        weight: The weight.
        axes: The order of its axes in torch.
        bias: What is added; -1: nothing.
    """

    weight: int
    axes: tuple[int, ...]
    bias: int = -1


_Node = tuple[str, list[int], list[int]]
"""An operator, and the numbers of its inputs and outputs."""

_OPERATORS: Final[Mapping[str, _Operator]] = {
    "FULLY_CONNECTED": _Operator(1, (0, 1), 2), "CONV_2D": _Operator(1, (0, 3, 1, 2), 2),
    "DEPTHWISE_CONV_2D": _Operator(1, (3, 0, 1, 2), 2), "TRANSPOSE_CONV": _Operator(1, (3, 0, 1, 2), 3),
    "GATHER": _Operator(0, (0, 1)), "EMBEDDING_LOOKUP": _Operator(1, (0, 1)),
}  # fmt: skip

_DTYPES: Final = {"FLOAT32": "f4", "FLOAT16": "f2", "FLOAT64": "f8", "INT8": "i1", "INT16": "i2", "INT32": "i4",
                  "INT64": "i8", "UINT8": "u1", "BOOL": "?"}  # fmt: skip

_DAMAGED: Final = "The TFLite file cannot be read."


@final
class TfliteGraph(RuntimeGraph):
    """A graph in a TFLite file: its first one.

    Raises:
        MissingFile: If it is not there.
        MissingExtra: If ai-edge-litert is not installed.
        FileFormatError: If it is damaged.
        ModelError: If it has custom operators.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        library("ai_edge_litert", needed_for=path.name, extra="tflite")
        self._interpreter: Any = importlib.import_module("ai_edge_litert.interpreter").Interpreter
        self._schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
        self._data = contents(path, "TFLite file", limit=LARGEST)
        self.digest = canon.key("graph", ["tflite", hashlib.sha256(self._data).hexdigest()])
        with parsing(path, _DAMAGED, expected="a whole TFLite file"):
            if self._data[4:8] != b"TFL3":
                raise ValueError(f"a file that begins with {self._data[:8]!r}")
            self._interpreter(model_content=self._data)  # it verifies the file, so that what follows can read it
            self._model: Any = self._schema.Model.GetRootAs(self._data)
            self._graph: Any = self._model.Subgraphs(0)
            codes = [self._model.OperatorCodes(at) for at in range(self._model.OperatorCodesLength())]
        names, self._types = _called(self._schema.BuiltinOperator), _called(self._schema.TensorType)
        kinds: list[str] = [names.get(max(one.BuiltinCode(), one.DeprecatedBuiltinCode()), "") for one in codes]
        custom = [(one.CustomCode() or b"").decode(errors="replace") for one in codes if one.CustomCode()]
        if custom or "CUSTOM" in kinds:
            raise ModelError(
                "The graph has custom operators.", where=str(path), expected="operators of TFLite alone",
                got=", ".join(custom[:5]), do="Convert it without: libraries of custom operators are not loaded.",
            )  # fmt: skip
        with parsing(path, _DAMAGED, expected="weights that fit its operators"):
            self._tensors = [self._graph.Tensors(at) for at in range(self._graph.TensorsLength())]
            self._names = Counter(one.Name().decode() for one in self._tensors)
            self._places = {self._name(at): at for at in range(len(self._tensors)) if self._bytes(self._data, at).size}
            nodes = [self._graph.Operators(at) for at in range(self._graph.OperatorsLength())]
            ends = [(_indices(one.InputsAsNumpy()), _indices(one.OutputsAsNumpy())) for one in nodes]
            self._nodes: list[_Node] = [
                (kinds[one.OpcodeIndex()], *each) for one, each in zip(nodes, ends, strict=True)
            ]
            self.weights = tuple(self._weights())
            self.inputs = tuple(self._port(int(at)) for at in self._graph.InputsAsNumpy())

    def read(self, name: str) -> Numbers:
        """See ``RuntimeGraph.read``."""
        at = self._places[name]
        with parsing(self.path, "A weight of the TFLite file cannot be read.", expected="as many numbers as it says"):
            held = self._bytes(self._data, at)
            return held.view(self._dtype(at)).reshape(self._shape(at)) if self._type(at) in _DTYPES else held

    def start(self, changed: Mapping[str, Numbers]) -> Run:
        """See ``RuntimeGraph.start``."""
        data = bytearray(self._data)
        for name, values in changed.items():
            self._bytes(data, self._places[name])[:] = np.frombuffer(values.tobytes(), np.uint8)
        with parsing(self.path, "ai-edge-litert refuses the graph.", expected="a graph that it runs on a CPU"):
            made = self._interpreter(model_content=bytes(data), num_threads=torch.get_num_threads())
            made.allocate_tensors()
        outputs = [(int(at), self._port(int(at))) for at in self._graph.OutputsAsNumpy()]
        at, port = next((one for one in outputs if one[1].name == "logits"), outputs[0])
        places = {one.name: int(index) for one, index in zip(self.inputs, self._graph.InputsAsNumpy(), strict=True)}

        def run(feeds: Mapping[str, Numbers]) -> Numbers:
            shapes = {int(one["index"]): tuple(one["shape"]) for one in made.get_input_details()}
            other = [name for name, one in feeds.items() if shapes[places[name]] != one.shape]
            for name in other:
                made.resize_tensor_input(places[name], feeds[name].shape)
            if other:
                made.allocate_tensors()
            for name, one in feeds.items():
                made.set_tensor(places[name], one)
            made.invoke()
            found = made.get_tensor(at)
            return found if port.grid is None else port.grid.values(found)

        return run

    def _weights(self) -> Iterator[GraphWeight]:
        made = {output: node for node in self._nodes for output in node[2]}
        seen = set[int]()

        def traced(inputs: list[int], at: int) -> int:
            """The constant that an input is, or is decompressed from; -1: none."""
            found = inputs[at] if 0 <= at < len(inputs) else -1
            node = made.get(found)
            found = node[1][0] if node is not None and node[0] == "DEQUANTIZE" else found
            return found if found in constants and found not in seen else -1

        constants = set(self._places.values())
        for kind, inputs, _ in self._nodes:
            operator = _OPERATORS.get(kind)
            weight = -1 if operator is None else traced(inputs, operator.weight)
            if operator is None or weight < 0 or len(operator.axes) != len(self._shape(weight)):
                continue
            seen.add(weight)
            yield self._weight(weight, operator.axes)
            bias = traced(inputs, operator.bias)
            if bias >= 0:
                seen.add(bias)
                yield self._weight(bias, (0,), bias_of=self._name(weight))
        for at in sorted(constants - seen):
            dtype, size = self._dtype(at), math.prod(self._shape(at))
            packed = dtype.itemsize == 1 and size >= PACKED
            if packed or (dtype.kind == "f" and size > 1 and np.isfinite(self.read(self._name(at))).all()):
                yield self._weight(at, tuple(range(len(self._shape(at)))))

    def _weight(self, at: int, axes: tuple[int, ...], bias_of: str = "") -> GraphWeight:
        grid, dtype = self._grid(at), self._dtype(at)
        return GraphWeight(
            name=self._name(at), shape=self._shape(at), dtype=dtype, axes=axes, grid=grid, bias_of=bias_of,
            opaque=dtype.kind != "f" and grid is None,
        )  # fmt: skip

    def _grid(self, at: int) -> Grid | None:
        """What the whole numbers of a tensor stand for; none where they stand for themselves, or it is not known."""
        held, dtype = self._tensors[at].Quantization(), self._dtype(at)
        whole = self._type(at) in _DTYPES and dtype.kind in "iu"
        if held is None or not whole or not held.ScaleLength() or held.DetailsType():
            return None
        scale, zero = held.ScaleAsNumpy(), held.ZeroPointAsNumpy() if held.ZeroPointLength() else np.zeros(1)
        shape, axis, limits = self._shape(at), held.QuantizedDimension(), np.iinfo(dtype)
        return Grid(
            scale=spread(scale, shape, axis), zero=spread(zero, shape, axis), low=int(limits.min), high=int(limits.max)
        )

    def _port(self, at: int) -> GraphInput:
        """An input or output, by its name in the first signature where there is one."""
        named = dict[int, str]()
        if self._model.SignatureDefsLength():
            first = self._model.SignatureDefs(0)
            maps = [*map(first.Inputs, range(first.InputsLength())), *map(first.Outputs, range(first.OutputsLength()))]
            named = {int(one.TensorIndex()): one.Name().decode() for one in maps}
        tensor, grid = self._tensors[at], self._grid(at)
        open_at = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else self._shape(at)
        shape = tuple(None if length < 0 else int(length) for length in open_at)
        if not shape:
            raise ValueError(f"input or output {self._name(at)} without axes")
        return GraphInput(name=named.get(at, self._name(at)), shape=shape, dtype=self._dtype(at), grid=grid)

    def _name(self, at: int) -> str:
        """Of a tensor; of several that are called alike, with its number."""
        name = self._tensors[at].Name().decode()
        return name if self._names[name] == 1 else f"{name} {at}"

    def _shape(self, at: int) -> tuple[int, ...]:
        tensor = self._tensors[at]
        return tuple(int(one) for one in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()

    def _dtype(self, at: int) -> "np.dtype[Any]":
        """Of a tensor; bytes where numbers are packed in another way."""
        return np.dtype(_DTYPES.get(self._type(at), "u1"))

    def _type(self, at: int) -> str:
        """Of a tensor, as the file calls it."""
        return self._types.get(self._tensors[at].Type(), "")

    def _bytes(self, data: bytes | bytearray, at: int) -> Numbers:
        """Of a tensor, in the file or a copy of it."""
        held = self._schema.Model.GetRootAs(data).Buffers(self._tensors[at].Buffer())
        if held.DataLength():
            return held.DataAsNumpy()
        return np.frombuffer(data, np.uint8, held.Size() if held.Offset() > 1 else 0, held.Offset())


def _called(kinds: Any) -> dict[int, str]:
    """Names of the numbers of an enumeration."""
    members = cast("dict[str, Any]", vars(kinds))
    return {number: name for name, number in members.items() if name.isupper()}


def _indices(given: Any) -> list[int]:
    """Numbers of tensors; none where there is no list of them."""
    listed: list[int] = [] if isinstance(given, int) else given.tolist()
    return listed


@final
class TfliteFiles(GraphFiles):
    """See ``TfliteGraph``."""

    form = "tflite:FILE"
    title = "A graph in a TFLite file, run by ai-edge-litert (extra: tflite)."
    opened = TfliteGraph
