"""The two-way bootstrap: tables against plain means and a slow bootstrap, few raters, groups, and coverage."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.levels import raters as levels
from benchmarks.levels.raters import Crowd
from wheeltap.stats.clusters import clustered
from wheeltap.stats.crossed import crossed
from wheeltap.suites.lens.stats.owen2007 import MAX_ROWS, Ballots
from wheeltap.suites.lens.stats.votes import agreement, js_distance, shares


def ballots(chosen: list[list[int | None]], labels: int = 3) -> Ballots:
    """From a table ``[item][rater]``."""
    cells = [(i, r, label) for i, row in enumerate(chosen) for r, label in enumerate(row) if label is not None]
    item, rater, label = np.array(cells).T
    votes = np.zeros((len(chosen), labels), dtype=np.int64)
    np.add.at(votes, (item, label), 1)
    return Ballots(item, rater, label, votes)


def agreed(known: Ballots) -> np.ndarray:
    return known.table(agreement(known.votes), agreement(known.others))


@pytest.mark.parametrize("votes", [2, 5])
def test_tables_keep_the_means_of_items_and_are_the_same_again(votes: int) -> None:
    known, believed = Crowd(40, 6, votes).draw(np.random.default_rng(1))
    same, far = agreement(known.votes), js_distance(believed, shares(known.votes))
    for table, values in (
        (agreed(known), same),
        (known.of_shares(far, lambda held, at: js_distance(believed[at], held)), far),
        (known.of_halves(same, lambda split, _: (split.target * split.other).sum(-1)), same),
    ):
        assert table.shape == (int(known.effective_raters), 40)
        np.testing.assert_allclose(table.mean(0), values, atol=1e-12)
        assert np.array_equal(agreed(known), agreed(replace(known)))


def test_the_spread_is_that_of_a_slow_bootstrap_less_the_noise_that_it_counts_twice_too_often() -> None:
    """Of the share of a label on a full table, where a cell's weight is that of its item times that of its rater."""
    rng, items, raters = np.random.default_rng(3), 120, 7
    chosen = (rng.random((items, raters)) < rng.beta(4.0, 4.0, (1, raters))).astype(int)
    known = ballots(chosen.tolist(), labels=2)
    table = known.table(shares(known.votes)[:, 1], shares(known.others)[:, 1])
    means = np.empty(4000)
    for draw in range(len(means)):
        of_items, of_raters = (np.bincount(rng.integers(0, n, n), minlength=n) for n in (items, raters))
        means[draw] = (of_items @ chosen @ of_raters) / (items * raters)
    noise = chosen - chosen.mean(0) - chosen.mean(1, keepdims=True) + chosen.mean()
    rater_part = chosen.mean(0).var() / (raters - 1) - chosen.mean(0).var() / raters  # few raters: n / (n - 1)
    expected = means.var() + rater_part - 2.0 * np.square(noise).sum() / (items * raters) ** 2
    spread = crossed(table)
    assert float(spread.draw + spread.example) == pytest.approx(expected, rel=0.15)


def test_groups_are_resampled_whole() -> None:
    """Items that are repeated eight times tell no more than the items, where each is a group of its own."""
    chosen = np.random.default_rng(4).integers(0, 2, (30, 6))
    single, repeated = ballots(chosen.tolist(), labels=2), ballots(chosen.repeat(8, axis=0).tolist(), labels=2)
    grouped = replace(repeated, groups=np.arange(240) // 8)
    widths = [crossed(clustered(agreed(one), one.groups)).half_width(0.05) for one in (single, grouped)]
    assert float(widths[1]) == pytest.approx(float(widths[0]), rel=1e-6)


def test_raters_with_very_different_numbers_of_votes_count_as_fewer() -> None:
    rng = np.random.default_rng(3)
    equal, unequal = (Crowd(300, 12, 3, load=load).draw(rng)[0] for load in (0.0, 3.0))
    assert 11.0 < equal.effective_raters <= 12.0 and unequal.effective_raters < 7.0
    assert len(agreed(Crowd(300, 3 * MAX_ROWS, 3).draw(rng)[0])) == MAX_ROWS


def test_agreement_by_chance_is_that_of_different_raters() -> None:
    known = Crowd(12, 5, 4, fewest=2, bias=1.0).draw(np.random.default_rng(2))[0]
    sizes = known.votes.sum(1)
    alike = different = 0.0
    for first in range(len(known.item)):
        for second in range(len(known.item)):
            if known.rater[first] != known.rater[second]:
                weight = 1.0 / sizes[known.item[first]] / sizes[known.item[second]]
                different += weight
                alike += weight * (known.label[first] == known.label[second])
    assert known.chance_agreement == pytest.approx(alike / different)
    assert replace(known, rater=np.zeros_like(known.rater)).chance_agreement == 1.0  # nobody else


def test_one_rater_or_two_on_everything_say_nothing_of_others() -> None:
    known = Crowd(50, 2, 2).draw(np.random.default_rng(0))[0]
    assert agreed(known).shape == (1, 50)
    assert known.table(shares(known.votes)[:, 0], shares(known.others)[:, 0], fewest=2).shape == (2, 50)
    single = replace(known, rater=np.zeros_like(known.rater))
    assert agreed(single).shape == (1, 50)


@pytest.mark.parametrize(
    "crowd",
    [Crowd(80, 10, 10, signal=0.0, bias=0.0), Crowd(80, 10, 10, signal=0.0, bias=1.0), Crowd(200, 8, 2)],
    ids=str,
)
def test_intervals_over_raters_and_items_cover(crowd: Crowd) -> None:
    reps = 25
    for row in levels.covered(crowd, reps=reps, rng=np.random.default_rng(28), items=6_000):
        assert row.rate >= row.low - 3.3 * np.sqrt(row.low * (1.0 - row.low) / reps), row
        assert dict(row.also)["as wide as known spreads"] < 2.5, row
