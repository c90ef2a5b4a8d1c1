"""Training a classifier so that the same settings give the same bits; and once for all who ask for the same one."""

import copy
from collections.abc import Mapping
from typing import TypeVar, cast, final

import msgspec
import torch
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.fingerprint import identify
from wheeltap.core.inputs import as_scores
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_array
from wheeltap.recipes.base import Given, Recipe, specified
from wheeltap.recipes.fit import Fit, Loss, TrainingSettings, TrainSettings
from wheeltap.recipes.make import once, weights, with_weights

__all__ = ["TaughtNet", "TrainSettings", "local_once", "named", "train_classifier", "train_once"]

Net = TypeVar("Net", bound=nn.Module)


def _cross_entropy(model: nn.Module, inputs: Tensor, targets: Tensor) -> Loss:
    def loss(rows: Tensor, step: int) -> Tensor:
        return nn.functional.cross_entropy(model(inputs[rows]), targets[rows])

    return loss


def train_classifier(model: Net, inputs: Tensor, *, targets: Tensor, settings: TrainSettings) -> Net:
    """Train ``model`` in place by cross-entropy and give it back in eval mode, without gradients left behind.

    Args:
        model: Called as ``model(inputs)``, gives logits ``[example, class]``.
        inputs: ``[example, ...]``.
        targets: Integer ``[example]``.
        settings: How to train; equal settings on an equally initialised model give equal bits.

    Raises:
        DataError: If there are no examples or a different number of targets.
        ModelError: If training gave numbers that are not finite.
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise DataError(
            "There is nothing to train on." if len(inputs) == 0 else "Inputs and targets differ in number.",
            where="wheeltap.recipes.train",
            expected="at least one example, and one target for each",
            got=f"{len(inputs)} inputs, {len(targets)} targets",
        )
    fit = Fit(model, _cross_entropy(model, inputs, targets), examples=len(inputs), settings=settings)
    fit.advance(fit.steps)
    fit.made()
    if fit.status == "diverged":
        raise ModelError(
            "Training diverged.",
            where="wheeltap.recipes.train",
            expected="finite losses and weights",
            got=f"NaN or infinity by step {fit.step} of {fit.steps}",
            do="Take a smaller rate.",
        )
    return model


class TaughtSettings(TrainingSettings, frozen=True):
    """How the net is trained.

    Attributes:
        steps: Steps in all, in place of ``epochs``; -1 for as many as those take.
    """

    steps: int = -1


@final
class TaughtNet(Recipe):
    """The net, trained by cross-entropy on the task of the spec: the bits of ``train_classifier``."""

    name = "taught"
    title = "net at hand, trained on a task"
    settings_type = TaughtSettings
    settings: TaughtSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``: a copy of the net."""
        return copy.deepcopy(given.of[0]).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        model, task = self.blank(given).to(given.device), given.examples
        assert isinstance(task, Task) and isinstance(task.inputs, Tensor)
        how = msgspec.structs.asdict(self.settings)
        how["steps"] = None if self.settings.steps < 0 else self.settings.steps
        loss = _cross_entropy(model, task.inputs, task.targets)
        return Fit(model, loss, examples=len(task.targets), settings=TrainSettings(seed=given.spec.seed, **how))


def train_once(model: Net, inputs: Tensor, *, targets: Tensor, settings: TrainSettings, shelf: str = "") -> Net:
    """As ``train_classifier``, and to the same bits; the same net is trained the same way once.

    On ``shelf`` see ``once``. Raises also ``DataError`` if there are numbers that are not finite.
    """
    task = Task(inputs, targets, name="examples to learn")
    how = {name: one for name, one in msgspec.structs.asdict(settings).items() if name != "seed" and one is not None}
    return local_once(model, TaughtNet(how), seed=settings.seed, task=task, shelf=shelf)


def named(model: nn.Module, inputs: Tensor | None = None) -> str:
    """Return a key of a net in memory from which something is made.

    Args:
        model: Its tensors, class sources, settings as its ``repr`` shows them (dropout rates) and trainable parameters
            join the key.
        inputs: Training inputs ``[example, ...]``. The outputs on a few of them join the key: closures and settings
            that the identity does not read would otherwise give another net's result.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    outputs = "" if inputs is None else _outputs_digest(model, inputs[:_PROBED])
    return canon.key("net at hand", [identify(model).digest(), repr(model), trained, outputs])


_PROBED = 32
"""Training examples whose outputs join the key of a net: enough to notice another closure, cheap beside training."""


def _outputs_digest(model: nn.Module, inputs: Tensor) -> str:
    training = model.training
    try:
        with torch.no_grad():
            return canon.array_digest("outputs", to_array(as_scores(model.eval()(inputs))))
    finally:
        model.train(training)


def local_once(model: Net, recipe: Recipe, *, seed: int, task: BaseTask | None = None, shelf: str = "") -> Net:
    """What a recipe makes of a net at hand, once for the same net, recipe, seed and task (see ``once``).

    Args:
        model: What is given back, with other weights, in eval mode.
        recipe: Need not be registered.
        seed: Of every draw.
        task: Examples that it is made with.
        shelf: See ``once``.
    """
    inputs = task.inputs if isinstance(task, Task) and isinstance(task.inputs, Tensor) else None
    key = named(model, inputs)
    settings = cast("Mapping[str, Scalar]", msgspec.structs.asdict(recipe.settings))
    asked = specified(type(recipe), settings, seed=seed, of=(key,), data=task.digest if task else "")
    given = Given(asked, (model,), task, next(model.parameters()).device)
    made = once(given, recipe, shelf=shelf)
    return cast("Net", with_weights(model, weights(made)).eval())
