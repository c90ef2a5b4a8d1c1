"""A decoder run edge by edge: each component reads of each earlier one what it writes now, or something else.

With ``keep`` of an edge 1, its target reads what its source writes in this very pass; with 0 what the source wrote in
another one (on the corrupted context), its mean, or nothing. In between, a share of each. So keeping all edges is the
model on the clean context, and keeping none the model on the corrupted one; all edges but one is exact patching.

Source: Wang et al. 2023, "Interpretability in the wild" (path patching); Hanna et al. 2024, section 2.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, Literal, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.inputs import as_scores
from wheeltap.core.subject import Subject
from wheeltap.suites.circuits.edge_circuit import Graph, Stage
from wheeltap.suites.circuits.engine import wiring as wirings
from wheeltap.suites.circuits.engine.edges import Wired, before, differences
from wheeltap.suites.circuits.engine.wiring import output_bias
from wheeltap.suites.circuits.pairs import PairBatch

Ablation = Literal["patch", "mean", "zero"]
"""What is read over an edge that is not kept: what its source wrote on the corrupted context, its mean, nothing."""

BYTES: Final = 2**27
"""What components write and read, one by one, may take, where rows can be taken in parts."""

_PROOF: Final = 1e-4
"""By how much a pass edge by edge may miss the plain one, as a share of the largest logit."""

_TRIED: Final = 2
"""Pairs on which a model is tried."""


def proven(subject: Subject, pairs: PairBatch) -> Wired:
    """A decoder ready to be run edge by edge.

    Args:
        subject: The model, called as ``model(tokens)``; of float32 or wider.
        pairs: Of which the first are tried: keeping all edges must give the clean logits, and none the corrupted ones.

    Raises:
        ModelError: If its edges are not known, or are not all there is.
    """
    _require_wide(subject)
    few = slice(0, _TRIED)
    wired = Wired(subject, wirings.find(subject, pairs.clean[few].to(subject.device)))
    tried, run = wired.on_device(pairs, few), EdgeRun(wired)
    for keep, tokens in ((1.0, tried.clean), (0.0, tried.corrupted)):
        with torch.no_grad():
            plain = as_scores(wired.model(tokens))[:, -1]
            edges = torch.full((len(wired.graph.edges),), keep, dtype=plain.dtype, device=plain.device)
            gap = (run.logits(tried, edges) - plain).abs().max() / plain.abs().max()
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
class EdgeRun:
    """Runs a decoder with some edges kept and the others ablated.

    Args:
        wired: The decoder.
        ablation: What is read over an edge that is not kept.
        means: For ``mean``: the mean of each part over rows and places of other contexts.
        frozen: Whether norms keep the scale that they have on the clean context: else what is left of a circuit can
            work through the scale alone.

    Raises:
        UsageError: If means are asked for and not given, or the other way round.
    """

    def __init__(
        self,
        wired: Wired,
        *,
        ablation: Ablation = "patch",
        means: Sequence[Tensor] | None = None,
        frozen: bool = False,
    ) -> None:
        if (ablation == "mean") != (means is not None):
            raise UsageError(
                "Means are not known, or not asked for.",
                where=wired.subject.name,
                expected="means with the ablation 'mean', and only with it",
                got=f"ablation {ablation!r} {'without' if means is None else 'with'} means",
                do="Give edge_asking.place_means(wired, task).",
            )
        self.wired, self.ablation, self.means, self.frozen = wired, ablation, means, frozen

    @torch.no_grad()
    def scores(self, pairs: PairBatch, keep: Tensor) -> Tensor:
        """Logit of the answer less that of the wrong answer, ``[pair]``, with the edges ``keep [edge]``."""
        graph = self.wired.graph
        most = len(graph.writers) + max(len(stage.readers) for stage in graph.stages)
        size = next(self.wired.model.parameters()).element_size()
        tokens = BYTES // (most * self.wired.wiring.width * size)
        found = [differences(self.logits(batch, keep), batch) for batch in self.wired.split(pairs, tokens=tokens)]
        return torch.cat(found)

    def logits(self, batch: PairBatch, keep: Tensor) -> Tensor:
        """Logits of the last place, ``[pair, token]``; has a gradient by ``keep``, if that has one."""
        # A pass on the clean context in which the ablated values of each part take the place of what is not kept.
        one = _Pass(self.wired, self._ablated(batch), keep.to(next(self.wired.model.parameters())))
        with ExitStack() as undo:
            if self.frozen:
                undo.enter_context(self.wired.frozen(batch.clean).applied())
            undo.enter_context(one.hooked())
            return self.wired.logits(batch.clean)

    def _ablated(self, batch: PairBatch) -> Sequence[Tensor] | None:
        return self.wired.written(batch.corrupted).parts if self.ablation == "patch" else self.means


@final
class _Pass:
    """One pass in which every reader has a stream of its own."""

    def __init__(self, wired: Wired, ablated: Sequence[Tensor] | None, keep: Tensor) -> None:
        self.wired, self.ablated = wired, ablated
        self.keep = {(stage.layer, stage.writers): mask for stage, mask in zip(
            wired.graph.stages, _matrices(wired.graph, keep), strict=True)}  # fmt: skip
        self.still: list[Tensor] = []
        self.moved: list[Tensor] = []
        self.gathered: Tensor | None = None
        self.streams: dict[tuple[int, int], Tensor] = {}
        self.projections: dict[str, Tensor] = {}

    @contextmanager
    def hooked(self) -> Generator[None]:
        wired, model = self.wired, self.wired.model
        with ExitStack() as undo:
            undo.enter_context(wired.replacing({at: partial(self._wrote, at) for at in range(len(wired.parts))}))
            for layer, block in enumerate(wired.wiring.blocks):
                for path in dict.fromkeys(affine.path for affine in wired.wiring.projections(layer)):
                    module = model.get_submodule(path)
                    undo.callback(module.register_forward_hook(partial(self._projection, layer, path)).remove)
                if block.mlp:
                    module, into = model.get_submodule(block.reads.path), partial(self._into_mlp, layer)
                    undo.callback(module.register_forward_pre_hook(partial(before, into), with_kwargs=True).remove)
            module = model.get_submodule(wired.wiring.end)
            undo.callback(module.register_forward_pre_hook(partial(before, self._into_end), with_kwargs=True).remove)
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

    def _projection(self, layer: int, path: str, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        if path not in self.projections:
            streams, block = self._stage(layer), self.wired.wiring.blocks[layer]
            heads = sum(self.wired.wiring.counts().values())
            normed = self.wired.through(block.through, streams[:heads])
            for own, rows, values in self.wired.projected(layer, normed):
                held = self.projections.get(own)
                held = values.new_zeros(*values.shape[:2], _outputs(self.wired.model, own)) if held is None else held
                self.projections[own] = held.index_copy(2, rows, values)
        return self.projections.pop(path)

    def _into_mlp(self, layer: int, _: Tensor) -> Tensor:
        graph, block = self.wired.graph, self.wired.wiring.blocks[layer]
        if graph.parallel:
            streams = self._stage(layer)[-1:]
        else:
            streams = self._streams([stage for stage in graph.stages if stage.layer == layer][-1])
        return self.wired.through(block.reads.through, streams)[0]

    def _into_end(self, _: Tensor) -> Tensor:
        return self._streams(self.wired.graph.stages[-1])[0]


def _matrices(graph: Graph, values: Tensor) -> list[Tensor]:
    """Values ``[edge]`` as ``[writer, reader]`` of each stage."""
    sizes = [stage.writers * len(stage.readers) for stage in graph.stages]
    parts = torch.split_with_sizes(values, sizes)
    return [part.view(stage.writers, -1) for part, stage in zip(parts, graph.stages, strict=True)]


def _outputs(model: nn.Module, path: str) -> int:
    """How many outputs a layer has."""
    module: Any = model.get_submodule(path)
    return int(getattr(module, "out_features", None) or module.nf)


def _require_wide(subject: Subject) -> None:
    dtype = next(subject.model.parameters()).dtype
    if dtype.itemsize < 4:
        raise ModelError(
            "Edges cannot be proven in numbers this short.",
            where=subject.name,
            expected="weights of 32 bits or more",
            got=str(dtype).removeprefix("torch."),
            do="Convert the model with .float().",
        )
