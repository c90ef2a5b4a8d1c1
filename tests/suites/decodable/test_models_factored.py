"""Examples whose factors are known: independent, all values taught, held-out pairs never."""

from typing import Any

import numpy as np
import pytest
import torch

from wheeltap.core.typed import to_array
from wheeltap.suites.decodable.nets.factored import SHIFTED, Joint, World
from wheeltap.suites.decodable.nets.sentences import SENTENCES
from wheeltap.suites.decodable.nets.shapes import SHAPES

WORLDS = pytest.mark.parametrize("world", (SHAPES, SENTENCES), ids=lambda world: world.name)


def labels_of(world: World, options: Any) -> Any:
    return world.combinations()[options.numpy()]


@WORLDS
def test_a_lesson_has_every_value_and_no_held_out_pair(world: World) -> None:
    inputs, options = world.lesson(3000, seed=5)
    labels, names = labels_of(world, options), list(world.factors)
    assert len(inputs) == 3000 and bool(torch.isfinite(inputs).all())
    for at, count in enumerate(world.factors.values()):
        assert set(labels[:, at]) == set(range(count))
    for one, first, two, second in world.held:
        assert not ((labels[:, names.index(one)] == first) & (labels[:, names.index(two)] == second)).any()
    # Every other combination is taught.
    assert len(set(options.numpy())) == int((~world.held_out(world.combinations())).sum())


@WORLDS
def test_the_task_is_half_familiar_and_half_shifted_and_always_the_same(world: World) -> None:
    task, again = world.task(), world.task()
    assert task.digest == again.digest
    labels = np.stack([task.annotations.factors[name].numpy() for name in world.factors], 1)
    assert np.array_equal(world.held_out(labels), task.behaviors.numpy() == SHIFTED)
    assert np.bincount(task.behaviors.numpy()).tolist() == [world.examples, world.examples]
    assert np.array_equal(labels_of(world, task.targets), labels)


@WORLDS
def test_options_and_combinations_are_inverse(world: World) -> None:
    every = world.combinations()
    assert to_array(world.options(every)).tolist() == list(range(len(every)))
    assert len(every) == np.prod(list(world.factors.values()))


@WORLDS
def test_joint_scores_are_sums_of_the_values_scores(world: World) -> None:
    parts = torch.randn(3, sum(world.factors.values()), generator=torch.Generator().manual_seed(0))
    joint, starts = Joint(world.factors)(parts), np.cumsum([0, *list(world.factors.values())[:-1]])
    for option, values in enumerate(world.combinations()):
        wanted = sum(parts[:, int(start + value)] for start, value in zip(starts, values, strict=True))
        assert torch.allclose(joint[:, option], torch.as_tensor(wanted), atol=1e-6)


@WORLDS
def test_factors_are_independent_but_for_the_held_out_pairs(world: World) -> None:
    """The last factor is in no pair: it is as frequent beside every value of the first."""
    _, options = world.lesson(6000, seed=2)
    labels, count = labels_of(world, options), list(world.factors.values())
    shares = [float((labels[labels[:, 0] == value, -1] == 0).mean()) for value in range(count[0])]
    assert shares == pytest.approx([1.0 / count[-1]] * count[0], abs=0.05)
