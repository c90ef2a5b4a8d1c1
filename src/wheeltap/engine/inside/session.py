"""A subject on a task while a reading is made: its clean scores, and passes with something changed, counted."""

from collections.abc import Mapping

from torch import Tensor

from wheeltap.core import measure
from wheeltap.core.measure import Measure
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.units import HiddenUnits, Replace, replaced, rise


class Session:
    """One subject on one task.

    Args:
        subject: Undisturbed.
        task: The examples.

    Attributes:
        clean: Undisturbed scores ``[example, option]``.
        passes: Over the task, so far.
    """

    def __init__(self, subject: Subject, task: BaseTask) -> None:
        self.subject, self.task = subject, task
        self.passes: float = 0.0
        self.clean: Tensor = self.scores()

    def scores(self) -> Tensor:
        """One pass of the subject as it is now, ``[example, option]``."""
        self.passes += 1.0
        return self.task.scores(self.subject.model)

    def without(self, changes: Mapping[HiddenUnits, Replace]) -> Tensor:
        """Scores ``[example, option]`` of a pass in which hidden units hold something else."""
        with replaced(self.subject, changes):
            return self.scores()

    def rise(self, of: Measure, scores: Tensor) -> Tensor:
        """How much more of a measure the scores have than the clean ones, ``[example]``."""
        return rise(self.task, of, scores=scores, clean=self.clean)

    def lost(self, scores: Tensor) -> Tensor:
        """Score lost, ``[example]``: in the task's measure, positive where worse."""
        return -self.task.measure.sign * self.rise(self.task.measure, scores)

    @property
    def loss(self) -> Measure:
        """Negative log-likelihood, nats; the squared error of wanted outputs."""
        return measure.squared_error if self.task.targets.is_floating_point() else measure.nll
