"""Layer moments: what each layer's inputs look like on the task, read in clean passes, as factors of their maps.

A map may take in the norm or the layers behind it.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate
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
from wheeltap.engine.apply import LayerKnowledge
from wheeltap.engine.needs.products import Product, ProductInput, Products
from wheeltap.perturb.base import BlockFactors, Factors, Known
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


_Inputs = tuple[InputFactors, InputFactors]
"""Of an input without sinks, by which outputs are scaled, and of the input with them, which is whitened."""


@final
class MapFactors:
    """Makes factors of what passes over the task say of layers.

    The first layer of a map that goes on through others, each of which reads the one before alone, gets the noise of
    them all.

    Args:
        subject: Whose.
        layers: All that were watched.
        read: What was read.
        left_out: Takes the reasons for those that get no factors.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer], read: "Collector", left_out: dict[str, str]) -> None:
        self._subject, self._layers, self._read, self._left_out = subject, layers, read, left_out
        self._next: dict[str, Layer] = {}
        self._carried: dict[str, Factors] = {}

    def made(self, wanted: Sequence[Layer]) -> tuple[dict[str, Factors | BlockFactors], dict[str, Factors]]:
        """Factors of the layers whose sums were kept, and of those that maps end in, which these replace.

        Raises:
            ModelError: If the task has too few rows for a layer that gets as many as any other, or inputs are not
                finite.
        """
        read = self._read
        self._leave_out(wanted)
        linear = {
            layer.name: layer
            for layer in self._layers
            if layer.name not in self._left_out and layer.kind in ("linear", "transposed") and not layer.unread
        }
        self._next = {name: linear[of] for name in linear if (of := read.products.reader_of(name)) in linear}
        inner = {layer.name for layer in self._next.values()}
        # The name of each block's input: its place in the order of those that maps read.
        own = {about: call for about, call in read.first.items() if about[0] not in inner}
        order = {call: at for at, call in enumerate(sorted(set(own.values())))}
        names = {about: f"input {order[call]}" for about, call in own.items()}
        found: dict[str, Factors | BlockFactors] = {}
        readers: dict[tuple[int, ...], list[tuple[Layer, int]]] = defaultdict(list)
        for layer in wanted:
            if layer.name in read.tokens or layer.name in read.tables:
                found[layer.name] = self._looked_up(layer, read.tokens.get(layer.name), names[layer.name, 0])
            elif layer.name in inner:  # a later part of a map: the noise is that of the first part
                require_finite(read.grams[layer.name].pop(0).body.cpu().numpy())
                weight = _wide(self._subject.parameter(layer.weight).detach())
                width = layer.fan_in + (layer.bias is not None)
                found[layer.name] = Factors(out=weight.new_zeros(layer.units, 0), whiten=weight.new_zeros(0, width))
            for part, gram in read.grams.get(layer.name, {}).items() if layer.name not in found else ():
                readers[tuple(gram.calls)].append((layer, part))
        blocks: dict[str, dict[int, Factors]] = defaultdict(dict)
        for reading in readers.values():
            inputs = _of_sums(read.grams[reading[0][0].name][reading[0][1]])
            for layer, part in reading:
                gram = read.grams[layer.name].pop(part)  # the sums are freed on the way
                times = self._multiple(layer, gram)
                if times is None:
                    self._left_out[layer.name] = COMPUTED
                    continue
                each = layer.units // read.blocks[layer.name]
                rows = slice(part * each, (part + 1) * each)
                blocks[layer.name][part] = self._of(layer, rows, inputs, times, name=names[layer.name, part])
        for name, parts in blocks.items():
            count = read.blocks[name]
            found[name] = parts[0] if count == 1 else BlockFactors(tuple(parts.get(part) for part in range(count)))
        return found, self._carried

    def _offset(self, layer: Layer) -> Tensor | None:
        """What the map adds to what its first weight gives, in double precision and the coordinates of that.

        That is the layer's bias, and what a batch norm or the layers behind it add; ``None`` for nothing.
        """
        own = None if layer.bias is None else self._subject.parameter(layer.bias).detach().double().cpu().flatten()
        norm = self._read.products.norm_of(layer.name)
        if norm is not None:
            scale, mean, given = (part.cpu() for part in (norm.scale, norm.mean, norm.offset))
            live = scale.abs() > _SMALLEST_GAIN * scale.abs().max()
            before = torch.zeros_like(mean) if own is None else own
            return before - mean + torch.where(live, given / torch.where(live, scale, 1.0), 0.0)
        after = self._next.get(layer.name)
        beyond = None if after is None else self._offset(after)
        if after is None or beyond is None:
            return own
        matrix = after.matrix(self._subject.weight(after).detach().double().cpu())
        back = to_tensor(np.linalg.lstsq(matrix.numpy(), beyond.numpy(), rcond=None)[0])
        return back if own is None else own + back

    def _of(self, layer: Layer, rows: slice, inputs: _Inputs, times: float, *, name: str) -> Factors:
        """Of one block of rows: its outputs set the scale, with what the rest of its map adds to them.

        Args:
            layer: Whose.
            rows: Those that read one input.
            inputs: Of that.
            times: By how much the module multiplies the parameter before it uses it.
            name: Of the input.
        """
        body, everything = inputs
        offset, own = self._offset(layer), layer.bias is not None
        # Where the first layer of a map has no bias, the noise that a constant makes is the last one's.
        behind = list[Layer]()
        while not own and (last := behind[-1] if behind else layer).name in self._next:
            behind.append(self._next[last.name])
        carried = bool(behind) and behind[-1].bias is not None
        weight = layer.matrix(_wide(self._subject.weight(layer).detach()))[rows]
        whiten = everything.whiten_with_constant if own or carried else everything.whiten
        if own and times != 1.0:
            whiten = torch.cat([whiten[:, :-1], whiten[:, -1:] * times], 1)  # what is added is not multiplied
        first = Factors(
            out=body.output_root(weight, None if offset is None else offset[rows].to(weight) / times),
            whiten=whiten if own else whiten[:, : layer.fan_in],
            name=name,
            constant=(offset is not None and body.beyond > 0.0, (own or carried) and everything.beyond > 0.0),
        )
        if carried:  # the last layer of the map gets noise in its bias alone: what the map's makes of a constant
            out, last = first.out, behind[-1]
            for one in behind:
                out = one.matrix(_wide(self._subject.weight(one).detach())) @ out
            alone = functional.pad(whiten[:, -1][:, None], (last.fan_in, 0))
            self._carried[last.name] = Factors(out=out, whiten=alone, name=name, constant=first.constant)
        return first

    def _multiple(self, layer: Layer, gram: Gram) -> float | None:
        """By how much a module multiplies a parameter before it uses it (spectral norm); ``None`` for any other change.

        So what the module makes of noise in the parameter has the scale of what it makes of the parameter.
        """
        if layer.unread != COMPUTED:
            return 1.0
        held, used = _wide(self._subject.parameter(layer.weight).detach()), _wide(gram.weight)
        times = float((held * used).sum() / held.square().sum())
        rounding = torch.finfo(gram.weight.dtype).eps
        alike = times and bool(((used - times * held).abs() <= _ULPS * rounding * used.abs().max()).all())
        return times if alike else None

    def _looked_up(self, layer: Layer, counts: Tensor | None, name: str) -> Factors:
        """Of an embedding: its inputs are tokens, one-hot, so their second moment is diagonal.

        Of a table that is added place by place (without ``counts``) each place is as frequent as any other.
        """
        wide = _wide(self._subject.parameter(layer.weight).detach())
        if counts is None:
            rows = wide.reshape(-1, layer.shape[-1])
            even = len(rows) ** -0.5
            return Factors(out=rows.T * even, whiten=rows.new_full((len(rows),), 1.0 / even), name=name, table=True)
        support = counts.nonzero()[:, 0]
        share = (counts[support] / counts.sum()).to(wide.dtype).sqrt()
        return Factors(out=wide[support].T * share, whiten=1.0 / share, support=support, name=name)

    def _leave_out(self, wanted: Sequence[Layer]) -> None:
        """Drops what gets too few rows because the model sends them elsewhere (experts of a mixture)."""
        grams = self._read.grams
        offered = max((gram.rows for parts in grams.values() for gram in parts.values()), default=0)
        for layer in wanted:
            parts, few = grams.get(layer.name, {}), ""
            for part, gram in list(parts.items()):
                inputs = len(gram.body) + (layer.bias is not None)
                if gram.rows >= ROWS_PER_INPUT * inputs:
                    continue
                if gram.rows == offered:
                    require_rows(f"{self._subject.name}: {layer.name}", inputs, gram.rows)
                few = f"{gram.rows} rows of input, {_needed(inputs)} needed"
                del parts[part]
            if few and not parts:
                self._left_out[layer.name] = few


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


_Sums = tuple[Tensor, Tensor, int, Tensor]
"""What one call adds: products and sums of its rows without sinks, their number with sinks, and the sinks."""


@final
class Collector:
    """Adds up the second moment of what every layer reads.

    Layers that read the same numbers in the same way (query, key and value; gate and up) share the work.

    Args:
        subject: Whose.
        layers: All whose products may be read: inputs are numbered over these.
        wanted: Names of those whose sums are kept.

    Attributes:
        products: The products they were part of, and what read their outputs.
        grams: By layer and block of rows.
        blocks: How many blocks of rows a layer has.
        tokens: Of embeddings: how often each token came up, ``[token]``.
        tables: Those that are added as they are.
        first: By layer and block: which input, in the order of a pass, it read first.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer], wanted: Iterable[str]) -> None:
        self._wanted = set(wanted)
        self.products = Products(subject, layers, self._see)
        self.grams: dict[str, dict[int, Gram]] = {}
        self.blocks: dict[str, int] = {}
        self.tokens: dict[str, Tensor] = {}
        self.tables: set[str] = set()
        self.first: dict[tuple[str, int], int] = {}
        # Layers that share an input follow each other closely; holding every input would hold a whole pass.
        self._recent: deque[tuple[int, ProductInput, int]] = deque(maxlen=4)
        self._last: tuple[int, _Sums] | None = None
        self._batch = Moments(None)
        self._calls = 0

    def begin(self, batch: Moments) -> None:
        """Before each batch."""
        self.products.begin()
        self._recent.clear()
        self._batch = batch

    def _see(self, product: Product) -> None:
        name, source = product.layer.name, product.source
        call = self._call(source)
        self.first.setdefault((name, product.part), call)
        self.blocks[name] = product.parts
        if name not in self._wanted:
            return
        if source.how == ("tokens",):
            counts = torch.bincount(source.inputs.flatten(), minlength=product.layer.fan_in)
            self.tokens[name] = self.tokens.get(name, torch.zeros_like(counts)) + counts
            return
        if source.how == ("table",):
            self.tables.add(name)
            return
        if self._last is None or self._last[0] != call:
            self._last = None  # freed before the next one is made
            first = self._batch.sinks
            places = source.by_place(self._batch.inputs) if first else None
            if places is None:
                body = source.rows()
                sinks = body[:0]
            else:  # sinks as a copy: a view would keep the whole activation alive
                body, sinks = places[:, first:].flatten(0, 1), places[:, :first].flatten(0, 1).clone()
            # In double precision: single precision leaves noise where the support ends, and rank is decided there.
            wide = body.double()
            self._last = (call, (wide.T @ wide, wide.sum(0), len(body) + len(sinks), sinks))
        products, total, rows, sinks = self._last[1]
        blocks = self.grams.setdefault(name, {})
        gram = blocks.get(product.part)
        if gram is None:
            zeros = torch.zeros_like(products), torch.zeros_like(total)
            gram = blocks[product.part] = Gram(product.weight.detach(), *zeros)
        gram.body += products
        gram.total += total
        gram.rows += rows
        gram.calls.append(call)
        if len(sinks):
            gram.sinks.append(sinks)

    def _call(self, source: ProductInput) -> int:
        """The number of an input that some layers read in one way."""
        self._calls += 1
        # A version tells an input that was changed in place between two readers.
        # Tensors of inference mode have none: each call is then one of its own.
        version = self._calls if source.inputs.is_inference() else source.inputs._version
        for at, known, before in self._recent:
            one, two = known.inputs, source.inputs
            # The same numbers: one tensor, or a copy for each of its readers.
            if (
                before == version
                and known.how == source.how
                and (one is two or (one.shape == two.shape and torch.equal(one, two)))
            ):
                return at
        self._recent.append((self._calls, source, version))
        return self._calls


TIED = "its weight is used in more than one place"
NOT_READ = "not reached by these examples, or its input cannot be read"


def layer_moments(subject: Subject, task: BaseTask, *, limit: int = MOMENT_BYTES) -> LayerKnowledge:
    """Factors of every layer that the task reaches often enough, from clean passes over its moment inputs.

    One pass, or several for a model whose moments would not fit into ``limit`` bytes together.

    Raises:
        ModelError: If a layer's inputs are not finite, or the task has too few rows for a layer that gets all of them.
    """
    layers = [layer for layer in subject.layers if not layer.tied]
    _require_positions(subject, task, layers)
    left_out = {layer.name: TIED for layer in subject.layers if layer.tied}
    known, ends, waiting = dict[str, Known](), dict[str, Factors](), layers
    while waiting:
        # As many as fit into the memory bound, counted as if none shared a moment.
        sizes = [0 if layer.kind == "embedding" else 8 * (layer.fan_in + 1) ** 2 for layer in waiting]
        fitting = max(sum(size <= limit for size in accumulate(sizes)), 1)
        part, waiting = waiting[:fitting], waiting[fitting:]
        collector = Collector(subject, layers, [layer.name for layer in part])
        with collector.products, torch.no_grad():
            for batch in task.moments():
                collector.begin(batch)
                batch.run(subject.model)
        found, carried = MapFactors(subject, layers, collector, left_out).made(part)
        known |= found
        ends |= carried
    known |= ends
    for layer in layers:
        if layer.name not in known:
            left_out.setdefault(layer.name, layer.unread or NOT_READ)
    return LayerKnowledge(known, task.moment_passes, left_out)


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
