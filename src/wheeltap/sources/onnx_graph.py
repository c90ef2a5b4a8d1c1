"""ONNX graphs, run by onnxruntime; weights are their initializers and constants, of quantized graphs with their grids.

Operators: https://onnx.ai/onnx/operators/ and
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

import hashlib
import importlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch

from wheeltap.core import canon
from wheeltap.core.bounded import contents, opened, parsing, size_of
from wheeltap.core.errors import FileFormatError, ModelError
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

_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Whose operators onnxruntime has by itself."""


class _Operator(NamedTuple):
    """Where a product has its constants among its inputs; -1: none.

    Attributes:
        weight: The weight.
        scale: That of the weight.
        zero: Its zero point.
        bias: What is added.
        inputs: The scale of what it is multiplied with: a bias of whole numbers has the product of both.
        rows: Whether a row of the weight is a unit; else a column is.
    """

    weight: int = 1
    scale: int = -1
    zero: int = -1
    bias: int = -1
    inputs: int = -1
    rows: bool = True


_OPERATORS: Final[Mapping[str, _Operator]] = {
    "Gemm": _Operator(bias=2, rows=False), "MatMul": _Operator(rows=False), "Conv": _Operator(bias=2),
    "ConvTranspose": _Operator(bias=2), "Gather": _Operator(weight=0), "MatMulInteger": _Operator(zero=3, rows=False),
    "ConvInteger": _Operator(zero=3), "QLinearConv": _Operator(3, 4, 5, bias=8, inputs=1),
    "QLinearMatMul": _Operator(3, 4, 5, rows=False), "QGemm": _Operator(3, 4, 5, bias=6, inputs=1, rows=False),
    "DynamicQuantizeMatMul": _Operator(1, 2, 3, bias=4, rows=False),
    "MatMulIntegerToFloat": _Operator(1, 3, 5, bias=6, rows=False),
}  # fmt: skip

_GRIDS: Final = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


_PASSED: Final = ("Identity", "Cast", "Transpose", "Reshape", "QuantizeLinear", "DequantizeLinear")
"""Operators behind which a constant is looked for."""


class _Traced(NamedTuple):
    """A constant behind an input of an operator.

    Attributes:
        axes: The order of its axes there.
        grid: What its numbers stand for.
    """

    name: str
    axes: tuple[int, ...]
    grid: Grid | None


@final
class OnnxGraph(RuntimeGraph):
    """A graph in an ONNX file.

    Raises:
        MissingFile: If it, or one that it refers to, is not there.
        MissingExtra: If onnx or onnxruntime is not installed.
        FileFormatError: If it is damaged, or refers to files outside of its folder.
        ModelError: If it has operators that onnxruntime lacks.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        onnx, self._runtime = (library(one, needed_for=path.name, extra="onnx") for one in ("onnx", "onnxruntime"))
        self._onnx: Any = onnx
        data = contents(path, "ONNX file", limit=LARGEST)
        with parsing(path, _DAMAGED, expected="a whole ONNX file"):
            self._model: Any = onnx.ModelProto.FromString(data)
            if not self._model.graph.node:
                raise ValueError("a graph without operators")
            if self._model.functions:
                self._model = importlib.import_module("onnx.inliner").inline_local_functions(self._model)
        self._nodes = list(_nodes(self._model.graph))
        foreign = sorted({f"{one.domain}.{one.op_type}" for one in self._nodes if one.domain not in _DOMAINS})
        if foreign:
            raise ModelError(
                "The graph has operators that onnxruntime does not have by itself.", where=str(path),
                expected="operators of ONNX and of onnxruntime", got=", ".join(foreign[:5]),
                do="Export it without custom operators: libraries of these are not loaded.",
            )  # fmt: skip
        every: list[tuple[Any, Any]] = list(_tensors(self._model.graph))
        digests = [hashlib.sha256(data).hexdigest()]
        beside = {_inside(path.parent, tensor) for _, tensor in every if tensor.data_location}
        for one in sorted(beside):
            with opened(one, "file of weights") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        self.digest = canon.key("graph", ["onnx", *digests])
        self._held: dict[str, Any] = dict(every)
        self._made = {output: node for node in self._nodes for output in node.output}
        self._uses = {name: node for node in self._nodes for name in node.input}
        with parsing(path, _DAMAGED, expected="weights that fit its operators"):
            if any(not isinstance(name, str) for name in (*self._held, *self._made, *self._uses)):
                raise ValueError("names that are no text")
            self.weights = tuple(self._weights())
            self.inputs = tuple(self._ports())

    def read(self, name: str) -> Numbers:
        """See ``RuntimeGraph.read``."""
        helper: Any = self._onnx.numpy_helper
        with parsing(self.path, "A weight of the ONNX file cannot be read.", expected="as many numbers as it says"):
            return helper.to_array(self._held[name], base_dir=str(self.path.parent))

    def start(self, changed: Mapping[str, Numbers]) -> Run:
        """See ``RuntimeGraph.start``."""
        model: Any = self._model
        if changed:
            model = self._onnx.ModelProto()
            model.CopyFrom(self._model)
            held: dict[str, Any] = dict(_tensors(model.graph))
            for name, values in changed.items():
                held[name].CopyFrom(self._onnx.numpy_helper.from_array(values, held[name].name))
        options = self._runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, torch.get_num_threads()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.path.parent))
        with parsing(self.path, "onnxruntime refuses the graph.", expected="a graph that it runs on a CPU"):
            session = self._runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        given = {one.name: one.type for one in session.get_outputs()}
        floats = [
            name for name, kind in given.items() if kind in ("tensor(float)", "tensor(float16)", "tensor(double)")
        ]
        output = "logits" if "logits" in given else (floats or list(given))[0]
        return lambda feeds: session.run([output], dict(feeds))[0]

    def _ports(self) -> Iterator[GraphInput]:
        """What it reads, besides constants."""
        for one in self._model.graph.input:
            if one.name not in self._held:
                tensor = one.type.tensor_type
                shape = tuple(int(each.dim_value) or None for each in tensor.shape.dim)
                dtype = np.dtype(self._onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
                if not shape or dtype.kind not in "fiub":
                    raise ValueError(f"input {one.name} of {dtype} {list(shape)}")
                yield GraphInput(name=one.name, shape=shape, dtype=dtype)

    # ---- weights ------------------------------------------------------------------------------------------------

    def _weights(self) -> Iterator[GraphWeight]:
        seen = set[str]()
        for node in self._nodes:
            operator = _OPERATORS.get(node.op_type)
            if node.op_type in _GRIDS:
                seen.update(node.input[1:])
            if operator is None:
                continue
            given = {field: _input(node, at) for field, at in operator._asdict().items() if field != "rows"}
            seen.update(given[one] for one in ("scale", "zero", "inputs"))
            weight = self._traced(given["weight"])
            if weight is None or weight.name in seen:
                continue
            seen.add(weight.name)
            rows = operator.rows or _attribute(node, "transB", 0) == 1
            grid, behind = weight.grid, self._behind(node)
            scale, zero = given["scale"] or behind[0], given["zero"] or behind[1]
            if grid is None and scale:
                seen |= {scale, zero}
                grid = self._grid(weight.name, scale, zero, axis=0 if rows or len(weight.axes) > 2 else 1)
            turned = weight.axes if rows or len(weight.axes) != 2 else weight.axes[::-1]
            plain = _attribute(node, "alpha", 1.0) == 1.0
            yield self._weight(weight._replace(axes=turned, grid=grid), plain=plain)
            bias = self._traced(given["bias"] or behind[2])
            if bias is not None and bias.name not in seen:
                seen.add(bias.name)
                if bias.grid is None and given["inputs"] and grid is not None:
                    step = self.read(given["inputs"]).reshape(-1) * grid.scale.reshape(-1)
                    bias = bias._replace(grid=Grid(scale=step, zero=np.zeros(1), low=-(2**31), high=2**31 - 1))
                yield self._weight(bias, plain=_attribute(node, "beta", 1.0) == 1.0, bias_of=weight.name)
        for node in self._nodes:
            found = self._traced(node.output[0]) if node.op_type == "DequantizeLinear" else None
            if found is not None and found.name not in seen and math.prod(self._held[found.name].dims) > 1:
                seen.add(found.name)
                yield self._weight(found, plain=True)
        for name, tensor in self._held.items():
            if name not in seen and math.prod(tensor.dims) > 1:
                dtype = self._dtype(name)
                packed = "int" in dtype.name and dtype.itemsize == 1 and math.prod(tensor.dims) >= PACKED
                if packed or (dtype.kind == "f" and np.isfinite(self.read(name)).all()):
                    yield self._weight(_Traced(name, tuple(range(len(tensor.dims))), None), plain=True)

    def _weight(self, traced: _Traced, *, plain: bool, bias_of: str = "") -> GraphWeight:
        dtype = self._dtype(traced.name)
        known = plain and (traced.grid is not None if "int" in dtype.name else "float8" not in dtype.name)
        return GraphWeight(
            name=traced.name, shape=tuple(self._held[traced.name].dims), dtype=dtype, axes=traced.axes,
            grid=traced.grid, bias_of=bias_of, opaque=not known,
        )  # fmt: skip

    def _dtype(self, name: str) -> "np.dtype[Any]":
        return np.dtype(self._onnx.helper.tensor_dtype_to_np_dtype(self._held[name].data_type))

    def _traced(self, name: str, depth: int = 0) -> _Traced | None:
        """The constant that an input is, or is made of; none where it is neither."""
        if name in self._held:
            return _Traced(name, tuple(range(len(self._held[name].dims))), None)
        node = self._made.get(name)
        if node is None or depth > _DEEP or node.op_type not in _PASSED:
            return None
        found = self._traced(node.input[0], depth + 1)
        if found is None or (found.grid is not None and node.op_type in _GRIDS):
            return None
        if node.op_type == "Reshape" and len(found.axes) > 1:
            return None
        if node.op_type == "Transpose":
            order: list[int] = _attribute(node, "perm", list(range(len(found.axes)))[::-1])
            return found._replace(axes=tuple(found.axes[at] for at in order))
        if node.op_type == "DequantizeLinear" and found.axes == tuple(range(len(found.axes))):
            axis, block = _attribute(node, "axis", 1), _attribute(node, "block_size", 0)
            grid = self._grid(found.name, node.input[1], _input(node, 2), axis=axis, block=block)
            return None if grid is None else found._replace(grid=grid)
        return found

    def _grid(self, name: str, scale: str, zero: str, *, axis: int, block: int = 0) -> Grid | None:
        """The grid of a constant; none where that is computed."""
        if scale not in self._held or (zero and zero not in self._held):
            return None
        kind = self._dtype(name if "int" in self._dtype(name).name or not zero else zero).name
        bits = int(re.sub(r"\D", "", kind)) if "int" in kind else 8
        low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        shape = tuple(self._held[name].dims)
        zeros = self.read(zero) if zero else np.zeros(1, np.float32)
        return Grid(
            scale=spread(self.read(scale), shape, axis, block=block), zero=spread(zeros, shape, axis, block=block),
            low=low, high=high, block=block,
        )  # fmt: skip

    def _behind(self, node: Any) -> tuple[str, str, str]:
        """Constants behind a product: what it is scaled by, beside its input's scale, the zero point, what is added."""
        behind = self._uses.get(node.output[0])
        if behind is None or (node.op_type == "Gather" and behind.op_type != "DequantizeLinear"):
            return "", "", ""
        if node.op_type == "Gather":
            return str(behind.input[1]), _input(behind, 2), ""
        scale = ""
        if node.op_type in ("MatMulInteger", "ConvInteger") and behind.op_type == "Cast":
            cast, behind = behind.output[0], self._uses.get(behind.output[0])
            factors: list[str] = [] if behind is None else list(behind.input)
            makers = [self._made.get(name) for name in factors if name != cast]
            scales = [str(name) for one in makers if one is not None for name in one.input]
            scale = next((name for name in scales if name in self._held), "")
            behind = None if behind is None else self._uses.get(behind.output[0])
        added = behind.input if behind is not None and behind.op_type == "Add" else ()
        return scale, "", next((name for name in added if self._traced(name) is not None), "")


_DAMAGED: Final = "The ONNX file cannot be read."

_DEEP: Final = 16
"""Operators behind each other through which a constant is looked for."""


def _attribute(node: Any, name: str, otherwise: Any) -> Any:
    found = next((one for one in node.attribute if one.name == name), None)
    if found is None:
        return otherwise
    return {1: found.f, 2: found.i, 7: list(found.ints)}.get(found.type, otherwise)


def _input(node: Any, at: int) -> str:
    return str(node.input[at]) if 0 <= at < len(node.input) else ""


def _nodes(graph: Any) -> Iterator[Any]:
    """Operators of a graph and of those within it."""
    for node in graph.node:
        yield node
        for one in node.attribute:
            for inner in (*one.graphs, *([one.g] if one.type == _GRAPH else [])):
                yield from _nodes(inner)


_GRAPH: Final = 5
"""Kind of an attribute that is a graph."""


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Constants of a graph and of those within it; those without a name of their own have another one each."""
    yield from ((one.name, one) for one in graph.initializer)
    for node in graph.node:
        for one in node.attribute:
            for at, tensor in enumerate((*one.tensors, *([one.t] if one.HasField("t") else []))):
                alone = node.op_type == "Constant" and one.name == "value"
                yield node.output[0] if alone else f"{node.output[0]} {one.name} {at}", tensor
            for inner in (*one.graphs, *([one.g] if one.type == _GRAPH else [])):
                yield from _tensors(inner)


def _inside(folder: Path, tensor: Any) -> Path:
    """The file that holds the numbers of a constant.

    Raises:
        FileFormatError: If it is outside of the folder, or shorter than the constant.
    """
    said = {one.key: one.value for one in tensor.external_data}
    place = folder / said.get("location", "")
    inside = place.resolve().is_relative_to(folder.resolve()) and place.name == said.get("location")
    if not inside:
        raise FileFormatError(
            "The ONNX file refers to a file outside of its folder.", where=f"{folder}: {tensor.name}",
            expected="the name of a file beside it", got=said.get("location", "none")[:200],
            do="Do not trust this file, or save its weights beside it.",
        )  # fmt: skip
    with parsing(place, "The ONNX file refers to bytes that are not there.", expected="an offset and a length"):
        start, length = int(said.get("offset", 0)), int(said.get("length", 0))
        if start < 0 or length < 0 or start + length > size_of(place, "file of weights"):
            raise ValueError(f"{tensor.name}: {length} bytes from {start} on")
    return place


@final
class OnnxFiles(GraphFiles):
    """See ``OnnxGraph``."""

    form = "onnx:FILE"
    title = "A graph in an ONNX file, run by onnxruntime (extra: onnx)."
    opened = OnnxGraph
