"""The file of a circuit: the JSON ``{cfg, nodes, edges}`` of the benchmark MIB, also packed with gzip.

Source: Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", circuit track.
"""

import gzip
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.bounded import opened, parsing
from wheeltap.core.errors import FileFormatError
from wheeltap.core.files import write_whole
from wheeltap.suites.circuits.edge_circuit import Circuit, Graph
from wheeltap.suites.circuits.origin import Origin

MOST_BYTES: Final = 2**28
"""Of a file as text: three million edges."""
MOST_EDGES: Final = 3_000_000
_GZIP: Final = b"\x1f\x8b"
_START: Final = 4096
"""Bytes that show what a file is."""
_OWN: Final = "wheeltap"
_DO: Final = "Write it with the program that made it, or find the circuit again."


def is_mib(path: Path) -> bool:
    """Whether a file may be MIB's: packed, or with one of its keys at the start. A circuit of units has none."""
    with opened(path, "circuit", do=_DO) as file:
        start = file.read(_START)
    return start.startswith(_GZIP) or any(f'"{key}"'.encode() in start for key in ("cfg", "nodes", "edges"))


def read_mib(path: Path) -> Circuit:
    """The circuit in a file of MIB, or in one of ours.

    An edge that the file does not name is not in the circuit. One whose score is missing or not finite (dumps of others
    hold ``Infinity``) has no score, and is in the circuit where the file says so; ``excluded`` counts both. In our own
    files every score is finite.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is too large, is not of that form, or names nodes or edges that its graph lacks.
    """
    data = _parsed(path)
    where = str(path)
    graph = _graph(data["cfg"], where=where)
    origin = _origin(data[_OWN], where=where) if _OWN in data else None
    nodes, node_scores = _nodes(data["nodes"], graph, where=where)
    scores, kept, scored = _edges(data["edges"], graph, where=where, strict=origin is not None)
    return Circuit(graph, scores, kept, nodes, scored, node_scores=node_scores, origin=origin)


def write_mib(circuit: Circuit, path: Path) -> None:
    """Writes a circuit where MIB can read it; packed, where the name ends in ``.gz``.

    What was read from such a file is written to the same bytes. What MIB has no place for (groups, where the circuit
    comes from) is written beside it, only where it is there.
    """
    graph = circuit.graph
    cfg: dict[str, Any] = {
        "n_layers": graph.layers,
        "n_heads": graph.heads,
        "parallel_attn_mlp": graph.parallel,
    }
    cfg |= {} if graph.width is None else {"d_model": graph.width}
    cfg |= {} if graph.groups == graph.heads else {"n_key_value_heads": graph.groups}
    cfg |= {} if graph.mlps else {"mlps": False}
    own = circuit.node_scores
    nodes = {
        name: {**({} if own is None else {"score": float(own[at])}), "in_graph": bool(circuit.nodes[at])}
        for at, name in enumerate(graph.nodes)
    }
    edges = {
        name: {
            **({"score": float(circuit.scores[at])} if circuit.scored[at] else {}),
            "in_graph": bool(circuit.kept[at]),
        }
        for at, name in enumerate(graph.edges)
        if circuit.scored[at] or circuit.kept[at]
    }
    about = {} if circuit.origin is None else {_OWN: msgspec.to_builtins(circuit.origin)}
    whole = {"cfg": cfg, "nodes": nodes, "edges": edges, **about}
    text = json.dumps(whole, allow_nan=False).encode()
    write_whole(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _parsed(path: Path) -> Mapping[str, Any]:
    with (
        opened(path, "circuit", limit=MOST_BYTES, do=_DO) as file,
        parsing(path, "The file holds no circuit.", expected="one JSON object", do=_DO),
    ):
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        text = (gzip.GzipFile(fileobj=file) if packed else file).read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise _wrong(str(path), f"at most {MOST_BYTES:,} bytes", "more")
        data = _object(json.loads(text), where=str(path), what="the file")
    missing = [key for key in ("cfg", "nodes", "edges") if key not in data]
    if missing:
        raise _wrong(str(path), "cfg, nodes and edges", f"no {missing[0]}")
    return data


def _graph(held: Any, *, where: str) -> Graph:
    cfg = _object(held, where=where, what="cfg")
    sizes = [cfg.get("n_layers"), cfg.get("n_heads"), cfg.get("n_key_value_heads", cfg.get("n_heads"))]
    sizes += [cfg["d_model"]] if "d_model" in cfg else []
    flags = [cfg.get("parallel_attn_mlp", False), cfg.get("mlps", True)]
    if not all(type(size) is int for size in sizes) or not all(isinstance(flag, bool) for flag in flags):
        raise _wrong(where, "whole n_layers, n_heads and d_model, true or false parallel_attn_mlp", str(cfg)[:120])
    layers, heads, groups, *width = cast("list[int]", sizes)
    # Of each layer's heads, three edges from each head of each layer before: refused before any of it is built.
    if min(layers, heads, groups) < 1 or groups > heads or 3 * (layers * heads) ** 2 // 2 > MOST_EDGES:
        raise _wrong(where, f"a decoder with at most {MOST_EDGES:,} edges", f"{layers} layers of {heads} heads")
    if heads % groups:
        raise _wrong(where, "heads in groups of equal size", f"{heads} heads in {groups} groups")
    return Graph(layers, heads, groups, width[0] if width else None, parallel=flags[0], mlps=flags[1])


def _origin(held: Any, *, where: str) -> Origin:
    try:
        return msgspec.convert(held, Origin)
    except msgspec.ValidationError as error:
        raise _wrong(where, f"what {_OWN!r} says of it", str(error)[:160]) from error


def _nodes(held: Any, graph: Graph, *, where: str) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    given = _object(held, where=where, what="nodes")
    number = {name: at for at, name in enumerate(graph.nodes)}
    kept, scores = np.zeros(len(number), bool), np.zeros(len(number))
    for name, value in given.items():
        if name not in number:
            raise _wrong(where, f"nodes such as input, a0.h0, m0, logits ({len(number)} of them)", f"{name!r}")
        node = _object(value, where=where, what=name)
        kept[number[name]] = _flag(node, where=where, what=name)
        scores[number[name]] = _score(node, where=where, what=name) if "score" in node else 0.0
    every = len(given) == len(number) and all("score" in node for node in given.values())
    return kept, scores if every and np.isfinite(scores).all() else None


def _edges(
    held: Any, graph: Graph, *, where: str, strict: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    number = {name: at for at, name in enumerate(graph.edges)}
    scores, kept, scored = np.zeros(len(number)), np.zeros(len(number), bool), np.zeros(len(number), bool)
    for name, value in _object(held, where=where, what="edges").items():
        if name not in number:
            source, _, target = name.partition("->")
            lost = [end for end in (source, target.partition("<")[0]) if end not in graph.nodes]
            got = f"{name!r}: there is no node {lost[0]!r}" if lost else f"{name!r}, which its graph does not have"
            raise _wrong(where, "edges such as a0.h1->a2.h3<q>, a0.h1->m2, m2->logits", got)
        edge, at = _object(value, where=where, what=name), number[name]
        score = _score(edge, where=where, what=name) if "score" in edge else math.nan
        kept[at], scored[at] = _flag(edge, where=where, what=name), math.isfinite(score)
        scores[at] = score if scored[at] else 0.0
        if strict and not scored[at]:
            raise _wrong(where, "finite scores", f"{name}: {score}")
    return scores, kept, scored


def _object(value: Any, *, where: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, f"{what} to be a JSON object", str(value)[:60])
    return cast("dict[str, Any]", value)


def _score(held: Mapping[str, Any], *, where: str, what: str) -> float:
    value = held.get("score")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(where, f"a number as the score of {what}", str(value)[:60])
    # Whole numbers beyond the largest float are no scores either.
    return float(value) if abs(value) <= sys.float_info.max else math.inf


def _flag(held: Mapping[str, Any], *, where: str, what: str) -> bool:
    value = held.get("in_graph")
    if not isinstance(value, bool):
        raise _wrong(where, f"true or false as in_graph of {what}", str(value)[:60])
    return value


def _wrong(where: str, expected: str, got: str) -> FileFormatError:
    return FileFormatError(
        "The file holds no circuit.",
        where=where,
        expected=expected,
        got=got,
        do=_DO,
    )
