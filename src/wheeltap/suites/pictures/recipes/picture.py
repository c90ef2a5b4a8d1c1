"""Nets that are trained to draw a picture.

Full batch, mean squared error in RGB, Adam on the gradient normalized to unit length at every step, LeCun normal start,
no biases. A net depends on its own seed alone; on another machine or with another torch, its last bits may differ.

Source: Kumar et al. 2025, arXiv:2505.11581, and its code (the text names neither Adam nor the normalization). Replacing
a start without a gradient is ours: where every pixel is clipped the gradient is 0, and the recipe has no way out.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.settings import Settings
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import largest, to_tensor
from wheeltap.models.cppn import INPUTS, Cppn, Fold, Layout, grid
from wheeltap.recipes.base import Given, Recipe
from wheeltap.recipes.fit import Fit, Hook, TrainSettings
from wheeltap.recipes.hooks import Sharpness
from wheeltap.suites.pictures.nets.pictures import picture

MAX_STARTS: Final = 5
"""Starts that are tried until one has a gradient."""

SOLVED: Final = 1e-8
"""Error below which a net without a gradient draws the picture, and is not stuck."""

PATIENCE: Final = 10
"""Steps without a gradient after which training is stuck: momentum carries weights on, also those just pruned."""

PRUNING: Final = (0.1, 0.7)
"""Shares of the steps after which pruning begins and has ended."""

PRUNED_EVERY: Final = 20
"""Steps between two rounds of pruning: in between, weights that were cut may grow again."""

_LARGEST: Final = 10**12
"""Of a setting: beyond it, a scale would not fit single precision."""
_NORM_EPS: Final = 1e-12
_TRUNCATED_STD: Final = 0.87962566
"""Standard deviation of a standard normal cut off at -2 and 2."""

NonNegative = Annotated[float, msgspec.Meta(ge=0.0, le=_LARGEST)]


class PictureSettings(Settings, frozen=True, kw_only=True):
    """What is drawn, by which net, and how that is trained.

    Attributes:
        steps: Updates; 0 leaves a net untrained.
        rate: Adam's step size.
        fold: ``abs-x`` trains nets that read |x|, whose pictures are mirror images of themselves.
        units: Activation of all hidden units, in place of the layout's; none where empty.
        l1: Weight of the sum of absolute weights in the loss.
        decay: Share of every weight lost in a step, over the rate (decoupled, as in AdamW).
        rho: Length of the step uphill before the gradient is taken (sharpness-aware minimization); 0 for none.
        share: Of the weights, those that are not 0 in the end; pruned by magnitude, over all layers.
        picture: One of wheeltap's own pictures; where empty, the task of the spec is drawn: inputs of each pixel and
            its color.
        size: Of that picture, in pixels a side.
        layout: Of the net; where empty, that of the net that the spec is made from, or that draws the picture.
    """

    steps: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)] = 4000
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=_LARGEST)] = 3e-3
    fold: Fold = ""
    units: str = ""
    l1: NonNegative = 0.0
    decay: NonNegative = 0.0
    rho: NonNegative = 0.0
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    picture: str = ""
    size: int = 64
    layout: str = ""

    def laid_out(self, layout: Layout) -> Layout:
        """The layout of the nets: the given one, or as deep and wide with other units.

        Raises:
            UnknownName: If the activation is not known.
        """
        return Layout(layout.layers, ((self.units, layout.width),)) if self.units else layout


def start(layout: Layout, seed: int) -> list[NDArray[np.float32]]:
    """Kernels ``[in, out]`` of an untrained net: LeCun normal, cut off at two standard deviations."""
    rng = np.random.default_rng(seed)
    kernels: list[NDArray[np.float32]] = []
    for fan_in, units in layout.shapes:
        sample = rng.standard_normal((fan_in, units)).clip(-2.0, 2.0) / _TRUNCATED_STD / np.sqrt(fan_in)
        kernels.append(sample.astype(np.float32))
    return kernels


@final
class UnitLengthGradient(Hook):
    """The gradient, with that of an L1 penalty, is divided by its length over all parameters.

    Training ends as ``stuck`` where the error has had no gradient for ``PATIENCE`` steps and the picture is not drawn.

    Args:
        l1: Weight of the sum of absolute weights.
        starts_lost: Starts without a gradient that were replaced; reported as ``restarts``.
    """

    def __init__(self, l1: float, starts_lost: int) -> None:
        self.l1, self.starts_lost = l1, starts_lost
        self._still = torch.zeros((), dtype=torch.long)  # steps in a row without a gradient

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        lost = _length(_gradients(fit)) == 0.0 and float(fit.gradient()) > SOLVED
        self._still.copy_(self._still + 1 if lost else torch.zeros(()))
        if int(self._still) >= PATIENCE:
            fit.status = "stuck"
        gradients = _gradients(fit)
        if self.l1:
            for parameter, gradient in zip(fit.trained, gradients, strict=True):
                gradient.add_(parameter.detach().sign(), alpha=self.l1)
        length = _length(gradients)
        for gradient in gradients:
            gradient.div_(length + _NORM_EPS)

    def tensors(self) -> dict[str, Tensor]:
        """See ``Hook.tensors``."""
        return {"still": self._still}

    def report(self) -> dict[str, NDArray[Any]]:
        """See ``Hook.report``."""
        return {"restarts": np.array(self.starts_lost, dtype=np.int32)}


@final
class Pruning(Hook):
    """Cuts the smallest weights of all layers together, round by round; from the end of pruning on, cut ones stay 0.

    Source: Zhu and Gupta 2017, arXiv:1710.01878, equation 1 (cubic schedule).

    Args:
        share: Of the weights, those that are not 0 in the end.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._mask = torch.ones(0)

    def start(self, fit: Fit) -> None:
        """See ``Hook.start``."""
        self._mask = torch.ones(sum(parameter.numel() for parameter in fit.trained), device=fit.device)

    def kept(self, step: int, *, steps: int, parameters: int) -> int:
        """Weights that may differ from 0 after a step."""
        begin, end = (share * steps for share in PRUNING)
        remaining = 1.0 - min(max((step - begin) / (end - begin), 0.0), 1.0) if steps else 0.0
        return max(round(parameters * (self.share + (1.0 - self.share) * remaining**3)), 1)

    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        weights = torch.cat([parameter.detach().flatten() for parameter in fit.trained])
        if fit.step % PRUNED_EVERY == 0 or fit.step == fit.steps:
            kept = largest(weights.abs(), self.kept(fit.step, steps=fit.steps, parameters=len(weights)))
            weights.mul_(kept)
            if fit.step >= PRUNING[1] * fit.steps:
                self._mask.copy_(kept)
        weights.mul_(self._mask)
        parts = weights.split([parameter.numel() for parameter in fit.trained])  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        with torch.no_grad():
            for parameter, part in zip(fit.trained, cast("tuple[Tensor, ...]", parts), strict=True):
                parameter.copy_(part.view_as(parameter))

    def tensors(self) -> dict[str, Tensor]:
        """See ``Hook.tensors``."""
        return {"mask": self._mask}


def _has_gradient(error: Callable[[Cppn], Tensor], net: Cppn) -> bool:
    with torch.enable_grad():
        gradients = torch.autograd.grad(error(net), list(net.parameters()))
    return any(bool(gradient.any()) for gradient in gradients)


def _gradients(fit: Fit) -> list[Tensor]:
    return [parameter.grad for parameter in fit.trained if parameter.grad is not None]


def _length(tensors: list[Tensor]) -> float:
    """Of all of them as one vector."""
    return float(torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt())


MOST_PIXELS: Final = 1024**2
MOST_INPUT: Final = 1e3


class PictureNet(Recipe):
    """A layered CPPN trained by gradient descent until it draws a picture."""

    name = "picture"
    title = "net trained to draw a picture"
    version: ClassVar[int] = 2  # 1 had gradients derived by hand: other last bits, and training amplifies them
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

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        how = self.settings
        inputs, target = (values.float().to(given.device) for values in self._canvas(given))

        def error(model: Cppn) -> Tensor:
            return (model(inputs) - target).square().mean()

        net, starts_lost = self._untrained(given), 0
        while how.steps and starts_lost < MAX_STARTS - 1 and not _has_gradient(error, net):
            starts_lost += 1
            net = self._untrained(given, starts_lost)
        settings = TrainSettings(
            seed=given.spec.seed, steps=how.steps, rate=how.rate, decay=how.decay, optimizer="adamw",
            schedule="constant",
        )  # fmt: skip
        # Hooks take a gradient in reverse order: uphill first, then normalized.
        hooks: list[Hook] = [UnitLengthGradient(how.l1, starts_lost)]
        hooks += [Sharpness(how.rho)] if how.rho else []
        hooks += [Pruning(how.share)] if how.share < 1.0 else []
        return Fit(net, lambda rows, step: error(net), examples=0, settings=settings, hooks=hooks)

    def _untrained(self, given: Given, starts_lost: int = 0) -> Cppn:
        """The net before training; where starts were lost, from another seed that follows from its own."""
        seed = seeds.derive(given.spec.seed, "paint", starts_lost) if starts_lost else given.spec.seed
        layout = self._layout(given)
        return Cppn.of(layout, start(layout, seed), fold=self.settings.fold).to(given.device)

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
