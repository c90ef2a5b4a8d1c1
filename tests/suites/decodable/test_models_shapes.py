"""Images whose factors can be told from their pixels."""

import pytest
from sklearn.neighbors import KNeighborsClassifier

from wheeltap.core.typed import to_array
from wheeltap.suites.decodable.nets.shapes import SHAPES


@pytest.mark.parametrize("name", SHAPES.factors)
def test_every_factor_is_in_the_pixels(name: str) -> None:
    """Its value can be told from nearest images far above chance, whatever the others are."""
    inputs, options = SHAPES.lesson(2000, seed=1)
    labels = SHAPES.combinations()[options.numpy()][:, list(SHAPES.factors).index(name)]
    known = KNeighborsClassifier(5).fit(to_array(inputs[:1500]), labels[:1500])
    assert known.score(to_array(inputs[1500:]), labels[1500:]) > 1.0 / SHAPES.factors[name] + 0.2
