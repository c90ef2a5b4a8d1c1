"""Readings of answers: samples, probabilities of labels, and the votes of people."""

from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.readings.output_scores import require_options
from wheeltap.suites.lens.specs import LABEL_PROBABILITIES, SAMPLES, VOTES, SamplesSettings

DRAWS: Final = 64
TEMPERATURE: Final = 1.0


@final
class Samples(Reading):
    """Options drawn from the model's own distribution over them, the same random numbers for every subject."""

    spec = SAMPLES
    settings: SamplesSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass.

        Raises:
            DataError: If the task has no right options.
        """
        require_options(task)
        how = self.settings
        scores = task.scores(subject.model).double() / (how.temperature or TEMPERATURE)
        edges = np.cumsum(to_array(scores.softmax(-1)), axis=1)
        uniform = seeds.generator(root, self.name, seed).random((len(edges), how.draws or DRAWS))
        # The last edge may be a rounding below 1, and no draw may fall beyond it.
        answers = (uniform[:, :, None] >= edges[:, None, :-1]).sum(axis=2)
        values: dict[str, NDArray[Any]] = {
            "answers": answers,
            "right": (answers == to_array(task.targets)[:, None]).sum(axis=1),
            "samples": np.full(len(answers), answers.shape[1]),
        }
        known = task.annotations
        if known.behaviors is not None or (known.groups is not None and not known.found):
            values["group"] = np.unique(task.behaviors.cpu().numpy(), return_inverse=True)[1]
        return Readings(values, forwards=1.0)


@final
class LabelProbabilities(Reading):
    """Softmax over the options; of a language model, of the log-likelihoods of the choices."""

    spec = LABEL_PROBABILITIES

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass."""
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


@final
class PeopleVotes(Reading):
    """The votes of the task, which are the same for every subject."""

    spec = VOTES

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; no pass."""
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
