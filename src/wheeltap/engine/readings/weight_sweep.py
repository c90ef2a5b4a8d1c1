"""What every single weight of one layer does."""

from typing import Any, Final, Literal, final

import numpy as np

from wheeltap.core import measure
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.fast.rank_one import WeightSweep
from wheeltap.engine.readings.base import Reading, Readings, ReadingSettings

_FACTORS: Final = {"zero": -1.0, "negate": -2.0}
"""What is added, in units of the weight."""


class WeightSweepSettings(ReadingSettings, frozen=True, kw_only=True):
    """Which layer, and what becomes of its weights.

    Attributes:
        layer: Module path.
        change: Whether each weight is set to zero, or to minus itself.
    """

    layer: str
    change: Literal["zero", "negate"] = "zero"


@final
class WeightSweepReading(Reading):
    """Changes one weight of a layer after another and compares the loss with the clean one.

    Values: ``rise`` ``[unit, fan_in]``, mean rise of the negative log-likelihood (squared error, for regression), and
    ``error`` ``[unit, fan_in]``, its standard error over the examples; ``checked``, how many weights the slow path
    confirmed.
    """

    name = "weight-sweep"
    version = 2  # since 2 the path is told beside the values, not among them
    title = "Effect of every single weight of a layer"
    settings_type = WeightSweepSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """Nothing is drawn but the weights that are checked.

        Raises:
            ModelError: If the layer cannot be swept.
        """
        sweep = WeightSweep(subject, task, self.settings.layer)
        of = measure.squared_error if task.targets.is_floating_point() else measure.nll
        found = sweep.effects(_FACTORS[self.settings.change] * sweep.weight, of)
        values: dict[str, Any] = {
            "rise": to_array(found.mean),
            "error": to_array(found.error),
            "checked": np.array(float(found.checked)),
        }
        # The clean pass, the one that is kept, and those that confirm; the sweep itself by its multiplications.
        spent = 2.0 + found.checked + sweep.route.share * found.mean.numel()
        return Readings(values, forwards=spent, path=found.path)
