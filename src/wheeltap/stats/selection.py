"""The best of many, reported honestly: chosen on one half of the examples, measured on the other."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats.clusters import Groups, spread_over
from wheeltap.stats.crossed import CrossedMean, FloatArray, Values, checked, checked_alpha

_OPTIONS: Final = 32
"""Options whose output is shifted, at most: those answered most too often or too seldom."""

_SWEEPS: Final = 4
"""Rounds over the options; each only ever gains, and few change anything after the second."""


@final
@dataclass(frozen=True)
class Halves:
    """Divisions of the examples into two halves.

    Attributes:
        first: ``[split, example]``, whether an example is in the first half of a split.
        groups: ``[example]``, the cluster of each, all of whose examples are in one half; ``None`` where independent.
    """

    first: NDArray[np.bool_]
    groups: Groups | None = None

    @classmethod
    def drawn(cls, examples: int, *, splits: int, groups: Groups | None = None, rng: np.random.Generator) -> "Halves":
        """Random halves of the examples, or of the groups that they come in; of an odd number the second has one more.

        Raises:
            DataError: If there are fewer than four examples (or groups): a half of one says nothing of its spread.
        """
        member = np.arange(examples) if groups is None else np.unique(groups, return_inverse=True)[1]
        units, kind = int(member.max(initial=-1)) + 1, "examples" if groups is None else "groups"
        if units < _FEWEST:
            raise DataError(
                f"There are too few {kind} to choose on one half and measure on the other.",
                expected=f"at least {_FEWEST} {kind}",
                got=str(units),
            )
        ranks = np.stack([rng.permutation(units) for _ in range(splits)])
        return cls((ranks < units // 2)[:, member], groups)

    def chosen(self, scores: Values) -> FloatArray:
        """Each example's score under what did best on the half it is not in, ``[split, example]``.

        Args:
            scores: ``[candidate, example]``; higher is better. Of equals the first counts.
        """
        x = checked(scores, ("candidate", "example"), what="scores of the candidates")
        best = self.picked(x)
        return np.stack([np.where(first, x[one], x[two]) for first, (one, two) in zip(self.first, best, strict=True)])

    def picked(self, scores: Values) -> NDArray[np.intp]:
        """What did best on the other half, ``[split, half]``: for the first half, chosen on the second; and back.

        Args:
            scores: ``[candidate, example]``; higher is better. Of equals the first counts.
        """
        x = checked(scores, ("candidate", "example"), what="scores of the candidates")
        return np.array([[x[:, ~half].mean(axis=1).argmax() for half in (first, ~first)] for first in self.first])

    def shifted(self, scores: Values, targets: NDArray[np.integer]) -> FloatArray:
        """Whether each answer is right once a constant is added to each output, ``[split, example]``.

        The constants are those that make most answers right on the half that the example is not in: all that a
        harmless fault of the output format can hide in this way is thereby shown without touching a weight.

        Args:
            scores: ``[example, option]``.
            targets: ``[example]``, the right option.
        """
        x = checked(scores, ("example", "option"), what="scores")
        right = np.empty(self.first.shape)
        for row, first in enumerate(self.first):
            for half in (first, ~first):
                shift = best_shift(x[~half], targets[~half])
                right[row, half] = (x[half] + shift).argmax(axis=1) == targets[half]
        return right

    def effect(
        self, values: Values, *, level: float = 0.95, margin: float = 0.0, bounded: bool = True, name: str, unit: str
    ) -> Estimate:
        """Mean of what was measured on halves on which it was not chosen, in ``unit``.

        Given the choice, the examples of the other half are a plain sample. But the halves chose for each other, so
        their means need not be independent (with two candidates that exclude each other they correlate by 2/pi), nor
        are those of several splits. So they are taken to vary together wholly: the standard error is the mean of the
        halves', never less, and the interval is at most 1.41 times wider than it might be.

        Args:
            values: ``[split, example]``.
            level: Confidence level.
            margin: The p-value tests |mean| <= ``margin``.
            bounded: Whether they are differences of scores in [0, 1]: two imaginary examples are then added.
            name: Name of the estimate.
            unit: Unit of the values.

        Source: Varma & Simon (2006) for why the choice needs examples of its own; ``mean_effect`` for the two imaginary
        examples that keep the interval of unchanged scores honest.
        """
        x = checked(values, ("split", "example"), what="differences")
        spreads = [
            spread_over(
                row[None, half], None if self.groups is None else self.groups[half], pseudo=1.0 if bounded else 0.0
            )
            for row, first in zip(x, self.first, strict=True)
            for half in (first, ~first)
        ]
        zero = np.zeros(())
        whole = CrossedMean(
            centre=np.asarray(np.mean([spread.centre for spread in spreads]), dtype=np.float64),
            draw=zero,
            example=np.asarray(np.mean([np.sqrt(spread.example) for spread in spreads]) ** 2, dtype=np.float64),
            residual=zero,
            draw_df=0,
            example_df=min(spread.example_df for spread in spreads),
        )
        centre, half_width = float(whole.centre), float(whole.half_width(checked_alpha(level)))
        return Estimate(
            name=name, value=float(x.mean()), low=centre - half_width, high=centre + half_width, level=level,
            n=x.shape[1], unit=unit, p=whole.p_value(margin),
            method=f"t over the {'examples' if self.groups is None else 'groups'} of half the task, chosen on the "
            f"other half, {len(x)} splits",
        )  # fmt: skip


_FEWEST: Final = 4


def best_shift(scores: FloatArray, targets: NDArray[np.integer]) -> FloatArray:
    """Constants ``[option]``, added to the scores of every example, that make more answers right, option by option.

    Args:
        scores: ``[example, option]``.
        targets: ``[example]``.
    """
    options = scores.shape[1]
    answered = np.bincount(scores.argmax(axis=1), minlength=options)
    astray = np.abs(answered - np.bincount(targets, minlength=options))
    shift = np.zeros(options)
    for _ in range(_SWEEPS):
        moved = False
        for option in np.argsort(-astray, kind="stable")[:_OPTIONS]:
            moved |= _shift_one(scores, targets, shift, int(option))
        if not moved:
            break
    return shift


def _shift_one(scores: FloatArray, targets: NDArray[np.integer], shift: FloatArray, option: int) -> bool:
    """Moves one option's constant to where most answers are right; whether that gained any."""
    now = scores + shift
    own = now[:, option].copy()
    now[:, option] = -np.inf
    other = now.argmax(axis=1)
    gap = now.max(axis=1) - own  # what this option lacks to be the answer
    order = np.argsort(gap, kind="stable")
    as_option, as_other = (targets == option)[order], (other == targets)[order]
    # right[k]: the k examples with the smallest gap get this option as the answer, the rest the other.
    right = np.append(0, np.cumsum(as_option)) + (as_other.sum() - np.append(0, np.cumsum(as_other)))
    present = int(right[int((gap < 0.0).sum())])
    best = int(right.argmax())
    if right[best] <= present:
        return False
    gaps = gap[order]
    below = gaps[best - 1] if best else gaps[0] - 2.0
    above = gaps[best] if best < len(gaps) else gaps[-1] + 2.0
    if below == above:
        return False  # equals cannot be parted by a constant
    shift[option] += (below + above) / 2
    return True
