"""Graphs of edges and their files; areas under faithfulness; no nonsense is read."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.published import published
from wheeltap.core import bounded
from wheeltap.core.errors import FileFormatError, MissingFile, ModelError
from wheeltap.suites.circuits.circuit import Circuit, EdgeGraph, Origin, is_mib, read_mib, write_mib

ORIGIN = Origin(model="aa", name="net", task="agreement", examples="bb", found={"method": "eap", "target": 0.1})


def circuit(graph: EdgeGraph, *, seed: int = 0, origin: Origin | None = None) -> Circuit:
    rng = np.random.default_rng(seed)
    kept = rng.random(len(graph.edges)) < 0.3
    return Circuit(graph, kept, rng.standard_normal(len(kept)), origin)


def test_the_published_circuit_is_read(tmp_path: Path) -> None:
    path = published("mib-circuit/ioi-eap-ig.json.gz")
    found = read_mib(path)
    assert found.graph == EdgeGraph(12, 12, 12, 768) and found.origin is None and is_mib(path)
    assert (len(found.graph.edges), len(found.graph.nodes)) == (32_491, 158)
    assert (int(found.kept.sum()), int(found.graph.touched(found.kept).sum())) == (756, 81)
    assert EdgeGraph.of_numbers(found.graph.numbers) == found.graph
    write_mib(found, tmp_path / "own.json")
    published_data = json.loads(gzip.decompress(path.read_bytes()))
    own = json.loads((tmp_path / "own.json").read_bytes())
    for kind in ("nodes", "edges"):
        flags = [{name: one["in_graph"] for name, one in data[kind].items()} for data in (published_data, own)]
        assert flags[0] == flags[1]


GRAPHS = st.builds(
    lambda layers, groups, share, width, parallel, mlps: EdgeGraph(
        layers, groups * share, groups, width, parallel=parallel, mlps=mlps
    ),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.none() | st.integers(1, 8),
    st.booleans(),
    st.booleans(),
)


def slow_edges(graph: EdgeGraph) -> set[str]:
    """By the rule that a component reads all that is computed before it."""
    share, edges = graph.heads // graph.groups, set[str]()
    for target in graph.nodes:
        kind, layer = target[0], int(target[1:].partition(".")[0]) if target[1:2].isdigit() else graph.layers
        for source in graph.writers:
            at = -1 if source == "input" else int(source[1:].partition(".")[0])
            same = at == layer and source[0] == "a" and kind == "m" and not graph.parallel
            if target == "input" or not (at < layer or same):
                continue
            head = int(target.partition(".h")[2] or 0)
            channels = ("<q>", "<k>", "<v>") if head % share == 0 else ("<q>",)
            edges |= {f"{source}->{target}{channel}" for channel in (channels if kind == "a" else ("",))}
    return edges


@given(GRAPHS)
@settings(max_examples=30)
def test_edges_of_any_graph(graph: EdgeGraph) -> None:
    assert set(graph.edges) == slow_edges(graph)
    by_stage = sum(stage.writers * len(stage.readers) for stage in graph.stages)
    assert len(graph.edges) == len(set(graph.edges)) == by_stage


def test_a_file_keeps_the_circuit(tmp_path: Path) -> None:
    own = circuit(EdgeGraph(2, 4, 2, 16, parallel=True), origin=ORIGIN)
    assert own.scores is not None
    for path in (tmp_path / "own.json", tmp_path / "own.json.gz"):
        write_mib(own, path)
        found = read_mib(path)
        assert (found.graph, found.kept.tolist(), found.origin) == (own.graph, own.kept.tolist(), ORIGIN)
        assert is_mib(path)
    edges = json.loads((tmp_path / "own.json").read_text())["edges"]
    assert [edge["score"] for edge in edges.values()] == own.scores.tolist()


def plain(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Circuit:
    own = circuit(EdgeGraph(1, 2, 2, 8))
    write_mib(own, tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(change(data) or data))
    return read_mib(tmp_path / "a.json")


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda d: d["nodes"].update({"a9.h0": {"in_graph": True}}),
    lambda d: d["edges"].update({"x->m0": {"score": 1, "in_graph": True}}),
    lambda d: d["edges"].update({"m0->a0.h0<q>": {"score": 1, "in_graph": True}}),
    lambda d: d["edges"].update({"input->m0": {"score": 1, "in_graph": 1}}),
    lambda d: d["edges"].update({"input->m0": 1}),
    lambda d: d.pop("nodes") and None,
    lambda d: d["cfg"].update(n_layers=1.5),
    lambda d: d["cfg"].update(n_layers=10**9),
    lambda d: d["cfg"].update(n_heads=0),
    lambda d: d["cfg"].update(n_heads=3, n_key_value_heads=2),
    lambda d: [d],
    lambda d: d.update(wheeltap={"model": "aa", "other": 1}),
    lambda d: d.update(wheeltap={"model": "aa", "found": {"rate": float("nan")}}),
]
"""What is wrong with a file: each makes it another that holds no circuit."""


def test_files_that_hold_no_circuit_are_refused(tmp_path: Path) -> None:
    for at, change in enumerate(CHANGES):
        with pytest.raises(FileFormatError):
            plain(tmp_path, change)
            pytest.fail(f"change {at}")


def test_bytes_that_are_no_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for data in (b"{", b"\xff\xfe", b"\x1f\x8bnothing", gzip.compress(b"{}")[:-4], b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(FileFormatError):
            read_mib(path)
    with pytest.raises(MissingFile):
        read_mib(tmp_path / "none.json")


def test_circuits_know_their_model() -> None:
    graph = EdgeGraph(1, 1, 1, 4)
    own = circuit(graph, origin=Origin(model="aabb"))
    own.require_of("aabb", graph, name="net")
    for other, fingerprint in ((graph, "ccdd"), (EdgeGraph(2, 1, 1, 4), "aabb")):
        with pytest.raises(ModelError):
            own.require_of(fingerprint, other, name="net")


def test_a_small_packed_file_of_many_parts_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "x.json.gz").write_bytes(
        gzip.compress(b'{"cfg": [' + b"[]," * (bounded.PARTS // 2) + b"[]]}", 1)
    )
    with pytest.raises(FileFormatError):
        read_mib(path)
