"""Reading from a clean subject what disturbances need to know of it beyond its weights."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wheeltap.engine import moments
from wheeltap.engine.apply import as_before
from wheeltap.engine.knowledge import Fixed, Knowledge
from wheeltap.errors import ModelError, UsageError
from wheeltap.layer import Layer
from wheeltap.perturb.base import InputScale, Known, Need, Slopes, Weights
from wheeltap.probe import BaseProbe
from wheeltap.subject import Subject


def gather(need: Need, subject: Subject, probe: BaseProbe, *, limit: int = moments.MOMENT_BYTES) -> Knowledge:
    """What ``need`` names, read from the clean subject on the probe, in ``limit`` bytes of sums at a time.

    Raises:
        ModelError: If it cannot be read from this subject or probe.
    """
    if need == "moments":
        return Fixed(moments.estimate(subject, probe, limit=limit), forwards=1.0)
    if need == "inputs":
        return Fixed(dict(_input_scales(subject, probe)), forwards=1.0)
    if need == "slopes":
        return Fixed(dict(_slopes(subject, probe)), forwards=3.0)
    raise UsageError("Nothing gathers this.", expected="moments, inputs or slopes", got=need)


def of_another(subject: Subject, other: Subject) -> Fixed:
    """The weights of ``other``, layer by layer as ``subject`` has them.

    Raises:
        ModelError: If a layer's weights are missing there or have another shape; the first one is named.
    """
    theirs = dict(other.model.named_parameters())
    known: dict[str, Known] = {}
    for layer in subject.layers:
        weights: list[Tensor | None] = []
        for name in (layer.weight, layer.bias):
            if name is None:
                weights.append(None)
                continue
            mine, held = subject.parameter(name), theirs.get(name)
            if held is None or held.shape != mine.shape:
                raise ModelError(
                    "The two checkpoints do not fit each other.",
                    where=f"{subject.name} and {other.name}: {name}",
                    expected=str(list(mine.shape)),
                    got="no such tensor" if held is None else str(list(held.shape)),
                    do="Merge checkpoints of one architecture.",
                )
            weights.append(held.detach().to(device=mine.device, dtype=mine.dtype))
        weight, bias = weights
        assert weight is not None
        known[layer.name] = Weights(weight, bias)
    return Fixed(known)


@dataclass
class _Power:
    """Sum of squares of a layer's inputs, and the rows it was taken over."""

    squares: Tensor
    rows: int = 0


def _input_scales(subject: Subject, probe: BaseProbe) -> Iterator[tuple[str, InputScale]]:
    powers: dict[str, _Power] = {}
    with ExitStack() as stack, torch.no_grad():
        for layer in moments.supported(subject):
            module = subject.model.get_submodule(layer.name)

            def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], layer: Layer = layer) -> None:
                inputs = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
                squares, rows = _squares(layer, module, inputs)
                power = powers.setdefault(layer.name, _Power(torch.zeros_like(squares)))
                power.squares += squares
                power.rows += rows

            stack.callback(module.register_forward_pre_hook(read, with_kwargs=True).remove)
        for batch in probe.moments():
            subject.model(batch.inputs.to(subject.device))
    for name, power in powers.items():
        if not bool(torch.isfinite(power.squares).all()):
            raise ModelError("A layer's inputs are not finite on the probe.", where=f"{subject.name}: {name}")
        yield name, InputScale((power.squares / power.rows).sqrt())


def _squares(layer: Layer, module: nn.Module, inputs: Tensor) -> tuple[Tensor, int]:
    """Sum of squares of each of a layer's inputs over rows, and their number."""
    if layer.kind == "embedding":
        counts = torch.bincount(inputs.flatten(), minlength=layer.fan_in)
        return counts.double(), int(inputs.numel())
    rows = moments.patches(module, inputs) if layer.kind == "conv" else inputs.reshape(-1, inputs.shape[-1])
    return rows.double().square().sum(0), len(rows)


def _slopes(subject: Subject, probe: BaseProbe) -> Iterator[tuple[str, Slopes]]:
    names = [layer.weight for layer in subject.layers]
    with as_before(subject), torch.enable_grad():
        parameters = [subject.parameter(name) for name in names]
        for parameter in subject.model.parameters():
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        loss = probe.loss(subject.model)
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    for layer, slope in zip(subject.layers, slopes, strict=True):
        if slope is not None:  # pyright: ignore[reportUnnecessaryComparison] - a layer that the probe does not reach
            yield layer.name, Slopes(slope.detach())
