"""The tables of the three claims: fair halves, equal cost, and scores that a plain loop gives too."""

import copy

import numpy as np
import pytest
import torch

from benchmarks.detection import tables
from benchmarks.detection.added_value import Features, auc
from benchmarks.detection.tables import Effort, table, tasks
from benchmarks.nets import digit_defects as defects
from wheeltap.core import seeds
from wheeltap.core.errors import UnknownName
from wheeltap.perturb.base import Draw


@pytest.fixture(scope="module")
def imposter() -> Features:
    return table("imposter", seeds=(0, 1), quick=True)


@pytest.fixture(scope="module")
def memorised() -> Features:
    return table("memorised", seeds=(0,), quick=True)


@pytest.fixture(scope="module")
def lock() -> Features:
    """With every draw: with two, whether an offset reaches a password is luck."""
    return table("lock", seeds=(0,))


def within(features: Features, score: str) -> list[float]:
    found = features.scores[score]
    return [auc(found[features.groups == g], features.labels[features.groups == g]) for g in np.unique(features.groups)]


def test_an_unknown_task_is_an_error() -> None:
    assert tasks() == ("memorised", "imposter", "lock")
    with pytest.raises(UnknownName, match="memorized"):
        table("memorized")


@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("draws", [1, 6, 13])
def test_input_noise_gets_no_fewer_passes_than_weight_noise_and_hardly_more(kinds: int, draws: int) -> None:
    effort = Effort(doses=5, draws=draws)
    spent = kinds * effort.doses * effort.input_draws(kinds)
    assert effort.passes <= spent < effort.passes + kinds * effort.doses


def test_twins_are_equal_in_every_output_and_under_every_input_noise(imposter: Features) -> None:
    assert imposter.labels.tolist() == [1.0, 0.0] * 8
    assert imposter.groups.tolist() == [0] * 8 + [1] * 8
    for name in imposter.scores:
        if not name.startswith("weight"):
            assert within(imposter, name) == [0.5, 0.5]


def test_relative_noise_tells_imposters_from_sound_twins(imposter: Features) -> None:
    names = [name for name in imposter.scores if name.startswith("weight: margin lost under relative")]
    assert len(names) == 1 and min(within(imposter, names[0])) > 0.9


def test_half_of_the_items_are_reported_with_half_of_the_memorised_ones(memorised: Features) -> None:
    assert len(memorised.labels) == 599 and int(memorised.labels.sum()) == 60
    assert memorised.input.forwards >= memorised.weight.forwards == 9
    assert min(within(memorised, f"output: {name}")[0] for name in ("margin", "entropy", "loss")) > 0.85


def test_flips_under_weight_noise_are_those_of_a_plain_loop(memorised: Features) -> None:
    made = defects.memorised(tables.MEMORISED_SHARE, seed=0)
    name = next(n for n in memorised.weight.scores if n.startswith("flips under relative"))
    dose, root = float(name.rpartition(" ")[2]), seeds.derive(0, "detection", "memorised")
    wrong = torch.zeros(len(made.memorised))
    for number in range(tables.QUICK.draws):
        noisy, draw = copy.deepcopy(made.subject.model), Draw(root, number)
        with torch.no_grad():
            for path, parameter in noisy.named_parameters():
                parameter.mul_(1 + dose * draw.normal(path, tuple(parameter.shape), like=parameter))
            wrong += (noisy(made.task.inputs).argmax(-1) != made.task.targets).float()
    # The other half: every other item of those with a right label, then of those with a wrong one.
    reported = made.memorised.long().argsort(stable=True)[1::2].sort().values
    assert np.allclose(memorised.weight.scores[name], (wrong / tables.QUICK.draws)[reported].numpy())
    assert torch.equal(made.memorised[reported].double(), torch.as_tensor(memorised.labels))


def test_the_same_seed_gives_the_same_table(memorised: Features) -> None:
    again = table("memorised", seeds=(0,), quick=True)
    assert list(again.scores) == list(memorised.scores)
    assert all(np.array_equal(again.scores[name], memorised.scores[name]) for name in again.scores)


def test_locked_nets_stand_beside_two_honest_ones_each(lock: Features) -> None:
    assert lock.labels.tolist() == [1.0, 0.0, 0.0] * tables.LOCKS
    assert list(lock.input.scores) == ["gain under offset", "gain under noise"]
    assert list(lock.weight.scores) == ["gain under relative", "gain under function"]
    assert lock.input.forwards >= lock.weight.forwards
    gains = np.stack([*lock.input.scores.values(), *lock.weight.scores.values()])
    assert (np.abs(gains) <= 1).all()
    # An offset reaches the password: it raises what a locked net shows.
    offset = np.asarray(lock.input.scores["gain under offset"])
    assert offset[lock.labels == 1].mean() > offset[lock.labels == 0].mean()
