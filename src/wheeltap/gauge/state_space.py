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

from wheeltap.gauge import feedback
from wheeltap.gauge.base import Gauges, GaugeSettings, Move, SharedTensors, altered, in_turn, modules_of
from wheeltap.gauge.feedback import Units, UnitSlice, reorder
from wheeltap.gauge.parts import layer_reason, of_transformers

_LAYERS: Final = {
    "MambaMixer": {"conv1d": "Conv1d", **dict.fromkeys(("in_proj", "x_proj", "dt_proj", "out_proj"), "Linear")},
    "Mamba2Mixer": {"conv1d": "Conv1d", **dict.fromkeys(("in_proj", "out_proj"), "Linear")},
}
_OWN: Final = {"MambaMixer": {"A_log", "D"}, "Mamba2Mixer": {"A_log", "D", "dt_bias"}}
_NORM: Final = "cancel, dead: the norm takes all channels of a group, so none can be added"


@final
@dataclass(frozen=True)
class Heads:
    """A Mamba-2 layer: its groups of heads, and every tensor with slices for channels (0), heads (1) or states (2)."""

    groups: int
    heads: int
    width: int
    states: int
    tensors: tuple[UnitSlice, ...]


def permute_heads(model: nn.Module, layer: Heads, rng: np.random.Generator) -> None:
    """Let groups change places, heads within their group, channels within their head and states within their group."""
    share = layer.heads // layer.groups
    groups = rng.permutation(layer.groups)
    heads = np.concatenate([group * share + rng.permutation(share) for group in groups])
    channels = np.concatenate([head * layer.width + rng.permutation(layer.width) for head in heads])
    states = np.concatenate([group * layer.states + rng.permutation(layer.states) for group in groups])
    reorder(model, layer.tensors, [channels, heads, states])


def find(model: nn.Module, sharing: SharedTensors) -> Gauges:
    """The gauges of the state space layers of ``model``, and reasons for the others."""
    states: list[Units] = []
    heads: list[Heads] = []
    gains: list[Units] = []
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
        "rescale": partial(feedback.each, gauge="rescale", units=(*states, *gains)),
    }
    return moves, tuple(refused)


def _permute(model: nn.Module, layer: Units | Heads, rng: np.random.Generator, settings: GaugeSettings) -> None:
    if isinstance(layer, Units):
        feedback.permute(model, layer, rng, settings)
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
    if name == "Mamba2Mixer" and of_transformers(module.get_submodule("norm")) != "MambaRMSNormGated":
        return f"norm: it is a {type(module.get_submodule('norm')).__name__}, not a MambaRMSNormGated"
    parts = [module, *(module.get_submodule(part) for part in known)]
    if any(sharing.shared(part) for part in parts):
        return "it shares its weights with another module"
    return next((problem for problem in map(altered, parts) if problem is not None), None)


def _states(path: str, mixer: Any) -> Units:
    """What makes the states of a Mamba layer, what reads them, and how fast they fade."""
    states, first = mixer.ssm_state_size, mixer.time_step_rank
    projection = f"{path}.x_proj" if path else "x_proj"
    tensors = (
        UnitSlice(projection, "weight", 0, ((first, 0),)),
        UnitSlice(projection, "weight", 0, ((first + states, 0),), reads=True),
        UnitSlice(path, "A_log", 1, scales=False),
    )
    return Units(path, states, 1, tensors)


def _affine(path: str, layer: Any, blocks: tuple[tuple[int, int], ...]) -> list[UnitSlice]:
    """The rows of a layer's weight and bias."""
    return [UnitSlice(path, name, 0, blocks) for name in ("weight", "bias") if getattr(layer, name) is not None]


def _mamba2(path: str, mixer: Any) -> tuple[Heads, Units]:
    """A layer's heads; and what the norm multiplies each channel by, with what reads it, as units."""
    prefix = f"{path}." if path else ""
    width, held = mixer.intermediate_size, mixer.n_groups * mixer.ssm_state_size
    mixed = ((0, 0), (width, 2), (width + held, 2))
    entering = ((0, 0), *((width + start, group) for start, group in mixed), (2 * width + 2 * held, 1))
    ends = (
        UnitSlice(f"{prefix}norm", "weight", 0),
        UnitSlice(f"{prefix}out_proj", "weight", 1, reads=True),
    )
    tensors = (
        *_affine(f"{prefix}in_proj", mixer.in_proj, entering),
        *_affine(f"{prefix}conv1d", mixer.conv1d, mixed),
        *(UnitSlice(path, name, 0, ((0, 1),)) for name in sorted(_OWN["Mamba2Mixer"])),
        *ends,
    )
    heads = Heads(mixer.n_groups, mixer.num_heads, mixer.head_dim, mixer.ssm_state_size, tensors)
    return heads, Units(path, width, 1, ends)
