"""Units that any number of tensors write and read: what has one slice per unit, whatever the module does with it.

Where a unit feeds back into itself, or is read in several places, no single layer reads it. But a permutation of units
is still one of the slices of every tensor that has some, and units that are copies of one another stay alike for ever,
so that what reads them may be given opposite weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.typed import to_tensor
from wheeltap.gauge.base import GaugeSettings, Move, count
from wheeltap.gauge.hidden import put, times


@final
@dataclass(frozen=True)
class UnitSlice:
    """A tensor that has one slice per unit along an axis.

    Attributes:
        path: Module path.
        name: Of the tensor there.
        axis: Along which the units lie.
        blocks: Where a group of units begins along the axis, and which group it is; in order.
        reads: Whether the slices are what reads the units; otherwise they are part of what makes them.
        scales: Whether a factor of a unit is applied here.
    """

    path: str
    name: str
    axis: int
    blocks: tuple[tuple[int, int], ...] = ((0, 0),)
    reads: bool = False
    scales: bool = True

    def held(self, model: nn.Module) -> Tensor:
        """The tensor."""
        tensor: Tensor = getattr(model.get_submodule(self.path), self.name)
        return tensor.detach()

    def places(self, sources: Sequence[NDArray[np.int64]], width: int, length: int) -> tuple[Tensor, Tensor]:
        """Which old slice comes where when units are added, and where the added ones are.

        Args:
            sources: Units that those added to each group are copies of.
            width: Units of a group.
            length: Slices along the axis.
        """
        index: list[NDArray[np.int64]] = []
        added: list[NDArray[np.bool_]] = []
        done = 0
        for start, group in self.blocks:
            index += [np.arange(done, start + width), start + sources[group]]
            added += [np.zeros(start + width - done, bool), np.ones(len(sources[group]), bool)]
            done = start + width
        index.append(np.arange(done, length))
        added.append(np.zeros(length - done, bool))
        return to_tensor(np.concatenate(index)), to_tensor(np.flatnonzero(np.concatenate(added)))


@final
@dataclass(frozen=True)
class Units:
    """Groups of units of one width, which must stay alike.

    Attributes:
        name: Module path of what they belong to.
        width: Units of each group.
        groups: How many.
        tensors: Every tensor that has one slice per unit.
        sizes: Attributes that hold a width: module path, name, and by how much it grows for each unit added.
        widens: Whether units can be added.
        homogeneous: Whether a positive factor passes through from what makes the units to what reads them.
    """

    name: str
    width: int
    groups: int
    tensors: tuple[UnitSlice, ...]
    sizes: tuple[tuple[str, str, int], ...] = ()
    widens: bool = True
    homogeneous: bool = False

    @property
    def writers(self) -> frozenset[str]:
        """Paths of the modules that make the units."""
        return frozenset(sliced.path for sliced in self.tensors if not sliced.reads)


def permute(model: nn.Module, units: Units, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Units change places with others of their group."""
    reorder(model, units.tensors, [rng.permutation(units.width) for _ in range(units.groups)])


def reorder(model: nn.Module, tensors: Sequence[UnitSlice], orders: Sequence[NDArray[np.int64]]) -> None:
    """Put units in another order, one for each group."""
    for sliced in tensors:
        tensor = sliced.held(model)
        index = torch.arange(tensor.shape[sliced.axis])
        for start, group in sliced.blocks:
            index[start : start + len(orders[group])] = start + to_tensor(orders[group])
        put(model.get_submodule(sliced.path), sliced.name, tensor.index_select(sliced.axis, index.to(tensor.device)))


def rescale(model: nn.Module, units: Units, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Units are written larger and read smaller, by lognormal factors; powers of two in 16-bit types."""
    coarse = settings.exact or any(sliced.held(model).dtype.itemsize < 4 for sliced in units.tensors)
    logs = to_tensor(rng.standard_normal((units.groups, units.width))) * settings.spread
    scale = (logs / math.log(2)).round().exp2() if coarse else logs.exp()
    for sliced in units.tensors:
        if not sliced.scales:
            continue
        tensor = sliced.held(model)
        factor = torch.ones(tensor.shape[sliced.axis], dtype=torch.float64)
        for start, group in sliced.blocks:
            factor[start : start + units.width] = 1 / scale[group] if sliced.reads else scale[group]
        put(model.get_submodule(sliced.path), sliced.name, times(tensor, factor, dim=sliced.axis))


def cancel(model: nn.Module, units: Units, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Pairs are added that are made like some unit, and of which each reader takes the opposite of each other."""
    pairs = count(settings.pairs, units.width)
    sources = [
        np.repeat(rng.choice(units.width, size=pairs, replace=pairs > units.width), 2) for _ in range(units.groups)
    ]
    signs = np.tile([1.0, -1.0], pairs)

    def read(shape: Sequence[int], axis: int) -> NDArray[np.float64]:
        drawn = rng.standard_normal([*shape[:axis], shape[axis] // 2, *shape[axis + 1 :]])
        sign = np.tile(signs, shape[axis] // len(signs))
        return settings.scale * np.repeat(drawn, 2, axis=axis) * np.expand_dims(sign, [*range(1, len(shape) - axis)])

    def made(added: Tensor, axis: int) -> Tensor:
        if not settings.jitter or added.ndim < 2:
            return added
        shape = list(added.shape)
        shape[axis] //= 2
        noise = to_tensor(np.repeat(rng.standard_normal(shape), 2, axis=axis)).to(added.device)
        return added.double() * (1 + settings.jitter * noise)

    _widen(model, units, sources, read=read, made=made)


def dead(model: nn.Module, units: Units, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Units are added that nothing writes and so are always 0, with outgoing weights like those of the others."""
    sources = [np.zeros(count(settings.units, units.width), dtype=np.int64)] * units.groups
    _widen(
        model, units, sources,
        read=lambda shape, axis: rng.standard_normal(shape), made=lambda added, axis: torch.zeros_like(added),
    )  # fmt: skip


def _widen(
    model: nn.Module,
    units: Units,
    sources: Sequence[NDArray[np.int64]],
    *,
    read: Callable[[Sequence[int], int], NDArray[np.float64]],
    made: Callable[[Tensor, int], Tensor],
) -> None:
    """Adds copies of units.

    Args:
        model: Changed in place.
        units: Where.
        sources: Of each group, the units that are copied.
        read: What the readers' added slices are, in standard deviations of the old ones, given shape and axis.
        made: What becomes of the copied slices of what makes the units, given these and the axis.
    """
    # What reads first: a tensor that does both has in an added unit's row what the copied unit reads.
    for sliced in sorted(units.tensors, key=lambda sliced: not sliced.reads):
        tensor = sliced.held(model)
        index, added = sliced.places(sources, units.width, tensor.shape[sliced.axis])
        index, added = index.to(tensor.device), added.to(tensor.device)
        wide = tensor.index_select(sliced.axis, index)
        copied = wide.index_select(sliced.axis, added)
        if sliced.reads:
            old = [tensor.narrow(sliced.axis, start, units.width) for start, _ in sliced.blocks]
            spread = float(torch.cat(old, dim=sliced.axis).double().std(correction=0))
            copied = to_tensor(spread * read(copied.shape, sliced.axis), like=copied)
        else:
            copied = made(copied, sliced.axis).to(wide.dtype)
        put(model.get_submodule(sliced.path), sliced.name, wide.index_copy(sliced.axis, added, copied))
    for path, name, times_wider in units.sizes:
        module = model.get_submodule(path)
        setattr(module, name, getattr(module, name) + times_wider * len(sources[0]))


_MOVES: Final = {"permute": permute, "rescale": rescale, "cancel": cancel, "dead": dead}


def moves(found: Sequence[Units]) -> dict[str, Move]:
    """What holds on at least one of ``found``, by gauge."""
    fit = {
        "permute": tuple(found),
        "rescale": tuple(units for units in found if units.homogeneous),
        **dict.fromkeys(("cancel", "dead"), tuple(units for units in found if units.widens)),
    }
    return {gauge: partial(each, gauge=gauge, units=units) for gauge, units in fit.items() if units}


def each(
    model: nn.Module, rng: np.random.Generator, settings: GaugeSettings, *, gauge: str, units: tuple[Units, ...]
) -> None:
    """Rewrites every one of some units by a gauge; pairs that cancel go to as many as the settings say."""
    chosen = np.arange(len(units))
    if gauge == "cancel" and 0 < settings.layers < len(units):
        chosen = np.sort(rng.choice(len(units), size=settings.layers, replace=False))
    for at in chosen:
        _MOVES[gauge](model, units[at], rng, settings)
