"""What the nets of a study are measured on, and what they are trained on: no example is both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.plain import many
from wheeltap.core.records import TaskRecord
from wheeltap.core.repeats import near_copies
from wheeltap.core.study import Statistic, StudySpec
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_tensor
from wheeltap.recipes.base import Recipe
from wheeltap.sources.base import addressed
from wheeltap.sources.specs import Shared, load_model, load_task
from wheeltap.studies.base import Study

_IN_POINTS: Final[tuple[Statistic, ...]] = ("one_of", "paired", "difference", "mean")
"""Statistics in the unit of the metric."""

_WANTED: Final = (
    'Name other examples, train = "train.npz"; or let a share of these be held out, held_out = 0.33, and the others be '
    "trained on."
)


@final
@dataclass(frozen=True, eq=False)
class Examples:
    """What all members are measured on.

    Attributes:
        task: The examples.
        training: What is trained on by recipes that bring no examples of their own; ``None`` where there is nothing.
        split: Whether the two are parts of one set.
        shared: Where the examples go with the first model that is loaded: who else reads them alike.
    """

    task: BaseTask
    training: BaseTask | None = None
    split: bool = False
    shared: Shared | None = None
    _said: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, study: Study, sources: Sequence[str]) -> "Examples":
        """Those that a study names; a file, or none, is read as the first of the loaded models reads it.

        Raises:
            UsageError: If both other examples to train on and a share to hold out are named.
            DataError: If there are too few different ones to hold any out.
        """
        named, shared = study.examples, None
        if sources and (not named or addressed(named) is None):
            shared = Shared(sources[0], data=named or None)
        task = load_task(named) if shared is None else shared.task
        if study.training and study.held_out:
            raise UsageError(
                "Nets are trained on other examples, or on those that are not held out.", where=study.name,
                expected="train, or held_out", got=f"train = {study.training!r} and held_out = {study.held_out:g}",
                do="Remove one of the two.",
            )  # fmt: skip
        if study.held_out:
            return cls(*_split(task, study.held_out), split=True, shared=shared)
        if named == "digits" and not study.training:
            from wheeltap.sources.digits import lesson

            return cls(task, lesson(), split=True, shared=shared)
        return cls(task, load_task(study.training) if study.training else None, shared=shared)

    def subject(self, source: str, *, name: str) -> Subject:
        """A model that is loaded."""
        return load_model(source, name=name) if self.shared is None else self.shared.other(source, name=name)

    def named(self, digest: str) -> BaseTask | None:
        """The examples of this digest; none where it is empty."""
        return next((one for one in (self.task, self.training) if one is not None and one.digest == digest), None)

    def given(self, recipe: Recipe, *, on_task: bool, where: str) -> BaseTask | None:
        """The examples that a recipe is given; none where it needs none.

        Raises:
            UsageError: If it trains on what it is given, and there is nothing to train on.
        """
        if not recipe.needs:
            return None
        if recipe.needs == "measured" or on_task:
            return self.task
        if self.training is None:
            raise UsageError(
                "There are no examples to train on: those of the study are the ones that nets are measured on.",
                where=where, expected=f"examples of its own for the recipe {recipe.name}", got="none",
                do=_WANTED,
            )  # fmt: skip
        return self.training

    def checked(self, lesson: BaseTask | None, *, memory: bool, where: str) -> str:
        """How many examples a member is trained on and measured on, in a sentence; empty where that is not known.

        Args:
            lesson: What it is trained on.
            memory: Whether it is meant to learn what it is measured on.
            where: The member.

        Raises:
            DataError: If some of the examples that are measured are among them.
        """
        if lesson is None:
            return ""
        about = f"{lesson.digest} {memory}"
        if about not in self._said:
            self._said[about] = self._checked(lesson, memory=memory, where=where)
        return self._said[about]

    def _checked(self, lesson: BaseTask, *, memory: bool, where: str) -> str:
        learned, measured = set(lesson.contents), self.task.contents
        count, both = len(self.task.targets), sum(one in learned for one in measured)
        if not both and isinstance(self.task, Task) and isinstance(lesson, Task):
            both = near_copies(self.task.inputs, lesson.inputs)
        if memory and both:
            return (
                f"Trained on {'all' if both == count else f'{both:,}'} of the {count:,} examples that are measured: "
                "the score is no benchmark score."
            )
        if both:
            raise DataError(
                "Nets are trained on examples that they are measured on.", where=where,
                expected=f"none of the {count:,} examples of {self.task.name} in {lesson.name}",
                got=f"{both:,} of them, or copies that differ by next to nothing",
                do=f"Remove them from either. Or: {_WANTED[0].lower()}{_WANTED[1:]}",
            )  # fmt: skip
        unknown = "" if measured and learned else "; whether the two have examples in common is not known"
        name = self.task.name if self.split else lesson.name
        return f"Trained on {many(len(lesson.targets), 'example')} of {name}, measured on {count:,} held out{unknown}."


def _split(task: BaseTask, share: float) -> tuple[BaseTask, BaseTask]:
    """The examples that are held out, about this share of each class, and the others; copies of one stay together."""
    contents = task.contents or tuple(map(str, range(len(task.targets))))
    if (sets := task.copies) is not None:
        contents = tuple(map(str, sets))
    first = {content: at for at, content in reversed([*enumerate(contents)])}
    kinds = np.zeros(len(contents)) if task.targets.is_floating_point() else task.targets.cpu().numpy()
    order = seeds.generator(0, "held out").permutation(np.array(sorted(first.values())))
    # Sorted by class (stably, so shuffled within each), the held-out ones at equal distances.
    order = order[np.argsort(kinds[order], kind="stable")]
    edges = np.floor((np.arange(len(order) + 1)) * share + 0.5)
    chosen = {contents[int(at)] for at in order[edges[1:] > edges[:-1]]}
    held = np.array([content in chosen for content in contents])
    if held.all() or not held.any():
        raise DataError(
            "There are too few different examples to hold some out.", where=task.name,
            expected="some on either side", got=f"{len(order)} different ones, {share:g} of them held out",
            do="Give more examples, or another held_out.",
        )  # fmt: skip
    return task.part(to_tensor(np.flatnonzero(held))), task.part(to_tensor(np.flatnonzero(~held)))


def require_fractions(spec: StudySpec, task: TaskRecord) -> None:
    """Refuses a margin that takes the share of right answers for points.

    Raises:
        UsageError: If a rule on a share has a margin of 1 or more.
    """
    shares = {metric.key for metric in spec.metrics if metric.of_score and task.bounded}
    for rule in spec.rules:
        if rule.metric in shares and rule.statistic in _IN_POINTS and not rule.relative and rule.margin >= 1.0:
            raise UsageError(
                "A margin of 1 or more is more than there can be.", where=f"rule {rule.title}",
                expected=f"a share of {task.measure}, between 0 and 1", got=f"{rule.margin:g}",
                do=f"Did you mean {rule.margin / 100:g}? A point is 0.01.",
            )  # fmt: skip
