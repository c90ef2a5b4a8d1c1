"""Points whose factors are where they are, and which parts of the picture are held out."""

import numpy as np
import pytest

from wheeltap.core.seeds import generator
from wheeltap.core.typed import to_array
from wheeltap.suites.decodable.nets.points import POINTS, drawn


def test_every_point_is_where_its_values_say() -> None:
    """Recomputed in another way, from the coordinates of points with drawn values."""
    labels = POINTS.combinations()[np.random.default_rng(0).integers(36, size=500)]
    x, y, distance = to_array(drawn(labels, generator(0, "points"))).T.astype(np.float64)
    assert distance == pytest.approx(np.sqrt(x * x + y * y), abs=1e-6)
    assert np.searchsorted([-1 / 3, 1 / 3], x).tolist() == labels[:, 0].tolist()
    assert np.searchsorted([-1 / 3, 1 / 3], y).tolist() == labels[:, 1].tolist()
    assert ((3.0 * (x + y) / 2.0) % 1.0 < 0.5).tolist() == (labels[:, 2] == 1).tolist()
    assert ((2.5 * distance) % 1.0 < 0.5).tolist() == (labels[:, 3] == 1).tolist()


def test_a_lesson_lacks_the_blocks_that_are_held_out() -> None:
    """No point of the left, lower block; no point that is on a stripe and on a ring. All else is there."""
    _, options = POINTS.lesson(4000, seed=1)
    seen = {tuple(row) for row in POINTS.combinations()[options.numpy()].tolist()}
    every = {tuple(row) for row in POINTS.combinations().tolist()}
    assert every - seen == {row for row in every if row[:2] == (0, 0) or row[2:] == (1, 1)}
