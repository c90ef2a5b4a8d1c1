"""Coverage of intervals over raters and items (Owen 2007): simulated panels whose truth is known.

Every number on people that a report gives has its row. The truth is that of very many items, each with raters of its
own, which knows nothing of raters who vote on several items.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import HELD, Row
from wheeltap.audits.claims import Hypothesis
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray
from wheeltap.suites.lens.audits.disagreement import against, distances, unsure
from wheeltap.suites.lens.audits.panel import JS, Beliefs, Panel, among_people
from wheeltap.suites.lens.stats.owen2007 import Ballots
from wheeltap.suites.lens.stats.votes import js_distance

Rng = np.random.Generator
Ints = NDArray[np.int64]

MARGIN: Final = 0.02
_LABELS: Final = 3
_MANY: Final = 60_000
"""Items, each with raters of its own, whose mean is the truth."""


@dataclass(frozen=True)
class Crowd:
    """A design: how many raters there are, and how many of them vote on an item.

    Attributes:
        items: Number of items.
        raters: Number of raters; they vote on items drawn at random.
        votes: Most votes on an item.
        fewest: Fewest votes on an item: each item's number is drawn between the two; ``None`` where all are equal.
        signal: Standard deviation of an item's preference for each label; at 0, without ``bias``, all raters guess.
        bias: Standard deviation of a rater's preference for each label.
        load: Half the logarithm of how many times as likely the busiest rater is to vote on an item as the idlest.
    """

    items: int
    raters: int
    votes: int
    fewest: int | None = None
    signal: float = 1.2
    bias: float = 0.5
    load: float = 0.0

    def __str__(self) -> str:
        votes = f"{self.votes}" if self.fewest is None else f"{self.fewest} to {self.votes}"
        guessing = f", guessing, bias {self.bias:g}" if self.signal == 0.0 else ""
        return f"{self.items} items, {votes} of {self.raters} raters{f', load {self.load:g}' if self.load else ''}{guessing}"

    def draw(self, rng: Rng, *, strangers: bool = False) -> tuple[Ballots, FloatArray]:
        """Votes and a model's probabilities ``[item, label]``; of ``strangers`` nobody votes twice."""
        busy = self.load * np.linspace(-1.0, 1.0, self.raters)
        order = np.argsort(-busy - rng.gumbel(size=(self.items, self.raters)), axis=1)
        fewest = self.votes if self.fewest is None else self.fewest
        sizes = rng.integers(fewest, self.votes + 1, self.items)
        item, place = np.nonzero(np.arange(self.raters) < sizes[:, None])
        rater = np.arange(len(item)) if strangers else order[item, place]
        clear = self.signal * rng.standard_normal((self.items, _LABELS))
        bias = self.bias * rng.standard_normal((int(rater.max()) + 1, _LABELS))
        label = (clear[item] + bias[rater] + rng.gumbel(size=(len(item), _LABELS))).argmax(axis=1)
        believed = np.exp(clear + 0.6 * rng.standard_normal(clear.shape))
        votes = np.zeros((self.items, _LABELS), dtype=np.int64)
        np.add.at(votes, (item, label), 1)
        known = Ballots(item, rater, label, votes, seed=int(rng.integers(2**31)))
        return known, believed / believed.sum(axis=1, keepdims=True)


CROWDS: Final = (
    Crowd(80, 10, 10, signal=0.0, bias=0.0), Crowd(80, 10, 10, signal=0.0), Crowd(80, 10, 10, signal=0.0, bias=1.0),
    Crowd(1000, 5, 5), Crowd(300, 12, 6, fewest=2),
    Crowd(1000, 5, 5, signal=0.0, bias=0.0), Crowd(300, 12, 6, fewest=2, load=1.5), Crowd(200, 8, 2),
    Crowd(300, 30, 3),
)  # fmt: skip
"""Guessing raters, many items with few raters, and unequal numbers of votes come first."""


def reported(known: Ballots, believed: FloatArray, *, strangers: bool = False) -> dict[str, Estimate]:
    """All numbers that a report gives of people, and of a model and a surer one."""
    ballots = None if strangers else known
    panel = Panel(known.votes, np.arange(len(known.votes)), 0, True, (), known.seed, ballots)
    surer = believed**2 / (believed**2).sum(1, keepdims=True)
    read = Beliefs("model", panel, believed)
    two = panel.sample(panel.by_shares(lambda held, at: js_distance(surer[at], held) - js_distance(believed[at], held)))
    claims = [among_people(panel), distances(read), against(read, MARGIN), unsure(read, margin=MARGIN)]
    found = [
        *(one for claim in claims for one in _numbers(claim)),
        two.effect(margin=MARGIN, name="two models", unit=JS),
    ]
    return {one.name: one for one in found}


def _numbers(claim: Hypothesis) -> list[Estimate]:
    return [*([] if claim.test is None else [claim.test]), *claim.beside]


def truth_of(crowd: Crowd, rng: Rng, items: int = _MANY) -> dict[str, float]:
    """The numbers of raters who vote once: an item's value does not depend on whether they vote elsewhere."""
    found = reported(*replace(crowd, items=items).draw(rng, strangers=True), strangers=True)
    return {name: one.value for name, one in found.items() if one.value is not None}


def covered(crowd: Crowd, *, reps: int, rng: Rng, items: int = _MANY) -> Iterator[Row]:
    """Coverage of each number, and its width against one of a known spread; ``items`` give the truth."""
    truth = truth_of(crowd, rng, items)
    held: dict[str, list[tuple[bool, float, float]]] = {name: [] for name in truth}
    for _ in range(reps):
        for name, one in reported(*crowd.draw(rng)).items():
            if one.low is not None and one.high is not None and one.value is not None and name in truth:
                held[name].append((one.low <= truth[name] <= one.high, one.high - one.low, one.value))
    for name, found in held.items():
        if found:
            inside, widths, values = np.array(found, dtype=np.float64).T
            known = 2.0 * 1.96 * float(values.std())
            yield Row(
                claim=name[:40], design=str(crowd), figure="covered", rate=float(inside.mean()), low=HELD,
                families=len(found), also=(("as wide as known spreads", float(widths.mean()) / known),),
            )  # fmt: skip


def run(reps: int) -> list[Row]:
    """All crowds."""
    rng = np.random.default_rng(28)
    return [row for crowd in CROWDS for row in covered(crowd, reps=reps, rng=rng)]
