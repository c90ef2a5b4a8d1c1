"""Training a classifier so that the same settings give the same bits."""

from typing import TypeVar

from torch import Tensor, nn

from wheeltap.core.errors import DataError, ModelError
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.randomness import own_random_numbers, reproducible

__all__ = ["TrainSettings", "own_random_numbers", "reproducible", "train_classifier"]

Net = TypeVar("Net", bound=nn.Module)


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

    def loss(rows: Tensor, step: int) -> Tensor:
        return nn.functional.cross_entropy(model(inputs[rows]), targets[rows])

    fit = Fit(model, loss, examples=len(inputs), settings=settings)
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
