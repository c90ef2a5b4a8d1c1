"""Does a weight disturbance detect anything that the outputs and input noise at equal cost do not?

Whoever claims that disturbing weights *detects* something (memorised examples, damaged copies, hidden abilities) must
beat what costs less: scores of the plain output, and noise on the input. Here the claim is put to that test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.logistic import held_out
from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import normal_quantile
from wheeltap.stats.crossed import Crossed, FloatArray, Values, checked, checked_alpha
from wheeltap.stats.effect import smallest_detectable

LEAST: Final = 0.02
"""Smallest gain in AUC that counts as added value."""

FEWEST_GROUPS: Final = 10
"""Fewest groups (seeds, networks) from which a gain is judged."""

POWER: Final = 0.8
"""Probability with which the smallest gain that a verdict names would be found."""

_BOTH = "output + input"
_ALL = "output + input + weight"
MODELS: Final[dict[str, tuple[str, ...]]] = {
    "output": ("output",),
    _BOTH: ("output", "input"),
    "output + weight": ("output", "weight"),
    _ALL: ("output", "input", "weight"),
}
"""The combinations of blocks that are compared."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Scores of one origin.

    Attributes:
        scores: ``[item]`` by name. Higher is meant to speak for label 1; nothing turns a score round afterwards.
        forwards: Passes over the examples that they cost, per network.
    """

    scores: Mapping[str, Values]
    forwards: float

    def matrix(self) -> FloatArray:
        """The scores as ``[item, score]``."""
        return np.column_stack([np.asarray(score, dtype=np.float64) for score in self.scores.values()])


@dataclass(frozen=True, kw_only=True)
class Features:
    """Labelled items and what each kind of score says of them.

    Attributes:
        labels: ``[item]``, 1 for what is to be detected, else 0.
        groups: ``[item]``, which seed or network an item comes from: items of one group are not independent.
        output: What a plain pass shows: margin, entropy, loss.
        input: Response to noise on the input, at no lower a cost than ``weight``.
        weight: Response to disturbed weights.

    Raises:
        DataError: If lengths differ, a score is not finite, a group lacks one of the labels, or the input scores
            were given fewer passes than the weight scores.
    """

    labels: Values
    groups: NDArray[np.integer]
    output: Block
    input: Block
    weight: Block

    def __post_init__(self) -> None:
        labels = checked(self.labels, ("item",), what="labels")
        if not bool(np.isin(labels, (0.0, 1.0)).all()):
            raise DataError("The labels cannot be used.", expected="0 or 1 per item", got="other values")
        columns: dict[str, Values] = {"groups": self.groups.astype(np.float64), **self.scores}
        for name, column in columns.items():
            if len(checked(column, ("item",), what=name)) != len(labels):
                raise DataError(
                    "The features differ in number of items.",
                    where=name,
                    expected=f"{len(labels)}, as there are labels",
                    got=str(len(column)),
                )
        lacking = [str(g) for g in np.unique(self.groups) if len(np.unique(labels[self.groups == g])) < 2]
        if lacking:
            raise DataError(
                "A group has items of one label only.",
                where=f"group {lacking[0]}",
                expected="both labels in every group",
                got=f"{len(lacking)} groups with one label",
                do="Form the groups so that each holds what is to be detected and what it is to be told from.",
            )
        if self.input.forwards < self.weight.forwards:
            raise DataError(
                "Weight noise was given more passes than the input noise it is compared with.",
                expected=f"at least {self.weight.forwards:g} passes of input noise",
                got=f"{self.input.forwards:g}",
                do="Draw input noise more often: added value is judged at equal cost.",
            )

    @property
    def blocks(self) -> dict[str, Block]:
        """The three kinds of scores by name."""
        return {"output": self.output, "input": self.input, "weight": self.weight}

    @property
    def scores(self) -> dict[str, Values]:
        """Every score by ``block: name``."""
        return {f"{block}: {name}": score for block, held in self.blocks.items() for name, score in held.scores.items()}


class AddedValue(msgspec.Struct, frozen=True, kw_only=True):
    """How well the items are told apart, and what the weight scores add.

    Attributes:
        single: AUC of each score by itself, named ``block: score``.
        models: Cross-validated AUC of each combination in ``MODELS``, in that order.
        added: AUC of all scores minus AUC of output and input scores.
        least: Smallest gain that counts.
    """

    single: tuple[Estimate, ...]
    models: tuple[Estimate, ...]
    added: Estimate
    least: float = LEAST

    @property
    def found(self) -> bool:
        """Whether the gain reaches ``least`` and its interval lies above 0."""
        value, low = self.added.value, self.added.low
        return value is not None and low is not None and value >= self.least and low > 0.0

    @property
    def verdict(self) -> str:
        """The gain in words, with its interval and what would have been found."""
        gain = f"{self.added.value:+.3f} AUC [{self.added.low:+.3f}, {self.added.high:+.3f}]"
        said = f"weight scores add {gain} to output and input scores ({self.added.n} groups)"
        if self.found:
            return said
        return f"no evidence of added value: {said}; a gain of {self.smallest:.3f} would be found 4 times in 5"

    @property
    def smallest(self) -> float:
        """Smallest true gain that is found 4 times in 5, in AUC: it must reach ``least`` and be told from 0."""
        assert self.added.low is not None and self.added.high is not None
        error = (self.added.high - self.added.low) / 2 / normal_quantile((1 + self.added.level) / 2)
        told = smallest_detectable(self.added, power=POWER)
        assert told is not None, "its interval has two ends"
        return max(self.least + normal_quantile(POWER) * error, told)


def auc(scores: Values, labels: Values) -> float:
    """Probability that an item of label 1 has the higher score, ties counting half: the area under the ROC curve.

    Args:
        scores: [item].
        labels: [item], 0 or 1, both present.

    Source: Mann & Whitney (1947), by ranks; Hanley & McNeil (1982) for its reading.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    one = np.asarray(labels) == 1
    ones, zeros = int(one.sum()), int((~one).sum())
    return float((ranks[one].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def added_value(features: Features, *, level: float = 0.95, least: float = LEAST) -> AddedValue:
    """AUC of single scores and of cross-validated combinations, and the gain from the weight scores.

    Every AUC is taken within a group and then averaged over groups, so two networks are never compared by a score
    that differs between networks for other reasons; gains are paired within the group. Combinations are ridge
    logistic regressions fitted to the items of other groups.

    Args:
        features: Items, labels and scores.
        level: Confidence level of the intervals.
        least: Smallest gain that counts as added value.

    Raises:
        DataError: If there are fewer than ``FEWEST_GROUPS`` groups.

    Source: Demler, Pencina & D'Agostino (2012), for why the gain of one model over another that it contains cannot be
    tested on the items that both were fitted to; Obuchowski (1997) for groups as the unit.
    """
    labels = np.asarray(features.labels, dtype=np.float64)
    names, groups = np.unique(features.groups, return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        raise DataError(
            "There are too few groups to judge added value.",
            expected=f"at least {FEWEST_GROUPS} seeds or networks",
            got=str(len(names)),
            do="Repeat the experiment with more seeds.",
        )
    whole = {name: block.matrix() for name, block in features.blocks.items()}
    combined = {
        model: _by_group(held_out(np.hstack([whole[part] for part in parts]), labels, groups=groups), labels, groups)
        for model, parts in MODELS.items()
    }
    alone = {name: _by_group(score, labels, groups) for name, score in features.scores.items()}
    alpha, step = checked_alpha(level), _step(labels, groups)
    gain = _estimate("added by weight scores", combined[_ALL] - combined[_BOTH], alpha=alpha, step=step, lowest=-1.0)
    return AddedValue(
        single=tuple(_estimate(name, aucs, alpha=alpha, step=step) for name, aucs in alone.items()),
        models=tuple(_estimate(name, aucs, alpha=alpha, step=step) for name, aucs in combined.items()),
        added=gain,
        least=least,
    )


def _by_group(scores: Values, labels: FloatArray, groups: NDArray[np.intp]) -> FloatArray:
    """AUC within each group, ``[group]``."""
    return np.array([auc(scores[groups == g], labels[groups == g]) for g in range(int(groups.max()) + 1)])


def _step(labels: FloatArray, groups: NDArray[np.intp]) -> float:
    """Smallest change that the AUC of a typical group can show: one pair of items the other way round."""
    ones, everything = np.bincount(groups, weights=labels), np.bincount(groups)
    return float(np.median(1.0 / (ones * (everything - ones))))


def _estimate(name: str, values: FloatArray, *, alpha: float, step: float, lowest: float = 0.0) -> Estimate:
    """Mean over groups with a t interval.

    Groups that all show the same AUC (often 1) may still differ by less than an AUC can show, so their spread is
    never taken to be below ``step``.
    """
    n = len(values)
    spread = max(float(values.std(ddof=1)), step)
    zero = np.zeros(())
    mean = Crossed(
        centre=np.asarray(values.mean()),
        draw=zero,
        example=np.asarray(spread**2 / n),
        residual=zero,
        draw_df=0,
        example_df=n - 1,
    )
    value, half = float(mean.centre), float(mean.half_width(alpha))
    return Estimate(
        name=name,
        value=value,
        low=max(value - half, lowest),
        high=min(value + half, 1.0),
        level=1.0 - alpha,
        n=n,
        unit="AUC",
        method="t over groups, AUC within each",
        p=mean.p_value() if lowest < 0.0 else None,
    )
