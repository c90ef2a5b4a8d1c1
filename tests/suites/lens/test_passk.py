"""pass@k against the combinatorial definition, simultaneous bands, and who solves what at least once."""

import json
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.levels import bands
from tests.published import published
from wheeltap.core.errors import DataError
from wheeltap.stats.simultaneous import band
from wheeltap.suites.lens.stats.passk import entropy, pass_all, pass_at, runs_of, solved


@given(st.data())
def test_pass_at_k_is_the_combinatorial_definition(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 200))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    right, samples = np.array([c]), np.array([n])
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at(right, samples, most=k)[0, -1] == pytest.approx(float(exact), abs=1e-12)
    assert pass_all(right, samples, most=k)[0, -1] == pytest.approx(comb(c, k) / comb(n, k), abs=1e-12)


def test_pass_at_k_is_stable_where_factorials_are_not() -> None:
    n = 8192
    right, samples = np.array([0, 1, 40, n]), np.full(4, n)
    found = pass_at(right, samples, most=n)
    assert np.isfinite(found).all() and (np.diff(found, axis=1) >= 0.0).all()
    np.testing.assert_allclose(found[1], np.arange(1, n + 1) / n, atol=1e-11)  # one right answer: k of n places
    exact = 1 - Fraction(comb(n - 40, 300), comb(n, 300))
    assert found[2, 299] == pytest.approx(float(exact), abs=1e-11)


def test_samples_are_counted_within_an_item() -> None:
    assert pass_at(np.array([0] * 500), np.array([4] * 500), most=4).max() == 0.0


def least(share: float, families: int) -> float:
    """Below this share of so many families a rate of ``share`` or more lies once in a thousand."""
    return float(stats.binom.ppf(0.001, families, share)) / families


@pytest.mark.parametrize(("items", "tries"), [(20, 4), (300, 32)])
def test_a_band_holds_the_whole_curve_also_where_it_nears_1(items: int, tries: int) -> None:
    reps = 60
    for row in bands.run(reps, items=(items,), tries=(tries,)):
        if row.low:
            assert row.rate >= least(0.95, reps), row
        else:
            assert row.rate <= 1.0 - least(0.95, reps), row


def test_bands_lie_where_shares_can_and_never_have_no_width() -> None:
    rng, tries = np.random.default_rng(0), np.full(30, 8)
    for right in (np.full(30, 8), np.zeros(30, dtype=int), np.r_[np.full(29, 8), 7]):
        curve = pass_at(right, tries, most=8)
        made = band(curve, rng=rng)
        assert (made.low >= 0.0).all() and (made.high <= 1.0).all() and (made.high - made.low > 0.05).all()
        assert ((made.low <= made.mean) & (made.mean <= made.high)).all()
        gap = band(curve - curve, difference=True, rng=rng)
        assert (gap.low < -0.05).all() and (gap.high > 0.05).all()
    with pytest.raises(DataError, match="bounded measure"):
        band(np.full((30, 2), 1.5), rng=rng)


def test_who_solves_what() -> None:
    one, two, n = np.array([0, 5, 1, 128, 60]), np.array([0, 3, 0, 0, 61]), np.full(5, 128)
    found = solved((one, n), (two, n))
    assert (found.both, found.first, found.second, found.neither) == (2, (2, 3), (), 1)
    assert found.p == pytest.approx(stats.binomtest(2, 2).pvalue)
    assert found.sure == (False, True)  # one of 128 may be missed by chance; 128 of 128 may not
    assert found.each[0] == pytest.approx(stats.fisher_exact([[1, 127], [0, 128]])[1])


def test_entropy_of_answers() -> None:
    answers = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, -1], [-1, -1, -1, -1]])
    expected = [0.0, np.log(4), stats.entropy([2, 1]), 0.0]
    np.testing.assert_allclose(entropy(answers), expected, atol=1e-12)


def test_published_counts() -> None:
    folder = published("passk/expected.json").parent
    expected = json.loads((folder / "expected.json").read_text())
    counts: list[np.ndarray] = []
    for name in ("base", "rl"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        counts.append(np.array([row["c"] for row in rows]))
        found = pass_at(counts[-1], np.full(len(rows), 128), most=128).mean(axis=0)
        np.testing.assert_allclose(found, expected[f"{name}_pass_at_k"], atol=1e-9)
    n = np.full(len(counts[0]), 128)
    gap = pass_at(counts[1], n, most=128) - pass_at(counts[0], n, most=128)
    made = band(gap, difference=True, rng=np.random.default_rng(0))
    assert made.critical == pytest.approx(expected["critical_value"], abs=0.03)
    ks = range(1, 129)
    [(low, high)] = runs_of(ks, made.low > 0.0)
    assert low == 1 and abs(high - 10) <= 1
    [(low, high)] = runs_of(ks, made.high < 0.0)
    assert high == 128 and 61 <= low <= 65  # published: 61; the two imaginary items make the band wider
    support = solved((counts[0], n), (counts[1], n))
    assert (support.both, len(support.first), len(support.second), support.neither) == (911, 33, 12, 104)
    assert support.p == pytest.approx(0.0025, abs=5e-5) and sum(support.sure) == 1


pytestmark = pytest.mark.slow  # simulations
