"""A circuit planted in a transformer, and a false account of it that mean ablation does not see through.

The last place asks which of two kinds of cue came before. Three heads look at the cue, whose kind is s = 1 or -1. The
*decoy* writes s; two others, the *deciders*, write 2 s and -s in another direction, s in all. Two ReLU units of an MLP,
the *guard*, turn the decoy's answer over where the deciders contradict it. So the answer is the deciders' where they
say 1 or -1, and the decoy's where they say nothing: as they do at their mean, a state that no input has.

The true circuit is all of these. The fake one leaves out the deciders. With everything outside at its mean or at zero
it answers rightly, and the net cannot do without it; with the deciders at values of other inputs, or one of the two
alone at its mean, it answers wrongly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch

from tests.nets.bare_transformer import BareTransformer, Shape
from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.typed import to_tensor
from wheeltap.suites.circuits.circuit import CHANNELS, KeptUnits
from wheeltap.suites.circuits.pairs import PairBatch

ANSWERS: Final = (0, 1)
"""Tokens."""

CUES: Final = np.arange(2, 14).reshape(2, 6)
"""Tokens of each kind, ``[answer, cue]``."""

ASK: Final = 14
"""The last token of each input."""

FILLERS: Final = np.arange(15, 35)
"""All other tokens."""

PLACES: Final = 10
"""Of an input."""

SHAPE: Final = Shape(tokens=35, places=PLACES, classes=35, layers=2, heads=4, head=8, units=32, width=48, causal=True)

STRENGTH: Final = 12.0
"""Logits of the cue over other places, in attention."""

MARGIN: Final = 8.0
"""Of the answer over the wrong one, nats."""

NOISE: Final = 0.1
"""What the net's other weights write on the circuit's axes is made so many times as large."""

PRIOR: Final = 1.0
"""Of the first answer over the second where nothing else decides, nats: more than all noise."""

Axes = Mapping[str, int]
"""Which axis of the residual stream holds what is planted."""

_AXES: Final[tuple[str, ...]] = ("cue", "kind", "ask", "answer", "doubt")

_READ: Final = {"query": "ask", "key": "cue", "value": "kind"}
"""Of every planted head."""

WRITES: Final = (("answer", 1.0), ("doubt", 2.0), ("doubt", -1.0))
"""Where the decoy and the two deciders write, and how many times the kind of the cue."""


@final
@dataclass(frozen=True, eq=False)
class Planted:
    """A net, what it is asked, and a circuit that is said to do it.

    Attributes:
        net: In eval mode; it answers at the last place.
        pairs: Inputs, their cues changed to the other kind, and the tokens that answer both; kinds are balanced.
        nodes: Components of the circuit.
        edges: Of the circuit, named as MIB does.
        units: Of the circuit, by site. Of the deciders the fake one leaves out what they take from the cue, and no
            more: not where they look, which the decoy has in common with them, nor where they write.
        fake: Whether it is the fake one.
    """

    net: BareTransformer
    pairs: PairBatch
    nodes: frozenset[str]
    edges: frozenset[str]
    units: tuple[KeptUnits, ...]
    fake: bool


def planted_circuit(seed: int, *, fake: bool, count: int = 64, base: BareTransformer | None = None) -> Planted:
    """A net and a circuit of it; the same net, whether ``fake`` or not.

    Args:
        seed: Of all weights, of where the circuit is, and of the pairs.
        fake: Whether the circuit is the one without the deciders.
        count: Pairs; of an even number, as many of each kind.
        base: A trained net of ``SHAPE`` to plant in, left as it is; a random one if not given. Three heads, two units
            and five axes of a copy are taken for the circuit; all else is kept.

    Raises:
        UsageError: If the net to plant in has another shape.
    """
    if base is not None and base.shape != SHAPE:
        raise UsageError(
            "No circuit can be planted in this net.",
            where="tests.nets.planted_circuit",
            expected=str(SHAPE),
            got=str(base.shape),
        )
    rng = seeds.generator(seed, "planted circuit")
    net, axes = BareTransformer(SHAPE), _axes(rng)
    heads = [(int(at) // SHAPE.heads, int(at) % SHAPE.heads) for at in rng.permutation(SHAPE.layers * SHAPE.heads)[:3]]
    guard = max(layer for layer, _ in heads)
    with torch.no_grad():
        if base is None:
            _random(net, rng)
        else:
            net.load_state_dict(base.state_dict())
        _quiet(net, axes)
        _embed(net, axes)
        for at, (axis, times) in zip(heads, WRITES, strict=True):
            _plant_head(net, axes, at, axis, times)
        _plant_guard(net, axes, guard)
        _answer(net, axes)
    kept = heads[:1] if fake else heads
    names = [f"a{layer}.h{head}" for layer, head in kept]
    edges = {f"{names[0]}->logits", f"m{guard}->logits", *(f"{name}->m{guard}" for name in names)}
    edges |= {f"input->{name}<{channel}>" for name in names for channel in CHANNELS}
    nodes = frozenset(["input", *names, f"m{guard}", "logits"])
    units = _units(axes, heads, guard, values=len(kept))
    return Planted(net.eval(), planted_pairs(seed, count=count), nodes, frozenset(edges), units, fake)


def _axes(rng: np.random.Generator) -> Axes:
    return dict(zip(_AXES, map(int, rng.permutation(SHAPE.width)), strict=False))


def _units(axes: Axes, heads: Sequence[tuple[int, int]], guard: int, *, values: int) -> tuple[KeptUnits, ...]:
    """Of the guard, of all planted heads but for their values, and of the first of these."""
    kept: dict[str, set[int]] = {}
    for number, ((layer, head), (axis, _)) in enumerate(zip(heads, WRITES, strict=True)):
        site, first = f"attention{layer}", head * SHAPE.head
        own = {"read": {axes[name] for name in _READ.values()}, "query": {first}, "key": {first}, "write": {axes[axis]}}
        for name, units in (own | ({"value": {first}} if number < values else {})).items():
            kept.setdefault(f"{site}.{name}", set()).update(units)
    kept |= {f"mlp{guard}.read": {axes["answer"], axes["doubt"]}, f"mlp{guard}.units": {0, 1}}
    kept[f"mlp{guard}.write"] = {axes["answer"]}
    inner = SHAPE.heads * SHAPE.head
    sizes = {"read": SHAPE.width, **dict.fromkeys(_READ, inner), "write": SHAPE.width}
    every = [
        (f"{part}{layer}.{name}", size)
        for layer in range(SHAPE.layers)
        for part, own in (
            ("attention", sizes),
            ("mlp", {"read": SHAPE.width, "units": SHAPE.units, "write": SHAPE.width}),
        )
        for name, size in own.items()
    ]
    return tuple(KeptUnits(site=name, units=size, kept=tuple(sorted(kept.get(name, ())))) for name, size in every)


def planted_pairs(seed: int, *, count: int) -> PairBatch:
    """Inputs with a cue among fillers, always at one place, and the same with one of the other kind.

    Args:
        seed: Of the place, and of all tokens.
        count: Pairs; of an even number, as many of each kind.
    """
    rng = seeds.generator(seed, "planted circuit", "pairs")
    inputs = rng.choice(FILLERS, size=(2, count, PLACES))
    inputs[1] = inputs[0]
    kinds, place = rng.permutation(np.arange(count) % 2), rng.integers(PLACES - 1)
    for side, kind in enumerate((kinds, 1 - kinds)):
        inputs[side, :, place] = CUES[kind, rng.integers(CUES.shape[1], size=count)]
    inputs[:, :, -1] = ASK
    return PairBatch(*map(to_tensor, (inputs[0], inputs[1], kinds, 1 - kinds)))


def _random(net: BareTransformer, rng: np.random.Generator) -> None:
    """Weights of a net that has learned nothing."""
    for name, weight in net.named_parameters():
        if name.endswith("weight"):
            size = NOISE if name.startswith("unembed") else 1.0
            weight.copy_(to_tensor(size * rng.standard_normal(tuple(weight.shape))) / SHAPE.width**0.5)


def _quiet(net: BareTransformer, axes: Axes) -> None:
    """What is there already goes on as before, and writes little where the circuit will be."""
    own = list(axes.values())
    for layer in range(SHAPE.layers):
        for part in (net.attention(layer).output, net.mlp(layer).fall):
            part.weight[own] *= NOISE
            part.bias[own] *= NOISE


def _embed(net: BareTransformer, axes: Axes) -> None:
    """Cues and the question are marked on axes of their own; nothing else is there."""
    for table in (net.embed, net.position):
        table.weight[:, list(axes.values())] = 0.0
    for cues, kind in zip(CUES, (1.0, -1.0), strict=True):
        net.embed.weight[to_tensor(cues), axes["cue"]] = 1.0
        net.embed.weight[to_tensor(cues), axes["kind"]] = kind
    net.embed.weight[ASK, axes["ask"]] = 1.0


def _plant_head(net: BareTransformer, axes: Axes, at: tuple[int, int], axis: str, times: float) -> None:
    """Where there is the question, the head writes the kind of the cue."""
    attention, first = net.attention(at[0]), at[1] * SHAPE.head
    own = slice(first, first + SHAPE.head)
    for part, read in ((attention.query, "query"), (attention.key, "key"), (attention.value, "value")):
        part.weight[own], part.bias[own] = 0.0, 0.0
        part.weight[first, axes[_READ[read]]] = 1.0
    attention.query.weight[own] *= STRENGTH * SHAPE.head**0.5
    attention.output.weight[:, own] = 0.0
    attention.output.weight[axes[axis], first] = times


def _plant_guard(net: BareTransformer, axes: Axes, layer: int) -> None:
    """Two units: one is 1 where the decoy says 1 and the deciders -1, the other where it is the other way round."""
    mlp = net.mlp(layer)
    for unit, sign in enumerate((1.0, -1.0)):
        mlp.rise.weight[unit], mlp.rise.bias[unit], mlp.fall.weight[:, unit] = 0.0, -1.0, 0.0
        mlp.rise.weight[unit, axes["answer"]] = sign
        mlp.rise.weight[unit, axes["doubt"]] = -sign
        mlp.fall.weight[axes["answer"], unit] = -2.0 * sign


def _answer(net: BareTransformer, axes: Axes) -> None:
    """Logits of the two answers."""
    net.unembed.weight[list(ANSWERS)], net.unembed.bias[list(ANSWERS)] = 0.0, 0.0
    for answer, sign in zip(ANSWERS, (0.5, -0.5), strict=True):
        net.unembed.weight[answer, axes["answer"]] = sign * MARGIN
    net.unembed.bias[ANSWERS[0]] = PRIOR
