"""Intervals over raters and items cover; ``python -m benchmarks.levels.raters CSV ...``: beside a bootstrap of both.

The files are ConvAbuse's. The bootstrap is written by itself: raters and items are drawn with replacement, a vote
counts as often as its rater and its item were drawn, and what votes and items that share nothing add twice is taken off.
"""

import csv
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import HELD, WRONG, Row
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.disagreement import js_distance, shares
from wheeltap.stats.panels import agreement
from wheeltap.stats.raters import Ballots, mean_over, offsets

Rng = np.random.Generator

_LABELS: Final = 3
_MANY: Final = 200


@dataclass(frozen=True)
class Crowd:
    """A design: how many people there are, and how many of them vote on an item."""

    items: int
    raters: int
    votes: int
    bias: float

    def __str__(self) -> str:
        return f"{self.items} items, {self.votes} of {self.raters} raters, bias {self.bias:g}"

    def draw(self, rng: Rng) -> tuple[Ballots, FloatArray]:
        """Votes, and what a model believes."""
        clear = 1.2 * rng.standard_normal((self.items, _LABELS))
        bias = self.bias * rng.standard_normal((self.raters, _LABELS))
        who = np.argsort(rng.random((self.items, self.raters)), axis=1)[:, : self.votes].ravel()
        item = np.repeat(np.arange(self.items), self.votes)
        label = (clear[item] + bias[who] + rng.gumbel(size=(len(item), _LABELS))).argmax(axis=1)
        believed = np.exp(clear)
        return _ballots(item, who, label, _LABELS), believed / believed.sum(axis=1, keepdims=True)


CROWDS: Final = (
    Crowd(100, 4, 3, 0.7), Crowd(200, 8, 3, 0.5), Crowd(150, 8, 8, 0.5), Crowd(300, 30, 3, 0.7), Crowd(200, 8, 2, 0.0),
    Crowd(100, 3, 3, 0.5),
)  # fmt: skip


def _ballots(item: NDArray[np.int64], rater: NDArray[np.int64], label: NDArray[np.int64], labels: int) -> Ballots:
    votes = np.zeros((int(item.max()) + 1, labels), dtype=np.int64)
    np.add.at(votes, (item, label), 1)
    return Ballots(item, rater, label, votes)


Table = Callable[[Ballots, FloatArray], FloatArray]


def _agreement(known: Ballots, believed: FloatArray) -> FloatArray:
    return known.crossed(agreement(known.votes), 2.0 * known.agreed)


def _soft(known: Ballots, believed: FloatArray) -> FloatArray:
    chosen = np.eye(believed.shape[1])[believed.argmax(axis=1)]
    return known.crossed((shares(known.votes) * chosen).sum(axis=1), chosen[known.item, known.label])


def _distance(known: Ballots, believed: FloatArray) -> FloatArray:
    values = js_distance(believed, shares(known.votes))
    return known.counting(values, lambda held, at: js_distance(believed[at], held))


NUMBERS: Final[dict[str, Table]] = {
    "agreement of two people": _agreement, "soft accuracy": _soft, "JS distance to votes": _distance,
}  # fmt: skip


def covered(crowd: Crowd, *, reps: int, rng: Rng) -> Iterator[Row]:
    """Coverage of each number; the truth is that of many raters and items."""
    # Of so many raters, as many vote on an item as in the crowd: panels of another size are at another distance.
    many = Crowd(_MANY, _MANY, crowd.votes, crowd.bias)
    truth = np.mean([[table(*many.draw(rng)).mean() for table in NUMBERS.values()] for _ in range(reps)], axis=0)
    held, widths, means = np.zeros(len(NUMBERS)), np.zeros(len(NUMBERS)), list[list[float]]()
    for _ in range(reps):
        known, believed = crowd.draw(rng)
        made = [mean_over(table(known, believed), name=name, unit="u") for name, table in NUMBERS.items()]
        ends = np.array([_ends(one) for one in made])
        held += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
        widths += ends[:, 1] - ends[:, 0]
        means.append([one.value or 0.0 for one in made])
    ideal = 2 * 1.96 * np.std(means, axis=0)
    for at, name in enumerate(NUMBERS):
        yield Row(
            claim=name, design=str(crowd), figure="covered", rate=float(held[at]) / reps, low=HELD,
            families=reps, also=(("as wide as known spreads", float(widths[at] / reps / ideal[at])),),
        )  # fmt: skip


def _ends(one: Estimate) -> tuple[float, float]:
    assert one.low is not None and one.high is not None, "two raters or more"
    return one.low, one.high


def biased(crowd: Crowd, *, reps: int, rng: Rng) -> Row:
    """How often somebody is said to differ where nobody does."""
    wrong = sum(any(one.sure for one in offsets(crowd.draw(rng)[0], ordinal=False)) for _ in range(reps))
    return Row(claim="a rater differs", design=str(crowd), figure="false", rate=wrong / reps, high=WRONG, families=reps)


def bootstrapped(known: Ballots, weight: Callable[[NDArray[np.int64]], FloatArray], *, draws: int, rng: Rng) -> float:
    """Standard error of a mean over items of each item's mean of ``weight`` of a label, by drawing raters and items."""
    items, raters = int(known.item.max()) + 1, int(known.rater.max()) + 1
    given = weight(known.label)
    people = np.bincount(known.item, minlength=items)
    value = float((np.bincount(known.item, weights=given, minlength=items) / people).mean())
    rest = (given - value) / people[known.item] / items
    found: dict[str, list[float]] = {"both": [], "votes": []}
    for _ in range(draws):
        who = np.bincount(rng.integers(0, raters, raters), minlength=raters)
        what = np.bincount(rng.integers(0, items, items), minlength=items)
        found["both"].append(float((rest * who[known.rater] * what[known.item]).sum()))
        found["votes"].append(float((rest * rng.poisson(1.0, len(rest))).sum()))
    # Where both are drawn, what is a vote's alone counts three times; of few raters too little is drawn.
    spread = max(float(np.var(found["both"])) - 2.0 * float(np.var(found["votes"])), 0.0)
    return math.sqrt(spread * raters / (raters - 1))


def convabuse(path: Path) -> Ballots:
    """Votes of eight named people, two or more on an item, read without the package."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    several = [[(at, int(row[f"a{at}"]) + 3) for at in range(1, 9) if row[f"a{at}"]] for row in rows]
    kept = [(item, who - 1, label) for item, one in enumerate(one for one in several if len(one) > 1)
            for who, label in one]  # fmt: skip
    item, rater, label = np.array(kept).T
    return _ballots(item, rater, label, 5)


def widths(known: Ballots, *, draws: int, rng: Rng) -> Iterator[tuple[int, float, float]]:
    """Label, width in standard errors by the package, and by the bootstrap: shares of votes for each label."""
    for label in range(known.votes.shape[1]):

        def weight(chosen: NDArray[np.int64], label: int = label) -> FloatArray:
            return np.asarray(chosen == label, dtype=np.float64)

        table = known.crossed(shares(known.votes)[:, label], weight(known.label))
        spread = table.mean(axis=1)
        items = table.mean(axis=0)
        rest = table - spread[:, None] - items + table.mean()
        noise = float(np.square(rest).sum()) / (rest.shape[0] - 1) / (rest.shape[1] - 1) / rest.size
        own = spread.var(ddof=1) / len(spread) + items.var(ddof=1) / len(items) - noise
        yield label, float(np.sqrt(own)), bootstrapped(known, weight, draws=draws, rng=rng)


def run(reps: int) -> list[Row]:
    """All crowds."""
    rng, rows = np.random.default_rng(28), list[Row]()
    for crowd in CROWDS:
        rows += covered(crowd, reps=reps, rng=rng)
        rows.append(biased(Crowd(crowd.items, crowd.raters, crowd.votes, 0.0), reps=reps, rng=rng))
    return rows


def main() -> None:
    for name in sys.argv[1:]:
        for label, own, drawn in widths(convabuse(Path(name)), draws=2000, rng=np.random.default_rng(0)):
            print(f"  {name}, label {label - 3}: standard error {own:.4f}, drawn {drawn:.4f}, ratio {own / drawn:.2f}")


if __name__ == "__main__":
    main()
