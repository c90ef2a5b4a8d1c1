"""Average precision of detections, which a function of the user's matches with what is there.

Precision at a detection is the share of hits among all detections as confident as it or more; average precision is
its mean over the objects wanted, 0 for those not found. It is no mean over examples, so it is linearized (see
``classes``) by its derivative in the weight of each example, the infinitesimal jackknife.

Source: Jaeckel (1972), "The infinitesimal jackknife"; without interpolation, as scikit-learn's average precision.
"""

from collections.abc import Callable
from typing import Any, cast, final

import torch
from torch import Tensor

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.fingerprint import source_of
from wheeltap.core.measures.classes import LinearStatistic
from wheeltap.core.measures.family import Kind

Matches = tuple[Tensor, Tensor, Tensor]
"""Confidence and whether it is a hit, ``[example, detection]``, and how many objects there are, ``[example]``; of
several classes ``[example, class, detection]`` and ``[example, class]``. A confidence of NaN is no detection."""

LEAST_WITH_OBJECTS = 250
"""Examples with an object from which intervals hold the truth in .93 to .97 of simulated samples."""


@final
class AveragePrecision(LinearStatistic):
    """Average precision of matched detections, of several classes the mean over those wanted. Linearized. Unit: share.

    Args:
        match: ``match(scores, targets)``, both flattened to ``[example, output]``, gives confidences, hits and how many
            objects are wanted (see ``Matches``).
        name: What reports call it; by default the function's.
    """

    fits: tuple[Kind, ...] = ("outputs",)
    enough = LEAST_WITH_OBJECTS

    def __init__(self, match: Callable[[Tensor, Tensor], Any], *, name: str = "") -> None:
        self.match, self.name = match, name or str(getattr(match, "__name__", "average_precision"))

    @property
    def identity(self) -> list[str]:
        """The name and the matching function's source text."""
        return [self.name, source_of(self.match)]

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``; in double precision."""
        each = [self._linear(*one) for one in self._classes(scores, targets)]
        return torch.stack(each).mean(0)

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """The same detections in random order: each hit then has the share of hits among all as its precision."""
        parts = self._classes(scores, targets)
        shares = [hit.sum() ** 2 / (hit.numel() * wanted.sum()) if hit.numel() else 0.0 for _, hit, _, wanted in parts]
        return float(sum(shares)) / len(shares)

    def constant(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See ``Measure.constant``."""
        return self(scores.mean(0).expand_as(scores), targets, scores)

    def by_class(self, scores: Tensor, targets: Tensor) -> dict[int, float]:
        """The average precision of each class that is wanted, where there are several."""
        matches = self._matches(scores, targets)
        if matches[0].shape[1] == 1:
            return {}
        each = (matches[2].sum(0) > 0).nonzero()[:, 0]
        parts = self._classes(scores, targets)
        return {int(at): float(self._linear(*one).mean()) for at, one in zip(each, parts, strict=True)}

    def carried(self, scores: Tensor, targets: Tensor) -> tuple[float, float]:
        """Examples with an object do, of the class that has fewest."""
        worth = [
            (float(wanted.sum() ** 2 / (wanted**2).sum()), float(wanted.amax() / wanted.mean()))
            for *_, wanted in self._classes(scores, targets)
        ]
        return min(one for one, _ in worth), max(one for _, one in worth)

    def _linear(self, confidence: Tensor, hit: Tensor, of: Tensor, wanted: Tensor) -> Tensor:
        """Values of the examples for one class: detections in any order, and the example ``of`` each."""
        objects = wanted.sum()
        if not len(confidence):
            return torch.zeros_like(wanted)
        order = confidence.argsort(descending=True)
        confidence, hit, of = confidence[order], hit[order], of[order]
        # Detections of one confidence are one threshold: from the first of them to the last.
        rising = -confidence
        first, last = torch.searchsorted(rising, rising), torch.searchsorted(rising, rising, right=True) - 1
        hits, all_ = hit.cumsum(0)[last], 1.0 + last
        precision = hits / all_
        value = (hit * precision).sum() / objects

        def after(of_each: Tensor) -> Tensor:
            """Its sum over all detections that are no more confident."""
            return of_each.flip(0).cumsum(0).flip(0)[first]

        moved = hit * precision + hit * after(hit / all_) - after(hit * hits / all_**2)
        own = torch.zeros_like(wanted).index_add_(0, of, moved)
        return value + (own - value * wanted) * len(wanted) / objects

    def _classes(self, scores: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each class that is wanted: confidences, hits, the example of each, and objects by example."""
        confidence, hit, wanted = self._matches(scores, targets)
        some = (wanted.sum(0) > 0).nonzero()[:, 0]
        if not len(some):
            raise DataError(
                "There is nothing to detect in any example.", where=self.name, expected="objects in some", got="none",
                do="Give examples that have some.",
            )  # fmt: skip
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for at in map(int, some):
            there = ~confidence[:, at].isnan()
            of = there.nonzero()[:, 0]
            found.append((confidence[:, at][there], hit[:, at][there], of, wanted[:, at]))
        return found

    def _matches(self, scores: Tensor, targets: Tensor) -> Matches:
        """What the function gives, with an axis for classes, in double precision."""
        given: Any = self.match(scores.clone(), targets.clone())
        count, kind = len(scores), type(given).__name__
        parts = [*cast("tuple[Any, ...]", given)] if isinstance(given, tuple | list) else []
        if len(parts) == 3 and all(isinstance(one, Tensor) for one in parts):
            confidence, hit, wanted = (one.detach().cpu().double() for one in parts)
            if confidence.ndim == 2:
                confidence, hit, wanted = confidence[:, None], hit[:, None], wanted[:, None]
            there = ~confidence.isnan()
            fits = confidence.ndim == 3 and confidence.shape == hit.shape and wanted.shape == confidence.shape[:2]
            if fits and len(wanted) == count and bool(((hit == 0) | (hit == 1) | ~there).all()):
                found = torch.where(there, hit, 0.0).sum(2)
                if bool((wanted >= found).all()) and bool(wanted.isfinite().all()):
                    return confidence, hit, wanted
        raise UsageError(
            "The function does not give matched detections.", where=self.name,
            expected=f"confidences and hits (0 or 1), both [{count}, detection], and objects [{count}], no fewer than "
            "hits; of several classes [example, class, detection] and [example, class]",
            got=", ".join(str(list(one.shape)) if isinstance(one, Tensor) else type(one).__name__ for one in parts)
            or kind,
            do="See docs/measures.md; where there is no detection, its confidence is NaN.",
        )  # fmt: skip
