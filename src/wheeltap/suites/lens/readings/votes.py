"""What people said of each item, as the task knows it."""

from typing import Any, final

import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.lens.specs import VOTES


@final
class Votes(Reading):
    """The votes of the task, which are the same for every subject."""

    spec = VOTES

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; no pass.

        Raises:
            DataError: If the task has no votes.
        """
        votes = task.annotations.votes
        if votes is None:
            raise DataError(
                "The task has no votes of people.",
                where=task.name,
                expected="for each example how many people chose each option",
                got="none",
                do="Add them: task.with_votes(votes); votes in .npz or .jsonl.",
            )
        values: dict[str, Any] = {"votes": to_array(votes), "ordinal": np.array(task.annotations.ordinal)}
        return Readings(values, forwards=0.0)
