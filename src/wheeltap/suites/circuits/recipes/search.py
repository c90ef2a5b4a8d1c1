"""The search for the smallest circuit that does a task: of units by learned masks, or of edges by their worth."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.recipes.fit import Fit, Hook, TrainSettings
from wheeltap.recipes.randomness import own_random_numbers, reproducible
from wheeltap.suites.circuits.circuit import EdgeGraph
from wheeltap.suites.circuits.engine import ablation
from wheeltap.suites.circuits.engine.attribution import weights_still
from wheeltap.suites.circuits.engine.edges import EdgeDecoder
from wheeltap.suites.circuits.engine.units import Kept, UnitNet
from wheeltap.suites.circuits.specs import CHANCE, CIRCUIT_SEARCH, EASY, SHARES, CircuitSearchSettings

_DECAY: Final = 1e-3
"""Share of every threshold lost in a step, over the rate."""

_START, _SPREAD = 0.1, 0.01
"""Mean and standard deviation of the thresholds at the start; all units with a threshold above 0 are kept."""


@final
class Masks(nn.Module):
    """A threshold for each unit: it is kept where that is above 0."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.thresholds = nn.Parameter(torch.zeros(units))

    def forward(self) -> Tensor:
        """1 for units that are kept, 0 for others, ``[unit]``; with a gradient."""
        return cast("Tensor", _Step.apply(self.thresholds))  # pyright: ignore[reportUnknownMemberType]


class _Step(torch.autograd.Function):
    """A step at 0; going back, the slope of a sigmoid."""

    @staticmethod
    def forward(ctx: Any, thresholds: Tensor) -> Tensor:
        ctx.save_for_backward(thresholds)
        return (thresholds > 0).to(thresholds.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (thresholds,) = ctx.saved_tensors
        sigmoid = thresholds.sigmoid()
        return grads[0] * sigmoid * (1.0 - sigmoid)


@final
class ThresholdBounds(Hook):
    """Thresholds stay between -1 and 1, and no gradient is longer than 1."""

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        torch.nn.utils.clip_grad_norm_(fit.trained, 1.0)

    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        with torch.no_grad():
            for parameter in fit.trained:
                parameter.clamp_(-1.0, 1.0)


def mask_fit(searched: ablation.UnitPairs, how: CircuitSearchSettings, *, seed: int) -> Fit:
    """Return the training of masks over the units of a decoder, whose weights stay as they are."""
    masks = Masks(searched.net.units).to(searched.device)
    with reproducible(seeds.derive(seed, "circuit", "init")):
        noise = torch.randn(searched.net.units)
    with torch.no_grad():
        masks.thresholds.copy_(_START + _SPREAD * noise)

    def loss(rows: Tensor, step: int) -> Tensor:
        mask, batch = masks(), replace(searched, pairs=searched.pairs.part([*map(int, rows)]))
        return batch.loss(mask) + how.penalty * mask.sum()

    settings = TrainSettings(
        seed=seeds.derive(seed, "circuit", "order"), steps=how.steps, batch=how.batch, rate=how.rate, decay=_DECAY,
        optimizer="adamw",
    )  # fmt: skip
    return Fit(masks, loss, examples=len(searched.pairs), settings=settings, hooks=[ThresholdBounds()])


SCANNED: Final = 24
"""Sizes that are tried first, from one part to all, in equal ratios: loss against size is not monotone, so that cutting
an interval in half would miss circuits."""

SCANNED_EDGES: Final = 12
"""The same of edges: each size takes a pass in which every edge is run by itself."""

REFINED: Final = 6
"""Sizes that are tried after them, between the smallest that reaches the target and the next smaller one."""

GRADIENTS: Final = {"eap": 1, "eap-ig": 5}
"""Passes there and back over the pairs that a method takes, about."""


@final
class CircuitSearch(Reading):
    """Ranks units or edges by half of the pairs, and takes the fewest that reach the target there."""

    spec = CIRCUIT_SEARCH
    settings: CircuitSearchSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the units (edges) of the model are not known, or the task has no pairs.
            DataError: If it has no such group.
        """
        how = self.settings
        task = ablation.of_group(task, how.group, most=how.pairs)
        null = how.null == "weights"
        model = (
            drawn_again(subject.model, seed=seeds.derive(root, self.name, "weights", seed)) if null else subject.model
        )
        ranked = (self._units if how.method == "masks" else self._edges)(subject, model, task, root=root, seed=seed)
        with torch.no_grad():
            target = how.target
            if not target:  # the loss of what does a share of what the whole net does beyond chance
                target = max(EASY, CHANCE - how.recovered * (CHANCE - ablation.mean_loss(ranked.whole.gaps(None))))
            found = ranked.found(target)
            held = ranked.sides[1]
            if not seed and how.null == "none" and isinstance(held, ablation.EdgePairs):
                found |= _accounted(held, ranked.scores)
        passes = SCANNED + REFINED + (how.steps * how.batch / max(len(task.targets), 1) if how.method == "masks" else
                                      GRADIENTS[how.method]) * 6.0  # fmt: skip
        return Readings(found, forwards=passes)

    def _units(self, subject: Subject, model: nn.Module, task: BaseTask, *, root: int, seed: int) -> "_PartOrder":
        """By thresholds of masks."""
        how = self.settings
        if how.ablation != "mean":
            raise UsageError("Masks are learned with ablated units at their mean.", where="ablation",
                             expected="mean", got=how.ablation,
                             do="Give --ablation mean, or search edges: --method eap-ig.")  # fmt: skip
        sides = ablation.unit_sides(model, task, inverted=how.null == "labels")
        net, pairs = sides[0].net, sides[0].pairs
        with own_random_numbers(), weights_still(model):
            fit = mask_fit(sides[0], how, seed=seeds.derive(root, self.name, seed))
            fit.advance(fit.steps)
        thresholds = to_array(fit.made().get_parameter("thresholds"))
        whole = ablation.UnitPairs(pairs, UnitNet(subject.model, next(pairs.batches()).clean))
        return _PartOrder(
            _places(thresholds), thresholds.astype(np.float64), int((thresholds > 0).sum()), sides, whole, net.edges
        )

    def _edges(self, subject: Subject, model: nn.Module, task: BaseTask, *, root: int, seed: int) -> "_PartOrder":
        """By scores of edges. A net whose weights were drawn again has the edges of the one that it was made of."""
        how, halved = self.settings, ablation.halves(ablation.pairs_of(task))
        assert how.method != "masks"
        known = ablation.wired(subject, halved[0])
        whole = ablation.EdgePairs(halved[0], known)
        if model is not subject.model:
            known = EdgeDecoder(Subject(model, name=subject.name), known.wiring)
        ablated = ablation.place_means(known, task) if how.ablation == "mean" else "patch"
        sides = [ablation.EdgePairs(pairs, known, ablated, inverted=how.null == "labels") for pairs in halved]
        scores = ablation.scored(sides[0], how.method, seed=seeds.derive(root, self.name, seed), again=seed > 0)
        above = int((scores > 0.0).sum())
        return _PartOrder(_places(scores), scores, above, sides, whole, lambda kept: int(kept.sum()), known.graph)


def drawn_again(model: nn.Module, *, seed: int) -> nn.Module:
    """A copy whose weights are, within each tensor, in another order: of the same sizes, but they mean nothing."""
    other = copy.deepcopy(model)
    with reproducible(seed), torch.no_grad():
        for parameter in other.parameters():
            flat = parameter.reshape(-1)
            parameter.copy_(flat[torch.randperm(len(flat)).to(flat.device)].view_as(parameter))
    return other


def _accounted(held: ablation.EdgePairs, scores: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """How much of the way from the empty circuit to the whole model circuits of MIB's sizes account for.

    Nothing where both sides get the same answer: then there is nothing to account for.

    MIB ranks edges signed where a circuit should do the task best (CPR), by size where it should behave as the model
    does (CMD).
    """
    batches, total = list(held.pairs.batches()), len(scores)
    like = next(held.wired.model.parameters())

    def gap(kept: NDArray[np.bool_]) -> np.float64:
        keep = to_tensor(kept.astype(np.float64), like=like)
        gaps = [held.wired.ablated_gaps(batch, keep, "patch") for batch in batches]
        return torch.cat(gaps).double().cpu().numpy().mean()

    empty, full = (gap(np.full(total, keep)) for keep in (False, True))
    if full == empty:
        return {}
    ranks = [_places(by) for by in (scores, np.abs(scores))]
    gaps = [np.array([gap(rank < int(share * total)) for share in SHARES]) for rank in ranks]
    return {"faithful": (np.stack(gaps) - empty) / (full - empty)}


def _places(values: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each by its value, the highest first, from 0; of equals the first."""
    return np.argsort(np.argsort(-values, kind="stable"), kind="stable")


@final
@dataclass(frozen=True, eq=False)
class _PartOrder:
    """Units or edges in the order in which circuits take them up.

    Attributes:
        rank: Place of each, the best from 0, ``[part]``.
        scores: What they are ranked by, ``[part]``.
        above: How many the method itself would keep.
        sides: Pairs that are searched on, pairs that are held out.
        whole: Those that are searched on, asked of the model itself: also where the search is in a null.
        weights: Weights between some units, or how many edges some are.
        graph: Of edges; ``None`` of units.
        gaps: Score gaps on the pairs searched of the circuit of the first parts by rank, by their number.
    """

    rank: NDArray[np.int64]
    scores: NDArray[np.float64]
    above: int
    sides: Sequence[ablation.PairRunner]
    whole: ablation.PairRunner
    weights: Callable[[Kept], int]
    graph: EdgeGraph | None = None
    gaps: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def found(self, target: float) -> dict[str, NDArray[Any]]:
        """Every array of the reading."""
        above, total, held = self.above, len(self.rank), self.sides[1]
        size = self._smallest(target)
        whole, none = (ablation.mean_loss(held.gaps(mask)) for mask in (None, torch.zeros(total, device=held.device)))
        tried = sorted(self.gaps)
        decoder = {} if self.graph is None else {"decoder": self.graph.numbers}
        return decoder | {
            "rank": self.rank, "score": self.scores, "above": np.array(above),
            "size": np.array(size), "edges": np.array(self._edges(size)), "edges_above": np.array(self._edges(above)),
            "loss": np.array(self._held(size)), "loss_above": np.array(self._held(above)),
            "own": np.array(whole), "empty": np.array(none), "sizes": np.array(tried),
            "losses": np.array([ablation.mean_loss(self.gaps[one]) for one in tried]),
            "weights": np.array(self._edges(total)), "target": np.array(target),
        }  # fmt: skip

    def _smallest(self, target: float) -> int:
        """The fewest parts whose loss is at most the target; 0 where there are none."""
        scanned = SCANNED if self.graph is None else SCANNED_EDGES
        points = {int(size) for size in np.geomspace(1, len(self.rank), scanned).round()} | {max(self.above, 1)}
        enough = [size for size in sorted(points) if ablation.mean_loss(self._of(size)) <= target]
        if not enough:
            return 0
        high = enough[0]
        low = max((size for size in points if size < high), default=0)
        for _ in range(REFINED):
            if high - low <= 1:
                break
            middle = (low + high) // 2
            low, high = (low, middle) if ablation.mean_loss(self._of(middle)) <= target else (middle, high)
        return high

    def _of(self, size: int) -> Tensor:
        if size not in self.gaps:
            self.gaps[size] = self._alone(size, self.sides[0])
        return self.gaps[size]

    def _alone(self, size: int, pairs: ablation.PairRunner) -> Tensor:
        """Score gaps of the circuit of so many parts on some pairs."""
        return pairs.gaps(to_tensor((self.rank < size).astype(np.float32)).to(pairs.device)).cpu()

    def _edges(self, size: int) -> int:
        """Weights between the units of a circuit, or its edges."""
        return self.weights(self.rank < size) if size else 0

    def _held(self, size: int) -> float:
        """Loss on pairs that were held out; chance where there is no circuit."""
        return ablation.mean_loss(self._alone(size, self.sides[1])) if size else CHANCE
