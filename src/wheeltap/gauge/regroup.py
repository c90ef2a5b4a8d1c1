"""Other cuts of the same maps into modules: what conversions between checkpoints do.

A batch norm is folded into the convolution or linear layer that it alone reads, a weight norm into its weight; a linear
layer becomes two that write a part of its outputs each, or two in a row whose product it is. Products are computed in
double precision and rounded once. Layers get other names: a copy cut anew has layers of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wheeltap.core.typed import to_tensor
from wheeltap.gauge import general, relu_chain
from wheeltap.gauge.base import Family, GaugeSettings, SharedTensors, altered, modules_of
from wheeltap.gauge.bench import Run, TwinBench
from wheeltap.gauge.hidden import put, weight_of

NAME: Final = "regroup"

_SPREAD: Final = 1e3
"""Largest ratio of the singular values of a layer that is cut in two in a row: beyond, rounding would show."""


_LARGEST: Final = 100_000
"""Weights of the largest layer that is cut in two in a row: beyond, finding the two takes long."""

_TRIED: Final = 1_000_000
"""Parameters of the largest model that is tried."""


@final
class Split(nn.Module):
    """A linear layer in two modules, each of which writes a part of the outputs.

    Args:
        whole: The layer.
        first: How many outputs the first one writes.
    """

    def __init__(self, whole: nn.Linear, first: int) -> None:
        super().__init__()
        bias = cast("Tensor | None", whole.bias)
        self.one, self.two = (
            _linear(whole.weight[rows], None if bias is None else bias[rows])
            for rows in (slice(0, first), slice(first, None))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """As the whole layer."""
        return torch.cat([self.one(inputs), self.two(inputs)], -1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, device="meta").to_empty(device=weight.device)
    made = made.to(weight.dtype)
    put(made, "weight", weight)
    if bias is not None:
        put(made, "bias", bias)
    return made.eval()


def completed(model: nn.Module, family: Family, run: Run | None) -> Family:
    """The family with this gauge, where it holds; a model known by probing alone is tried.

    Args:
        model: Any; it is not touched.
        family: What was found in it.
        run: Runs a model on a few examples.
    """
    modules, sharing = modules_of(model), SharedTensors(model)
    chain = family if family.name != general.NAME else relu_chain.recognise(model)
    called, folded = (chain.called, dict(chain.normed)) if isinstance(chain, Family) else ((), {})
    linear = tuple(
        path
        for path, module in modules.items()
        if path and type(module) is nn.Linear and altered(module) is None and not sharing.shared(module)
        if weight_of(module).dtype.itemsize >= 4
    )
    normed = tuple(path for path, module in modules.items() if _weight_norms(module))
    move = partial(_regroup, linear=linear, folded=folded, normed=normed)
    reason = "" if linear or normed or folded else "no linear layer of its own in 32 bits, and no norm to fold"
    if not reason and not set(linear) <= set(called):
        # The model's code may use a layer's weight by itself.
        if run is None or sum(parameter.numel() for parameter in model.parameters()) > _TRIED:
            reason = "what else the model's code does with its layers is not known"
        else:
            try:
                holds = TwinBench(model, run).holds(lambda copy: move(copy, np.random.default_rng(0), GaugeSettings()))
                reason = "" if holds else "what the model computes changes with it"
            except Exception as error:  # whatever the model's own code raises
                reason = f"it cannot be tried ({type(error).__name__})"
    if reason:
        return replace(family, refused=(*family.refused, f"{NAME}: {reason}"))
    return replace(family, moves={**family.moves, NAME: move})


def _regroup(
    model: nn.Module,
    rng: np.random.Generator,
    settings: GaugeSettings,
    *,
    linear: tuple[str, ...],
    folded: Mapping[str, str],
    normed: tuple[str, ...],
) -> None:
    for path in normed:
        module = model.get_submodule(path)
        for attribute in _weight_norms(module):
            _unnormed(module, attribute)
    for layer, norm in folded.items():
        _fold(model, layer, norm)
    cuts: tuple[Callable[[nn.Linear, np.random.Generator], nn.Module], ...] = (_split, _factored)
    for at, path in enumerate(linear):
        if path in folded or path in normed:
            continue
        cut = cuts[at % len(cuts)](cast(nn.Linear, model.get_submodule(path)), rng)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, cut)


def _split(whole: nn.Linear, rng: np.random.Generator) -> nn.Module:
    return Split(whole, int(rng.integers(1, whole.out_features))).eval() if whole.out_features > 1 else whole


def _factored(whole: nn.Linear, rng: np.random.Generator) -> nn.Module:
    """Two layers in a row, with a random invertible matrix between them; the layer itself where it would be inexact."""
    if whole.weight.numel() > _LARGEST:
        return _split(whole, rng)
    exact = whole.weight.detach().double().cpu().numpy()
    left, sizes, right = np.linalg.svd(exact, full_matrices=False)
    if not sizes[0] > 0 or sizes[-1] * _SPREAD < sizes[0]:
        return whole
    between, _ = np.linalg.qr(rng.standard_normal((len(sizes), len(sizes))))
    inner, outer = between @ (sizes[:, None] ** 0.5 * right), (left * sizes**0.5) @ between.T
    like = whole.weight.detach()
    bias = cast("Tensor | None", whole.bias)
    return nn.Sequential(_linear(to_tensor(inner, like=like), None), _linear(to_tensor(outer, like=like), bias)).eval()


def _weight_norms(module: nn.Module) -> list[str]:
    """Attributes of a module that a weight norm computes, in either style."""
    hooked = [name[:-2] for name, _ in module.named_parameters(recurse=False) if name.endswith("_g")]
    found = [name for name in hooked if f"{name}_v" in dict(module.named_parameters(recurse=False))]
    if parametrize.is_parametrized(module):
        held = cast("Mapping[str, nn.Module]", dict(cast("nn.ModuleDict", module.parametrizations).items()))
        found += [
            name for name, made in held.items() if [type(one).__name__ for one in made.children()] == ["_WeightNorm"]
        ]
    return found


def _unnormed(module: nn.Module, attribute: str) -> None:
    """Makes the computed weight a parameter."""
    if not parametrize.is_parametrized(module, attribute):
        torch.nn.utils.remove_weight_norm(module, attribute)
        return
    # Torch's own removal takes the attribute from a class that the copy shares with the model it was copied from.
    value, old = cast(Tensor, getattr(module, attribute)).detach().clone(), next(module.parameters())
    made = cast("nn.ModuleDict", module.parametrizations)
    if len(made) > 1:
        return
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    module.register_parameter(attribute, nn.Parameter(value, requires_grad=old.requires_grad))


def _fold(model: nn.Module, path: str, norm: str) -> None:
    """A batch norm in eval mode becomes part of the layer before it; what is left of it hands its input on."""
    layer, module = cast(Any, model.get_submodule(path)), cast(Any, model.get_submodule(norm))
    scale = (module.running_var.double() + module.eps).rsqrt()
    offset = -module.running_mean.double() * scale
    if module.affine:
        scale, offset = scale * module.weight.detach().double(), offset * module.weight.detach().double()
        offset = offset + module.bias.detach().double()
    weight = layer.weight.detach()
    wide = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = offset if layer.bias is None else offset + layer.bias.detach().double() * scale
    put(layer, "weight", wide)
    layer.bias = nn.Parameter(bias.to(weight), requires_grad=layer.weight.requires_grad)
    parent, _, name = norm.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity().eval())
