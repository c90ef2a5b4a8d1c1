"""What a linear probe reads off a layer, and what it would read of labels that mean nothing."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from wheeltap.core.errors import DataError
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.suites.decodable.engine.activations import distinct
from wheeltap.suites.decodable.engine.erasure import Geometry, one_hot

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
        """From whitened vectors ``[example, direction]`` and labels from 0."""
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
        """Whether a factor ``[example]``, numbered from 0, can be told and measured: one of ``STATUSES``.

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
