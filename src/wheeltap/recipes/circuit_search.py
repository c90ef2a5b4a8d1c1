"""The search for the smallest circuit of units that does a task, with what it takes to judge it."""

import copy
from collections.abc import Callable
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.engine.circuits.asking import Asked, halves, of_group, pairs_of, reference
from wheeltap.engine.circuits.units import UnitNet, two_sided
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings.circuit_search import CIRCUIT_SEARCH, CircuitSearchSettings
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.circuit import Circuit, Masks
from wheeltap.recipes.make import make
from wheeltap.recipes.randomness import reproducible

SCANNED: Final = 24
"""Sizes that are tried first, from one unit to all, in equal ratios: loss against size is not monotone, so that cutting
an interval in half would miss circuits."""

REFINED: Final = 6
"""Sizes that are tried after them, between the smallest that reaches the target and the next smaller one."""

CHANCE: Final = float(np.log(2.0))


@final
class CircuitSearch(Reading):
    """Learns masks on half of the pairs, and takes the fewest units that reach the target there."""

    spec = CIRCUIT_SEARCH
    settings: CircuitSearchSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the units of the model are not known, or the task has no pairs.
            DataError: If it has no such group.
        """
        how = self.settings
        task = of_group(task, how.group)
        model = (
            drawn_again(subject.model, seed=seeds.derive(root, self.name, "weights", seed))
            if how.null == "weights"
            else subject.model
        )
        masks = self._learned(model, task, seed=seeds.derive(root, self.name, seed))
        searched, held = halves(pairs_of(task))
        net = UnitNet(model, next(iter(searched.batches())).clean)
        with torch.no_grad():
            values = {} if how.ablation == "zero" else net.means(reference(task))
            sides = [Asked(net, pairs, values, inverted=how.null == "labels") for pairs in (searched, held)]
            found = _found(net, masks.thresholds.detach().cpu().numpy(), sides, target=how.target)
        passes = how.steps * how.batch * 6.0 / max(len(task.targets), 1) + SCANNED + REFINED
        return Readings(found, forwards=passes)

    def _learned(self, model: nn.Module, task: BaseTask, *, seed: int) -> Masks:
        how = self.settings
        settings = {
            "penalty": how.penalty, "steps": how.steps, "batch": how.batch, "rate": how.rate,
            "ablation": how.ablation, "inverted": how.null == "labels",
        }  # fmt: skip
        spec = specified(Circuit, settings, seed=seed, of=("net",), data=task.digest)
        made = make(Given(spec, (model,), task, next(model.parameters()).device), Circuit(dict(spec.settings)))
        assert isinstance(made.model, Masks)
        return made.model


def drawn_again(model: nn.Module, *, seed: int) -> nn.Module:
    """A copy whose weights are, within each tensor, in another order: of the same sizes, but they mean nothing."""
    other = copy.deepcopy(model)
    with reproducible(seed), torch.no_grad():
        for parameter in other.parameters():
            flat = parameter.reshape(-1)
            parameter.copy_(flat[torch.randperm(len(flat)).to(flat.device)].view_as(parameter))
    return other


def _found(net: UnitNet, thresholds: NDArray[Any], sides: list[Asked], *, target: float) -> dict[str, NDArray[Any]]:
    """Every array of the reading but for what is of the whole net alone."""
    order = np.argsort(-thresholds, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    above = int((thresholds > 0).sum())
    scan = _Scan(net, rank, sides)
    sizes = scan.smallest(target, lambda searched: float(two_sided(searched).mean()), known=above)
    scaled = scan.smallest(target, lambda searched: float(two_sided(_scaled(searched)(searched)).mean()), known=above)
    whole, none = (float(sides[1].loss(mask)) for mask in (None, torch.zeros(len(rank), device=net.device)))
    tried = sorted(scan.gaps)
    return {
        "rank": rank, "above": np.array(above), "size": np.array(sizes), "edges": np.array(scan.edges(sizes)),
        "edges_above": np.array(scan.edges(above)), "loss": np.array(scan.held(sizes)),
        "loss_above": np.array(scan.held(above)), "calibrated": np.array(scan.held(scaled, scaled=True)),
        "calibrated_size": np.array(scaled), "calibrated_edges": np.array(scan.edges(scaled)),
        "own": np.array(whole), "empty": np.array(none), "sizes": np.array(tried),
        "losses": np.array([float(two_sided(scan.gaps[size]).mean()) for size in tried]),
        "weights": np.array(scan.edges(len(rank))),
    }  # fmt: skip


@final
class _Scan:
    """Circuits of the first units by rank: their score gaps on the pairs searched, each computed once."""

    def __init__(self, net: UnitNet, rank: NDArray[np.int64], sides: list[Asked]) -> None:
        self.net, self.rank, self.sides = net, rank, sides
        self.gaps: dict[int, Tensor] = {}

    def smallest(self, target: float, loss: Callable[[Tensor], float], *, known: int) -> int:
        """The fewest units whose loss is at most the target; 0 where there are none."""
        total = len(self.rank)
        points = sorted({int(size) for size in np.geomspace(1, total, SCANNED).round()} | {max(known, 1)})
        enough = [size for size in points if loss(self._of(size)) <= target]
        if not enough:
            return 0
        high = enough[0]
        low = max((size for size in points if size < high), default=0)
        for _ in range(REFINED):
            if high - low <= 1:
                break
            middle = (low + high) // 2
            low, high = (low, middle) if loss(self._of(middle)) <= target else (middle, high)
        return high

    def _of(self, size: int) -> Tensor:
        if size not in self.gaps:
            self.gaps[size] = self.sides[0].gaps(self._mask(size)).cpu()
        return self.gaps[size]

    def _mask(self, size: int) -> Tensor:
        return to_tensor((self.rank < size).astype(np.float32)).to(self.net.device)

    def edges(self, size: int) -> int:
        """Weights between the units of a circuit."""
        return self.net.edges(self.rank < size) if size else 0

    def held(self, size: int, *, scaled: bool = False) -> float:
        """Loss on pairs that were held out; chance where there is no circuit."""
        if not size:
            return CHANCE
        gaps = self.sides[1].gaps(self._mask(size)).cpu()
        return float(two_sided(_scaled(self._of(size))(gaps) if scaled else gaps).mean())


def _scaled(gaps: Tensor) -> Callable[[Tensor], Tensor]:
    """The scale and shift of scores that fit some pairs best, as a function of score gaps ``[side, pair]``.

    A circuit keeps the order of answers better than the size of its scores. A shift moves the two sides in opposite
    directions: it favors one of the two answers.
    """
    with torch.enable_grad():
        free = torch.tensor([0.0, 0.0], requires_grad=True)
        optimizer = torch.optim.LBFGS([free], max_iter=16, line_search_fn="strong_wolfe")
        side = torch.tensor([[1.0], [-1.0]])

        def moved(some: Tensor) -> Tensor:
            return some * free[0].exp() + side * free[1]

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = two_sided(moved(gaps)).mean() + 1e-4 * free.square().sum()  # bounded where all are right
            value.backward()  # pyright: ignore[reportUnknownMemberType]
            return value

        optimizer.step(closure)  # pyright: ignore
    scale, shift = free.detach().exp()[0], free.detach()[1]
    return lambda some: some * scale + side * shift
