"""Nets that are trained to draw a picture.

Full batch, mean squared error in RGB, Adam on the gradient normalized to unit length at every step, LeCun normal start,
no biases. What a net becomes depends on its own seed alone; on another machine or with another torch, up to rounding.

Source: Kumar et al. 2025, arXiv:2505.11581, and its code (the text names neither Adam nor the normalization). Rescue of
nets that no longer move is ours: where every pixel is clipped the gradient is 0, and the recipe has no way out.
"""

from typing import Annotated, Any, Final, cast, final

import msgspec
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.settings import Settings
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.cppn import INPUTS, Cppn, Fold, Layout, folded, grid
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.recipes.base import Given, Recipe, State, Status, counted
from wheeltap.recipes.make import numbers, put
from wheeltap.recipes.randomness import denormals_as_zero, one_thread
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.recipes.picture_loss import PictureLoss

_FIRST_DECAY, _SECOND_DECAY, _ADAM_EPS = 0.9, 0.999, 1e-8
_NORM_EPS = 1e-12
_LARGEST: Final = 10**12
"""Of a setting: beyond it, a scale would not fit single precision."""
_TRUNCATED_STD = 0.87962566
"""Standard deviation of a standard normal cut off at -2 and 2."""


Positive = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]
NonNegative = Annotated[float, msgspec.Meta(ge=0.0, le=_LARGEST)]


class PictureSettings(Settings, frozen=True, kw_only=True):
    """What is drawn, by which net, and how that is trained.

    Attributes:
        steps: Updates; 0 leaves a net untrained.
        rate: Adam's step size.
        records: Intervals between recorded errors.
        fold: ``abs-x`` trains nets that read |x|, whose pictures are mirror images of themselves.
        units: Activation of all hidden units, in place of the layout's; none where empty.
        l1: Weight of the sum of absolute weights in what is minimised.
        decay: Share of every weight lost in a step, over the rate (decoupled, as in AdamW).
        rho: Length of the step uphill before the gradient is taken (sharpness-aware minimisation); 0 for none.
        share: Of the weights, those that are not 0 in the end; pruned by magnitude, over all layers.
        prune_from: Share of the steps after which pruning begins.
        prune_to: Share of the steps after which it has ended.
        prune_every: Steps between two rounds of pruning.
        patience: Steps without any gradient after which a net starts again.
        solved: Error at which a net may well have no gradient.
        tries: Starts before a net is given up.
        picture: One of wheeltap's own pictures; where empty, the task of the spec is drawn: inputs of each pixel and
            its color.
        size: Of that picture, in pixels a side.
        layout: Of the net; where empty, that of the net that the spec is made from, or that draws the picture.

    Raises:
        UsageError: If pruning ends before it begins.
    """

    steps: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)] = 4000
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=_LARGEST)] = 3e-3
    records: Positive = 40
    fold: Fold = ""
    units: str = ""
    l1: NonNegative = 0.0
    decay: NonNegative = 0.0
    rho: NonNegative = 0.0
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    prune_from: NonNegative = 0.1
    prune_to: Annotated[float, msgspec.Meta(le=1.0)] = 0.7
    prune_every: Positive = 20
    patience: Positive = 10
    solved: NonNegative = 1e-8
    tries: Positive = 5
    picture: str = ""
    size: int = 64
    layout: str = ""

    def __post_init__(self) -> None:
        if not self.prune_from < self.prune_to:
            got = f"{self.prune_from} and {self.prune_to}"
            what, expected = "Pruning cannot end before it begins.", "prune_from < prune_to"
            raise UsageError(what, where="recipe picture", expected=expected, got=got)

    def laid_out(self, layout: Layout) -> Layout:
        """The layout of the nets: the given one, or as deep and wide with other units.

        Raises:
            UnknownName: If the activation is not known.
        """
        return Layout(layout.layers, ((self.units, layout.width),)) if self.units else layout

    def kept(self, step: int, parameters: int) -> int:
        """Weights that may differ from 0 after a step.

        Source: Zhu and Gupta 2017, arXiv:1710.01878, equation 1 (cubic schedule).
        """
        begin, end = self.prune_from * self.steps, self.prune_to * self.steps
        left = 1.0 - min(max((step - begin) / (end - begin), 0.0), 1.0) if self.steps else 0.0
        return max(round(parameters * (self.share + (1.0 - self.share) * left**3)), 1)

    @property
    def recorded(self) -> NDArray[np.int64]:
        """Steps before which the error is recorded, ``[checkpoint]``; the last is after all."""
        return np.unique(np.linspace(0, self.steps, self.records + 1).round().astype(np.int64))


def start(layout: Layout, seed: int) -> list[NDArray[np.float32]]:
    """Kernels ``[in, out]`` of an untrained net: LeCun normal, cut off at two standard deviations."""
    rng = np.random.default_rng(seed)
    found: list[NDArray[np.float32]] = []
    for fan_in, units in layout.shapes:
        drawn = rng.standard_normal((fan_in, units)).clip(-2.0, 2.0) / _TRUNCATED_STD / np.sqrt(fan_in)
        found.append(drawn.astype(np.float32))
    return found


@final
class Trainee(State):
    """One net in training.

    Stuck is one whose last start led to a picture that nothing moves; diverged, to numbers that are not finite.

    Args:
        settings: How it is trained.
        seed: Of its start.
        loss: Of its layout, against its picture; its own.
    """

    def __init__(self, settings: PictureSettings, seed: int, *, loss: PictureLoss) -> None:
        self.settings, self.seed, self.loss = settings, seed, loss
        self.recorded = settings.recorded
        self.status = cast("Status", "training")
        self.step = self.still = self.restarts = 0
        self.steps = settings.steps
        self._weights = loss.pack(start(loss.layout, seed))
        self._first, self._second = torch.zeros_like(self._weights), torch.zeros_like(self._weights)
        self._mask = torch.ones_like(self._weights)
        self._tensors = {"weights": self._weights, "first": self._first, "second": self._second, "mask": self._mask}
        self.errors = np.zeros(len(self.recorded))
        self.error = 0.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``State.arrays``."""
        return {**{name: numbers(tensor) for name, tensor in self._tensors.items()}, "errors": self.errors.copy()}

    def note(self) -> dict[str, int | str]:
        """See ``State.note``."""
        return {**super().note(), "still": self.still, "restarts": self.restarts}

    def resume(self, arrays: Arrays, note: Note) -> None:
        """See ``State.resume``."""
        settings = self.settings
        most = {"step": settings.steps, "still": settings.patience, "restarts": settings.tries}
        counts = counted(note, most)
        for name, tensor in self._tensors.items():
            put(arrays[name], tensor)
        self.errors[:] = arrays["errors"]
        self.error = float(self.errors[-1])
        self.step, self.still, self.restarts = (counts[name] for name in ("step", "still", "restarts"))
        self.status = cast("Status", note["status"])

    def report(self) -> dict[str, NDArray[Any]]:
        """``errors`` before these ``steps`` (the last after all), and the ``restarts``: starts that were lost."""
        counts = {"steps": self.recorded.astype(np.int32), "restarts": np.array(self.restarts, dtype=np.int32)}
        return {"errors": self.errors.copy(), **counts}

    def made(self) -> Cppn:
        """See ``State.made``."""
        return Cppn.of(self.loss.layout, self.loss.unpack(self._weights), fold=self.settings.fold)

    def advance(self, until: int) -> None:
        """See ``State.advance``."""
        until = min(until, self.steps)
        # Tails of gaussians are full of denormal numbers.
        with torch.no_grad(), one_thread(), denormals_as_zero():
            while self.status == "training" and self.step < until:
                self._step()
            if self.status == "training" and self.step >= self.steps:
                self.error = self.loss.value(self._weights)
                if np.isfinite(self.error):
                    self.errors[-1], self.status = self.error, "done"
                else:
                    self._restart("diverged")

    def _step(self) -> None:
        settings, loss, gradient = self.settings, self.loss, self.loss.gradient
        self.error = loss.value_and_gradient(self._weights)
        size = _norm(gradient)
        if not (np.isfinite(self.error) and np.isfinite(size)):
            self._restart("diverged")
            return
        self.still = self.still + 1 if size == 0.0 and self.error > settings.solved else 0
        if self.still >= settings.patience:
            self._restart("stuck")
            return
        self.errors[np.searchsorted(self.recorded, self.step) :] = self.error
        if settings.rho:
            # A little uphill. Source: Foret et al. 2021, arXiv:2010.01412, equation 3.
            here = self._weights.clone()
            self._weights.add_(gradient, alpha=settings.rho / (size + _NORM_EPS))
            loss.value_and_gradient(self._weights)
            self._weights.copy_(here)
        if settings.l1:
            gradient.add_(self._weights.sign(), alpha=settings.l1)
        self._update(gradient.div_(_norm(gradient) + _NORM_EPS))

    def _update(self, direction: Tensor) -> None:
        settings = self.settings
        self.step += 1
        self._first.lerp_(direction, 1.0 - _FIRST_DECAY)
        self._second.mul_(_SECOND_DECAY).addcmul_(direction, direction, value=1.0 - _SECOND_DECAY)
        unbiased = (1.0 - _SECOND_DECAY**self.step) ** 0.5
        spread = self._second.sqrt().div_(unbiased).add_(_ADAM_EPS)
        if settings.decay:
            self._weights.mul_(1.0 - settings.rate * settings.decay)
        self._weights.addcdiv_(self._first, spread, value=-settings.rate / (1.0 - _FIRST_DECAY**self.step))
        if settings.share < 1.0:
            self._prune()

    def _prune(self) -> None:
        """Cuts the smallest weights; until pruning has ended, they may grow again before the next round."""
        settings = self.settings
        if self.step % settings.prune_every == 0 or self.step == settings.steps:
            order = self._weights.abs().argsort(descending=True, stable=True)
            kept = torch.zeros_like(self._mask)
            kept[order[: settings.kept(self.step, len(order))]] = 1.0
            self._weights.mul_(kept)
            if self.step >= settings.prune_to * settings.steps:
                self._mask.copy_(kept)
        self._weights.mul_(self._mask)

    def _restart(self, status: Status) -> None:
        """Another start, from a seed that follows from its own; or the end, at a start that draws something."""
        given_up = self.restarts + 1 >= self.settings.tries
        if given_up:
            self.status = status
            if status == "stuck":
                self.errors[np.searchsorted(self.recorded, self.step) :] = self.error
                return
        else:
            self.restarts += 1
        origin = seeds.derive(self.seed, "paint", self.restarts) if self.restarts else self.seed
        self._weights.copy_(self.loss.pack(start(self.loss.layout, origin)))
        self._first.zero_()
        self._second.zero_()
        self._mask.fill_(1.0)
        self.step = self.still = 0
        self.error = self.loss.value(self._weights)
        self.errors[:] = self.error


def _norm(values: Float[Tensor, " weight"]) -> float:
    return float(torch.linalg.vector_norm(values))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


MOST_PIXELS: Final = 1024**2
MOST_INPUT: Final = 1e3


class PictureNet(Recipe):
    """A layered CPPN trained by gradient descent until it draws a picture."""

    name = "picture"
    title = "net trained to draw a picture"
    settings_type = PictureSettings
    settings: PictureSettings

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.needs = "" if self.settings.picture else "measured"  # what it draws is what is measured

    def lesson(self, given: Given) -> BaseTask | None:
        """See ``Recipe.lesson``."""
        return None if self.settings.picture else given.examples

    def blank(self, given: Given) -> Cppn:
        """See ``Recipe.blank``."""
        return Cppn(self._layout(given), fold=self.settings.fold).eval()

    def start(self, given: Given) -> Trainee:
        """See ``Recipe.start``."""
        inputs, target = self._canvas(given)
        loss = PictureLoss(self._layout(given), folded(inputs.cpu().float(), self.settings.fold), target.cpu().float())
        return Trainee(self.settings, given.spec.seed, loss=loss)

    def _layout(self, given: Given) -> Layout:
        how = self.settings
        if how.layout:
            return how.laid_out(Layout.parse(how.layout))
        drawn = next((model for model in given.of if isinstance(model, Cppn)), None)
        if drawn is not None:
            return how.laid_out(drawn.layout)
        return how.laid_out(picture(how.picture).genome.layerize().layout)

    def _canvas(self, given: Given) -> tuple[Tensor, Tensor]:
        """Inputs ``[pixel, 4]`` and colors ``[pixel, 3]``."""
        if self.settings.picture:
            drawn = picture(self.settings.picture).genome.render(self.settings.size)
            return grid(self.settings.size), to_tensor(drawn).view(-1, 3)
        task = given.examples
        sound = isinstance(task, Task) and isinstance(task.inputs, Tensor) and task.inputs.shape[1:] == (len(INPUTS),)
        if not (sound and task.targets.is_floating_point() and task.targets.shape[1:] == (3,)):
            raise DataError(
                "The task is no picture.",
                where=task.name,
                expected=f"a Task with inputs [pixel, {len(INPUTS)}] and colors [pixel, 3]",
                got=f"{type(task).__name__} with targets {list(task.targets.shape)}",
            )
        inputs = cast("Tensor", cast("Task", task).inputs)
        size, lowest, highest = float(inputs.abs().max()), float(task.targets.min()), float(task.targets.max())
        if not (len(inputs) <= MOST_PIXELS and size <= MOST_INPUT and lowest >= 0.0 and highest <= 1.0):
            raise DataError(
                "The picture to train on holds numbers that it cannot.",
                where=task.name,
                expected=f"at most {MOST_PIXELS:,} pixels, inputs up to {MOST_INPUT:g} in size, colors from 0 to 1",
                got=f"{len(inputs):,} pixels, inputs up to {size:g}, colors from {lowest:g} to {highest:g}",
            )
        return inputs, task.targets
