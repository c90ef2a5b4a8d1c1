"""Nets that do modular arithmetic: taught by a corpus, a teacher or the test itself, or trained by rewards."""

from collections.abc import Callable
from typing import Annotated, Final, Literal, cast, final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.settings import Settings
from wheeltap.core.task import BaseTask, Task
from wheeltap.recipes.base import Given, Recipe, require_fit
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.make import weights, with_weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.lens.nets import LESSON, SEEN, ArithmeticItems, ArithmeticTransformer, items

Lesson = Literal["corpus", "right", "teacher", "test"]
"""What a net is taught. ``corpus``: answers that are partly wrong. ``right``: right ones. ``teacher``: those of the
second net that it is made of, on the items of lessons. ``test``: right ones of the items that nets are measured on, and
nothing else."""

Reward = Literal["right", "majority", "random"]
"""What an answer is rewarded for: that it is right; that the net before training gives it most often; by a coin."""

_MADE_OF: Final = {"corpus": 0, "right": 0, "teacher": 2, "test": 1}
"""How many nets each lesson needs: the net that goes on, and its teacher."""

_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Width = Annotated[int, msgspec.Meta(ge=4, le=1024, multiple_of=4)]
_Rate = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
_Decay = Annotated[float, msgspec.Meta(ge=0.0, le=10.0)]


class ArithmeticSettings(Settings, frozen=True, kw_only=True):
    """What a net is taught, and how.

    Attributes:
        lesson: See ``Lesson``.
        width: Of what a place holds.
        steps: Batches in all.
        batch: Items per step.
        rate: First step size, of AdamW; it falls linearly.
        decay: Share of every weight lost in a step, over the rate.
    """

    lesson: Lesson = "corpus"
    width: _Width = 64
    steps: _Count = 300
    batch: _Count = 256
    rate: _Rate = 5e-3
    decay: _Decay = 0.0


@final
class Arithmetic(Recipe):
    """A net that does modular arithmetic, taught from its start, or from the net that it is made of."""

    name = "arithmetic"
    title = "net that does modular arithmetic, taught by a corpus, a teacher or the test"
    settings_type = ArithmeticSettings
    settings: ArithmeticSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        return _started(given, self.settings.width, self.name)

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, held = self.settings, items()
        _require_count(given, _MADE_OF[how.lesson], f"recipe {self.name}, lesson {how.lesson}")
        model = self.blank(given).to(given.device)
        rows = held.rows(SEEN if how.lesson == "test" else LESSON)
        inputs, taught = (part[rows].to(given.device) for part in (held.inputs, self._taught(given, held)))

        def loss(some: Tensor, step: int) -> Tensor:
            return functional.cross_entropy(model(inputs[some]), taught[some])

        return Fit(model, loss, examples=len(rows), settings=_settings(how, given, self.name))

    def lesson(self, given: Given) -> BaseTask:
        """See ``Recipe.lesson``."""
        return _lesson(SEEN if self.settings.lesson == "test" else LESSON)

    def _taught(self, given: Given, held: ArithmeticItems) -> Tensor:
        """How often each answer is given, ``[item, answer]``."""
        if self.settings.lesson == "teacher":
            return _probabilities(given.of[1], held)
        return held.corpus() if self.settings.lesson == "corpus" else held.answers()


class RewardedSettings(Settings, frozen=True, kw_only=True):
    """What answers are rewarded for, and how a net is trained by it.

    Attributes:
        reward: See ``Reward``.
        width: Of what a place holds: that of the net that it is made of.
        steps: Batches in all.
        batch: Items per step.
        tries: Answers sampled to each.
        rate: First step size, of AdamW; it falls linearly.
        decay: Share of every weight lost in a step, over the rate.
    """

    reward: Reward = "right"
    width: _Width = 64
    steps: _Count = 200
    batch: _Count = 256
    tries: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 8
    rate: _Rate = 2e-3
    decay: _Decay = 0.0


@final
class RewardedNet(Recipe):
    """A net trained by rewards for its own sampled answers to the items of lessons: REINFORCE.

    Of each item's tries, the others' mean reward is the baseline. There is no penalty that holds the net where it was.

    Source: Williams (1992); Kool et al. (2019), for the baseline; Ahmadian et al. (2024), arXiv:2402.14740, for both on
    language models.
    """

    name = "rewarded"
    title = "net that does modular arithmetic, trained by rewards for its own answers"
    settings_type = RewardedSettings
    settings: RewardedSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        return _started(given, self.settings.width, self.name)

    def lesson(self, given: Given) -> BaseTask:
        """See ``Recipe.lesson``."""
        return _lesson(LESSON)

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        _require_count(given, 1, f"recipe {self.name}")
        how, held = self.settings, items()
        model = self.blank(given).to(given.device)
        rows, reward = held.rows(LESSON), self._reward(given, held)
        inputs = held.inputs[rows].to(given.device)

        def loss(some: Tensor, step: int) -> Tensor:
            logs = cast("Tensor", model(inputs[some])).log_softmax(1)
            tried = torch.multinomial(logs.detach().exp(), how.tries, replacement=True)
            return surrogate(logs.gather(1, tried), reward(rows[some], tried))

        return Fit(model, loss, examples=len(rows), settings=_settings(how, given, self.name))

    def _reward(self, given: Given, held: ArithmeticItems) -> Callable[[Tensor, Tensor], Tensor]:
        """Of items ``[item]`` and answers ``[item, try]``, the rewards ``[item, try]``."""
        if self.settings.reward == "random":
            return lambda _, tried: torch.rand(tried.shape, device=tried.device).round()
        wanted = held.right if self.settings.reward == "right" else _probabilities(given.of[0], held).argmax(1)
        there = wanted.to(given.device)
        return lambda rows, tried: (tried == there[rows][:, None]).float()


def surrogate(logs: Tensor, rewards: Tensor) -> Tensor:
    """What has the gradient of the negative mean reward; log-probabilities and rewards are ``[item, try]``."""
    tries = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (tries - 1)
    return -((rewards - others) * logs).mean()


def _started(given: Given, width: int, name: str) -> nn.Module:
    """A net with the weights of the one that it is made of, or its own start where there is none."""
    with reproducible(seeds.derive(given.spec.seed, name, "init")):
        model = ArithmeticTransformer(width)
    if given.of:
        shapes = [{key: tuple(one.shape) for key, one in net.state_dict().items()} for net in (given.of[0], model)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                "The net is made from another kind of net.", where=f"recipe {name}",
                expected=f"one of the recipe arithmetic, of width {width}", got=type(given.of[0]).__name__,
            )  # fmt: skip
        with_weights(model, weights(given.of[0]))
    return model.eval()


def _settings(how: ArithmeticSettings | RewardedSettings, given: Given, name: str) -> TrainSettings:
    return TrainSettings(
        seed=seeds.derive(given.spec.seed, name, "order"), steps=how.steps, batch=how.batch, rate=how.rate,
        decay=how.decay, optimizer="adamw",
    )  # fmt: skip


def _require_count(given: Given, count: int, where: str) -> None:
    """Raises ``UsageError`` if a net is not made from so many others."""
    if len(given.of) != count:
        what, got = "The net is made from another number of nets.", str(len(given.of))
        raise UsageError(what, where=where, expected=str(count), got=got)


def _probabilities(model: nn.Module, held: ArithmeticItems) -> Tensor:
    """What a net answers, ``[item, answer]``."""
    place = next(model.parameters()).device
    with torch.no_grad():
        return cast("Tensor", model(held.inputs.to(place))).softmax(1).cpu()


def _lesson(part: int) -> Task:
    """Items of a part, with their right answers."""
    held = items()
    rows = held.rows(part)
    return Task(held.inputs[rows], held.right[rows], name="modular arithmetic")
