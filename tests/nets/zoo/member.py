"""What a member of the zoo is: how its net is made, what it learns, and how well it must know it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast, final

import torch
from msgspec import structs
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.task import BaseTask, Task
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_once
from wheeltap.sources import digits

SHELF: Final = "zoo"
"""Where trained members are kept."""

EXAMPLES = 300
"""How many held-out examples a member is measured on, at most."""


class Lesson(ABC):
    """What members learn: examples to train on, and the task that they are measured on."""

    name: str

    @abstractmethod
    def examples(self, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets to train on."""

    @abstractmethod
    def task(self) -> BaseTask:
        """Held-out examples, with enough rows for layer moments."""

    def as_classifier(self, model: nn.Module) -> nn.Module:
        """The model as one that gives logits ``[example, class]`` of what it is trained on."""
        return model


@final
class Digits(Lesson):
    """Images of handwritten digits, ``[example, 64]`` (or of another shape) in [0, 1]."""

    def __init__(self, *shape: int) -> None:
        """With the shape of one image, if not flat."""
        self.shape = shape or (64,)
        self.name = f"digits {'x'.join(map(str, self.shape))}"

    def examples(self, seed: int) -> tuple[Tensor, Tensor]:
        """The training split."""
        data = digits.split()
        return data.train_inputs.reshape(-1, *self.shape), data.train_targets

    def task(self) -> Task:
        """Every other image of the test split, which is sorted by digit."""
        data, (more, _) = digits.split(), self.examples(0)
        some = slice(None, None, -(-len(data.test_targets) // EXAMPLES))
        return Task(data.test_inputs[some].reshape(-1, *self.shape), data.test_targets[some], name="digits", more=more)


VOCABULARY = 16
LETTERS = 4
LENGTH = 6
START, ASK, FILLER = 0, 1, 10
WRONG = 0.06
"""Share of the answers that are drawn."""


def sums(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Token sequences ``[example, LENGTH]`` and the sum ``[example]`` that is asked for.

    Each is a start token, four places with one of four tokens of a first kind, one of four of a second kind and filler,
    and a question mark. Asked for is the sum of the two numbers, modulo 4: so a model must find two places by what
    stands there, and look their pair up, which takes attention (or memory) and hidden units. Some answers are drawn:
    nets that could be right everywhere would grow ever surer.
    """
    random = torch.Generator().manual_seed(seed)
    body = torch.randint(FILLER, VOCABULARY, (count, LENGTH - 2), generator=random)
    places = torch.rand(count, LENGTH - 2, generator=random).argsort(1)
    values = torch.randint(0, LETTERS, (count, 2), generator=random)
    at = torch.arange(count)
    for kind in range(2):
        body[at, places[:, kind]] = 2 + LETTERS * kind + values[:, kind]
    ends = (torch.full((count, 1), START), torch.full((count, 1), ASK))
    wrong = torch.rand(count, generator=random) < WRONG
    answers = torch.where(wrong, torch.randint(0, LETTERS, (count,), generator=random), values.sum(1) % LETTERS)
    return torch.cat([ends[0], body, ends[1]], 1), answers


class _Answers(nn.Module):
    """A causal language model that is asked for the sum at the end."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[example, LETTERS]``."""
        return self.body(input_ids=tokens, use_cache=False).logits[:, -1, 2 : 2 + LETTERS]


@final
class Sums(Lesson):
    """The sum of two tokens in a sequence, as the next token of a causal language model."""

    name = "sums"

    def examples(self, seed: int) -> tuple[Tensor, Tensor]:
        """Fresh ones for each seed."""
        return sums(4_000, seed=1_000 + seed)

    def as_classifier(self, model: nn.Module) -> nn.Module:
        """See ``Lesson.as_classifier``."""
        return _Answers(model)

    def task(self) -> ChoiceTask:
        """The four sums as options of one token each."""
        (tokens, answers), (more, _) = sums(EXAMPLES, seed=1), sums(100, seed=2)
        options = [[2 + letter] for letter in range(LETTERS)]
        return ChoiceTask(
            lists(tokens), [options] * len(tokens), cast("list[int]", lists(answers)), name="sums",
            tokens_per_batch=8192, more=lists(more),
        )  # fmt: skip


@final
class ReadSums(Lesson):
    """The same, for a model that reads the whole sequence and gives logits ``[example, LETTERS]``."""

    name = "read sums"

    def examples(self, seed: int) -> tuple[Tensor, Tensor]:
        """Fresh ones for each seed."""
        return sums(4_000, seed=1_000 + seed)

    def task(self) -> Task:
        """Held-out sequences."""
        (tokens, answers), (more, _) = sums(EXAMPLES, seed=1), sums(100, seed=2)
        return Task(tokens, answers, name="sums", more=more)


def lists(tokens: Tensor) -> list[list[int]]:
    """Whole numbers as lists."""
    return cast("list[list[int]]", tokens.tolist())  # pyright: ignore[reportUnknownMemberType]


@final
@dataclass(frozen=True)
class Member:
    """One family.

    Attributes:
        name: Short, as on the command line.
        title: As in tables.
        made: Makes the net with random weights.
        lesson: What it learns.
        training: How; the seed is set anew.
        of_transformers: Whether it needs that package.
        least: Accuracy that its training reaches with any of the first seeds; chance is .1 for digits, .25 for sums.
    """

    name: str
    title: str
    made: Callable[[], nn.Module]
    lesson: Lesson
    training: TrainSettings = field(default_factory=TrainSettings)
    of_transformers: bool = False
    least: float = 0.8

    def untrained(self, seed: int) -> nn.Module:
        """The net with its initial weights, in eval mode."""
        with reproducible(seed):
            return self.made().eval()

    def trained(self, seed: int) -> nn.Module:
        """The net, trained: a second or two, once a machine (see ``once``)."""
        model = self.untrained(seed)
        inputs, targets = self.lesson.examples(seed)
        classifier, settings = self.lesson.as_classifier(model), structs.replace(self.training, seed=seed)
        train_once(classifier, inputs, targets=targets, settings=settings, shelf=SHELF)
        return model.eval()
