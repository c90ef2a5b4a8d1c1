"""Images whose factors are known: independent, all values taught, held-out pairs never."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from wheeltap.core.typed import to_array
from wheeltap.models import shapes


def test_a_lesson_has_every_value_and_no_held_out_pair() -> None:
    inputs, options = shapes.lesson(3000, seed=5)
    labels = shapes.combinations()[options.numpy()]
    assert inputs.shape == (3000, 144) and bool(torch.isfinite(inputs).all())
    for at, count in enumerate(shapes.FACTORS.values()):
        assert set(labels[:, at]) == set(range(count))
    names = list(shapes.FACTORS)
    pairs = {(a, i, b, j): (labels[:, names.index(a)] == i) & (labels[:, names.index(b)] == j)
             for a, i, b, j in shapes.HELD}  # fmt: skip
    assert not any(seen.any() for seen in pairs.values())
    # Every other combination is taught.
    assert len(set(options.numpy())) == int((~shapes.held_out(shapes.combinations())).sum())


def test_the_task_is_half_familiar_and_half_shifted_and_always_the_same() -> None:
    task, again = shapes.task(), shapes.task()
    assert task.digest == again.digest
    labels = np.stack([task.annotations.factors[name].numpy() for name in shapes.FACTORS], 1)
    assert np.array_equal(shapes.held_out(labels), task.groups.numpy() == shapes.SHIFTED)
    assert np.bincount(task.groups.numpy()).tolist() == [shapes.EXAMPLES, shapes.EXAMPLES]
    assert np.array_equal(shapes.combinations()[task.targets.numpy()], labels)


def test_options_and_combinations_are_inverse() -> None:
    every = shapes.combinations()
    assert to_array(shapes.options(every)).tolist() == list(range(len(every)))
    assert len(every) == np.prod(list(shapes.FACTORS.values()))


def test_joint_scores_are_sums_of_the_values_scores() -> None:
    parts = torch.randn(3, sum(shapes.FACTORS.values()), generator=torch.Generator().manual_seed(0))
    joint, starts = shapes.Joint()(parts), np.cumsum([0, *list(shapes.FACTORS.values())[:-1]])
    for option, values in enumerate(shapes.combinations()):
        wanted = sum(parts[:, int(start + value)] for start, value in zip(starts, values, strict=True))
        assert torch.allclose(joint[:, option], torch.as_tensor(wanted), atol=1e-6)


@pytest.mark.parametrize("name", shapes.FACTORS)
def test_every_factor_is_in_the_pixels(name: str) -> None:
    """Its value can be told from nearest images far above chance, whatever the others are."""
    inputs, options = shapes.lesson(2000, seed=1)
    labels = shapes.combinations()[options.numpy()][:, list(shapes.FACTORS).index(name)]
    known = KNeighborsClassifier(5).fit(to_array(inputs[:1500]), labels[:1500])
    assert known.score(to_array(inputs[1500:]), labels[1500:]) > 1.0 / shapes.FACTORS[name] + 0.2


def test_factors_are_independent_but_for_the_held_out_pairs() -> None:
    _, options = shapes.lesson(20_000, seed=2)
    labels = shapes.combinations()[options.numpy()]
    shape, slope = labels[:, 0], labels[:, 3]
    shares = [float((slope[shape == value] == 0).mean()) for value in range(shapes.FACTORS["shape"])]
    assert shares == pytest.approx([0.5] * len(shares), abs=0.03)
