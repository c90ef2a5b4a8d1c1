"""What scores add to others in predicting a number: closed form, and seldom anything where there is nothing."""

import numpy as np
import pytest

from wheeltap.core.errors import DataError
from wheeltap.stats.added_variance import explained, held_out
from wheeltap.stats.effect import mean_effect


def test_predictions_are_those_of_ridge_regression_on_the_other_items() -> None:
    rng = np.random.default_rng(0)
    x, y, groups = rng.normal(size=(60, 3)), rng.normal(size=60), np.arange(60) % 3
    found, seen = held_out(x, y, groups=groups, ridge=2.0), groups != 1
    a = (x - x[seen].mean(0)) / x[seen].std(0)
    b = (y[seen] - y[seen].mean()) / y[seen].std()
    whole = np.vstack([a[seen], np.sqrt(2.0) * np.eye(3)])
    slope = np.linalg.lstsq(whole, np.append(b, np.zeros(3)), rcond=None)[0]
    assert found[~seen] == pytest.approx(y[seen].mean() + y[seen].std() * (a[~seen] @ slope))


def test_what_is_added_is_found_and_what_is_not_is_not() -> None:
    rng, found = np.random.default_rng(1), np.zeros((2, 200))
    for repeat in range(200):
        cheap, score = rng.normal(size=(150, 3)), rng.normal(size=(150, 2))
        noise = rng.normal(size=150)
        for row, size in enumerate((0.0, 0.5)):
            wanted = cheap[:, 0] + size * score[:, 0] + noise
            made = explained(cheap, score, wanted, groups=np.arange(150) % 10)
            assert made.with_score - made.without == pytest.approx(made.cells.mean())
            test = mean_effect(made.cells[None, :], margin=0.02, unit="1")
            found[row, repeat] = (test.p or 1.0) <= 0.05 and (test.value or 0.0) > 0.0
    assert found[0].mean() <= 0.05 and found[1].mean() >= 0.5


def test_what_is_the_same_everywhere_cannot_be_explained() -> None:
    with pytest.raises(DataError):
        explained(np.ones((4, 1)), np.ones((4, 1)), np.ones(4), groups=np.arange(4))
