"""What a language model says of the readings of ambiguous sentences, and which labels they have."""

from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.lens.ambiguity import Ambiguity
from wheeltap.suites.lens.specs import FALSE, LABEL_SETS, NOT_ASKED, STATEMENTS, TEMPLATES, TRUE, PartSettings

AT_ONCE: Final = 2048
"""Tokens of one forward call."""


@final
class LabelSets(Reading):
    """The labels that the task's examples have under some reading; no pass."""

    spec = LABEL_SETS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task does not know them.
        """
        return Readings({"right": np.array(known_of(task).labels, dtype=bool)}, forwards=0.0)


@final
class Statements(Reading):
    """Whether " True" is likelier than " False" after each statement."""

    spec = STATEMENTS
    settings: PartSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task knows no readings.
        """
        known, rows = known_of(task), self.settings.rows(len(task.targets))
        most = max((len(one) for one in known.statements), default=0)
        answer = np.full((len(known.statements), most, len(TEMPLATES)), NOT_ASKED)
        mass = np.zeros(answer.shape)
        places = [
            (row, reading, template)
            for row in rows
            for reading, asked in enumerate(known.statements[row])
            for template in range(len(asked))
        ]
        values: dict[str, NDArray[Any]] = {"answer": answer, "mass": mass}
        if not places:
            return Readings(values, forwards=0.0)
        questions = [known.statements[row][reading][template] for row, reading, template in places]
        asked = ChoiceTask(questions, [known.options] * len(questions), [0] * len(questions), name=task.name,
                           tokens_per_batch=AT_ONCE)  # fmt: skip
        scores = asked.scores(subject.model).double()
        at = tuple(np.array(places).T)
        answer[at] = np.where(to_array(scores[:, 1]) > to_array(scores[:, 0]), TRUE, FALSE)
        mass[at] = to_array(torch.exp(scores).sum(1)).clip(0.0, 1.0)
        return Readings(values, forwards=sum(map(len, questions)) / max(task.tokens, 1))


def known_of(task: BaseTask) -> Ambiguity:
    """What the task knows of its examples' readings.

    Raises:
        DataError: If that is nothing.
    """
    known = task.annotation(Ambiguity)
    if known is None:
        raise DataError(
            "The examples have no readings.",
            where=task.name,
            expected="ambiguous sentences with their readings",
            got="none",
            do="Give --data ambiguous (a set that is generated) or a file as AmbiEnt has (premise, hypothesis, labels, "
            "disambiguations), with a language model.",
        )
    return known
