"""Where people agree and where they do not: half of them says which it is, the other half is what a model is held to.

Were the same votes to do both, an item would be among the clear ones because its few votes happened to agree, and every
model would seem too unsure there.
"""

from collections.abc import Callable, Mapping
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.claims import Tested, Words
from wheeltap.core import seeds
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.effect import has_width, without_point
from wheeltap.suites.lens.audits.disagreement_panel import FEW_FOR_ENTROPY, Believed, shown
from wheeltap.suites.lens.audits.headline import amount
from wheeltap.suites.lens.record import AgreementBand, FarItem, SystemScore
from wheeltap.suites.lens.stats.disagreement import entropy, js_distance, soft_accuracy, total_variation
from wheeltap.suites.lens.stats.panels import Halves, among, to_all_people

Chosen = NDArray[np.bool_]

SPLIT, MOST_AGREE, ALL_AGREE = "fewer than two thirds agree", "two thirds or more agree", "all agree"

LEVELS: Final = 5
"""Levels of confidence in a picture of reliability, with equally many items each."""

FEWEST: Final = 10
"""Items of a band (of a level in it) below which nothing is said of it."""

FAR: Final = 20
"""Items that are listed."""

_ALONE: Final = {SPLIT: 3, MOST_AGREE: 5, ALL_AGREE: 3}
"""By band, most votes of an item of which one less makes halves that cannot be in the band."""

What = Callable[[FloatArray, Halves], FloatArray]
"""From probabilities ``[item, label]`` and the people in halves to ``[split, item]``."""

_TWO_THIRDS: Final = 2 / 3 - 1e-9


def unsure(read: Believed, *, margin: float, title: str) -> Tested:
    """Whether a model is surer of its most likely label than people who disagree are of it."""
    gap, items = _within(read, SPLIT, _more_sure)
    if items < FEWEST:
        return Tested(
            test=None, status="not_applicable", title=title,
            found=f"Half of the people agrees by less than two thirds on {items:.0f} items; {FEWEST} are needed.",
        )  # fmt: skip
    cells = gap(read.panel.halves, np.arange(len(read.p))).mean(0)
    sample = read.panel.sample(cells, lambda known: known.halved(cells, gap, alone=_ALONE[SPLIT]), bound=None)
    test = sample.effect(margin=margin, name="confidence less share of people", unit="probability")
    over = (test.value or 0.0) > 0.0
    sure, chose = (_mean(read, SPLIT, one) for one in (_confidence, _chose))
    numbers = (
        f"where half of the people agrees by less than two thirds (about {items:,.0f} items), {read.name} gives its "
        f"most likely label {sure:.3f}, and {chose:.3f} of the other half chose it (difference {test})."
    )
    if not has_width(test):
        said = f"{numbers[0].upper()}{numbers[1:]} It is the same on all of them, so there is no test."
        return Tested(test=None, status="measured", title=title, found=said, beside=(without_point(test),))
    way = "overconfident" if over else "underconfident"
    said = f"{way.capitalize()} where people disagree: {numbers}"
    return Tested(
        test=test, margin=margin, evidence=sample, alarm=over, title=title, found=said,
        otherwise=numbers[0].upper() + numbers[1:], words=Words(way, "calibrated", "may be off"),
        brief=f"{way} where people disagree (gives {sure:.3f} to labels that {chose:.3f} of them chose; difference "
        f"{amount(test)}).",
    )  # fmt: skip


def _more_sure(p: FloatArray, split: Halves) -> FloatArray:
    return _confidence(p, split) - _chose(p, split)


def _confidence(p: FloatArray, split: Halves) -> FloatArray:
    """Probability of the most likely label, ``[split, item]``."""
    return np.broadcast_to(p.max(1), split.one.shape[:2])


def _chose(p: FloatArray, split: Halves) -> FloatArray:
    """Share of the smaller half who chose it, ``[split, item]``."""
    return soft_accuracy(split.target, p)


def bands(split: Halves) -> Mapping[str, Chosen]:
    """By the name of each band, clearest last, which splits and items are in it, ``[split, item]``.

    One person agrees with himself: an item counts where the larger half has two or more.
    """
    agreed, several = split.other.max(-1), split.two.sum(-1) > 1
    whole = agreed > 1.0 - 1e-9
    return {
        SPLIT: several & (agreed < _TWO_THIRDS), MOST_AGREE: several & (agreed >= _TWO_THIRDS) & ~whole,
        ALL_AGREE: several & whole,
    }  # fmt: skip


def _within(
    read: Believed, band: str, what: What, rows: NDArray[np.bool_] | None = None
) -> tuple[Callable[[Halves, NDArray[np.integer]], FloatArray], float]:
    """A measure ``[split, item]`` whose mean over items is that of ``what`` over a band; and its number of items."""

    def parts(split: Halves, at: NDArray[np.integer]) -> tuple[FloatArray, Chosen]:
        return what(read.p[at], split), bands(split)[band] & (True if rows is None else rows[at])

    values, chosen = parts(read.panel.halves, np.arange(len(read.p)))
    cells, items = among(values, chosen)
    mean, share = float(cells.mean()) if len(cells) else 0.0, items / len(read.p)

    def measure(split: Halves, at: NDArray[np.integer]) -> FloatArray:
        values, chosen = parts(split, at)
        return mean + (values - mean) * chosen / share

    return measure, items


def bands_of(read: Believed) -> tuple[AgreementBand, ...]:
    """A model in each band that has items enough."""
    enough = read.panel.halves.one[0].sum(-1).min() > FEW_FOR_ENTROPY
    made: list[AgreementBand] = []
    for name in _ALONE:
        gap, items = _within(read, name, _more_sure)
        if items < FEWEST:
            continue
        levels = _levels(read, name)
        spread = read.panel.of_halves(gap, "gap", "difference of probabilities", alone=_ALONE[name])
        made.append(
            AgreementBand(
                subject=read.name, band=name, items=items, confidence=_mean(read, name, _confidence),
                share=_mean(read, name, _chose), gap=shown(read.name, spread),
                variation=_mean(read, name, lambda p, split: total_variation(p, split.target)),
                people=_mean(read, name, lambda _, split: total_variation(split.other, split.target)),
                entropy=_mean(read, name, lambda p, split: entropy(p) - entropy(split.target)) if enough else None,
                points=tuple(point for _, point in levels), levels=tuple(level for level, _ in levels),
            )
        )  # fmt: skip
    return tuple(made)


def far_items(read: Believed, names: tuple[str, ...], *, seed: int) -> tuple[FarItem, ...]:
    """Items where a model is furthest from people; the interval is that of the distance to all people."""
    distance, made = js_distance(read.p, read.panel.held), list[FarItem]()
    for at in np.argsort(-distance, kind="stable")[:FAR]:
        p, votes, item = read.p[at], read.panel.votes[at], int(read.panel.rows[at])

        def measure(held: FloatArray, p: FloatArray = p) -> FloatArray:
            return js_distance(p, held)

        low, high = to_all_people(votes, measure, rng=seeds.generator(seed, "disagreement", "item", item))
        made.append(
            FarItem(
                subject=read.name, item=item, id=names[item] if names else "", votes=tuple(map(int, votes)),
                probability=tuple(map(float, p)), distance=float(distance[at]), low=low, high=high,
            )
        )  # fmt: skip
    return tuple(made)


def _levels(read: Believed, band: str) -> list[tuple[float, SystemScore]]:
    """Mean confidence and share of people at each level of confidence."""
    p = read.p.max(1)
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, LEVELS + 1)[1:-1]))
    level = cast(NDArray[np.intp], np.searchsorted(edges, p, side="left"))
    found: list[tuple[float, SystemScore]] = []
    for at in range(len(edges) + 1):
        chose, items = _within(read, band, _chose, level == at)
        if items >= FEWEST:
            share = read.panel.of_halves(chose, "share of people", "share", alone=_ALONE[band])
            found.append((_mean(read, band, _confidence, level == at), shown(read.name, share)))
    return found


def _mean(read: Believed, band: str, what: What, rows: NDArray[np.bool_] | None = None) -> float:
    halves = read.panel.halves
    return float(among(what(read.p, halves), bands(halves)[band] & (True if rows is None else rows))[0].mean())
