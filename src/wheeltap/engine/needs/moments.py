"""Layer moments: what each layer's inputs look like on the task, read in one clean pass."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Moments
from wheeltap.core.typed import to_tensor
from wheeltap.engine.needs.reads import Read, Reads
from wheeltap.perturb.base import Factors
from wheeltap.perturb.function_noise import SUPPORT_IN_16_BITS, SUPPORT_TOLERANCE, factor, output_root

ROWS_PER_INPUT = 1.5
"""Rows of input needed per input dimension: any n independent points can be re-coded into any other n, so with
fewer rows than inputs no invariant scale exists."""

MOMENT_BYTES = 2**30
"""Memory that the moments of layers read in one pass may take, before they are turned into factors, where no other
bound is given."""


@dataclass
class _Gram:
    """Sums over rows of one layer's inputs: ``body`` without sinks, and the sinks' own rows.

    Attributes:
        calls: Which calls they come from: layers with the same calls have the same sums.
    """

    body: Tensor
    rows: int = 0
    sinks: list[Tensor] = field(default_factory=list[Tensor])
    calls: list[int] = field(default_factory=list[int])


@dataclass(frozen=True)
class _Call:
    """An input that some layers read in one way.

    Attributes:
        version: Tells an input that was changed in place between two readers.
        how: Kind, bias, window: what else decides the rows.
    """

    at: int
    inputs: Tensor
    version: int
    how: tuple[object, ...]


@dataclass(frozen=True)
class _Sums:
    """What one call adds: products of its rows without sinks, their number with sinks, and the sinks."""

    body: Tensor
    rows: int
    sinks: Tensor


class _Collector:
    """Adds up the second moment of every layer's inputs.

    Layers that read the very same tensor in the very same way (query, key and value; gate and up) share the work: not
    if one has a bias, another kernel, stride, padding or dilation.
    """

    def __init__(self, subject: Subject, layers: list[Layer]) -> None:
        self.subject, self.layers = subject, layers
        self.grams: dict[str, _Gram] = {}
        self.tokens: dict[str, Tensor] = {}
        # Layers that share an input follow each other closely; holding every input would hold a whole pass.
        self._recent: deque[_Call] = deque(maxlen=4)
        self._last: tuple[int, _Sums] | None = None
        self._batch = Moments(None)
        self._calls = 0

    def reads(self) -> Reads[Layer]:
        """What is to be entered while the model runs."""
        return Reads({id(self.subject.parameter(layer.weight)): layer for layer in self.layers}, self._read)

    def begin(self, batch: Moments) -> None:
        self._recent.clear()
        self._batch = batch

    def _read(self, layer: Layer, read: Read) -> None:
        if layer.kind == "embedding":
            counts = torch.bincount(read.inputs.flatten(), minlength=layer.fan_in)
            self.tokens[layer.name] = self.tokens.get(layer.name, torch.zeros_like(counts)) + counts
            return
        call = self._call(layer, read)
        if self._last is None or self._last[0] != call.at:
            self._last = None  # freed before the next one is made
            self._last = (call.at, self._sums(layer, read))
        added = self._last[1]
        gram = self.grams.get(layer.name)
        if gram is None:
            gram = self.grams[layer.name] = _Gram(torch.zeros_like(added.body))
        gram.body += added.body
        gram.rows += added.rows
        gram.calls.append(call.at)
        if len(added.sinks):
            gram.sinks.append(added.sinks)

    def _call(self, layer: Layer, read: Read) -> _Call:
        inputs, how = read.inputs, (layer.bias is not None, read.window)
        self._calls += 1
        # Tensors of inference mode have no version: each call is then one of its own.
        version = self._calls if inputs.is_inference() else inputs._version
        for known in self._recent:
            if known.inputs is inputs and known.version == version and known.how == how:
                return known
        made = _Call(self._calls, inputs, version, how)
        self._recent.append(made)
        return made

    def _sums(self, layer: Layer, read: Read) -> _Sums:
        body, sinks = self._rows(layer, read)
        # In double precision: single precision leaves noise where the support ends, and rank is decided there.
        wide = body.double()
        return _Sums(wide.T @ wide, len(body) + len(sinks), sinks)

    def _rows(self, layer: Layer, read: Read) -> tuple[Tensor, Tensor]:
        """Input rows with a constant 1 where the layer has a bias: those to count everywhere, and the sinks."""
        inputs, first = read.inputs, self._batch.sinks
        if layer.kind == "conv":
            rows, sink = read.patches(), None
        elif first and (by_place := _by_place(inputs, self._batch.inputs)) is not None:
            # A copy: a view would keep the whole activation alive.
            rows, sink = by_place[:, first:].flatten(0, 1), by_place[:, :first].flatten(0, 1).clone()
        else:
            rows, sink = inputs.reshape(-1, inputs.shape[-1]), None
        if layer.bias is not None:
            rows = functional.pad(rows, (0, 1), value=1.0)
            sink = None if sink is None else functional.pad(sink, (0, 1), value=1.0)
        return rows, rows[:0] if sink is None else sink


def _by_place(inputs: Tensor, batch: Tensor) -> Tensor | None:
    """Inputs ``[example, place, in]``, also where the model has laid all places of the batch in a row."""
    if inputs.ndim == 3:
        return inputs
    return inputs.view(*batch.shape, -1) if inputs.ndim == 2 and len(inputs) == batch.numel() else None


def supported(subject: Subject) -> list[Layer]:
    """Layers whose inputs can be read: all but tied ones, grouped or 3-d convolutions, and those that say why not."""
    return [layer for layer in subject.layers if not why_not(subject, layer)]


def why_not(subject: Subject, layer: Layer) -> str:
    """Why a layer's inputs say nothing of a scale for its noise; empty where they do."""
    if layer.unread:
        return layer.unread
    if layer.tied:
        return "its weight is used in more than one place"
    module = subject.model.get_submodule(layer.module)
    if layer.kind == "conv" and not (isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == 1):
        return "a grouped or three-dimensional convolution"
    return ""


@final
@dataclass(frozen=True)
class LayerMoments:
    """Factors of every layer whose inputs could be read, by name; of the others why not."""

    factors: dict[str, Factors]
    left_out: dict[str, str]


def estimate(subject: Subject, task: BaseTask) -> dict[str, Factors]:
    """Factors of every layer that the task reaches often enough: see ``layer_moments``."""
    return layer_moments(subject, task).factors


def layer_moments(subject: Subject, task: BaseTask, *, limit: int = MOMENT_BYTES) -> LayerMoments:
    """Factors of every layer that the task reaches often enough, from clean passes over its moment inputs.

    One pass, or several for a model whose moments would not fit into ``limit`` bytes together.

    Raises:
        ModelError: If a layer's inputs are not finite, or the task has too few rows for a layer that gets all of them.
    """
    _require_positions(subject, task)
    found = LayerMoments({}, {layer.name: why for layer in subject.layers if (why := why_not(subject, layer))})
    waiting = supported(subject)
    while waiting:
        part, waiting = _part(waiting, limit)
        _estimate_part(subject, task, part, found)
    return found


def _part(layers: list[Layer], limit: int) -> tuple[list[Layer], list[Layer]]:
    """As many of ``layers`` as fit into the memory bound (counted as if none shared a moment), and the rest."""
    size = 0
    for at, layer in enumerate(layers):
        size += 0 if layer.kind == "embedding" else 8 * (layer.fan_in + 1) ** 2
        if at and size > limit:
            return layers[:at], layers[at:]
    return layers, []


def _estimate_part(subject: Subject, task: BaseTask, layers: list[Layer], found: LayerMoments) -> None:
    collector = _Collector(subject, layers)
    with collector.reads(), torch.no_grad():
        for batch in task.moments():
            collector.begin(batch)
            batch.run(subject.model)
    _leave_out(subject, collector, found)
    found.factors.update(_factored(subject, collector))
    read = found.factors.keys() | found.left_out.keys()
    found.left_out.update({layer.name: NOT_READ for layer in layers if layer.name not in read})


NOT_READ = "not reached by these examples, or its input cannot be read"


def _leave_out(subject: Subject, collector: _Collector, found: LayerMoments) -> None:
    """Lets go of layers that get too few rows because the model sends them elsewhere (experts of a mixture).

    Raises:
        ModelError: If the task has too few rows for a layer that gets as many as any other: it is too small.
    """
    offered = max((gram.rows for gram in collector.grams.values()), default=0)
    for name, gram in list(collector.grams.items()):
        inputs = len(gram.body)
        if gram.rows >= ROWS_PER_INPUT * inputs:
            continue
        if gram.rows == offered:
            _require_rows(f"{subject.name}: {name}", inputs, gram.rows)
        found.left_out[name] = f"{gram.rows} rows of input, {_needed(inputs)} needed"
        del collector.grams[name]


def _factored(subject: Subject, collector: _Collector) -> Iterator[tuple[str, Factors]]:
    for layer in collector.layers:
        if layer.name in collector.tokens:
            yield layer.name, _embedding_factors(subject.parameter(layer.weight).detach(), collector.tokens[layer.name])
    alike: dict[tuple[int, ...], list[Layer]] = {}
    for layer in collector.layers:
        if layer.name in collector.grams:
            alike.setdefault(tuple(collector.grams[layer.name].calls), []).append(layer)
    for layers in alike.values():
        first = subject.parameter(layers[0].weight)
        resolved = SUPPORT_IN_16_BITS if first.dtype.itemsize < 4 else SUPPORT_TOLERANCE
        gram = collector.grams[layers[0].name]
        for layer in layers:
            del collector.grams[layer.name]
        like = _wide(first.detach()[:0])
        spread, whiten = (to_tensor(part, like=like) for part in _factors_of_input(gram, resolved))
        for layer in layers:
            weight = _wide(subject.parameter(layer.weight).detach())
            bias = None if layer.bias is None else _wide(subject.parameter(layer.bias).detach())
            yield layer.name, Factors(out=output_root(layer.matrix(weight), bias, spread), whiten=whiten)


def _wide(tensor: Tensor) -> Tensor:
    """In single precision or better: factors of 16 bits would put the noise out of scale."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _embedding_factors(weight: Tensor, counts: Tensor) -> Factors:
    """Factors of an embedding: its inputs are tokens, one-hot, so their second moment is diagonal."""
    support, wide = counts.nonzero()[:, 0], _wide(weight)
    share = (counts[support] / counts.sum()).to(wide.dtype).sqrt()
    return Factors(out=wide[support].T * share, whiten=1.0 / share, support=support)


def _require_positions(subject: Subject, task: BaseTask) -> None:
    """Refuses a task that is too small for a convolution, from one example: its moments are the costly ones."""
    convolutions = [layer for layer in supported(subject) if layer.kind == "conv"]
    if not convolutions:
        return
    positions: dict[str, int] = {}
    with ExitStack() as stack, torch.no_grad():
        for layer in convolutions:

            def count(module: nn.Module, args: Any, output: Tensor, layer: Layer = layer) -> None:
                positions[layer.name] = positions.get(layer.name, 0) + output.numel() // layer.units

            stack.callback(subject.model.get_submodule(layer.module).register_forward_hook(count).remove)
        next(iter(task.moments())).first().run(subject.model)
    examples = sum(batch.examples for batch in task.moments())
    for layer in convolutions:
        inputs = layer.fan_in + (layer.bias is not None)
        _require_rows(f"{subject.name}: {layer.name}", inputs, positions.get(layer.name, 0) * examples)


def _needed(inputs: int) -> int:
    return int(np.ceil(ROWS_PER_INPUT * inputs))


def _require_rows(where: str, inputs: int, rows: int) -> None:
    needed = _needed(inputs)
    if 0 < rows < needed:
        raise ModelError(
            "The task is too small for function-space noise.",
            where=where,
            expected=f"at least {needed} rows of input (1.5 per input dimension)",
            got=f"{rows}",
            do="Give the task more inputs (more=...), or leave the function-noise audit out.",
        )


def _factors_of_input(gram: _Gram, tolerance: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Spread of the inputs without sinks, and whitening of the inputs with them."""
    body = gram.body.cpu().numpy()
    everything, count = body, gram.rows
    sinks = torch.cat(gram.sinks).double().cpu().numpy() if gram.sinks else None
    if sinks is not None:
        everything = body + sinks.T @ sinks
        count -= len(sinks)
    spread, whiten = factor(body / count, tolerance=tolerance)
    if sinks is not None:
        _, whiten = factor(everything / gram.rows, tolerance=tolerance)
    return spread, whiten
