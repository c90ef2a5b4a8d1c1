"""Tasks whose documents lm-eval grades: whatever is no plain choice among options."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.measure import Measure
from wheeltap.core.plain import plain
from wheeltap.core.task import BaseTask, Moments
from wheeltap.sources.lm_eval_answers import Answering
from wheeltap.sources.lm_eval_harness import CHOSEN, Harness


class Grade(Measure):
    """The grade that lm-eval gives a document. Unit: that of its metric.

    Args:
        by_chance: The mean grade of answers without information.
    """

    name: ClassVar[str] = "grade"

    def __init__(self, *, by_chance: float) -> None:
        self.by_chance = by_chance

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        """See ``Measure.__call__``: the only column is the grade."""
        return scores[:, 0]

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        """As it was given."""
        return self.by_chance


class _Right(Grade):
    """Whether a document is answered right. Unit: share."""

    bounded: ClassVar[bool] = True


@final
class Acc(_Right):
    """Whether the likeliest option is a right one; of a single continuation, whether it is the greedy one."""

    name: ClassVar[str] = "acc"


@final
class AccNorm(_Right):
    """Whether the option of the largest log-likelihood per character is a right one."""

    name: ClassVar[str] = "acc_norm"


@final
class ExactMatch(_Right):
    """Whether what was generated is the right answer to the letter, after the task's filter."""

    name: ClassVar[str] = "exact_match"


_RIGHT: dict[str, type[Grade]] = {one.name: one for one in (Acc, AccNorm, ExactMatch)}


def grade_named(harness: Harness) -> Grade:
    """The measure of a task's metric; a plain grade where a task's own code may give any number."""
    kind = _RIGHT.get(harness.metric, Grade) if _by_lm_eval(harness.task) else Grade
    shares = [len(set(harness.right_options(row))) / len(harness.options(row)) for row in harness.rows] if (
        harness.kind == CHOSEN and hasattr(harness.task, "doc_to_choice")
    ) else [0.0]  # fmt: skip
    return kind(by_chance=sum(shares) / len(shares))


def _by_lm_eval(task: Any) -> bool:
    """Whether documents are graded by lm-eval's own code for this kind of task."""
    config: Any = getattr(task, "config", None)
    return config is not None and getattr(config, "process_results", None) is None


@final
class GradedTask(BaseTask):
    """Documents of lm-eval, scored by the grade that it gives each: one column, which is to be 1.

    Its loss is the negative log-likelihood of the right continuation's tokens, summed per document, in nats.

    Args:
        harness: The task.
        answering: How a model answers it.
        taught: The right continuations: what is trained on, and whose texts are read for layer moments.
        grade: What a grade is.
    """

    def __init__(self, harness: Harness, answering: Answering, taught: ChoiceTask, grade: Grade) -> None:
        self.name, self.measure = plain(harness.name), grade
        self._harness, self._answering, self._taught = harness, answering, taught
        self._rows = list(harness.rows)
        self._digest = harness.digest
        self.targets = torch.ones(len(self._rows), 1)

    @property
    def adaptive(self) -> bool:
        """See ``BaseTask.adaptive``."""
        return self._answering.adaptive

    @property
    def digest(self) -> str:
        """Digest of documents, prompts, tokens and rule of grading."""
        parts = [self._digest, self._taught.digest, list(self._rows), *self.measure.identity]
        return canon.key("graded by lm-eval", [*parts, *self.annotations.digests])

    @property
    def tokens(self) -> int:
        """See ``BaseTask.tokens``."""
        return self._taught.tokens

    @property
    def moment_passes(self) -> float:
        """See ``BaseTask.moment_passes``."""
        return self._taught.moment_passes

    def part(self, index: Tensor) -> "GradedTask":
        """See ``BaseTask.part``."""
        part = copy.copy(self)
        part._rows = [self._rows[int(at)] for at in index]
        part._taught = self._taught.part(index)
        part.targets = self.targets[index.cpu()]
        part.annotations = self.annotations.part(index.cpu())
        return part

    def halve_batch(self) -> bool:
        """See ``BaseTask.halve_batch``."""
        longest = self._answering.longest
        halved = self._answering.tokens_per_batch > longest
        if halved:
            self._answering.tokens_per_batch = max(self._answering.tokens_per_batch // 2, longest)
        return self._taught.halve_batch() or halved

    def forward(self, model: nn.Module) -> Tensor:
        """Grades ``[document, 1]``; not a number where the model's were not."""
        answers = self._answering.answers(model, self._rows)
        there = [at for at, given in enumerate(answers) if given is not None]
        stated = self._harness.graded(
            [self._rows[at] for at in there], [given for given in answers if given is not None]
        )
        grades = torch.full((len(self._rows), 1), torch.nan)
        grades[there, 0] = torch.tensor(stated)
        return grades

    def loss(self, model: nn.Module, index: Tensor | None = None, *, targets: Tensor | None = None) -> Tensor:
        """See ``BaseTask.loss``: of the right continuations."""
        return self._taught.loss(model, index)

    def require_readable(self, model: nn.Module) -> None:
        """See ``ChoiceTask.require_readable``."""
        self._taught.require_readable(model)

    def moments(self) -> Iterator[Moments]:
        """See ``ChoiceTask.moments``."""
        return self._taught.moments()


def answered(harness: Harness, answering: Answering, model: nn.Module, rows: Sequence[int]) -> list[list[Any]]:
    """What a model says to each request of documents.

    Raises:
        ModelError: If its numbers are not finite.
    """
    found = [(row, given) for row, given in zip(rows, answering.answers(model, rows), strict=True)]
    lost = [row for row, given in found if given is None]
    if lost:
        raise ModelError(
            "The model's outputs are not finite.",
            where=f"{harness.name}: document {lost[0]}",
            expected="finite scores",
            got=f"{len(lost)} documents without",
        )
    return [given for _, given in found if given is not None]
