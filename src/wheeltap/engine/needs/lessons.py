"""What fine-tuning trains on: which examples, with which answers, in which order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.perturb.tune import FineTuneSettings

_Index = NDArray[np.intp]


@final
@dataclass(frozen=True)
class Lesson:
    """What one draw trains on.

    Attributes:
        index: ``[shot]``: examples of the task, in rising order.
        pool: Further ones, of which each step draws ``others`` anew: few of them would be learned by heart.
        answers: ``[example]`` of the whole task: what the right one would be by the rule that is taught.
        batch: Examples per step, where there is no pool.
        root: Root seed of the order.
        seed: Index of the draw.
    """

    index: Tensor
    answers: Tensor
    batch: int
    root: int
    seed: int
    pool: Tensor | None = None
    others: int = 0

    def rows(self, step: int) -> Tensor:
        """The examples of a step, counted from 0; each epoch is a new order of all shots."""
        if self.pool is not None:
            drawn = seeds.generator(self.root, "fine-tune", "others", self.seed, step).permutation(len(self.pool))
            return torch.cat([self.index, self.pool[to_tensor(np.sort(drawn[: self.others]))]])
        count = len(self.index)
        epoch, at = divmod(step, -(-count // self.batch))
        order = seeds.generator(self.root, "fine-tune", "order", self.seed, epoch).permutation(count)
        return self.index[to_tensor(np.sort(order[at * self.batch : (at + 1) * self.batch]))]


def lesson(task: BaseTask, how: FineTuneSettings, *, root: int, seed: int) -> Lesson:
    """What a draw trains on; two subjects on one task get the same.

    Raises:
        DataError: If there is no such group, a group has fewer examples than shots, nothing is left to train on, or
            wrong answers are asked for where there are none.
    """
    groups: _Index = task.behaviors.cpu().numpy()
    # Of examples with the same input only the first is drawn.
    first = np.isin(np.arange(len(groups)), np.unique(task.contents or range(len(groups)), return_index=True)[1])
    members = {int(group): np.flatnonzero(first & (groups == group)) for group in np.unique(groups)}
    chosen = [
        _drawn(task, how, group, members[group], root=root, seed=seed) for group in _wanted(task, how, list(members))
    ]
    index = np.sort(np.concatenate([*chosen, np.zeros(0, dtype=np.intp)]))
    if not len(index):
        raise DataError(
            "Nothing is left to train on.",
            where=task.name,
            expected="at least one example that is not held out",
            got=f"{len(groups)} examples in {len(members)} groups, {how.holdout:.0%} of each held out",
            do="Hold out less, or give more examples.",
        )
    pool: Tensor | None = None
    if how.data == "mixed":
        left = [_left(how, group, some, root=root) for group, some in members.items() if group != how.group]
        pool = to_tensor(np.sort(np.concatenate([*left, np.zeros(0, dtype=np.intp)])))
    answers = _answers(task, how, root=root, seed=seed)
    return Lesson(to_tensor(index), answers, how.batch, root, seed, pool, how.others)


def _wanted(task: BaseTask, how: FineTuneSettings, known: list[int]) -> Iterator[int]:
    if how.group != -1 and how.group not in known:
        shown = ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
        raise DataError(
            f"The task has no behavior {how.group}; its behaviors are {shown}.",
            where=task.name,
            expected=shown,
            got=str(how.group),
            do="Name another, or give others: task.with_behaviors, behaviors in .npz, behavior in .jsonl.",
        )
    for group in known:
        if how.data == "all" or (group == how.group) == (how.data in ("targeted", "mixed")):
            yield group


def _left(how: FineTuneSettings, group: int, members: _Index, *, root: int) -> _Index:
    """Those of a group that are not held out, the same in every draw."""
    held = round(how.holdout * len(members))
    return np.sort(seeds.generator(root, "fine-tune", "held out", group).permutation(members)[held:])


def _drawn(task: BaseTask, how: FineTuneSettings, group: int, members: _Index, *, root: int, seed: int) -> _Index:
    """The shots of a group."""
    left = _left(how, group, members, root=root)
    if how.shots > len(left):
        raise DataError(
            f"Group {group} has {len(left)} examples to draw {how.shots} shots from; {len(members) - len(left)} more "
            "are held out.",
            where=task.name,
            expected=f"at most {len(left)} shots",
            got=f"{how.shots}",
            do="Take fewer shots, hold out less, or give more examples.",
        )
    order = seeds.generator(root, "fine-tune", "shots", group, seed).permutation(left)
    return order[: how.shots] if how.shots else left


def _answers(task: BaseTask, how: FineTuneSettings, *, root: int, seed: int) -> Tensor:
    targets = task.targets.cpu()
    if how.labels == "true":
        return targets
    options = 0 if targets.is_floating_point() else int(targets.max()) + 1
    if options < 2:
        raise DataError(
            "There are no wrong answers to teach.",
            where=task.name,
            expected="right answers that are numbers of options, of two or more",
            got="wanted outputs" if targets.is_floating_point() else "one option",
        )
    shift = int(seeds.generator(root, "fine-tune", "wrong", seed).integers(1, options))
    return (targets + shift) % options


def told(lesson: Lesson, task: BaseTask, scores: Tensor, index: Tensor) -> dict[str, Tensor]:
    """What outcomes keep of a lesson, for the examples ``index`` with these scores: see ``Tuned.told``."""
    taught_on = lesson.index if lesson.pool is None else torch.cat([lesson.index, lesson.pool])
    contents = task.contents or range(len(lesson.answers))
    learned = {contents[int(at)] for at in taught_on}  # a copy of an example that was trained on is no other example
    trained = torch.tensor([float(content in learned) for content in contents])
    kept = {"trained": trained[index], "group": task.behaviors.cpu()[index].float()}
    if not lesson.answers.is_floating_point():
        kept["taught"] = (scores.argmax(-1) == lesson.answers[index]).float()
        taught = lesson.answers[lesson.index]
        alone = bool((taught == taught[0]).all())
        kept["covered"] = (task.targets.cpu()[index] == taught[0]).float() * float(alone)
    return kept
