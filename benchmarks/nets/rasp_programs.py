"""Five programs, their inputs, and pairs of inputs that are answered differently."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.nets.rasp import Program, Select, Sop, Values, aggregate, difference, indices, mapped, tokens, width
from wheeltap.core import seeds
from wheeltap.core.errors import UnknownName
from wheeltap.suites.circuits.pairs import PairBatch

Change = Literal["one", "any"]
"""What differs within a pair: one token, or any number of them."""

_LENGTH: Final = 5


def reverse() -> Program:
    """The tokens, the last one first."""
    word, index = tokens(3), indices(_LENGTH)
    other = mapped(_opposite, index)
    output = aggregate(Select(index, other, _equal), word)
    return Program("reverse", 3, _LENGTH, output, lambda given: [float(token) for token in reversed(given)])


def histogram() -> Program:
    """How often the place's token occurs."""
    word = tokens(3)
    output = width(Select(word, word, _equal), most=_LENGTH)
    return Program("histogram", 3, _LENGTH, output, lambda given: [float(given.count(token)) for token in given])


def sort() -> Program:
    """The tokens in rising order: how many are smaller says where one goes; of equal ones, the first comes first."""
    word, index = tokens(3), indices(_LENGTH)
    key = mapped(_key, word, index)
    goes = width(Select(key, key, lambda one, two: one < two), most=_LENGTH)
    output = aggregate(Select(goes, index, _equal), word)
    return Program("sort", 3, _LENGTH, output, lambda given: [float(token) for token in sorted(given)])


def fraction_of_previous() -> Program:
    """The share of token 0 among the places up to this one."""
    word, index = tokens(3), indices(_LENGTH)
    output = mapped(float, _share(0, word, index))
    return Program("fraction-of-previous", 3, _LENGTH, output, lambda given: _running(given, {0: 1}))


def pair_balance() -> Program:
    """The share of token 0 less that of token 1, among the places up to this one."""
    word, index = tokens(3), indices(_LENGTH)
    balance = difference(_share(0, word, index), _share(1, word, index), values=_shares(-1))
    output = mapped(float, balance)
    return Program("pair-balance", 3, _LENGTH, output, lambda given: _running(given, {0: 1, 1: -1}))


PROGRAMS: Final[Mapping[str, Callable[[], Program]]] = {
    "reverse": reverse,
    "histogram": histogram,
    "sort": sort,
    "fraction-of-previous": fraction_of_previous,
    "pair-balance": pair_balance,
}


def program(name: str) -> Program:
    """The program of this name.

    Raises:
        UnknownName: If there is none.
    """
    if name not in PROGRAMS:
        raise UnknownName("program", name, PROGRAMS)
    return PROGRAMS[name]()


def examples(given: Program, *, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Inputs ``[example, place]``, the start first, and classes ``[example, place]`` of all places but the start."""
    rng = seeds.generator(seed, "rasp", given.name, "examples")
    drawn = rng.integers(given.tokens, size=(count, given.length))
    return started(given, drawn), classes(given, drawn)


def pairs(given: Program, *, seed: int, count: int, change: Change = "one") -> PairBatch:
    """Pairs whose members differ in one token, or are drawn independently; none whose answers are equal."""
    rng = seeds.generator(seed, "rasp", given.name, "pairs", change)
    kept, answers = list[NDArray[np.int64]](), list[Tensor]()
    while len(kept) < count:
        one, two = rng.integers(given.tokens, size=(2, given.length))
        if change == "one":
            two, at = one.copy(), rng.integers(given.length)
            two[at] = (one[at] + rng.integers(1, given.tokens)) % given.tokens
        last = classes(given, np.stack([one, two]))[:, -1]
        if last[0] != last[1]:
            kept.append(np.stack([one, two]))
            answers.append(last)
    clean, corrupted = np.stack(kept, 1)
    answer, wrong = torch.stack(answers, 1)
    return PairBatch(started(given, clean), started(given, corrupted), answer, wrong)


def started(given: Program, drawn: NDArray[np.int64]) -> Tensor:
    """Tokens ``[example, place]`` with the start before them."""
    return torch.tensor(np.pad(drawn, ((0, 0), (1, 0)), constant_values=given.tokens))


def classes(given: Program, drawn: NDArray[np.int64]) -> Tensor:
    """What the program is to give, ``[example, place]``."""
    found = [[given.output.values.index(value) for value in given.solve(row)] for row in drawn.tolist()]
    return torch.tensor(found)


def _opposite(at: float) -> float:
    return _LENGTH - 1 - at


def _key(token: float, at: float) -> float:
    return token * _LENGTH + at


def _equal(one: float, two: float) -> bool:
    return one == two


def _share(token: int, word: Sop, index: Sop) -> Sop:
    """The share of a token among the places up to each one."""
    so_far = Select(index, index, lambda key, query: key <= query)

    def is_it(one: float) -> float:
        return float(one == token)

    return aggregate(so_far, mapped(is_it, word, number=True), values=_shares(0))


def _shares(least: int) -> Values:
    """The fractions that a mean of so few numbers, from ``least`` to 1, can be."""
    return tuple(sorted({part / n for n in range(1, _LENGTH + 1) for part in range(least * n, n + 1)}))


def _running(given: Sequence[int], worth: Mapping[int, int]) -> list[float]:
    """Means of what tokens are worth, over the places up to each one."""
    return [sum(worth.get(token, 0) for token in given[:n]) / n for n in range(1, len(given) + 1)]
