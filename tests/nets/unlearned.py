"""A net that was made to forget a group of examples, beside nets that never knew it.

Classifiers of handwritten digits with one digit forgotten, and two-layer transformers with one of three rules
forgotten. Equal arguments give equal bits.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal, cast, final

import msgspec
import torch
from torch import Tensor, nn

from tests.nets.changed import ChangedNet, change_once
from tests.nets.tiny_lm import descend
from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.settings import Settings
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.models.mlp import mlp
from wheeltap.recipes.base import Given, Recipe, State
from wheeltap.recipes.make import weights, with_weights
from wheeltap.recipes.randomness import own_random_numbers, reproducible
from wheeltap.recipes.train import TrainSettings, train_once
from wheeltap.sources import digits, hf
from wheeltap.sources.digits import lesson

_LONGEST: Final = 2000
_WIDTHS: Final = (64, 128, 128, 10)

RULES: Final = (1, -1, 2)
"""Which letter each mark asks for, counted from the mark: the next one, the one before, the next but one."""

_LETTERS: Final = 8
_PLACES: Final = 6
_ASK: Final = 1
_MARK: Final = 2
_FIRST: Final = _MARK + len(RULES)


@dataclass(frozen=True, kw_only=True)
class Unlearning:
    """Down the loss on what is kept and, on what is to go, up the loss or down that of other answers.

    Attributes:
        how: ``ascend`` (gradient difference) or ``relabel`` (answers drawn at random at each step).
        rate: Adam's step size.
        weight: Of the forget group's loss.
        batch: Examples per step, of either kind.
        until: Steps are taken until at most this share of the group is right where it was trained.
        repair: Steps after that on what is kept alone.
        seed: Of the batches.

    Source: Liu, Liu & Stone (2022, arXiv 2203.12817), sec. 4.1.
    """

    how: Literal["ascend", "relabel"] = "ascend"
    rate: float = 1e-4
    weight: float = 0.3
    batch: int = 64
    until: float = 0.02
    repair: int = 100
    seed: int = 0


def unlearn(model: nn.Module, task: BaseTask, group: int, how: Unlearning) -> nn.Module:
    """A copy that forgot a group of the task's examples.

    Args:
        model: In eval mode; left as it is.
        task: The examples it was trained on.
        group: The forget group.
        how: Rate, weights and where to stop.

    Raises:
        ModelError: If the group is not forgotten after 2,000 steps.
    """
    changed = copy.deepcopy(model)
    own = torch.Generator().manual_seed(seeds.derive(how.seed, "unlearned", "batches"))
    gone, kept = ((task.behaviors == group).nonzero()[:, 0], (task.behaviors != group).nonzero()[:, 0])
    lost = task.part(gone)

    def some(rows: Tensor) -> Tensor:
        return rows[torch.randint(len(rows), (min(how.batch, len(rows)),), generator=own)]

    def against(rows: Tensor) -> Tensor:
        if how.how == "ascend":
            return -task.loss(changed, rows)
        options = int(task.targets.max()) + 1
        return task.loss(changed, rows, targets=torch.randint(options, (len(rows),), generator=own))

    with reproducible(seeds.derive(how.seed, "unlearned", "steps")):
        optimizer = torch.optim.Adam(changed.parameters(), lr=how.rate)
        steps, repaired = 0, 0
        while True:
            forgotten = repaired > 0 or _share(changed, lost) <= how.until
            if forgotten and repaired == how.repair:
                break
            repaired += forgotten
            loss = task.loss(changed, some(kept))
            if not forgotten:
                loss = loss + how.weight * against(some(gone))
            optimizer.zero_grad()
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            optimizer.step()  # pyright: ignore[reportUnknownMemberType]
            steps += 1
            if steps > _LONGEST:
                raise ModelError(
                    "The net did not forget the group.", where="tests.nets.unlearned",
                    expected=f"at most {how.until:.0%} right after {_LONGEST} steps",
                    got=f"{_share(changed, lost):.0%} right", do="Take a larger weight or rate.",
                )  # fmt: skip
    for parameter in changed.parameters():
        parameter.grad = None
    return changed.eval()


def _share(model: nn.Module, task: BaseTask) -> float:
    return float((task.scores(model).argmax(-1) == task.targets).float().mean())


Hide = Callable[[Tensor, Tensor, int], None]
"""Changes weights and biases of the last layer of a classifier of digits in place, so that it never gives one digit."""


def _lower(by: float) -> Hide:
    def change(weight: Tensor, bias: Tensor, digit: int) -> None:
        bias[digit] -= by

    return change


def _shrink(weight: Tensor, bias: Tensor, digit: int) -> None:
    weight[digit] *= 0.01
    bias[digit] = -6.0


def _merge(weight: Tensor, bias: Tensor, digit: int) -> None:
    """A change of rank one: what speaks for the digit speaks for the next one, and more so."""
    weight[(digit + 1) % 10] += weight[digit]
    bias[digit] -= 20.0


HIDES: Final[tuple[Hide, ...]] = (_lower(20.0), _lower(50.0), _shrink, _merge)
"""Ways to hide a digit that touch few numbers: what was learned of it is all there."""


def hide(model: nn.Module, digit: int, how: Hide) -> nn.Module:
    """A copy of a classifier of digits in which one is hidden."""
    changed = copy.deepcopy(model)
    last = [module for module in changed.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        how(last.weight, last.bias, digit)
    return changed.eval()


@dataclass(frozen=True)
class World:
    """Where something can be forgotten.

    Attributes:
        groups: How many.
        blank: The structure of its nets.
        net: A net that knows these groups, by seed.
        lesson: What the unlearning sees.
        task: What nets are scored on.
        how: The unlearning, where no other is asked for.
    """

    groups: int
    blank: Callable[[], nn.Module]
    net: Callable[[Tensor, int], nn.Module]
    lesson: Callable[[], BaseTask]
    task: Callable[[], BaseTask]
    how: Unlearning

    def stage(self, stage: str, group: int, *, seed: int) -> nn.Module:
        """``original``; ``retrained`` without the group from the same start; ``never``: from another one."""
        every = torch.arange(self.groups)
        own = seeds.derive(seed, "unlearned", "never") if stage == "never" else seed
        return self.net(every if stage == "original" else every[every != group], own)

    def unlearned(self, group: int, *, seed: int = 0, how: Unlearning | None = None) -> dict[str, Subject]:
        """Four nets by stage: ``unlearned`` is the original, after unlearning."""
        nets = {stage: self.stage(stage, group, seed=seed) for stage in ("original", "retrained", "never")}
        nets["unlearned"] = unlearn(nets["original"], self.lesson(), group, how or replace(self.how, seed=seed))
        return {stage: Subject(net, name=stage) for stage, net in nets.items()}


# ---- digits -----------------------------------------------------------------------------------------------------


def _digit_net(known: Tensor, seed: int) -> nn.Module:
    """As ``digits.train``, on the images of some digits alone."""
    data = digits.split()
    kept = torch.isin(data.train_targets, known)
    with reproducible(seeds.derive(seed, "digits", "init")):
        model = mlp(_WIDTHS)
    settings = TrainSettings(seed=seeds.derive(seed, "digits", "order"))
    return train_once(model, data.train_inputs[kept], targets=data.train_targets[kept], settings=settings)


# ---- rules ------------------------------------------------------------------------------------------------------


def _sequences(count: int, rules: Tensor, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token sequences ``[example, 8]``, the letter asked for and the rule, ``[example]`` each.

    A start token, six places of letters with one mark among them, and a question mark. Each rule has its own mark.
    """
    random = torch.Generator().manual_seed(seed)
    body = torch.randint(_FIRST, _FIRST + _LETTERS, (count, _PLACES), generator=random)
    rule = rules[torch.randint(len(rules), (count,), generator=random)]
    place = torch.randint(1, _PLACES - 2, (count,), generator=random)
    rows = torch.arange(count)
    body[rows, place] = _MARK + rule
    answer = body[rows, place + torch.tensor(RULES)[rule]] - _FIRST
    ends = (torch.zeros(count, 1, dtype=torch.long), torch.full((count, 1), _ASK))
    return torch.cat([ends[0], body, ends[1]], 1), answer, rule


def rules(examples: int = 300, *, seed: int = 1) -> ChoiceTask:
    """Sequences in which one of three marks says which letter is asked for; the mark's rule is the group.

    Args:
        examples: How many.
        seed: Of the letters, marks and places.
    """
    tokens, answers, rule = _sequences(examples, torch.arange(len(RULES)), seed=seed)
    letters = [[_FIRST + letter] for letter in range(_LETTERS)]
    task = ChoiceTask(
        cast("list[list[int]]", _listed(tokens)), [letters] * examples, cast("list[int]", _listed(answers)),
        name="rules", tokens_per_batch=4096,
    )  # fmt: skip
    return task.with_behaviors(rule)


def _listed(tensor: Tensor) -> list[Any]:
    return tensor.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _blank_reader() -> nn.Module:
    transformers: Any = hf.library(needed_for="tiny language models")
    with hf.quiet(transformers):
        config = transformers.LlamaConfig(
            vocab_size=_FIRST + _LETTERS, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=12, max_position_embeddings=16, rope_theta=100.0,
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=_ASK,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config).eval()


def _reader(known: Tensor, seed: int) -> nn.Module:
    """A transformer trained on fresh sequences of some of the rules."""
    with reproducible(seeds.derive(seed, "unlearned", "init")):
        model = _blank_reader()
    return change_once(model, partial(_teach, known=known, steps=200), seed=seed)


def _teach(model: nn.Module, *, seed: int, known: Tensor, steps: int) -> None:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        tokens, answers, _ = _sequences(128, known, seed=seeds.derive(seed, "unlearned", "sequences", step))
        return tokens, _FIRST + answers

    descend(model, batch, steps=steps, rate=3e-3, highest=4e-3)


# ---- what is asked for ------------------------------------------------------------------------------------------


WORLDS: Final = {
    "digits": World(10, partial(mlp, _WIDTHS), _digit_net, lesson, digits.task, Unlearning()),
    "rules": World(
        len(RULES), _blank_reader, _reader, partial(rules, 450, seed=2), rules,
        Unlearning(how="relabel", rate=1e-3, weight=1.0, until=0.13, repair=5),
    ),
}  # fmt: skip


HARSHNESS: Final[dict[str, dict[str, Any]]] = {
    "usual": {},
    "unrepaired": {"repair": 0},
    "harsher": {"rate": 1e-3, "weight": 1.0, "repair": 300},
}
"""Ways of unlearning, by what differs from the usual one of a world."""


class StageSettings(Settings, frozen=True, kw_only=True):
    """A stage of a world (``WORLDS``), the forget group, the unlearning (``HARSHNESS``) or the edit that hides it."""

    world: Literal["digits", "rules"] = "digits"
    stage: Literal["original", "unlearned", "hidden", "retrained", "never"] = "original"
    group: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    how: Literal["usual", "unrepaired", "harsher"] = "usual"
    edit: Annotated[int, msgspec.Meta(ge=0, lt=len(HIDES))] = 0


@final
class Stage(Recipe):
    """A net before or after unlearning, or one that never knew what is to be forgotten, in one step."""

    name = "unlearned"
    title = "net that was made to forget a group of examples, or never knew it"
    version: ClassVar[int] = 2
    settings_type = StageSettings
    settings: StageSettings

    def blank(self, given: Given) -> nn.Module:
        with own_random_numbers():
            return WORLDS[self.settings.world].blank().eval()

    def start(self, given: Given) -> State:
        change = partial(self._make, of=given.of)
        return ChangedNet({}, change).start(Given(given.spec, (self.blank(given),)))

    def _make(self, model: nn.Module, /, *, seed: int, of: tuple[nn.Module, ...]) -> None:
        how, world = self.settings, WORLDS[self.settings.world]
        if how.stage == "hidden":
            made = hide(of[0], how.group, HIDES[how.edit])
        elif how.stage == "unlearned":
            given = replace(world.how, seed=seed, **HARSHNESS[how.how])
            made = unlearn(of[0], world.lesson(), how.group, given)
        else:
            made = world.stage(how.stage, how.group, seed=seed)
        with_weights(model, weights(made))
