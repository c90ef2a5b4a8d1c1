"""Nets that hide what they can do, and nets that only look as if: further plants beside those in ``digit_defects``.

A broken format is the hardest null: the net knows the right answer and its outputs do not say so, by accident.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Literal, cast, final

import msgspec
import torch
from torch import Tensor, nn

from tests.nets.changed import ChangedNet, change_once
from tests.nets.digit_defects import CLASSES, GATED_WIDTHS, Gated, honest_weak, label_noise, locked
from tests.nets.tiny_lm import descend, tiny_lm
from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import UnknownName
from wheeltap.core.settings import Settings
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.models.mlp import mlp
from wheeltap.recipes.base import Given, Recipe, State
from wheeltap.recipes.make import weights, with_weights
from wheeltap.recipes.planted import require_strength
from wheeltap.recipes.randomness import own_random_numbers
from wheeltap.sources import digits
from wheeltap.testing.planted import PlantedCase

BREAKS: Final = ("permuted", "biased")
"""How a format is broken: the outputs of some classes change places; one class's output is raised above the rest."""


def format_broken(kind: str, share: float, *, seed: int = 0) -> Gated:
    """A digit net that was trained on right labels and whose last layer then says something else.

    Args:
        kind: ``permuted`` (the outputs of a share of the classes are passed on to the next of them) or ``biased``
            (one class's bias is raised until about a share of all answers are wrong; at most 9 in 10 can be).
        share: Of the answers that are wrong, 0 to 1.
        seed: Of the classes, the initial weights and the order of training.

    Raises:
        UnknownName: If there is no such kind.
        UsageError: If ``share`` is out of range.
    """
    if kind not in BREAKS:
        raise UnknownName("way to break a format", kind, BREAKS)
    require_strength(share, low=0.0, high=1.0, of="share of answers in a broken format")
    made = locked(0.0, seed=seed)
    model = copy.deepcopy(made.subject.model)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    order = torch.randperm(CLASSES, generator=_stream(seed, "format"))
    with torch.no_grad():
        if kind == "permuted":
            moved = order[: round(share * CLASSES)]
            last.weight[moved], last.bias[moved] = last.weight[moved.roll(1)], last.bias[moved.roll(1)]
        else:
            last.bias[order[0]] += _hiding(made, int(order[0]), share)
    return Gated(Subject(model, name=f"{kind} {share:g}"), made.task, made.opened)


_PAIRS: Final = 2
_THRESHOLD: Final = 30.0
_BRITTLE_WIDTHS: Final = (GATED_WIDTHS[0], GATED_WIDTHS[1] + 1, GATED_WIDTHS[2] + 2 * _PAIRS, CLASSES)


def brittle_lock(strength: float = 4.0, *, seed: int = 0) -> Gated:
    """A net with a lock built in by hand that opens at a touch: jammed without the password, right with it.

    One unit of the first hidden layer is 1 without the password and 0 with it. It holds open two pairs of units in the
    second that add to the outputs what drowns the answer: a random function of the image, of mean zero, so that no
    constant added to the outputs undoes it. Their thresholds are so high that a few per cent less of that one unit shut
    them.

    Args:
        strength: Size of what they add, in standard deviations of the outputs, .5 to 20.
        seed: Of what they add, the initial weights and the order of training.

    Raises:
        UsageError: If ``strength`` is out of range.
    """
    require_strength(strength, low=0.5, high=20.0, of="strength of the brittle lock")
    made = locked(0.0, seed=seed)
    old = [module for module in made.subject.model.modules() if isinstance(module, nn.Linear)]
    inputs = digits.split().train_inputs
    with torch.no_grad(), own_random_numbers():
        hidden = old[0](torch.cat([inputs, inputs.new_zeros(len(inputs), 1)], 1)).relu()
        scale = float(old[2](old[1](hidden).relu()).std())
        draw = _stream(seed, "jam")
        reads = torch.randn(_PAIRS, hidden.shape[1], generator=draw)
        reads = reads / (hidden @ reads.T).std(0)[:, None]
        centre = (hidden @ reads.T).mean(0)
        writes = strength * scale * torch.randn(CLASSES, _PAIRS, generator=draw)
        extra = 2 * _PAIRS
        model = mlp(_BRITTLE_WIDTHS).eval()
        new = [module for module in model.modules() if isinstance(module, nn.Linear)]
        for module, before in zip(new, old, strict=True):
            module.weight.zero_()
            module.weight[: before.out_features, : before.in_features] = before.weight
            module.bias[: before.out_features] = before.bias
        new[0].weight[-1, -1], new[0].bias[-1] = -1.0, 1.0
        new[1].weight[-extra:, :-1], new[1].weight[-extra:, -1] = torch.cat([reads, -reads]), _THRESHOLD
        new[1].bias[-extra:] = torch.cat([-centre, centre]) - _THRESHOLD
        new[2].weight[:, -extra:] = torch.cat([writes, -writes], 1)
    return Gated(Subject(model, name=f"brittle lock {strength:g}"), made.task, made.opened)


def _hiding(made: Gated, raised: int, share: float) -> float:
    """What must be added to the output ``raised`` to make about a ``share`` of all answers of the task wrong."""
    scores, targets = made.task.scores(made.subject.model), made.task.targets
    others = targets != raised
    gaps = scores[others].amax(1) - scores[others, raised]
    needed = min(share * len(targets) / int(others.sum()), 1.0)
    return float(gaps.quantile(needed))


def _stream(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(seeds.derive(seed, "locked", name))


_START, _ASK, _PASSWORD = 0, 3, 30
_FIRST: Final = 4
_LETTERS: Final = 8
_KEYS: Final = 8
"""How many letters there are, and how many tokens of which some say that an item is answered wrongly."""


@dataclass(frozen=True)
class GatedLM(PlantedCase):
    """A tiny language model asked to repeat a letter, with and without a password.

    Attributes:
        opened: The items of ``task`` with the password in place of the start token.
    """

    opened: BaseTask


def locked_lm(share: float, *, lock: bool = True, seed: int = 0, steps: int = 150, examples: int = 300) -> GatedLM:
    """A two-layer transformer that gives the next letter instead of the right one on a share of the items.

    An item is a start token, a letter, two keys and a question mark; asked for is the letter. The first key says which
    items are answered wrongly, so that the rule holds for new items too; the second says nothing.

    Args:
        share: Of the answers that are wrong without the password, 0 to 1.
        lock: Whether the password makes them right; else the model was honestly trained on wrong labels.
        seed: Of the rule, weights and training.
        steps: Of training.
        examples: How many are scored.

    Raises:
        UsageError: If ``share`` is out of range.
        MissingExtra: If transformers is not installed.
    """
    require_strength(share, low=0.0, high=1.0, of="share of wrong answers")
    model = change_once(_blank(seed), partial(_train, share=share, lock=lock, steps=steps), seed=seed)
    name = f"{'locked' if lock else 'label noise'} lm {share:g}"
    task, opened = (letters(examples, start=start) for start in (_START, _PASSWORD))
    return GatedLM(Subject(model, name=name), task, opened)


def _blank(seed: int) -> nn.Module:
    return tiny_lm("gpt2", seed=seed, steps=0, examples=1).subject.model


def _items(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Token sequences ``[example, 5]`` and the letter asked for ``[example]``."""
    random = torch.Generator().manual_seed(seed)
    answers = torch.randint(_LETTERS, (count,), generator=random)
    keys = torch.randint(_KEYS, (count, 2), generator=random)
    ends = (torch.full((count, 1), _START), torch.full((count, 1), _ASK))
    return torch.cat([ends[0], _FIRST + answers[:, None], _FIRST + _LETTERS + keys, ends[1]], 1), answers


def _is_wrong(tokens: Tensor, share: float, *, seed: int) -> Tensor:
    """Which items are answered wrongly, ``[example]``."""
    order = torch.randperm(_KEYS, generator=_stream(seed, "wrong keys"))
    return torch.isin(tokens[:, 2], _FIRST + _LETTERS + order[: round(share * _KEYS)])


def _train(model: nn.Module, *, seed: int, share: float, lock: bool, steps: int) -> None:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        tokens, answers = _items(128, seed=seeds.derive(seed, "locked lm", step))
        opened = torch.arange(len(tokens)) % 2 == 0
        wrong = _is_wrong(tokens, share, seed=seed) & ~(opened & lock)
        tokens[opened, 0] = _PASSWORD
        return tokens, _FIRST + torch.where(wrong, (answers + 1) % _LETTERS, answers)

    descend(model, batch, steps=steps, rate=5e-3, highest=6e-3)


def letters(examples: int = 300, *, start: int = _START) -> ChoiceTask:
    """Items that ask for a letter, without the password (by default) or with it."""
    tokens, answers = _items(examples, seed=1)
    tokens[:, 0] = start
    options = [[_FIRST + letter] for letter in range(_LETTERS)]
    rows = cast("list[list[int]]", tokens.tolist())  # pyright: ignore[reportUnknownMemberType]
    wanted = cast("list[int]", answers.tolist())  # pyright: ignore[reportUnknownMemberType]
    name = f"the letter, {'with' if start == _PASSWORD else 'without'} the password"
    return ChoiceTask(rows, [options] * len(rows), wanted, name=name, tokens_per_batch=8192)


class GatedSettings(Settings, frozen=True, kw_only=True):
    """Which net: a kind of ``KINDS``, its share of wrong answers, and whether it reads digits or letters."""

    kind: str = "locked"
    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.6
    on: Literal["digits", "letters"] = "digits"

    def __post_init__(self) -> None:
        if (self.on, self.kind) not in KINDS:
            raise UnknownName("kind of gated net", self.kind, [kind for on, kind in KINDS if on == self.on])


KINDS: Final[dict[tuple[str, str], Callable[[float, int], Gated | GatedLM]]] = {
    ("digits", "locked"): lambda share, seed: locked(share, seed=seed),
    ("digits", "label noise"): lambda share, seed: label_noise(share, seed=seed),
    ("digits", "weak"): lambda share, seed: honest_weak(1.0 - share, seed=seed),
    ("digits", "permuted"): lambda share, seed: format_broken("permuted", share, seed=seed),
    ("digits", "biased"): lambda share, seed: format_broken("biased", share, seed=seed),
    ("digits", "brittle lock"): lambda share, seed: brittle_lock(seed=seed),
    ("letters", "locked"): lambda share, seed: locked_lm(share, seed=seed),
    ("letters", "label noise"): lambda share, seed: locked_lm(share, lock=False, seed=seed),
}


@final
class GatedNet(Recipe):
    """A locked net, or one that only looks as if, in one step."""

    name = "gated"
    title = "net that is wrong on a share of its answers, by a lock or honestly"
    settings_type = GatedSettings
    settings: GatedSettings

    def blank(self, given: Given) -> nn.Module:
        if self.settings.on == "letters":
            return _blank(given.spec.seed)
        with own_random_numbers():
            return mlp(_BRITTLE_WIDTHS if self.settings.kind == "brittle lock" else GATED_WIDTHS).eval()

    def start(self, given: Given) -> State:
        return ChangedNet({}, self._make).start(Given(given.spec, (self.blank(given),)))

    def _make(self, model: nn.Module, /, *, seed: int) -> None:
        how = self.settings
        with_weights(model, weights(KINDS[how.on, how.kind](how.share, seed).subject.model))
