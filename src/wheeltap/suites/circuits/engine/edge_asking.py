"""Asking the pairs of a task of a decoder of which edges are ablated; how edges are scored on some of them.

What an ablated edge carries: the mean of what its source writes at that place, over some sequences; nothing; or what
the source writes in another prompt: the counterfactual (the other side of its pair), or one of another pair. A mean
over all places would not do: what the first place of a language model holds is many times as large as what others do.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.backward import differentiable
from wheeltap.suites.circuits.engine.asking import Prompts, contexts, halves, pairs_of, reference
from wheeltap.suites.circuits.engine.attribution import Method, Settings, attribute, weights_still
from wheeltap.suites.circuits.engine.edge_run import EdgeRun, proven
from wheeltap.suites.circuits.engine.edges import Wired, differences
from wheeltap.suites.circuits.engine.units import Kept
from wheeltap.suites.circuits.pairs import PairBatch, Pairs

SLOPE_BYTES: Final = 2**29
"""What a pass may keep for the gradient by every edge."""


@final
@dataclass(frozen=True)
class AskedEdges:
    """Some pairs, asked of a decoder of which edges are ablated; see ``Asking``.

    Attributes:
        wired: The decoder.
        pairs: In order of length.
        means: Of each part at each place ``[1, place, feature]``; ablated edges carry nothing without them.
        inverted: Whether the two answers change places.
        counterfactual: Whether ablated edges carry what their source writes on the other side of the pair instead.
    """

    wired: Wired
    pairs: Pairs
    means: Sequence[Tensor] | None
    inverted: bool = False
    counterfactual: bool = False

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.wired.subject.device

    @property
    def slices(self) -> Mapping[str, slice]:
        """The edges into readers of one kind in one layer."""
        sizes = [stage.writers * len(stage.readers) for stage in self.wired.graph.stages]
        ends = np.cumsum([0, *sizes]).tolist()
        return {str(at): slice(ends[at], ends[at + 1]) for at in range(len(sizes))}

    def gaps(self, mask: Tensor | None) -> Tensor:
        """How much higher the right answer's score is, ``[side, pair]``, in the order of ``Pairs.order``."""
        return self._gaps(lambda batch: self._plain(batch) if mask is None else self._run(batch).scores(batch, mask))

    def zeroed(self, mask: Tensor) -> Tensor:
        """See ``Asking.zeroed``."""
        return self._gaps(lambda batch: EdgeRun(self.wired, ablation="zero").scores(batch, mask))

    def patched(self, mask: Tensor, prompts: Prompts) -> Tensor:
        """See ``Asking.patched``."""
        tokens, run = contexts(self.pairs, prompts), EdgeRun(self.wired)
        return self._gaps(lambda whole: run.scores(replace(whole, corrupted=next(tokens)), mask))

    def slope(self, mask: Tensor) -> tuple[float, Tensor]:
        """See ``Asking.slope``: a few pairs at a time."""
        graph, width = self.wired.graph, self.wired.wiring.width
        each = sum(stage.writers for stage in graph.stages) * width * mask.element_size()
        loss, slope = 0.0, torch.zeros_like(mask)
        with weights_still(self.wired.model), differentiable(self.wired.model), torch.enable_grad():
            for whole in self._both():
                for batch in self.wired.split(whole, tokens=SLOPE_BYTES // each):
                    asked = mask.clone().requires_grad_()
                    gap = differences(self._run(batch).logits(batch, asked), batch)
                    value = functional.softplus(gap if self.inverted else -gap).sum() / (2 * len(self.pairs))
                    slope += torch.autograd.grad(value, asked)[0]
                    loss += float(value.detach())
        return loss, slope

    def _both(self) -> Iterator[PairBatch]:
        return (both_sides(batch) for batch in self.pairs.batches())

    def _gaps(self, of: Callable[[PairBatch], Tensor]) -> Tensor:
        gaps = torch.cat([of(batch).view(2, -1) for batch in self._both()], 1)
        return -gaps if self.inverted else gaps

    @torch.no_grad()
    def _plain(self, whole: PairBatch) -> Tensor:
        batch = self.wired.on_device(whole, slice(None))
        return differences(self.wired.logits(batch.clean), batch)

    def _run(self, batch: PairBatch) -> EdgeRun:
        if self.counterfactual:
            return EdgeRun(self.wired)
        if self.means is None:
            return EdgeRun(self.wired, ablation="zero")
        return EdgeRun(self.wired, ablation="mean", means=[part[:, : batch.clean.shape[1]] for part in self.means])


def both_sides(batch: PairBatch) -> PairBatch:
    """Every pair, then every pair with its two sides swapped."""
    clean, corrupted, answer, wrong = batch.clean, batch.corrupted, batch.answer, batch.wrong
    return PairBatch(
        torch.cat([clean, corrupted]), torch.cat([corrupted, clean]), torch.cat([answer, wrong]),
        torch.cat([wrong, answer]),
    )  # fmt: skip


def wired(subject: Subject, pairs: Pairs) -> Wired:
    """The decoder, its edges found and proven on pairs.

    Raises:
        ModelError: If its edges are not known, or are not all there is.
    """
    return proven(subject, next(pairs.batches()))


def place_means(wired: Wired, task: BaseTask) -> list[Tensor]:
    """The mean of what each part writes at each place ``[1, place, feature]``, in float64 sums.

    Args:
        wired: The decoder.
        task: Whose reference sequences means are taken over, at as many places as its pairs have; a place that no
            sequence has takes the mean over all of them.
    """
    places = max(map(len, pairs_of(task).clean))
    sums: list[Tensor] = []
    counts = torch.zeros(places, dtype=torch.float64)
    for tokens in reference(task):
        parts = wired.written(tokens[:, :places].to(wired.subject.device)).parts
        sums = sums or [part.new_zeros(places, part.shape[-1], dtype=torch.float64) for part in parts]
        for total, part in zip(sums, parts, strict=True):
            total[: part.shape[1]] += part.double().sum(0)
        counts[: tokens.shape[1]] += len(tokens)
    counts = counts.to(wired.subject.device)[:, None]
    like = next(wired.model.parameters())
    return [
        torch.where(counts > 0, total / counts.clamp(min=1.0), total.sum(0) / counts.sum()).to(like.dtype)[None]
        for total in sums
    ]


def edges_asked(subject: Subject, task: BaseTask, kept: Kept) -> tuple[AskedEdges, AskedEdges, dict[str, int]]:
    """Pairs that are searched on and pairs that are held out, asked of the edges; how large circuit and net are.

    Raises:
        ModelError: If the circuit is of another model.
    """
    halved = halves(pairs_of(task))
    known = wired(subject, halved[0])
    graph = known.graph
    require_parts(subject, kept, len(graph.edges), "edges")
    means = place_means(known, task)
    counts = {"units": int(graph.touched(kept).sum()), "edges": int(kept.sum()), "all_units": len(graph.nodes),
              "all_edges": len(graph.edges)}  # fmt: skip
    searched, held = (AskedEdges(known, pairs, means) for pairs in halved)
    return searched, held, counts


def require_parts(subject: Subject, kept: Kept, count: int, parts: str) -> None:
    """Raises ``ModelError`` if a circuit is of other than so many units or edges."""
    if len(kept) != count:
        raise ModelError(
            "The circuit is of another model.", where=subject.name, expected=f"{count:,} {parts}",
            got=f"{len(kept):,}",
            do="Find one of this model: wheeltap circuits find MODEL --task TASK.",
        )  # fmt: skip


def scored(
    asked: AskedEdges, method: Method, *, seed: int, again: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of all edges by both sides of the pairs, and which of them the method leaves, ``[edge]`` each.

    The metric is the difference of the two logits.

    Args:
        asked: The pairs.
        method: Of ``attribution``.
        seed: Of what is drawn.
        again: Whether as many pairs are drawn with replacement: most methods draw nothing by themselves.
    """
    pairs = asked.pairs
    if again:
        rows = seeds.generator(seed, "pairs that edges are scored on").integers(len(pairs), size=len(pairs))
        pairs = pairs.part(rows.tolist())
    batches = [both_sides(batch) for batch in pairs.batches()]
    if asked.inverted:
        batches = [PairBatch(one.clean, one.corrupted, one.wrong, one.answer) for one in batches]
    ablation: Literal["patch", "zero"] = "zero" if asked.means is None and not asked.counterfactual else "patch"
    found = attribute(asked.wired, batches, Settings(method=method, ablation=ablation, seed=seed))
    return found.scores, found.kept
