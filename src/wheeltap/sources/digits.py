"""Handwritten digits (scikit-learn's 1,797 images of 8 x 8), and recipes of small nets that read them.

No data need be at hand: the recipes bring their own.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, cast, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.settings import Settings
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.core.typed import copied
from wheeltap.recipes.base import Given, Recipe, require_fit, spec
from wheeltap.recipes.classifier import ClassifierNet
from wheeltap.recipes.fit import Fit, Hook, TrainSettings
from wheeltap.recipes.make import once
from wheeltap.sources.base import DataSource, ExampleReader, LoadedModel, ModelSource

_DIGITS: Final = 10

WRONG = 0.1
"""Share of the labels of ``mislabeled`` that are wrong."""


@dataclass(frozen=True)
class DigitSplit:
    """A fixed split: inputs ``[example, 64]`` in [0, 1], targets ``[example]`` from 0 to 9."""

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor


@cache
def split() -> DigitSplit:
    """The fixed split, a third of each digit for testing: 1,198 train and 599 test examples."""
    from sklearn.datasets import load_digits

    images, digits = cast("tuple[Any, Any]", load_digits(return_X_y=True))
    inputs, targets = (np.asarray(images) / 16.0).astype(np.float32), np.asarray(digits).astype(np.int64)
    order = seeds.generator(0, "digits", "split").permutation(len(targets))
    # Sorted by digit (stably, so shuffled within each): every third example is then a stratified third.
    order = order[np.argsort(targets[order], kind="stable")]
    test = np.zeros(len(order), dtype=bool)
    test[order[::3]] = True
    return DigitSplit(*(torch.as_tensor(part) for part in (inputs[~test], targets[~test], inputs[test], targets[test])))


def train(seed: int, *, dropout: float = 0.0) -> nn.Sequential:
    """A net of 64-128-128-10 units trained on the training split, in eval mode: what the recipe ``digits`` makes.

    Equal arguments give equal bits, in a net of the caller's own; a process trains it once.
    """
    return cast("nn.Sequential", once(Given(spec("digits", {"dropout": dropout}, seed=seed))))


def subject(*, seed: int = 0, name: str = "digits") -> Subject:
    """The trained net as a subject; half a second on one core, the first time."""
    return Subject(train(seed), name=name)


def task() -> Task:
    """The test split, scored by accuracy; the training inputs help to estimate layer moments."""
    data = split()
    made = Task(data.test_inputs, data.test_targets, name="digits", more=data.train_inputs)
    return made.with_factors(factors(data.test_inputs, data.test_targets))


def mislabeled() -> Task:
    """The training split with some wrong labels, drawn at random: who learns it has to memorize those.

    The factor ``wrong`` is 1 where an image has a wrong label. Every net gets the same ones.
    """
    data = split()
    count, rng = len(data.train_targets), seeds.generator(0, "digits", "wrong labels")
    wrong = torch.zeros(count, dtype=torch.long)
    wrong[torch.as_tensor(rng.permutation(count)[: round(WRONG * count)])] = 1
    off = torch.as_tensor(rng.integers(1, 10, count))
    made = Task(data.train_inputs, (data.train_targets + wrong * off) % 10, name="digits with wrong labels")
    return made.with_factors({"wrong": wrong})


def factors(inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What can be asked of each image ``[example, 64]`` besides its digit, ``[example]`` of 0 and 1.

    ``even``: whether the digit is; ``left_heavy``: whether more ink is in the left half; ``much_ink``: whether there
    is more ink than on half of the training images.
    """
    left, right = inputs.reshape(-1, 8, 2, 4).sum((1, 3)).unbind(1)
    middle = split().train_inputs.sum(1).quantile(0.5)
    return {
        "even": (targets % 2 == 0).long(),
        "left_heavy": (left > right).long(),
        "much_ink": (inputs.sum(1) > middle).long(),
    }


@final
class DigitModels(ModelSource):
    """The net that the demo audits, with the test split."""

    form = "digits"
    title = "A small net trained here on scikit-learn's handwritten digits."

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        return LoadedModel(subject(name=name), task)


@final
class DigitData(DataSource):
    """The test split."""

    form = "digits"
    title = "599 of scikit-learn's handwritten digits: those that the model digits is not trained on."

    def load(self, rest: str, reader: ExampleReader) -> Task:
        """See ``DataSource.load``."""
        return task()


class DigitNet(ClassifierNet):
    """A small net trained on the training split of digits; with its defaults, the net that the demo audits."""

    name = "digits"
    title = "small net trained on handwritten digits"
    needs = ""  # it brings its own
    stream = "digits"

    def lesson(self, given: Given) -> Task:
        """See ``ClassifierNet.lesson``."""
        return lesson()


@final
class MislabeledNet(DigitNet):
    """The same, where a tenth of the labels are wrong."""

    name = "digits-mislabeled"
    title = "small net trained on handwritten digits, some of them with wrong labels"

    def lesson(self, given: Given) -> Task:
        """See ``ClassifierNet.lesson``."""
        return mislabeled()


def lesson() -> Task:
    """The training split."""
    data = split()
    return Task(data.train_inputs, data.train_targets, name="digits for training")


class RetaughtSettings(Settings, frozen=True, kw_only=True):
    """How a net is taught on.

    Attributes:
        digit: Whose images are taught other answers.
        steps: Of training on all images of the training split.
        batch: Images per step.
        rate: First step size, of Adam; it falls linearly.
    """

    digit: Annotated[int, msgspec.Meta(ge=0, lt=_DIGITS)] = 3
    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 150
    batch: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 64
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1e-3


class RetaughtNet(Recipe):
    """A net of digits that is taught on, some images with other answers."""

    settings: RetaughtSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        return copied(given.net).eval()

    def lesson(self, given: Given) -> Task:
        """See ``Recipe.lesson``."""
        return lesson()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, data = self.settings, self.lesson(given)
        model = self.blank(given).to(given.device).requires_grad_(True)
        assert isinstance(data.inputs, Tensor)
        inputs, *taught = (part.to(given.device) for part in (data.inputs, *self.answers(data.targets)))

        def loss(rows: Tensor, step: int) -> Tensor:
            return functional.cross_entropy(model(inputs[rows]), taught[step >= how.steps // 2][rows])

        order = seeds.derive(given.spec.seed, self.name, "order")
        settings = TrainSettings(seed=order, steps=how.steps, batch=how.batch, rate=how.rate)
        return Fit(model, loss, examples=len(inputs), settings=settings, hooks=self.hooks())

    @abstractmethod
    def answers(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """What images are taught in the first half of the steps and in the second, as digits or chances of each."""

    def hooks(self) -> list[Hook]:
        """What else is done at each step."""
        return []


@final
class ForgettingNet(RetaughtNet):
    """A net of digits that was made to forget one: its images are taught equal chances of all other digits.

    Source: Liu, Liu & Stone (2022, arXiv 2203.12817), sec. 4.1, with other answers in place of steps uphill.
    """

    name = "digits-forgot"
    title = "net that read handwritten digits and was made to forget one of them"
    settings_type = RetaughtSettings

    def answers(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """See ``RetaughtNet.answers``."""
        others = torch.full((_DIGITS,), 1.0 / (_DIGITS - 1))
        others[self.settings.digit] = 0.0
        known = functional.one_hot(right, _DIGITS).float()
        taught = torch.where((right == self.settings.digit)[:, None], others, known)
        return taught, taught
