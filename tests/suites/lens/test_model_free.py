"""What separates texts without a model: style, and nothing where both versions are drawn alike."""

import zlib

import numpy as np
import pytest

from wheeltap.stats.delong1988 import auc
from wheeltap.suites.lens.stats.model_free import CONTEXT, FOLDS, by_letters, by_words, compressed, overlap, words

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


def test_the_share_of_runs_in_a_corpus() -> None:
    corpus = "The cat sat on the mat; the dog ran."
    texts = ["cat sat on the roof", "THE DOG RAN.", "a bird", "dog ran"]
    read = words(corpus)

    def by_hand(text: str, size: int) -> float:
        own = words(text)
        size = min(size, len(own))
        runs = [own[at : at + size] for at in range(len(own) - size + 1)]
        return float(np.mean([any(read[at : at + size] == run for at in range(len(read))) for run in runs]))

    for size in (1, 3, 4):
        assert overlap(texts, corpus, length=size) == pytest.approx([by_hand(text, size) for text in texts])
    assert overlap(texts, corpus, length=4) == pytest.approx([0.5, 1.0, 0.0, 1.0])


def test_compressed_size() -> None:
    assert compressed(["a" * 100, "abc"]).tolist() == [len(zlib.compress(b"a" * 100, 9)), len(zlib.compress(b"abc", 9))]
