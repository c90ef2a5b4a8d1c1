"""Edges of a decoder: what its components write and read, run edge by edge."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, final

import torch
from torch import Tensor

from wheeltap.core.errors import ModelError
from wheeltap.core.inputs import as_scores
from wheeltap.core.subject import Subject
from wheeltap.gauge.parts import Affine
from wheeltap.suites.circuits.circuit import Stage
from wheeltap.suites.circuits.engine.calls import Change, hooked
from wheeltap.suites.circuits.engine.wiring import DecoderMap, find, head_outputs, output_bias
from wheeltap.suites.circuits.pairs import PairBatch

Ablated = Literal["patch", "zero"] | Sequence[Tensor]
"""What is read over an edge that is not kept: what its source wrote on the corrupted context, nothing, or the mean of
each part over rows and places of other contexts."""

BYTES: Final = 2**27
"""What components write and read, one by one, may take, where rows can be taken in parts."""


@final
@dataclass(frozen=True)
class OutputBlock:
    """One tensor of what components write: writers from ``first`` on; heads of ``layer``, or what has no heads."""

    first: int
    count: int
    layer: int
    heads: bool


@final
class EdgeDecoder:
    """A decoder whose edges are known; ``proven`` makes one and proves it.

    Args:
        subject: The model, called as ``model(tokens)``.
        wiring: Of it.

    Attributes:
        parts: Where the writers are in what ``written`` gives.
    """

    def __init__(self, subject: Subject, wiring: DecoderMap) -> None:
        self.subject, self.model, self.wiring = subject, subject.model, wiring
        self.graph = wiring.graph
        kinds = [(-1, False), *((layer, heads) for layer in range(self.graph.layers) for heads in (
            (True, False) if self.graph.mlps else (True,)))]  # fmt: skip
        parts, first = list[OutputBlock](), 0
        for layer, heads in kinds:
            parts.append(OutputBlock(first, self.graph.heads if heads else 1, layer, heads=heads))
            first += parts[-1].count
        self.parts = tuple(parts)

    def split(self, pairs: PairBatch, *, tokens: int) -> Iterable[PairBatch]:
        """Pairs on the device, as many at once as have ``tokens`` or fewer (one pair at least)."""
        rows = max(tokens // pairs.clean.shape[1], 1)
        return (pairs.part(slice(at, at + rows), device=self.subject.device) for at in range(0, len(pairs.clean), rows))

    @torch.no_grad()
    def written(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """What every component writes in a plain pass over ``tokens [row, place]``.

        The embedding, then of each layer what the heads mixed ``[row, place, head x width]`` and what the MLP wrote
        ``[row, place, width]``, in the order of ``EdgeGraph.writers``.
        """
        held: dict[int, Tensor] = {}

        def keep(at: int, values: Tensor) -> Tensor:
            held[at] = values.clone()  # others may add to it in place
            return values

        with self.replacing({at: partial(keep, at) for at in range(len(self.parts))}):
            self.logits(tokens)
        return tuple(held[at] for at in range(len(self.parts)))

    def logits(self, tokens: Tensor) -> Tensor:
        """Of the last place, ``[row, token]``; at the others the head is left out, where it is a layer of its own."""
        with hooked(self.model, {self.wiring.head: lambda states: states[:, -1:]} if self.wiring.head else None):
            return as_scores(self.model(tokens))[:, -1]

    def ablated_logits(self, batch: PairBatch, keep: Tensor, ablated: Ablated) -> Tensor:
        """Logits of the last place, ``[pair, token]``, with the edges ``keep [edge]`` and the others ablated.

        Has a gradient by ``keep``, if that has one.
        """
        # A pass on the clean context in which the ablated values of each part take the place of what is not kept.
        if isinstance(ablated, str):
            values = self.written(batch.corrupted) if ablated == "patch" else None
        else:
            values = ablated
        with _Pass(self, values, keep.to(next(self.model.parameters()))).hooked():
            return self.logits(batch.clean)

    @torch.no_grad()
    def ablated_gaps(self, pairs: PairBatch, keep: Tensor, ablated: Ablated) -> Tensor:
        """Logit of the answer less that of the wrong answer, ``[pair]``; see ``ablated_logits``."""
        most = len(self.graph.writers) + max(len(stage.readers) for stage in self.graph.stages)
        tokens = BYTES // (most * self.wiring.width * next(self.model.parameters()).element_size())
        parts = self.split(pairs, tokens=tokens)
        return torch.cat([part.gaps(self.ablated_logits(part, keep, ablated)) for part in parts])

    def spread(self, at: int, values: Tensor) -> Tensor:
        """What each writer of a part adds to the stream, ``[writer, row, place, width]``."""
        part = self.parts[at]
        return (
            head_outputs(self.model, self.wiring.blocks[part.layer].attention, values) if part.heads else values[None]
        )

    def replacing(self, changes: Mapping[int, Change]) -> AbstractContextManager[None]:
        """While the block runs, what the writers of these parts give is what ``changes`` makes of it."""
        before, after = dict[str, Change](), dict[str, Change]()
        for at, change in changes.items():
            part = self.parts[at]
            block = self.wiring.blocks[max(part.layer, 0)]
            if part.layer >= 0 and not part.heads:
                after[block.mlp] = change
            else:
                before[block.attention.output.path if part.heads else block.path] = change
        return hooked(self.model, before, after)

    def projected(self, layer: int, normed: Tensor) -> list[tuple[str, Tensor, Tensor]]:
        """Queries, keys and values of readers that each have an input of their own.

        Args:
            layer: Of the heads.
            normed: What each takes in, ``[reader, row, place, feature]``, in the order of the stage.

        Returns:
            Path of a projection, which of its outputs, their values ``[row, place, output]``; for each channel.
        """
        found: list[tuple[str, Tensor, Tensor]] = []
        for affine, columns in self.channels(layer):
            maps, rows = self.maps(affine, len(columns))
            values = torch.einsum("hbpd,hwd->bphw", normed[columns], maps)
            bias = getattr(self.model.get_submodule(affine.path), affine.bias, None)
            values = values.flatten(2) if bias is None else values.flatten(2) + bias[rows]
            found.append((affine.path, rows, values))
        return found

    def channels(self, layer: int) -> list[tuple[Affine, Tensor]]:
        """Of each channel where its projection is, and which readers of the stage read by it."""
        stage = next(stage for stage in self.graph.stages if stage.layer == layer)
        return [
            (affine, torch.tensor([at for at, name in enumerate(stage.readers) if name.endswith(f"<{channel}>")]))
            for channel, affine in zip(self.wiring.counts(), self.wiring.projections(layer), strict=True)
        ]

    def maps(self, affine: Affine, count: int) -> tuple[Tensor, Tensor]:
        """The weights of each of ``count`` heads, ``[head, output, feature]``, and which outputs these are."""
        weight = self.model.get_submodule(affine.path).get_parameter("weight")
        matrix = weight.T if affine.transposed else weight
        every = torch.arange(len(matrix)).view(-1, affine.period or len(matrix))
        rows = every[:, affine.first : affine.last].flatten().to(matrix.device)
        return matrix[rows].view(count, -1, matrix.shape[1]), rows

    def through(self, paths: Sequence[str], stream: Tensor) -> Tensor:
        """What becomes of streams ``[reader, row, place, width]`` on their way into readers."""
        flat = stream.flatten(0, 1)
        for path in paths:
            flat = self.model.get_submodule(path)(flat)
        return flat.view(*stream.shape[:2], *flat.shape[1:])


_PROOF: Final = 1e-4
"""By how much a pass edge by edge may miss the plain one, as a share of the largest logit."""

_TRIED: Final = 2
"""Pairs on which a model is tried."""


def proven(subject: Subject, pairs: PairBatch) -> EdgeDecoder:
    """A decoder ready to be run edge by edge.

    Args:
        subject: The model, called as ``model(tokens)``; of float32 or wider.
        pairs: Of which the first are tried: keeping all edges must give the clean logits, and none the corrupted ones.

    Raises:
        ModelError: If its edges are not known, or are not all there is.
    """
    dtype = next(subject.model.parameters()).dtype
    if dtype.itemsize < 4:
        raise ModelError(
            "Edges cannot be proven in numbers this short.",
            where=subject.name,
            expected="weights of 32 bits or more",
            got=str(dtype).removeprefix("torch."),
            do="Convert the model with .float().",
        )
    few = slice(0, _TRIED)
    wired = EdgeDecoder(subject, find(subject, pairs.clean[few].to(subject.device)))
    tried = pairs.part(few, device=subject.device)
    for keep, tokens in ((1.0, tried.clean), (0.0, tried.corrupted)):
        with torch.no_grad():
            plain = as_scores(wired.model(tokens))[:, -1]
            edges = torch.full((len(wired.graph.edges),), keep, dtype=plain.dtype, device=plain.device)
            gap = (wired.ablated_logits(tried, edges, "patch") - plain).abs().max() / plain.abs().max()
        if not float(gap) <= _PROOF:
            raise ModelError(
                "The edges of this model are not all that it computes by.",
                where=subject.name,
                expected=f"the {'clean' if keep else 'corrupted'} logits with {'all' if keep else 'no'} edges kept",
                got=f"logits that differ by {float(gap):.2g} of the largest",
                do="Leave out what goes around the residual stream (a table of bigrams), or use units: --method masks.",
            )
    return wired


@final
class _Pass:
    """One pass in which every reader has a stream of its own."""

    def __init__(self, wired: EdgeDecoder, ablated: Sequence[Tensor] | None, keep: Tensor) -> None:
        self.wired, self.ablated = wired, ablated
        stages = wired.graph.stages
        parts = torch.split_with_sizes(keep, [stage.writers * len(stage.readers) for stage in stages])
        self.keep = {
            (stage.layer, stage.writers): part.view(stage.writers, -1)
            for part, stage in zip(parts, stages, strict=True)
        }
        self.still: list[Tensor] = []
        self.moved: list[Tensor] = []
        self.gathered: Tensor | None = None
        self.streams: dict[tuple[int, int], Tensor] = {}
        self.projections: dict[str, Tensor] = {}

    @contextmanager
    def hooked(self) -> Generator[None]:
        wired = self.wired
        before: dict[str, Change] = {wired.wiring.end: lambda _: self._streams(wired.graph.stages[-1])[0]}
        after: dict[str, Change] = {}
        for layer, block in enumerate(wired.wiring.blocks):
            for affine in wired.wiring.projections(layer):
                after[affine.path] = partial(self._projection, layer, affine.path)
            if block.mlp:
                before[block.reader] = partial(self._into_mlp, layer)
        parts = {at: partial(self._wrote, at) for at in range(len(wired.parts))}
        with wired.replacing(parts), hooked(wired.model, before, after):
            yield

    def _wrote(self, at: int, values: Tensor) -> Tensor:
        """Takes down what a part adds to the stream: ablated, and how much more it adds in this pass."""
        wired, part = self.wired, self.wired.parts[at]
        ablated = values.new_zeros(1, 1, values.shape[2]) if self.ablated is None else self.ablated[at]
        still = wired.spread(at, ablated).sum(0)
        bias = output_bias(wired.model, wired.wiring.blocks[part.layer].attention) if part.heads else None
        # Parts come in order: the sum of what all of them so far write ablated.
        still = still if bias is None else still + bias
        self.still.append(still + self.still[-1] if at else still)
        moved = wired.spread(at, values - ablated)
        if torch.is_grad_enabled():
            self.moved.append(moved)
        else:  # one tensor for all writers: to put them together anew for each stage takes longer than the pass
            if self.gathered is None:
                self.gathered = moved.new_empty(len(wired.graph.writers), *moved.shape[1:])
            self.gathered[part.first : part.first + part.count] = moved
        return values

    def _streams(self, stage: Stage) -> Tensor:
        """What each reader of a stage is given, ``[reader, row, place, width]``."""
        earlier = sum(part.first < stage.writers for part in self.wired.parts)
        moved = torch.cat(self.moved[:earlier]) if self.gathered is None else self.gathered[: stage.writers]
        mask = self.keep[stage.layer, stage.writers]
        if self.gathered is not None:
            some = mask.any(1).nonzero()[:, 0]
            if 2 * len(some) < len(mask):  # in small circuits few writers are read
                moved, mask = moved[some], mask[some]
        return (mask.T @ moved.flatten(1)).view(-1, *moved.shape[1:]) + self.still[earlier - 1]

    def _stage(self, layer: int) -> Tensor:
        stage = next(stage for stage in self.wired.graph.stages if stage.layer == layer)
        key = (stage.layer, stage.writers)
        if key not in self.streams:
            self.streams.clear()
            self.streams[key] = self._streams(stage)
        return self.streams[key]

    def _projection(self, layer: int, path: str, output: Tensor) -> Tensor:
        if path not in self.projections:
            streams, block = self._stage(layer), self.wired.wiring.blocks[layer]
            heads = sum(self.wired.wiring.counts().values())
            normed = self.wired.through(block.through, streams[:heads])
            for own, rows, values in self.wired.projected(layer, normed):
                held = self.projections.get(own)
                if held is None:
                    module: Any = self.wired.model.get_submodule(own)
                    outputs = int(getattr(module, "out_features", None) or module.nf)
                    held = values.new_zeros(*values.shape[:2], outputs)
                self.projections[own] = held.index_copy(2, rows, values)
        return self.projections.pop(path)

    def _into_mlp(self, layer: int, _: Tensor) -> Tensor:
        graph, block = self.wired.graph, self.wired.wiring.blocks[layer]
        if graph.parallel:
            streams = self._stage(layer)[-1:]
        else:
            streams = self._streams([stage for stage in graph.stages if stage.layer == layer][-1])
        return self.wired.through(block.before, streams)[0]
