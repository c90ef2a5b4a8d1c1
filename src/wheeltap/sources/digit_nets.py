"""The recipe of nets that read handwritten digits: no data need be at hand, for it brings its own."""

from wheeltap.core.task import Task
from wheeltap.recipes.base import Given
from wheeltap.recipes.classifier import Classifier
from wheeltap.sources import digits


class DigitNet(Classifier):
    """A small net trained on the training split of digits; with its defaults, the net that the demo audits."""

    name = "digits"
    title = "small net trained on handwritten digits"
    stream = "digits"

    def lesson(self, given: Given) -> Task:
        """See ``Classifier.lesson``."""
        return lesson()


def lesson() -> Task:
    """The training split."""
    data = digits.split()
    return Task(data.train_inputs, data.train_targets, name="digits for training")
