"""Starts of sentences with known, independent factors, and a small transformer that reads them.

A small language with three numbers (one, two, many). A sentence starts so: an adverb of time, the subject, a link, an
attractor, and the gap where the verb is to stand; each noun has an adjective or none, so that places vary. The verb
agrees with the number of the subject and with the time, whatever number the attractor nearer to it has. Words are
numbers: nothing in a word's form tells its meaning.
"""

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.suites.decodable.nets.factored import Joint, Labels, World

FACTORS: Final[Mapping[str, int]] = {"subject": 3, "attractor": 3, "time": 3, "link": 2}
"""Number of the subject and of the attractor; past, present or future; a preposition or a relative pronoun."""

PLACES: Final = 7
"""Words of a sentence; shorter ones are filled up at their start."""

_BLANK: Final = 0
_GAP: Final = 1
_ADJECTIVES: Final = 2 + np.arange(20)
_NOUNS: Final = 22 + np.arange(36).reshape(3, 12)  # [number, noun]
_TIMES: Final = 58 + np.arange(36).reshape(3, 12)  # [time, adverb]
_LINKS: Final = 94 + np.arange(8).reshape(2, 4)  # [link, word]
WORDS: Final = 102


def drawn(labels: Labels, rng: np.random.Generator) -> Tensor:
    """Sentences ``[example, place, feature]``: which word it is and which place, one feature for each, 0 or 1."""
    sentences = np.full((len(labels), PLACES), _BLANK)
    for row, (subject, attractor, time, link) in enumerate(labels):
        first, second = (rng.choice(_ADJECTIVES, size=rng.integers(2)) for _ in range(2))
        subjects, attractors = rng.choice(_NOUNS[subject]), rng.choice(_NOUNS[attractor])
        words = [rng.choice(_TIMES[time]), *first, subjects, rng.choice(_LINKS[link]), *second, attractors, _GAP]
        sentences[row, PLACES - len(words) :] = words
    places = np.broadcast_to(np.eye(PLACES, dtype=np.float32), (len(labels), PLACES, PLACES))
    return to_tensor(np.concatenate([np.eye(WORDS, dtype=np.float32)[sentences], places], 2))


@final
class Attention(nn.Module):
    """What each asking place takes from all places, one head for each factor, added to what it holds.

    Args:
        width: Of what a place holds.
        last: Whether the last place alone asks.
    """

    def __init__(self, width: int, *, last: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.last = last

    def forward(self, stream: Tensor) -> Any:
        """``[example, place, feature]`` of the places that ask."""
        asking = stream[:, -1:] if self.last else stream
        query, key, value = (_by_head(part) for part in (self.query(asking), self.key(stream), self.value(stream)))
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        return asking + self.output((weights @ value).transpose(1, 2).flatten(2))


def _by_head(values: Tensor) -> Tensor:
    """``[example, place, feature]`` as ``[example, head, place, feature]``."""
    return values.reshape(values.shape[0], values.shape[1], len(FACTORS), -1).transpose(1, 2)


@final
class Reader(nn.Module):
    """A transformer of two blocks without norms: attention and ReLU units in each; the second one asks from the gap.

    Args:
        units: Of each hidden layer, for each factor; as many features of what a place holds.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        width = units * len(FACTORS)
        self.embed = nn.Linear(WORDS + PLACES, width, bias=False)
        torch.nn.init.normal_(self.embed.weight, std=0.5)  # a place holds one word, so one column of each kind
        self.first_attention = Attention(width, last=False)
        self.first_up, self.first, self.first_down = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        self.second_attention = Attention(width, last=True)
        self.second_up, self.second = nn.Linear(width, width), nn.ReLU()
        self.values, self.joint = nn.Linear(width, sum(FACTORS.values())), Joint(FACTORS)

    def forward(self, inputs: Tensor) -> Any:
        """Scores of every combination of values, ``[example, option]``."""
        stream = self.first_attention(self.embed(inputs))
        stream = stream + self.first_down(self.first(self.first_up(stream)))
        gap = self.second_attention(stream)[:, 0]
        return self.joint(self.values(self.second(self.second_up(gap))))


SENTENCES: Final = World(
    name="sentences",
    factors=FACTORS,
    held=(("subject", 0, "attractor", 0), ("subject", 1, "time", 1)),
    examples=300,
    drawn=drawn,
    net=Reader,
)


def task() -> Task:
    """Sentences that nets are measured on."""
    return SENTENCES.task()
