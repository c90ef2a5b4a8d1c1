"""Layer moments: what each layer's inputs look like on the probe, read in one clean pass."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.errors import ModelError
from wheeltap.layer import Layer
from wheeltap.perturb.base import Factors
from wheeltap.perturb.function_noise import factor, output_root
from wheeltap.probe import BaseProbe, Moments
from wheeltap.subject import Subject
from wheeltap.typed import to_tensor

ROWS_PER_INPUT = 1.5
"""Rows of input needed per input dimension: any n independent points can be re-coded into any other n, so with
fewer rows than inputs no invariant scale exists."""

MOMENT_BYTES = 2**30
"""Memory that the moments of layers read in one pass may take, before they are turned into factors, where no other
bound is given."""


@dataclass
class _Gram:
    """Sums over rows of one layer input: ``body`` without sinks, and the sinks' own rows."""

    body: Tensor
    rows: int = 0
    sinks: list[Tensor] = field(default_factory=list[Tensor])


class _Collector:
    """Forward hooks that add up the second moment of every distinct layer input.

    Layers that read the very same tensor (query, key and value; gate and up) share one moment.
    """

    def __init__(self, subject: Subject, layers: list[Layer]) -> None:
        self.subject, self.layers = subject, layers
        self.grams: dict[str, _Gram] = {}
        self.tokens: dict[str, Tensor] = {}
        self.shared: dict[str, str] = {}
        # Layers that share an input follow each other closely; holding every input would hold a whole pass.
        self._current: deque[tuple[Tensor, int, str]] = deque(maxlen=4)
        self._sinks = 0

    def hooks(self, stack: ExitStack) -> None:
        for layer in self.layers:
            module = self.subject.model.get_submodule(layer.name)

            def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], layer: Layer = layer) -> None:
                given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
                # A packed query/key/value weight has one input only in self-attention.
                if layer.kind != "attention" or (len(given) > 2 and given[0] is given[1] is given[2]):
                    self._read(layer, module, given[0])

            stack.callback(module.register_forward_pre_hook(read, with_kwargs=True).remove)

    def begin(self, batch: Moments) -> None:
        self._current.clear()
        self._sinks = batch.sinks

    def _read(self, layer: Layer, module: nn.Module, inputs: Tensor) -> None:
        # The version tells an input that was changed in place between two readers.
        same = (name for tensor, version, name in self._current if tensor is inputs and version == inputs._version)
        owner = next(same, layer.name)
        self._current.append((inputs, inputs._version, owner))
        self.shared[layer.name] = owner
        if owner != layer.name:
            return
        if layer.kind == "embedding":
            counts = torch.bincount(inputs.flatten(), minlength=layer.fan_in)
            self.tokens[layer.name] = self.tokens.get(layer.name, torch.zeros_like(counts)) + counts
            return
        body, sinks = _rows(layer, module, inputs, self._sinks)
        gram = self.grams.get(layer.name)
        if gram is None:
            size = body.shape[1]
            gram = self.grams[layer.name] = _Gram(torch.zeros(size, size, dtype=torch.float64, device=body.device))
        # In double precision: single precision leaves noise where the support ends, and rank is decided there.
        wide = body.double()
        gram.body.addmm_(wide.T, wide)
        gram.rows += len(body) + len(sinks)
        if len(sinks):
            gram.sinks.append(sinks)


def _rows(layer: Layer, module: nn.Module, inputs: Tensor, sinks: int) -> tuple[Tensor, Tensor]:
    """Input rows of a layer with a constant 1 where it has a bias: those to count everywhere, and the sinks."""
    if layer.kind == "conv":
        rows, sink = patches(module, inputs), None
    elif sinks and inputs.ndim == 3:
        # A copy: a view would keep the whole activation alive.
        rows, sink = inputs[:, sinks:].flatten(0, 1), inputs[:, :sinks].flatten(0, 1).clone()
    else:
        rows, sink = inputs.reshape(-1, inputs.shape[-1]), None
    if layer.bias is not None:
        rows = functional.pad(rows, (0, 1), value=1.0)
        sink = None if sink is None else functional.pad(sink, (0, 1), value=1.0)
    return rows, rows[:0] if sink is None else sink


def patches(module: nn.Module, inputs: Tensor) -> Tensor:
    """The patches ``[position, in x kernel]`` that a convolution multiplies."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        raise ModelError("Moments of this convolution are not known.", got=type(module).__name__)
    flat = isinstance(module, nn.Conv1d)
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        # _reversed_padding_repeated_twice is what torch itself pads with in these modes.
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        inputs = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)  # pyright: ignore
        padding: Any = 0
    else:
        padding = (0, *module.padding) if flat else module.padding
    columns = functional.unfold(
        inputs[:, :, None] if flat else inputs,
        kernel_size=_plane(module.kernel_size),
        dilation=_plane(module.dilation),
        stride=_plane(module.stride),
        padding=padding,
    )
    return columns.transpose(1, 2).flatten(0, 1)


def _plane(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of a one-dimensional convolution as those of a plane one row high."""
    return (1, *sizes) if len(sizes) == 1 else sizes


def supported(subject: Subject) -> list[Layer]:
    """Layers whose inputs can be read: all but tied ones and grouped or 3-d convolutions."""
    found: list[Layer] = []
    for layer in subject.layers:
        module = subject.model.get_submodule(layer.name)
        plain = layer.kind != "conv" or (isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == 1)
        if plain and not layer.tied:
            found.append(layer)
    return found


def estimate(subject: Subject, probe: BaseProbe, *, limit: int = MOMENT_BYTES) -> dict[str, Factors]:
    """Factors of every supported layer that the probe reaches, from clean passes over its moment inputs.

    One pass, or several for a model whose moments would not fit into ``limit`` bytes together.

    Raises:
        ModelError: If a layer's inputs are not finite, or the probe has too few rows for a layer.
    """
    _require_positions(subject, probe)
    found: dict[str, Factors] = {}
    waiting = supported(subject)
    while waiting:
        part, waiting = _part(waiting, limit)
        found |= _estimate_part(subject, probe, part)
    return found


def _part(layers: list[Layer], limit: int) -> tuple[list[Layer], list[Layer]]:
    """As many of ``layers`` as fit into the memory bound (counted as if none shared a moment), and the rest."""
    size = 0
    for at, layer in enumerate(layers):
        size += 0 if layer.kind == "embedding" else 8 * (layer.fan_in + 1) ** 2
        if at and size > limit:
            return layers[:at], layers[at:]
    return layers, []


def _estimate_part(subject: Subject, probe: BaseProbe, layers: list[Layer]) -> dict[str, Factors]:
    collector = _Collector(subject, layers)
    with ExitStack() as stack, torch.no_grad():
        collector.hooks(stack)
        for batch in probe.moments():
            collector.begin(batch)
            subject.model(batch.inputs.to(subject.device))
    return dict(_factored(subject, collector))


def _factored(subject: Subject, collector: _Collector) -> Iterator[tuple[str, Factors]]:
    by_owner: dict[str, list[Layer]] = {}
    for layer in collector.layers:
        if layer.name in collector.shared:
            by_owner.setdefault(collector.shared[layer.name], []).append(layer)
    for layer in collector.layers:
        if layer.name in collector.tokens:
            yield layer.name, _embedding_factors(subject.parameter(layer.weight).detach(), collector.tokens[layer.name])
    for owner, layers in by_owner.items():
        if owner in collector.tokens:
            continue
        gram = collector.grams.pop(owner)
        _require_rows(f"{subject.name}: {owner}", len(gram.body), gram.rows)
        like = subject.parameter(layers[0].weight).detach()
        spread, whiten = (to_tensor(part, like=like) for part in _factors_of_input(gram))
        for layer in layers:
            weight = subject.parameter(layer.weight).detach()
            bias = None if layer.bias is None else subject.parameter(layer.bias).detach()
            yield layer.name, Factors(out=output_root(layer.matrix(weight), bias, spread), whiten=whiten)


def _embedding_factors(weight: Tensor, counts: Tensor) -> Factors:
    """Factors of an embedding: its inputs are tokens, one-hot, so their second moment is diagonal."""
    support = counts.nonzero()[:, 0]
    share = (counts[support] / counts.sum()).to(weight.dtype).sqrt()
    return Factors(out=weight[support].T * share, whiten=1.0 / share, support=support)


def _require_positions(subject: Subject, probe: BaseProbe) -> None:
    """Refuses a probe that is too small for a convolution, from one example: its moments are the costly ones."""
    convolutions = [layer for layer in supported(subject) if layer.kind == "conv"]
    if not convolutions:
        return
    positions: dict[str, int] = {}
    with ExitStack() as stack, torch.no_grad():
        for layer in convolutions:

            def count(module: nn.Module, args: Any, output: Tensor, layer: Layer = layer) -> None:
                positions[layer.name] = positions.get(layer.name, 0) + output.numel() // layer.units

            stack.callback(subject.model.get_submodule(layer.name).register_forward_hook(count).remove)
        subject.model(next(iter(probe.moments())).inputs[:1].to(subject.device))
    examples = sum(len(batch.inputs) for batch in probe.moments())
    for layer in convolutions:
        inputs = layer.fan_in + (layer.bias is not None)
        _require_rows(f"{subject.name}: {layer.name}", inputs, positions.get(layer.name, 0) * examples)


def _require_rows(where: str, inputs: int, rows: int) -> None:
    needed = int(np.ceil(ROWS_PER_INPUT * inputs))
    if 0 < rows < needed:
        raise ModelError(
            "The probe is too small for function-space noise.",
            where=where,
            expected=f"at least {needed} rows of input (1.5 per input dimension)",
            got=f"{rows}",
            do="Give the probe more inputs (more=...), or leave the function-noise audit out.",
        )


def _factors_of_input(gram: _Gram) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Spread of the inputs without sinks, and whitening of the inputs with them."""
    body = gram.body.cpu().numpy()
    everything, count = body, gram.rows
    sinks = torch.cat(gram.sinks).double().cpu().numpy() if gram.sinks else None
    if sinks is not None:
        everything = body + sinks.T @ sinks
        count -= len(sinks)
    spread, whiten = factor(body / count)
    if sinks is not None:
        _, whiten = factor(everything / gram.rows)
    return spread, whiten
