"""Reading from a clean subject what disturbances need to know of it beyond its weights."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import Knowledge, LayerKnowledge, differentiable, preserved_state
from wheeltap.engine.needs import moments
from wheeltap.engine.needs.products import Product, Products
from wheeltap.gauge import attention
from wheeltap.gauge.attention import AttentionLayer
from wheeltap.gauge.base import SharedTensors
from wheeltap.perturb.base import HeadMoments, InputScale, Known, Need, Slopes, Weights


def gather(need: Need, subject: Subject, task: BaseTask, *, limit: int = moments.MOMENT_BYTES) -> Knowledge:
    """What ``need`` names, read from the clean subject on the task, in ``limit`` bytes of sums at a time.

    Raises:
        ModelError: If it cannot be read from this subject or task.
    """
    if need == "moments":
        return moments.layer_moments(subject, task, limit=limit)
    if need == "inputs":
        return _input_scales(subject, task)
    if need == "heads":
        return _head_moments(subject, task)
    if need == "slopes":
        return LayerKnowledge(dict(_slopes(subject, task)), forwards=3.0)
    raise UsageError("Nothing gathers this.", expected="moments, inputs, heads or slopes", got=need)


def of_another(subject: Subject, other: Subject, also: Subject | None = None) -> LayerKnowledge:
    """The weights of ``other``, layer by layer as ``subject`` has them.

    With ``also``, the subject's own plus what both of them have changed.

    Raises:
        ModelError: If a layer's weights are missing there or have another shape; the first one is named.
    """

    def weights(name: str | None, layer: Layer) -> Tensor | None:
        if name is None:
            return None
        theirs = _held_by(other, name, layer, subject)
        if also is None:
            return theirs
        mine = _held_by(subject, name, layer, subject)
        return (theirs.float() + (_held_by(also, name, layer, subject).float() - mine.float())).to(mine)

    known: dict[str, Known] = {}
    for layer in subject.layers:
        weight = weights(layer.weight, layer)
        assert weight is not None
        known[layer.name] = Weights(weight, weights(layer.bias, layer))
    return LayerKnowledge(known)


def _held_by(other: Subject, name: str, layer: Layer, subject: Subject) -> Tensor:
    """A layer's weight or bias in another subject, with dtype and device of the same one of ``subject``."""
    mine, held = subject.parameter(name), None
    with suppress(AttributeError):
        held = other.model.get_parameter(name)
        if name == layer.weight and layer.length is not None:
            other.model.get_parameter(layer.length)
    if held is None or held.shape != mine.shape:
        raise ModelError(
            "The two checkpoints do not fit each other.",
            where=f"{subject.name} and {other.name}: {name}",
            expected=str(list(mine.shape)),
            got="no such tensor" if held is None else str(list(held.shape)),
            do="Merge checkpoints of one architecture.",
        )
    whole = other.weight(layer) if name == layer.weight else held
    return whole.detach().to(device=mine.device, dtype=mine.dtype)


_Sums = dict[str, tuple[Tensor, int]]
"""By layer, the sum over rows of what is read off its inputs, and how many rows."""


def _add(sums: _Sums, name: str, total: Tensor, rows: int) -> None:
    held, before = sums.get(name, (torch.zeros_like(total), 0))
    sums[name] = held + total, before + rows


def _means_of(subject: Subject, sums: _Sums) -> dict[str, Tensor]:
    for name, (total, _) in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise ModelError("A layer's inputs are not finite on the task.", where=f"{subject.name}: {name}")
    # An expert that no row was sent to has none.
    return {name: total / rows for name, (total, rows) in sums.items() if rows}


def _input_scales(subject: Subject, task: BaseTask) -> LayerKnowledge:
    """Of every layer whose rows all read one input."""
    sums: _Sums = {}
    packed: dict[str, Tensor] = {}
    layers = [layer for layer in subject.layers if not layer.tied]
    left_out = {layer.name: moments.TIED for layer in subject.layers if layer.tied}

    def see(product: Product) -> None:
        name, source = product.layer.name, product.source
        if product.parts > 1:
            # Packed queries, keys and values of one input are three products of it.
            shared = product.layer.kind == "attention" and packed.setdefault(name, source.inputs) is source.inputs
            if not shared:
                left_out[name] = _SEVERAL
            if product.part == product.parts - 1:
                packed.pop(name, None)
        if product.part == 0 and source.how != ("table",) and name not in left_out:
            if source.how == ("tokens",):
                counts = torch.bincount(source.inputs.flatten(), minlength=product.layer.fan_in)
                _add(sums, name, counts.double(), int(source.inputs.numel()))
            else:
                rows = source.rows()
                _add(sums, name, rows.double().square().sum(0), len(rows))

    products = Products(subject, layers, see)
    with products, torch.no_grad():
        for batch in task.moments():
            products.begin()
            batch.run(subject.model)
    known = {name: InputScale(mean.sqrt()) for name, mean in _means_of(subject, sums).items() if name not in left_out}
    for layer in layers:
        if layer.name not in known:
            left_out.setdefault(layer.name, layer.unread or moments.NOT_READ)
    return LayerKnowledge(known, task.moment_passes, left_out)


_SEVERAL = "its rows read different inputs"


def _head_moments(subject: Subject, task: BaseTask) -> LayerKnowledge:
    """Of every attention layer of a known class, by the name of its output projection; no pass where there is none."""
    found, _ = attention.find(subject.model, SharedTensors(subject.model))
    # Attention of torch itself multiplies by its output weight inside one function, where nothing can be read.
    known = [one for one in found if not isinstance(subject.model.get_submodule(one.path), nn.MultiheadAttention)]
    if not known:
        return LayerKnowledge({})
    sums: _Sums = {}
    with ExitStack() as stack, torch.no_grad():
        for layer in known:

            def read(module: nn.Module, args: Any, kwargs: dict[str, Any], layer: AttentionLayer = layer) -> None:
                inputs = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
                rows = inputs.reshape(-1, layer.heads, layer.width).transpose(0, 1).double()
                _add(sums, layer.output.path, rows.mT @ rows, rows.shape[1])

            module = subject.model.get_submodule(layer.output.path)
            stack.callback(module.register_forward_pre_hook(read, with_kwargs=True).remove)
        for batch in task.moments():
            batch.run(subject.model)
    moments_of = {name: HeadMoments(mean) for name, mean in _means_of(subject, sums).items()}
    return LayerKnowledge(moments_of, forwards=task.moment_passes)


def _slopes(subject: Subject, task: BaseTask) -> Iterator[tuple[str, Slopes]]:
    names = [layer.weight for layer in subject.layers]
    with preserved_state(subject), torch.enable_grad(), differentiable(subject.model):
        parameters = [subject.parameter(name) for name in names]
        for parameter in subject.model.parameters():
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        loss = task.loss(subject.model)
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    for layer, slope in zip(subject.layers, slopes, strict=True):
        if slope is not None:  # pyright: ignore[reportUnnecessaryComparison] - a layer that the task does not reach
            yield layer.name, Slopes(slope.detach())
