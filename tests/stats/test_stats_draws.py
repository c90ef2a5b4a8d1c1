"""Verdicts on the share of draws: levels whatever the number of looks, power, and the numbers that are named."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wheeltap.stats.draws import HALF, RARE, Draws, draws_needed, p_share
from wheeltap.stats.sample import Sample

Array = NDArray[np.float64]
MARGIN = 0.02


def row(losses: Array, examples: int = 400, *, rng: np.random.Generator | None = None, looks: int = 1) -> Draws:
    """0/1 answers of which each draw loses such a share: the same ones in every draw, or (``rng``) its own."""
    luck = np.arange(examples)[None] / examples if rng is None else rng.random((len(losses), examples))
    values = (luck < losses[:, None]) * 1.0 - (luck < -losses[:, None])
    return Draws(Sample(values, 1.0, (-0.05, 0.95), skewed=True), looks)


@pytest.mark.parametrize("share", [RARE, HALF])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_however_often_draws_are_counted_the_level_holds(share: float, level: float) -> None:
    rng, most = np.random.default_rng(0), 160
    counts = (rng.random((4000, most)) < share).cumsum(1)
    table = np.array([[p_share(min(count, draws), draws, share) for count in range(most)] for draws in range(1, most)])
    p = table[np.arange(most - 1), counts[:, : most - 1].clip(max=most - 1)]
    assert (p.min(1) <= level).mean() <= level + 2.0 * (level / 4000) ** 0.5
    assert (np.diff(table[:, 0]) < 0.0).all(), "each draw of the other kind lowers it"


def test_draws_needed_are_the_fewest_that_decide() -> None:
    for count, share, p in ((0, RARE, 0.025), (1, RARE, 0.025), (3, HALF, 0.001)):
        needed = draws_needed(count, share, p)
        assert needed is not None
        assert p_share(count, needed, share) <= p < p_share(count, needed - 1, share)
    assert draws_needed(0, RARE, 0.025) == 40 and draws_needed(0, RARE, 0.025 / 13) == 65
    assert draws_needed(5, RARE, 0.025, most=64) is None
    assert 0.9**29 < 0.05 < p_share(0, 29, RARE), "one look takes 29 at .05; any number of looks a few more"


def test_one_draw_in_ten_may_lose_much_and_the_mean_does_not_matter() -> None:
    safe = row(np.r_[np.full(3, 0.5), np.zeros(125)])
    assert (safe.below(0.02, one_sided=True) or 0.0) <= 0.05 < (safe.above(0.02) or 0.0)
    assert safe.counted(0.02).value == 125
    mean = row(np.r_[np.full(40, 0.5), np.zeros(88)])
    assert (mean.above(0.02) or 0.0) <= 0.05 < (mean.below(0.02, one_sided=True) or 0.0), "of few draws that lose all"
    half = row(np.full(16, 0.1))
    assert (half.above(0.02) or 0.0) <= 0.05


def test_a_loss_that_examples_do_not_show_is_not_safe_with_any_draws() -> None:
    few = row(np.zeros(128), examples=150)
    p, power = few.below(0.02, one_sided=True), few.power(0.02, one_sided=True, alpha=0.05)
    assert p is not None and p > 0.05 and few.wanted(0.02, alpha=0.05, most=1000) == 128
    assert power is not None and power.draws is None and (power.examples or 0) > 150


def test_a_pair_is_equivalent_only_where_draws_differ_little_either_way() -> None:
    either = np.r_[np.full(32, 0.1), np.full(32, -0.1)]
    values = row(either).sample
    pair = Draws(Sample(values.values, 2.0, (-1.0, 1.0), skewed=True), one_sided=False)
    assert (pair.below(0.02, one_sided=False) or 0.0) > 0.5 < (pair.above(0.02) or 0.0)
    assert pair.counted(0.02).value == 0
    one_way = Draws(Sample(-row(np.full(64, 0.1)).sample.values, 2.0, (-1.0, 1.0), skewed=True), one_sided=False)
    assert (one_way.above(0.02) or 0.0) < 0.01
    none = Draws(Sample(np.zeros((64, 400)), 2.0, (-1.0, 1.0), skewed=True), one_sided=False)
    assert (none.below(0.02, one_sided=False) or 0.0) <= 0.05


def decided(losses: Array, rng: np.random.Generator, *, first: int = 16, looks: int = 4) -> tuple[str, int]:
    """The verdict of an audit that adds draws until it is clear, and how many it made."""
    whole, draws = row(losses, 400, rng=rng, looks=looks).sample.values, first
    while True:
        known = Draws(Sample(whole[:draws], 1.0, (-0.05, 0.95), skewed=True), looks)
        wanted = known.wanted(MARGIN, alpha=0.05, most=len(losses))
        if wanted <= draws:
            break
        draws = wanted
    above, below = known.above(MARGIN) or 0.0, known.below(MARGIN, one_sided=True) or 0.0
    return "costs" if above <= 0.05 else "safe" if below <= 0.05 else "open", draws


@pytest.mark.parametrize(("bad", "lost"), [(0.1, 0.2), (0.2, 0.2), (0.1, 0.0201), (1.0, 0.0201)])
def test_a_scheme_of_which_draws_lose_much_is_hardly_ever_safe(bad: float, lost: float) -> None:
    rng, runs = np.random.default_rng(3), 30
    told = [decided(np.where(rng.random(128) < bad, lost, 0.0), rng)[0] for _ in range(runs)]
    assert told.count("safe") <= 4  # of .05 more than that in one of 60 cases


@pytest.mark.parametrize("losses", [np.r_[np.zeros(64), np.full(64, 0.04)], np.full(128, 0.02)])
def test_a_scheme_that_loses_no_more_than_the_margin_hardly_ever_costs(losses: Array) -> None:
    rng = np.random.default_rng(4)
    assert [decided(rng.permutation(losses), rng)[0] for _ in range(30)].count("costs") <= 4


def test_clear_rows_are_decided_with_few_draws() -> None:
    rng = np.random.default_rng(5)
    assert {decided(np.zeros(128), rng) for _ in range(5)} == {("safe", 40)}
    assert {decided(np.full(128, 0.3), rng) for _ in range(5)} == {("costs", 16)}
    assert {decided(np.full(128, 0.015), rng)[1] for _ in range(5)} == {16}, "what examples leave open stops early"
