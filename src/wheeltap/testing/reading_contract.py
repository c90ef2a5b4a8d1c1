"""The contract of readings."""

from typing import Any, ClassVar

import numpy as np
import pytest

from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.core.fingerprint import identify
from wheeltap.engine.readings import Reading, Readings
from wheeltap.testing import planted
from wheeltap.testing.planted import PlantedCase


class ReadingContract:
    """Subclass it as ``Test...`` and set the attributes.

    Attributes:
        reading: The class under test.
        settings: With which it is made.
    """

    reading: ClassVar[type[Reading]]
    settings: ClassVar[dict[str, Any]] = {}

    def case(self) -> PlantedCase:
        """A model and task on which the reading is defined: a small trained net on clusters."""
        return planted.clusters()

    def made(self) -> Reading:
        """The reading under test."""
        return self.reading(self.settings)

    def _read(self, case: PlantedCase, *, seed: int = 0) -> Readings:
        return self.made().read(case.subject, case.task, root=7, seed=seed)

    def test_says_what_it_is(self) -> None:
        """A name, a title, and words for every array."""
        spec = self.reading.spec
        assert spec.name and spec.title and spec.version >= 1 and spec.arrays
        assert all(array.says for array in spec.arrays.values())

    def test_what_it_gives_fits_its_spec(self) -> None:
        """The arrays it declares, of the axes and kinds it declares, all of them finite; and what it cost."""
        case = self.case()
        read = self._read(case)
        typed = self.reading.spec.typed(read.values, examples=len(case.task.targets))
        assert all(np.isfinite(array).all() for array in typed.values())
        assert read.forwards >= 0.0

    def test_it_is_deterministic(self) -> None:
        """The same root and seed give the same numbers, whatever was read in between."""
        case = self.case()
        first = self._read(case)
        self._read(case, seed=1)
        again = self._read(case)
        assert first.values.keys() == again.values.keys()
        assert all(np.array_equal(first.values[name], again.values[name]) for name in first.values)

    def test_it_leaves_the_model_as_it_was(self) -> None:
        """Every weight, hook, attribute and mode."""
        case = self.case()
        before = identify(case.subject.model)
        self._read(case)
        assert not before.differing(identify(case.subject.model))

    def test_unknown_settings_are_refused(self) -> None:
        """A setting that it does not have: ``UsageError``."""
        with pytest.raises(UsageError):
            self.reading({**self.settings, "no such setting": 1})

    def test_where_it_is_not_defined_it_says_so(self) -> None:
        """On a task of wanted outputs it gives what it declares, or a reason of ours."""
        case = planted.linear_regression()
        try:
            read = self._read(case)
        except WheeltapError as error:
            assert error.what
        else:
            self.reading.spec.typed(read.values, examples=len(case.task.targets))
