"""Measures against naive numpy, one example at a time."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from wheeltap.core import measure
from wheeltap.core.measure import STANDARD, Measure
from wheeltap.testing.planted import numbers

Row = NDArray[np.float64]


def softmax(row: Row) -> Row:
    powers = np.array([math.exp(x - max(row)) for x in row])
    return powers / powers.sum()


NAIVE: dict[str, Any] = {
    "accuracy": lambda row, t, clean: float(int(np.argmax(row)) == t),
    "nll": lambda row, t, clean: -math.log(softmax(row)[t]),
    "margin": lambda row, t, clean: row[t] - max(x for k, x in enumerate(row) if k != t),
    "agreement": lambda row, t, clean: float(int(np.argmax(row)) == int(np.argmax(clean))),
    "kl": lambda row, t, clean: sum(
        p * (math.log(p) - math.log(q)) for p, q in zip(softmax(clean), softmax(row), strict=True)
    ),
    "squared_error": lambda row, t, clean: sum((a - b) ** 2 for a, b in zip(row, t, strict=True)),
}


@st.composite
def scored(draw: Any) -> tuple[Row, NDArray[np.int64], Row]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(2, 6)))
    elements = st.floats(-20, 20, width=32).map(lambda x: round(x, 3))
    rows, clean = (draw(hnp.arrays(np.float64, shape, elements=elements)) for _ in range(2))
    return rows, draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1))), clean


@pytest.mark.parametrize("kind", STANDARD, ids=lambda m: m.name)
@settings(max_examples=25)
@given(case=scored())
def test_a_measure_is_what_numpy_says(kind: Measure, case: tuple[Row, NDArray[np.int64], Row]) -> None:
    rows, targets, clean = case
    found = kind(torch.tensor(rows), torch.tensor(targets), torch.tensor(clean))
    expected = [NAIVE[kind.name](*one) for one in zip(rows, targets, clean, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert found.shape == (len(rows),)


def test_a_divergence_is_never_negative_ignores_shifts_and_is_none_of_the_clean_scores() -> None:
    scores, targets = numbers(50, 4, seed=0), torch.arange(50) % 4
    assert bool((measure.agreement(scores, targets, scores) == 1).all())
    assert bool((measure.kl(scores, targets, scores) == 0).all())
    scores, clean = numbers(500, 3, seed=1) * 1e-5, numbers(500, 3, seed=2) * 1e-5
    targets = torch.zeros(500, dtype=torch.long)
    assert bool((measure.kl(scores.float(), targets, clean.float()) >= 0).all())
    one, two = numbers(5, 3, seed=3), numbers(5, 3, seed=4)
    shifted = measure.kl(one + 100, targets[:5], two - 100)
    torch.testing.assert_close(shifted, measure.kl(one, targets[:5], two))


def test_chance_is_what_no_information_gets() -> None:
    for options in (2, 5):
        scores, targets = numbers(40, options, seed=5), torch.arange(40) % options
        wanted = numbers(40, options, seed=6)
        entropy = float(torch.distributions.Categorical(logits=scores).entropy().mean())
        for kind, chance in (
            (measure.accuracy, 1 / options), (measure.agreement, 1 / options), (measure.nll, math.log(options)),
            (measure.margin, 0), (measure.kl, math.log(options) - entropy),
        ):  # fmt: skip
            assert kind.chance(scores, targets) == pytest.approx(chance, rel=1e-4), kind
        spread = ((wanted - wanted.mean(0)) ** 2).sum(1).mean()
        assert measure.squared_error.chance(scores, wanted) == pytest.approx(float(spread))
