"""What each attention head does: every one ablated exactly, the heads of a layer in shared passes.

Without head h, an attention layer writes what it wrote less z_h W_O[h], with z_h the head's mix of values: one small
product for each head. The layer's heads then share the rest of the pass as copies in its batch, and the blocks before
it are not run again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.fast.folded import (
    TOKENS,
    Calls,
    computing,
    joined_rows,
    repeated_rows,
    require_same,
    require_single_precision,
)
from wheeltap.engine.fast.narrow import Narrowing
from wheeltap.engine.fast.opened import opened
from wheeltap.engine.fast.prefix import PrefixCache, Reached
from wheeltap.engine.inside.few import few
from wheeltap.gauge import attention
from wheeltap.gauge.attention import Attention
from wheeltap.gauge.base import Sharing

Read = Callable[[Tensor], Tensor]
"""From scores ``[example, option]`` to what is kept of them."""


@final
@dataclass(frozen=True)
class Head:
    """One attention head: module path of its layer, and its number there."""

    layer: str
    index: int


@final
@dataclass
class _Heads:
    """One attention layer, with what it mixed and wrote in each call of the clean pass.

    Attributes:
        mixed: Inputs of the output projection, ``[row, place, head x width]`` per call.
        projected: What the output projection gave, per call.
        wrote: What the module at ``path`` returned, per call.
        path: The module that is replaced to take a head away: the layer, or its projection, where what the layer
            returns is more than that gives.
    """

    attention: Attention
    mixed: list[Tensor] = field(default_factory=list[Tensor])
    projected: list[Tensor] = field(default_factory=list[Tensor])
    wrote: list[Any] = field(default_factory=list[Any])
    path: str = ""

    def settle(self) -> None:
        """Choose the module that is replaced, once the clean pass is over."""
        same = len(self.wrote) == len(self.projected) and all(
            torch.equal(_first(wrote), projected) and _by_row(wrote, len(projected))
            for wrote, projected in zip(self.wrote, self.projected, strict=True)
        )
        self.path = self.attention.path if same else self.attention.output.path
        self.wrote = self.wrote if same else list(self.projected)
        self.projected.clear()

    def without(self, model: nn.Module, heads: Sequence[int | None]) -> Callable[..., Any]:
        """A forward of the layer that gives, in one call after another, a copy of its output without each of ``heads``.

        ``None`` leaves a copy as it is.
        """
        calls = 0

        def forward(*_: Any, **__: Any) -> Any:
            nonlocal calls
            at, calls = calls % len(self.wrote), calls + 1
            wrote = self.wrote[at]
            first = _first(wrote)
            changed = repeated_rows(first, len(heads)).view(len(heads), *first.shape).clone()
            for place, head in enumerate(heads):
                if head is not None:
                    changed[place] -= self._written(model, self.mixed[at], head)
            changed = changed.flatten(0, 1)
            return (changed, *repeated_rows(wrote[1:], len(heads))) if isinstance(wrote, tuple) else changed

        return forward

    def _written(self, model: nn.Module, mixed: Tensor, head: int) -> Tensor:
        """What one head adds to the layer's output, ``[row, place, output]``."""
        part = slice(head * self.attention.width, (head + 1) * self.attention.width)
        weight = model.get_submodule(self.attention.output.path).get_parameter("weight")
        return mixed[..., part] @ (weight[part] if self.attention.output.transposed else weight[:, part].T)


@final
class HeadAblation:
    """The attention heads of one subject on one task, taken away one by one, exactly.

    The first pass holds one copy that is left as it is, which must give the clean scores, and one of its heads is
    ablated by the slow path too.

    Memory: the clean pass's attention outputs and their inputs, and batches repeated up to ``TOKENS``.

    Args:
        subject: Undisturbed; its weights are not written to.
        task: The examples.

    Attributes:
        heads: Every head, in order of computation.
        path: Name of the numerical path.
        spent: Passes over the task that it has cost so far, in whole passes.

    Raises:
        ModelError: If the model's attention is not known.
    """

    def __init__(self, subject: Subject, task: BaseTask) -> None:
        self.subject, self.task = subject, task
        self._layers = {found.path: _Heads(found) for found in found_attention(subject, task)}
        self.heads = tuple(Head(path, at) for path, held in self._layers.items() for at in range(held.attention.heads))
        self.path = "heads folded"
        require_single_precision(subject, path=self.path)
        calls: list[Calls] = []

        def first_recorded(model: nn.Module) -> Tensor:
            if calls:
                return task.scores(model)
            with self._recording():
                calls.append(Calls(subject, task))
            return calls[0].clean

        with self._opened():
            self.cache = PrefixCache(subject, first_recorded)
            if not calls:  # no stack of blocks to keep the outputs of
                first_recorded(subject.model)
        self.calls, self.clean = calls[0], calls[0].clean
        self.spent = max(self.cache.spent, 1.0)
        if self.cache.exact:
            self.path = "heads folded, prefix cached"
        for held in self._layers.values():
            held.settle()
        if any(len(held.wrote) != len(self.calls.calls) for held in self._layers.values()):
            raise _unknown(self.subject, "attention that does not run once in every call")
        last = next(reversed(self._layers.values()))
        self._narrowing = Narrowing(subject, self.calls, self.cache, inner=[last.attention.output.path])
        # In narrow passes the copies must be few enough to stay in the processor's cache.
        tokens = max(mixed[..., 0].numel() for mixed in last.mixed)
        self.copies = max(TOKENS // tokens, 1)
        self._proven = False

    def projection(self, head: Head) -> str:
        """Module path of the layer that writes what the head mixed."""
        return self._layers[head.layer].attention.output.path

    def ablated(self, heads: Sequence[Head], read: Read) -> Tensor:
        """What ``read`` keeps of the scores without each of ``heads``, ``[head, ...]``; exact but for rounding.

        Raises:
            ModelError: If ablation in shared passes does not give what single ones give.
        """
        kept: dict[Head, Tensor] = {}
        order = sorted(dict.fromkeys(heads), key=self.heads.index)
        for layer, members in groupby(order, key=lambda head: head.layer):
            of_layer = list(members)
            scores = self._scores(layer, of_layer)
            kept.update({head: read(own) for head, own in zip(of_layer, scores, strict=True)})
        return torch.stack([kept[head] for head in heads])

    def _scores(self, layer: str, heads: Sequence[Head]) -> Tensor:
        """Scores without each of the layer's ``heads``; proven in the first pass."""
        indices = [head.index for head in heads]
        if self._proven:
            return self._without(layer, indices)
        scores = self._without(layer, [None, *indices])
        # Rows that saw each other would show in the copy that is left as it is.
        slow = torch.stack([self.clean, self.plainly(heads[0])])
        require_same(scores[:2], slow, path=self.path, where=f"{self.subject.name}: {layer}")
        self._proven = True
        return scores[1:]

    @torch.no_grad()
    def plainly(self, head: Head) -> Tensor:
        """Scores without one head, by one whole pass in which its values are set to zero: the slow path."""
        held = self._layers[head.layer].attention

        def silence(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            mixed = args[0].clone()
            mixed[..., head.index * held.width : (head.index + 1) * held.width] = 0.0
            return (mixed, *args[1:])

        self.spent += 1.0
        module = self.subject.model.get_submodule(held.output.path)
        hook = module.register_forward_pre_hook(silence)
        try:
            with self._opened():
                return self.task.scores(self.subject.model)
        finally:
            hook.remove()

    @torch.no_grad()
    def _without(self, layer: str, heads: Sequence[int | None]) -> Tensor:
        """Scores ``[head, example, option]``: blocks on a few copies at a time, what follows them on all copies."""
        block = next((path for path in self.cache.stack if layer.startswith(f"{path}.")), "")
        covered = self.cache.covers(block)
        self.spent += len(heads) * (self.cache.share(block) if covered else 1.0)
        parts = [heads[start : start + self.copies] for start in range(0, len(heads), self.copies)]
        with self._opened():
            if not covered:
                return torch.cat([self._folded(layer, part) for part in parts])
            ends: list[list[Any]] = [[] for _ in self.calls.calls]
            for part in parts:
                with self.cache.stopping(), self._narrowing.applied(), self.cache.starting_at(block, copies=len(part)):
                    self._run_to_end(layer, part, ends)
            with self.cache.after([joined_rows(end) for end in ends]):
                return self.calls.folded(len(heads))

    def _opened(self) -> AbstractContextManager[None]:
        return opened(self.subject.model, self._layers)

    def _folded(self, layer: str, heads: Sequence[int | None]) -> Tensor:
        model, held = self.subject.model, self._layers[layer]
        with computing(model.get_submodule(held.path), held.without(model, heads)):
            return self.calls.folded(len(heads))

    def _run_to_end(self, layer: str, heads: Sequence[int | None], ends: list[list[Any]]) -> None:
        """Adds what the last block gives in each call to ``ends``."""
        model, held = self.subject.model, self._layers[layer]
        with computing(model.get_submodule(held.path), held.without(model, heads)):
            for call, end in zip(self.calls.calls, ends, strict=True):
                try:
                    self.calls.output(call, len(heads))
                except Reached as reached:
                    end.append(reached.output)

    def _recording(self) -> ExitStack:
        """Hooks that keep what every attention layer mixes and writes."""
        undo = ExitStack()
        for held in self._layers.values():

            def mix(module: nn.Module, args: tuple[Tensor, ...], output: Tensor, held: _Heads = held) -> None:
                held.mixed.append(args[0].detach())
                held.projected.append(output)

            def write(module: nn.Module, args: Any, output: Any, held: _Heads = held) -> None:
                held.wrote.append(output)

            projection = self.subject.model.get_submodule(held.attention.output.path)
            undo.callback(projection.register_forward_hook(mix).remove)
            undo.callback(self.subject.model.get_submodule(held.attention.path).register_forward_hook(write).remove)
        return undo


def _by_row(output: Any, rows: int) -> bool:
    """Whether all that is returned beside the first tensor has one entry for each row, or is nothing."""
    rest = cast("tuple[Any, ...]", output)[1:] if isinstance(output, tuple) else ()
    return all(each is None or (isinstance(each, Tensor) and len(each) == rows) for each in rest)


def _first(output: Any) -> Any:
    return cast("tuple[Any, ...]", output)[0] if isinstance(output, tuple) else output


def found_attention(subject: Subject, task: BaseTask | None = None) -> tuple[Attention, ...]:
    """Every attention layer, all of them known; with a task, also those whose heads the model's outputs prove."""
    run = None if task is None else few(task, subject.model)
    found, refused = attention.find(subject.model, Sharing(subject.model), run=run)
    # Which moves hold does not matter here.
    problems = [reason for reason in refused if not any(f": {move}: " in reason for move in attention.MOVES)]
    problems += [f"{each.path}: how many heads it has is not proven" for each in found if not _counted(each)]
    modules = ((each.path, subject.model.get_submodule(each.path)) for each in found)
    packed = [path for path, held in modules if isinstance(held, nn.MultiheadAttention) and not held.batch_first]
    problems += [f"{path}: nn.MultiheadAttention without batch_first: its rows are not first" for path in packed[:1]]
    if problems or not found:
        raise _unknown(subject, problems[0] if problems else "no attention layer")
    return found


def _counted(found: Attention) -> bool:
    """Whether its heads are what they seem: whole ones change places, or keep both products within themselves."""
    return "heads" in found.moves or {"value", "query"} <= set(found.moves)


def _unknown(subject: Subject, got: str) -> ModelError:
    return ModelError(
        "The attention heads of this model are not known.",
        where=subject.name,
        expected="attention layers of known classes of transformers (docs/gauges.md lists them)",
        got=got,
        do="Ablate its blocks or hidden units instead.",
    )
