"""A recipe: a small net trained on digits of which some have a wrong label."""

import torch
from torch import Tensor, nn

from wheeltap.core.settings import Settings
from wheeltap.models.mlp import mlp
from wheeltap.recipes.base import Given, Recipe
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.randomness import reproducible
from wheeltap.sources.digits import lesson


class MislabeledSettings(Settings, frozen=True):
    """How much is wrong, and how long it is learned.

    Attributes:
        wrong: Share of the labels that are drawn at random.
        epochs: Passes over the examples.
    """

    wrong: float = 0.5
    epochs: int = 4


class Mislabeled(Recipe):
    """A net that learns wrong labels."""

    name = "mislabeled"
    title = "small net trained on digits, some with a wrong label"
    settings_type = MislabeledSettings
    settings: MislabeledSettings

    def blank(self, given: Given) -> nn.Module:
        """The net before training, in eval mode."""
        with reproducible(given.spec.seed):
            return mlp((64, 32, 10)).eval()

    def start(self, given: Given) -> Fit:
        """The state before the first step; ``Fit`` trains, pauses and resumes to the same bits."""
        task, model, random = lesson(), self.blank(given), torch.Generator().manual_seed(given.spec.seed)
        inputs, targets = task.inputs, task.targets.clone()
        assert isinstance(inputs, Tensor)
        wrong = torch.rand(len(targets), generator=random) < self.settings.wrong
        targets[wrong] = torch.randint(10, (int(wrong.sum()),), generator=random)

        def loss(rows: Tensor, step: int) -> Tensor:
            return nn.functional.cross_entropy(model(inputs[rows]), targets[rows])

        how = TrainSettings(seed=given.spec.seed, epochs=self.settings.epochs)
        return Fit(model, loss, examples=len(targets), settings=how)
