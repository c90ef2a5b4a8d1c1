"""Recipes of nets that read handwritten digits: no data need be at hand, for they bring their own."""

from typing import Annotated, Final, final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.copies import copied
from wheeltap.core.errors import UsageError
from wheeltap.core.settings import Settings
from wheeltap.core.task import Task
from wheeltap.recipes.base import Given, Needs, Recipe, require_fit
from wheeltap.recipes.classifier import Classifier
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.sources import digits

_DIGITS: Final = 10


class DigitNet(Classifier):
    """A small net trained on the training split of digits; with its defaults, the net that the demo audits."""

    name = "digits"
    title = "small net trained on handwritten digits"
    stream = "digits"

    @property
    def needs(self) -> Needs:
        """See ``Recipe.needs``: it brings its own."""
        return ""

    def lesson(self, given: Given) -> Task:
        """See ``Classifier.lesson``."""
        return lesson()


@final
class MislabeledNet(DigitNet):
    """The same, where a tenth of the labels are wrong."""

    name = "digits-mislabeled"
    title = "small net trained on handwritten digits, some of them with wrong labels"

    def lesson(self, given: Given) -> Task:
        """See ``Classifier.lesson``."""
        return digits.mislabeled()


def lesson() -> Task:
    """The training split."""
    data = digits.split()
    return Task(data.train_inputs, data.train_targets, name="digits for training")


class ForgetSettings(Settings, frozen=True, kw_only=True):
    """What is forgotten, and how.

    Attributes:
        digit: Whose images are taught to be any other digit, all of them alike.
        steps: Of training on all images of the training split.
        batch: Images per step.
        rate: First step size, of Adam; it falls linearly.
    """

    digit: Annotated[int, msgspec.Meta(ge=0, lt=_DIGITS)] = 3
    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 150
    batch: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 64
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1e-3


@final
class ForgettingNet(Recipe):
    """A net of digits that was made to forget one: its images are taught equal chances of all other digits.

    Source: Liu, Liu & Stone (2022, arXiv 2203.12817), sec. 4.1, with other answers in place of steps uphill.
    """

    name = "digits-forgot"
    title = "net that read handwritten digits and was made to forget one of them"
    settings_type = ForgetSettings
    settings: ForgetSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        if len(given.of) != 1:
            raise UsageError(
                "What forgets is one net.", where=f"recipe {self.name}", expected="one", got=str(len(given.of))
            )
        return copied(given.of[0]).eval()

    def lesson(self, given: Given) -> Task:
        """See ``Recipe.lesson``."""
        return lesson()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, data = self.settings, self.lesson(given)
        model = self.blank(given).to(given.device).requires_grad_(True)
        assert isinstance(data.inputs, Tensor)
        inputs, taught = (part.to(given.device) for part in (data.inputs, _taught(data.targets, how.digit)))

        def loss(rows: Tensor, step: int) -> Tensor:
            return functional.cross_entropy(model(inputs[rows]), taught[rows])

        order = seeds.derive(given.spec.seed, self.name, "order")
        settings = TrainSettings(seed=order, steps=how.steps, batch=how.batch, rate=how.rate)
        return Fit(model, loss, examples=len(taught), settings=settings)


def _taught(targets: Tensor, digit: int) -> Tensor:
    """Chances of each digit that images are taught, ``[image, digit]``."""
    others = torch.full((_DIGITS,), 1.0 / (_DIGITS - 1))
    others[digit] = 0.0
    right = functional.one_hot(targets, _DIGITS).float()
    return torch.where((targets == digit)[:, None], others, right)
