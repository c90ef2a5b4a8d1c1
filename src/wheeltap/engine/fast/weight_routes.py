"""Ways from one changed weight to the scores, without writing it: see ``rank_one``, which chooses among them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, fx, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.fast.folded import Calls, computing, repeated_rows
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.fast.tail import Tail, computed, traced
from wheeltap.gauge.activation import traits
from wheeltap.gauge.base import altered

_HELD = 2**22
"""Numbers of a layer's output that variants may fill together."""


@final
@dataclass(frozen=True)
class Changed:
    """The rows that some variants change; every other row of theirs is as in the clean pass.

    Attributes:
        variant: Which of the variants each row is of, ``[row]``.
        example: Which example it is, ``[row]``.
        scores: ``[row, option]``.
    """

    variant: Tensor
    example: Tensor
    scores: Tensor


class Route(ABC):
    """A way from single changed weights to scores.

    Attributes:
        path: Its name.
        share: What one weight costs, in passes, by multiplications.
        variants: How many weights go together at most.
    """

    path: ClassVar[str]
    share: float = 1.0
    variants: int

    @abstractmethod
    def changed(self, unit: int, columns: Tensor, deltas: Tensor) -> Changed:
        """Scores with weight (unit, column) changed by its delta, one weight at a time."""


@final
class _RankOne(Route):
    """See ``rank_one``."""

    path = "rank-1"

    def __init__(self, tails: "_Traced", chain: Sequence[fx.Node], reader: fx.Node, model: nn.Module) -> None:
        self.model, self.chain, self.start = model, chain, tails.tail.start
        self.outgoing: Tensor = model.get_submodule(str(reader.target)).get_parameter("weight").T.contiguous()
        self.tail = Tail(model, tails.graph, reader)
        self.inputs = [batch[self.start.all_input_nodes[0]] for batch in tails.batches]
        self.before = [batch[self.start] for batch in tails.batches]
        self.after = [self._activated(before) for before in self.before]
        self.behind = [self.tail.kept(inputs) for inputs in tails.given]
        self.reader, self.starts = reader, tails.starts
        self.variants = max(1, _HELD // max(len(before) for before in self.before))
        self.share = (self.outgoing.shape[1] + _parameters(self.tail)) / _all_parameters(model)

    def _activated(self, values: Tensor) -> Tensor:
        held: dict[fx.Node, Any] = {self.start: values.clone()}  # an activation may work in place
        for node in self.chain:
            held[node] = computed(self.model, node, held)
        return held[self.chain[-1]] if self.chain else held[self.start]

    def changed(self, unit: int, columns: Tensor, deltas: Tensor) -> Changed:
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for at, start in enumerate(self.starts):
            moved = self.inputs[at].index_select(1, columns).mul_(deltas).add_(self.before[at][:, unit, None])
            change = self._activated(moved).sub_(self.after[at][:, unit, None])
            example, variant = change.nonzero(as_tuple=True)
            outputs = self.behind[at][self.reader].index_select(0, example)
            outputs.addr_(change[example, variant], self.outgoing[unit])
            scores = self.tail.scores(outputs, self.behind[at], example)
            parts.append((variant, example + start, scores))
        return _joined(parts)


@final
class _Traced(Route):
    """Column patch with a traced tail; see ``rank_one``."""

    path = "column patch, traced tail"

    def __init__(self, subject: Subject, task: Task, layer: Layer, graph: fx.Graph) -> None:
        self.layer, self.graph, self.module = layer, graph, subject.model.get_submodule(layer.name)
        (start,) = [node for node in graph.nodes if node.op == "call_module" and str(node.target) == layer.name]
        self.tail = Tail(subject.model, graph, start)
        self.starts = range(0, len(task.inputs), task.batch)
        self.given = [task.inputs[start : start + task.batch].to(subject.device) for start in self.starts]
        self.batches = [self.tail.kept(part) for part in self.given]
        self.variants = max(1, _HELD // max(batch[start].numel() for batch in self.batches))
        self.share = (_parameters(self.tail) + 1) / _all_parameters(subject.model)

    @property
    def problem(self) -> str:
        """Why this route cannot be taken; empty if it can."""
        reasons = (self.tail.refused(kept, rows=len(part)) for kept, part in zip(self.batches, self.given, strict=True))
        start, inputs = self.tail.start, self.tail.start.all_input_nodes
        if len(inputs) != 1:
            return "it takes more than its input"
        if any(
            len(kept[node]) != len(part)
            for kept, part in zip(self.batches, self.given, strict=True)
            for node in (start, *inputs)
        ):
            return "it does not take one row per example"
        return next((why for why in reasons if why), "")

    def changed(self, unit: int, columns: Tensor, deltas: Tensor) -> Changed:
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for start, kept in zip(self.starts, self.batches, strict=True):
            moved = _moves(self.module, kept[self.tail.start.all_input_nodes[0]], columns, deltas)
            variant, example = moved.reshape(*moved.shape[:2], -1).any(2).nonzero(as_tuple=True)
            outputs = kept[self.tail.start].index_select(0, example)
            outputs.select(_unit_axis(self.module, outputs), unit).add_(moved[variant, example])
            parts.append((variant, example + start, self.tail.scores(outputs, kept, example)))
        return _joined(parts)


@final
class _Folded(Route):
    """Column patch in shared passes; see ``rank_one``."""

    path = "column patch, folded"

    def __init__(self, subject: Subject, task: BaseTask, layer: Layer) -> None:
        self.subject, self.name, self.module = subject, layer.name, subject.model.get_submodule(layer.name)
        self.seen: list[tuple[Tensor, Tensor]] = []

        def see(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self.seen.append((args[0].detach(), output.detach()))

        hook = self.module.register_forward_hook(see)
        try:
            self.calls = Calls(subject, task)
        finally:
            hook.remove()
        if len(self.seen) != len(self.calls.calls):
            raise refused(subject, layer.name, f"called {len(self.seen)} times in {len(self.calls.calls)} forwards")
        self.cache = PrefixCache(subject, task.scores)
        self.block = next((path for path in self.cache.stack if layer.name.startswith(f"{path}.")), "")
        self.share = self.cache.share(self.block) if self.cache.covers(self.block) else 1.0
        self.variants = max(
            1,
            _HELD
            // max(max(z.numel(), c.scores.numel()) for (_, z), c in zip(self.seen, self.calls.calls, strict=True)),
        )

    def changed(self, unit: int, columns: Tensor, deltas: Tensor) -> Changed:
        copies, calls = len(columns), 0

        def forward(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
            nonlocal calls
            given, gave = self.seen[calls]
            calls += 1
            rows = self.calls.current.rows
            if len(given) == 1:  # the same for all rows: positions, say
                given, gave = given.expand(rows, *given.shape[1:]), gave.expand(rows, *gave.shape[1:])
            if len(given) != rows:
                raise refused(self.subject, self.name, f"an input of {len(given)} rows for a batch of {rows}")
            outputs = repeated_rows(gave, copies).clone()
            moved = _moves(self.module, given, columns, deltas).flatten(0, 1)
            outputs.select(_unit_axis(self.module, outputs), unit).add_(moved)
            return outputs

        covered = self.cache.covers(self.block)
        with (
            self.cache.starting_at(self.block, copies=copies) if covered else nullcontext(),
            computing(self.module, forward),
        ):
            scores = self.calls.folded(copies)
        variant, example = torch.ones(scores.shape[:2]).nonzero(as_tuple=True)
        return Changed(variant, example, scores.flatten(0, 1))


def route(subject: Subject, task: BaseTask, layer: Layer) -> Route:
    """The cheapest route that fits."""
    graph = traced(subject.model) if isinstance(task, Task) else ""
    if isinstance(graph, str) or not isinstance(task, Task):
        return _Folded(subject, task, layer)
    if sum(str(node.target) == layer.name for node in graph.nodes if node.op == "call_module") != 1:
        return _Folded(subject, task, layer)
    patch = _Traced(subject, task, layer, graph)
    if patch.problem:
        return _Folded(subject, task, layer)
    chain = _to_reader(subject.model, patch.tail.start)
    flat = all(batch[patch.tail.start].ndim == 2 for batch in patch.batches)
    if chain is None or not flat or layer.kind not in ("linear", "transposed"):
        return patch
    whole = _RankOne(patch, chain[:-1], chain[-1], subject.model)
    problems = (whole.tail.refused(b, rows=len(g)) for b, g in zip(whole.behind, patch.given, strict=True))
    return patch if any(problems) else whole


def _to_reader(model: nn.Module, start: fx.Node) -> list[fx.Node] | None:
    """Operations that act unit by unit, and the Linear that alone reads what they give; ``None`` if others come."""
    found: list[fx.Node] = []
    node = start
    while len(node.users) == 1:
        previous, node = node, next(iter(node.users))
        if node.op == "output" or node.all_input_nodes != [previous] or not node.args or node.args[0] is not previous:
            return None
        found.append(node)
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if type(module) is nn.Linear:
            return found if altered(module) is None else None
        alone = traits(lambda values, node=node, previous=previous: computed(model, node, {previous: values}))
        if alone is None or (module is not None and altered(module)):
            return None
    return None


def _moves(module: nn.Module, inputs: Tensor, columns: Tensor, deltas: Tensor) -> Tensor:
    """How far each changed weight moves its unit, ``[variant, row, place...]``."""
    scale = deltas.reshape(-1, *[1] * (inputs.ndim - 1))
    if isinstance(module, nn.Embedding):
        return (inputs == columns.reshape(-1, *[1] * inputs.ndim)) * deltas.reshape(-1, *[1] * inputs.ndim)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        kernel = torch.zeros(len(columns), module.weight[0].numel(), dtype=inputs.dtype, device=inputs.device)
        kernel[torch.arange(len(columns)), columns] = deltas
        # torch's own inner call: it knows every way of padding and stride.
        moved: Tensor = module._conv_forward(inputs, kernel.reshape(-1, *module.weight.shape[1:]), None)  # pyright: ignore[reportPrivateUsage]
        return moved.transpose(0, 1)
    return inputs.index_select(-1, columns).movedim(-1, 0) * scale


def _unit_axis(module: nn.Module, outputs: Tensor) -> int:
    return 1 if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) else outputs.ndim - 1


def _joined(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Changed:
    variant, example, scores = zip(*parts, strict=True)
    return Changed(torch.cat(variant), torch.cat(example), torch.cat(scores))


def _parameters(tail: Tail) -> int:
    called = {str(node.target) for node in tail.nodes if node.op == "call_module"}
    return sum(p.numel() for path in called for p in tail.model.get_submodule(path).parameters())


def _all_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def refused(subject: Subject, layer: str, got: str) -> ModelError:
    """That single weights of a layer cannot be swept."""
    return ModelError(
        "Single weights of this layer cannot be swept.",
        where=f"{subject.name}: {layer}",
        expected="a Linear, Conv1D, Embedding or plain convolution with a weight of its own, called once in a forward",
        got=got,
        do="Disturb single weights one by one: sites of the kind 'weight' do.",
    )
