"""Pairs of a task answered by a decoder: those searched on and those held out, with units or edges ablated."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.engine.apply import differentiable
from wheeltap.suites.circuits.circuit import other_model
from wheeltap.suites.circuits.engine.attribution import Method, attribute, weights_still
from wheeltap.suites.circuits.engine.edges import Ablated, EdgeDecoder, proven
from wheeltap.suites.circuits.engine.units import Kept, UnitNet, Values, two_sided
from wheeltap.suites.circuits.pairs import BATCH, PairBatch, Pairs, Tokens

Prompts = NDArray[np.intp]
"""For each context of some pairs, ``[side, pair]`` in the order of ``Pairs.order``, another one, by its number: the
clean contexts in that order, then the corrupted ones."""


Instead = Literal["zero"] | Prompts | None
"""What stands for ablated parts: nothing, what other prompts give at the same places, or what stood for them in the
search."""


@dataclass(frozen=True)
class PairRunner(ABC):
    """Some pairs, answered by a net of which parts (units, or edges) are ablated. Masks are ``[part]``, 1 for kept.

    Attributes:
        pairs: In order of length.
        inverted: Whether the two answers change places.
    """

    pairs: Pairs
    inverted: bool = field(default=False, kw_only=True)

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    @abstractmethod
    def slices(self) -> Mapping[str, slice]:
        """Parts of one kind: random circuits have as many of each."""

    def gaps(self, mask: Tensor | None, instead: Instead = None) -> Tensor:
        """How much higher the right answer's score is, ``[side, pair]``, in the order of ``Pairs.order``.

        Nothing is ablated without a mask.
        """
        gaps = self._gaps(mask, instead)
        return -gaps if self.inverted else gaps

    @abstractmethod
    def _gaps(self, mask: Tensor | None, instead: Instead) -> Tensor: ...

    @abstractmethod
    def slope(self, mask: Tensor) -> tuple[float, Tensor]:
        """The mean loss, and its gradient by the mask."""


@final
@dataclass(frozen=True)
class UnitPairs(PairRunner):
    """Some pairs, and a net of which units are ablated.

    Attributes:
        net: The units.
        values: What stands for ablated units.
    """

    net: UnitNet
    values: Values = field(default_factory=dict[str, Tensor])

    @property
    def device(self) -> torch.device:
        """See ``PairRunner.device``."""
        return self.net.device

    @property
    def slices(self) -> Mapping[str, slice]:
        """The units of each site."""
        return self.net.slices

    def _gaps(self, mask: Tensor | None, instead: Instead) -> Tensor:
        batches = list(self.pairs.batches())
        if instead is None or isinstance(instead, str):
            values = [self.values if instead is None else dict[str, Tensor]()] * len(batches)
        else:
            values = (self.net.recorded(tokens.to(self.device)) for tokens in contexts(self.pairs, instead))
        return torch.cat([self.net.gaps(one, mask, held) for one, held in zip(batches, values, strict=True)], 1)

    def loss(self, mask: Tensor | None) -> Tensor:
        """Mean cross-entropy of the right one of two answers over both sides of the pairs; nats."""
        return two_sided(self.gaps(mask)).mean()

    def slope(self, mask: Tensor) -> tuple[float, Tensor]:
        """See ``PairRunner.slope``."""
        free = mask.clone().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(free)
            (slope,) = torch.autograd.grad(loss, free)
        return float(loss), slope


def other_sides(pairs: Pairs) -> Prompts:
    """The counterfactual of each context: the other one of its own pair."""
    return np.roll(np.arange(2 * len(pairs)).reshape(2, -1), 1, axis=0)


def other_prompts(pairs: Pairs, *, root: int, draw: int) -> Prompts:
    """A context of another pair for each, as long as it is, and neither of its own pair's contexts.

    Pairs of one length are drawn from each other in one cycle through all of them, either side with probability 1/2;
    where that gives a pair what is also a context of its own, one of the others is drawn. A pair without any keeps its
    own contexts: see ``alone``.

    Source: Chan et al. 2022, "Causal scrubbing" (values of other prompts).
    """
    rng = seeds.generator(root, "other prompts", draw)
    tokens = [side[at] for side in (pairs.clean, pairs.corrupted) for at in pairs.order]
    lengths = np.array([len(one) for one in tokens])
    own = np.arange(len(tokens)).reshape(2, -1)
    source = np.arange(len(pairs))
    for length in np.unique(lengths):
        cycle = rng.permutation(np.flatnonzero(lengths[: len(pairs)] == length))
        source[cycle] = np.roll(cycle, 1)
    found = own[rng.integers(2, size=own.shape), source]
    for pair, both in enumerate(own.T):
        theirs = {tokens[int(at)] for at in both}
        for side in np.flatnonzero([tokens[int(at)] in theirs for at in found[:, pair]]):
            others = [at for at in np.flatnonzero(lengths == lengths[pair]) if tokens[int(at)] not in theirs]
            found[side, pair] = rng.choice(others) if others else own[side, pair]
    return found


def alone(prompts: Prompts) -> NDArray[np.bool_]:
    """Which pairs have no other prompt of their length, ``[pair]``."""
    return prompts[0] == np.arange(int(prompts.shape[1]))


def contexts(pairs: Pairs, prompts: Prompts) -> Iterator[Tensor]:
    """The contexts of ``prompts`` as tokens ``[context, place]``, both sides of each batch of ``Pairs.batches``."""
    tokens, start = [side[at] for side in (pairs.clean, pairs.corrupted) for at in pairs.order], 0
    for batch in pairs.batches():
        yield torch.tensor([tokens[at] for at in prompts[:, start : start + len(batch)].flat])
        start += len(batch)


def pairs_of(task: BaseTask) -> Pairs:
    """The pairs of a task.

    Raises:
        ModelError: If it has none.
    """
    found = task.annotation(Pairs)
    if found is None:
        raise ModelError(
            "A circuit is searched for on pairs of prompts.", where=task.name,
            expected="a task with pairs: clean and corrupted prompts, and the answer to each", got="no pairs",
            do="Use --task quote, another generated task, or a file of {clean, corrupted, answer, wrong}.",
        )  # fmt: skip
    return found


def halves(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Every other pair: those that circuits are searched on, and those that are held out; none is in it twice.

    Raises:
        DataError: If there is but one.
    """
    sides = zip(
        zip(pairs.clean, pairs.answer, strict=True), zip(pairs.corrupted, pairs.wrong, strict=True), strict=True
    )
    first: dict[frozenset[tuple[Tokens, int]], int] = {}
    for at, both in enumerate(sides):
        first.setdefault(frozenset(both), at)
    every = list(first.values())
    if len(every) < 2:
        raise DataError("A circuit needs pairs to be searched on, and others to be judged by.", where="circuits",
                        expected="two pairs that differ, at least", got=f"{len(every)} (of {len(pairs)})")  # fmt: skip
    return pairs.part(every[::2]), pairs.part(every[1::2])


def reference(task: BaseTask) -> list[Tensor]:
    """What means are taken over, ``[example, place]`` each, some of one length at a time: see ``Pairs.reference``."""
    pairs, lengths = pairs_of(task), dict[int, list[Tokens]]()
    for sequence in pairs.reference or (*pairs.clean, *pairs.corrupted):
        lengths.setdefault(len(sequence), []).append(sequence)
    return [
        torch.tensor(held[start : start + BATCH]) for held in lengths.values() for start in range(0, len(held), BATCH)
    ]


REPHRASED: Final = "rephrased"
"""Factor of a task: 1 for pairs that say the same in other words; no circuit is searched on these."""


def of_group(task: BaseTask, group: int, *, rephrased: bool = False, most: int = 0) -> BaseTask:
    """The examples of one group (all of them for -1) that circuits are searched on, or those in other words.

    Args:
        task: Of all.
        group: Which.
        rephrased: Whether those in other words are wanted.
        most: How many each half of them has at most: those at equal distances; 0 for all.

    Raises:
        DataError: If there are none.
    """
    factor = task.annotations.factors.get(REPHRASED)
    wanted = torch.ones(len(task.targets), dtype=torch.bool) if group < 0 else task.behaviors.cpu() == group
    if factor is not None:
        wanted = wanted & (factor == int(rephrased))
    if not bool(wanted.any()) or (rephrased and factor is None):
        raise DataError("The task has no such pairs.", where=task.name,
                        expected="rephrased pairs" if rephrased else "one of its groups, or -1 for all",
                        got=f"group {group}")  # fmt: skip
    rows = wanted.nonzero()[:, 0]
    if most and len(rows) > 2 * most:
        rows = rows[torch.arange(2 * most) * len(rows) // (2 * most)]
    return task if len(rows) == len(wanted) else task.part(rows)


SLOPE_BYTES: Final = 2**29
"""What a pass may keep for the gradient by every edge."""


@final
@dataclass(frozen=True)
class EdgePairs(PairRunner):
    """Some pairs, and a decoder of which edges are ablated.

    Attributes:
        wired: The decoder.
        ablated: What ablated edges carry: nothing, what their source writes on the other side of the pair, or the mean
            of each part at each place ``[1, place, feature]``.
    """

    wired: EdgeDecoder
    ablated: Ablated = "zero"

    @property
    def device(self) -> torch.device:
        """See ``PairRunner.device``."""
        return self.wired.subject.device

    @property
    def slices(self) -> Mapping[str, slice]:
        """The edges into readers of one kind in one layer."""
        sizes = [stage.writers * len(stage.readers) for stage in self.wired.graph.stages]
        ends = np.cumsum([0, *sizes]).tolist()
        return {str(at): slice(ends[at], ends[at + 1]) for at in range(len(sizes))}

    def _gaps(self, mask: Tensor | None, instead: Instead) -> Tensor:
        tokens = None if instead is None or isinstance(instead, str) else contexts(self.pairs, instead)

        def of(whole: PairBatch) -> Tensor:
            if mask is None:
                batch = whole.part(slice(None), device=self.device)
                with torch.no_grad():
                    return batch.gaps(self.wired.logits(batch.clean))
            if tokens is not None:
                return self.wired.ablated_gaps(replace(whole, corrupted=next(tokens)), mask, "patch")
            return self.wired.ablated_gaps(whole, mask, self._ablated(whole) if instead is None else "zero")

        return torch.cat([of(batch.both_sides()).view(2, -1) for batch in self.pairs.batches()], 1)

    def slope(self, mask: Tensor) -> tuple[float, Tensor]:
        """See ``PairRunner.slope``: a few pairs at a time."""
        graph, width = self.wired.graph, self.wired.wiring.width
        each = sum(stage.writers for stage in graph.stages) * width * mask.element_size()
        loss, slope = 0.0, torch.zeros_like(mask)
        with weights_still(self.wired.model), differentiable(self.wired.model), torch.enable_grad():
            for whole in self.pairs.batches():
                for batch in self.wired.split(whole.both_sides(), tokens=SLOPE_BYTES // each):
                    free = mask.clone().requires_grad_()
                    gap = batch.gaps(self.wired.ablated_logits(batch, free, self._ablated(batch)))
                    value = functional.softplus(gap if self.inverted else -gap).sum() / (2 * len(self.pairs))
                    slope += torch.autograd.grad(value, free)[0]
                    loss += float(value.detach())
        return loss, slope

    def _ablated(self, batch: PairBatch) -> Ablated:
        """What ablated edges carry, at as many places as a batch has."""
        if isinstance(self.ablated, str):
            return self.ablated
        return [part[:, : batch.clean.shape[1]] for part in self.ablated]


def wired(subject: Subject, pairs: Pairs) -> EdgeDecoder:
    """The decoder, its edges found and proven on pairs.

    Raises:
        ModelError: If its edges are not known, or are not all there is.
    """
    return proven(subject, next(pairs.batches()))


def place_means(wired: EdgeDecoder, task: BaseTask) -> list[Tensor]:
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
        parts = wired.written(tokens[:, :places].to(wired.subject.device))
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


def edge_pairs(subject: Subject, task: BaseTask, kept: Kept) -> tuple[EdgePairs, EdgePairs, dict[str, int]]:
    """Pairs that are searched on and pairs that are held out; how large circuit and net are.

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
    searched, held = (EdgePairs(pairs, known, means) for pairs in halved)
    return searched, held, counts


def unit_pairs(subject: Subject, task: BaseTask, kept: Kept) -> tuple[UnitPairs, UnitPairs, dict[str, int]]:
    """The same of units.

    Raises:
        ModelError: If the circuit is of another model.
    """
    searched, held = unit_sides(subject.model, task)
    net = searched.net
    require_parts(subject, kept, net.units, "units")
    every = np.ones(net.units, dtype=np.bool_)
    counts = {"units": int(kept.sum()), "edges": net.edges(kept), "all_units": net.units, "all_edges": net.edges(every)}
    return searched, held, counts


def unit_sides(model: nn.Module, task: BaseTask, *, inverted: bool = False) -> tuple[UnitPairs, UnitPairs]:
    """Pairs that are searched on and pairs that are held out; units are ablated at their means."""
    searched, held = halves(pairs_of(task))
    net = UnitNet(model, next(searched.batches()).clean)
    values = net.means(reference(task))
    return UnitPairs(searched, net, values, inverted=inverted), UnitPairs(held, net, values, inverted=inverted)


def require_parts(subject: Subject, kept: Kept, count: int, parts: str) -> None:
    """Raises ``ModelError`` if a circuit is of other than so many units or edges."""
    if len(kept) != count:
        raise other_model(subject.name, f"{count:,} {parts}", f"{len(kept):,}")


def scored(of: EdgePairs, method: Method, *, seed: int, again: bool) -> NDArray[np.float64]:
    """Return the scores of all edges by both sides of the pairs, ``[edge]``.

    The metric is the difference of the two logits.

    Args:
        of: The pairs.
        method: Of ``attribution``.
        seed: Of what is drawn.
        again: Whether as many pairs are drawn with replacement: the methods draw nothing by themselves.
    """
    pairs = of.pairs
    if again:
        rows = seeds.generator(seed, "pairs that edges are scored on").integers(len(pairs), size=len(pairs))
        pairs = pairs.part(rows.tolist())
    batches = [batch.both_sides() for batch in pairs.batches()]
    if of.inverted:
        batches = [PairBatch(one.clean, one.corrupted, one.wrong, one.answer) for one in batches]
    return attribute(of.wired, batches, method)


ROUNDS: Final = 4
"""Of the search for the most harmful subset: each takes one gradient and flips every unit that it says to."""


@final
@dataclass(frozen=True)
class CircuitOnPairs:
    """A circuit, held against pairs on which it was not searched.

    Attributes:
        searched: Pairs on which the most harmful subset is searched.
        held: Pairs on which everything is measured; values are means.
        kept: The circuit, ``[part]``.
        root: Of what is drawn.
        by: What random circuits, and the pairs searched, are measured under: ``mean`` or ``patch``.
    """

    searched: PairRunner
    held: PairRunner
    kept: Kept
    root: int
    by: str = "mean"

    @property
    def mask(self) -> Tensor:
        """1 for parts of the circuit, ``[part]``."""
        return to_tensor(self.kept.astype("float32")).to(self.held.device)

    def gaps(self, definition: str) -> Tensor:
        """How much higher the right answer's score is under one definition, ``[side, pair]``."""
        if definition == "whole":
            return self.held.gaps(None)
        if definition == "empty":
            return self.held.gaps(torch.zeros_like(self.mask))
        what, _, how = definition.partition(" ")
        if how == "adversarial":
            return self.held.gaps(self.worst())
        return self._by(self.held, self.mask if what == "keep" else 1.0 - self.mask, how)

    def fitted(self) -> Tensor:
        """With the circuit alone on the pairs searched, ``[side, pair]``."""
        return self._by(self.searched, self.mask, self.by)

    @staticmethod
    def _by(pairs: PairRunner, mask: Tensor, how: str) -> Tensor:
        """With what is not kept at its mean, at zero, or patched from the counterfactual."""
        return pairs.gaps(mask, "zero" if how == "zero" else other_sides(pairs.pairs) if how == "patch" else None)

    def subset(self, draw: int) -> Tensor:
        """With a random half of what is outside at its mean, ``[side, pair]``."""
        drawn = seeds.generator(self.root, "subset", draw).random(len(self.kept)) < 0.5
        return self.held.gaps(to_tensor((drawn | self.kept).astype("float32")).to(self.held.device))

    def worst(self) -> Tensor:
        """The circuit and that part of what is outside which does it most harm, ``[part]``; the rest at its mean."""
        fixed, best = self.mask > 0, (-1.0, self.mask)
        mask = self.mask
        for _ in range(ROUNDS):
            loss, slope = self.searched.slope(mask)
            best = max(best, (loss, mask), key=lambda one: one[0])
            changed = torch.where(fixed, self.mask, (slope > 0).to(mask.dtype))
            if torch.equal(changed, mask):
                break
            mask = changed
        return max(best, (mean_loss(self.searched.gaps(mask)), mask), key=lambda one: one[0])[1]

    def random(self, draw: int, *, remove: bool) -> float:
        """Loss with as many parts of each kind as the circuit has, drawn at random, kept (or ablated); nats."""
        rng, drawn = seeds.generator(self.root, "random circuit", draw), self.mask.clone()
        for held in self.held.slices.values():
            drawn[held] = drawn[held][to_tensor(rng.permutation(held.stop - held.start)).to(drawn.device)]
        return mean_loss(self._by(self.held, 1.0 - drawn if remove else drawn, self.by))


def mean_loss(gaps: Tensor) -> float:
    """Mean cross-entropy of the right one of two answers, nats."""
    return float(two_sided(gaps).mean())
