"""Attention of classes that are not known: guessed from the names and sizes of its layers, proven on outputs.

Three layers whose names differ by query, key and value, or one layer with three times as many rows as the output
reads, may be attention. How many heads there are is what some attribute of the module says; its own parameters with
one number for each are theirs, as attention sinks are. Each move is then tried
on all layers of one class together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from torch import nn

from wheeltap.core import seeds
from wheeltap.gauge.attention_kinds import MOVES, Attention, grouped, separate
from wheeltap.gauge.base import Sharing, altered
from wheeltap.gauge.bench import Bench, Exhausted
from wheeltap.gauge.parts import Affine, layer_reason
from wheeltap.gauge.proof import Run

Moved = Callable[[nn.Module, Attention, np.random.Generator], None]
"""Rewrites one layer in place."""

_NAMED: Final = (("queries", "keys", "values"), ("query", "key", "value"), ("q", "k", "v"))
_HEADS: Final = ("h", "nh", "nhead")
_MOST_HEADS: Final = 3
"""How many guesses of the number of heads are tried."""


def prove(
    model: nn.Module, run: Run, *, unknown: Mapping[str, nn.Module], sharing: Sharing, moves: Mapping[str, Moved]
) -> tuple[Attention, ...]:
    """Of modules that may be attention, those of which some move keeps the outputs, with these moves.

    Args:
        model: Any; it is not touched.
        run: Runs a model on a few examples.
        unknown: The modules, by path.
        sharing: Of the model.
        moves: What is tried, by name.
    """
    classes: dict[type[nn.Module], list[list[Attention]]] = {}
    for path, module in unknown.items():
        guesses = list(_guesses(path, module, sharing))
        if guesses:
            classes.setdefault(type(module), []).append(guesses)
    if not classes:
        return ()
    try:
        bench = Bench(model, run)
    except Exception:  # whatever a copy of the model, or running it, raises: then nothing is proven
        return ()
    found: list[Attention] = []
    with suppress(Exhausted):
        for every in classes.values():
            proven = (_proven(bench, layers, moves) for layers in zip(*every, strict=False))
            found += next((layers for layers in proven if layers), ())
    return tuple(found)


def _proven(bench: Bench, layers: Sequence[Attention], moves: Mapping[str, Moved]) -> tuple[Attention, ...]:
    """The layers with the moves that hold on all of them; none where none does."""
    held = {move for move in MOVES if _holds(bench, layers, move, moves[move])}
    # Hidden units that act one by one may change places with any other: those are no heads.
    single = [
        replace(one, heads=one.heads * one.width, groups=one.groups * one.width, width=1, per_head=()) for one in layers
    ]
    if "heads" in held and _holds(bench, single, "heads", moves["heads"]):
        held.remove("heads")
    turned = tuple(replace(layer, rotary=layer.width) for layer in layers)
    if held and "query" not in held and _holds(bench, turned, "query", moves["query"]):
        held, layers = {*held, "query"}, turned
    return tuple(replace(layer, moves=tuple(move for move in MOVES if move in held)) for layer in layers if held)


def _holds(bench: Bench, layers: Sequence[Attention], move: str, moved: Moved) -> bool:
    """Whether a move keeps the outputs, and would not if half of it were left out."""
    half = {"heads": "output", "value": "output", "query": "key"}[move]
    if any(layer.rotary % 2 or (move == "heads" and layer.heads < 2) for layer in layers):
        return False

    def change(model: nn.Module, *, whole: bool) -> None:
        for layer in layers:
            kept: Affine = getattr(layer, half)
            before = kept.read(model)
            moved(model, layer, seeds.generator(0, "attention", layer.path, move))
            if not whole:
                kept.write(model, before)

    return bench.holds(partial(change, whole=True)) and bench.matters(partial(change, whole=False))


def _guesses(path: str, module: nn.Module, sharing: Sharing) -> Iterator[Attention]:
    """The ways in which a module may be attention; none if a part of it is not what it seems."""
    prefix = f"{path}." if path else ""
    layers = _layers(module, sharing)
    for parts in _parts(layers):
        columns = layers[parts[-1]].in_features
        for heads in _heads(module, columns):
            if len(parts) == 4:
                groups = layers[parts[1]].out_features * heads // columns
                read = [separate(prefix, module, parts=parts, heads=heads, groups=groups)]
            else:
                interleaved = grouped(prefix, module, parts=(parts[0], parts[1]), heads=heads, groups=heads)
                read = [_packed(prefix, parts, columns, heads), interleaved]
            own = tuple(name for name, held in module.named_parameters(recurse=False) if held.shape == (heads,))
            yield from (replace(guess, per_head=own) for guess in read if isinstance(guess, Attention))


def _layers(module: nn.Module, sharing: Sharing) -> dict[str, Any]:
    """The plain layers of a module by name, those at the start of a sequence too."""
    if altered(module) or sharing.shared(module):
        return {}
    parts: dict[str, nn.Module] = {}
    for name, part in module.named_children():
        parts |= {f"{name}.0": part[0]} if isinstance(part, nn.Sequential) and len(part) else {name: part}
    return {name: part for name, part in parts.items() if layer_reason(part, sharing, name="Linear") is None}


def _parts(layers: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Names of layers that may be queries, keys, values and outputs; or all three in one, and outputs."""
    for name in layers:
        old = next((query for query, _, _ in _NAMED if query in name.lower()), None)
        if old is None:
            continue
        _, key, value = next(names for names in _NAMED if names[0] == old)
        three = (name, _renamed(name, old, key), _renamed(name, old, value))
        if all(other in layers for other in three):
            rest = [other for other in layers if other not in three]
            yield from ((*three, other) for other in rest if layers[other].in_features == layers[name].out_features)
    for name, fused in layers.items():
        rest = [other for other in layers if other != name]
        yield from ((name, other) for other in rest if fused.out_features == 3 * layers[other].in_features)


def _renamed(name: str, old: str, new: str) -> str:
    """With ``old`` replaced where it comes last, in the same case."""
    at = name.lower().rindex(old)
    found = name[at : at + len(old)]
    return name[:at] + (new.capitalize() if found[0].isupper() else new) + name[at + len(old) :]


def _packed(prefix: str, parts: tuple[str, ...], columns: int, heads: int) -> Attention:
    query, key, value = (Affine(prefix + parts[0], first, first + columns) for first in (0, columns, 2 * columns))
    return Attention(
        prefix.removesuffix("."), heads, heads, columns // heads, 0, MOVES, query, key, value, Affine(prefix + parts[1])
    )


def _heads(module: nn.Module, columns: int) -> list[int]:
    """How many heads some attribute of the module, or of its configuration, may say there are."""
    held = vars(module)
    config: object = held.get("config", module)
    said = {name.lower(): value for name, value in {**vars(config), **held}.items() if isinstance(value, int)}
    counts: list[int] = []
    for name, value in said.items():
        if name in _HEADS or ("head" in name and not any(part in name for part in ("dim", "size", "kv", "key"))):
            counts.append(value)
        elif "head" in name and ("dim" in name or "size" in name):
            counts.append(columns // max(value, 1))
    fit = [heads for heads in dict.fromkeys(counts) if 0 < heads <= columns and columns % heads == 0]
    return fit[:_MOST_HEADS]
