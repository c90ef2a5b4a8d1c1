"""Training small nets of one shape as a batch, each to the bits that it has when it is trained alone.

A small net's step is mostly the calls of its many small operations. Stacked, n nets share these calls: one batched
product in place of n. It takes its sums in the order in which the product of one net takes them, so a net's bits do not
depend on which others are beside it, nor on whether any are: its key and its artifact stay the same. That is so of some
shapes on some machines. It is proven on the nets at hand, and where it does not hold they are trained one by one.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core.errors import StoreError
from wheeltap.core.typed import to_tensor
from wheeltap.plans.artifacts import Arrays, Artifacts
from wheeltap.recipes.base import State
from wheeltap.recipes.fit import Fit, Hook
from wheeltap.recipes.make import ArtifactMaker, Watch, advance
from wheeltap.recipes.randomness import own_random_numbers

_WEIGHTS: Final = 2**19
_MOST: Final = 64
"""Weights and nets of a batch, at most: of more, what the optimizer remembers does not fit the processor's cache."""


def at_once(parameters: int) -> int:
    """How many nets of so many parameters are trained together; 1 where that saves nothing."""
    return max(min(_WEIGHTS // max(parameters, 1), _MOST), 1)


@final
class _StackedProduct(torch.autograd.Function):
    """``x W^T + b`` of n layers, and its gradient, with factors in the order in which a linear layer has them."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return torch.baddbmm(bias[:, None], inputs, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (inputs, weight), gradient = ctx.saved_tensors, cast("Tensor", grads[0])
        back = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        return back, torch.bmm(gradient.transpose(1, 2), inputs), gradient.sum(1)


@final
class _StackedLinear(nn.Module):
    """n linear layers of one shape: ``[net, example, feature]`` in and out."""

    def __init__(self, nets: int, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(nets, *layer.weight.shape))
        self.bias = nn.Parameter(torch.zeros(nets, *layer.bias.shape))

    def forward(self, inputs: Tensor) -> Tensor:
        return cast("Tensor", _StackedProduct.apply(inputs, self.weight, self.bias))  # pyright: ignore[reportUnknownMemberType]


@final
class FitBatch(Hook):
    """Fits in step with each other: one fit of the stacked nets, which can be taken apart at every step.

    Attributes:
        fits: Alike (see ``_alike``), and not changed before ``give_back``.
        inputs: What all of them learn, ``[example, ...]``.
        in_epoch: Steps of an epoch.
        whole: The fit of the stacked nets.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        self.fits, first = tuple(fits), fits[0]
        assert first.lesson is not None, "they are alike"
        self.inputs, self._targets = first.lesson
        self.in_epoch = -(-len(self._targets) // first.settings.batch)
        self._orders = [torch.Generator() for _ in fits]
        self._epoch: Sequence[Tensor] = ()
        self._ends = first.report()["steps"]
        self._lost = torch.zeros(0)
        modules = (
            _StackedLinear(len(fits), one) if isinstance(one, nn.Linear)
            else nn.Flatten(2) if isinstance(one, nn.Flatten) else type(one)()
            for one in first.model.children()
        )  # fmt: skip
        stack = nn.Sequential(*modules)
        self.whole = Fit(stack, self._loss, examples=len(self._targets), settings=first.settings, hooks=[self])
        self.resume([fit.arrays() for fit in fits], first.step)

    def resume(self, each: Sequence[Arrays], step: int) -> None:
        """Goes on from the arrays of every net at a step."""
        stacked = {name: np.stack([one[name] for one in each]) if _own(name) else each[0][name] for name in each[0]}
        self.whole.resume(stacked, {"step": step, "status": "training"})
        self._given, self._epoch = each, ()
        self._before = [to_tensor(np.array(one["order"])) for one in each]
        for order, state in zip(self._orders, self._before, strict=True):
            order.set_state(state)
        self._sums = to_tensor(np.array([one["sum"] for one in each]))
        self._losses = np.stack([one["losses"] for one in each])

    def arrays(self) -> list[dict[str, NDArray[Any]]]:
        """Of every net, what its own fit would give at this step: see ``State.arrays``."""
        whole, within = self.whole.arrays(), self.whole.step % self.in_epoch
        orders = self._before if within else [order.get_state() for order in self._orders]
        return [
            {name: whole[name][at] if _own(name) else whole[name] for name in given}
            | {name: array for name, array in given.items() if name.startswith("random")}
            | {"order": orders[at].numpy(), "losses": self._losses[at].copy(), "sum": self._sums[at].numpy().copy()}
            for at, given in enumerate(self._given)
        ]

    def give_back(self) -> bool:
        """Brings every fit to where the batch is, and to its end where that is one; not if one of them diverged."""
        if self.whole.status == "diverged":
            return False
        for fit, arrays in zip(self.fits, self.arrays(), strict=True):
            fit.resume(arrays, {"step": self.whole.step, "status": "training"})
            fit.advance(fit.step)
        return True

    def _loss(self, rows: Tensor, step: int) -> Tensor:
        """The sum of all nets' losses, whose gradient is that of each."""
        at = step % self.in_epoch
        if not self._epoch or at == 0:
            if at == 0:
                self._before = [order.get_state() for order in self._orders]
            drawn = torch.stack([torch.randperm(len(self._targets), generator=order) for order in self._orders])
            self._epoch = cast("Sequence[Tensor]", drawn.split(self.whole.settings.batch, dim=1))  # pyright: ignore[reportUnknownMemberType]
        targets = self._targets[self._epoch[at]]
        chances = functional.log_softmax(self.whole.model(self.inputs[self._epoch[at]]), 2)
        with torch.no_grad():  # of each by itself: of all together the terms would be summed in another order
            self._lost = torch.stack([functional.nll_loss(*own) for own in zip(chances, targets, strict=True)])
        lost = functional.nll_loss(chances.flatten(0, 1), targets.flatten(), reduction="none")
        return lost.view_as(targets).mean(1).sum()

    def after_step(self, fit: Fit) -> None:
        """Records every net's loss, as its own fit would."""
        self._sums = self._sums + self._lost
        at = int(np.searchsorted(self._ends, fit.step))
        if fit.step == self._ends[at]:
            steps = fit.step - (int(self._ends[at - 1]) if at else 0)
            self._losses[:, at:] = (self._sums.numpy() / steps)[:, None]
            self._sums = torch.zeros_like(self._sums)


_NUMBERS, _ROWS = 16, 8  # what widths of layers, and the rows of a batch, are multiples of


def _own(name: str) -> bool:
    """Whether an array of a fit is stacked: weights, and what an optimizer remembers of each, but not its count."""
    return name.startswith(("model.", "optimizer.")) and not name.endswith(".step")


def _stackable(fit: Fit) -> bool:
    """Whether a net is linear layers and functions of single numbers in a row, and nothing else is done in training."""
    kinds = [type(one) for one in fit.model.modules()]
    return (
        kinds[0] is nn.Sequential
        and not fit.hooks
        and {nn.Linear, nn.Flatten, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh}.issuperset(kinds[1:])
        and all(one.dtype is torch.float32 and one.device.type == "cpu" for one in fit.trained)
        and len(fit.trained) == 2 * kinds.count(nn.Linear)
        # Of other widths and batches slices lie off the boundaries of vectors, and some sums take another order.
        and fit.settings.batch % _ROWS == 0
        and all(one.shape[-1] % _NUMBERS == 0 for one in fit.trained if one.ndim == 2)
    )


def _kind(fit: Fit) -> tuple[object, ...]:
    """What nets have in common that are trained together, but for where they are."""
    return msgspec.structs.astuple(msgspec.structs.replace(fit.settings, seed=0)), str(fit.model)


def _alike(states: Sequence[State]) -> list[list[Fit]]:
    """Those that can be trained together: nets of one shape that learn the same, the same way, from the same step."""
    alike: dict[object, list[Fit]] = {}
    for fit in states:
        if isinstance(fit, Fit) and fit.lesson is not None and fit.step < fit.steps and _stackable(fit):
            where = fit.step, *(one.data_ptr() for one in fit.lesson)
            alike.setdefault((_kind(fit), where), []).append(fit)
    return [fits for fits in alike.values() if len(fits) > 1]


_TRIED: Final = 64  # steps, at least, that are compared with those of every net alone

_proven: dict[object, bool] = {}


def _proves(batch: FitBatch, makers: Sequence[ArtifactMaker]) -> bool:
    """Whether the first steps of the batch, an epoch and more, give every net the bits that it has alone.

    Once in a process for nets of a kind. A last bit that differs for few numbers may show after some steps only: two
    were too few where widths or batches are odd.
    """
    first = batch.fits[0]
    about = (type(makers[0].recipe), _kind(first), len(batch.fits), batch.inputs.shape)
    if about not in _proven:
        each, step = [fit.arrays() for fit in batch.fits], batch.whole.step
        until = min(max(batch.in_epoch + 1, _TRIED), first.steps)
        batch.resume(each, 0)
        batch.whole.advance(until)
        same = True
        for maker, before, after in zip(makers, each, batch.arrays(), strict=True):
            alone = maker.recipe.start(maker.given)
            alone.resume(before, {"step": 0, "status": "training"})
            alone.advance(until)
            found = alone.arrays()
            same = found.keys() == after.keys() and all(np.array_equal(found[name], after[name]) for name in found)
            if not same:
                break
        _proven[about] = same
        batch.resume(each, step)
    return _proven[about]


def make_together(makers: Sequence[ArtifactMaker], artifacts: Artifacts, *, watch: Watch | None = None) -> None:
    """Trains nets as batches and keeps them, so that ``make`` finds them; those that cannot be are left to it.

    Args:
        makers: At most ``at_once`` of them, all of which keep what they make in ``artifacts``.
        artifacts: Where states and nets are kept.
        watch: As that of ``make``, for each batch.

    Raises:
        StoreError: If nothing can be written, or what is made has another digest than expected.
    """
    with own_random_numbers(), ExitStack() as held:
        started: dict[State, ArtifactMaker] = {}
        for maker in sorted(makers, key=lambda one: one.given.spec.key):  # in one order: two processes could wait
            held.enter_context(artifacts.lock(maker.given.spec))
            if artifacts.path(maker.given.spec).is_file():
                continue
            try:
                started[maker.resumed()] = maker
            except StoreError:
                raise
            except Exception:  # noqa: S112 - of a member that cannot be made its own making says so
                continue
        for fits in _alike([*started]):
            batch, own = FitBatch(fits), [started[fit] for fit in fits]
            if _proves(batch, own):
                _train(batch, own, artifacts, watch)


def _train(batch: FitBatch, makers: Sequence[ArtifactMaker], artifacts: Artifacts, watch: Watch | None) -> None:
    def keep() -> None:
        if batch.whole.status == "diverged":
            return  # one of them did: what the others come to is not known yet
        for maker, arrays in zip(makers, batch.arrays(), strict=True):
            maker.keep(arrays, batch.whole.note())

    advance(batch.whole, watch=watch, pace=makers[0].pace, keep=keep)
    if batch.give_back():
        for maker, fit in zip(makers, batch.fits, strict=True):
            maker.ended(fit)
            artifacts.drop_state(maker.given.spec)
