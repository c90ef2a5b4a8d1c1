"""What each hidden unit contributes to what the layer after it takes in, and how contributions add up or cancel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.units import HiddenUnits, heard

_STILL = 1e-12
"""Variance as a share of the mean square below which a unit does not move: what rounding leaves of a constant."""

Arrange = Callable[[HiddenUnits, Tensor], Tensor]
"""Rearranges the values ``[row, unit, place]`` of a layer before they are looked at."""


@final
@dataclass(frozen=True)
class Contributions:
    """The contributions ``value x outgoing weights`` of a layer's units.

    Units stand in an order that no permutation or rescaling of them changes: by the inner product of each unit's
    contribution with the sum of all. So whatever is computed from these is the same on a re-coded copy.

    Attributes:
        order: The layer's own numbers of the units, ``[unit]``.
        maps: Mean products of the values, each in units of its own root mean square, ``[place, unit, unit]``: the
            correlations, where values are taken from their means. 0 for a unit that never moves.
        writes: Inner products of what they write per such unit, ``[place, unit, unit]``.
    """

    order: Tensor
    maps: Tensor
    writes: Tensor

    @cached_property
    def products(self) -> Tensor:
        """Mean inner products of the contributions, ``[unit, unit]``.

        Exact where each unit is one number per row (MLPs, transformers). Products of different places of a flattened
        map, and of different taps of a convolution, are left out.
        """
        return (self.maps * self.writes).sum(0)

    @property
    def alive(self) -> Tensor:
        """Positions in the order of the units that ever move."""
        return self.maps.diagonal(dim1=1, dim2=2).sum(0).nonzero()[:, 0]

    def cancellation(self, arrangement: Tensor | None = None) -> float:
        """Sum of the sizes of the contributions over the size of their sum: 1 if all point the same way, or none moves.

        Args:
            arrangement: Positions of living units: what each of them writes is taken from the one named here.
        """
        some = self.alive
        taken = some if arrangement is None else arrangement
        written = self.writes[:, taken][:, :, taken]
        products = (self.maps[:, some][:, :, some] * written).sum(0)
        sizes = products.diagonal().clamp_min(0.0).sqrt().sum()
        if not len(some):
            return 1.0
        return float(sizes / products.sum().clamp_min(torch.finfo(products.dtype).eps * sizes**2).sqrt())


def second_moments(
    subject: Subject,
    task: BaseTask,
    hiddens: Sequence[HiddenUnits],
    *,
    centred: bool = True,
    arrange: Arrange | None = None,
) -> dict[HiddenUnits, Tensor]:
    """Mean products of the values of every two units, ``[place, unit, unit]`` per layer, in one pass.

    Args:
        subject: Whose units.
        task: Over whose rows.
        hiddens: Which layers.
        centred: Whether values are taken from their means.
        arrange: Applied to the values first.
    """
    sums: dict[HiddenUnits, tuple[int, Tensor, Tensor]] = {}

    def listen(hidden: HiddenUnits, values: Tensor) -> None:
        rows = hidden.rows(values).double()
        by_place = (rows if arrange is None else arrange(hidden, rows)).permute(2, 1, 0)
        here = (by_place.shape[2], by_place.sum(2), by_place @ by_place.mT)
        before = sums.get(hidden)
        sums[hidden] = here if before is None else (before[0] + here[0], before[1] + here[1], before[2] + here[2])

    heard(subject, task, hiddens, listen=listen)
    found: dict[HiddenUnits, Tensor] = {}
    for hidden in hiddens:
        count, total, products = sums.get(hidden) or (0, torch.zeros(0), torch.zeros(0))
        if not count:  # an expert that no row is sent to has units that never move
            places, units = hidden.weight(subject.model).shape[2], hidden.units
            total = torch.zeros(places, units, dtype=torch.float64, device=subject.device)
            products = total.new_zeros(places, units, units)
        mean, moments = total / max(count, 1), products / max(count, 1)
        if centred:  # products of the differences from the mean; a constant unit has none at all
            varied = moments - mean[:, :, None] * mean[:, None, :]
            moves = sizes(varied) ** 2 > _STILL * sizes(moments) ** 2
            moments = varied * moves[:, None] * moves
        found[hidden] = moments
    return found


def contributions(
    subject: Subject, task: BaseTask, hiddens: Sequence[HiddenUnits], *, centred: bool = True
) -> dict[HiddenUnits, Contributions]:
    """The contributions of the units of ``hiddens``, all there are, in one pass; see ``second_moments``.

    Where what the reader gives out are hidden units themselves, each is taken in units of its own root mean square:
    their scale is nobody's choice but the coordinates'.
    """
    found: dict[HiddenUnits, Contributions] = {}
    writers = {hidden.layer for hidden in hiddens}
    for hidden, moments in second_moments(subject, task, hiddens, centred=centred).items():
        weight = hidden.weight(subject.model).double().permute(2, 1, 0)
        if hidden.reader in writers:
            weight = weight * _inverted(((moments @ weight) * weight).sum((0, 1)).clamp_min(0.0).sqrt())
        size = sizes(moments)
        maps, writes = correlations(moments), (weight @ weight.mT) * size[:, None] * size
        order = (maps * writes).sum((0, 2)).argsort(stable=True)
        found[hidden] = Contributions(order, maps[:, order][:, :, order], writes[:, order][:, :, order])
    return found


def sizes(moments: Tensor) -> Tensor:
    """Root mean square of each unit over rows and places, ``[unit]``; 0 for one that never moves."""
    squares = moments.diagonal(dim1=1, dim2=2).sum(0).clamp_min(0.0)
    return squares.sqrt()


def correlations(moments: Tensor) -> Tensor:
    """Moments with each unit in units of its own size, ``[place, unit, unit]``."""
    scale = _inverted(sizes(moments))
    return moments * scale[:, None] * scale


def _inverted(size: Tensor) -> Tensor:
    """One over each size; 0 where there is none."""
    return torch.where(size > 0.0, 1.0 / size, 0.0)
