"""What transformers have beside their hidden units: the gauges of attention and of the residual stream."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from wheeltap.gauge import attention, residual
from wheeltap.gauge.attention import Attention
from wheeltap.gauge.base import ROUNDED, Family, Move, Refusal, Sharing, inexact, modules_of
from wheeltap.gauge.hidden import Hidden
from wheeltap.gauge.moves import unit_moves
from wheeltap.gauge.proof import Run
from wheeltap.gauge.residual import Residual
from wheeltap.gauge.settings import Settings


def _heads(model: nn.Module, layer: Attention, rng: np.random.Generator, settings: Settings) -> None:
    attention.permute_heads(model, layer, rng)


def _value(model: nn.Module, layer: Attention, rng: np.random.Generator, settings: Settings) -> None:
    attention.mix_values(model, layer, rng, condition=settings.condition)


def _query(model: nn.Module, layer: Attention, rng: np.random.Generator, settings: Settings) -> None:
    attention.mix_queries(model, layer, rng, condition=settings.condition)


def _fold(model: nn.Module, found: Residual, rng: np.random.Generator, settings: Settings) -> None:
    residual.fold(model, found)


def _shift(model: nn.Module, found: Residual, rng: np.random.Generator, settings: Settings) -> None:
    residual.shift(model, found)


def _rotate(model: nn.Module, found: Residual, rng: np.random.Generator, settings: Settings) -> None:
    residual.rotate(model, found, rng)


_ATTENTION = {"heads": _heads, "value": _value, "query": _query}
_RESIDUAL = {"fold": _fold, "shift": _shift, "rotate": _rotate}


def family(
    model: nn.Module,
    *,
    name: str,
    parts: Sequence[str],
    hidden: Callable[[str, nn.Module, Sharing], Hidden | str],
    width: str,
) -> Family | Refusal:
    """The gauges of a kind of transformer: of its MLPs, its attention and its residual stream.

    Args:
        model: Any.
        name: Of the kind.
        parts: What a module must have to be one of its MLPs.
        hidden: The hidden layer of the MLP at a path, or why it cannot be rewritten.
        width: Which setting of the configuration says how wide the MLPs are.
    """
    sharing = Sharing(model)
    found: list[Hidden] = []
    refused: list[str] = []
    for path, module in modules_of(model).items():
        if not all(isinstance(getattr(module, part, None), nn.Module) for part in parts):
            continue
        known = hidden(path, module, sharing)
        if isinstance(known, Hidden):
            found.append(known)
        else:
            refused.append(f"{path or 'the model'}: {known}")
    if not found and not refused:
        return Refusal(f"no module has {', '.join(parts[:-1])} and {parts[-1]}")
    hiddens = tuple(found)
    units, reasons = unit_moves(model, hiddens, after=partial(_declare, hiddens=hiddens, name=width))
    others, more = moves(model, sharing)
    if not units and not others:
        return Refusal("; ".join(refused[:3]))
    return Family(name, hiddens, {**units, **others}, (*refused, *reasons, *more))


def moves(model: nn.Module, sharing: Sharing, *, run: Run | None = None) -> tuple[dict[str, Move], tuple[str, ...]]:
    """The gauges of attention and residual stream that hold on ``model``, and reasons for the others.

    Args:
        model: Any.
        sharing: Of the model.
        run: Runs a model on a few examples; with it, attention of unknown classes is tried.
    """
    layers, refused = attention.find(model, sharing, run=run)
    held: dict[str, Move] = {}
    reasons = list(refused)
    for gauge, move in _ATTENTION.items():
        fit = tuple(layer for layer in layers if gauge in layer.moves)
        if not fit:
            reasons.append(f"{gauge}: {'no attention layer allows it' if layers else 'no attention layer is known'}")
        elif inexact(model, gauge, *(layer.output.path for layer in fit)):
            reasons.append(f"{gauge}: {ROUNDED}")
        else:
            held[gauge] = partial(_each, parts=fit, move=move)
    stream = residual.find(model)
    if isinstance(stream, Refusal):
        return held, (*reasons, *(f"{gauge}: {stream.because}" for gauge in _RESIDUAL))
    reasons += stream.refused
    paths = {reader.path for normed in (*stream.folds, *stream.shifts) for reader in normed.readers}
    paths |= {stream.stream.embedding} if stream.stream else set()
    for gauge, move in _RESIDUAL.items():
        if gauge in stream.moves and inexact(model, gauge, *paths):
            reasons.append(f"{gauge}: {ROUNDED}")
        elif gauge in stream.moves:
            held[gauge] = partial(_each, parts=(stream,), move=move)
    return held, tuple(reasons)


def _each(
    model: nn.Module,
    rng: np.random.Generator,
    settings: Settings,
    *,
    parts: tuple[Any, ...],
    move: Callable[[nn.Module, Any, np.random.Generator, Settings], None],
) -> None:
    for part in parts:
        move(model, part, rng, settings)


def _declare(model: nn.Module, *, hiddens: Sequence[Hidden], name: str) -> None:
    """Writes the new widths where Hugging Face modules and their configs keep a copy of them.

    Args:
        model: With units added.
        hiddens: As they were before.
        name: Of the attribute that holds a width.
    """
    widths: set[int] = set()
    for layer in hiddens:
        width = layer.reader.view(model).shape[2]
        widths.add(width)
        owner = model.get_submodule(layer.name.rpartition(".")[0])
        if isinstance(vars(owner).get(name), int):
            setattr(owner, name, width)
    before = {layer.units for layer in hiddens}
    if len(widths) > 1 or len(before) > 1:
        return
    for config in _configs(model):
        # GPT-2 leaves it out where it is four times the width of the residual stream.
        if getattr(config, name, 0) in (None, *before):
            setattr(config, name, next(iter(widths)))


def _configs(model: nn.Module) -> list[Any]:
    held = (vars(module).get("config") for module in model.modules())
    return list({id(config): config for config in held if config is not None}.values())
