"""The gauges of hidden units: each rewrites hidden layers in place and keeps the function.

All are made of three steps: replace the units by copies of some of them, rescale or silence units, and set what the
added ones write.

Source: Dinh et al. 2017, "Sharp minima can generalize for deep nets" (rescaling); Hecht-Nielsen 1990 (permutation);
Chen et al. 2016, "Net2Net", section 2.2 (splitting).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.typed import to_tensor
from wheeltap.gauge.base import BITWISE, ROUNDED, Gauges, GaugeSettings, Move, count
from wheeltap.gauge.hidden import HiddenLayer, Inputs, times

Generator = np.random.Generator


def permute(model: nn.Module, hiddens: Sequence[HiddenLayer], rng: Generator, settings: GaugeSettings) -> None:
    """Units change places."""
    for hidden in hiddens:
        hidden.gather(model, [rng.permutation(hidden.units) for _ in range(hidden.groups)])


def rescale(model: nn.Module, hiddens: Sequence[HiddenLayer], rng: Generator, settings: GaugeSettings) -> None:
    """Units are written larger and read smaller, by lognormal factors.

    In 16-bit types the factors are rounded to powers of two, so that each weight keeps every bit.
    """
    for hidden in hiddens:
        coarse = settings.exact or hidden.coarse(model)

        def factors(units: int = hidden.groups * hidden.units, coarse: bool = coarse) -> Tensor:
            logs = to_tensor(rng.standard_normal(units)) * settings.spread
            return (logs / math.log(2)).round().exp2() if coarse else logs.exp()

        scale = factors()
        for stage in hidden.stages:
            scale = stage.rescale(model, scale, fresh=None if coarse else factors)


def split(model: nn.Module, hiddens: Sequence[HiddenLayer], rng: Generator, settings: GaugeSettings) -> None:
    """Some units become several that read the same; random shares of what the unit wrote add up to it."""
    for hidden in hiddens:
        chosen = _chosen(rng, hidden.units, settings.share)
        shares = rng.dirichlet(np.ones(settings.copies), size=len(chosen))
        _add(model, hidden, [np.tile(chosen, settings.copies - 1)])
        written = np.ones(hidden.units)
        written[chosen] = shares[:, 0]
        factor = to_tensor(np.concatenate([written, *shares[:, 1:].T]))
        for reader in hidden.readers:
            reader.write(model, times(reader.view(model), factor, dim=2))


def cancel(model: nn.Module, hiddens: Sequence[HiddenLayer], rng: Generator, settings: GaugeSettings) -> None:
    """Pairs are added that read what some unit reads and write the opposite of each other.

    What a pair writes is Gaussian, at ``scale`` times the standard deviation of what the layer's units write.
    """
    hiddens = _some(hiddens, rng, settings)
    # All rows first: copies must be taken before any opposed columns are in the rows they are copied from.
    for hidden in hiddens:
        units, pairs = hidden.units, count(settings.pairs, hidden.units)
        sources = [np.repeat(rng.choice(units, size=pairs, replace=pairs > units), 2) for _ in range(hidden.groups)]
        _add(model, hidden, sources)
        for stage in hidden.stages:
            if settings.jitter:
                stage.jitter(model, rng, units=hidden.units, amount=settings.jitter)
    for hidden in hiddens:
        for reader in hidden.readers:
            drawn = _drawn(model, reader, rng, units=hidden.units)[:, :, ::2] * settings.scale
            _write_added(model, reader, torch.stack([drawn, -drawn], dim=3).flatten(2, 3), units=hidden.units)


def dead(model: nn.Module, hiddens: Sequence[HiddenLayer], rng: Generator, settings: GaugeSettings) -> None:
    """Units are added that read nothing and so are always 0, with outgoing weights like those of the others."""
    for hidden in hiddens:
        _add(model, hidden, [np.zeros(count(settings.units, hidden.units), dtype=np.int64)] * hidden.groups)
        for stage in hidden.stages:
            stage.silence(model, first=hidden.units)
    for hidden in hiddens:
        for reader in hidden.readers:
            _write_added(model, reader, _drawn(model, reader, rng, units=hidden.units), units=hidden.units)


def entangle(model: nn.Module, hiddens: Sequence[HiddenLayer], rng: Generator, settings: GaugeSettings) -> None:
    """Some units become two that write half each, one with what another unit writes added and one with it subtracted.

    Together they are what the unit was; each alone also moves what the other unit moves.
    """
    for hidden in hiddens:
        chosen = _chosen(rng, hidden.units, settings.share)
        others = rng.integers(hidden.units - 1, size=len(chosen))
        others += others >= chosen
        _add(model, hidden, [chosen])
        for reader in hidden.readers:
            view = reader.view(model).double()
            half, added = view[:, :, chosen] / 2, settings.strength * view[:, :, others]
            view[:, :, chosen], view[:, :, hidden.units :] = half + added, half - added
            reader.write(model, view)


def _chosen(rng: Generator, units: int, share: float) -> NDArray[np.int64]:
    return np.sort(rng.choice(units, size=count(share, units), replace=False))


def _some(hiddens: Sequence[HiddenLayer], rng: Generator, settings: GaugeSettings) -> Sequence[HiddenLayer]:
    """The hidden layers that get cancelling pairs: as many as the settings say, drawn at random."""
    if not 0 < settings.layers < len(hiddens):
        return hiddens
    chosen: list[int] = np.sort(rng.choice(len(hiddens), size=settings.layers, replace=False)).tolist()
    return [hiddens[index] for index in chosen]


def _add(model: nn.Module, hidden: HiddenLayer, sources: Sequence[NDArray[np.int64]]) -> None:
    """Adds copies of the units ``sources`` at the end of each group; what they write is the caller's to set."""
    hidden.gather(model, [np.concatenate([np.arange(hidden.units), copies]) for copies in sources])


def _drawn(model: nn.Module, reader: Inputs, rng: Generator, *, units: int) -> Tensor:
    """Outgoing weights for the units from ``units`` on, Gaussian with the standard deviation of those of the others."""
    view = reader.view(model).double()
    spread = float(view[reader.old(view), :, :units].std(correction=0))
    shape = (reader.outputs, view.shape[1], view.shape[2] - units, view.shape[3])
    return to_tensor(spread * rng.standard_normal(shape), like=view)


def _write_added(model: nn.Module, reader: Inputs, value: Tensor, *, units: int) -> None:
    """Sets what units from ``units`` on write. Units that were added to the next layer read nothing of it."""
    view = reader.view(model).double()
    view[:, :, units:] = 0
    view[reader.old(view), :, units:] = value
    reader.write(model, view)


UnitMove = Callable[[nn.Module, Sequence[HiddenLayer], Generator, GaugeSettings], None]
MOVES: dict[str, UnitMove] = {
    "permute": permute,
    "rescale": rescale,
    "split": split,
    "cancel": cancel,
    "dead": dead,
    "entangle": entangle,
}
WIDENING = frozenset({"split", "cancel", "dead", "entangle"})
"""Those that add units."""


def unit_moves(
    model: nn.Module, hiddens: Sequence[HiddenLayer], *, after: Callable[[nn.Module], None] | None = None
) -> Gauges:
    """The gauges that hold on at least one of ``hiddens``, and reasons for the others.

    Args:
        model: Where they are.
        hiddens: In order of computation.
        after: Called on the copy when units were added.
    """
    moves: dict[str, Move] = {}
    refused: list[str] = []
    for gauge, move in MOVES.items():
        why = {hidden.name: _why_not(model, hidden, gauge) for hidden in hiddens}
        fit = tuple(hidden for hidden in hiddens if why[hidden.name] is None)
        if fit:
            moves[gauge] = partial(_moved, move=move, hiddens=fit, after=after if gauge in WIDENING else None)
        elif hiddens:
            reasons = dict.fromkeys(reason for reason in why.values() if reason)
            refused.append(f"{gauge}: in every hidden layer, {' or '.join(reasons)}")
    return moves, tuple(refused)


def _moved(
    model: nn.Module,
    rng: Generator,
    settings: GaugeSettings,
    *,
    move: UnitMove,
    hiddens: tuple[HiddenLayer, ...],
    after: Callable[[nn.Module], None] | None,
) -> None:
    move(model, hiddens, rng, settings)
    if after is not None:
        after(model)


def moves_in_turn(layers: Sequence[HiddenLayer]) -> dict[str, Move]:
    """The gauges that hold on at least one of some layers that feed back into themselves or into each other.

    Copies of a unit stay alike at every step, so that pairs cancel there too. Layers are rewritten one after another:
    the rows of one may be in the middle of what reads another.
    """
    fit = {
        "permute": tuple(layers),
        "rescale": tuple(layer for layer in layers if layer.homogeneous),
        **dict.fromkeys(("cancel", "dead"), tuple(layer for layer in layers if layer.widens)),
    }
    return {gauge: partial(_in_turn, gauge=gauge, layers=layers) for gauge, layers in fit.items() if layers}


def _in_turn(
    model: nn.Module, rng: Generator, settings: GaugeSettings, *, gauge: str, layers: tuple[HiddenLayer, ...]
) -> None:
    for layer in _some(layers, rng, settings) if gauge == "cancel" else layers:
        MOVES[gauge](model, (layer,), rng, settings)


def _why_not(model: nn.Module, hidden: HiddenLayer, gauge: str) -> str | None:
    if gauge not in BITWISE and hidden.coarse(model):
        return ROUNDED
    if gauge in hidden.refused:
        return hidden.refused[gauge]
    if gauge in WIDENING and not hidden.widens:
        return "the width is written in the model's code"
    if gauge == "rescale" and not hidden.homogeneous:
        return "no positive factor passes through the activation"
    if gauge == "dead" and not hidden.silent:
        return "the activation is not 0 at 0"
    if gauge == "entangle" and hidden.units < 2:
        return "there is one unit only"
    return None
