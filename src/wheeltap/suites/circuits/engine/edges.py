"""What the components of a decoder write, what their readers make of a stream, and hooks on either.

A reader is the queries, keys or values of one head, an MLP, or the end; see ``Wiring`` for where they are.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap.core.inputs import as_scores
from wheeltap.core.subject import Subject
from wheeltap.suites.circuits.edge_circuit import Graph
from wheeltap.suites.circuits.engine import wiring as wirings
from wheeltap.suites.circuits.engine.norms import Frozen
from wheeltap.suites.circuits.engine.wiring import Wiring, gave, given, head_outputs, put, rows_of
from wheeltap.suites.circuits.pairs import PairBatch


@final
@dataclass(frozen=True, eq=False)
class Written:
    """What the components wrote in one pass.

    Attributes:
        parts: The embedding, then of each layer what the heads mixed ``[row, place, head x width]`` and what the MLP
            wrote ``[row, place, width]``, in the order of ``Graph.writers``.
        logits: Of the last place, ``[row, token]``.
    """

    parts: tuple[Tensor, ...]
    logits: Tensor


@final
@dataclass(frozen=True)
class Part:
    """One tensor of ``Written``: so many writers from ``first`` on; heads of ``layer``, or what has no heads."""

    first: int
    count: int
    layer: int
    heads: bool


@final
class Wired:
    """A decoder whose edges are known; ``edge_run.proven`` makes one and proves it.

    Args:
        subject: The model, called as ``model(tokens)``.
        wiring: Of it.

    Attributes:
        parts: Where the writers are in ``Written.parts``.
    """

    def __init__(self, subject: Subject, wiring: Wiring) -> None:
        self.subject, self.model, self.wiring = subject, subject.model, wiring
        self.graph = wiring.graph
        self.parts = _parts(self.graph)

    def on_device(self, pairs: PairBatch, rows: slice) -> PairBatch:
        """Some of the pairs, where the model is."""
        tensors = (pairs.clean, pairs.corrupted, pairs.answer, pairs.wrong)
        return PairBatch(*(tensor[rows].to(self.subject.device) for tensor in tensors))

    def split(self, pairs: PairBatch, *, tokens: int) -> Iterable[PairBatch]:
        """Pairs on the device, as many at once as have ``tokens`` or fewer (one pair at least)."""
        rows = max(tokens // pairs.clean.shape[1], 1)
        return (self.on_device(pairs, slice(at, at + rows)) for at in range(0, len(pairs.clean), rows))

    def frozen(self, clean: Tensor) -> Frozen:
        """The norms by which components read the stream, with the scales that they have on ``clean``."""
        blocks, end = self.wiring.blocks, self.wiring.end
        readers = [(*block.through, *block.reads.through, block.reads.path) for block in blocks]
        return Frozen(self.subject, [path for paths in readers for path in paths if path] + [end], clean)

    @torch.no_grad()
    def written(self, tokens: Tensor) -> Written:
        """What every component writes in a plain pass over ``tokens [row, place]``."""
        held: dict[int, Tensor] = {}
        with self.replacing({at: partial(_keep, held, at) for at in range(len(self.parts))}):
            logits = self.logits(tokens)
        return Written(tuple(held[at] for at in range(len(self.parts))), logits)

    def logits(self, tokens: Tensor) -> Tensor:
        """Of the last place, ``[row, token]``; at the others the head is left out, where it is a layer of its own."""
        with ExitStack() as undo:
            if self.wiring.head:
                hook = partial(before, lambda states: states[:, -1:])
                module = self.model.get_submodule(self.wiring.head)
                undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            return as_scores(self.model(tokens))[:, -1]

    def spread(self, at: int, values: Tensor) -> Tensor:
        """What each writer of a part adds to the stream, ``[writer, row, place, width]``."""
        part = self.parts[at]
        return (
            head_outputs(self.model, self.wiring.blocks[part.layer].attention, values) if part.heads else values[None]
        )

    @contextmanager
    def replacing(self, changes: dict[int, Callable[[Tensor], Tensor]]) -> Generator[None]:
        """While the block runs, what the writers of these parts give is what ``changes`` makes of it."""
        with ExitStack() as undo:
            for at, change in changes.items():
                part = self.parts[at]
                block = self.wiring.blocks[max(part.layer, 0)]
                if part.layer >= 0 and not part.heads:
                    hook = self.model.get_submodule(block.mlp).register_forward_hook(partial(_after, change))
                else:
                    path = block.attention.output.path if part.heads else block.path
                    module = self.model.get_submodule(path)
                    hook = module.register_forward_pre_hook(partial(before, change), with_kwargs=True)
                undo.callback(hook.remove)
            yield

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

    def channels(self, layer: int) -> list[tuple[wirings.Affine, Tensor]]:
        """Of each channel where its projection is, and which readers of the stage read by it."""
        stage = next(stage for stage in self.graph.stages if stage.layer == layer)
        return [
            (affine, torch.tensor([at for at, name in enumerate(stage.readers) if name.endswith(f"<{channel}>")]))
            for channel, affine in zip(self.wiring.counts(), self.wiring.projections(layer), strict=True)
        ]

    def maps(self, affine: wirings.Affine, count: int) -> tuple[Tensor, Tensor]:
        """The weights of each of ``count`` heads, ``[head, output, feature]``, and which outputs these are."""
        weight = self.model.get_submodule(affine.path).get_parameter("weight")
        matrix = weight.T if affine.transposed else weight
        rows = rows_of(affine, len(matrix)).to(matrix.device)
        return matrix[rows].view(count, -1, matrix.shape[1]), rows

    def through(self, paths: Sequence[str], stream: Tensor) -> Tensor:
        """What becomes of streams ``[reader, row, place, width]`` on their way into readers."""
        flat = stream.flatten(0, 1)
        for path in paths:
            flat = self.model.get_submodule(path)(flat)
        return flat.view(*stream.shape[:2], *flat.shape[1:])


def differences(logits: Tensor, batch: PairBatch) -> Tensor:
    """Logit of the answer less that of the wrong answer, ``[pair]``, of logits ``[pair, token]``."""
    chosen = logits.gather(1, torch.stack([batch.answer, batch.wrong], 1))
    return chosen[:, 0] - chosen[:, 1]


def _parts(graph: Graph) -> tuple[Part, ...]:
    parts, first = [Part(0, 1, -1, heads=False)], 1
    for layer in range(graph.layers):
        parts.append(Part(first, graph.heads, layer, heads=True))
        first += graph.heads
        if graph.mlps:
            parts.append(Part(first, 1, layer, heads=False))
            first += 1
    return tuple(parts)


def _keep(held: dict[int, Tensor], at: int, values: Tensor) -> Tensor:
    held[at] = values.clone()  # others may add to it in place
    return values


def before(change: Callable[[Tensor], Tensor], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A hook that runs before a module and changes the first tensor that it is given."""
    taken = given(args, kwargs)
    assert taken is not None, "found as a module that is given a tensor"
    return put(args, kwargs, change(taken))


def _after(change: Callable[[Tensor], Tensor], _: nn.Module, __: Any, output: Any) -> Any:
    first = gave(output)
    assert first is not None, "found as a module that returns a tensor"
    changed = change(first)
    return changed if isinstance(output, Tensor) else (changed, *output[1:])
