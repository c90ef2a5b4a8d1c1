"""Eight tasks on Python-like lines: which of two tokens comes next, decided by one token of the context.

A context is some whole lines and the start of an idiom, up to the token in question; all contexts of a call are
equally long. The corrupted context has another token in one place, and the other token follows it.
"""

import zlib
from dataclasses import dataclass
from typing import Final, Literal, final

import torch

from wheeltap.core import seeds
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.suites.circuits.nets.python_idioms import IDIOMS, Draw, Idiom, simple
from wheeltap.suites.circuits.nets.python_words import NAMES as VARIABLES
from wheeltap.suites.circuits.nets.python_words import encode
from wheeltap.suites.circuits.pairs import PairBatch

Variant = Literal["plain", "rephrased", "inverted", "irrelevant"]
Split = Literal["train", "test"]
_Both = tuple[list[list[str]], tuple[str, str]]

NAMES: Final = tuple(IDIOMS)

PLACES: Final = 24
"""Tokens of a context."""

PLAIN: Final = (0, 1, 2)
REPHRASED: Final = (3, 4, 5)
"""Forms of plain lines that stand before the idiom."""

OTHER: Final = 0.4
"""Share of other tasks' idioms among the lines before."""

TRIES: Final = 2000
"""Draws for each pair, most of which do not fill the places exactly."""


def pairs(
    name: str, *, seed: int, count: int, variant: Variant = "plain", split: Split = "train", places: int = PLACES
) -> PairBatch:
    """Pairs of a task; answers take turns, and no context comes twice.

    Args:
        name: Of ``NAMES``.
        seed: Of what is drawn.
        count: How many.
        variant: ``plain``; ``rephrased``: the same rule with other names, words and lines before, one of which is of
            the same idiom; ``inverted``: the plain pairs with their answers swapped; ``irrelevant``: the answer
            follows from whether the number of the first name is even, and the contexts differ in this name alone.
        split: Lines before the idiom are of one split alone: no pair is in both, whatever the seeds.
        places: Tokens of each context.

    Raises:
        UnknownName: If there is no such task.
        UsageError: If there are not so many different pairs of this length.
    """
    if name not in IDIOMS:
        raise UnknownName("task on Python-like lines", name, NAMES)
    rephrased, rng = variant == "rephrased", seeds.generator(seed, "python pairs", name, split)
    drawn = _Drawn(name, Draw(rng, second=rephrased), rephrased)
    contexts, ends, seen = list[list[list[str]]](), list[tuple[str, str]](), set[tuple[str, ...]]()
    for _ in range(count * TRIES):
        if len(contexts) == count:
            break
        found = drawn.lines(places, split=split)
        if found is None:
            continue
        make = _irrelevant if variant == "irrelevant" else _plain
        both, follow = make(*found, len(contexts), drawn.draw)
        known = [tuple(context) for context in both]
        if seen.isdisjoint(known):
            seen.update(known)
            contexts.append(both)
            ends.append((follow[1], follow[0]) if variant == "inverted" else follow)
    else:
        raise _too_few(len(contexts), count, name, places)
    tokens = torch.tensor([[encode(context) for context in both] for both in contexts])
    follow = torch.tensor([encode(pair) for pair in ends])
    return PairBatch(tokens[:, 0], tokens[:, 1], follow[:, 0], follow[:, 1])


def _too_few(found: int, count: int, name: str, places: int) -> UsageError:
    return UsageError(
        "There are not so many pairs of this length.",
        where=f"task {name} on Python-like lines",
        expected=f"{count} pairs of {places} tokens",
        got=f"{found} after {count * TRIES} draws",
        do="Ask for fewer pairs, or for more places.",
    )


def _plain(before: list[str], idiom: Idiom, number: int, draw: Draw) -> _Both:
    """Both contexts, and what follows either."""
    del draw  # the idiom decides
    end = number % 2
    return [before + idiom.context(end), before + idiom.context(1 - end)], (idiom.ends[end], idiom.ends[1 - end])


def _irrelevant(before: list[str], idiom: Idiom, number: int, draw: Draw) -> _Both:
    """The same where the first name decides: what the idiom is about stays as it is, either way as often."""
    label, at = number % 2, _first_name(before)
    whole = before + idiom.context(number // 2 % 2)
    names = [draw.pick([name for name in draw.names if VARIABLES.index(name) % 2 == odd]) for odd in (label, 1 - label)]
    return [[*whole[:at], name, *whole[at + 1 :]] for name in names], (idiom.ends[label], idiom.ends[1 - label])


def _first_name(tokens: list[str]) -> int:
    return next(at for at, token in enumerate(tokens) if token in VARIABLES)


@final
@dataclass(frozen=True)
class _Drawn:
    """Lines before an idiom, and the idiom."""

    name: str
    draw: Draw
    rephrased: bool = False

    def lines(self, places: int, *, split: Split) -> tuple[list[str], Idiom] | None:
        """Together ``places`` tokens, of this split; ``None`` where those drawn are others."""
        idiom = IDIOMS[self.name](self.draw)
        before = self._before(places - len(idiom.context(0)))
        # Without the first name: the nonsense variant replaces it, and no pair may change its split so.
        if not before or zlib.crc32(" ".join(_without_name(before)).encode()) % 2 != (split == "test"):
            return None
        return before, idiom

    def _before(self, room: int) -> list[str]:
        """Whole lines, a plain one first, with ``room`` tokens; none where those drawn have more."""
        forms = REPHRASED if self.rephrased else PLAIN
        others = [other for name, other in IDIOMS.items() if name != self.name]
        first, lines = simple(self.draw, forms), list[list[str]]()
        if self.rephrased:
            lines.append(IDIOMS[self.name](self.draw).line(self.draw.below(2)))
        while (left := room - len(first) - sum(map(len, lines))) > 0:
            other = self.draw.chance(OTHER)
            line = self.draw.pick(others)(self.draw).line(self.draw.below(2)) if other else simple(self.draw, forms)
            lines.insert(self.draw.below(len(lines) + 1), line)
        return [] if left else [*first, *(token for line in lines for token in line)]


def _without_name(tokens: list[str]) -> list[str]:
    at = _first_name(tokens)
    return tokens[:at] + tokens[at + 1 :]
