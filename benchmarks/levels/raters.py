"""Intervals over raters and items cover; ``python -m benchmarks.levels.raters CSV ...``: beside a bootstrap of both.

Every number that a report gives of people has its row. The files are ConvAbuse's. The bootstrap shares nothing with the
package: raters and items are drawn with replacement, and every number is computed again from the votes that were drawn.
"""

import csv
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import HELD, WRONG, Row
from wheeltap.audits.claims import Hypothesis
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray, crossed
from wheeltap.suites.lens.audits.disagreement import JS, against, distances, unsure
from wheeltap.suites.lens.audits.panel import Beliefs, Panel, among_people, by_choice, left_out
from wheeltap.suites.lens.stats.panels import agreement, js_distance, shares, top
from wheeltap.suites.lens.stats.raters import Ballots, offsets

Rng = np.random.Generator
Ints = NDArray[np.int64]

MOST_HELD: Final = 0.97
"""Most of intervals of 95 % that hold the truth, of five people or more: of fewer, reports say that they are few."""

FEW: Final = 5
MARGIN: Final = 0.02
_LABELS: Final = 3
_MANY: Final = 60_000
"""Items, each with people of its own, whose mean is the truth."""


@dataclass(frozen=True)
class Crowd:
    """A design: how many people there are, and how many of them vote on an item.

    Attributes:
        items: How many.
        raters: How many people; they vote on items drawn at random.
        votes: On each item.
        bias: Standard deviation of a person's preference for each label.
        care: Standard deviation of the logarithm of a person's care: who takes none votes at random.
        load: Half the logarithm of how many times as likely the busiest is to vote on an item as the idlest.
        missing: Share of votes that were not given; two are left of each item at least.
        block: Items that have the same people, who vote on no other; 0 where all people vote everywhere.
    """

    items: int
    raters: int
    votes: int
    bias: float = 0.5
    care: float = 0.4
    load: float = 0.0
    missing: float = 0.0
    block: int = 0

    def __str__(self) -> str:
        people = f"{self.votes} of {self.raters} people" if not self.block else f"{self.votes} each {self.block} items"
        more = "".join(f", {name} {value:g}" for name, value in (
            ("bias", self.bias), ("care", self.care), ("load", self.load), ("missing", self.missing)) if value)  # fmt: skip
        return f"{self.items} items, {people}{more}"

    def draw(self, rng: Rng, *, strangers: bool = False) -> tuple[Ballots, FloatArray]:
        """Votes, and what a model believes; of ``strangers`` nobody votes twice."""
        busy = self.load * np.linspace(-1.0, 1.0, max(self.raters, 1))
        order = np.argsort(-busy - rng.gumbel(size=(self.items, len(busy))), axis=1)[:, : self.votes]
        if self.block:
            order = (np.arange(self.items) // self.block)[:, None] * self.votes + np.arange(self.votes)
        if strangers:
            order = np.arange(self.items * self.votes).reshape(self.items, self.votes)
        kept = rng.random(order.shape) >= self.missing
        kept[kept.sum(1) < 2, :2] = True
        who, item = order[kept], np.nonzero(kept)[0]
        clear = 1.2 * rng.standard_normal((self.items, _LABELS))
        people = int(who.max()) + 1
        bias = self.bias * rng.standard_normal((people, _LABELS))
        care = np.exp(self.care * rng.standard_normal(people))[who, None]
        label = (care * clear[item] + bias[who] + rng.gumbel(size=(len(item), _LABELS))).argmax(axis=1)
        believed = np.exp(clear + 0.6 * rng.standard_normal(clear.shape))
        return _ballots(item, who, label, _LABELS), believed / believed.sum(axis=1, keepdims=True)


CROWDS: Final = (
    Crowd(100, 3, 3), Crowd(300, 3, 2), Crowd(30, 5, 3), Crowd(1000, 5, 3), Crowd(200, 8, 2), Crowd(150, 8, 8),
    Crowd(200, 8, 3, bias=0.0, care=0.0), Crowd(300, 12, 4, load=1.5), Crowd(300, 12, 6, missing=0.4), Crowd(300, 30, 3),
    Crowd(300, 50, 5), Crowd(240, 0, 3, block=20),
)  # fmt: skip


def _ballots(item: Ints, rater: Ints, label: Ints, labels: int) -> Ballots:
    votes = np.zeros((int(item.max()) + 1, labels), dtype=np.int64)
    np.add.at(votes, (item, label), 1)
    return Ballots(item, rater, label, votes)


def reported(known: Ballots, believed: FloatArray, *, strangers: bool = False) -> dict[str, Estimate]:
    """All numbers that a report gives of people, and of a model and a surer one beside them."""
    panel = Panel(known.votes, np.arange(len(known.votes)), 0, True, (), 0, None if strangers else known)
    surer = believed**2 / (believed**2).sum(1, keepdims=True)
    read, far = Beliefs("model", panel, believed), [js_distance(p, panel.held) for p in (believed, surer)]
    gap = far[1] - far[0]
    two = panel.sample(gap, lambda one: one.counting(
        gap, lambda held, at: js_distance(surer[at], held) - js_distance(believed[at], held)))  # fmt: skip
    made = [among_people(panel), distances(read), against(read, MARGIN), unsure(read, margin=MARGIN)]
    made += [] if strangers else [left_out(panel, known), *by_choice(read)]
    found = [*(one for each in made for one in _numbers(each)), two.effect(margin=MARGIN, name="two models", unit=JS)]
    return {one.name: one for one in found}


def _numbers(claim: Hypothesis) -> list[Estimate]:
    return [*([] if claim.test is None else [claim.test]), *claim.beside]


def truth_of(crowd: Crowd, rng: Rng, items: int = _MANY) -> dict[str, float]:
    """Of people who vote once: an item's value does not know whether they vote elsewhere."""
    known, believed = replace(crowd, items=items, raters=crowd.votes, block=0, load=0.0).draw(rng, strangers=True)
    found = {name: one.value for name, one in reported(known, believed, strangers=True).items()}
    followed = np.bincount(known.item, weights=known.followed(top(believed)) - known.agreed) / known.votes.sum(1)
    found["follows people more than one of them"] = float(followed.mean())
    found["agreement with a person left out"] = float(agreement(known.votes).mean())
    return {name: value for name, value in found.items() if value is not None}


def covered(crowd: Crowd, *, reps: int, rng: Rng, items: int = _MANY) -> Iterator[Row]:
    """Coverage of each number, and its width against one of a known spread; ``items`` give the truth."""
    truth = truth_of(crowd, rng, items)
    held: dict[str, list[tuple[bool, float, float]]] = {name: [] for name in truth}
    for _ in range(reps):
        for name, one in reported(*crowd.draw(rng)).items():
            if one.low is not None and one.high is not None and one.value is not None:
                held[name].append((one.low <= truth[name] <= one.high, one.high - one.low, one.value))
    most = 1.0 if 0 < crowd.raters < FEW else MOST_HELD
    for name, found in held.items():
        if found:
            inside, widths, values = np.array(found, dtype=np.float64).T
            ideal = 2.0 * 1.96 * float(values.std())
            yield Row(
                claim=name[:40], design=str(crowd), figure="covered", rate=float(inside.mean()), low=HELD, high=most,
                families=len(found), also=(("as wide as known spreads", float(widths.mean()) / ideal),),
            )  # fmt: skip


def biased(crowd: Crowd, *, reps: int, rng: Rng) -> Row:
    """How often somebody is said to differ where nobody does."""
    wrong = sum(any(one.sure for one in offsets(crowd.draw(rng)[0], ordinal=False)) for _ in range(reps))
    return Row(claim="a rater differs", design=str(crowd), figure="false", rate=wrong / reps, high=WRONG, families=reps)


# ---- beside a bootstrap of raters and items ----------------------------------------------------------------------


Measure = Callable[[Ballots, FloatArray, FloatArray], float]
"""From votes, how often each vote and how often each item was drawn, to a number."""


def drawn_share(label: int) -> Measure:
    """Mean of votes for a label, each of which counts one over the votes on its item."""

    def measure(known: Ballots, votes: FloatArray, items: FloatArray) -> float:
        weight = votes * items[known.item] / known.votes.sum(1)[known.item]
        return float((weight * (known.label == label)).sum() / weight.sum())

    return measure


def drawn_agreement(known: Ballots, votes: FloatArray, items: FloatArray) -> float:
    """Mean of pairs that agree, each of which counts one over the pairs on its item; nobody is a pair."""
    people = known.votes.sum(1)
    counted = np.zeros(known.votes.shape)
    np.add.at(counted, (known.item, known.label), votes)
    itself = np.bincount(known.item, weights=votes**2, minlength=len(people))
    weight = items / (people * (people - 1))
    same, pairs = np.square(counted).sum(1) - itself, np.square(counted.sum(1)) - itself
    whole = float((weight * pairs).sum())
    return float((weight * same).sum()) / whole if whole > 0.0 else math.nan  # copies of one person alone were drawn


def bootstrapped(known: Ballots, measure: Measure, *, draws: int, rng: Rng) -> float:
    """Standard error of a number, by drawing raters and items.

    Where raters are drawn, what is of single votes and of items adds to the spread too: as much as where each vote is
    drawn by itself, which is taken off (Owen 2007, sec. 3). Of few raters too little is drawn, by 1 - 1 / raters.
    """
    items, raters, votes = len(known.votes), int(known.rater.max()) + 1, len(known.item)
    all_items, all_votes = np.ones(items), np.ones(votes)
    found: dict[str, list[float]] = {"raters": [], "items": [], "votes": []}
    for _ in range(draws):
        who, what, alone = (np.bincount(rng.integers(0, many, many), minlength=many).astype(np.float64)
                            for many in (raters, items, votes))  # fmt: skip
        found["raters"].append(measure(known, who[known.rater], all_items))
        found["items"].append(measure(known, all_votes, what))
        found["votes"].append(measure(known, alone, all_items))
    spread = {name: float(np.nanvar(values)) for name, values in found.items()}
    people = max(spread["raters"] - spread["votes"], 0.0) * raters / (raters - 1)
    return math.sqrt(people + spread["items"] * items / (items - 1))


def convabuse(path: Path) -> Ballots:
    """Votes of eight named people, two or more on an item, read without the package."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    several = [[(at, int(row[f"a{at}"]) + 3) for at in range(1, 9) if row[f"a{at}"]] for row in rows]
    kept = [(item, who - 1, label) for item, one in enumerate(one for one in several if len(one) > 1)
            for who, label in one]  # fmt: skip
    item, rater, label = np.array(kept).T
    return _ballots(item, rater, label, 5)


def widths(known: Ballots, *, draws: int, rng: Rng) -> Iterator[tuple[str, float, float]]:
    """Name, standard error by the package, and by the bootstrap."""
    same = agreement(known.votes)
    yield (
        "agreement",
        _error(known.crossed(same, known.alike)),
        bootstrapped(known, drawn_agreement, draws=draws, rng=rng),
    )
    for label in range(known.votes.shape[1]):
        share, others = shares(known.votes)[:, label], shares(known.others)[:, label]
        yield (
            f"share of label {label}", _error(known.crossed(share, others)),
            bootstrapped(known, drawn_share(label), draws=draws, rng=rng),
        )  # fmt: skip


def _error(table: FloatArray) -> float:
    spread = crossed(table)
    return math.sqrt(float(spread.draw + spread.example))


def run(reps: int) -> list[Row]:
    """All crowds."""
    rng, rows = np.random.default_rng(28), list[Row]()
    for crowd in CROWDS:
        rows += covered(crowd, reps=reps, rng=rng)
        if not crowd.block:
            rows.append(biased(replace(crowd, bias=0.0, care=0.0), reps=reps, rng=rng))
    return rows


def main() -> None:
    for name in sys.argv[1:]:
        for number, own, drawn in widths(convabuse(Path(name)), draws=2000, rng=np.random.default_rng(0)):
            print(f"  {name}, {number}: standard error {own:.4f}, drawn {drawn:.4f}, ratio {own / drawn:.2f}")


if __name__ == "__main__":
    main()
