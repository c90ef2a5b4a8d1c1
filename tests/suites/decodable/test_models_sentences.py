"""Sentences whose words tell their factors by what they are and where they stand; the transformer that reads them."""

import numpy as np
import torch

from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.decodable.nets import sentences
from wheeltap.suites.decodable.nets.sentences import PLACES, SENTENCES, WORDS, Reader

# Numbers of the first word of each kind, by hand.
NOUNS, TIMES, LINKS = 22, 58, 94


def read() -> tuple[np.ndarray, np.ndarray]:
    """Words ``[example, place]`` and values ``[example, factor]``."""
    inputs, options = SENTENCES.lesson(400, seed=3)
    parts = inputs.numpy()
    assert parts.shape == (400, PLACES, WORDS + PLACES) and set(np.unique(parts)) == {0.0, 1.0}
    assert (parts[..., :WORDS].sum(2) == 1.0).all() and np.array_equal(parts[0, :, WORDS:], np.eye(PLACES))
    return parts[..., :WORDS].argmax(2), SENTENCES.combinations()[options.numpy()]


def test_values_follow_from_the_words() -> None:
    words, labels = read()
    for row, (subject, attractor, time, link) in zip(words, labels, strict=True):
        nouns = [int(word - NOUNS) // 12 for word in row if NOUNS <= word < TIMES]
        assert nouns == [subject, attractor]
        assert [int(word - TIMES) // 12 for word in row if TIMES <= word < LINKS] == [time]
        assert [int(word - LINKS) // 4 for word in row if word >= LINKS] == [link]
        assert row[-1] == 1, "the gap comes last"


def test_places_vary() -> None:
    words, _ = read()
    assert {int(np.flatnonzero((row >= NOUNS) & (row < TIMES))[0]) for row in words} == {2, 3}
    assert {int((row == 0).sum()) for row in words} == {0, 1, 2}


def test_attention_is_that_of_loops_and_the_second_one_asks_from_the_gap() -> None:
    with reproducible(5):
        model = Reader(3)
    inputs, _ = SENTENCES.lesson(4, seed=1)
    layer = model.first_attention
    with torch.no_grad():
        stream = model.embed(inputs)
        taken = torch.empty_like(stream)
        for example in range(4):
            for head in range(len(sentences.FACTORS)):
                own = slice(3 * head, 3 * head + 3)
                query, key, value = (part(stream[example])[:, own] for part in (layer.query, layer.key, layer.value))
                for place in range(PLACES):
                    share = torch.exp(key @ query[place] / 3**0.5)
                    taken[example, place, own] = (share / share.sum()) @ value
        assert torch.allclose(layer(stream), stream + layer.output(taken), atol=1e-5)
        second = model.second_attention
        last = second(stream)
        second.last = False
        assert last.shape[1] == 1 and torch.allclose(last[:, 0], second(stream)[:, -1], atol=1e-5)
