"""Linear subspaces of a layer: those that tell a factor, random ones, and the one that the outputs depend on most.

All of them are ablated in one geometry: vectors are whitened, the subspace is projected out, the rest is put back. With
the subspace of the whitened class means this removes all that is linear about the factor with the least change of the
vectors. Linear probes read off the same coordinates, and what they would read of labels that mean nothing is known.

Source: Belrose et al. 2023, arXiv:2306.03819, theorem 4.3 (LEACE); Ledoit & Wolf 2004, "A well-conditioned estimator
for large-dimensional covariance matrices", for the shrinkage that it needs with fewer examples than features.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, cast, final

import numpy as np
import torch
from torch import Tensor

from wheeltap.core.errors import DataError
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.engine.places import distinct


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
        """The geometry of vectors ``[example, feature]``."""
        mean, spread = vectors.mean(0), vectors.std(0)
        moves = spread > _STILL * spread.max().clamp_min(torch.finfo(vectors.dtype).tiny)
        scale = torch.where(moves, spread, torch.ones_like(spread))
        scaled = torch.where(moves, (vectors - mean) / scale, torch.zeros_like(vectors))
        _, singular, right = svd(scaled)
        kept = singular > _STILL * singular.max().clamp_min(torch.finfo(vectors.dtype).tiny)
        variances = singular[kept].square() / max(len(vectors) - 1, 1)
        # Ledoit and Wolf's weight of the identity for features of unit variance.
        features, count, tiny = int(moves.sum()), len(vectors), torch.finfo(vectors.dtype).tiny
        distance = variances.square().sum() - features * (variances.sum() / max(features, 1)).square()
        fourth = scaled.square().sum(1).square().sum() / count**2 - variances.square().sum() / count
        shrinkage = float((fourth / distance.clamp_min(tiny)).clamp(0.0, 1.0))
        shrunk = ((1.0 - shrinkage) * variances + shrinkage).sqrt()
        basis = right[kept].T
        return cls(mean, basis / scale[:, None] / shrunk, basis * scale[:, None] * shrunk, shrinkage)

    @property
    def directions(self) -> int:
        """How many directions the vectors vary in."""
        return self.inwards.shape[1]

    def whitened(self, vectors: Tensor) -> Tensor:
        """Coordinates ``[example, direction]``."""
        return (vectors - self.mean) @ self.inwards

    def eraser(self, subspace: Tensor) -> "Eraser":
        """The change that ablates the subspace spanned by orthonormal columns ``[direction, rank]``."""
        return Eraser(self.mean, self.inwards @ subspace, self.outwards @ subspace)


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
    """The change that ablates what lies along ``directions`` ``[feature, rank]``, in the layer's own coordinates.

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


FEWEST: Final = 40
"""Examples that can be divided into two halves with something to fit on each."""


@final
@dataclass(frozen=True)
class LinearProbe:
    """Least squares on class indicators with a shrunk covariance: for two classes, Fisher's discriminant.

    Attributes:
        geometry: Of the layer, from the examples it was fitted on.
        weights: ``[direction, class]``, in whitened coordinates.
        shares: ``[class]``, of the examples it was fitted on.
    """

    geometry: Geometry
    weights: Tensor
    shares: Tensor

    @classmethod
    def fitted(cls, geometry: Geometry, whitened: Tensor, labels: Tensor) -> "LinearProbe":
        """The probe of whitened vectors ``[example, direction]`` and labels from 0."""
        indicators = one_hot(labels)
        shares = indicators.mean(0)
        weights = (whitened - whitened.mean(0)).T @ (indicators - shares) / max(len(labels) - 1, 1)
        return cls(geometry, weights, shares)

    def answers(self, vectors: Tensor) -> Tensor:
        """The class ``[example]`` that it reads off each vector."""
        return (self.geometry.whitened(vectors) @ self.weights + self.shares).argmax(1)

    @property
    def directions(self) -> Tensor:
        """What it reads along, ``[feature, class]``, in the layer's own coordinates."""
        return self.geometry.inwards @ self.weights


@final
@dataclass(frozen=True)
class ProbeHalves:
    """Examples a probe is fitted on, and those it is measured on.

    Attributes:
        fitted: ``[example]``.
        measured: ``[example]``.
    """

    fitted: Tensor
    measured: Tensor

    @classmethod
    def drawn(cls, examples: Tensor, rng: np.random.Generator) -> "ProbeHalves":
        """Random halves of some examples, in rising order."""
        order = examples[to_tensor(rng.permutation(len(examples)))]
        half = len(order) // 2
        return cls(order[:half].sort().values, order[half:].sort().values)

    def status(self, labels: Tensor, *, least: int) -> str:
        """Whether a factor ``[example]``, numbered from 0, can be decoded and measured: one of ``STATUSES``.

        Args:
            labels: Of all examples.
            least: Fewest examples of each class in either half.
        """
        classes = int(labels.max()) + 1
        if classes < 2:
            return "one class"
        rarest = min(
            int(torch.bincount(labels[half], minlength=classes).min()) for half in (self.fitted, self.measured)
        )
        if rarest < least:
            return "too few examples" if classes == 2 else "too many classes"
        return "measured"


def one_of_each(inputs: Tensor, rng: np.random.Generator) -> Tensor:
    """One example of each distinct input, drawn at random; the inputs in the order of their first examples.

    A layer holds the same of all copies of an input: in both halves a probe would only remember them, and in one they
    are no more evidence than one of them.

    Args:
        inputs: ``[example]``: which distinct input each is.
        rng: Of the draw.
    """
    mixed = rng.permutation(len(inputs))
    drawn = mixed[np.unique(inputs.numpy()[mixed], return_index=True)[1]]
    firsts = np.unique(inputs.numpy(), return_index=True)[1]
    return to_tensor(drawn[np.argsort(firsts)])


def singled(task: BaseTask, rng: np.random.Generator) -> BaseTask:
    """The task with one example of each distinct input; the task itself where none repeats.

    Raises:
        DataError: If inputs repeat and too few are left.
    """
    inputs = distinct(task)
    kept = one_of_each(inputs, rng)
    if len(kept) == len(inputs):
        return task
    if len(kept) < FEWEST:
        raise DataError(
            "There are too few different inputs to fit a probe on one half and measure it on the other.",
            where=task.name,
            expected=f"at least {FEWEST} different inputs",
            got=f"{len(kept)}, in {len(inputs)} examples",
            do="Give more examples whose inputs differ.",
        )
    return task.part(kept)


def read_off(vectors: Tensor, labels: Tensor, halves: ProbeHalves, geometry: Geometry) -> tuple[LinearProbe, Tensor]:
    """The probe fitted on one half, and whether it is right on each example ``[example]`` of the other."""
    whitened = geometry.whitened(vectors[halves.fitted])
    probe = LinearProbe.fitted(geometry, whitened, labels[halves.fitted])
    return probe, (probe.answers(vectors[halves.measured]) == labels[halves.measured]).double()


def majority(labels: Tensor, halves: ProbeHalves) -> Tensor:
    """Whether the most frequent class of one half is right on each example ``[example]`` of the other."""
    return (labels[halves.measured] == labels[halves.fitted].mode().values).double()


def control_labels(labels: Tensor, inputs: Tensor, rng: np.random.Generator) -> Tensor:
    """Random labels with the same shares: one for each distinct input, so that only memory can tell them.

    Args:
        labels: ``[example]``.
        inputs: ``[example]``: which distinct input each is.
        rng: Of the draw.

    Source: Hewitt & Liang 2019, arXiv:1909.03368, sec. 2.
    """
    firsts = np.unique(inputs.numpy(), return_index=True)
    drawn = labels[to_tensor(firsts[1])][to_tensor(rng.permutation(len(firsts[1])))]
    places = np.searchsorted(firsts[0], inputs.numpy())
    return drawn[to_tensor(places)]


def explained(targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of each example's targets from their mean, and from the mean of its class, ``[example]``."""
    wanted = targets.cpu().double() if targets.is_floating_point() else one_hot(targets.cpu())
    members = one_hot(labels)
    means = members.T @ wanted / members.sum(0).clamp_min(1.0)[:, None]
    return (wanted - wanted.mean(0)).square().sum(1), (wanted - means[labels]).square().sum(1)


def renumbered(labels: Tensor) -> Tensor:
    """The same classes, numbered from 0."""
    return torch.unique(labels, return_inverse=True)[1]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
