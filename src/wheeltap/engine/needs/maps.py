"""From sums over what layers read to the factors of their maps: a map may take in the norm or the layer behind it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wheeltap.core.errors import ModelError
from wheeltap.core.kinds import COMPUTED
from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.typed import to_tensor
from wheeltap.engine.needs.products import Norm, Products
from wheeltap.perturb.base import Blocks, Factors
from wheeltap.perturb.function_noise import (
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
class Read:
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

    def made(self, read: Read, wanted: Sequence[Layer]) -> dict[str, Factors | Blocks]:
        """Factors of the layers whose sums were kept.

        Raises:
            ModelError: If the task has too few rows for a layer that gets as many as any other, or inputs are not
                finite.
        """
        self._leave_out(read, wanted)
        chains = Chains(read.products, [layer for layer in self.layers if layer.name not in self.left_out])
        names = _numbered(read.first, chains.inner)
        found: dict[str, Factors | Blocks] = {}
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
            found[name] = parts[0] if count == 1 else Blocks(tuple(parts.get(part) for part in range(count)))
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

    def _leave_out(self, read: Read, wanted: Sequence[Layer]) -> None:
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
