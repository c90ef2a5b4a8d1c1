"""Raters as a sample: tables against plain means, few people, one vote, and a bootstrap written independently."""

from dataclasses import replace
from functools import cache
from typing import Final

import numpy as np
import pytest

from benchmarks.levels import Row
from benchmarks.levels import raters as levels
from benchmarks.levels.raters import Crowd, convabuse, widths
from tests.published import published
from wheeltap.suites.lens.stats.panels import agreement, js_distance, kappa, shares
from wheeltap.suites.lens.stats.raters import MOST, Ballots, kappa_of, mean_over, offsets


def known(chosen: list[list[int | None]], labels: int = 3) -> Ballots:
    """Of a table ``[item][rater]``."""
    cells = [(i, r, label) for i, row in enumerate(chosen) for r, label in enumerate(row) if label is not None]
    item, rater, label = np.array(cells).T
    votes = np.zeros((len(chosen), labels), dtype=np.int64)
    np.add.at(votes, (item, label), 1)
    return Ballots(item, rater, label, votes)


def test_rows_are_what_each_gave_where_items_are_alike() -> None:
    chosen = np.tile(np.array([0, 1, 1, 2]), (9, 1))
    people = known(chosen.tolist())
    table = people.crossed(shares(people.votes)[:, 1], shares(people.others)[:, 1])
    np.testing.assert_allclose(table, (chosen == 1).T.astype(float), atol=1e-3)
    assert people.count_as == pytest.approx(4.0)


@pytest.mark.parametrize("votes", [2, 3, 5])
def test_tables_keep_the_means_of_items(votes: int) -> None:
    people, believed = Crowd(40, 6, votes).draw(np.random.default_rng(1))
    same, far = agreement(people.votes), js_distance(believed, shares(people.votes))
    for table, values in (
        (people.crossed(same, people.alike), same),
        (people.counting(far, lambda held, at: js_distance(believed[at], held)), far),
        (people.halved(same, lambda split, _: (split.target * split.other).sum(-1)), same),
    ):
        np.testing.assert_allclose(table.mean(0), values, atol=1e-12)
    beyond = kappa_of(people)
    assert beyond.value == pytest.approx(kappa(people.votes).value)
    slow = np.mean([np.mean([a == b for i, a in enumerate(row) for j, b in enumerate(row) if i != j])
                    for row in (people.label[people.item == at] for at in range(40))])  # fmt: skip
    assert same.mean() == pytest.approx(slow) == pytest.approx(people.agreed.mean())


@pytest.mark.parametrize("votes", [2, 5])
def test_shifts_are_those_of_leaving_one_rater_out(votes: int) -> None:
    """Of two votes the item goes with the rater; and how often people agree shows in nothing else."""
    rng = np.random.default_rng(2)
    who = np.argsort(rng.random((60, 5)), axis=1)[:, :votes]
    rows: list[list[int | None]] = [[None] * 5 for _ in range(60)]
    for row, people in zip(rows, who, strict=True):
        for rater in people:
            row[rater] = int(rng.integers(3)) if rater == 0 or rng.random() < 0.2 else 1
    held = known(rows)
    table = held.crossed(agreement(held.votes), held.alike)
    slow = np.zeros(5)
    for out in range(5):
        left = [[None if at == out else one for at, one in enumerate(row)] for row in rows]
        slow[out] = -agreement(known([row for row in left if row.count(None) < 4]).votes).mean()
    found = table.mean(1) - table.mean()
    np.testing.assert_allclose(found / found[0], (slow - slow.mean()) / (slow[0] - slow.mean()), rtol=1e-6)
    assert int(np.argmin(found)) == 0  # who votes at random agrees least


def test_people_who_vote_on_very_different_numbers_of_items_count_as_fewer() -> None:
    rng = np.random.default_rng(3)
    equal, unequal = (Crowd(300, 12, 3, load=load).draw(rng)[0].count_as for load in (0.0, 3.0))
    assert 11.0 < equal <= 12.0 and unequal < 7.0
    apart = Crowd(240, 0, 3, block=20).draw(rng)[0]
    assert apart.count_as == pytest.approx(2.0 * 12 + 1.0)  # 12 panels of 3, each with a mean of its own


def test_more_raters_than_rows_are_put_together() -> None:
    people, _ = Crowd(300, 2 * MOST, 3).draw(np.random.default_rng(2))
    table = people.crossed(agreement(people.votes), people.alike)
    assert table.shape == (MOST, 300)
    np.testing.assert_allclose(table.mean(0), agreement(people.votes), atol=1e-12)


def test_one_row_and_one_item_have_no_interval() -> None:
    for shape in ((1, 5), (5, 1)):
        made = mean_over(np.random.default_rng(0).random(shape), name="x", unit="u", n=5)
        assert made.low is made.high is None and made.method.startswith("no interval")


def test_two_people_do_not_say_how_often_others_agree() -> None:
    people, _ = Crowd(50, 2, 2).draw(np.random.default_rng(0))
    assert people.crossed(agreement(people.votes), people.alike).shape == (1, 50)
    assert kappa_of(people).low is None
    assert people.crossed(shares(people.votes)[:, 0], shares(people.others)[:, 0]).shape == (2, 50)


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


def test_intervals_over_raters_and_items_cover() -> None:
    """Some people vote with little care: of two votes an item, agreement was covered in .58 to .83 over items alone."""
    reps = 50
    for row in levels.covered(Crowd(150, 8, 2), reps=reps, rng=np.random.default_rng(28), items=10_000):
        assert row.rate >= 0.94 - 3.3 * np.sqrt(0.94 * 0.06 / reps), row
        assert dict(row.also)["as wide as known spreads"] < 2.0, row


def test_as_wide_as_a_bootstrap_of_raters_and_items() -> None:
    people = convabuse(published("convabuse/test.csv"))
    ratios = {name: own / drawn for name, own, drawn in widths(people, draws=200, rng=np.random.default_rng(0))}
    # A copy of an odd person adds no pair with itself: in crowds of known spread the bootstrap is too narrow here.
    assert 1.0 < ratios.pop("agreement") < 1.5
    assert all(0.75 < ratio < 1.4 for ratio in ratios.values()), ratios
    assert 0.85 < np.mean(list(ratios.values())) < 1.2, ratios


MISSED: Final[dict[Crowd, str]] = {
    Crowd(30, 5, 3): ".97 to .99",
    Crowd(1000, 5, 3): ".91 to .97",
    Crowd(200, 8, 2): "up to .99",
    Crowd(200, 8, 3, bias=0.0, care=0.0): ".97 to .99",
    Crowd(300, 12, 4, load=1.5): ".94 to .99",
}
"""Crowds whose intervals are known not to hold in .93 to .97, and in how many they do."""


@cache
def covered(crowd: Crowd) -> list[Row]:
    return list(levels.covered(crowd, reps=300, rng=np.random.default_rng(28)))


@pytest.mark.full
@pytest.mark.parametrize("crowd", levels.CROWDS, ids=str)
def test_all_crowds(crowd: Crowd) -> None:
    """But for the noise of 300 samples: no number is held too rarely, and all numbers together not too often."""
    rows = covered(crowd)
    assert [str(row) for row in rows if row.rate < row.low - 3.5 * np.sqrt(0.93 * 0.07 / 300)] == []
    assert crowd in MISSED or np.mean([row.rate for row in rows]) <= rows[0].high + np.sqrt(0.97 * 0.03 / 300)
    if not crowd.block:
        same = replace(crowd, bias=0.0, care=0.0)
        row = levels.biased(same, reps=300, rng=np.random.default_rng(29))
        assert row.rate <= row.high + 2.0 * np.sqrt(0.06 * 0.94 / 300), row


@pytest.mark.full
@pytest.mark.parametrize(
    "crowd",
    [
        pytest.param(crowd, marks=pytest.mark.xfail(strict=True, reason=f"{crowd}: held in {held}, .93 to .97 asked"))
        for crowd, held in MISSED.items()
    ],
    ids=str,
)
def test_crowds_at_their_bars(crowd: Crowd) -> None:
    """Few people are a sample whose spread is known badly: docs/levels.md."""
    assert [str(row) for row in covered(crowd) if not row.passed] == []
