"""Mixtures of experts: the experts of a layer change places, with the rows of the router that choose them.

Classes of transformers are known by name. Elsewhere a list of modules of one form beside weights with one row for
each may be a mixture; structure cannot tell, so the outputs must.

Source: Shazeer et al. 2017, "Outrageously large neural networks", section 2 (the layer); DeepSeek-AI 2024,
"DeepSeek-V2", section 2.2.2 (experts in groups).
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.typed import to_array
from wheeltap.gauge.base import Gauges, GaugeSettings, SharedTensors, altered, in_turn, modules_of
from wheeltap.gauge.bench import Run, TwinBench
from wheeltap.gauge.hidden import Slices, reorder
from wheeltap.gauge.parts import of_transformers

GAUGE: Final = "experts"

_ROUTERS: Final[Mapping[str, str]] = {
    "MixtralSparseMoeBlock": "gate", "Qwen2MoeSparseMoeBlock": "gate", "Qwen3MoeSparseMoeBlock": "gate",
    "GptOssMLP": "router", "DeepseekV2Moe": "gate", "DeepseekV3MoE": "gate",
}  # fmt: skip
"""By the class of a mixture, the name of its router."""
_BESIDE: Final = ("shared_expert", "shared_experts", "shared_expert_gate")
_SINGLE: Final = ("DeepseekV2TopkRouter", "DeepseekV3TopkRouter")
"""Routers that score in single precision, whatever their weights are stored in."""

_TIES: Final = "two experts may score alike in 16-bit weights, and which is chosen then depends on their order"
_MOST: Final = 4
"""How many weights beside a list of modules are tried as its router."""


@final
@dataclass(frozen=True)
class Mixture:
    """The experts of one layer.

    Attributes:
        path: Module path of the list of experts, or of the module that holds them all.
        count: Experts.
        tensors: What has one slice per expert, the router's included.
        listed: Whether the experts are modules in a list.
        groups: Experts are chosen by groups of neighbors, so many; only within these, and whole ones, may they move.
    """

    path: str
    count: int
    tensors: tuple[Slices, ...]
    listed: bool = False
    groups: int = 1


def permute(model: nn.Module, mixture: Mixture, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Let groups of experts change places, and experts within their group; in place."""
    share = mixture.count // mixture.groups
    within = np.stack([rng.permutation(share) for _ in range(mixture.groups)])
    order = (rng.permutation(mixture.groups)[:, None] * share + within).flatten()
    _reorder(model, mixture, order)


def _reorder(model: nn.Module, mixture: Mixture, order: NDArray[np.int64]) -> None:
    reorder(model, mixture.tensors, [order])
    if mixture.listed:
        listed = model.get_submodule(mixture.path)
        assert isinstance(listed, nn.ModuleList), "only a list of modules is marked so"
        modules = list(listed)
        for at in range(len(modules)):
            listed[at] = modules[int(order[at])]


def find(model: nn.Module, sharing: SharedTensors, *, run: Run | None = None) -> Gauges:
    """The gauge ``experts``, where it holds, and why it does not for other mixtures.

    Args:
        model: Any.
        sharing: Of the model.
        run: Runs a model on a few examples; ``None`` leaves mixtures out that only their outputs can prove.
    """
    found, refused = mixtures(model, sharing, run=run)
    reasons = tuple(f"{path or 'the model'}: {GAUGE}: {reason}" for path, reason in refused.items())
    move = partial(in_turn, parts=found, rewrite=permute)
    return ({GAUGE: move} if found else {}), reasons


def mixtures(
    model: nn.Module, sharing: SharedTensors, *, run: Run | None = None
) -> tuple[tuple[Mixture, ...], dict[str, str]]:
    """Every mixture whose experts may change places, and by path why others may not; see ``find``."""
    found: list[Mixture] = []
    refused: dict[str, str] = {}
    guessed: dict[str, list[Mixture]] = {}
    for path, module in modules_of(model).items():
        prefix = f"{path}." if path else ""
        if of_transformers(module) not in _ROUTERS:
            guessed |= {guess[0].path: guess for guess in _guesses(prefix, module)}
            continue
        read = _known(prefix, module)
        problem = read if isinstance(read, str) else _reason(model, path, read, sharing)
        if isinstance(read, Mixture) and problem is None:
            found.append(read)
        else:
            refused[path] = problem or ""
    if run is not None and guessed:
        # Whatever the model's own code raises, and more trials than allowed, leave the rest unproven.
        with suppress(Exception):
            bench = TwinBench(model, run)
            for path, guess in guessed.items():
                proven = next((mixture for mixture in guess if _proven(bench, mixture)), None)
                problem = None if proven is None else _reason(model, path, proven, sharing)
                if problem is not None:
                    refused[path] = problem
                elif proven is not None:
                    found.append(proven)
    return tuple(found), refused


def _known(prefix: str, module: Any) -> Mixture | str:
    """The experts of a class of transformers, or what does not fit."""
    name = _ROUTERS[type(module).__name__]
    parts: dict[str, nn.Module] = dict(module.named_children())
    strange = sorted(set(parts) - {"experts", name, *_BESIDE}) + [key for key, _ in _own(module)]
    if strange:
        return f"it holds {', '.join(strange)}, which is not known"
    for part, ending in (("experts", "Experts"), (name, "Router")):
        if part not in parts or not of_transformers(parts[part]).endswith(ending):
            return f"{part} is not known"
    router: Any = parts[name]
    keys = ((part, key) for part in ("experts", name) for key, _ in _own(parts[part]))
    tensors = [_slices(f"{prefix}{part}", key, 0) for part, key in keys]
    count = len(router.weight)
    groups = getattr(router, "num_group", 1) if getattr(router, "topk_method", "") != "greedy" else 1
    mixture = Mixture(f"{prefix}experts", count, tuple(tensors), groups=groups)
    odd = [key for part in ("experts", name) for key, tensor in _own(parts[part]) if len(tensor) != count]
    odd += [key for key, _ in parts["experts"].named_parameters() if "." in key]
    return f"{', '.join(odd)} has no slice for each of {count} experts" if odd or count % groups else mixture


def _slices(path: str, name: str, axis: int) -> Slices:
    """One slice of a tensor for each expert."""
    return Slices(names=(f"{path}.{name}".removeprefix("."),), axis=axis)


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers that a module itself holds."""
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _reason(model: nn.Module, path: str, mixture: Mixture, sharing: SharedTensors) -> str | None:
    """Why the experts of a mixture may not change places, or ``None`` if they may."""
    inside = modules_of(model.get_submodule(mixture.path)).values()
    parts = [model.get_submodule(path), *inside, *(model.get_submodule(held.path) for held in mixture.tensors)]
    for part in parts:
        problem = "it shares its weights with another module" if sharing.shared(part) else altered(part)
        if problem is not None:
            return f"{type(part).__name__}: {problem}"
    router = [held for held in mixture.tensors if held.path != mixture.path]
    if all(type(model.get_submodule(held.path)).__name__ not in _SINGLE for held in router):
        held = [tensor for _, tensor in chain.from_iterable(_own(model.get_submodule(held.path)) for held in router)]
        if any(tensor.is_floating_point() and tensor.dtype.itemsize < 4 for tensor in held):
            return _TIES
    rows = [held.read(model).reshape(mixture.count, -1) for held in router]
    chosen_by = torch.cat([tensor.double().cpu() for tensor in rows], dim=1)
    distinct = np.unique(to_array(chosen_by), axis=0)
    return "two experts are chosen by the same weights" if len(distinct) < mixture.count else None


def _guesses(prefix: str, module: nn.Module) -> Iterator[list[Mixture]]:
    """For each child of ``module`` that may be the experts of a mixture: the ways in which it may be one."""
    for name, child in module.named_children():
        experts = _alike(f"{prefix}{name}", child)
        if experts is None:
            continue
        routers: dict[str, tuple[Slices, ...]] = {}
        for below, part in modules_of(module).items():
            path = f"{prefix}{below}".removesuffix(".")
            axes = {
                key: [axis for axis, size in enumerate(held.shape) if size == experts.count] for key, held in _own(part)
            }
            fit = tuple(_slices(path, key, axis[0]) for key, axis in axes.items() if len(axis) == 1)
            if fit and not f"{below}.".startswith(f"{name}."):
                routers[path] = fit
        choices = list(routers.values())[:_MOST]
        if choices:
            together = [tuple(chain.from_iterable(choices)), *choices] if len(choices) > 1 else choices
            yield [replace(experts, tensors=(*experts.tensors, *router)) for router in together]


def _alike(path: str, module: nn.Module) -> Mixture | None:
    """What may be experts, without a router: a list of modules of one form, or weights stacked in one module."""
    if isinstance(module, nn.ModuleList):
        # What they would be saved as: quantized ones keep objects of their own there too.
        forms = {
            (type(each), *((key, held.shape) for key, held in each.state_dict().items() if isinstance(held, Tensor)))
            for each in module
        }
        alike = len(module) > 1 and len(forms) == 1 and len(next(iter(forms))) > 1
        return Mixture(path, len(module), (), listed=True) if alike else None
    if type(module).__module__.startswith("torch."):
        return None
    own = dict(module.named_parameters(recurse=False))
    sizes = {len(held) if held.ndim > 1 else 0 for held in own.values()}
    stacked = len(sizes) == 1 and max(sizes) > 1 and any(held.ndim > 2 for held in own.values())
    return Mixture(path, max(sizes), tuple(_slices(path, key, 0) for key in own)) if stacked else None


def _proven(bench: TwinBench, mixture: Mixture) -> bool:
    """Whether experts that move with their router give the same outputs, and experts alone give others."""
    alone = replace(mixture, tensors=tuple(held for held in mixture.tensors if held.path == mixture.path))
    orders = np.roll(np.arange(mixture.count), 1), np.arange(mixture.count)[::-1].copy()
    return all(
        bench.holds(partial(_reorder, mixture=mixture, order=order))
        and bench.matters(partial(_reorder, mixture=alone, order=order))
        for order in orders
    )
