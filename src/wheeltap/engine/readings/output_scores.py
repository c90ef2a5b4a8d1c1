"""What a plain pass says of each example: the cheapest scores there are, which others have to add to."""

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core import measure
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings.output_scores import FEWEST, OUTPUT_SCORES, OutputScoresSettings


@final
class OutputScores(Reading):
    """Margin, entropy and loss of every example, in one pass."""

    spec = OUTPUT_SCORES
    settings: OutputScoresSettings

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: right options, and the label with enough examples either way."""
        require_options(task)
        if self.settings.label:
            _labels(task, self.settings.label)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass.

        Raises:
            DataError: If the task has no right options, or its labels cannot be used.
        """
        self.require(subject, task)
        scores, targets = task.scores(subject.model).double(), task.targets.cpu()
        logs = scores.log_softmax(-1).clamp_min(torch.finfo(torch.float64).min)  # an option that cannot be adds 0
        values: dict[str, NDArray[Any]] = {
            "margin": to_array(measure.margin(scores, targets, scores)),
            "entropy": to_array(-(logs.exp() * logs).sum(-1)),
            "loss": to_array(measure.nll(scores, targets, scores)),
        }
        if self.settings.label:
            values["label"] = _labels(task, self.settings.label).astype(float)
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


def _labels(task: BaseTask, name: str) -> NDArray[np.int64]:
    """The factor of this name, ``[example]`` of 0 and 1.

    Raises:
        UnknownName: If the task knows no such factor.
        DataError: If it has other values, or too few examples of one.
    """
    known = task.annotations.factors
    if not known:
        raise UsageError(
            "The examples have no labels.",
            where=task.name,
            expected=f"a factor {name!r} of 0 and 1",
            got="no factors",
            do=f"Add an array factor_{name} to the .npz file, or task.with_factors({{{name!r}: labels}}).",
        )
    if name not in known:
        raise UnknownName("factor of these examples", name, known)
    labels = known[name].cpu().numpy()
    values, counts = np.unique(labels, return_counts=True)
    if not np.isin(values, (0, 1)).all():
        raise DataError(
            "The label is not one of 0 and 1.",
            where=f"{task.name}: factor {name!r}",
            expected="1 for the examples that are looked for, 0 for all others",
            got=f"{len(values)} values: {', '.join(map(str, values[:6]))}{', ...' if len(values) > 6 else ''}",
            do="Make a factor of each value that matters: (values == 2), say.",
        )
    found = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    if min(found.get(value, 0) for value in (0, 1)) < FEWEST:
        raise DataError(
            "Too few examples have one of the labels.",
            where=f"{task.name}: factor {name!r}",
            expected=f"at least {FEWEST} examples with 0 and {FEWEST} with 1",
            got=f"{found.get(0, 0)} with 0, {found.get(1, 0)} with 1",
            do="Give more examples of the rarer label.",
        )
    return labels
