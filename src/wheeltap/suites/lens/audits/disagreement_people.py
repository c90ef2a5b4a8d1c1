"""What votes say without any model: how far people agree, and what one label an item hides."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from wheeltap.audits.claims import Tested, without_interval
from wheeltap.core import seeds
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.effect import without_point
from wheeltap.suites.lens.audits.disagreement_panel import Believed, Panel, in_words
from wheeltap.suites.lens.record import People, Threshold
from wheeltap.suites.lens.stats.disagreement import entropy, js_distance, top, wasserstein
from wheeltap.suites.lens.stats.panels import agreement, another, kappa, resampled
from wheeltap.suites.lens.stats.raters import kappa_of

SUBJECT: Final = "people"
"""Who is said to have been measured."""

STRANGERS: Final = (
    "Who voted is not known: intervals suppose other people on every item. Where the same people vote on many items, "
    "those are too narrow."
)

SHARES: Final = (0.0, 0.5, 2 / 3, 1.0)
"""Shares of the people who must agree on an item for it to be kept; more than half, at .5."""

DRAWS: Final = 200
"""Of people, for what another draw would change: shares err by less than .04."""

_CELLS: Final = 40_000_000
_ROUNDING: Final = 1e-9


def among_people(panel: Panel) -> Tested:
    """How far people agree, and how far one half of them is from the other: the ceiling of any score by votes."""
    far, soft = panel.ceiling
    alike = agreement(panel.votes)
    same = panel.mean(alike, "agreement of two people", "probability",
                      table=lambda known: known.crossed(alike, known.alike))  # fmt: skip
    beyond = without_point(kappa(panel.votes) if panel.ballots is None else kappa_of(panel.ballots, panel.groups))
    beyond = beyond if panel.groups is None or panel.ballots is not None else without_interval(beyond)
    more = [] if panel.refused else [panel.of_shares(lambda held, _: entropy(held), "entropy of votes", "nats")]
    if panel.ordinal:
        more.append(
            panel.of_halves(lambda split, _: wasserstein(split.other, split.target),
                            "Wasserstein distance of two halves", "steps")
        )  # fmt: skip
    known = "undefined: nobody disagrees" if beyond.value is None else in_words(beyond)
    said = (
        f"Two people agree on an item with probability {in_words(same)} (kappa {known}); half of them is "
        f"{in_words(far)} from the other half (JS distance, nats, square root), and {in_words(soft)} of it chose the "
        "label that most of the other half chose."
    )
    left = f" {panel.single:,} items with one vote are left out." if panel.single else ""
    who = f" {STRANGERS}" if panel.ballots is None else ""
    return Tested(
        test=None, status="measured", title="Agreement of people", found=f"{said}{left}{who}", brief=said,
        beside=(same, beyond, far, soft, *more),
    )  # fmt: skip


def one_label(panel: Panel, held: Sequence[Believed], scored: Mapping[str, FloatArray], *, seed: int) -> People:
    """What is lost where items must have one label: items, labels that other people would change, orders of systems.

    Args:
        panel: Votes.
        held: Systems of known probabilities.
        scored: Scores ``[item]`` of the others.
        seed: Of draws of people.
    """
    collapsed = top(panel.votes)
    right = {one.name: (top(one.p) * collapsed).sum(1) for one in held} | dict(scored)
    whole = np.array([values.mean() for values in right.values()])
    agreed, thresholds = panel.held.max(1), list[Threshold]()
    for share in SHARES:
        # As benchmarks do it: a majority is more than half of the votes.
        kept = agreed > share + _ROUNDING if share in (0.0, 0.5) else agreed >= share - _ROUNDING
        scores = np.array([values[kept].mean() for values in right.values()]) if kept.any() else np.zeros(0)
        thresholds.append(
            Threshold(share=share, items=int(kept.sum()), scores=tuple(map(float, scores)),
                      flips=_flips(whole, scores) if share else None)
        )  # fmt: skip
    redrawn, order, best = _redrawn(panel, held, seed=seed)
    two, (few, most) = panel.halves, panel.sizes
    return People(
        items=len(panel.votes), single=panel.single, fewest=few, most=most, labels=panel.labels,
        ordinal=panel.ordinal, systems=tuple(right), thresholds=tuple(thresholds), redrawn=redrawn, order=order,
        best=best, reordered=_reordered(panel, held), halves=float(another(top(two.one), top(two.two)).mean()),
    )  # fmt: skip


def _redrawn(panel: Panel, held: Sequence[Believed], *, seed: int) -> tuple[float, float | None, float | None]:
    """Labels, orders and best systems that another draw of as many people would change."""
    draws = int(np.clip(_CELLS // panel.votes.size, 10, DRAWS))
    collapsed, several = top(panel.votes), [top(one.p) for one in held]
    whole = np.array([(one * collapsed).sum(1).mean() for one in several])
    moved, orders, bests = 0.0, list[float](), list[float]()
    for label in resampled(panel.votes, draws=draws, rng=seeds.generator(seed, "disagreement", "redrawn")):
        moved += float(another(collapsed, label).mean()) / draws
        if len(several) > 1:
            scores = np.array([(one * label).sum(1).mean() for one in several])
            orders.append(_flips(whole, scores) or 0.0)
            bests.append(float(scores.argmax() != whole.argmax()))
    return (moved, float(np.mean(orders)), float(np.mean(bests))) if orders else (moved, None, None)


def _flips(one: FloatArray, two: FloatArray) -> float | None:
    """Share of pairs whose order differs; an equal pair counts half. ``None`` of fewer than two."""
    if not 1 < len(one) == len(two):
        return None
    at = np.triu_indices(len(one), 1)
    signs = [np.sign(np.round(x[at[0]] - x[at[1]], 12)) for x in (one, two)]
    return float((np.abs(signs[0] - signs[1]) / 2.0).mean())


def _reordered(panel: Panel, held: Sequence[Believed]) -> float | None:
    """Pairs that the score by one label and the distance to people order differently."""
    right = np.array([(top(one.p) * top(panel.votes)).sum(1).mean() for one in held])
    return _flips(right, np.array([-js_distance(one.p, panel.held).mean() for one in held]))


def hidden(people: People) -> Tested:
    """What one label an item hides, in words."""
    kept = {one.share: 1.0 - one.items / people.items for one in people.thresholds}
    said = [
        f"{100 * kept[0.5]:.1f} % of the items have no label that more than half chose, and on {100 * kept[1.0]:.0f} % "
        "not all agree.",
        f"Of the labels that most chose, another draw of as many people changes {100 * people.redrawn:.1f} % (drawn "
        "from the votes: too few, where few voted).",
        f"Two halves of the people choose different labels for {100 * people.halves:.1f} %.",
    ]
    if people.order is not None and people.best is not None:
        said.append(
            f"It changes the order of {100 * people.order:.1f} % of the pairs of systems, and the best one in "
            f"{100 * people.best:.0f} % of draws."
        )
    if people.reordered is not None:
        said.append(f"Score and distance to people order {100 * people.reordered:.0f} % of the pairs differently.")
    return Tested(test=None, status="measured", title="What one label an item hides", found=" ".join(said),
                  brief=said[0])  # fmt: skip
