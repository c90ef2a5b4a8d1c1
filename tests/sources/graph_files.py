"""Nets for digits, and graphs of them: ONNX written here and quantized by onnxruntime, TFLite from files."""

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.sources.graphs.make_graphs import FOLDER, nets
from wheeltap.sources import digits

Values = NDArray[Any]


def net(kind: str) -> nn.Module:
    """The trained net ``mlp`` or ``cnn``."""
    from safetensors.torch import load_file

    made = nets()[kind]
    made.load_state_dict(load_file(FOLDER / f"{kind}.safetensors"), strict=False)
    return made.requires_grad_(False)


def write_onnx(path: Path, model: nn.Module, *, names: bool = True, example: int | str = "n") -> Path:
    """Writes a chain of layers, batch norms folded into what is before them.

    Args:
        path: Where.
        model: Linear layers, convolutions, batch norms, ReLU, ``Flatten`` and ``Unflatten``.
        names: Whether constants are called after the parameters.
        example: Examples in a call; a text where any number is.
    """
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    helper: Any = onnx.helper
    nodes, held, last = list[Any](), dict[str, Values](), "x"

    def add(kind: str, *constants: Values, at: int, **how: Any) -> None:
        nonlocal last
        parts = ("weight", "bias") if len(constants) == 2 else ("shape",)
        given = [f"{at}.{part}" if names or part == "shape" else f"{kind}_{at}{part[0]}" for part in parts]
        given = given[: len(constants)]
        held.update(zip(given, constants, strict=True))
        nodes.append(helper.make_node(kind, [last, *given], [f"h{at}"], **how))
        last = f"h{at}"

    layers = list(model)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
    for at, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            add("Gemm", layer.weight.numpy(), layer.bias.numpy(), at=at, transB=1)
        elif isinstance(layer, nn.Conv2d):
            weight, bias, norm = layer.weight, layer.bias, layers[at + 1]
            if isinstance(norm, nn.BatchNorm2d):
                factor = norm.weight / (norm.running_var + norm.eps).sqrt()
                weight, bias = weight * factor[:, None, None, None], (bias - norm.running_mean) * factor + norm.bias
            pads = [layer.padding[0]] * 4
            add("Conv", weight.numpy(), bias.numpy(), at=at, pads=pads, strides=list(layer.stride))
        elif isinstance(layer, nn.ReLU):
            add("Relu", at=at)
        elif isinstance(layer, nn.Flatten):
            add("Flatten", at=at)
        elif isinstance(layer, nn.Unflatten):
            add("Reshape", np.array([-1, 1, 8, 8]), at=at)
    nodes[-1].output[0] = "y"
    constants = [onnx.numpy_helper.from_array(values, name) for name, values in held.items()]
    ends = [helper.make_tensor_value_info(one, 1, [example, size]) for one, size in (("x", 64), ("y", 10))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, path)
    return path


def quantize(path: Path, kind: str) -> Path:
    """Quantizes an ONNX file with onnxruntime: ``dynamic``, ``unsigned``, ``static``, ``channels`` or ``operators``."""
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    made, types = path.with_suffix(f".{kind}.onnx"), quantization.QuantType
    if kind in ("dynamic", "unsigned"):
        quantization.quantize_dynamic(path, made, weight_type=types.QInt8 if kind == "dynamic" else types.QUInt8)
        return made

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = iter(digits.split().train_inputs.split(100))

        def get_next(self) -> Any:
            part = next(self.parts, None)
            return None if part is None else {"x": part.numpy()}

    forms = quantization.QuantFormat
    quantization.quantize_static(
        path, made, Reader(), quant_format=forms.QOperator if kind == "operators" else forms.QDQ,
        per_channel=kind == "channels", weight_type=types.QInt8,
    )  # fmt: skip
    return made


Change = Callable[[Values], Values]


def change_onnx(path: Path, changes: dict[str, Change]) -> Path:
    """A copy of an ONNX file with other constants."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    model, made = onnx.load(path), path.with_name("changed.onnx")
    left = dict(changes)
    for tensor in model.graph.initializer:
        if tensor.name in left:
            values = left.pop(tensor.name)(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    assert not left, f"no constants {list(left)} in {[one.name for one in model.graph.initializer]}"
    onnx.save(model, made)
    return made


class TfliteChange:
    """Changes a copy of a TFLite file in place.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
        self.data = bytearray(path.read_bytes())
        self._model: Any = schema.Model.GetRootAs(self.data)
        graph = self._model.Subgraphs(0)
        tensors = [graph.Tensors(at) for at in range(graph.TensorsLength())]
        self.tensors = {one.Name().decode(): one for one in tensors}

    def find(self, part: str, axes: int) -> Any:
        """The constant of as many axes with this in its name."""
        found = [
            one for name, one in self.tensors.items()
            if part in name and one.ShapeLength() == axes and self._model.Buffers(one.Buffer()).DataLength()
        ]  # fmt: skip
        assert len(found) == 1, (part, axes, [one.Name() for one in found], list(self.tensors))
        return found[0]

    def save(self, path: Path) -> Path:
        """Writes it."""
        path.write_bytes(self.data)
        return path


def answers(path: Path, inputs: Iterable[Values]) -> Values:
    """What the runtime itself gives for batches, one after the other."""
    if path.suffix == ".onnx":
        session: Any = importlib.import_module("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
        [one] = session.get_inputs()
        return np.concatenate([session.run(None, {one.name: part})[0] for part in inputs])
    interpreter: Any = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(path))
    interpreter.allocate_tensors()
    [first], [last] = interpreter.get_input_details(), interpreter.get_output_details()
    found: list[Values] = []
    for part in inputs:
        held = np.concatenate([part, part[-1:].repeat(int(first["shape"][0]) - len(part), 0)])
        if first["dtype"] is np.int8:
            step, zero = first["quantization"]
            held = np.clip(np.round(held / np.float32(step)) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(first["index"], held)
        interpreter.invoke()
        given = interpreter.get_tensor(last["index"])[: len(part)]
        if last["dtype"] is np.int8:
            step, zero = last["quantization"]
            given = np.float32(step) * (given.astype(np.float32) - zero)
        found.append(given)
    return np.concatenate(found)


def noisy(examples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits with noise, and which they are: so many that what is lost on them is known."""
    data, rng = digits.split(), np.random.default_rng(0)
    rows = rng.integers(0, len(data.test_inputs), examples)
    noise = torch.from_numpy(rng.normal(0.0, 0.25, (examples, 64)).astype(np.float32))
    return data.test_inputs[rows] + noise, data.test_targets[rows]
