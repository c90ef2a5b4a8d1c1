"""State space layers: the states of transformers' Mamba, and the heads, channels and states of its Mamba-2.

What one channel of Mamba does, from its convolution to its gate, concerns no other: its channels are hidden units that
probing finds. Its states are made and read by linear maps alone, so that a factor may stand between the two. In Mamba-2
heads share a time step, groups of heads share their states, and a norm takes all channels of a group.

Source: Gu & Dao 2023, "Mamba", section 3.4 and algorithm 2; Dao & Gu 2024, "Transformers are SSMs", section 7.1.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import numpy as np
from torch import nn

from wheeltap.gauge.base import Gauges, GaugeSettings, Move, SharedTensors, altered, in_turn, modules_of
from wheeltap.gauge.hidden import HiddenLayer, Slices, reading, sliced
from wheeltap.gauge.moves import moves_in_turn, permute
from wheeltap.gauge.parts import layer_reason, of_transformers

_LAYERS: Final = {
    "MambaMixer": {"conv1d": "Conv1d", **dict.fromkeys(("in_proj", "x_proj", "dt_proj", "out_proj"), "Linear")},
    "Mamba2Mixer": {"conv1d": "Conv1d", **dict.fromkeys(("in_proj", "out_proj"), "Linear")},
}
_OWN: Final = {"MambaMixer": {"A_log", "D"}, "Mamba2Mixer": {"A_log", "D", "dt_bias"}}
_NORM: Final = "cancel, dead: the norm takes all channels of a group, so none can be added"
_NORM_CLASSES: Final = ("MambaRMSNormGated", "Mamba2RMSNormGated")
"""The norm of a Mamba-2 layer: transformers renamed it in 5.25."""


@final
@dataclass(frozen=True)
class Heads:
    """A Mamba-2 layer: its groups of heads, and what has slices for channels, for heads and for states."""

    groups: int
    heads: int
    width: int
    states: int
    layers: tuple[HiddenLayer, HiddenLayer, HiddenLayer]


def permute_heads(model: nn.Module, layer: Heads, rng: np.random.Generator) -> None:
    """Let groups change places, heads within their group, channels within their head and states within their group."""
    share = layer.heads // layer.groups
    groups = rng.permutation(layer.groups)
    heads = np.concatenate([group * share + rng.permutation(share) for group in groups])
    channels = np.concatenate([head * layer.width + rng.permutation(layer.width) for head in heads])
    states = np.concatenate([group * layer.states + rng.permutation(layer.states) for group in groups])
    for units, order in zip(layer.layers, (channels, heads, states), strict=True):
        units.gather(model, [order])


def find(model: nn.Module, sharing: SharedTensors) -> Gauges:
    """The gauges of the state space layers of ``model``, and reasons for the others."""
    states: list[HiddenLayer] = []
    heads: list[Heads] = []
    gains: list[HiddenLayer] = []
    refused: list[str] = []
    for path, module in modules_of(model).items():
        name = of_transformers(module)
        if name not in _LAYERS:
            continue
        problem = _reason(module, name, sharing)
        if problem is not None:
            refused.append(f"{path or 'the model'}: {problem}")
        elif name == "MambaMixer":
            states.append(_states(path, module))
        else:
            layer, own = _mamba2(path, module)
            heads.append(layer)
            gains.append(own)
            refused.append(f"{path or 'the model'}: {_NORM}")
    if not states and not heads:
        return {}, tuple(refused)
    moves: dict[str, Move] = {
        "permute": partial(in_turn, parts=(*states, *heads), rewrite=_permute),
        "rescale": moves_in_turn((*states, *gains))["rescale"],
    }
    return moves, tuple(refused)


def _permute(model: nn.Module, layer: HiddenLayer | Heads, rng: np.random.Generator, settings: GaugeSettings) -> None:
    if isinstance(layer, HiddenLayer):
        permute(model, (layer,), rng, settings)
    else:
        permute_heads(model, layer, rng)


def _reason(module: nn.Module, name: str, sharing: SharedTensors) -> str | None:
    """Why a layer is not what its class says, or ``None``."""
    layers = _LAYERS[name]
    known = {*layers, "act", *(["norm"] if name == "Mamba2Mixer" else [])}
    strange = sorted({key for key, _ in module.named_parameters(recurse=False)} ^ _OWN[name])
    strange += sorted({key for key, _ in module.named_children()} ^ known)
    if strange:
        return f"{', '.join(strange)} is not known there, or is missing"
    for part, kind in layers.items():
        problem = layer_reason(module.get_submodule(part), sharing, name=kind)
        if problem is not None:
            return f"{part}: {problem}"
    if name == "Mamba2Mixer" and of_transformers(module.get_submodule("norm")) not in _NORM_CLASSES:
        return f"norm: it is a {type(module.get_submodule('norm')).__name__}, not one of {', '.join(_NORM_CLASSES)}"
    parts = [module, *(module.get_submodule(part) for part in known)]
    if any(sharing.shared(part) for part in parts):
        return "it shares its weights with another module"
    return next((problem for problem in map(altered, parts) if problem is not None), None)


def _states(path: str, mixer: Any) -> HiddenLayer:
    """What makes the states of a Mamba layer, what reads them, and how fast they fade."""
    states, first = mixer.ssm_state_size, mixer.time_step_rank
    prefix = f"{path}." if path else ""
    stages = (
        sliced(mixer.x_proj, f"{prefix}x_proj.weight", ((first, 0),), states),
        sliced(mixer, f"{prefix}A_log", ((0, 0),), states, axis=1, scaled=False),
        reading(mixer.x_proj, f"{prefix}x_proj.weight", ((first + states, 0),), states, axis=0),
    )
    return HiddenLayer(path, states, stages)


def _mamba2(path: str, mixer: Any) -> tuple[Heads, HiddenLayer]:
    """A layer's heads; and what the norm multiplies each channel by, with what reads it, as units."""
    prefix = f"{path}." if path else ""
    width, count, held = mixer.intermediate_size, mixer.num_heads, mixer.n_groups * mixer.ssm_state_size

    def rows(part: str, starts: tuple[int, ...], units: int) -> list[Slices]:
        """The rows of a layer's weight and bias that begin there."""
        layer, blocks = mixer.get_submodule(part), [(start, 0) for start in starts]
        names = [name for name in ("weight", "bias") if getattr(layer, name, None) is not None]
        return [sliced(layer, f"{prefix}{part}.{name}", blocks, units) for name in names]

    read = reading(mixer.out_proj, f"{prefix}out_proj.weight", ((0, 0),), width)
    gain = rows("norm", (0,), width)
    channels = (*rows("in_proj", (0, width), width), *rows("conv1d", (0,), width), *gain, read)
    per_head = [sliced(mixer, prefix + name, ((0, 0),), count) for name in sorted(_OWN["Mamba2Mixer"])]
    heads = (*rows("in_proj", (2 * width + 2 * held,), count), *per_head)
    mixed = (*rows("in_proj", (2 * width, 2 * width + held), held), *rows("conv1d", (width, width + held), held))
    layers = HiddenLayer(path, width, channels), HiddenLayer(path, count, heads), HiddenLayer(path, held, mixed)
    layer = Heads(mixer.n_groups, count, mixer.head_dim, mixer.ssm_state_size, layers)
    return layer, HiddenLayer(path, width, (*gain, read))
