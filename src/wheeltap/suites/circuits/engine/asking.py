"""Asking the pairs of a task: those that a circuit is searched on and those held out, and what means are taken over."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.task import BaseTask
from wheeltap.suites.circuits.engine.units import UnitNet, Values, two_sided
from wheeltap.suites.circuits.pairs import Pairs, Tokens

BATCH: Final = 64
"""Sequences of one pass, where means are taken."""

Prompts = NDArray[np.intp]
"""For each context of some pairs, ``[side, pair]`` in the order of ``Pairs.order``, another one, by its number: the
clean contexts in that order, then the corrupted ones."""


class Asking(Protocol):
    """Some pairs, asked of a net of which parts (units, or edges) are ablated. Masks are ``[part]``, 1 for kept.

    Score gaps are those of ``Asked.gaps``.
    """

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    @property
    def pairs(self) -> Pairs:
        """The pairs."""
        ...

    @property
    def slices(self) -> Mapping[str, slice]:
        """Parts of one kind: random circuits have as many of each."""
        ...

    def gaps(self, mask: Tensor | None) -> Tensor:
        """With what is not kept ablated as it was searched; nothing is ablated without a mask."""
        ...

    def zeroed(self, mask: Tensor) -> Tensor:
        """With nothing in the place of what is not kept."""
        ...

    def patched(self, mask: Tensor, prompts: Prompts) -> Tensor:
        """With what another prompt gives, at the same places, in the place of what is not kept."""
        ...

    def slope(self, mask: Tensor) -> tuple[float, Tensor]:
        """The mean loss, and its gradient by the mask."""
        ...


@final
@dataclass(frozen=True)
class Asked:
    """Some pairs, asked of a net of which units are ablated.

    Attributes:
        net: The units.
        pairs: In order of length.
        values: What stands for ablated units.
        inverted: Whether the two answers change places.
    """

    net: UnitNet
    pairs: Pairs
    values: Values
    inverted: bool = False

    def gaps(self, mask: Tensor | None, values: Values | None = None) -> Tensor:
        """How much higher the right answer's score is, ``[side, pair]``, in the order of ``Pairs.order``."""
        parts = [self.net.gaps(batch, mask, self.values if values is None else values) for batch in
                 self.pairs.batches()]  # fmt: skip
        gaps = torch.cat(parts, 1)
        return -gaps if self.inverted else gaps

    def loss(self, mask: Tensor | None, values: Values | None = None) -> Tensor:
        """Mean cross-entropy of the right one of two answers over both sides of the pairs; nats."""
        return two_sided(self.gaps(mask, values)).mean()

    @property
    def device(self) -> torch.device:
        """See ``Asking.device``."""
        return self.net.device

    @property
    def slices(self) -> Mapping[str, slice]:
        """The units of each site."""
        return self.net.slices

    def zeroed(self, mask: Tensor) -> Tensor:
        """See ``Asking.zeroed``."""
        return self.gaps(mask, {})

    def patched(self, mask: Tensor, prompts: Prompts) -> Tensor:
        """See ``Asking.patched``."""
        parts = [
            self.net.gaps(batch, mask, self.net.recorded(tokens.to(self.device)))
            for batch, tokens in zip(self.pairs.batches(), contexts(self.pairs, prompts), strict=True)
        ]
        gaps = torch.cat(parts, 1)
        return -gaps if self.inverted else gaps

    def slope(self, mask: Tensor) -> tuple[float, Tensor]:
        """See ``Asking.slope``."""
        asked = mask.clone().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(asked)
            (slope,) = torch.autograd.grad(loss, asked)
        return float(loss), slope


def other_sides(pairs: Pairs) -> Prompts:
    """The counterfactual of each context: the other one of its own pair."""
    return np.roll(np.arange(2 * len(pairs)).reshape(2, -1), 1, axis=0)


def other_prompts(pairs: Pairs, *, root: int, draw: int) -> Prompts:
    """A context of another pair for each, as long as it is, and neither of its own pair's contexts.

    Pairs of one length are drawn from each other in one cycle through all of them, either side with probability 1/2;
    where that gives a pair what is also a context of its own, one of the others is drawn. A pair without any keeps its
    own contexts: see ``alone``.

    Source: Chan et al. 2022, "Causal scrubbing" (values of other prompts).
    """
    rng = seeds.generator(root, "other prompts", draw)
    tokens = [side[at] for side in (pairs.clean, pairs.corrupted) for at in pairs.order]
    lengths = np.array([len(one) for one in tokens])
    own = np.arange(len(tokens)).reshape(2, -1)
    source = np.arange(len(pairs))
    for length in np.unique(lengths):
        cycle = rng.permutation(np.flatnonzero(lengths[: len(pairs)] == length))
        source[cycle] = np.roll(cycle, 1)
    found = own[rng.integers(2, size=own.shape), source]
    for pair, both in enumerate(own.T):
        theirs = {tokens[int(at)] for at in both}
        for side in np.flatnonzero([tokens[int(at)] in theirs for at in found[:, pair]]):
            others = [at for at in np.flatnonzero(lengths == lengths[pair]) if tokens[int(at)] not in theirs]
            found[side, pair] = rng.choice(others) if others else own[side, pair]
    return found


def alone(prompts: Prompts) -> NDArray[np.bool_]:
    """Which pairs have no other prompt of their length, ``[pair]``."""
    return prompts[0] == np.arange(int(prompts.shape[1]))


def contexts(pairs: Pairs, prompts: Prompts) -> Iterator[Tensor]:
    """The contexts of ``prompts`` as tokens ``[context, place]``, both sides of each batch of ``Pairs.batches``."""
    tokens, start = [side[at] for side in (pairs.clean, pairs.corrupted) for at in pairs.order], 0
    for batch in pairs.batches():
        yield torch.tensor([tokens[at] for at in prompts[:, start : start + len(batch)].flat])
        start += len(batch)


def pairs_of(task: BaseTask) -> Pairs:
    """The pairs of a task.

    Raises:
        ModelError: If it has none.
    """
    found = task.annotation(Pairs)
    if found is None:
        raise ModelError(
            "A circuit is searched for on pairs of prompts.", where=task.name,
            expected="a task with pairs: clean and corrupted prompts, and the answer to each", got="no pairs",
            do="Use --task quote, another generated task, or a file of {clean, corrupted, answer, wrong}.",
        )  # fmt: skip
    return found


def halves(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Every other pair: those that circuits are searched on, and those that are held out; none is in it twice.

    Raises:
        DataError: If there is but one.
    """
    sides = zip(
        zip(pairs.clean, pairs.answer, strict=True), zip(pairs.corrupted, pairs.wrong, strict=True), strict=True
    )
    first: dict[frozenset[tuple[Tokens, int]], int] = {}
    for at, both in enumerate(sides):
        first.setdefault(frozenset(both), at)
    every = list(first.values())
    if len(every) < 2:
        raise DataError("A circuit needs pairs to be searched on, and others to be judged by.", where="circuits",
                        expected="two pairs that differ, at least", got=f"{len(every)} (of {len(pairs)})")  # fmt: skip
    return pairs.part(every[::2]), pairs.part(every[1::2])


def reference(task: BaseTask) -> Sequence[Tensor]:
    """What means are taken over, ``[example, place]`` each: see ``Pairs.reference``."""
    pairs = pairs_of(task)
    return by_length(pairs.reference or (*pairs.clean, *pairs.corrupted))


def by_length(sequences: Sequence[Sequence[int]], *, batch: int = BATCH) -> list[Tensor]:
    """Sequences of one length side by side, ``[example, place]``, some at a time."""
    lengths: dict[int, list[Sequence[int]]] = {}
    for sequence in sequences:
        lengths.setdefault(len(sequence), []).append(sequence)
    return [
        torch.tensor(held[start : start + batch]) for held in lengths.values() for start in range(0, len(held), batch)
    ]


REPHRASED: Final = "rephrased"
"""Factor of a task: 1 for pairs that say the same in other words; no circuit is searched on these."""


def of_group(task: BaseTask, group: int, *, rephrased: bool = False, most: int = 0) -> BaseTask:
    """The examples of one group (all of them for -1) that circuits are searched on, or those in other words.

    Args:
        task: Of all.
        group: Which.
        rephrased: Whether those in other words are wanted.
        most: How many each half of them has at most: those at equal distances; 0 for all.

    Raises:
        DataError: If there are none.
    """
    factor = task.annotations.factors.get(REPHRASED)
    wanted = torch.ones(len(task.targets), dtype=torch.bool) if group < 0 else task.behaviors.cpu() == group
    if factor is not None:
        wanted = wanted & (factor == int(rephrased))
    if not bool(wanted.any()) or (rephrased and factor is None):
        raise DataError("The task has no such pairs.", where=task.name,
                        expected="rephrased pairs" if rephrased else "one of its groups, or -1 for all",
                        got=f"group {group}")  # fmt: skip
    rows = wanted.nonzero()[:, 0]
    if most and len(rows) > 2 * most:
        rows = rows[torch.arange(2 * most) * len(rows) // (2 * most)]
    return task if len(rows) == len(wanted) else task.part(rows)
