"""Raters as a sample: tables against plain means, few people, one vote, and a bootstrap written independently."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.levels import raters as levels
from benchmarks.levels.raters import Crowd, convabuse, widths
from tests.published import published
from wheeltap.stats.crossed import FloatArray, crossed
from wheeltap.stats.disagreement import js_distance, shares
from wheeltap.stats.panels import agreement, kappa
from wheeltap.stats.raters import MOST, Ballots, kappa_of, mean_over, offsets


def known(chosen: list[list[int | None]], labels: int = 3) -> Ballots:
    """Of a table ``[item][rater]``."""
    cells = [(i, r, label) for i, row in enumerate(chosen) for r, label in enumerate(row) if label is not None]
    item, rater, label = np.array(cells).T
    votes = np.zeros((len(chosen), labels), dtype=np.int64)
    np.add.at(votes, (item, label), 1)
    return Ballots(item, rater, label, votes)


def test_with_everybody_on_every_item_the_table_is_what_each_gave() -> None:
    chosen = np.random.default_rng(0).integers(0, 3, (9, 4))
    people = known(chosen.tolist())
    is_1: FloatArray = np.asarray(people.label == 1, dtype=np.float64)
    table = people.crossed(shares(people.votes)[:, 1], is_1)
    np.testing.assert_allclose(table, (chosen == 1).T.astype(float), atol=1e-12)


@pytest.mark.parametrize("votes", [2, 3, 5])
def test_tables_keep_the_means_of_items(votes: int) -> None:
    people, believed = Crowd(40, 6, votes, 0.5).draw(np.random.default_rng(1))
    same, far = agreement(people.votes), js_distance(believed, shares(people.votes))
    np.testing.assert_allclose(people.crossed(same, 2.0 * people.agreed).mean(0), same, atol=1e-12)
    table = people.counting(far, lambda held, at: js_distance(believed[at], held))
    np.testing.assert_allclose(table.mean(0), far, atol=1e-12)
    beyond = kappa_of(people)
    assert beyond.value == pytest.approx(kappa(people.votes).value)
    slow = np.mean([np.mean([a == b for i, a in enumerate(row) for j, b in enumerate(row) if i != j])
                    for row in (people.label[people.item == at] for at in range(40))])  # fmt: skip
    assert same.mean() == pytest.approx(slow) == pytest.approx(people.agreed.mean())


def test_more_raters_than_rows_are_put_together() -> None:
    people, _ = Crowd(300, 2 * MOST, 3, 0.0).draw(np.random.default_rng(2))
    table = people.crossed(agreement(people.votes), 2.0 * people.agreed)
    assert table.shape == (MOST, 300)
    np.testing.assert_allclose(table.mean(0), agreement(people.votes), atol=1e-12)


def test_one_rater_and_one_item_have_no_interval() -> None:
    for shape in ((1, 5), (5, 1)):
        made = mean_over(np.random.default_rng(0).random(shape), name="x", unit="u")
        assert made.low is made.high is None and made.method.startswith("no interval")


def test_a_rater_of_one_vote_and_raters_who_all_agree() -> None:
    rows: list[list[int | None]] = [[0, 0, 0, None] for _ in range(30)]
    rows[0][3] = 0
    found = offsets(known(rows), ordinal=False)
    assert [one.gap is None for one in found] == [False, False, False, True] and not any(one.sure for one in found)
    assert all(one.gap.low < 0.0 < one.gap.high for one in found[:3] if one.gap and one.gap.low and one.gap.high)
    assert kappa_of(known(rows)).value is None


@pytest.mark.parametrize("ordinal", [True, False])
def test_a_rater_who_differs_is_named(ordinal: bool) -> None:
    rng = np.random.default_rng(4)
    chosen = rng.integers(0, 3, (150, 1)).repeat(5, axis=1)
    chosen = np.where(rng.random(chosen.shape) < 0.2, rng.integers(0, 3, chosen.shape), chosen)
    chosen[:, 2] = np.where(rng.random(150) < 0.4, 2, chosen[:, 2])
    found = offsets(known(chosen.tolist()), ordinal=ordinal)
    assert [one.rater for one in found if one.sure] == [2]
    gap = found[0].gap
    assert gap is not None and gap.value is not None and gap.value > 0.1 and found[0].label == (None if ordinal else 2)
    assert sorted(one.rater for one in found) == [0, 1, 2, 3, 4]
    steps = chosen / 2.0
    slow = (steps[:, 2] - np.delete(steps, 2, axis=1).mean(1)).mean()
    if ordinal:
        assert gap.value == pytest.approx(slow)


@pytest.mark.parametrize("crowd", [Crowd(100, 4, 3, 0.7), Crowd(200, 8, 3, 0.5)])
def test_intervals_over_raters_and_items_cover(crowd: Crowd) -> None:
    reps = 150
    for row in levels.covered(crowd, reps=reps, rng=np.random.default_rng(28)):
        assert row.rate >= stats.binom.ppf(0.001, reps, 0.94) / reps, row
        assert dict(row.also)["as wide as known spreads"] < 1.4, row


def test_items_alone_would_not_cover() -> None:
    rng, crowd, reps = np.random.default_rng(5), Crowd(300, 4, 4, 1.0), 80
    narrow = 0
    for _ in range(reps):
        people, _ = crowd.draw(rng)
        share = shares(people.votes)[:, 0]
        spread = crossed(share[None, :])
        narrow += abs(float(spread.centre) - 1.0 / 3.0) <= float(spread.half_width(0.05))
    assert narrow / reps < 0.6


@pytest.mark.parametrize("part", ["test", "valid"])
def test_as_wide_as_a_bootstrap_of_raters_and_items(part: str) -> None:
    people = convabuse(published(f"convabuse/{part}.csv"))
    ratios = [own / drawn for _, own, drawn in widths(people, draws=600, rng=np.random.default_rng(0))]
    assert abs(np.mean(ratios) - 1.0) < 0.15 and abs(ratios[-1] - 1.0) < 0.15, ratios  # the last is chosen most often


@pytest.mark.full
def test_all_crowds() -> None:
    rows = levels.run(300)
    slack = 3.1 * np.sqrt(0.95 * 0.05 / 300)
    assert [str(row) for row in rows if not row.low - slack <= row.rate <= row.high + slack] == []
