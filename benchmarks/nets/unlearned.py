"""A net that was made to forget a group of examples, beside nets that never knew it.

Classifiers of handwritten digits with one digit forgotten, and two-layer transformers with one of three rules
forgotten. Equal arguments give equal bits.
"""

import copy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn

from benchmarks.nets.tiny_lm import descend
from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.models.mlp import mlp
from wheeltap.recipes.at_hand import change_once, train_once
from wheeltap.recipes.train import TrainSettings, reproducible
from wheeltap.sources import digits, hf

_LONGEST: Final = 2000

RULES: Final = (1, -1, 2)
"""Which letter each mark asks for, counted from the mark: the next one, the one before, the next but one."""

_LETTERS: Final = 8
_PLACES: Final = 6
_ASK: Final = 1
_MARK: Final = 2
_FIRST: Final = _MARK + len(RULES)


@dataclass(frozen=True)
class Strength:
    """How far unlearning went; shares are right answers on the task.

    Attributes:
        distance: ||unlearned - original|| / ||original||, of all weights.
        forgotten: Share right in the forget group, afterwards.
        retained: Share right in the other groups, afterwards.
        expected: Share right in the other groups, by the net trained without the group.
        steps: Of unlearning, those that repair the rest included.
    """

    distance: float
    forgotten: float
    retained: float
    expected: float
    steps: int


@dataclass(frozen=True)
class Unlearned:
    """Four nets of one architecture.

    Attributes:
        original: Trained on every group.
        unlearned: The original after unlearning.
        retrained: Trained without the group, from the original's initial weights.
        never: The same from other initial weights, with another order of training.
        task: Examples of every group.
        group: The forget group.
        strength: Of the unlearning.
    """

    original: Subject
    unlearned: Subject
    retrained: Subject
    never: Subject
    task: BaseTask
    group: int
    strength: Strength


@dataclass(frozen=True, kw_only=True)
class Unlearning:
    """Down the loss on what is kept and, on what is to go, up the loss or down that of other answers.

    Attributes:
        how: ``ascend`` (gradient difference) or ``relabel`` (answers drawn at random, anew at each step).
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


def unlearn(model: nn.Module, task: BaseTask, group: int, how: Unlearning) -> tuple[nn.Module, int]:
    """A copy that forgot a group of the task's examples, and the steps it took.

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
    gone = (task.groups == group).nonzero()[:, 0]
    kept = (task.groups != group).nonzero()[:, 0]
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
                raise _remembered(how, _share(changed, lost))
    for parameter in changed.parameters():
        parameter.grad = None
    return changed.eval(), steps


def _remembered(how: Unlearning, share: float) -> ModelError:
    return ModelError(
        "The net did not forget the group.",
        where="benchmarks.nets.unlearned",
        expected=f"at most {how.until:.0%} right after {_LONGEST} steps",
        got=f"{share:.0%} right",
        do="Take a larger weight or rate.",
    )


def _share(model: nn.Module, task: BaseTask) -> float:
    return float((task.scores(model).argmax(-1) == task.targets).float().mean())


def _together(nets: dict[str, nn.Module], task: BaseTask, group: int, steps: int) -> Unlearned:
    inside, outside = (task.part(held.nonzero()[:, 0]) for held in (task.groups == group, task.groups != group))
    strength = Strength(
        distance=_distance(nets["unlearned"], nets["original"]),
        forgotten=_share(nets["unlearned"], inside),
        retained=_share(nets["unlearned"], outside),
        expected=_share(nets["retrained"], outside),
        steps=steps,
    )
    made = {name: Subject(model, name=name) for name, model in nets.items()}
    return Unlearned(**made, task=task, group=group, strength=strength)


def _distance(one: nn.Module, two: nn.Module) -> float:
    pairs = list(zip(one.parameters(), two.parameters(), strict=True))
    moved = sum(float((a - b).detach().square().sum()) for a, b in pairs)
    return (moved / sum(float(b.detach().square().sum()) for _, b in pairs)) ** 0.5


# ---- digits -----------------------------------------------------------------------------------------------------


@cache
def unlearned_digits(group: int = 9, *, seed: int = 0, how: Unlearning | None = None) -> Unlearned:
    """Digit classifiers of 64-128-128-10 units, one digit forgotten; 8 seconds on one core.

    Args:
        group: The digit, 0 to 9.
        seed: Of initial weights, orders of training and unlearning.
        how: Unlearning, where not the default.

    Raises:
        ModelError: If the digit is not forgotten.
    """
    data = digits.split()
    trained = Task(data.train_inputs, data.train_targets, name="digits for training")
    original = digits.train(seed)
    changed, steps = unlearn(original, trained, group, how or Unlearning(seed=seed))
    nets: dict[str, nn.Module] = {
        "original": original,
        "unlearned": changed,
        "retrained": _without_digit(group, seed=seed),
        "never": _without_digit(group, seed=seeds.derive(seed, "unlearned", "never")),
    }
    return _together(nets, digits.task(), group, steps)


def _without_digit(group: int, *, seed: int) -> nn.Module:
    """As ``digits.train``, without the images of one digit."""
    data = digits.split()
    kept = data.train_targets != group
    with reproducible(seeds.derive(seed, "digits", "init")):
        model = mlp((64, 128, 128, 10))
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


def rules(examples: int, *, seed: int) -> ChoiceTask:
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
    return task.with_groups(rule)


def _listed(tensor: Tensor) -> list[Any]:
    return tensor.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


@cache
def unlearned_rules(group: int = 1, *, seed: int = 0, how: Unlearning | None = None) -> Unlearned:
    """Two-layer transformers that read a letter by three rules, one of them forgotten; 15 seconds on one core.

    Args:
        group: The rule, 0 to 2.
        seed: Of initial weights, training and unlearning.
        how: Unlearning, where not the default of rules: answers drawn at random, until few are right.

    Raises:
        ModelError: If the rule is not forgotten.
        MissingExtra: If transformers is not installed.
    """
    every = torch.arange(len(RULES))
    original = _reader(every, seed=seed)
    default = Unlearning(how="relabel", rate=1e-3, weight=1.0, until=0.13, repair=5, seed=seed)
    changed, steps = unlearn(original, rules(450, seed=2), group, how or default)
    nets = {
        "original": original,
        "unlearned": changed,
        "retrained": _reader(every[every != group], seed=seed),
        "never": _reader(every[every != group], seed=seeds.derive(seed, "unlearned", "never")),
    }
    return _together(nets, rules(300, seed=1), group, steps)


def _reader(known: Tensor, *, seed: int, steps: int = 200) -> nn.Module:
    """A transformer trained on fresh sequences of some of the rules."""
    transformers: Any = hf.library(needed_for="tiny language models")
    with reproducible(seeds.derive(seed, "unlearned", "init")), hf.quiet(transformers):
        config = transformers.LlamaConfig(
            vocab_size=_FIRST + _LETTERS, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=12, max_position_embeddings=16, rope_theta=100.0,
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=_ASK,
        )  # fmt: skip
        model: nn.Module = transformers.LlamaForCausalLM(config).eval()
    return change_once(model, partial(_teach, known=known, steps=steps), seed=seed)


def _teach(model: nn.Module, *, seed: int, known: Tensor, steps: int) -> None:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        tokens, answers, _ = _sequences(128, known, seed=seeds.derive(seed, "unlearned", "sequences", step))
        return tokens, _FIRST + answers

    descend(model, batch, steps=steps, rate=3e-3, highest=4e-3)
