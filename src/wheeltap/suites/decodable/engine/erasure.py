"""Linear subspaces of a layer taken away: those that tell a factor, random ones, and the one the outputs hang on most.

All of them are taken away in one geometry: vectors are whitened, the subspace is projected out, the rest is put back.
With the subspace of the whitened class means this removes all that is linear about the factor with the least change of
the vectors.

Source: Belrose et al. 2023, arXiv:2306.03819, theorem 4.3 (LEACE); Ledoit & Wolf 2004, "A well-conditioned estimator
for large-dimensional covariance matrices", for the shrinkage that it needs with fewer examples than features.
"""

from dataclasses import dataclass, replace
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor

from wheeltap.core.typed import to_tensor


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin singular value decomposition."""
    found = torch.linalg.svd(matrix, full_matrices=False)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("tuple[Tensor, Tensor, Tensor]", found)


_STILL = 1e-9
"""Spread, as a share of the largest, below which a feature or direction is rounding."""


@final
@dataclass(frozen=True)
class Geometry:
    """The whitened coordinates of a layer, from some of its vectors.

    Features are put in units of their own spread; the covariance is shrunk towards the identity.

    Attributes:
        mean: ``[feature]``.
        inwards: ``[feature, direction]``: from a vector less its mean to whitened coordinates.
        outwards: ``[feature, direction]``: from whitened coordinates to a vector; its transpose is the way back.
        shrinkage: Weight of the identity, from 0 to 1.
    """

    mean: Tensor
    inwards: Tensor
    outwards: Tensor
    shrinkage: float

    @classmethod
    def of(cls, vectors: Tensor) -> "Geometry":
        """From vectors ``[example, feature]``."""
        mean, spread = vectors.mean(0), vectors.std(0)
        moves = spread > _STILL * spread.max().clamp_min(torch.finfo(vectors.dtype).tiny)
        scale = torch.where(moves, spread, torch.ones_like(spread))
        scaled = torch.where(moves, (vectors - mean) / scale, torch.zeros_like(vectors))
        _, singular, right = svd(scaled)
        kept = singular > _STILL * singular.max().clamp_min(torch.finfo(vectors.dtype).tiny)
        variances = singular[kept].square() / max(len(vectors) - 1, 1)
        shrinkage = _shrinkage(scaled, variances, features=int(moves.sum()))
        shrunk = ((1.0 - shrinkage) * variances + shrinkage).sqrt()
        basis = right[kept].T
        return cls(mean, basis / scale[:, None] / shrunk, basis * scale[:, None] * shrunk, shrinkage)

    @property
    def directions(self) -> int:
        """Of the space in which the vectors vary."""
        return self.inwards.shape[1]

    def whitened(self, vectors: Tensor) -> Tensor:
        """Coordinates ``[example, direction]``."""
        return (vectors - self.mean) @ self.inwards

    def eraser(self, subspace: Tensor) -> "Eraser":
        """Takes away the subspace spanned by orthonormal columns ``[direction, rank]``."""
        return Eraser(self.mean, self.inwards @ subspace, self.outwards @ subspace)


def _shrinkage(scaled: Tensor, variances: Tensor, *, features: int) -> float:
    """Ledoit and Wolf's weight of the identity for features of unit variance."""
    count = len(scaled)
    mean = variances.sum() / max(features, 1)
    distance = variances.square().sum() - features * mean.square()
    fourth = scaled.square().sum(1).square().sum() / count**2 - variances.square().sum() / count
    return float((fourth / distance.clamp_min(torch.finfo(scaled.dtype).tiny)).clamp(0.0, 1.0))


@final
@dataclass(frozen=True)
class Eraser:
    """An affine change of a layer's vectors: ``x - scale * (x - mean) read write^T``.

    Attributes:
        mean: ``[feature]``.
        read: ``[feature, rank]``.
        write: ``[feature, rank]``.
        scale: 1 takes the subspace away; otherwise the same change, larger or smaller.
    """

    mean: Tensor
    read: Tensor
    write: Tensor
    scale: float = 1.0

    def change(self, vectors: Tensor) -> Tensor:
        """What is added to the vectors ``[example, feature]``."""
        mean, read, write = (part.to(vectors) for part in (self.mean, self.read, self.write))
        return -self.scale * ((vectors - mean) @ read) @ write.T

    def __call__(self, vectors: Tensor, examples: Tensor) -> Tensor:
        """The vectors without the subspace."""
        return vectors + self.change(vectors)

    def size(self, vectors: Tensor) -> float:
        """Root mean square length of the change."""
        return float(self.change(vectors).square().sum(1).mean().sqrt())

    def sized(self, vectors: Tensor, size: float) -> "Eraser":
        """The same change, scaled to this root mean square length on these vectors."""
        own = self.size(vectors)
        return replace(self, scale=self.scale * size / own if own > 0.0 else 0.0)


def projection(mean: Tensor, directions: Tensor) -> Eraser:
    """Takes away what lies along ``directions`` ``[feature, rank]``, at right angles, in the layer's own coordinates.

    Source: Ravfogel et al. 2020, arXiv:2004.07667 (one round of it); Elazar et al. 2021, "Amnesic probing".
    """
    basis = orthonormal(directions)
    return Eraser(mean, basis, basis)


def orthonormal(directions: Tensor) -> Tensor:
    """Orthonormal columns with the same span, ``[direction, rank]``; dependent columns are dropped."""
    left, singular, _ = svd(directions)
    largest = singular.max() if len(singular) else singular.sum()
    return left[:, singular > _STILL * largest.clamp_min(torch.finfo(directions.dtype).tiny)]


def one_hot(labels: Tensor) -> Tensor:
    """Labels from 0 as indicators ``[example, class]`` in double precision."""
    return torch.nn.functional.one_hot(labels, int(labels.max()) + 1).double()


def telling(whitened: Tensor, labels: Tensor) -> Tensor:
    """Orthonormal basis ``[direction, rank]`` of what differs between the classes' whitened means."""
    indicators = one_hot(labels)
    cross = (whitened - whitened.mean(0)).T @ (indicators - indicators.mean(0)) / len(whitened)
    # Weighted by class sizes the columns sum to zero: one of them is never needed.
    basis = orthonormal(cross)
    return basis[:, : max(indicators.shape[1] - 1, 1)]


def haar(directions: int, rank: int, rng: np.random.Generator) -> Tensor:
    """A uniformly random subspace of this rank, as orthonormal columns ``[direction, rank]``."""
    drawn: Any = rng.standard_normal((directions, rank))
    return cast("Tensor", torch.linalg.qr(to_tensor(drawn))[0])  # pyright: ignore[reportUnknownMemberType]


def steepest(whitened_slopes: Tensor, rank: int) -> Tensor:
    """The subspace ``[direction, rank]`` whose loss moves the outputs most, to first order.

    Args:
        whitened_slopes: ``[row, direction]``: slopes of outputs in whitened coordinates, weighted so that the mean of
            their squares is the change of the outputs (half of the KL divergence).
        rank: Of the subspace.
    """
    _, _, right = svd(whitened_slopes)
    return right[:rank].T


def angles(one: Tensor, two: Tensor) -> Tensor:
    """Principal angles ``[rank]`` between two subspaces, in degrees, smallest first.

    Source: Bjorck & Golub 1973, "Numerical methods for computing angles between linear subspaces".
    """
    cosines = svd(one.T @ two)[1].clamp(0.0, 1.0)
    return torch.rad2deg(torch.arccos(cosines))
