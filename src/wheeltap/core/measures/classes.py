"""Statistics of all examples together: F1, precision, recall, balanced accuracy, MCC, AUC; several labels.

None of these is a mean over examples. Each is *linearized*: example i gets v_i = S + (its influence on S), S being the
statistic of all examples. The mean of v_i is S exactly, and how they vary from example to example is, to first order,
how S varies from sample to sample; so paired differences, groups and intervals work as for any mean. A single v_i says
nothing by itself and may lie beyond 0 and 1. With few examples of a class that is no longer so: see ``carried``.

Source: Hampel (1974), "The influence curve and its role in robust estimation"; DeLong et al. (1988) for AUC.
"""

from abc import abstractmethod
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wheeltap.core.errors import DataError
from wheeltap.core.measures.family import Kind, MeasureFamily
from wheeltap.core.typed import to_array

Shares = Float[Tensor, " option"]
"""Of all examples, for each class or label."""

LEAST = 30
"""Examples of a class from which intervals hold the truth in .93 to .97 of simulated samples."""

LEAST_RANKED = 150
"""The same of AUC near 1, which few examples decide."""


class LinearStatistic(MeasureFamily):
    """A statistic of all examples, as one value per example whose mean it is.

    Attributes:
        least, most: What the statistic can be.
    """

    fits: tuple[Kind, ...] = ("classes",)
    least: float = 0.0
    most: float = 1.0
    enough: int = LEAST

    @property
    def range(self) -> tuple[float, float]:
        """See ``Measure.range``."""
        return self.least, self.most

    @abstractmethod
    def carried(self, scores: Tensor, targets: Tensor) -> tuple[float, float]:
        """How many examples of the rarest classes carry the statistic, and how far one of them can move it, times n."""


def threshold(clean: Tensor) -> float:
    """The score above which a label is given: 0 of logits, .5 where all undisturbed scores lie in [0, 1]."""
    return 0.5 if bool((clean >= 0.0).all()) and bool((clean <= 1.0).all()) else 0.0


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 where there is nothing to take a share of."""
    some = whole > 0.0
    return torch.where(some, part / torch.where(some, whole, 1.0), 0.0)


class CountStatistic(LinearStatistic):
    """A smooth function of how often each class is right, answered and wanted. Unit: share.

    A class counts that is wanted at least once; of two classes, ``binary`` ones count the second alone.
    """

    binary = False

    @abstractmethod
    def statistic(self, hit: Shares, said: Shares, true: Shares) -> Tensor:
        """From the shares of examples in which a class is the right answer given, the answer, and the right one.

        Only of the classes that count, but for measures that say otherwise.
        """

    def _marks(self, scores: Tensor, targets: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Answers and right ones: numbers of classes ``[example]``, or whether a label holds ``[example, label]``."""
        if targets.is_floating_point():
            return scores > threshold(clean), targets > 0.5
        return scores.argmax(-1), targets

    def _shares(self, said: Tensor, true: Tensor, options: int) -> list[Tensor]:
        if true.ndim == 2:
            return [marks.double().mean(0) for marks in (said & true, said, true)]
        marks = (true[said == true], said, true)
        return [torch.bincount(one, minlength=options).double() / len(true) for one in marks]

    def _counting(self, true: Shares, *, several: bool) -> Tensor:
        """Which classes count, ``[option]``."""
        counting = true > 0.0
        if self.binary and not several and len(true) == 2:
            counting[0] = False
        if not bool(counting.any()):
            raise DataError(
                f"The targets have no example to measure {self.name} by.",
                expected="class 1, the second option, among the targets" if len(true) == 2 else "a label that holds",
                got="none",
                do="Give examples of it, or another measure, such as accuracy.",
            )
        return counting

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``; in double precision."""
        said, true = self._marks(scores, targets, clean)
        shares = self._shares(said, true, scores.shape[1])
        counting = self._counting(shares[2], several=true.ndim == 2)
        with torch.inference_mode(False), torch.enable_grad():
            parts = [one.clone().requires_grad_() for one in shares]
            value = self.statistic(*(one[counting] for one in parts)) if self._partial else self.statistic(*parts)
            slopes = torch.autograd.grad(value, parts, allow_unused=True, materialize_grads=True)
        hit, given, wanted = slopes
        if true.ndim == 2:
            moved = sum(
                (marks.double() @ slope for marks, slope in zip((said & true, said, true), slopes, strict=True))
            )
        else:
            moved = torch.where(said == true, hit[true], 0.0) + given[said] + wanted[true]
        assert isinstance(moved, Tensor)
        return value.detach() + (moved - moved.mean())

    _partial = True

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The same answers in random order: a class is then right as often as both shares say."""
        _, given, wanted = self._shares(*self._marks(scores, targets, scores), scores.shape[1])
        parts = [given * wanted, given, wanted]
        if self._partial:
            parts = [one[self._counting(wanted, several=targets.is_floating_point())] for one in parts]
        return float(self.statistic(*parts))

    def by_class(self, scores: Tensor, targets: Tensor) -> dict[int, float]:
        """The statistic of each class that counts by itself."""
        if not self._partial:
            return {}
        shares = self._shares(*self._marks(scores, targets, scores), scores.shape[1])
        each = self._counting(shares[2], several=targets.is_floating_point()).nonzero()[:, 0]
        return {int(at): float(self.statistic(*(one[at : at + 1] for one in shares))) for at in each}

    def carried(self, scores: Tensor, targets: Tensor) -> tuple[float, float]:
        """As many as tell a mean over classes as well, were there one alone, or as many of either of two."""
        shares = self._shares(*self._marks(scores, targets, scores), scores.shape[1])
        kept = self._counting(shares[2], several=targets.is_floating_point())
        count = self._weighed(*shares)[kept] * len(targets)
        classes = len(count)
        worth = classes**2 / float((1.0 / count.clamp_min(1e-9)).sum()) / min(classes, 2)
        return worth, len(targets) / max(classes * float(count.min()), 1.0)

    def _weighed(self, hit: Shares, said: Shares, true: Shares) -> Tensor:
        """The shares whose smallest limits what is known."""
        del hit, said
        return true


@final
class F1(CountStatistic):
    """F1 of class 1 where there are two, else the mean over classes (macro). Linearized. Unit: share."""

    name = "f1"
    binary = True

    def statistic(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        """2 hits / (answered + wanted)."""
        return _ratio(2.0 * hit, said + true).mean()


@final
class Precision(CountStatistic):
    """Share of the answers "class 1" that are right; of more classes, the mean over them. Linearized. Unit: share.

    A class that is never answered counts 0.
    """

    name = "precision"
    binary = True

    def statistic(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        """Hits / answered."""
        return _ratio(hit, said).mean()

    def _weighed(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        return said


@final
class Recall(CountStatistic):
    """Share of the examples of class 1 that are found; of more classes, the mean over them. Linearized. Unit: share."""

    name = "recall"
    binary = True

    def statistic(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        """Hits / wanted."""
        return _ratio(hit, true).mean()


@final
class BalancedAccuracy(CountStatistic):
    """Mean over classes of the share of their examples that are right. Linearized. Unit: share."""

    name = "balanced_accuracy"

    def statistic(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        """Hits / wanted."""
        return _ratio(hit, true).mean()


@final
class MacroF1(CountStatistic):
    """Mean F1 over labels, or over classes, that occur among the targets. Linearized. Unit: share."""

    name = "macro_f1"
    fits = ("labels", "classes")

    def statistic(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        """2 hits / (answered + wanted)."""
        return _ratio(2.0 * hit, said + true).mean()


@final
class MicroF1(CountStatistic):
    """F1 of all labels of all examples counted together. Linearized. Unit: share."""

    name = "micro_f1"
    fits = ("labels",)
    _partial = False

    def statistic(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        """2 hits / (answered + wanted), each summed."""
        return _ratio(2.0 * hit.sum(), said.sum() + true.sum())

    def carried(self, scores: Tensor, targets: Tensor) -> tuple[float, float]:
        """All examples with a label do."""
        some = (targets > 0.5).sum(1).double()
        return float(some.sum().square() / some.square().sum().clamp_min(1.0)), float(some.amax() / some.mean())


@final
class MCC(CountStatistic):
    """Matthews correlation of answers with right ones, of any number of classes. Linearized. Unit: correlation.

    0 where one class alone is answered. Source: Gorodkin (2004), "Comparing two K-category assignments", eq. 8.
    """

    name = "mcc"
    least = -1.0
    _partial = False

    def statistic(self, hit: Tensor, said: Tensor, true: Tensor) -> Tensor:
        """Covariance of answers and right ones over their standard deviations."""
        spread = (1.0 - said.square().sum()) * (1.0 - true.square().sum())
        some = spread > 1e-15
        # A root has no slope at 0.
        return torch.where(some, (hit.sum() - (said * true).sum()) / torch.where(some, spread, 1.0).sqrt(), 0.0)

    def _counting(self, true: Shares, *, several: bool) -> Tensor:
        require_two(int((true > 0.0).sum()), self.name)
        return super()._counting(true, several=several)


def require_two(classes: int, name: str) -> None:
    """Raises ``DataError`` where all targets are of one class."""
    if classes < 2:
        raise DataError(
            f"The targets are all of one class, so there is no {name}.",
            expected="examples of two classes",
            got="one",
            do="Give examples of both, or another measure, such as accuracy.",
        )


@final
class AUC(LinearStatistic):
    """Area under the ROC curve of two classes, by the difference of their scores. Linearized. Unit: share.

    Source: DeLong, DeLong & Clarke-Pearson (1988), eq. 2-5: each example's placement among those of the other class.
    """

    name = "auc"
    enough = LEAST_RANKED

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``; in double precision, ties half."""
        ones = self._ones(scores, targets)
        gap = (scores[:, 1].double() - scores[:, 0].double()).contiguous()
        high, low = gap[ones].sort().values, gap[~ones].sort().values
        above = (torch.searchsorted(low, gap) + torch.searchsorted(low, gap, right=True)).double() / (2 * len(low))
        below = (torch.searchsorted(high, gap) + torch.searchsorted(high, gap, right=True)).double() / (2 * len(high))
        placed = torch.where(ones, above, 1.0 - below)
        value = placed[ones].mean()
        share = torch.where(ones, len(high) / len(gap), len(low) / len(gap))
        moved = (placed - value) / share
        return value + (moved - moved.mean())

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """A coin's."""
        return 0.5

    def carried(self, scores: Tensor, targets: Tensor) -> tuple[float, float]:
        """The rarer class does."""
        ones = self._ones(scores, targets)
        rare = float(min(ones.sum(), (~ones).sum()))
        return rare, len(ones) / rare

    def _ones(self, scores: Tensor, targets: Tensor) -> Tensor:
        if scores.shape[1] != 2:
            raise DataError(
                "AUC is of two classes.", expected="two scores for each example", got=str(scores.shape[1]),
                do="Give another measure, such as balanced_accuracy or macro_f1.",
            )  # fmt: skip
        ones = targets == 1
        require_two(int(ones.any()) + int((~ones).any()), self.name)
        return ones


class _OfLabels(MeasureFamily):
    fits: tuple[Kind, ...] = ("labels",)
    bounded = True

    def right(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """Which labels are right, ``[example, label]``."""
        return (scores > threshold(clean)) == (targets > 0.5)


@final
class LabelAccuracy(_OfLabels):
    """Share of an example's labels, each 0 or 1, that its scores get right. Unit: share.

    A score above 0 (a logit) says 1; where all undisturbed scores lie in [0, 1] (probabilities), one above .5 does.
    """

    name = "label_accuracy"

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return self.right(scores, targets, clean).float().mean(-1)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The share that always giving each label's more common value gets right."""
        ones = (targets > 0.5).float().mean(0)
        return float(torch.maximum(ones, 1.0 - ones).mean())


@final
class ExactLabels(_OfLabels):
    """Whether all of an example's labels are right. Unit: share of examples."""

    name = "exact_labels"

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``."""
        return self.right(scores, targets, clean).all(-1).float()

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The share with the most common set of labels."""
        return float(np.unique(to_array(targets > 0.5), axis=0, return_counts=True)[1].max()) / len(targets)
