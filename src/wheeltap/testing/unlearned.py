"""A net that was made to forget a group of examples, beside nets that never knew it; equal arguments, equal bits."""

import copy
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor, nn

from wheeltap import seeds
from wheeltap.errors import ModelError
from wheeltap.models.mlp import mlp
from wheeltap.probe import BaseProbe, Probe
from wheeltap.recipes.train import TrainSettings, reproducible, train_classifier
from wheeltap.sources import digits
from wheeltap.subject import Subject

_LONGEST: Final = 2000


@dataclass(frozen=True)
class Strength:
    """How far unlearning went; shares are right answers on the probe.

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
        probe: Examples of every group.
        group: The forget group.
        strength: Of the unlearning.
    """

    original: Subject
    unlearned: Subject
    retrained: Subject
    never: Subject
    probe: BaseProbe
    group: int
    strength: Strength


@dataclass(frozen=True, kw_only=True)
class Unlearning:
    """Gradient difference: down the loss on what is kept, up the loss on what is to go.

    Attributes:
        rate: Adam's step size.
        weight: Of the forget group's loss.
        batch: Examples per step, of either kind.
        until: Steps are taken until at most this share of the group is right where it was trained.
        repair: Steps after that on what is kept alone.
        seed: Of the batches.

    Source: Liu, Liu & Stone (2022, arXiv 2203.12817), sec. 4.1.
    """

    rate: float = 1e-4
    weight: float = 0.3
    batch: int = 64
    until: float = 0.02
    repair: int = 100
    seed: int = 0


def unlearn(model: nn.Module, probe: BaseProbe, group: int, how: Unlearning) -> tuple[nn.Module, int]:
    """A copy that forgot a group of the probe's examples, and the steps it took.

    Args:
        model: In eval mode; left as it is.
        probe: The examples it was trained on.
        group: The forget group.
        how: Rate, weights and where to stop.

    Raises:
        ModelError: If the group is not forgotten after 2,000 steps.
    """
    changed = copy.deepcopy(model)
    own = torch.Generator().manual_seed(seeds.derive(how.seed, "unlearned", "batches"))
    gone = (probe.groups == group).nonzero()[:, 0]
    kept = (probe.groups != group).nonzero()[:, 0]

    def some(rows: Tensor) -> Tensor:
        return rows[torch.randint(len(rows), (min(how.batch, len(rows)),), generator=own)]

    with reproducible(seeds.derive(how.seed, "unlearned", "steps")):
        optimizer = torch.optim.Adam(changed.parameters(), lr=how.rate)
        steps, repaired = 0, 0
        while True:
            forgotten = repaired > 0 or _share(changed, probe, gone) <= how.until
            if forgotten and repaired == how.repair:
                break
            repaired += forgotten
            loss = probe.loss(changed, some(kept))
            if not forgotten:
                loss = loss - how.weight * probe.loss(changed, some(gone))
            optimizer.zero_grad()
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            optimizer.step()  # pyright: ignore[reportUnknownMemberType]
            steps += 1
            if steps > _LONGEST:
                raise ModelError(
                    "The net did not forget the group.",
                    where="wheeltap.testing.unlearned",
                    expected=f"at most {how.until:.0%} right after {_LONGEST} steps",
                    got=f"{_share(changed, probe, gone):.0%} right",
                    do="Take a larger weight or rate.",
                )
    for parameter in changed.parameters():
        parameter.grad = None
    return changed.eval(), steps


def _share(model: nn.Module, probe: BaseProbe, rows: Tensor) -> float:
    right = probe.scores(model).argmax(-1) == probe.targets
    return float(right[rows].float().mean())


def _together(nets: dict[str, nn.Module], probe: BaseProbe, group: int, steps: int) -> Unlearned:
    inside, outside = (held.nonzero()[:, 0] for held in (probe.groups == group, probe.groups != group))
    strength = Strength(
        distance=_distance(nets["unlearned"], nets["original"]),
        forgotten=_share(nets["unlearned"], probe, inside),
        retained=_share(nets["unlearned"], probe, outside),
        expected=_share(nets["retrained"], probe, outside),
        steps=steps,
    )
    made = {name: Subject(model, name=name) for name, model in nets.items()}
    return Unlearned(**made, probe=probe, group=group, strength=strength)


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
    trained = Probe(data.train_inputs, data.train_targets, name="digits for training")
    original = digits.train(seed)
    changed, steps = unlearn(original, trained, group, how or Unlearning(seed=seed))
    nets: dict[str, nn.Module] = {
        "original": original,
        "unlearned": changed,
        "retrained": _without_digit(group, seed=seed),
        "never": _without_digit(group, seed=seeds.derive(seed, "unlearned", "never")),
    }
    return _together(nets, digits.probe(), group, steps)


def _without_digit(group: int, *, seed: int) -> nn.Module:
    """As ``digits.train``, without the images of one digit."""
    data = digits.split()
    kept = data.train_targets != group
    with reproducible(seeds.derive(seed, "digits", "init")):
        model = mlp(digits.WIDTHS)
    settings = TrainSettings(seed=seeds.derive(seed, "digits", "order"), epochs=digits.EPOCHS)
    return train_classifier(model, data.train_inputs[kept], targets=data.train_targets[kept], settings=settings)
