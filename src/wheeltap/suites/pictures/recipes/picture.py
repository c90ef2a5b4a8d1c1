"""The recipe of nets that are trained to draw a picture.

Full batch, mean squared error in RGB, Adam on the gradient normalized to unit length at every step, LeCun normal start,
no biases. What a net becomes depends on its own seed alone; on another machine or with another torch, up to rounding.

Source: Kumar et al. 2025, arXiv:2505.11581, and its code (the text names neither Adam nor the normalization). Rescue of
nets that no longer move is ours: where every pixel is clipped the gradient is 0, and the recipe has no way out.
"""

from typing import Final, cast

from torch import Tensor

from wheeltap.core.errors import DataError
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.cppn import INPUTS, Cppn, Layout, folded, grid
from wheeltap.recipes.base import Given, Needs, Recipe
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.recipes.picture_loss import PictureLoss
from wheeltap.suites.pictures.recipes.trainee import PaintSettings, Trainee

MOST_PIXELS: Final = 1024**2
MOST_INPUT: Final = 1e3


class PictureSettings(PaintSettings, frozen=True):
    """What is drawn, by which net.

    Attributes:
        picture: One of wheeltap's own pictures; where empty, the task of the spec is drawn: inputs of each pixel and
            its color.
        size: Of that picture, in pixels a side.
        layout: Of the net; where empty, that of the net that the spec is made from, or that draws the picture.
    """

    picture: str = ""
    size: int = 64
    layout: str = ""


class PictureNet(Recipe):
    """A layered CPPN trained by gradient descent until it draws a picture."""

    name = "picture"
    title = "net trained to draw a picture"
    settings_type = PictureSettings
    settings: PictureSettings

    @property
    def needs(self) -> Needs:
        """See ``Recipe.needs``: what it draws is what is measured."""
        return "" if self.settings.picture else "measured"

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
