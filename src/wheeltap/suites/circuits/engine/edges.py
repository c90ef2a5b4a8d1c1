"""Edges of a decoder: what its components write and read, run edge by edge, with the scale of norms held."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.inputs import as_scores
from wheeltap.core.subject import Subject
from wheeltap.engine.fast.folded import computing
from wheeltap.suites.circuits.circuit import EdgeGraph, Stage
from wheeltap.suites.circuits.engine import wiring as wirings
from wheeltap.suites.circuits.engine.wiring import DecoderMap, gave, given, head_outputs, output_bias, put, rows_of
from wheeltap.suites.circuits.pairs import PairBatch

_TOLERANCE: Final = 1e-4
"""By how much a norm with its own scale put back may miss itself, as a share of its largest output."""

_EXTENT: Final = 1e3
"""Size of the row by which a gain is found: so large that what norms add to a mean square does not count."""


@final
@dataclass(frozen=True, eq=False)
class FixedNorm:
    """A norm with fixed scales.

    Attributes:
        gain: ``[feature]``, up to a factor that ``scale`` makes good.
        offset: ``[feature]``.
        centred: Whether it takes the mean away.
        scale: Of each place, ``[row, place, 1]``.
    """

    gain: Tensor
    offset: Tensor
    centred: bool
    scale: Tensor

    def __call__(self, stream: Tensor, *_: Any, **__: Any) -> Tensor:
        """Of ``[copy x row, place, width]``; of fewer places, the last ones."""
        scale = self.scale[:, -stream.shape[1] :]
        copies = len(stream) // len(scale)
        return _centred(stream, self.centred) * self.gain * scale.repeat(copies, 1, 1) + self.offset


@final
class Frozen:
    """The norms among some modules, with their scales on clean contexts.

    Args:
        subject: Whose.
        paths: Modules that are given the residual stream; those that are no norms are left as they are.
        clean: Contexts ``[row, place]``.

    Raises:
        ModelError: If none is a norm of a known form while some change with the scale of what they are given.
    """

    def __init__(self, subject: Subject, paths: Sequence[str], clean: Tensor) -> None:
        self.subject = subject
        self.scaled: dict[str, FixedNorm] = {}

        def take(path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if len(args) == 1 and isinstance(output, Tensor) and path not in self.scaled:
                found = _scaled(module, args[0], output)
                if found is not None:
                    self.scaled[path] = found

        with ExitStack() as undo, torch.no_grad():
            for path in dict.fromkeys(paths):
                undo.callback(subject.model.get_submodule(path).register_forward_hook(partial(take, path)).remove)
            subject.model(clean)
        if not self.scaled:
            raise ModelError(
                "There is no norm to freeze.",
                where=subject.name,
                expected="norms that give gain * (x - mean) / scale + offset of the residual stream",
                got="none",
                do="Leave frozen out: without norms, components read the stream as it is.",
            )

    @contextmanager
    def applied(self) -> Generator[None]:
        """While the block runs, the norms have these scales."""
        with ExitStack() as undo:
            for path, scaled in self.scaled.items():
                undo.enter_context(computing(self.subject.model.get_submodule(path), scaled))
            yield


def _centred(stream: Tensor, centred: bool) -> Tensor:
    return stream - stream.mean(-1, keepdim=True) if centred else stream


def _scaled(module: nn.Module, stream: Tensor, output: Tensor) -> FixedNorm | None:
    """The norm that gives ``output`` for ``stream``; ``None`` if it is none."""
    if stream.shape != output.shape:
        return None
    row = _EXTENT * (torch.arange(stream.shape[-1], device=stream.device) % 2 * 2 - 1).to(stream.dtype)
    tried = torch.stack([row, row + _EXTENT / 2, torch.zeros_like(row)])[:, None]
    own, lifted, offset = module.forward(tried)[:, 0]
    # Only a norm that takes the mean away does not see that a row was lifted.
    centred = bool(torch.allclose(own, lifted, rtol=_TOLERANCE, atol=_TOLERANCE))
    gain = (own - offset) / _centred(row, centred)
    plain = _centred(stream, centred) * gain
    size = (plain * plain).sum(-1, keepdim=True)
    scale = ((output - offset) * plain).sum(-1, keepdim=True) / size.clamp_min(torch.finfo(size.dtype).tiny)
    found = FixedNorm(gain, offset, centred, scale)
    miss = float((found(stream) - output).abs().max())
    # A linear layer is also reproduced by fixed scales: a norm is what gives the same for a longer row.
    longer = module.forward(2.0 * tried[:1])[0, 0]
    is_norm = torch.allclose(longer, own, rtol=_TOLERANCE, atol=_TOLERANCE)
    return found if is_norm and miss <= _TOLERANCE * float(output.abs().max()) else None


@final
@dataclass(frozen=True, eq=False)
class ComponentOutputs:
    """What the components wrote in one pass.

    Attributes:
        parts: The embedding, then of each layer what the heads mixed ``[row, place, head x width]`` and what the MLP
            wrote ``[row, place, width]``, in the order of ``EdgeGraph.writers``.
        logits: Of the last place, ``[row, token]``.
    """

    parts: tuple[Tensor, ...]
    logits: Tensor


@final
@dataclass(frozen=True)
class OutputBlock:
    """One tensor of ``ComponentOutputs``: writers from ``first`` on; heads of ``layer``, or what has no heads."""

    first: int
    count: int
    layer: int
    heads: bool


@final
class EdgeDecoder:
    """A decoder whose edges are known; ``edge_run.proven`` makes one and proves it.

    Args:
        subject: The model, called as ``model(tokens)``.
        wiring: Of it.

    Attributes:
        parts: Where the writers are in ``ComponentOutputs.parts``.
    """

    def __init__(self, subject: Subject, wiring: DecoderMap) -> None:
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
    def written(self, tokens: Tensor) -> ComponentOutputs:
        """What every component writes in a plain pass over ``tokens [row, place]``."""
        held: dict[int, Tensor] = {}
        with self.replacing({at: partial(_keep, held, at) for at in range(len(self.parts))}):
            logits = self.logits(tokens)
        return ComponentOutputs(tuple(held[at] for at in range(len(self.parts))), logits)

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


def _parts(graph: EdgeGraph) -> tuple[OutputBlock, ...]:
    parts, first = [OutputBlock(0, 1, -1, heads=False)], 1
    for layer in range(graph.layers):
        parts.append(OutputBlock(first, graph.heads, layer, heads=True))
        first += graph.heads
        if graph.mlps:
            parts.append(OutputBlock(first, 1, layer, heads=False))
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


Ablation = Literal["patch", "mean", "zero"]
"""What is read over an edge that is not kept: what its source wrote on the corrupted context, its mean, nothing."""

BYTES: Final = 2**27
"""What components write and read, one by one, may take, where rows can be taken in parts."""

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
    _require_wide(subject)
    few = slice(0, _TRIED)
    wired = EdgeDecoder(subject, wirings.find(subject, pairs.clean[few].to(subject.device)))
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
        wired: EdgeDecoder,
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

    def __init__(self, wired: EdgeDecoder, ablated: Sequence[Tensor] | None, keep: Tensor) -> None:
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


def _matrices(graph: EdgeGraph, values: Tensor) -> list[Tensor]:
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
