"""Masks: a class for each pixel; and tokens. One value per example: pixels of an image are no independent examples.

Scores are ``[example, class * height * width]``, flattened from ``[example, class, height, width]``; with one class a
pixel is foreground where its score is above 0 (or above .5, where all undisturbed scores lie in [0, 1]). Targets are
``[example, height, width]``; pixels marked -1, -100 or 255 are left out, and an image without others has no value.
Tokens are a mask of width 1.
"""

from typing import final

import torch
from torch import Tensor

from wheeltap.core.measures.classes import LinearStatistic, threshold
from wheeltap.core.measures.family import Kind, MeasureFamily

LEFT_OUT = (-100.0, -1.0, 255.0)
"""Marks of pixels that have no class; 255 may be one of a token."""


def counted(targets: Tensor) -> Tensor:
    """Which pixels, or tokens, have a class."""
    marks = LEFT_OUT[:2] if targets.shape[-1] == 1 else LEFT_OUT
    return ~torch.isin(targets, torch.tensor(marks, dtype=targets.dtype, device=targets.device))


def answers_of(scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
    """The class of each pixel, ``[example, pixel]``."""
    planes = scores.reshape(len(scores), -1, targets[0].numel())
    return (planes[:, 0] > threshold(clean)).long() if planes.shape[1] == 1 else planes.argmax(1)


class _OfMasks(MeasureFamily):
    fits: tuple[Kind, ...] = ("masks",)
    bounded = True


@final
class PixelAccuracy(_OfMasks):
    """Share of an image's pixels whose class is right. Unit: share, mean over images."""

    name = "pixel_accuracy"

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``; NaN where no pixel has a class."""
        some, wanted = counted(targets).flatten(1), targets.flatten(1)
        right = (answers_of(scores, targets, clean) == wanted) & some
        return right.sum(1) / some.sum(1)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """Always answering the most common class."""
        some = counted(targets).flatten(1)
        right = (targets.flatten(1) == targets[counted(targets)].mode()[0]) & some
        return float((right.sum(1) / some.sum(1)).mean())


@final
class IoU(_OfMasks):
    """Intersection over union, mean over an image's classes that are there or answered. Unit: share, mean over images.

    With one class of scores that is the foreground's; a mask that is empty and left empty counts 1.
    """

    name = "iou"

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        values = self._mean(*self._parts(answers_of(scores, targets, clean), scores, targets))
        return torch.where(counted(targets).flatten(1).any(1), values, torch.nan)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The best answer that is one class everywhere."""
        size = targets[0].numel()
        each = (torch.full((len(targets), size), one) for one in range(max(scores.shape[1] // size, 2)))
        return max(float(self._mean(*self._parts(one, scores, targets)).mean()) for one in each)

    def by_class(self, scores: Tensor, targets: Tensor) -> dict[int, float]:
        """Mean over the images that have, or are answered, the class."""
        both, either = self._parts(answers_of(scores, targets, scores), scores, targets)
        first = 2 - both.shape[1] if both.shape[1] == 1 else 0
        means = {at: both[:, at][either[:, at] > 0] / either[:, at][either[:, at] > 0] for at in range(both.shape[1])}
        return {first + at: float(values.mean()) for at, values in means.items() if len(values)}

    def _parts(self, answers: Tensor, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in both, and in either, ``[example, class]``."""
        wanted, some = targets.flatten(1), counted(targets).flatten(1)
        options = scores.shape[1] // wanted.shape[1]
        classes = range(1, 2) if options == 1 else range(options)
        pairs = [((answers == one) & some, (wanted == one) & some) for one in classes]
        return (
            torch.stack([(mine & right).sum(1) for mine, right in pairs], 1).double(),
            torch.stack([(mine | right).sum(1) for mine, right in pairs], 1).double(),
        )

    def _mean(self, both: Tensor, either: Tensor) -> Tensor:
        there = either > 0.0
        shares = torch.where(there, both / either.clamp_min(1.0), 0.0)
        return torch.where(there.any(1), shares.sum(1) / there.sum(1).clamp_min(1), 1.0)


@final
class TokenAccuracy(LinearStatistic):
    """Share of all tokens whose class is right. Linearized by example: its tokens are not independent. Unit: share."""

    name = "token_accuracy"
    fits = ("tokens",)

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``; NaN for an example of which all tokens are left out."""
        some = counted(targets).flatten(1)
        right = ((answers_of(scores, targets, clean) == targets.flatten(1)) & some).sum(1).double()
        count = some.sum(1).double()
        value, mean = right.sum() / count.sum(), count[count > 0].mean()
        return torch.where(count > 0, value + (right - value * count) / mean, torch.nan)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """Always answering the most common class."""
        wanted = targets[counted(targets)]
        return float((wanted == wanted.mode()[0]).double().mean())

    def by_class(self, scores: Tensor, targets: Tensor) -> dict[int, float]:
        """The share of each class's tokens that is found."""
        some = counted(targets)
        wanted = targets[some].long()
        right = (answers_of(scores, targets, scores) == targets.flatten(1))[some.flatten(1)]
        each, found = wanted.bincount(), wanted[right].bincount(minlength=int(wanted.max()) + 1)
        return {at: float(found[at]) / int(count) for at, count in enumerate(each) if count}

    def carried(self, scores: Tensor, targets: Tensor) -> tuple[float, float]:
        """As many examples of one length as tell as much."""
        count = counted(targets).flatten(1).sum(1).double()
        return float(count.sum().square() / count.square().sum()), float(count.amax() / count.mean())
