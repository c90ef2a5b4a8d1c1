"""What needs no model: what style and letters show of texts, and exact tests."""

import itertools

import numpy as np
import pytest
from scipy import stats

from wheeltap.stats.delong1988 import auc
from wheeltap.suites.lens.stats.exchangeability import flipped, more_often, order_test
from wheeltap.suites.lens.stats.model_free import CONTEXT, FOLDS, by_letters, by_words

PLAIN = ("red", "green", "blue", "one", "two", "three", "up", "down", "left", "right")


def drawn(rng: np.random.Generator, *more: str) -> str:
    return " ".join(rng.choice((*PLAIN, *more), 12))


def test_style_is_seen_and_two_draws_are_not() -> None:
    rng = np.random.default_rng(0)
    alike = by_words([(drawn(rng), drawn(rng)) for _ in range(150)])
    styled = by_words([(drawn(rng), drawn(rng, "moreover", "thus")) for _ in range(150)])
    assert abs(auc(alike[:, 0], alike[:, 1]) - 0.5) < 0.12
    assert auc(styled[:, 0], styled[:, 1]) > 0.85


def misspelled(rng: np.random.Generator, text: str) -> str:
    """With two neighboring letters of a long word exchanged."""
    every = text.split()
    at = int(rng.choice([at for at, word in enumerate(every) if len(word) > 3]))
    every[at] = f"{every[at][0]}{every[at][2]}{every[at][1]}{every[at][3:]}"
    return " ".join(every)


def test_misspelled_words_are_no_ties_by_letters() -> None:
    rng = np.random.default_rng(0)
    texts = [drawn(rng) for _ in range(60)]
    scores = by_letters([(text, misspelled(rng, text)) for text in texts])
    assert np.mean(scores[:, 0] > scores[:, 1]) > 0.95
    alike = by_letters([(drawn(rng), drawn(rng)) for _ in range(400)])
    assert abs(np.mean(alike[:, 0] > alike[:, 1]) - 0.5) < 0.09  # 3.5 standard errors


def test_letters_are_counted_in_the_other_own_texts() -> None:
    pairs = [("abab", "ba"), ("abba", "c"), ("bab", "abc")]
    letters = 4  # a, b, c, and what is none of them

    def after(run: str, letter: str, texts: list[str]) -> float:
        """By the definition, from the shortest context to this one."""
        shorter = after(run[1:], letter, texts) if run else 1.0 / letters
        long = ["\n" * CONTEXT + text for text in texts]
        places = [(text, at) for text in long for at in range(CONTEXT, len(text)) if text[:at].endswith(run)]
        return (sum(text[at] == letter for text, at in places) + shorter) / (len(places) + 1)

    assert len(pairs) < FOLDS
    for at, pair in enumerate(pairs):
        others = [own for place, (own, _) in enumerate(pairs) if place != at]
        for side, text in enumerate(pair):
            padded = "\n" * CONTEXT + text
            logs = [
                np.log(after(padded[end - CONTEXT : end], padded[end], others)) for end in range(CONTEXT, len(padded))
            ]
            assert by_letters(pairs)[at, side] == pytest.approx(np.mean(logs))


def test_a_pair_is_scored_by_the_others() -> None:
    # A word that one pair alone has cannot have been counted: it says nothing of that pair.
    scores = by_words([(f"word{at}", f"other{at}") for at in range(20)])
    np.testing.assert_array_equal(scores, np.zeros((20, 2)))


def enumerated(likelihoods: np.ndarray) -> float:
    """Share of all assignments of one arrangement to each shard that are as likely as the given ones."""
    scores = (likelihoods - likelihoods.mean(1, keepdims=True)) / likelihoods.std(1, keepdims=True)
    shards, arrangements = scores.shape
    sums = [
        sum(scores[s, a] for s, a in enumerate(each)) for each in itertools.product(range(arrangements), repeat=shards)
    ]
    return float(np.mean(np.array(sums) >= scores[:, 0].sum() - 1e-9))


def test_the_p_value_is_the_share_of_all_assignments() -> None:
    rng = np.random.default_rng(0)
    likelihoods = rng.normal(size=(4, 5)) * [[1.0], [10.0], [0.1], [3.0]]
    likelihoods[:, 0] += 0.5 * likelihoods.std(axis=1)
    found = order_test(likelihoods, rng, draws=40_000)
    assert found.p == pytest.approx(enumerated(likelihoods), abs=4 * np.sqrt(0.25 / 40_000))
    gains = likelihoods[:, 0] - likelihoods[:, 1:].mean(axis=1)
    assert found.p_t == pytest.approx(stats.ttest_1samp(gains, 0.0, alternative="greater").pvalue)


def test_where_nothing_was_seen_p_values_are_uniform() -> None:
    rng = np.random.default_rng(0)
    # Skewed and heavy: no law is assumed. Arrangements of one shard depend on each other, and are exchangeable.
    ps = [
        order_test(rng.standard_t(2, size=(6, 11)) ** 3 + rng.normal(size=(6, 1)), rng, draws=999).p for _ in range(600)
    ]
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_a_known_order_is_found() -> None:
    rng = np.random.default_rng(1)
    likelihoods = rng.normal(size=(8, 21))
    likelihoods[:, 0] += 1.5
    assert order_test(likelihoods, rng).p < 0.01
    assert order_test(-likelihoods, rng).p > 0.5


def test_shards_that_tell_nothing_reject_nothing() -> None:
    found = order_test(np.full((4, 6), -3.0), np.random.default_rng(0))
    assert (found.p, found.p_t) == (1.0, 1.0)


def test_flipped_signs_against_all_of_them() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(0.4, 1.0, 8)
    sums = np.array([np.dot(signs, gaps) for signs in itertools.product((-1, 1), repeat=8)])
    exact = float(np.mean(sums >= gaps.sum() - 1e-9))
    assert flipped(gaps, rng, draws=40_000) == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 40_000))


def test_more_often_is_the_exact_one_sided_test() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, two = rng.integers(0, 2, (2, 40)).astype(float)
        above, below = int((one > two).sum()), int((one < two).sum())
        exact = stats.binomtest(above, above + below, 0.5, alternative="greater").pvalue
        assert more_often(one, two) == pytest.approx(exact)
    assert more_often(np.ones(5), np.ones(5)) == 1.0
