"""What a classifier believes of each item: the softmax of its scores."""

from typing import final

import torch

from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.lens.specs import LABEL_PROBABILITIES


@final
class LabelProbabilities(Reading):
    """Softmax over the options; of a language model, of the log-likelihoods of the choices."""

    spec = LABEL_PROBABILITIES

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass.

        Raises:
            DataError: If the task is one of wanted outputs, which have no probabilities.
        """
        if task.targets.is_floating_point():
            raise DataError(
                "Wanted outputs have no probabilities.",
                where=task.name,
                expected="a task of options, each example with the index of the right one",
                got="a task of wanted outputs",
                do="Leave the audit disagreement out.",
            )
        probability = torch.softmax(task.scores(subject.model).double(), dim=1)
        return Readings({"probability": to_array(probability)}, forwards=1.0)
