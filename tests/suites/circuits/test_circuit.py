"""Graphs of edges and their file, read and written to the same bytes; areas under faithfulness; no nonsense is read."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.published import published
from wheeltap.core import bounded
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, ModelError, UsageError
from wheeltap.suites.circuits.circuit import Circuit, EdgeGraph, Origin, is_mib, read_mib, write_mib
from wheeltap.suites.circuits.stats import SHARES, areas, faithfulness

ORIGIN = Origin(model="aa", name="net", task="agreement", examples="bb", found={"method": "eap", "target": 0.1})


def circuit(graph: EdgeGraph, *, seed: int = 0, origin: Origin | None = None) -> Circuit:
    rng = np.random.default_rng(seed)
    kept = rng.random(len(graph.edges)) < 0.3
    every = np.ones(len(kept), bool)
    return Circuit(graph, rng.standard_normal(len(kept)), kept, graph.touched(kept), every, origin=origin)


def test_the_published_circuit_reads_and_writes_to_the_same_bytes(tmp_path: Path) -> None:
    path = published("mib-circuit/ioi-eap-ig.json.gz")
    found = read_mib(path)
    assert found.graph == EdgeGraph(12, 12, 12, 768)
    assert (len(found.graph.edges), len(found.graph.nodes)) == (32_491, 158)
    assert (int(found.kept.sum()), int(found.nodes.sum()), found.scored.all()) == (756, 81, True)
    assert found.scores[found.graph.edges.index("input->a0.h1<q>")] == -0.03757336363196373
    assert (found.graph.touched(found.kept) == found.nodes).all()
    assert EdgeGraph.of_numbers(found.graph.numbers) == found.graph and found.origin is None and is_mib(path)
    write_mib(found, tmp_path / "own.json")
    assert (tmp_path / "own.json").read_bytes() == gzip.decompress(path.read_bytes())


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


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    graph = EdgeGraph(2, 4, 2, 16, parallel=True)
    own = circuit(graph, origin=ORIGIN)
    kept = own.kept & (own.scores > 0)
    own = Circuit(graph, own.scores * (own.scores > 0), kept, own.nodes, own.scores > 0,
                  node_scores=np.arange(len(graph.nodes)) / 7.0, origin=ORIGIN)  # fmt: skip
    for path in (tmp_path / "own.json", tmp_path / "own.json.gz"):
        write_mib(own, path)
        found = read_mib(path)
        assert found.graph == graph
        for name in ("scores", "kept", "nodes", "scored", "node_scores"):
            assert getattr(found, name).tolist() == getattr(own, name).tolist()
        assert found.origin == ORIGIN and is_mib(path)
        first = path.read_bytes()
        write_mib(found, path)
        assert path.read_bytes() == first


def plain(tmp_path: Path, change: Callable[[dict[str, Any]], Any], *, origin: Origin | None = None) -> Circuit:
    own = circuit(EdgeGraph(1, 2, 2, 8), origin=origin)
    write_mib(own, tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(change(data) or data))
    return read_mib(tmp_path / "a.json")


def test_infinite_scores_of_others_are_counted_out_and_refused_in_our_own(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["edges"]["input->m0"] = {"score": float("inf"), "in_graph": True}
        data["edges"]["m0->logits"]["score"] = float("nan")
        data["edges"]["a0.h0->m0"]["score"] = 10**400
        del data["edges"]["a0.h1->m0"]

    found = plain(tmp_path, change)
    assert (~found.scored).sum() == 4
    # What the file says is in the circuit is, also without a score.
    assert found.kept[found.graph.edges.index("input->m0")] and not found.kept[found.graph.edges.index("a0.h1->m0")]
    write_mib(found, tmp_path / "b.json")
    again = read_mib(tmp_path / "b.json")
    assert again.kept.tolist() == found.kept.tolist() and again.scored.tolist() == found.scored.tolist()
    with pytest.raises(FileFormatError):
        plain(tmp_path, change, origin=ORIGIN)


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda d: d["nodes"].update({"a9.h0": {"in_graph": True}}),
    lambda d: d["edges"].update({"x->m0": {"score": 1, "in_graph": True}}),
    lambda d: d["edges"].update({"m0->a0.h0<q>": {"score": 1, "in_graph": True}}),
    lambda d: d["edges"].update({"input->m0": {"score": "1", "in_graph": True}}),
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


def test_what_no_circuit_can_be_is_refused() -> None:
    with pytest.raises(UsageError):
        EdgeGraph(2, 3, 2)
    graph = EdgeGraph(1, 1, 1)
    every, nodes = np.ones(len(graph.edges), bool), np.ones(len(graph.nodes), bool)
    scores = np.zeros(len(every))
    for wrong in (
        lambda: Circuit(graph, scores[1:], every, nodes, every),
        lambda: Circuit(graph, scores + np.nan, every, nodes, every),
        lambda: Circuit(graph, scores, every, nodes, every, node_scores=scores[:1]),
    ):
        with pytest.raises(DataError):
            wrong()


def test_a_small_packed_file_of_many_parts_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "x.json.gz").write_bytes(
        gzip.compress(b'{"cfg": [' + b"[]," * (bounded.PARTS // 2) + b"[]]}", 1)
    )
    with pytest.raises(FileFormatError):
        read_mib(path)


def test_areas_equal_trapezoids_written_out() -> None:
    rng = np.random.default_rng(0)
    shares, faithful = np.array(SHARES), rng.normal(1.0, 0.5, len(SHARES))
    steps = list(zip(range(9), range(1, 10), strict=True))
    linear = sum((shares[b] - shares[a]) * (faithful[a] + faithful[b]) / 2 for a, b in steps)
    logs = sum(math.log(shares[b] / shares[a]) * (faithful[a] + faithful[b]) / 2 for a, b in steps) / math.log(1000)
    assert areas(shares, faithful) == pytest.approx((linear, logs))


def test_the_model_at_every_size_is_best_and_small_circuits_count_on_the_log_scale_alone() -> None:
    shares = np.array(SHARES)
    assert areas(shares, np.ones(len(shares))) == pytest.approx((0.999, 1.0))
    far, log_far = areas(shares, (shares < 0.04).astype(float))  # nothing below 5 % of all edges
    assert far < 0.04 and log_far == pytest.approx(0.5)


def test_faithfulness_is_a_share_of_the_way() -> None:
    assert faithfulness(np.array([1.0, 2.0, 5.0]), empty=1.0, full=3.0).tolist() == [0.0, 0.5, 2.0]
    with pytest.raises(ZeroDivisionError):
        faithfulness(np.array([1.0]), empty=1.0, full=1.0)
    for shares in ([0.0, 1.0], [0.5], [0.5, 0.5]):
        with pytest.raises(ValueError):
            areas(np.array(shares), np.ones(len(shares)))
