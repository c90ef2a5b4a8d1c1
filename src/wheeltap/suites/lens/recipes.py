"""Nets that do modular arithmetic: taught by a corpus, a teacher or the test itself, or trained by rewards."""

from abc import abstractmethod
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
from wheeltap.suites.lens.nets import LESSON, SEEN, ArithmeticTransformer, items

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


class ArithmeticRecipe(Recipe):
    """A net that does modular arithmetic: from a start of its own, or from the first of the nets that it is made of."""

    settings: "ArithmeticSettings | RewardedSettings"

    @property
    @abstractmethod
    def nets(self) -> int:
        """How many nets it is made of."""

    @abstractmethod
    def loss(self, given: Given, model: nn.Module, rows: Tensor) -> Callable[[Tensor, int], Tensor]:
        """The loss of a batch of the items ``rows`` at a step; see ``Fit``."""

    @property
    def part(self) -> int:
        """Which items it trains on."""
        return LESSON

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        width = self.settings.width
        with reproducible(seeds.derive(given.spec.seed, self.name, "init")):
            model = ArithmeticTransformer(width)
        if given.of:
            shapes = [{key: tuple(one.shape) for key, one in net.state_dict().items()} for net in (given.of[0], model)]
            if shapes[0] != shapes[1]:
                raise UsageError(
                    "The net is made from another kind of net.", where=f"recipe {self.name}",
                    expected=f"one of the recipe arithmetic, of width {width}", got=type(given.of[0]).__name__,
                )  # fmt: skip
            with_weights(model, weights(given.of[0]))
        return model.eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        if len(given.of) != self.nets:
            raise UsageError("The net is made from another number of nets.", where=f"recipe {self.name}",
                             expected=str(self.nets), got=str(len(given.of)))  # fmt: skip
        how, rows = self.settings, items().rows(self.part)
        model = self.blank(given).to(given.device)
        settings = TrainSettings(
            seed=seeds.derive(given.spec.seed, self.name, "order"), steps=how.steps, batch=how.batch, rate=how.rate,
            decay=how.decay, optimizer="adamw",
        )  # fmt: skip
        return Fit(model, self.loss(given, model, rows), examples=len(rows), settings=settings)

    def lesson(self, given: Given) -> BaseTask:
        """See ``Recipe.lesson``: items with their right answers."""
        rows = items().rows(self.part)
        return Task(items().inputs[rows], items().right[rows], name="modular arithmetic")


@final
class Arithmetic(ArithmeticRecipe):
    """A net that does modular arithmetic, taught from its start, or from the net that it is made of."""

    name = "arithmetic"
    title = "net that does modular arithmetic, taught by a corpus, a teacher or the test"
    settings_type = ArithmeticSettings
    settings: ArithmeticSettings  # pyright: ignore[reportIncompatibleVariableOverride]  (never set again)

    @property
    def nets(self) -> int:
        """See ``ArithmeticRecipe``."""
        return _MADE_OF[self.settings.lesson]

    @property
    def part(self) -> int:
        """See ``ArithmeticRecipe``."""
        return SEEN if self.settings.lesson == "test" else LESSON

    def loss(self, given: Given, model: nn.Module, rows: Tensor) -> Callable[[Tensor, int], Tensor]:
        """See ``ArithmeticRecipe``; how often each answer is given is what is taught, ``[item, answer]``."""
        if self.settings.lesson == "teacher":
            shares = _probabilities(given.of[1])
        else:
            shares = items().corpus() if self.settings.lesson == "corpus" else items().answers()
        inputs, taught = (part[rows].to(given.device) for part in (items().inputs, shares))
        return lambda batch, step: functional.cross_entropy(model(inputs[batch]), taught[batch])


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
class RewardedNet(ArithmeticRecipe):
    """A net trained by rewards for its own sampled answers to the items of lessons: REINFORCE.

    Of each item's tries, the others' mean reward is the baseline. There is no penalty that holds the net where it was.

    Source: Williams (1992); Kool et al. (2019), for the baseline; Ahmadian et al. (2024), arXiv:2402.14740, for both on
    language models.
    """

    name = "rewarded"
    title = "net that does modular arithmetic, trained by rewards for its own answers"
    settings_type = RewardedSettings
    settings: RewardedSettings  # pyright: ignore[reportIncompatibleVariableOverride]  (never set again)

    @property
    def nets(self) -> int:
        """See ``ArithmeticRecipe``: the net before training."""
        return 1

    def loss(self, given: Given, model: nn.Module, rows: Tensor) -> Callable[[Tensor, int], Tensor]:
        """See ``ArithmeticRecipe``."""
        reward, inputs = self._reward(given), items().inputs[rows].to(given.device)

        def loss(batch: Tensor, step: int) -> Tensor:
            logs = cast("Tensor", model(inputs[batch])).log_softmax(1)
            tried = torch.multinomial(logs.detach().exp(), self.settings.tries, replacement=True)
            return surrogate(logs.gather(1, tried), reward(rows[batch], tried))

        return loss

    def _reward(self, given: Given) -> Callable[[Tensor, Tensor], Tensor]:
        """Of items ``[item]`` and answers ``[item, try]``, the rewards ``[item, try]``."""
        if self.settings.reward == "random":
            return lambda _, tried: torch.rand(tried.shape, device=tried.device).round()
        right = self.settings.reward == "right"
        answers = (items().right if right else _probabilities(given.of[0]).argmax(1)).to(given.device)
        return lambda rows, tried: (tried == answers[rows][:, None]).float()


def surrogate(logs: Tensor, rewards: Tensor) -> Tensor:
    """What has the gradient of the negative mean reward; log-probabilities and rewards are ``[item, try]``."""
    tries = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (tries - 1)
    return -((rewards - others) * logs).mean()


def _probabilities(model: nn.Module) -> Tensor:
    """What a net answers, ``[item, answer]``."""
    place = next(model.parameters()).device
    with torch.no_grad():
        return cast("Tensor", model(items().inputs.to(place))).softmax(1).cpu()
