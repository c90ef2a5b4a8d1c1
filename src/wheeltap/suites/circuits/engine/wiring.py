"""Where the components of a decoder read and write its residual stream, found by watching one pass.

A block adds to the stream what its heads mix, each through its own part of the output weights, and what its MLP gives;
each of them reads the stream through modules that act on it alone, such as a norm. That this is all is checked: what a
block returns must be what it was given and these parts. Where an MLP reads is found by passes in which blocks and heads
give other numbers: tensors alone do not tell, where a norm returns the one it was given or a block adds to it in place.
No class of block needs to be known.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.inputs import as_scores
from wheeltap.core.subject import Subject
from wheeltap.gauge import attention
from wheeltap.gauge.attention import AttentionLayer
from wheeltap.gauge.base import SharedTensors
from wheeltap.gauge.parts import Affine
from wheeltap.suites.circuits.circuit import CHANNELS, EdgeGraph
from wheeltap.suites.circuits.engine.calls import Change, ModuleCall, hooked, watched

TOLERANCE: Final = 1e-4
"""By how much sums of parts may miss the whole, as a share of its largest number."""


@final
@dataclass(frozen=True)
class DecoderBlock:
    """One block: its attention, and its MLP where it has one.

    Attributes:
        path: Module path.
        attention: Where its heads are.
        through: What the stream passes before the projections of queries, keys and values.
        mlp: Module path of what the MLP adds to the stream comes from; empty where there is none.
        reader: Module path of where the MLP takes the stream in, once it has passed ``before``.
        before: Module paths, in order; none where ``reader`` is given the stream itself.
        parallel: Whether the MLP reads what the heads read.
    """

    path: str
    attention: AttentionLayer
    through: tuple[str, ...]
    mlp: str = ""
    reader: str = ""
    before: tuple[str, ...] = ()
    parallel: bool = False


@final
@dataclass(frozen=True)
class DecoderMap:
    """How a decoder is put together, seen from its residual stream.

    Attributes:
        graph: Its components and edges.
        blocks: In order.
        width: Of the residual stream.
        end: The module that is given the last state.
        head: The linear layer that gives the scores; empty where they are more than that.
    """

    graph: EdgeGraph
    blocks: tuple[DecoderBlock, ...]
    width: int
    end: str
    head: str = ""

    def projections(self, layer: int) -> tuple[Affine, Affine, Affine]:
        """Of queries, keys and values."""
        held = self.blocks[layer].attention
        return held.query, held.key, held.value

    def counts(self) -> dict[str, int]:
        """Readers of a layer by channel: heads, and groups where those share keys and values."""
        return dict(zip(CHANNELS, (self.graph.heads, self.graph.groups, self.graph.groups), strict=True))


def head_outputs(model: nn.Module, layer: AttentionLayer, mixed: Tensor) -> Tensor:
    """What each head writes, ``[head, row, place, width]``, of what they mixed ``[row, place, head x width]``."""
    weight = model.get_submodule(layer.output.path).get_parameter("weight")
    maps = (weight if layer.output.transposed else weight.T).view(layer.heads, layer.width, -1)
    by_head = mixed.flatten(0, 1).view(-1, layer.heads, layer.width).transpose(0, 1)
    return torch.bmm(by_head, maps).view(layer.heads, *mixed.shape[:2], -1)


def output_bias(model: nn.Module, layer: AttentionLayer) -> Tensor | None:
    """What attention adds to the stream whatever its heads mix."""
    bias = getattr(model.get_submodule(layer.output.path), layer.output.bias, None)
    return bias if isinstance(bias, Tensor) else None


def find(subject: Subject, tokens: Tensor) -> DecoderMap:
    """The wiring of a decoder from tokens ``[row, place]`` to scores of the next one.

    Args:
        subject: The model, called as ``model(tokens)``.
        tokens: A few rows that it can read.

    Raises:
        ModelError: If its attention is not known, or a block is more than heads and an MLP that add to the stream;
            the message names the block.
    """
    return _Finder(subject, tokens).wiring()


class _Reader(NamedTuple):
    """A module that may be where an MLP takes the stream in, what that passes before, whether before the heads' sum."""

    path: str
    before: tuple[str, ...]
    parallel: bool


@final
class _Finder:
    def __init__(self, subject: Subject, tokens: Tensor) -> None:
        self.subject, self.model, self.tokens = subject, subject.model, tokens
        self.layers = self._attention(tokens)
        self.calls, counts, scores = watched(self.model, tokens)
        self.head = next((one.path for one in self.calls if one.gave is scores and counts[one.path] == 1), "")
        self.by_path = {call.path: call for call in self.calls if counts[call.path] == 1}

    @torch.no_grad()
    def wiring(self) -> DecoderMap:
        blocks = self._with_readers([self._block(layer) for layer in self.layers])
        streams = [self.by_path[block.path] for block in blocks]
        for one, two, block in zip(streams, streams[1:], blocks[1:], strict=False):
            if not torch.equal(one.returned, two.took):
                raise self._refused(block.path, "each block given what the one before it returned", "something else")
        shapes = {(one.attention.heads, one.attention.groups, one.parallel, bool(one.mlp)) for one in blocks}
        if len(shapes) > 1:
            raise self._refused(self.subject.name, "blocks of one kind", f"{len(shapes)} kinds")
        heads, groups, parallel, mlps = shapes.pop()
        width = streams[0].given.shape[-1]
        graph = EdgeGraph(len(blocks), heads, groups, width, parallel=parallel, mlps=mlps)
        head = self.head if isinstance(self.model.get_submodule(self.head), nn.Linear) else ""
        return DecoderMap(graph, blocks, width, self._end(blocks, streams[-1].gave), head)

    def _attention(self, tokens: Tensor) -> tuple[AttentionLayer, ...]:
        def run(model: nn.Module) -> Tensor:
            return as_scores(model(tokens))[:, -1].float()

        with torch.no_grad():
            found, refused = attention.find(self.model, SharedTensors(self.model), run=run)
        # Which moves hold does not matter here, but one must: else how many heads there are is a guess.
        problems = [reason for reason in refused if not any(f": {move}: " in reason for move in attention.MOVES)]
        problems += [f"{one.path}: how many heads it has is not proven" for one in found if not one.moves]
        problems += [
            f"{one.path}: queries, keys and values of one weight of torch's nn.MultiheadAttention"
            for one in found
            if one.query.weight != "weight"
        ]
        if problems or not found:
            raise self._refused(
                self.subject.name,
                "attention layers with projections of their own, of a known class or proven by their outputs",
                problems[0] if problems else "no attention layer",
            )
        return found

    def _block(self, layer: AttentionLayer) -> DecoderBlock:
        """The innermost module around ``layer`` that gives what it is given, and what heads and MLP add."""
        inputs = [self.by_path.get(part.path) for part in (layer.query, layer.key, layer.value)]
        output = self.by_path.get(layer.output.path)
        first = inputs[0]
        if output is None or first is None or any(one is None or one.given is not first.given for one in inputs):
            raise self._refused(layer.path, "projections of one input, each called once", "others")
        names = layer.path.split(".")
        for count in range(len(names) - 1, 0, -1):
            call = self.by_path.get(".".join(names[:count]))
            if call is None or call.given.shape != call.gave.shape or call.given.shape != output.gave.shape:
                continue
            through = self._through(first, call)
            if through is not None:
                return self._parts(call, layer, through, output)
        raise self._refused(
            layer.path, "projections of the residual stream or of a norm of it", "something else in between"
        )

    def _through(self, reader: ModuleCall, stream: ModuleCall) -> tuple[str, ...] | None:
        """The modules by which ``stream`` becomes what ``reader`` is given; ``None`` where it does so otherwise."""
        through: list[str] = []
        while reader.given is not stream.given:
            # Of modules that return the same tensor the outermost one returns last.
            read = reader.given
            call = next((one for one in reversed(self.calls) if one.gave is read and one.given is not read), None)
            if call is None or call.path in through:
                return None
            through.insert(0, call.path)
            reader = call
        # The tensor may have been added to in between.
        return tuple(through) if torch.equal(reader.took, stream.took) else None

    def _parts(
        self, call: ModuleCall, layer: AttentionLayer, through: tuple[str, ...], output: ModuleCall
    ) -> DecoderBlock:
        wrote = head_outputs(self.model, layer, self.by_path[layer.output.path].took).sum(0)
        bias = output_bias(self.model, layer)
        if not _close(wrote if bias is None else wrote + bias, output.returned):
            raise self._refused(call.path, "what attention returns to be the sum of its heads", "another sum")
        middle = call.took + output.returned
        added, scale = call.returned - middle, float(call.returned.abs().max())
        inside = [one for path, one in self.by_path.items() if path.startswith(f"{call.path}.")]
        outside = [one for one in inside if not _related(one.path, layer.path)]
        # A sum with what was there before rounds by a share of that. An MLP that writes nothing is one all the same.
        writers = [one for one in outside if _close(one.returned, added, scale=scale)]
        if not writers and _close(call.returned, middle):
            return DecoderBlock(call.path, layer, through)
        if not writers:
            gap = float(added.abs().max()) / scale
            raise self._refused(
                call.path,
                "a block that gives what it was given, what its heads write, and what one module (its MLP) returns",
                f"a rest of {gap:.2g} of the stream, which no module in it returns",
            )
        return DecoderBlock(call.path, layer, through, _outermost(writers)[0].path)

    def _with_readers(self, blocks: Sequence[DecoderBlock]) -> tuple[DecoderBlock, ...]:
        """The blocks, with where their MLPs take the stream in and whether that is what the heads read.

        Each block and its heads give other numbers. A reader is a module that is then given the stream before or
        after the heads, and by which alone the MLP reads: given the old numbers, the MLP does what it did.
        """
        with self._moved(blocks, ()):
            moved = {call.path: call for call in watched(self.model, self.tokens)[0]}
        choices = [self._choices(block, moved) if block.mlp else [] for block in blocks]
        found = [list[_Reader]() for _ in blocks]
        for at in range(max(map(len, choices))):
            tried = [own[at] if at < len(own) else None for own in choices]
            with self._moved(blocks, [one.path for one in tried if one is not None]):
                held = {call.path: call for call in watched(self.model, self.tokens)[0]}
            for block, one, fits in zip(blocks, tried, found, strict=True):
                if one is not None and self._same(held[block.mlp]):
                    fits.append(one)
        for block, fits in zip(blocks, found, strict=True):
            if block.mlp and len({one.parallel for one in fits}) != 1:
                expected = "one module that takes the residual stream in for the MLP, before the heads or after them"
                raise self._refused(block.path, expected, f"{len(fits)} of them")
        # Of several in a row the last one: what the others return is read by the MLP alone, or by heads too.
        return tuple(
            replace(block, reader=fits[-1].path, before=fits[-1].before, parallel=fits[-1].parallel) if fits else block
            for block, fits in zip(blocks, found, strict=True)
        )

    def _choices(self, block: DecoderBlock, moved: dict[str, ModuleCall]) -> "list[_Reader]":
        """Modules that are given the stream, or what the heads read of it, and whether before what the heads write."""
        stream, inside = moved[block.path].took, f"{block.path}."
        apart = [path for path in self.by_path if path.startswith(inside) and path not in block.through]
        own = [moved[path] for path in apart if not _related(path, block.attention.path)]
        middle = stream + moved[block.attention.output.path].returned
        kinds: list[tuple[Tensor, tuple[str, ...], bool]] = [(stream, (), True), (middle, (), False)]
        if block.through:
            kinds.insert(1, (moved[block.through[-1]].returned, block.through, True))
        return [
            _Reader(one.path, through, parallel)
            for what, through, parallel in kinds
            for one in _outermost([one for one in own if _close(one.took, what)])
        ]

    def _same(self, call: ModuleCall) -> bool:
        clean = self.by_path[call.path]
        return _close(call.took, clean.took) and _close(call.returned, clean.returned)

    @contextmanager
    def _moved(self, blocks: Sequence[DecoderBlock], pinned: Sequence[str]) -> Generator[None]:
        """Blocks are given other numbers and heads write others, of the stream's size; ``pinned`` are given the old."""
        drawn, before, after = torch.Generator().manual_seed(0), dict[str, Change](), dict[str, Change]()
        for block in blocks:
            taken = self.by_path[block.path].took
            scale = float(taken.abs().max()) or 1.0
            one, two = (scale * torch.randn(taken.shape, generator=drawn).to(taken) for _ in range(2))
            before[block.path] = partial(_instead, taken + one)
            after[block.attention.output.path] = partial(torch.add, two)
        before |= {path: partial(_instead, self.by_path[path].took) for path in pinned}
        with hooked(self.model, before, after):
            yield

    def _end(self, blocks: Sequence[DecoderBlock], last: Tensor) -> str:
        inside = tuple(f"{block.path}." for block in blocks)
        around = [one for one in self.by_path.values() if one.given is last and not f"{one.path}.".startswith(inside)]
        found = _outermost([one for one in around if one.gave is not last])
        if len(found) != 1:
            raise self._refused(
                self.subject.name, "one module (the last norm, or the head) that is given the last state",
                f"{len(found)} of them",
            )  # fmt: skip
        return found[0].path

    def _refused(self, where: str, expected: str, got: str) -> ModelError:
        named = self.subject.name if where == self.subject.name else f"{self.subject.name}: {where}"
        return ModelError(
            "The edges of this model are not known.",
            where=named,
            expected=expected,
            got=got,
            do="Use units instead (--method masks), or a decoder whose blocks add to one residual stream.",
        )


def _instead(tensor: Tensor, _: Tensor) -> Tensor:
    return tensor.clone()  # it may be added to in place


def _related(path: str, other: str) -> bool:
    """Whether a module is another one, or in it, or around it."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _outermost(calls: Sequence[ModuleCall]) -> list[ModuleCall]:
    """Those of which none is inside another."""
    return [one for one in calls if not any(one.path.startswith(f"{two.path}.") for two in calls)]


def _close(one: Tensor, two: Tensor, *, scale: float = 0.0) -> bool:
    return one.shape == two.shape and float((one - two).abs().max()) <= TOLERANCE * max(float(two.abs().max()), scale)
