"""Layer moments: what each layer's inputs look like on the task, read in one clean pass."""

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Moments
from wheeltap.engine.needs.maps import Gram, MapFactors, Read, require_rows
from wheeltap.engine.needs.products import Product, Products
from wheeltap.engine.needs.sources import Places, Rowed, Rows, Source, Tokens
from wheeltap.perturb.base import Blocks, Factors

MOMENT_BYTES = 2**30
"""Memory that the moments of layers read in one pass may take, before they are turned into factors, where no other
bound is given."""


@dataclass(frozen=True)
class _Call:
    """An input that some layers read in one way.

    Attributes:
        version: Tells an input that was changed in place between two readers.
    """

    at: int
    source: Source
    version: int


@dataclass(frozen=True)
class _Sums:
    """What one call adds: products and sums of its rows without sinks, their number with sinks, and the sinks."""

    body: Tensor
    total: Tensor
    rows: int
    sinks: Tensor


class Collector:
    """Adds up the second moment of what every layer reads.

    Layers that read the same numbers in the same way (query, key and value; gate and up) share the work.

    Args:
        subject: Whose.
        layers: All whose products may be read: inputs are numbered over these.
        wanted: Names of those whose sums are kept.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer], wanted: Iterable[str]) -> None:
        self._wanted = set(wanted)
        self.read = Read(Products(subject, layers, self._see))
        # Layers that share an input follow each other closely; holding every input would hold a whole pass.
        self._recent: deque[_Call] = deque(maxlen=4)
        self._last: tuple[int, _Sums] | None = None
        self._batch = Moments(None)
        self._calls = 0

    def begin(self, batch: Moments) -> None:
        """Before each batch."""
        self.read.products.begin()
        self._recent.clear()
        self._batch = batch

    def _see(self, product: Product) -> None:
        name, source = product.layer.name, product.source
        call = self._call(source)
        read = self.read
        read.first.setdefault((name, product.part), call.at)
        read.blocks[name] = product.parts
        if name not in self._wanted:
            return
        if isinstance(source, Tokens):
            counts = source.counts(product.layer.fan_in)
            read.tokens[name] = read.tokens.get(name, torch.zeros_like(counts)) + counts
        elif isinstance(source, Places):
            read.tables.add(name)
        elif isinstance(source, Rowed):
            self._add(product, source, call)

    def _add(self, product: Product, source: Rowed, call: _Call) -> None:
        if self._last is None or self._last[0] != call.at:
            self._last = None  # freed before the next one is made
            self._last = (call.at, self._sums(source))
        added = self._last[1]
        blocks = self.read.grams.setdefault(product.layer.name, {})
        gram = blocks.get(product.part)
        if gram is None:
            zero = torch.zeros_like(added.body), torch.zeros_like(added.total)
            gram = blocks[product.part] = Gram(product.weight.detach(), *zero)
        gram.body += added.body
        gram.total += added.total
        gram.rows += added.rows
        gram.calls.append(call.at)
        if len(added.sinks):
            gram.sinks.append(added.sinks)

    def _call(self, source: Source) -> _Call:
        self._calls += 1
        # Tensors of inference mode have no version: each call is then one of its own.
        version = self._calls if source.inputs.is_inference() else source.inputs._version
        for known in self._recent:
            if known.version == version and known.source.how == source.how and _same(known.source, source):
                return known
        made = _Call(self._calls, source, version)
        self._recent.append(made)
        return made

    def _sums(self, source: Rowed) -> _Sums:
        body, sinks = self._rows(source)
        # In double precision: single precision leaves noise where the support ends, and rank is decided there.
        wide = body.double()
        return _Sums(wide.T @ wide, wide.sum(0), len(body) + len(sinks), sinks)

    def _rows(self, source: Rowed) -> tuple[Tensor, Tensor]:
        """Input rows: those to count everywhere, and the sinks."""
        first = self._batch.sinks
        places = source.by_place(self._batch.inputs) if first and isinstance(source, Rows) else None
        if places is None:
            rows = source.rows()
            return rows, rows[:0]
        # A copy: a view would keep the whole activation alive.
        return places[:, first:].flatten(0, 1), places[:, :first].flatten(0, 1).clone()


def _same(one: Source, other: Source) -> bool:
    """Whether two inputs are the same numbers: one tensor, or a copy for each of its readers."""
    if one.inputs is other.inputs:
        return True
    return one.inputs.shape == other.inputs.shape and torch.equal(one.inputs, other.inputs)


@final
@dataclass(frozen=True)
class LayerMoments:
    """Factors of every layer whose inputs could be read, by name; of the others why not."""

    factors: dict[str, Factors | Blocks]
    left_out: dict[str, str]


TIED = "its weight is used in more than one place"
NOT_READ = "not reached by these examples, or its input cannot be read"


def estimate(subject: Subject, task: BaseTask) -> dict[str, Factors | Blocks]:
    """Factors of every layer that the task reaches often enough: see ``layer_moments``."""
    return layer_moments(subject, task).factors


def layer_moments(subject: Subject, task: BaseTask, *, limit: int = MOMENT_BYTES) -> LayerMoments:
    """Factors of every layer that the task reaches often enough, from clean passes over its moment inputs.

    One pass, or several for a model whose moments would not fit into ``limit`` bytes together.

    Raises:
        ModelError: If a layer's inputs are not finite, or the task has too few rows for a layer that gets all of them.
    """
    layers = [layer for layer in subject.layers if not layer.tied]
    _require_positions(subject, task, layers)
    found = LayerMoments({}, {layer.name: TIED for layer in subject.layers if layer.tied})
    maps = MapFactors(subject, layers, found.left_out)
    waiting = layers
    while waiting:
        part, waiting = _part(waiting, limit)
        collector = Collector(subject, layers, [layer.name for layer in part])
        with collector.read.products, torch.no_grad():
            for batch in task.moments():
                collector.begin(batch)
                batch.run(subject.model)
        found.factors.update(maps.made(collector.read, part))
    for layer in layers:
        if layer.name not in found.factors:
            found.left_out.setdefault(layer.name, layer.unread or NOT_READ)
    return found


def _part(layers: list[Layer], limit: int) -> tuple[list[Layer], list[Layer]]:
    """As many of ``layers`` as fit into the memory bound (counted as if none shared a moment), and the rest."""
    size = 0
    for at, layer in enumerate(layers):
        size += 0 if layer.kind == "embedding" else 8 * (layer.fan_in + 1) ** 2
        if at and size > limit:
            return layers[:at], layers[at:]
    return layers, []


def _require_positions(subject: Subject, task: BaseTask, layers: Iterable[Layer]) -> None:
    """Refuses a task that is too small for a convolution, from one example: its moments are the costly ones."""
    convolutions = [layer for layer in layers if layer.kind == "conv" and not layer.unread]
    if not convolutions:
        return
    positions: dict[str, int] = {}
    with ExitStack() as stack, torch.no_grad():
        for layer in convolutions:

            def count(module: nn.Module, args: Any, output: Tensor, layer: Layer = layer) -> None:
                positions[layer.name] = positions.get(layer.name, 0) + output.numel() // layer.units

            stack.callback(subject.model.get_submodule(layer.module).register_forward_hook(count).remove)
        next(iter(task.moments())).one(0).run(subject.model)
    examples = sum(batch.examples for batch in task.moments())
    for layer in convolutions:
        inputs = layer.fan_in + (layer.bias is not None)
        require_rows(f"{subject.name}: {layer.name}", inputs, positions.get(layer.name, 0) * examples)
