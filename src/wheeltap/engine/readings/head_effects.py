"""What each attention head is for: how the loss changes without it, example by example."""

from typing import Any, final

import numpy as np
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.fast.heads import HeadAblation, screened
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings.head_effects import HEAD_EFFECTS


@final
class HeadEffects(Reading):
    """Sets one attention head after another to zero and compares the loss with the clean one."""

    spec = HEAD_EFFECTS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the model's attention is not known, or its heads cannot be screened on this task.
        """
        bench = HeadAblation(subject, task)
        of = measure.squared_error if task.targets.is_floating_point() else measure.nll
        layers = list(dict.fromkeys(head.layer for head in bench.heads))
        places = {path: at for at, path in enumerate(subject.record.layers)}
        values: dict[str, Any] = {
            "layer": np.array([layers.index(head.layer) for head in bench.heads]),
            "head": np.array([head.index for head in bench.heads]),
            "projection": np.array([places.get(bench.projection(head), -1) for head in bench.heads]),
        }
        if 0 < self.settings.top < len(bench.heads) - self.settings.sample:
            rng = seeds.generator(root, self.name, seed)
            found = screened(bench, of, top=self.settings.top, sample=self.settings.sample, rng=rng)
            values |= {"rise": to_array(found.exact), "predicted": to_array(found.predicted)}
            values["measured"] = np.array([*found.top, *found.sampled])
            values |= {"top": np.array(len(found.top)), "missed": np.array(found.missed)}
        else:
            targets = task.targets.cpu()
            before = of(bench.clean, targets, bench.clean)

            def rise(scores: Tensor) -> Tensor:
                return of(scores, targets, bench.clean) - before

            values["rise"] = to_array(bench.ablated(bench.heads, rise))
            values["measured"] = np.arange(len(bench.heads))
        return Readings(values, forwards=bench.spent, path=bench.path)
