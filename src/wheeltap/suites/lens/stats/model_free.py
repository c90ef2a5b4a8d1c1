"""What separates two sets of texts without any model: words, usual letters, and how well a text compresses."""

import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from wheeltap.stats.crossed import FloatArray

FOLDS: Final = 10
"""Parts of the pairs, each scored by words counted in the others."""

CONTEXT: Final = 4
"""Letters before a letter that say how usual it is."""

_WORD: Final = re.compile(r"\w+|[^\w\s]")
_BEFORE: Final = 0.5
"""Added to every count, so that a word seen on one side alone is no proof."""


def words(text: str) -> list[str]:
    """Words and signs of a text, in lower case, in order."""
    return _WORD.findall(text.lower())


def compressed(texts: Sequence[str]) -> FloatArray:
    """Bytes that zlib makes of each text, ``[text]``: how much it says, for want of a model.

    Source: Carlini et al. (2021), "Extracting training data from large language models" (arXiv:2012.07805), sec. 5.1.
    """
    return np.array([len(zlib.compress(text.encode(), 9)) for text in texts], dtype=np.float64)


def by_words(pairs: Sequence[tuple[str, str]]) -> FloatArray:
    """How much likelier the words of each text are among first versions than among second ones, ``[pair, 2]``, in nats.

    Mean over its words and pairs of neighboring words of the log-ratio of the shares of first and second versions that
    have them, counted in the other folds of pairs: naive Bayes, cross-fitted. A model's score that does not sort first
    from second versions better than this one shows style and not memory.

    Source: Das, Zhang & Tramèr (2024), "Blind baselines beat membership inference attacks" (arXiv:2406.16201).
    """
    features: list[list[frozenset[str]]] = []
    for pair in pairs:
        read = [words(text) for text in pair]
        features.append([frozenset([*own, *(f"{one} {two}" for one, two in pairwise(own))]) for own in read])
    scores = np.zeros((len(pairs), 2))
    for fold in range(min(FOLDS, len(pairs))):
        counts = Counter[str](), Counter[str]()
        for at, pair in enumerate(features):
            for side in (0, 1) if at % FOLDS != fold else ():
                counts[side].update(pair[side])
        for at in range(fold, len(pairs), FOLDS):
            for side in (0, 1):
                ratios = [math.log((counts[0][f] + _BEFORE) / (counts[1][f] + _BEFORE)) for f in features[at][side]]
                scores[at, side] = sum(sorted(ratios)) / max(len(ratios), 1)
    return scores


def by_letters(pairs: Sequence[tuple[str, str]]) -> FloatArray:
    """How usual the letters of each text are, ``[pair, 2]``: mean log-likelihood of a letter after those before, nats.

    Letters are counted in the first versions of the other folds of pairs, after up to ``CONTEXT`` letters before, each
    length smoothed by the next shorter one. A misspelled word, which naive Bayes over words has never seen and so takes
    for nothing, is an unusual run of letters here.

    Source: MacKay & Peto (1995), "A hierarchical Dirichlet language model", with a weight of 1.
    """
    counted = [_runs_of_letters(own) for own, _ in pairs]
    letters = len({letter for pair in pairs for text in pair for letter in text}) + 1
    total = Counter[str]()
    for one in counted:
        total.update(one)
    scores = np.zeros((len(pairs), 2))
    for fold in range(min(FOLDS, len(pairs))):
        known = total.copy()
        for one in counted[fold::FOLDS]:
            known.subtract(one)
        for at in range(fold, len(pairs), FOLDS):
            scores[at] = [_usual(text, known, letters) for text in pairs[at]]
    return scores


def _runs_of_letters(text: str) -> Counter[str]:
    """How often a context is followed by anything (the run and a tab), and by each letter (the run with it)."""
    counts, padded = Counter[str](), _padded(text)
    for at in range(CONTEXT, len(padded)):
        for size in range(CONTEXT + 1):
            counts[padded[at - size : at + 1]] += 1
            counts[f"{padded[at - size : at]}\t"] += 1
    return counts


def _usual(text: str, known: Counter[str], letters: int) -> float:
    """Mean log-likelihood of the letters of a text."""
    padded, summed = _padded(text), 0.0
    for at in range(CONTEXT, len(padded)):
        p = 1.0 / letters
        for size in range(CONTEXT + 1):
            run = padded[at - size : at]
            p = (known[run + padded[at]] + p) / (known[f"{run}\t"] + 1.0)
        summed += math.log(p)
    return summed / max(len(padded) - CONTEXT, 1)


def _padded(text: str) -> str:
    return "\n" * CONTEXT + text.replace("\t", " ")
