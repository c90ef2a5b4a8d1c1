"""Scores of a dictionary, row by row, and how far they lie beyond those of nulls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import NoAnswer
from wheeltap.audits.case import Arrays, Values
from wheeltap.core.records import Estimate
from wheeltap.stats import members
from wheeltap.stats._scipy import normal_quantile
from wheeltap.stats.members import MemberTest, NumberScale, Single
from wheeltap.stats.sample import Sample
from wheeltap.suites.dictionaries.specs import REPLACEMENTS, STATUSES

Rows = NDArray[np.integer[Any]]

SHARE: Final = "share"
_TINY: Final = 1e-12


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """A score of one dictionary, row by row; the mean over rows is the score.

    Attributes:
        values: ``[row]``.
        rows: Number of the example that each is of, ``[row]``.
        parts: The same by attribute, where there are several.
    """

    values: Values
    rows: Rows
    parts: Mapping[str, "Scores"] = field(default_factory=dict[str, "Scores"])

    @property
    def mean(self) -> float:
        """The score."""
        return float(self.values.mean())


def by_attribute(read: Arrays) -> dict[str, Arrays]:
    """Arrays of each attribute that was measured, in the order of their names."""
    found: dict[str, Arrays] = {}
    for key, array in sorted(read.items()):
        name, mark, own = key.rpartition("|")
        if mark:
            found.setdefault(name, {})[own] = array
    return {name: mine for name, mine in found.items() if STATUSES[int(mine["status"])] == "measured"}


def reconstructed(read: Arrays) -> tuple[Scores, Scores]:
    """What reconstructions keep of the margin between the mean vector and the vector itself, and what the rest lacks.

    The first is 1 where answers are as sure as with the vector, 0 where they are as sure as with the mean vector; the
    second is 1 where what the dictionary leaves out is worth no more than the mean vector.

    Raises:
        NoAnswer: If the answers do not rest on these sites.

    Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4.
    """
    clean, mean, kept, left = (read["margin"][at] for at in range(len(REPLACEMENTS)))
    drop = Sample((clean - mean)[None]).effect(name="drop", unit="logits")
    if drop.value is None or drop.low is None or drop.low <= 0.0:
        raise NoAnswer("not_applicable", "The answers do not rest on this site: with its mean vector the margin falls "
                       f"by {drop}. There is nothing to keep.")  # fmt: skip
    rows = np.arange(len(clean))
    return Scores((kept - mean) / drop.value, rows), Scores((clean - left) / drop.value, rows)


def edited(read: Arrays, *, budget: int, least: int) -> Scores:
    """Whether an edit of at most ``budget`` features gives the answer of the exact patch, pair by pair.

    Of pairs alone whose answer the patch changes: with the others, doing nothing is right.

    Raises:
        NoAnswer: If there are fewer than ``least`` such pairs of every attribute.
    """
    at = np.flatnonzero(read["budgets"] == budget)
    if not len(at):
        raise NoAnswer("error", f"No edit of {budget} features was read: {read['budgets'].tolist()} were.")
    parts, counts = dict[str, Scores](), list[str]()
    for name, mine in by_attribute(read).items():
        moved = ~mine["unedited"].astype(bool)
        counts.append(f"{name} {int(moved.sum())} of {len(moved)}")
        if moved.sum() >= least:
            parts[name] = Scores(mine["agree"][int(at[0])][moved].astype(np.float64), mine["rows"][moved])
    if not parts:
        raise NoAnswer(
            "not_applicable",
            f"There are too few pairs whose answer an exchange of the whole vector changes: "
            f"{'; '.join(counts) or 'no attribute'}, where {least} are needed. Give more examples, or a site that the "
            "answers rest on.",
        )
    return joined(parts)


def joined(parts: Mapping[str, Scores]) -> Scores:
    """Scores of several attributes, one after another."""
    values, rows = (np.concatenate([getattr(one, name) for one in parts.values()]) for name in ("values", "rows"))
    return Scores(values, rows, parts)


def f1_of(read: Arrays) -> Scores:
    """F1 of the feature that fits each value best on other examples: mean over values and attributes.

    A row is the F1 plus what its example adds to it to first order: their mean is the F1, and the spread of their mean
    is that of the F1 (influence function of a ratio of means).

    Raises:
        NoAnswer: If no attribute was measured.
    """
    parts = dict[str, Scores]()
    for name, mine in by_attribute(read).items():
        fires = mine["fires"].astype(np.float64)
        holds = (mine["labels"][None] == np.arange(len(fires))[:, None]).astype(np.float64)
        top, bottom = 2.0 * fires * holds, fires + holds
        mean = np.maximum(bottom.mean(1, keepdims=True), _TINY)
        f1 = top.mean(1, keepdims=True) / mean
        parts[name] = Scores((f1 + (top - f1 * bottom) / mean).mean(0), read["rows"])
    if not parts:
        raise NoAnswer("not_applicable", "No attribute of the task could be measured: each needs two values or more, "
                       "and examples of each.")  # fmt: skip
    return Scores(np.mean([one.values for one in parts.values()], axis=0), read["rows"], parts)


@final
@dataclass(frozen=True, eq=False)
class NullComparison:
    """A score beside the same of one kind of null, paired row by row.

    Attributes:
        kind: Of null.
        own: Of the dictionary.
        others: Of each null.
        groups: Which group each row is in.
        bound: Most that a difference of two rows can be; ``None`` where nothing bounds it.
        bounded: Whether scores lie in [0, 1].
    """

    kind: str
    own: Scores
    others: Sequence[Scores]
    groups: NDArray[Any] | None
    bound: float | None = None
    bounded: bool = True

    @property
    def sample(self) -> Sample:
        """Differences ``[null, row]``: what their mean is."""
        gaps = np.stack([self.own.values - one.values for one in self.others])
        return Sample(gaps, bound=self.bound, groups=self.groups)

    @property
    def score(self) -> float:
        """Of the nulls, on average."""
        return float(np.mean([one.mean for one in self.others]))

    @property
    def mean(self) -> Estimate:
        """The mean difference."""
        return self.sample.effect(name=f"more than {self.kind}", unit=SHARE)

    @property
    def lead(self) -> MemberTest:
        """How far the dictionary lies from one more null: allows for the spread from null to null, and over rows."""
        name, means = f"more than {self.kind}", [one.mean for one in self.others]
        made = Sample(self.sample.values.mean(0)[None], groups=self.groups).effect(name=name, unit=SHARE)
        if made.low is None or made.high is None:
            return MemberTest(name=name, unit=SHARE, value=made.value, count=len(means), method=made.method)
        units = len(self.own.values) if self.groups is None else len(np.unique(self.groups))
        # A difference that every row has is known no better than to one row (or group) in as many.
        error = (made.high - made.low) / 2.0 / normal_quantile(0.975) or 1.0 / (units + 2.0)
        scale = NumberScale(SHARE, bounded=self.bounded)
        return members.one_of(Single(self.own.mean, error, made.method), means, name=name, scale=scale)
