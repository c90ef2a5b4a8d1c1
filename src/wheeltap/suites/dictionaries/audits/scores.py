"""Scores of a dictionary, row by row, and how far they lie beyond those of nulls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, final

import msgspec
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

SHARE: Final = "share"
_TINY: Final = 1e-12
_SEEDS: Final = 100  # nulls of each kind beyond which none are planned


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """A score of one dictionary, row by row; the mean over rows is the score."""

    values: Values  # [row]
    rows: NDArray[np.integer[Any]]  # number of the example that each is of, [row]
    # The same by attribute, where there are several.
    parts: Mapping[str, "Scores"] = field(default_factory=dict[str, "Scores"])
    also: Mapping[str, float] = field(default_factory=dict[str, float])  # other numbers of the dictionary, by name

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
        NoAnswer: If it is not shown that the answers rest on these sites.

    Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4.
    """
    clean, mean, kept, left = (read["margin"][at] for at in range(len(REPLACEMENTS)))
    drop = Sample((clean - mean)[None]).effect(name="drop", unit="logits")
    if drop.value is None or drop.low is None or drop.low <= 0.0:
        raise NoAnswer("not_applicable", "It is not shown that the answers rest on this site: with its mean vector the "
                       f"margin falls by {drop}. So no share of it can be kept.")  # fmt: skip
    # A row is the share plus what its example adds to it to first order, as in f1_of.
    shares = [(own, float(own.mean()) / drop.value) for own in (kept - mean, clean - left)]
    first, second = (share + (own - share * (clean - mean)) / drop.value for own, share in shares)
    rows = np.arange(len(clean))
    return Scores(first, rows), Scores(second, rows)


def edited(read: Arrays, *, least: int) -> Scores:
    """Whether an edit of a few features gives the answer of the exact patch, pair by pair.

    Of pairs alone whose answer the patch changes: with the others, doing nothing is right. Also the magnitude of the
    edits.

    Raises:
        NoAnswer: If there are fewer than ``least`` such pairs of every attribute.
    """
    parts, counts, sizes = dict[str, Scores](), list[str](), list[Values]()
    for name, mine in by_attribute(read).items():
        moved = ~mine["unedited"].astype(bool)
        counts.append(f"{name} {int(moved.sum())} of {len(moved)}")
        if moved.sum() >= least:
            parts[name] = Scores(mine["agree"][moved].astype(np.float64), mine["rows"][moved])
            sizes.append(mine["magnitude"][moved])
    if not counts:
        raise NoAnswer("not_applicable", "No two examples differ in one attribute alone, so there is no pair to edit. "
                       "Give such examples, or leave out attributes that follow from others.")  # fmt: skip
    if not parts:
        raise NoAnswer("not_applicable", "There are too few pairs whose answer an exchange of the whole vector "
                       f"changes: {'; '.join(counts)}, where {least} are needed. Give more examples, or a site that "
                       "the answers rest on.")  # fmt: skip
    return joined(parts, also={"magnitude of edits": float(np.concatenate(sizes).mean())})


def joined(parts: Mapping[str, Scores], also: Mapping[str, float] | None = None) -> Scores:
    """Scores of several attributes, one after another."""
    values, rows = (np.concatenate([getattr(one, name) for one in parts.values()]) for name in ("values", "rows"))
    return Scores(values, rows, parts, also or {})


def f1_of(read: Arrays) -> Scores:
    """F1 of the feature that fits each value best on other examples: mean over values and attributes.

    A row is the F1 plus what its example adds to it to first order: their mean is the F1, and the spread of their mean
    is that of the F1 (influence function of a ratio of means). Also the precision and the recall of these features.

    Raises:
        NoAnswer: If no attribute was measured.
    """
    parts, fits = dict[str, Scores](), list[Values]()
    for name, mine in by_attribute(read).items():
        fires = mine["fires"].astype(np.float64)
        holds = (mine["labels"][None] == np.arange(len(fires))[:, None]).astype(np.float64)
        both, bottom = fires * holds, fires + holds
        mean = np.maximum(bottom.mean(1, keepdims=True), _TINY)
        f1 = 2.0 * both.mean(1, keepdims=True) / mean
        parts[name] = Scores((f1 + (2.0 * both - f1 * bottom) / mean).mean(0), read["rows"])
        fits.append(np.array([(both.sum(1) / np.maximum(of.sum(1), 1.0)).mean() for of in (fires, holds)]))
    if not parts:
        raise NoAnswer("not_applicable", "No attribute of the task could be measured: each needs two values or more, "
                       "and examples of each value in both halves of the examples.")  # fmt: skip
    precision, recall = (float(one) for one in np.mean(fits, axis=0))
    also = {"precision": precision, "recall": recall}
    return Scores(np.mean([one.values for one in parts.values()], axis=0), read["rows"], parts, also)


@final
@dataclass(frozen=True, eq=False)
class NullComparison:
    """A score beside the same of one kind of null, paired row by row."""

    kind: str
    own: Scores  # of the dictionary
    others: Sequence[Scores]  # of each null of this kind
    groups: NDArray[Any] | None  # which group each row is in
    margin: float  # smallest lead of interest
    bound: float | None = None  # most that a difference of two rows can be; None where nothing bounds it
    bounded: bool = True  # whether scores lie in [0, 1]

    @cached_property
    def sample(self) -> Sample:
        """Differences ``[null, row]``: what their mean is. A row that nobody drew may lead by the whole score, 1."""
        gaps = np.stack([self.own.values - one.values for one in self.others])
        return Sample(gaps, bound=self.bound, groups=self.groups, least=1.0 / max(self.margin, _TINY))

    @cached_property
    def score(self) -> float:
        """Of the nulls, on average."""
        return float(np.mean([one.mean for one in self.others]))

    @cached_property
    def mean(self) -> Estimate:
        """The mean difference."""
        return self.sample.effect(name=f"more than {self.kind}", unit=SHARE)

    @cached_property
    def lead(self) -> MemberTest:
        """How far the dictionary lies from one more null: allows for the spread from null to null, and over rows."""
        name, means = f"more than {self.kind}", [one.mean for one in self.others]
        made = Sample(self.sample.values.mean(0)[None], groups=self.groups).effect(name=name, unit=SHARE)
        if made.low is None or made.high is None:
            return MemberTest(name=name, unit=SHARE, value=made.value, count=len(means), method=made.method)
        units = len(self.own.values) if self.groups is None else len(np.unique(self.groups))
        # A difference that every row has is known no better than to one row (or group) in as many.
        error = (made.high - made.low) / 2.0 / normal_quantile(0.975) or 1.0 / (units + 2.0)
        scale = NumberScale(SHARE, normal=self.bounded)
        # Nulls are drawn, and do not fail as trained nets may.
        return members.seen_alone(
            members.one_of(Single(self.own.mean, error, made.method), means, name=name, scale=scale)
        )


def least_sure(nulls: Sequence[NullComparison]) -> tuple[str, Estimate]:
    """The kind over which the lead is shown least surely, and that lead.

    Better than every kind: all must be shown (Berger 1982), so that several kinds cost no correction.
    """
    tested = [(null.lead.above(null.margin, "more"), null) for null in nulls]
    p, null = max(tested, key=lambda one: (1.0 if one[0] is None else one[0], -(one[1].lead.value or 0.0)))
    test = msgspec.structs.replace(null.lead.estimate, p=None if any(one is None for one, _ in tested) else p)
    if null.bounded and test.low is not None and test.high is not None:
        test = msgspec.structs.replace(test, low=max(test.low, -1.0), high=min(test.high, 1.0))
    return null.kind, test


def enough(nulls: Sequence[NullComparison], alpha: float) -> str:
    """How many nulls of each kind would decide at this level, all else as it is, in a sentence."""
    seeds = now = min(null.lead.count for null in nulls)
    known = [(null, null.lead.law) for null in nulls if null.lead.law is not None]
    if now < 2 or len(known) < len(nulls):
        return "One null of a kind, or several alike, show no spread: give more (--seeds 3)."
    while (seeds := seeds + max(seeds // 4, 1)) <= _SEEDS:
        laws = [(law.among(math.ceil(null.lead.count * seeds / now)), null.margin) for null, law in known]
        found = all(2.0 * law.at_most(margin) <= alpha for law, margin in laws)
        if found or any(2.0 * law.at_least(margin) <= alpha / (2 * len(laws)) for law, margin in laws):
            return f"About {seeds} nulls of each kind would decide, if leads and spreads stay (--seeds {seeds})."
    return f"Not even {_SEEDS} nulls of each kind would: they lie too far apart, or there are too few examples."
