"""Layer moments: what each layer's inputs look like on the task, read in clean passes, as factors of their maps.

A map may take in the norm or the layers behind it.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import COMPUTED, Layer
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Moments
from wheeltap.core.typed import to_tensor
from wheeltap.engine.needs.multiplied import AddedTable, RowInputs, RowSource, Source, TokenInputs
from wheeltap.engine.needs.products import Norm, Product, Products
from wheeltap.perturb.base import BlockFactors, Factors
from wheeltap.perturb.noise import (
    SUPPORT_IN_16_BITS,
    SUPPORT_TOLERANCE,
    InputFactors,
    input_factors,
    require_finite,
)

ROWS_PER_INPUT = 1.5
"""Rows of input needed per input dimension: any n independent points can be re-coded into any other n, so with
fewer rows than inputs no invariant scale exists."""

_SMALLEST_GAIN = 1e-6
"""Gains of a batch norm below this share of the largest one: what a unit gives does not pass, so neither does noise."""


def require_rows(where: str, inputs: int, rows: int) -> None:
    """Raises ``ModelError`` if a task gives a layer rows, but too few."""
    if 0 < rows < ROWS_PER_INPUT * inputs:
        raise ModelError(
            "The task is too small for function-space noise.",
            where=where,
            expected=f"at least {_needed(inputs)} rows of input (1.5 per input dimension)",
            got=f"{rows}",
            do="Give the task more inputs (more=...), or leave the function-noise audit out.",
        )


_ULPS = 8
"""Units in the last place by which a multiple of a parameter may differ from it, rounding apart."""


def _needed(inputs: int) -> int:
    return int(np.ceil(ROWS_PER_INPUT * inputs))


@dataclass
class Gram:
    """Sums over rows of what one block of a layer's rows reads: ``body`` without sinks, and the sinks' own rows.

    Attributes:
        weight: What was multiplied: where a module computes its weight, the computed one.
        body: ``[in, in]``: sums of products.
        total: ``[in]``: sums.
        rows: How many rows, with sinks.
        calls: Which inputs they come from: blocks with the same ones have the same sums.
    """

    weight: Tensor
    body: Tensor
    total: Tensor
    rows: int = 0
    sinks: list[Tensor] = field(default_factory=list[Tensor])
    calls: list[int] = field(default_factory=list[int])


@dataclass
class PassSums:
    """What passes over the task say of layers, by name.

    Attributes:
        products: The products they were part of, and what read their outputs.
        grams: By block of rows.
        blocks: How many blocks of rows a layer has.
        tokens: Of embeddings: how often each token came up.
        tables: Those that are added as they are.
        first: By layer and block: which input, in the order of a pass, it read first.
    """

    products: Products
    grams: dict[str, dict[int, Gram]] = field(default_factory=dict[str, dict[int, Gram]])
    blocks: dict[str, int] = field(default_factory=dict[str, int])
    tokens: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    tables: set[str] = field(default_factory=set[str])
    first: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])


@final
class Chains:
    """Which layers are the first of a map that goes on through others, each of which reads the one before alone.

    Args:
        products: What was read.
        layers: Those that may be part of a chain.
    """

    def __init__(self, products: Products, layers: Sequence[Layer]) -> None:
        linear = {layer.name: layer for layer in layers if layer.kind in ("linear", "transposed") and not layer.unread}
        self._products = products
        self._next = {name: linear[read] for name in linear if (read := products.reader_of(name)) in linear}
        self.inner = {layer.name for layer in self._next.values()}

    def behind(self, layer: Layer) -> list[Layer]:
        """The layers that a map goes on through, in order."""
        found: list[Layer] = []
        while layer.name in self._next:
            layer = self._next[layer.name]
            found.append(layer)
        return found

    def offset(self, subject: Subject, layer: Layer) -> Tensor | None:
        """What the map adds to what its first weight gives, in double precision and the coordinates of that.

        That is the layer's bias, and what a batch norm or the layers behind it add; ``None`` for nothing.
        """
        own = None if layer.bias is None else subject.parameter(layer.bias).detach().double().cpu().flatten()
        norm = self._products.norm_of(layer.name)
        if norm is not None:
            return _before(norm, torch.zeros_like(norm.mean.cpu()) if own is None else own)
        after = self._next.get(layer.name)
        beyond = None if after is None else self.offset(subject, after)
        if after is None or beyond is None:
            return own
        matrix = after.matrix(subject.weight(after).detach().double().cpu())
        back = to_tensor(np.linalg.lstsq(matrix.numpy(), beyond.numpy(), rcond=None)[0])
        return back if own is None else own + back


@dataclass(frozen=True)
class _Block:
    """Rows of one layer that read one input.

    Attributes:
        name: Of the input.
        times: By how much the module multiplies the parameter before it uses it.
    """

    layer: Layer
    rows: slice
    name: str
    times: float


_Inputs = tuple[InputFactors, InputFactors]
"""Of an input without sinks, by which outputs are scaled, and of the input with them, which is whitened."""


@final
@dataclass
class MapFactors:
    """Makes factors of what passes over the task say of layers.

    Args:
        subject: Whose.
        layers: All that were watched.
        left_out: Takes the reasons for those that get no factors.
    """

    subject: Subject
    layers: Sequence[Layer]
    left_out: dict[str, str]
    _carried: dict[str, Factors] = field(default_factory=dict[str, Factors])

    def made(self, read: PassSums, wanted: Sequence[Layer]) -> dict[str, Factors | BlockFactors]:
        """Factors of the layers whose sums were kept.

        Raises:
            ModelError: If the task has too few rows for a layer that gets as many as any other, or inputs are not
                finite.
        """
        self._leave_out(read, wanted)
        chains = Chains(read.products, [layer for layer in self.layers if layer.name not in self.left_out])
        names = _numbered(read.first, chains.inner)
        found: dict[str, Factors | BlockFactors] = {}
        readers: dict[tuple[int, ...], list[tuple[Layer, int]]] = defaultdict(list)
        for layer in wanted:
            if layer.name in read.tokens:
                found[layer.name] = self._embedding(layer, read.tokens[layer.name], names[layer.name, 0])
            elif layer.name in read.tables:
                found[layer.name] = self._table(layer, names[layer.name, 0])
            elif layer.name in chains.inner:
                found[layer.name] = self._still(layer, read.grams[layer.name].pop(0))
            for part, gram in read.grams.get(layer.name, {}).items() if layer.name not in found else ():
                readers[tuple(gram.calls)].append((layer, part))
        blocks: dict[str, dict[int, Factors]] = defaultdict(dict)
        for reading in readers.values():
            inputs = _of_sums(read.grams[reading[0][0].name][reading[0][1]])
            for layer, part in reading:
                gram = read.grams[layer.name].pop(part)  # the sums are freed on the way
                times = self._multiple(layer, gram)
                if times is None:
                    self.left_out[layer.name] = COMPUTED
                    continue
                block = _Block(layer, _rows(layer, part, read.blocks[layer.name]), names[layer.name, part], times)
                blocks[layer.name][part] = self._of(block, inputs, chains)
        for name, parts in blocks.items():
            count = read.blocks[name]
            found[name] = parts[0] if count == 1 else BlockFactors(tuple(parts.get(part) for part in range(count)))
        return found | self._carried

    def _of(self, block: _Block, inputs: _Inputs, chains: Chains) -> Factors:
        """Of one block of rows: its outputs set the scale, with what the rest of its map adds to them."""
        layer, (body, everything) = block.layer, inputs
        offset, own = chains.offset(self.subject, layer), layer.bias is not None
        # Where the first layer of a map has no bias, the noise that a constant makes is the last one's.
        behind = [] if own else chains.behind(layer)
        carried = bool(behind) and behind[-1].bias is not None
        weight = layer.matrix(_wide(self.subject.weight(layer).detach()))[block.rows]
        whiten = everything.whiten_with_constant if own or carried else everything.whiten
        if own and block.times != 1.0:
            whiten = torch.cat([whiten[:, :-1], whiten[:, -1:] * block.times], 1)  # what is added is not multiplied
        made = Factors(
            out=body.output_root(weight, None if offset is None else offset[block.rows].to(weight) / block.times),
            whiten=whiten if own else whiten[:, : layer.fan_in],
            name=block.name,
            constant=(offset is not None and body.beyond > 0.0, (own or carried) and everything.beyond > 0.0),
        )
        if carried:
            self._carry(behind, made, whiten[:, -1])
        return made

    def _carry(self, behind: Sequence[Layer], first: Factors, constant: Tensor) -> None:
        """Gives the last layer of a map noise in its bias alone: what the map's noise makes of a constant."""
        out, last = first.out, behind[-1]
        for layer in behind:
            out = layer.matrix(_wide(self.subject.weight(layer).detach())) @ out
        whiten = functional.pad(constant[:, None], (last.fan_in, 0))
        self._carried[last.name] = Factors(out=out, whiten=whiten, name=first.name, constant=first.constant)

    def _multiple(self, layer: Layer, gram: Gram) -> float | None:
        """By how much a module multiplies a parameter before it uses it (spectral norm); ``None`` for any other change.

        So what the module makes of noise in the parameter has the scale of what it makes of the parameter.
        """
        if layer.unread != COMPUTED:
            return 1.0
        held, used = _wide(self.subject.parameter(layer.weight).detach()), _wide(gram.weight)
        times = float((held * used).sum() / held.square().sum())
        rounding = torch.finfo(gram.weight.dtype).eps
        alike = times and bool(((used - times * held).abs() <= _ULPS * rounding * used.abs().max()).all())
        return times if alike else None

    def _still(self, layer: Layer, gram: Gram) -> Factors:
        """Of a layer that is a later part of a map: the noise is that of the first part."""
        require_finite(gram.body.cpu().numpy())
        weight = _wide(self.subject.parameter(layer.weight).detach())
        width = layer.fan_in + (layer.bias is not None)
        return Factors(out=weight.new_zeros(layer.units, 0), whiten=weight.new_zeros(0, width))

    def _embedding(self, layer: Layer, counts: Tensor, name: str) -> Factors:
        """An embedding's inputs are tokens, one-hot, so their second moment is diagonal."""
        support, wide = counts.nonzero()[:, 0], _wide(self.subject.parameter(layer.weight).detach())
        share = (counts[support] / counts.sum()).to(wide.dtype).sqrt()
        return Factors(out=wide[support].T * share, whiten=1.0 / share, support=support, name=name)

    def _table(self, layer: Layer, name: str) -> Factors:
        """Of a table that is added place by place: each place is an input as frequent as any other."""
        rows = _wide(self.subject.parameter(layer.weight).detach()).reshape(-1, layer.shape[-1])
        share = len(rows) ** -0.5
        return Factors(out=rows.T * share, whiten=rows.new_full((len(rows),), 1.0 / share), name=name, table=True)

    def _leave_out(self, read: PassSums, wanted: Sequence[Layer]) -> None:
        """Drops what gets too few rows because the model sends them elsewhere (experts of a mixture)."""
        offered = max((gram.rows for parts in read.grams.values() for gram in parts.values()), default=0)
        for layer in wanted:
            parts, few = read.grams.get(layer.name, {}), ""
            for part, gram in list(parts.items()):
                inputs = len(gram.body) + (layer.bias is not None)
                if gram.rows >= ROWS_PER_INPUT * inputs:
                    continue
                if gram.rows == offered:
                    require_rows(f"{self.subject.name}: {layer.name}", inputs, gram.rows)
                few = f"{gram.rows} rows of input, {_needed(inputs)} needed"
                del parts[part]
            if few and not parts:
                self.left_out[layer.name] = few


def _numbered(first: dict[tuple[str, int], int], inner: set[str]) -> dict[tuple[str, int], str]:
    """The name of each block's input: its place in the order of those that maps read."""
    own = {about: call for about, call in first.items() if about[0] not in inner}
    order = {call: at for at, call in enumerate(sorted(set(own.values())))}
    return {about: f"input {order[call]}" for about, call in own.items()}


def _before(norm: Norm, offset: Tensor) -> Tensor:
    """The offset that a batch norm gives its layer, in the coordinates of the layer's outputs."""
    scale, mean, given = (part.cpu() for part in (norm.scale, norm.mean, norm.offset))
    live = scale.abs() > _SMALLEST_GAIN * scale.abs().max()
    return offset - mean + torch.where(live, given / torch.where(live, scale, 1.0), 0.0)


def _rows(layer: Layer, part: int, blocks: int) -> slice:
    each = layer.units // blocks
    return slice(part * each, (part + 1) * each)


def _of_sums(gram: Gram) -> _Inputs:
    """Of the inputs without sinks, by which outputs are scaled, and of those with them, which are whitened."""
    like = _wide(gram.weight[:0])
    tolerance = SUPPORT_IN_16_BITS if gram.weight.dtype.itemsize < 4 else SUPPORT_TOLERANCE
    sinks = torch.cat(gram.sinks).double().cpu() if gram.sinks else None
    body, total, count = gram.body.cpu(), gram.total.cpu(), gram.rows - (0 if sinks is None else len(sinks))

    def factors(moment: Tensor, mean: Tensor) -> InputFactors:
        return input_factors(moment.numpy(), mean.numpy(), tolerance=tolerance, like=like)

    spread = factors(body / count, total / count)
    if sinks is None:
        return spread, spread
    return spread, factors((body + sinks.T @ sinks) / gram.rows, (total + sinks.sum(0)) / gram.rows)


def _wide(tensor: Tensor) -> Tensor:
    """In single precision or better: factors of 16 bits would put the noise out of scale."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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
        self.read = PassSums(Products(subject, layers, self._see))
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
        if isinstance(source, TokenInputs):
            counts = source.counts(product.layer.fan_in)
            read.tokens[name] = read.tokens.get(name, torch.zeros_like(counts)) + counts
        elif isinstance(source, AddedTable):
            read.tables.add(name)
        elif isinstance(source, RowSource):
            self._add(product, source, call)

    def _add(self, product: Product, source: RowSource, call: _Call) -> None:
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

    def _sums(self, source: RowSource) -> _Sums:
        body, sinks = self._rows(source)
        # In double precision: single precision leaves noise where the support ends, and rank is decided there.
        wide = body.double()
        return _Sums(wide.T @ wide, wide.sum(0), len(body) + len(sinks), sinks)

    def _rows(self, source: RowSource) -> tuple[Tensor, Tensor]:
        """Input rows: those to count everywhere, and the sinks."""
        first = self._batch.sinks
        places = source.by_place(self._batch.inputs) if first and isinstance(source, RowInputs) else None
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

    factors: dict[str, Factors | BlockFactors]
    left_out: dict[str, str]


TIED = "its weight is used in more than one place"
NOT_READ = "not reached by these examples, or its input cannot be read"


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
