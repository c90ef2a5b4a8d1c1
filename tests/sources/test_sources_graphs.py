"""ONNX and TFLite graphs: answers of their own runtimes to the bit, damaged tensors named, and graphs as originals."""

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_files import FOLDER, Change, TfliteChange, answers, change_onnx, net, noisy, quantize, write_onnx

import wheeltap as wt
from wheeltap.core.errors import FileFormatError, MissingFile, ModelError, WheeltapError
from wheeltap.core.task import Task
from wheeltap.sources import load_model
from wheeltap.sources.base import models
from wheeltap.sources.graphs import GraphModule, ShippedGraph
from wheeltap.sources.shipped import compared

GRAPHS = ("mlp.channels.onnx", "cnn.unsigned.onnx", "lost.static.onnx", "mlp.dynamic.tflite", "cnn.static.tflite")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


def made(folder: Path, name: str) -> Path:
    """A graph by its name; ``lost`` is a CNN whose names were lost."""
    if name.endswith(".tflite"):
        pytest.importorskip("ai_edge_litert", reason="needs the extra tflite")
        return FOLDER / name
    which, *kind = name.removesuffix(".onnx").split(".")
    base = folder / f"{which}.onnx"
    if not base.exists():
        write_onnx(base, net("mlp" if which == "mlp" else "cnn"), names=which != "lost")
    path = folder / name
    return path if path.exists() else quantize(base, kind[0])


def opened(path: Path, reference: torch.nn.Module | None = None) -> ShippedGraph:
    original = net("mlp" if path.name.startswith("mlp") else "cnn") if reference is None else reference
    found = models.get(path.suffix[1:])().shipped(str(path), reference=wt.Subject(original))
    assert isinstance(found, ShippedGraph)
    return found


def damaged(path: Path, original: torch.nn.Module) -> set[str]:
    """Names of the tensors that could be compared and are not sound."""
    rows = compared(opened(path, original).weights(), original)
    return {row.name for row in rows if row.fault not in ("sound", "uncompared")}


# ---- sound graphs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_answers_are_those_of_the_runtime_to_the_bit_and_no_tensor_has_a_fault(folder: Path, name: str) -> None:
    path = made(folder, name)
    task = Task(*noisy(300), batch=48)
    shipped = opened(path)
    own = answers(path, [part.numpy() for part in task.inputs.split(16 if path.suffix == ".tflite" else 48)])
    assert np.array_equal(task.scores(shipped.model()).numpy(), own)
    original = net(name[:3]) if name[:3] in ("mlp", "cnn") else net("cnn")
    rows = compared(shipped.weights(), original)
    assert [row.fault for row in rows] == ["sound"] * 8, rows


# ---- damaged ones ----------------------------------------------------------------------------------------------

DAMAGES: tuple[tuple[str, dict[str, Change], set[str]], ...] = (
    ("cnn.operators", {"4.weight_scale": lambda v: v * 1.2}, {"4.weight_quantized", "4.bias_quantized"}),
    ("mlp.unsigned", {"2.weight_Transposed_zero_point": lambda v: v + 2}, {"2.weight_Transposed_quantized"}),
    ("mlp.channels", {"2.weight_quantized": lambda v: v.T}, {"2.weight_quantized"}),
    ("lost.static", {"Conv_4w_scale": lambda v: v * 2}, {"Conv_4w_quantized: 4.weight"}),
)
"""A graph, the changes of its constants, and the tensors to be named."""


def test_a_damaged_tensor_of_an_onnx_graph_is_named_and_no_other(folder: Path) -> None:
    for name, changes, expected in DAMAGES:
        path = change_onnx(made(folder, f"{name}.onnx"), changes)
        assert damaged(path, net("mlp" if name.startswith("mlp") else "cnn")) == expected, name


def test_a_damaged_tensor_of_a_tflite_graph_is_named_and_no_other(tmp_path: Path) -> None:
    change = TfliteChange(made(tmp_path, "cnn.dynamic.tflite"))
    change.find("Conv2d_4", 4).Quantization().ScaleAsNumpy()[:] *= 2.0
    [tensor] = damaged(change.save(tmp_path / "changed.tflite"), net("cnn"))
    assert tensor.rpartition(": ")[2] == "4.weight"


# ---- rows ------------------------------------------------------------------------------------------------------


def test_rows_say_what_a_loop_over_many_examples_says(folder: Path) -> None:
    original, margin = net("mlp"), 0.05
    broken = change_onnx(made(folder, "mlp.static.onnx"), {"2.weight_quantized": lambda v: v[::-1]})
    paths = [made(folder, name) for name in ("mlp.dynamic.onnx", "mlp.static.tflite")] + [broken]
    specs = [f"{path.suffix[1:]}:{path}" for path in paths]
    report = wt.audit(
        wt.Subject(original), Task(*noisy(1000)), schemes=["int8", *specs], audits="score", margin=margin, seed=1
    )
    rows = {row.scheme: row for row in report.findings if row.code == "WT100"}
    assert list(rows) == ["int8", *specs] and not report.void
    inputs, targets = noisy(20_000)
    right = (original(inputs).argmax(1) == targets).float().mean()
    for path, spec in zip(paths, specs, strict=True):
        own = answers(path, [part.numpy() for part in inputs.split(16)]).argmax(1)
        loss = float(right) - float(np.mean(own == targets.numpy()))
        assert rows[spec].verdict == ("safe" if loss <= margin else "costs"), (path.name, loss)
    files = {row.title.rpartition(" ")[2]: row.verdict for row in report.findings if row.code == "WT003"}
    assert files == {"mlp.dynamic.onnx": "as its formats give", "mlp.static.tflite": "as its formats give",
                     "changed.onnx": "damaged"}  # fmt: skip


# ---- as originals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp.unsigned.onnx", "cnn.static.tflite"])
def test_an_original_is_the_graph_itself_until_its_weights_change(folder: Path, name: str) -> None:
    path = made(folder, name)
    task = Task(*noisy(64), batch=16)
    subject = load_model(str(path))
    assert subject.name == path.stem
    own = answers(path, [part.numpy() for part in task.inputs.split(16)])
    assert np.array_equal(task.scores(subject.model).numpy(), own)
    layer = subject.layers[1]
    weight = subject.parameter(layer.weight)
    before = weight.clone()
    weight.mul_(0.5)
    changed = task.scores(subject.model).numpy()
    assert not np.array_equal(changed, own)
    for again in (copy.deepcopy(subject.model), pickle.loads(pickle.dumps(subject.model))):
        assert np.array_equal(task.scores(again).numpy(), changed)
    weight.copy_(before)
    assert np.array_equal(task.scores(subject.model).numpy(), own)


# ---- what does not fit -----------------------------------------------------------------------------------------


def model_of(path: Path, **how: Any) -> Any:
    return GraphModule(opened(write_onnx(path, net("mlp"), **how))._graph, disturbed=False)


def test_other_inputs_are_refused_and_safe_casts_made(tmp_path: Path) -> None:
    model, inputs = model_of(tmp_path / "mlp.onnx"), noisy(5)[0]
    wanted = model(inputs)
    assert torch.equal(model(inputs.double()), wanted) and torch.equal(model(x=inputs), wanted)
    assert torch.equal(model_of(tmp_path / "mlp2.onnx", example=4)(inputs), wanted)
    for given, named, said in (
        ((inputs[:, :63],), {}, "63]"), ((inputs[..., None],), {}, "64, 1]"), ((), {"pixels": inputs}, "pixels"),
        ((inputs, inputs), {}, "2"), ((inputs.long(),), {}, "int64"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=re.escape(said)):
            model(*given, **named)


def test_graphs_that_cannot_be_trusted_or_read_are_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "mlp.onnx", net("mlp"))
    import onnx

    def refused(change: Callable[[Any], None], kind: type[WheeltapError], said: str) -> None:
        model = onnx.load(path, load_external_data=False)
        change(model)
        onnx.save(model, tmp_path / "bad.onnx")
        with pytest.raises(kind, match=re.escape(said)):
            opened(tmp_path / "bad.onnx", net("mlp"))

    def elsewhere(place: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = 1
            for key, value in (("location", place), ("length", "8192")):
                tensor.external_data.add(key=key, value=value)

        return change

    def custom(model: Any) -> None:
        model.graph.node[1].domain, model.graph.node[1].op_type = "my.company", "Softer"

    (tmp_path / "link.bin").symlink_to("/etc/hostname")
    (tmp_path / "short.bin").write_bytes(b"1234")
    refused(custom, ModelError, "my.company.Softer")
    for place in ("../weights.bin", "/etc/hostname", "link.bin"):
        refused(elsewhere(place), FileFormatError, "folder")
    refused(elsewhere("none.bin"), MissingFile, "none.bin")
    refused(elsewhere("short.bin"), FileFormatError, "short.bin")
    data = path.read_bytes()
    (tmp_path / "bad.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError):
        opened(tmp_path / "bad.onnx", net("mlp"))


def test_weights_beside_a_graph_are_read_and_part_of_its_fingerprint(folder: Path, tmp_path: Path) -> None:
    path, plain = tmp_path / "mlp.onnx", made(folder, "mlp.onnx")
    import onnx

    onnx.save(onnx.load(plain), path, save_as_external_data=True, location="mlp.data", size_threshold=0)
    assert damaged(path, net("mlp")) == set() and (tmp_path / "mlp.data").stat().st_size > 8192
    inputs = noisy(8)[0]
    assert torch.equal(opened(path).model()(inputs), opened(plain).model()(inputs))
    before = opened(path).fingerprint()
    data = bytearray((tmp_path / "mlp.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "mlp.data").write_bytes(data)
    assert opened(path).fingerprint() != before


def test_damaged_tflite_files_are_refused(tmp_path: Path) -> None:
    data = made(tmp_path, "mlp.tflite").read_bytes()
    path = tmp_path / "mlp.tflite"
    for held in (data[: len(data) // 2], b"", b"PK" + data[2:], data[:400] + bytes(200) + data[600:]):
        path.write_bytes(held)
        with pytest.raises(FileFormatError):
            opened(path)
