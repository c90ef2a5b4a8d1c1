"""Where people agree and where they do not: half of them says which it is, the other half is what a model is held to.

Were the same votes to do both, an item would be among the clear ones because its few votes happened to agree, and every
model would seem too unsure there.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.claims import Tested, Words
from wheeltap.audits.disagreement_panel import FEW_FOR_ENTROPY, Believed, Panel, mean_of, shown
from wheeltap.audits.headline_recorded import amount
from wheeltap.core import seeds
from wheeltap.core.lens import AgreementBand, FarItem, SystemScore
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.disagreement import entropy, js_distance, soft_accuracy, total_variation
from wheeltap.stats.effect import has_width, mean_effect, without_point
from wheeltap.stats.panels import among, to_all_people
from wheeltap.stats.sample import Sample

Chosen = NDArray[np.bool_]

SPLIT, MOST_AGREE, ALL_AGREE = "fewer than two thirds agree", "two thirds or more agree", "all agree"

LEVELS: Final = 5
"""Levels of confidence in a picture of reliability, with equally many items each."""

FEWEST: Final = 10
"""Items of a band (of a level in it) below which nothing is said of it."""

FAR: Final = 20
"""Items that are listed."""

_TWO_THIRDS: Final = 2 / 3 - 1e-9


def unsure(read: Believed, *, margin: float, title: str) -> Tested:
    """Whether a model is surer of its most likely label than people who disagree are of it."""
    chosen = next(mask for name, mask in bands(read.panel) if name == SPLIT)
    p, got = _confidence(read)
    cells, items = among(p - got, chosen)
    if items < FEWEST:
        return Tested(
            test=None, status="not_applicable", title=title,
            found=f"Half of the people agrees by less than two thirds on {items:.0f} items; {FEWEST} are needed.",
        )  # fmt: skip
    test = mean_effect(cells[None, :], margin=margin, name="confidence less share of people", unit="probability")
    over = (test.value or 0.0) > 0.0
    sure, chose = (float(among(x, chosen)[0].mean()) for x in (np.broadcast_to(p, got.shape), got))
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
        test=test, margin=margin, evidence=Sample(cells[None, :]), alarm=over, title=title, found=said,
        otherwise=numbers[0].upper() + numbers[1:], words=Words(way, "calibrated", "may be off"),
        brief=f"{way} where people disagree (gives {sure:.3f} to labels that {chose:.3f} of them chose; difference "
        f"{amount(test)}).",
    )  # fmt: skip


def bands(panel: Panel) -> Iterator[tuple[str, Chosen]]:
    """Names of the bands, clearest last, each with the splits and items in it, ``[split, item]``.

    One person agrees with himself: an item counts where the larger half has two or more.
    """
    agreed, several = panel.halves.other.max(-1), panel.halves.two.sum(-1) > 1
    whole = agreed > 1.0 - 1e-9
    yield SPLIT, several & (agreed < _TWO_THIRDS)
    yield MOST_AGREE, several & (agreed >= _TWO_THIRDS) & ~whole
    yield ALL_AGREE, several & whole


def bands_of(read: Believed) -> tuple[AgreementBand, ...]:
    """A model in each band that has items enough."""
    halves, (p, got) = read.panel.halves, _confidence(read)
    far = total_variation(read.p, halves.target), total_variation(halves.other, halves.target)
    spread = None
    if halves.one[0].sum(-1).min() > FEW_FOR_ENTROPY:
        spread = entropy(read.p) - entropy(halves.target)
    made: list[AgreementBand] = []
    for name, chosen in bands(read.panel):
        gap, items = among(p - got, chosen)
        if items < FEWEST:
            continue
        levels = _levels(read.name, p, got, chosen)
        made.append(
            AgreementBand(
                subject=read.name, band=name, items=items, confidence=_mean(np.broadcast_to(p, got.shape), chosen),
                share=_mean(got, chosen), gap=shown(read.name, mean_of(gap, "gap", "difference of probabilities")),
                variation=_mean(far[0], chosen), people=_mean(far[1], chosen),
                entropy=None if spread is None else _mean(spread, chosen),
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


def _confidence(read: Believed) -> tuple[FloatArray, FloatArray]:
    """Probability ``[item]`` of the most likely label, and the share ``[split, item]`` of people who chose it."""
    return read.p.max(1), soft_accuracy(read.panel.halves.target, read.p)


def _levels(name: str, p: FloatArray, got: FloatArray, chosen: Chosen) -> list[tuple[float, SystemScore]]:
    """Mean confidence and share of people at each level of confidence."""
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, LEVELS + 1)[1:-1]))
    level, found = np.searchsorted(edges, p, side="left"), list[tuple[float, SystemScore]]()
    for at in range(len(edges) + 1):
        here = chosen & (level == at)
        cells, items = among(got, here)
        if items >= FEWEST:
            share = mean_of(cells, "share of people", "share")
            found.append((_mean(np.broadcast_to(p, got.shape), here), shown(name, share)))
    return found


def _mean(values: FloatArray, chosen: Chosen) -> float:
    return float(among(values, chosen)[0].mean())
