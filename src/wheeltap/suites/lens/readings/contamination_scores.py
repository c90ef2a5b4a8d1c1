"""What a language model says of each token of a text, and what is made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import lengths
from wheeltap.core.inputs import as_scores
from wheeltap.core.typed import to_array
from wheeltap.suites.lens.specs import FRACTIONS

Tokens = tuple[int, ...]

_LEAST: Final = 1e-12
"""Least variance of log-likelihoods over the vocabulary that is divided by."""


@final
@dataclass(frozen=True, eq=False)
class Read:
    """What a model says of a text.

    Attributes:
        logs: Log-likelihood of each token, nats, ``[token]``.
        standardized: The same less its mean and over its deviation under the model's own distribution.
        hits: Whether the token is the likeliest one.
    """

    logs: NDArray[np.float64]
    standardized: NDArray[np.float64]
    hits: NDArray[np.bool_]


@final
@dataclass(frozen=True)
class Reader:
    """Reads texts, cut into windows where they are longer; each window follows the start tokens.

    Attributes:
        start: Tokens before every window.
        window: Tokens of a window at most.
        tokens_per_batch: Bound on the tokens of one call.
    """

    start: tuple[int, ...]
    window: int
    tokens_per_batch: int

    def window_of(self, model: nn.Module) -> int:
        """Tokens of a window that this model can read."""
        limit = lengths.longest(model)
        return self.window if limit is None else max(min(self.window, limit.tokens - len(self.start)), 1)

    def read(self, model: nn.Module, texts: Sequence[Tokens]) -> list[Read]:
        """What the model says of every token of these texts."""
        pieces, parts = self._pieces(model, texts), dict[int, Read]()
        for place, said, wanted in self._said(model, [piece for _, piece in pieces]):
            logs = said.gather(1, wanted[:, None])[:, 0].double()
            standardized = to_array((logs - _mean(said)) / _deviation(said)).astype(np.float64)
            hits, known = to_array(said.argmax(-1) == wanted).astype(np.bool_), to_array(logs).astype(np.float64)
            parts[place] = Read(known, standardized, hits)
        several: list[list[Read]] = [[] for _ in texts]
        for place, (at, _) in enumerate(pieces):
            several[at].append(parts[place])
        return [Read(*(np.concatenate([getattr(one, name) for one in some]) for name in Read.__dataclass_fields__))
                for some in several]  # fmt: skip

    def half(self, model: nn.Module) -> int:
        """Tokens of either of two texts that are read together, at most."""
        return max(self.window_of(model) // 2, 1)

    def after(self, model: nn.Module, pairs: Sequence[tuple[Tokens, Tokens]]) -> NDArray[np.float64]:
        """Log-likelihood of each second text after the first one, nats, ``[pair]``; both are cut to half a window."""
        half, totals = self.half(model), np.zeros(len(pairs))
        cut = [(before[-half:], text[:half]) for before, text in pairs]
        for place, said, wanted in self._said(model, [(*before, *text) for before, text in cut]):
            logs = said.gather(1, wanted[:, None])[len(cut[place][0]) :]
            totals[place] = logs.double().sum().item()
        return totals

    def _pieces(self, model: nn.Module, texts: Sequence[Tokens]) -> list[tuple[int, Tokens]]:
        """Windows in order, each with the place of its text."""
        size = self.window_of(model)
        return [
            (at, text[start : start + size]) for at, text in enumerate(texts) for start in range(0, len(text), size)
        ]

    def _said(self, model: nn.Module, rows: Sequence[Tokens]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each row its place, log-probabilities ``[token, vocabulary]`` and tokens; short rows first."""
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        sizes, device = [len(rows[place]) + len(self.start) for place in order], next(model.parameters()).device
        for batch in _batches(order, sizes, self.tokens_per_batch):
            longest = len(rows[batch[-1]])
            filled = [[*self.start, *rows[at], *rows[at][-1:] * (longest - len(rows[at]))] for at in batch]
            ids = torch.tensor(filled, device=device)
            with torch.no_grad():
                said = as_scores(model(ids))[:, len(self.start) - 1 : -1].float().log_softmax(-1)
            for row, place in enumerate(batch):
                end = len(rows[place])
                yield place, said[row, :end], ids[row, len(self.start) : len(self.start) + end]


def _mean(said: Tensor) -> Tensor:
    """Mean log-likelihood of a token drawn from the model's own distribution, ``[row, token]``."""
    return (said.exp() * said).sum(-1).double()


def _deviation(said: Tensor) -> Tensor:
    """Its standard deviation."""
    square = (said.exp() * said.square()).sum(-1).double()
    return (square - _mean(said).square()).clamp_min(_LEAST).sqrt()


def _batches(order: Sequence[int], sizes: Sequence[int], most: int) -> list[list[int]]:
    """Places in batches of at most so many tokens, filled up to the longest; ``sizes`` rise."""
    batches: list[list[int]] = [[]]
    for place, size in zip(order, sizes, strict=True):
        if batches[-1] and (len(batches[-1]) + 1) * size > most:
            batches.append([])
        batches[-1].append(place)
    return batches


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of each text, ``[example]``; see the spec.

    Source: Shi et al. (2024, arXiv:2310.16789) for Min-K%; Zhang et al. (2025, arXiv:2404.02936), eq. 3, for Min-K%++.
    """

    loss: NDArray[np.float64]
    mink: NDArray[np.float64]
    minkpp: NDArray[np.float64]
    kept: NDArray[np.float64]


def scored(texts: Sequence[Read], *, lowest: float) -> Scores:
    """Scores of texts by what a model said of their tokens."""
    return Scores(
        loss=np.array([-one.logs.mean() for one in texts]),
        mink=np.array([_least(one.logs, lowest) for one in texts]),
        minkpp=np.array([_least(one.standardized, lowest) for one in texts]),
        kept=np.array([[_kept(one.hits, fraction) for fraction in FRACTIONS] for one in texts]),
    )


def _least(values: NDArray[Any], share: float) -> float:
    """Mean of the least of them, one at least."""
    return float(np.sort(values)[: max(int(share * len(values)), 1)].mean())


def given(tokens: int, fraction: float) -> int:
    """Tokens of a text that are given where the rest is to be completed; one at least is left."""
    return min(max(round(fraction * tokens), 1), tokens - 1)


def _kept(hits: NDArray[np.bool_], fraction: float) -> float:
    """Share of the tail before the first token that is not the likeliest one: how far a greedy completion is exact.

    As long as every token was the likeliest, the completion is what was read, so that nothing need be sampled.
    """
    tail = hits[given(len(hits), fraction) :]
    return float(np.argmin(tail)) / len(tail) if not tail.all() else 1.0
