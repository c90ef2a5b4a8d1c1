"""Examples whose factors are known: independent, all values taught, held-out pairs never; and nets for them."""

from typing import Any

import numpy as np
import pytest
import torch

from wheeltap.core.seeds import generator
from wheeltap.core.typed import to_array
from wheeltap.suites.decodable.nets import POINTS, SHAPES, SHIFTED, Joint, World, combinations

WORLDS = (SHAPES, POINTS)


def labels_of(world: World, options: Any) -> Any:
    return combinations(world.factors)[options.numpy()]


def test_lessons_and_tasks_have_every_value_and_held_out_pairs_in_tasks_alone() -> None:
    for world in WORLDS:
        inputs, options = world.lesson(4000, seed=5)
        labels, names, counts = labels_of(world, options), list(world.factors), list(world.factors.values())
        every = combinations(world.factors)
        assert len(inputs) == 4000 and bool(torch.isfinite(inputs).all())
        assert all(set(labels[:, at]) == set(range(count)) for at, count in enumerate(counts))
        for one, first, two, second in world.held:
            assert not ((labels[:, names.index(one)] == first) & (labels[:, names.index(two)] == second)).any()
        # Every other combination is taught.
        assert len(set(options.numpy())) == int((~world.held_out(every)).sum())
        assert to_array(world.options(every)).tolist() == list(range(len(every))) == list(range(np.prod(counts)))
        task = world.task()
        assert task.digest == world.task().digest
        labels = np.stack([task.annotations.factors[name].numpy() for name in names], 1)
        assert np.array_equal(world.held_out(labels), task.behaviors.numpy() == SHIFTED)
        assert np.bincount(task.behaviors.numpy()).tolist() == [world.examples, world.examples]
        assert np.array_equal(labels_of(world, task.targets), labels)


def test_joint_scores_are_sums_of_the_values_scores() -> None:
    for world in WORLDS:
        parts = torch.randn(3, sum(world.factors.values()), generator=torch.Generator().manual_seed(0))
        joint, starts = Joint(world.factors)(parts), np.cumsum([0, *list(world.factors.values())[:-1]])
        for option, values in enumerate(combinations(world.factors)):
            wanted = sum(parts[:, int(start + value)] for start, value in zip(starts, values, strict=True))
            assert torch.allclose(joint[:, option], torch.as_tensor(wanted), atol=1e-6)


def test_every_point_is_where_its_values_say() -> None:
    """Recomputed in another way, from the coordinates of points with drawn values."""
    labels = combinations(POINTS.factors)[np.random.default_rng(0).integers(36, size=500)]
    x, y, distance = to_array(POINTS.drawn(labels, generator(0, "points"))).T.astype(np.float64)
    assert distance == pytest.approx(np.sqrt(x * x + y * y), abs=1e-6)
    assert np.searchsorted([-1 / 3, 1 / 3], x).tolist() == labels[:, 0].tolist()
    assert np.searchsorted([-1 / 3, 1 / 3], y).tolist() == labels[:, 1].tolist()
    assert ((3.0 * (x + y) / 2.0) % 1.0 < 0.5).tolist() == (labels[:, 2] == 1).tolist()
    assert ((2.5 * distance) % 1.0 < 0.5).tolist() == (labels[:, 3] == 1).tolist()
