"""How a picture answers to changes of single weights: how much, how symmetrically, and in how many regions.

Below the changed layer nothing changes, in it one unit does, and the next layer's sums change by a product of two
vectors; only from there on is the net evaluated again, for many disturbed copies at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.errors import DataError
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.typed import to_tensor
from wheeltap.models.cppn import ACTIVATIONS, Cppn, colour, folded
from wheeltap.suites.pictures.engine.moves import Moves

FloatArray = NDArray[np.float64]

STILL: Final = 1e-6
"""Root mean square change up to which a response counts as none: rounding, in single precision."""

_COPIES: Final = 4
"""Disturbed copies of the net evaluated at once: enough to share the cost of a call, few enough for the cache. Even,
so that both signs of a step come together."""


@final
@dataclass(frozen=True, eq=False)
class Responses:
    """What each change did to the picture; all ``[move, delta]``.

    Attributes:
        delta: Size of the change of the weight (or along the direction).
        rmse: Root mean square change over pixels and channels.
        symmetry: S = ||P dI||^2 / ||dI||^2, P the projection onto the symmetric changes; 0 where nothing changed, and
            everywhere where no symmetry was given.
        regions: exp(entropy) of the regions' mean squared changes, from 1 to their number; 0 likewise.
    """

    delta: FloatArray
    rmse: FloatArray
    symmetry: FloatArray
    regions: FloatArray


@final
class Evaluation:
    """A net and its inputs, ready to be disturbed often.

    Args:
        net: The net.
        inputs: ``[pixel, 4]``; any points, in any order.
        symmetry: Acts on these pixels; S is 0 without one.
        regions: ``[region, pixel]``, which pixels belong to each; none overlap, each has one.
        dtype: Of the computation.

    Raises:
        DataError: If the symmetry or the regions do not fit the inputs.
    """

    def __init__(
        self,
        net: Cppn,
        inputs: Float[Tensor, "pixel 4"],
        *,
        symmetry: Symmetry | None = None,
        regions: Bool[Tensor, "region pixel"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _require_fit(len(inputs), symmetry, regions)
        self._spans = net.layout.spans
        self._symmetry = symmetry
        self._regions = None if regions is None else (regions.double() / regions.sum(1, keepdim=True)).to(dtype)
        self._weights = [layer.weight.detach().to(dtype) for layer in net.dense]
        # Units come first and pixels last, so that a block of units is one piece of memory.
        self._entering = [folded(inputs.to(dtype), net.fold).T.contiguous()]
        self._sums: list[Tensor] = []
        for weight in self._weights:
            self._sums.append(weight @ self._entering[-1])
            self._entering.append(self._activated(self._sums[-1].clone()))
        self._clean = colour(self._sums[-1].T).T.contiguous()

    @torch.no_grad()
    def respond(self, moves: Moves, deltas: FloatArray) -> Responses:
        """What each change does.

        Args:
            moves: The weights or directions.
            deltas: ``[move, delta]``, or ``[delta]`` for the same ones everywhere.
        """
        sizes = np.broadcast_to(np.atleast_2d(deltas), (len(moves), np.shape(deltas)[-1])).astype(np.float64)
        rows = np.repeat(np.arange(len(moves)), sizes.shape[1])
        flat = np.zeros((3, sizes.size))
        for index, change in self._changes(moves, rows, sizes.ravel()):
            flat[:, index] = self._measured(change)
        return Responses(sizes, *flat.reshape(3, *sizes.shape))

    @torch.no_grad()
    def changes(self, moves: Moves, deltas: FloatArray) -> Float[Tensor, "move pixel 3"]:
        """The changed picture minus the clean one, for one delta ``[move]`` of each move."""
        found = torch.empty(len(moves), self._clean.shape[1], 3, dtype=self._clean.dtype)
        for index, change in self._changes(moves, np.arange(len(moves)), deltas):
            found[to_tensor(index)] = change.permute(1, 2, 0)
        return found

    def _changes(
        self, moves: Moves, rows: NDArray[np.int64], deltas: FloatArray
    ) -> Iterator[tuple[NDArray[np.int64], Float[Tensor, "3 copy pixel"]]]:
        """Changes of the picture, some copies of one layer at a time: which they are, and what they are."""
        layers = moves.layer[rows]
        for layer in np.unique(layers):
            members = np.flatnonzero(layers == layer)
            for start in range(0, len(members), _COPIES):
                index = members[start : start + _COPIES]
                hsv = self._from_layer(int(layer), moves, rows[index], deltas[index])
                yield index, colour(hsv.movedim(0, -1)).movedim(-1, 0) - self._clean[:, None]

    def _from_layer(self, layer: int, moves: Moves, rows: NDArray[np.int64], deltas: FloatArray) -> Tensor:
        """The last layer's sums ``[3, copy, pixel]`` where kernel ``layer`` is changed."""
        source = self._entering[layer][to_tensor(moves.source[rows])]
        arriving = to_tensor(deltas, like=source)[:, None] * source
        if moves.direction is None and layer < len(self._weights) - 1:
            return self._onwards(layer + 1, self._one_unit(layer, to_tensor(moves.target[rows]), arriving))
        width = len(self._sums[layer])
        if moves.direction is None:
            spread = torch.zeros(width, len(rows), 1, dtype=source.dtype)
            spread[to_tensor(moves.target[rows]), torch.arange(len(rows)), 0] = 1.0
        else:
            spread = to_tensor(moves.direction[rows, :width].T.copy(), like=source)[:, :, None]
        return self._onwards(layer, torch.addcmul(self._sums[layer][:, None], spread, arriving[None]))

    def _one_unit(self, layer: int, target: Tensor, arriving: Float[Tensor, "copy pixel"]) -> Tensor:
        """The next layer's sums ``[unit, copy, pixel]`` where one unit of each copy gets something more."""
        sums = self._sums[layer][target] + arriving
        for name, start, end in self._spans:
            inside = ((target >= start) & (target < end)).nonzero()[:, 0]
            if len(inside):
                sums[inside] = ACTIVATIONS[name](sums[inside])
        sums -= self._entering[layer + 1][target]
        following = self._weights[layer + 1][:, target]
        return torch.addcmul(self._sums[layer + 1][:, None], following[:, :, None], sums[None])

    def _onwards(self, layer: int, sums: Float[Tensor, "unit copy pixel"]) -> Tensor:
        """The last layer's sums, from those of ``layer`` (which are overwritten)."""
        shape = sums.shape[1:]
        flat = sums.flatten(1)
        for weight in self._weights[layer + 1 :]:
            flat = weight @ self._activated(flat)
        return flat.reshape(-1, *shape)

    def _activated(self, sums: Tensor) -> Tensor:
        """Each block of units ``[unit, ...]`` through its activation, in place."""
        for name, start, end in self._spans:
            part = sums[start:end]
            changed = ACTIVATIONS[name](part)
            if changed is not part:
                part.copy_(changed)
        return sums

    def _measured(self, change: Float[Tensor, "3 copy pixel"]) -> FloatArray:
        """Size, symmetry and regions of each change, ``[3, copy]``."""
        pixels = change.square().sum(0)
        energy, copies = pixels.sum(1), change.shape[1]
        found = torch.zeros(3, copies, dtype=change.dtype)
        found[0] = (energy / (3 * change.shape[2])).sqrt()
        if self._symmetry is not None:
            found[1] = self._symmetry.share(change.permute(1, 2, 0), energy=energy)
        if self._regions is not None:
            means = pixels @ self._regions.T
            share = means / means.sum(1, keepdim=True).clamp_min(torch.finfo(change.dtype).tiny)
            found[2] = torch.exp(-torch.xlogy(share, share).sum(1)) * (energy > 0)
        return found.double().numpy()


def _require_fit(pixels: int, symmetry: Symmetry | None, regions: Tensor | None) -> None:
    if symmetry is not None and symmetry.size != pixels:
        raise DataError(
            "The symmetry does not fit the picture.",
            where=symmetry.name,
            expected=f"a group acting on {pixels} pixels",
            got=f"one acting on {symmetry.size}",
        )
    if regions is not None and (regions.shape[1] != pixels or not bool(regions.any(1).all())):
        raise DataError(
            "The regions do not fit the picture.",
            expected=f"masks [region, {pixels}], a pixel in each",
            got=f"{list(regions.shape)}, the smallest of {int(regions.sum(1).min())} pixels",
        )
