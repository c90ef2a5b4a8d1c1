"""What a plain pass says of each example: the cheapest scores there are, which others have to add to."""

from typing import Any, final

import torch
from numpy.typing import NDArray

from wheeltap.core import measure
from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings.output_scores import OUTPUT_SCORES


@final
class OutputScores(Reading):
    """Margin, entropy and loss of every example, in one pass."""

    spec = OUTPUT_SCORES

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: right options."""
        require_options(task)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass.

        Raises:
            DataError: If the task has no right options.
        """
        self.require(subject, task)
        scores, targets = task.scores(subject.model).double(), task.targets.cpu()
        logs = scores.log_softmax(-1).clamp_min(torch.finfo(torch.float64).min)  # an option that cannot be adds 0
        values: dict[str, NDArray[Any]] = {
            "margin": to_array(measure.margin(scores, targets, scores)),
            "entropy": to_array(-(logs.exp() * logs).sum(-1)),
            "loss": to_array(measure.nll(scores, targets, scores)),
        }
        return Readings(values, forwards=1.0)


def require_options(task: BaseTask) -> None:
    """Raises ``DataError`` if examples have no right options."""
    if task.targets.is_floating_point():
        raise DataError(
            "Examples without right options have no margin.",
            where=task.name,
            expected="integer targets: the index of each example's right option",
            got="targets that are numbers",
            do="Ask this of a classifier, or of a language model that chooses among options.",
        )
