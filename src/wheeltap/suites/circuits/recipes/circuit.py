"""Circuits by learned masks: which units of a decoder are enough for a task, found by gradient descent.

Source: Gao et al. 2025, arXiv:2511.13653, section 2.2 and appendix A: a mask for each unit, 0 or 1 going forward and
the slope of a sigmoid going back; ablated units hold their mean over what the net was trained on; the task's loss plus
a penalty for each unit that is kept. What the paper leaves open (steps, the clip, Adam's betas) is in the settings.
"""

import copy
from typing import Annotated, Any, Literal, cast, final

import msgspec
import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.settings import Settings
from wheeltap.recipes.base import Given, Needs, Recipe, require_fit
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.hooks import Hook, Training
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.circuits.engine.asking import Asked, halves, pairs_of, reference
from wheeltap.suites.circuits.engine.units import UnitNet

Ablation = Literal["mean", "zero"]


class CircuitSettings(Settings, frozen=True, kw_only=True):
    """How masks are learned.

    Attributes:
        penalty: For each unit that is kept, nats.
        steps: Batches in all.
        batch: Pairs per step; both sides of each are asked.
        rate: First step size, of AdamW; it falls linearly.
        decay: Share of every threshold lost in a step, over the rate.
        start: Mean of the thresholds at the start; all units with a threshold above 0 are kept.
        spread: Standard deviation of the thresholds at the start.
        ablation: What ablated units hold.
        inverted: Whether the two answers change places: a task that the net cannot do, as a null.
    """

    penalty: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1e-3
    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 250
    batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1e-2
    decay: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1e-3
    start: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.1
    spread: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.01
    ablation: Ablation = "mean"
    inverted: bool = False


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
class Bounded(Hook):
    """Thresholds stay between -1 and 1, and no gradient is longer than 1."""

    def after_gradient(self, fit: Training) -> None:
        """See ``Hook.after_gradient``."""
        torch.nn.utils.clip_grad_norm_(fit.trained, 1.0)

    def after_step(self, fit: Training) -> None:
        """See ``Hook.after_step``."""
        with torch.no_grad():
            for parameter in fit.trained:
                parameter.clamp_(-1.0, 1.0)


@final
class Circuit(Recipe):
    """Masks over the units of a decoder, learned on the pairs of a task; its weights stay as they are."""

    name = "circuit"
    title = "circuit: masks over units, learned on the pairs of a task"
    settings_type = CircuitSettings
    settings: CircuitSettings

    @property
    def needs(self) -> Needs:
        """See ``Recipe.needs``: half of the pairs are searched, the others are held out."""
        return "measured"

    def blank(self, given: Given) -> Masks:
        """See ``Recipe.blank``."""
        first = next(iter(pairs_of(given.examples).batches()))
        return Masks(UnitNet(given.of[0], first.clean).units).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, task = self.settings, given.examples
        searched = halves(pairs_of(task))[0]
        # A copy: gradients may not be left in the weights of the net that is given.
        model = copy.deepcopy(given.of[0]).requires_grad_(False).eval()
        net = UnitNet(model, next(iter(searched.batches())).clean)
        masks = Masks(net.units).to(net.device)
        with reproducible(seeds.derive(given.spec.seed, self.name, "init")):
            noise = torch.randn(net.units)
        with torch.no_grad():
            masks.thresholds.copy_(how.start + how.spread * noise)
        values = {} if how.ablation == "zero" else net.means(reference(task))

        def loss(rows: Tensor, step: int) -> Tensor:
            mask, some = masks(), Asked(net, searched.part([int(row) for row in rows]), values, inverted=how.inverted)
            return some.loss(mask) + how.penalty * mask.sum()

        settings = TrainSettings(
            seed=seeds.derive(given.spec.seed, self.name, "order"), steps=how.steps, batch=how.batch, rate=how.rate,
            decay=how.decay, optimizer="adamw",
        )  # fmt: skip
        return Fit(masks, loss, examples=len(searched), settings=settings, hooks=[Bounded()])
