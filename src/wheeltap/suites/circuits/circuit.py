"""Circuits of edges or of units, and their files: for edges the JSON of the benchmark MIB."""

import base64
import gzip
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.bounded import decoded, document, few_parts, opened, parsing
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import FileFormatError, ModelError, UsageError
from wheeltap.core.files import write_whole

CHANNELS: Final = ("q", "k", "v")
"""What a head reads for: queries, keys, values."""


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a circuit was found in, for what, and how.

    Attributes:
        model: Fingerprint of the model.
        name: Of the model.
        task: Name of the task.
        examples: Digest of the task without the circuit.
        group: Of the task; -1 for all of it.
        found: How: method, penalty, target, steps, ablation, seed.
        undecided: Why it is only the best of what was tried; empty where a search reached its target.

    Raises:
        FileFormatError: If a number of ``found`` is not finite.
    """

    model: str
    name: str = ""
    task: str = ""
    examples: str = ""
    group: int = -1
    found: dict[str, Scalar] = {}
    undecided: str = ""

    def __post_init__(self) -> None:
        for name, value in self.found.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise FileFormatError("A setting of a circuit is not finite.", where=name, expected="a number",
                                      got=str(value), do="Find the circuit again.")  # fmt: skip

    def require_model(self, fingerprint: str, *, name: str) -> None:
        """Raises ``ModelError`` if it is a circuit of another model."""
        if self.model != fingerprint:
            raise other_model(name, f"{self.name} ({self.model[:12]})".strip(), fingerprint[:12])


def other_model(name: str, expected: str, got: str) -> ModelError:
    """The error for a circuit that was not found in the model of this name."""
    return ModelError("The circuit is of another model.", where=name, expected=expected, got=got,
                      do="Find one of this model first: wheeltap circuits find MODEL --task TASK.")  # fmt: skip


@final
@dataclass(frozen=True)
class Stage:
    """Readers that see the same writers: the heads of a layer, an MLP (both, where they work side by side), the end.

    Attributes:
        layer: Of the readers; ``layers`` for the logits.
        writers: How many writers come before: the first ones of the graph.
        readers: ``a0.h0<q>``, ``m0``, ``logits``.
    """

    layer: int
    writers: int
    readers: tuple[str, ...]


@final
@dataclass(frozen=True)
class EdgeGraph:
    """The components of a decoder, and every edge between them, in the order of the file.

    Edges go stage by stage; within one they are a matrix ``[writer, reader]``, row after row.

    Attributes:
        layers: Blocks.
        heads: Of each.
        groups: Heads of keys and values. Heads that share one read it together: the edge ``<k>`` or ``<v>`` goes to
            the first head of the group and is of all of them.
        width: Of the residual stream, where it is known.
        parallel: Whether the MLP of a block reads what its heads read, and not what they write.
        mlps: Whether there are any.
    """

    layers: int
    heads: int
    groups: int
    width: int | None = None
    parallel: bool = False
    mlps: bool = True

    NUMBERS: ClassVar[tuple[str, ...]] = ("layers", "heads", "groups", "width", "parallel", "mlps")
    """What ``numbers`` holds."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """All that it is made of, in the order of ``NUMBERS``; 0 for a width that is not known."""
        return np.array([int(getattr(self, name) or 0) for name in self.NUMBERS], dtype=np.int64)

    @classmethod
    def of_numbers(cls, numbers: NDArray[np.int64]) -> "EdgeGraph":
        """The inverse of ``numbers``."""
        layers, heads, groups, width, parallel, mlps = map(int, numbers)
        return cls(layers, heads, groups, width or None, parallel=bool(parallel), mlps=bool(mlps))

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """What writes to the residual stream, in order."""
        mlps = ([f"m{layer}"] if self.mlps else [] for layer in range(self.layers))
        return ("input", *(name for layer, mlp in enumerate(mlps) for name in [*self._heads(layer), *mlp]))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The writers, and ``logits``."""
        return (*self.writers, "logits")

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """In order of computation."""
        stages: list[Stage] = []
        before = 1
        for layer in range(self.layers):
            heads, mlp = self._readers(layer), ((f"m{layer}",) if self.mlps else ())
            stages.append(Stage(layer, before, (*heads, *mlp) if self.parallel else heads))
            if mlp and not self.parallel:
                stages.append(Stage(layer, before + self.heads, mlp))
            before += self.heads + len(mlp)
        return (*stages, Stage(self.layers, before, ("logits",)))

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names, in order."""
        names = self.writers
        return tuple(
            f"{writer}->{reader}"
            for stage in self.stages
            for writer in names[: stage.writers]
            for reader in stage.readers
        )

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Numbers among ``nodes`` of source and target, ``[edge, 2]``."""
        number = {name: at for at, name in enumerate(self.nodes)}
        pairs = (edge.partition("<")[0].split("->") for edge in self.edges)
        return np.array([[number[source], number[target]] for source, target in pairs], dtype=np.int64)

    def leaving(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each component the sum of the scores ``[edge]`` of the edges that leave it, ``[node]``."""
        sums = np.zeros(len(self.nodes))
        np.add.at(sums, self.ends[:, 0], scores)
        return sums

    def touched(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which nodes are an end of an edge in ``kept [edge]``, ``[node]``."""
        nodes = np.zeros(len(self.nodes), bool)
        nodes[self.ends[kept].ravel()] = True
        return nodes

    def _heads(self, layer: int) -> list[str]:
        return [f"a{layer}.h{head}" for head in range(self.heads)]

    def _readers(self, layer: int) -> tuple[str, ...]:
        share = self.heads // self.groups
        return tuple(
            f"{name}<{channel}>"
            for head, name in enumerate(self._heads(layer))
            for channel in (CHANNELS if head % share == 0 else CHANNELS[:1])
        )


@final
@dataclass(frozen=True, eq=False)
class Circuit:
    """Which edges of a model are a circuit, and the scores that they were chosen by.

    Attributes:
        graph: Of the model.
        kept: Whether an edge is in the circuit, ``[edge]``.
        scores: ``[edge]``, in units of the metric: how much it is expected to fall where the edge is patched; ``None``
            where the circuit was read from a file.
        origin: Where it comes from; ``None`` where that is not known, as in files of other programs.
    """

    graph: EdgeGraph
    kept: NDArray[np.bool_]
    scores: NDArray[np.float64] | None = None
    origin: Origin | None = None

    @property
    def size(self) -> int:
        """Edges that are kept."""
        return int(self.kept.sum())

    def require_of(self, fingerprint: str, graph: EdgeGraph, *, name: str) -> None:
        """Raises ``ModelError`` if this is a circuit of another model than ``name``, or could not be one of it."""
        own, other = (
            f"{one.layers} layers, {one.heads} heads in {one.groups} groups, {len(one.edges):,} edges"
            for one in (self.graph, graph)
        )
        if self.graph.edges != graph.edges:
            raise other_model(name, other, own)
        if self.origin is not None:
            self.origin.require_model(fingerprint, name=name)


FORMAT: Final = "wheeltap circuit of units, 2"

_LARGEST: Final = 64 * 2**20
"""Bytes of a file that is read."""

_DO: Final = "Write one with wheeltap circuits find MODEL --task TASK -o FILE."

MOST_UNITS: Final = 2**24
"""Of a file, in all sites."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class KeptUnits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units of one site that are kept.

    Attributes:
        site: ``attention0.read``, ``mlp0.units`` and so on, in order of computation.
        units: How many the site has.
        kept: Their numbers from 0, rising.
    """

    site: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    units: _Count
    kept: tuple[_Count, ...] = ()


class UnitCircuit(Origin, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A circuit of units, as its file holds it.

    Attributes:
        format: ``FORMAT``.
        sites: All of them.
    """

    format: str
    sites: tuple[KeptUnits, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if (units := sum(one.units for one in self.sites)) > MOST_UNITS:
            raise FileFormatError("A circuit has more units than any model.", where="sites",
                                  expected=f"at most {MOST_UNITS:,}", got=f"{units:,}")  # fmt: skip
        for one in self.sites:
            rising = all(a < b for a, b in zip(one.kept, one.kept[1:], strict=False))
            if not rising or (one.kept and one.kept[-1] >= one.units):
                raise FileFormatError(
                    "A circuit keeps units that there are not.", where=f"site {one.site}",
                    expected=f"rising numbers from 0 to {one.units - 1}", got=str(one.kept[-3:]),
                )  # fmt: skip

    @property
    def kept(self) -> NDArray[np.bool_]:
        """``[unit]``, over all sites in order."""
        parts = [np.isin(np.arange(one.units), one.kept) for one in self.sites]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.bool_)

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return self

    @property
    def size(self) -> int:
        """Units that are kept."""
        return sum(len(one.kept) for one in self.sites)

    def save(self, path: Path) -> None:
        """Writes it to a file, whole or not at all."""
        write_whole(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def load(path: Path) -> UnitCircuit:
    """A circuit from its file.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is none.
    """
    data = document(path, "circuit", limit=_LARGEST, do=_DO)
    what, expected = "This is no file of a circuit.", f'JSON that says "{FORMAT}"'
    found = decoded(data, UnitCircuit, path, what, expected=expected, do=_DO)
    if found.format != FORMAT:
        raise FileFormatError(what, where=str(path), expected=expected, got=f"format {found.format[:60]!r}", do=_DO)
    return found


def read(path: Path) -> "UnitCircuit | Circuit":
    """A circuit of units, or one of edges in a file of MIB; see ``load`` and ``read_mib``."""
    return read_mib(path) if is_mib(path) else load(path)


def packed(kept: NDArray[np.bool_]) -> str:
    """Flags as text, for a setting: how many there are, and their bits in base 64."""
    return f"{len(kept)}:{base64.b64encode(np.packbits(kept).tobytes()).decode()}"


def unpacked(text: str) -> NDArray[np.bool_]:
    """The inverse of ``packed``.

    Raises:
        UsageError: If the text is none of its.
    """
    count, _, bits = text.partition(":")
    try:
        flags = np.unpackbits(np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8))
        if not 0 <= len(flags) - int(count) < 8 or flags[int(count) :].any():
            raise ValueError(f"{len(flags)} bits")
    except ValueError as error:
        raise UsageError("A circuit's flags cannot be read.", where="setting circuit", expected="COUNT:BITS in base 64",
                         got=f"{text[:40]!r}: {error}"[:120]) from error  # fmt: skip
    return flags[: int(count)].astype(np.bool_)


MOST_BYTES: Final = 2**28
"""Of a file as text: three million edges."""
MOST_EDGES: Final = 3_000_000
_GZIP: Final = b"\x1f\x8b"
_START: Final = 4096
"""Bytes that show what a file is."""
_OWN: Final = "wheeltap"
_NO_CIRCUIT: Final = "The file holds no circuit."
_REWRITE: Final = "Write it with the program that made it, or find the circuit again."


def is_mib(path: Path) -> bool:
    """Whether a file may be MIB's: packed, or with one of its keys at the start. A circuit of units has none."""
    with opened(path, "circuit", do=_REWRITE) as file:
        start = file.read(_START)
    return start.startswith(_GZIP) or any(f'"{key}"'.encode() in start for key in ("cfg", "nodes", "edges"))


class _MibConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of MIB says of the model; a width or groups that it does not name are not known, or as many as heads.

    ``mlps`` is ours: MIB has no word for a model without them.
    """

    n_layers: int
    n_heads: int
    n_key_value_heads: int | None = None
    d_model: int | None = None
    parallel_attn_mlp: bool = False
    mlps: bool = True


class _MibMark(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a node or an edge is in the circuit; scores are not read."""

    in_graph: bool


class _MibFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of MIB; what else it holds is not read."""

    cfg: _MibConfig
    nodes: dict[str, _MibMark]
    edges: dict[str, _MibMark]
    wheeltap: Origin | None = None


def read_mib(path: Path) -> Circuit:
    """The circuit in a file of MIB, or in one of ours.

    An edge that the file does not name is not in the circuit. Scores are not read.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is too large, is not of that form, or names nodes or edges that its graph lacks.
    """
    where = str(path)
    with (
        opened(path, "circuit", limit=MOST_BYTES, do=_REWRITE) as file,
        parsing(path, _NO_CIRCUIT, expected="one JSON object of cfg, nodes and edges", do=_REWRITE),
    ):
        is_packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        text = (gzip.GzipFile(fileobj=file) if is_packed else file).read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise _wrong(where, f"at most {MOST_BYTES:,} bytes", "more")
        # Scores of other programs may be NaN, which JSON in the strict sense has not.
        content = msgspec.convert(json.loads(few_parts(text, where=path)), _MibFile)
    graph = _graph(content.cfg, where=where)
    nodes, numbers = set(graph.nodes), {name: number for number, name in enumerate(graph.edges)}
    for name in content.nodes:
        if name not in nodes:
            raise _wrong(where, f"nodes such as input, a0.h0, m0, logits ({len(nodes)} of them)", f"{name!r}")
    kept = np.zeros(len(numbers), bool)
    for name, edge in content.edges.items():
        if name not in numbers:
            source, _, target = name.partition("->")
            lost = [end for end in (source, target.partition("<")[0]) if end not in nodes]
            got = f"{name!r}: there is no node {lost[0]!r}" if lost else f"{name!r}, which its graph does not have"
            raise _wrong(where, "edges such as a0.h1->a2.h3<q>, a0.h1->m2, m2->logits", got)
        kept[numbers[name]] = edge.in_graph
    return Circuit(graph, kept, origin=content.wheeltap)


def _graph(cfg: _MibConfig, *, where: str) -> EdgeGraph:
    layers, heads = cfg.n_layers, cfg.n_heads
    groups = heads if cfg.n_key_value_heads is None else cfg.n_key_value_heads
    # Of each layer's heads, three edges from each head of each layer before: refused before any of it is built.
    if min(layers, heads, groups) < 1 or groups > heads or 3 * (layers * heads) ** 2 // 2 > MOST_EDGES:
        raise _wrong(where, f"a decoder with at most {MOST_EDGES:,} edges", f"{layers} layers of {heads} heads")
    if heads % groups:
        raise _wrong(where, "heads in groups of equal size", f"{heads} heads in {groups} groups")
    return EdgeGraph(layers, heads, groups, cfg.d_model, parallel=cfg.parallel_attn_mlp, mlps=cfg.mlps)


def _wrong(where: str, expected: str, got: str) -> FileFormatError:
    return FileFormatError(_NO_CIRCUIT, where=where, expected=expected, got=got, do=_REWRITE)


def write_mib(circuit: Circuit, path: Path) -> None:
    """Write a circuit that was searched for where MIB can read it; packed, where the name ends in ``.gz``.

    What MIB has no place for (groups, where the circuit comes from) is written beside it, only where it is there.
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
    touched = graph.touched(circuit.kept)
    nodes = {name: {"in_graph": bool(touched[at])} for at, name in enumerate(graph.nodes)}
    scores: list[dict[str, float]] = (
        [{}] * len(graph.edges) if circuit.scores is None else [{"score": float(one)} for one in circuit.scores]
    )
    edges = {
        name: {**score, "in_graph": bool(kept)}
        for name, score, kept in zip(graph.edges, scores, circuit.kept, strict=True)
    }
    about = {} if circuit.origin is None else {_OWN: msgspec.to_builtins(circuit.origin)}
    whole = {"cfg": cfg, "nodes": nodes, "edges": edges, **about}
    text = json.dumps(whole, allow_nan=False).encode()
    write_whole(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
