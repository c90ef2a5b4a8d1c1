"""Rankings: scores of every document of a pool for each query, ``[example, document]``.

Targets are the number of each query's right document, or how relevant each document is ``[example, document]``, 0 for
not at all. Documents of equal scores stand in every order alike: the value is the mean over these.
"""

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.measures.family import Kind, MeasureFamily


class _Ranking(MeasureFamily):
    fits: tuple[Kind, ...] = ("classes", "relevance")
    bounded = True

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``; NaN for a query without a relevant document."""
        if targets.is_floating_point():
            relevance = targets.double()
        else:
            relevance = torch.zeros(scores.shape, dtype=torch.float64).scatter_(1, targets[:, None], 1.0)
        ordered = scores.sort(1).values
        up = torch.searchsorted(ordered, scores.contiguous(), right=True)
        before = scores.shape[1] - up
        alike = up - torch.searchsorted(ordered, scores.contiguous())
        values = self.ranked(relevance, before.double(), alike.double())
        return torch.where((relevance > 0.0).any(1), values, torch.nan)

    @abstractmethod
    def ranked(self, relevance: Tensor, before: Tensor, alike: Tensor) -> Tensor:
        """The value of each query ``[example]``.

        Args:
            relevance: ``[example, document]``.
            before: How many documents score higher.
            alike: How many score the same, this one included.
        """


class _OfFirst(_Ranking):
    """Of the first k documents."""

    kind: str

    def __init__(self, k: int) -> None:
        if k < 1:
            raise UsageError(
                "A ranking has a first document.", where=f"measure {self.kind}@{k}",
                expected=f"{self.kind}@ and a whole number from 1 on", got=str(k), do=f"Give {self.kind}@10, say.",
            )  # fmt: skip
        self.k, self.name = k, f"{self.kind}@{k}"

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``.

        Raises:
            DataError: If there are no more than k documents.
        """
        if scores.shape[1] <= self.k:
            raise DataError(
                f"The pool has no more than {self.k} documents, so any ranking has all of them among the first.",
                where=f"measure {self.name}", expected=f"more than {self.k} documents", got=str(scores.shape[1]),
                do=f"Give a smaller number, such as {self.kind}@{max(scores.shape[1] // 10, 1)}, or a larger pool.",
            )  # fmt: skip
        return super().__call__(scores, targets, clean)


@final
class RecallAt(_OfFirst):
    """Share of a query's relevant documents that are among the first k. Unit: share."""

    kind = "recall"

    def ranked(self, relevance: Tensor, before: Tensor, alike: Tensor) -> Tensor:
        """See ``_Ranking.ranked``."""
        relevant = relevance > 0.0
        inside = ((self.k - before) / alike).clamp(0.0, 1.0)
        return (inside * relevant).sum(1) / relevant.sum(1)


@final
class NDCG(_OfFirst):
    """Discounted gain of the first k documents, as a share of the best order's; the gain is the relevance. Unit: share.

    Source: Jarvelin & Kekalainen (2002); of equal scores the mean, as McSherry & Najork (2008).
    """

    kind = "ndcg"

    def ranked(self, relevance: Tensor, before: Tensor, alike: Tensor) -> Tensor:
        """See ``_Ranking.ranked``."""
        places = torch.arange(1, relevance.shape[1] + 1, dtype=torch.float64)
        discount = torch.where(places <= self.k, 1.0 / (places + 1.0).log2(), 0.0)
        total = torch.cat([torch.zeros(1, dtype=torch.float64), discount.cumsum(0)])
        mean = (total[(before + alike).long()] - total[before.long()]) / alike
        best = (relevance.sort(1, descending=True).values * discount).sum(1)
        return (relevance * mean).sum(1) / best


@final
class MRR(_Ranking):
    """One over the place of a query's first relevant document. Unit: share."""

    name = "mrr"

    def ranked(self, relevance: Tensor, before: Tensor, alike: Tensor) -> Tensor:
        """See ``_Ranking.ranked``."""
        relevant = relevance > 0.0
        first = torch.where(relevant, before, torch.inf).amin(1, keepdim=True)
        among = relevant & (before == first)
        own = among.sum(1, keepdim=True).double()
        tied = torch.where(among, alike, 0.0).amax(1, keepdim=True)
        # That m of t which score alike all stand behind the j-th place has a chance of C(t - j, m) / C(t, m).
        places = torch.arange(int(tied.amax()), dtype=torch.float64)
        left = tied - places

        def behind(count: Tensor) -> Tensor:
            ways = torch.lgamma(count + 1.0) - torch.lgamma((count - own).clamp_min(0.0) + 1.0)
            return torch.where(
                count >= own, (ways - (torch.lgamma(tied + 1.0) - torch.lgamma(tied - own + 1.0))).exp(), 0.0
            )

        chances = behind(left) - behind(left - 1.0)
        return torch.where(left > 0.0, chances / (first + places + 1.0), 0.0).sum(1)
