"""What nets of the suite are trained and measured on: digits and blends of two, drawn strokes, characters.

Nothing is downloaded: strokes are drawn and sentences are generated here, from seeds.
"""

from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.sources import digits, grammar
from wheeltap.suites.claims.specs import FORGOTTEN, PAIRS, SHARES, SIDE, On

TAUGHT, TESTED, WINDOWS = 3000, 1000, 300
"""Examples of the two made sets to train on; drawn images to measure on; windows of text to measure on."""

_ARC: Final = 8  # straight pieces of an arc


@final
class TrainingSet(NamedTuple):
    """A set of examples in two parts that share none; ``tested`` is what nets are measured on."""

    inputs: Tensor  # [example, feature] in [0, 1]; of text [example, place], characters by number
    targets: Tensor  # [example], classes; of text [example, place], the character after each
    tested: Task
    options: int  # how many classes, or characters


@cache
def lesson(on: On) -> TrainingSet:
    """The examples of this name."""
    if on == "text":
        return _text()
    if on == "digits":
        taught = digits.lesson()
        assert isinstance(taught.inputs, Tensor)
        return TrainingSet(taught.inputs, taught.targets, digits.task(), 10)
    rng, each = seeds.generator(0, "strokes"), (TAUGHT + TESTED) // len(_SHAPES)
    drawn = np.stack([_drawn(digit, each, rng) for digit in range(len(_SHAPES))], 1)  # digits take turns
    images = to_tensor(drawn.reshape(-1, SIDE * SIDE))
    right = torch.arange(len(_SHAPES)).repeat(each)
    tested = Task(images[TAUGHT:], right[TAUGHT:], name="drawn digits", more=images[:TAUGHT])
    return TrainingSet(images[:TAUGHT], right[:TAUGHT], tested, len(_SHAPES))


def strokes() -> Task:
    """Drawn digits that nets are measured on, ``[image, 196]``."""
    return lesson("strokes").tested


def text() -> Task:
    """Characters that nets are measured on: the one after 20 others, ``[example, 20]``."""
    return lesson("text").tested


# ---- strokes --------------------------------------------------------------------------------------------------------


def _arc(x: float, y: float, wide: float, high: float, start: float, end: float) -> list[tuple[float, float]]:
    """Corners along an ellipse around ``(x, y)``; angles in turns, clockwise from the right."""
    turns = 2.0 * np.pi * np.linspace(start, end, _ARC + 1)
    return [(x + wide * float(np.cos(one)), y + high * float(np.sin(one))) for one in turns]


_SHAPES: Final[tuple[tuple[list[tuple[float, float]], ...], ...]] = (
    (_arc(0.5, 0.5, 0.26, 0.38, 0.0, 1.0),),
    ([(0.36, 0.26), (0.52, 0.12), (0.52, 0.88)],),
    ([*_arc(0.5, 0.32, 0.24, 0.2, -0.5, 0.1), (0.26, 0.86), (0.76, 0.86)],),
    (_arc(0.46, 0.32, 0.24, 0.2, -0.4, 0.25), _arc(0.46, 0.69, 0.27, 0.19, -0.25, 0.4)),
    ([(0.58, 0.12), (0.24, 0.62), (0.78, 0.62)], [(0.6, 0.4), (0.6, 0.9)]),
    ([(0.72, 0.13), (0.34, 0.13), (0.32, 0.46)], _arc(0.46, 0.65, 0.26, 0.22, -0.3, 0.4)),
    ([(0.62, 0.12), (0.38, 0.36), (0.28, 0.64)], _arc(0.5, 0.66, 0.22, 0.21, 0.0, 1.0)),
    ([(0.26, 0.14), (0.74, 0.14), (0.42, 0.88)],),
    (_arc(0.5, 0.31, 0.19, 0.19, 0.0, 1.0), _arc(0.5, 0.69, 0.23, 0.2, 0.0, 1.0)),
    (_arc(0.5, 0.34, 0.21, 0.21, 0.0, 1.0), [(0.71, 0.36), (0.66, 0.62), (0.54, 0.88)]),
)
"""Of each digit, lines through these corners, in a unit square whose origin is at the top left."""

_PIXELS: Final = (np.stack(np.meshgrid(*[np.arange(SIDE)] * 2, indexing="xy"), -1).reshape(-1, 2) + 0.5) / SIDE


def _drawn(digit: int, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Images of a digit, ``[image, 196]``: corners are moved; the whole is turned, sheared, scaled and shifted."""
    turn, shear = rng.normal(0.0, 0.22, count), rng.normal(0.0, 0.25, count)
    moved = np.stack(
        [np.cos(turn), np.cos(turn) * shear - np.sin(turn), np.sin(turn), np.sin(turn) * shear + np.cos(turn)]
    )
    scaled = moved.T.reshape(count, 2, 2) * rng.uniform(0.7, 1.1, (count, 1, 2))
    shift, wide = 0.5 + rng.normal(0.0, 0.05, (count, 1, 2)), rng.uniform(0.025, 0.06, (count, 1))
    nearest = np.full((count, len(_PIXELS)), np.inf)
    for line in _SHAPES[digit]:
        corners = np.array(line) - 0.5 + rng.normal(0.0, 0.03, (count, len(line), 2))
        corners = corners @ scaled.transpose(0, 2, 1) + shift
        for start, end in pairwise(corners.transpose(1, 0, 2)[:, :, None]):  # each [image, 1, 2]
            along, away = end - start, _PIXELS - start
            at = ((away * along).sum(2) / np.square(along).sum(2).clip(1e-9)).clip(0.0, 1.0)
            nearest = np.minimum(nearest, np.linalg.norm(away - at[:, :, None] * along, axis=2))
    ink = (1.0 - (nearest - wide) * SIDE).clip(0.0, 1.0) * rng.uniform(0.7, 1.0, (count, 1))
    return (ink + rng.normal(0.0, 0.08, ink.shape)).clip(0.0, 1.0).astype(np.float32)


# ---- text -----------------------------------------------------------------------------------------------------------

LENGTH: Final = 20  # characters that are read
_LETTERS: Final = " .abcdefghijklmnopqrstuvwxyz"
_WORDS: Final = 24  # of each kind of word, how many are used: a small net can learn them all


def _sentence(draw: grammar.WordDraw) -> str:
    """A sentence: a person, sometimes an adjective, a verb that agrees, a thing."""
    number: grammar.Number = "singular" if draw.chance(0.5) else "plural"
    kind = f"{draw.of(grammar.PEOPLE_ADJECTIVES[:_WORDS])} " if draw.chance(0.5) else ""
    person, verb = (draw.of(words[:_WORDS]).of(number) for words in (grammar.PEOPLE, grammar.TOWARDS_THINGS))
    other: grammar.Number = "singular" if draw.chance(0.5) else "plural"
    return f"the {kind}{person} {verb} the {draw.of(grammar.THINGS[:_WORDS]).of(other)}. "


def _text() -> TrainingSet:
    draw, size = grammar.WordDraw(seeds.generator(0, "sentences")), TAUGHT * LENGTH + 1
    said = "".join(_sentence(draw) for _ in range(size // LENGTH))[:size]
    other = "".join(_sentence(draw) for _ in range(WINDOWS))
    windows = (other[at : at + LENGTH + 1] for at in range(0, len(other) - LENGTH, LENGTH + 1))
    fresh = dict.fromkeys(one for one in windows if one[:-1] not in said)  # nothing that is taught anywhere
    taught, rows = (
        torch.tensor([[_LETTERS.index(letter) for letter in one] for one in some])
        for some in ([said], [*fresh][:WINDOWS])
    )
    task = Task(rows[:, :-1].clone(), rows[:, -1].clone(), name="characters")
    inputs, targets = (one.reshape(TAUGHT, LENGTH) for one in (taught[0, :-1], taught[0, 1:]))
    return TrainingSet(inputs, targets, task, len(_LETTERS))


# ---- digits ---------------------------------------------------------------------------------------------------------


def blends() -> Task:
    """Pairs of two digits of the test split, blended: ``[blend, 64]``, twice, with either digit as the right one.

    Blends of a pair follow each other, with rising shares of its second digit (``specs.SHARES``). First come all with
    the first digit as the right one, then the same with the second.
    """
    data, rng = digits.split(), seeds.generator(0, "claims", "blends")
    labels = data.test_targets.numpy()
    pairs: list[tuple[int, int]] = []
    while len(pairs) < PAIRS:
        one, two = map(int, rng.integers(len(labels), size=2))
        if labels[one] != labels[two]:
            pairs.append((one, two))
    first, second = (to_tensor(np.repeat(part, len(SHARES))) for part in np.array(pairs).T)
    share = to_tensor(np.tile(np.array(SHARES, dtype=np.float32), PAIRS))[:, None]
    inputs = data.test_inputs[first] * (1.0 - share) + data.test_inputs[second] * share
    targets = torch.cat([data.test_targets[first], data.test_targets[second]])
    return Task(torch.cat([inputs, inputs]), targets, name="blends of two digits")


def without() -> Task:
    """The training split of digits without those of one class (``specs.FORGOTTEN``)."""
    data = digits.split()
    kept: Tensor = data.train_targets != FORGOTTEN
    return Task(data.train_inputs[kept], data.train_targets[kept], name=f"digits without {FORGOTTEN}")
