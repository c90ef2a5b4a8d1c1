"""What each attention head is for: how the loss changes without it, example by example."""

from typing import Annotated, Any, final

import msgspec
import numpy as np
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.fast.head_screen import screened
from wheeltap.engine.fast.heads import Head, HeadAblation
from wheeltap.engine.readings.base import Reading, Readings, ReadingSettings


class HeadEffectsSettings(ReadingSettings, frozen=True, kw_only=True):
    """How many heads are ablated: every one, where there are no more than ``top + sample``.

    Attributes:
        top: Those that a screen ranks highest; 0 for every head, without a screen.
        sample: With a screen: how many of the others, drawn at random, say what it missed.
    """

    top: Annotated[int, msgspec.Meta(ge=0)] = 0
    sample: Annotated[int, msgspec.Meta(ge=0)] = 20


@final
class HeadEffects(Reading):
    """Sets one attention head after another to zero and compares the loss with the clean one.

    Values: ``rise`` ``[measured, example]``, of the negative log-likelihood in nats (squared error, for regression);
    ``measured`` ``[measured]``, the heads' numbers in order of computation, those of the screen's top first;
    ``layer`` ``[head]`` and ``head`` ``[head]``, which attention layer and which of its heads each number is, from 0;
    ``projection`` ``[head]``, which of the subject's layers is its output projection, -1 for none of them.
    With a screen (more heads than are ablated) also ``predicted`` ``[head, example]``, the rise to first order,
    ``top``, how many of ``measured`` are the screen's, and ``missed``, how many of the rest outdo one of those.
    """

    name = "head-effects"
    version = 2
    title = "Effect of every attention head"
    settings_type = HeadEffectsSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the model's attention is not known, or its heads cannot be screened on this task.
        """
        bench = HeadAblation(subject, task)
        of = measure.squared_error if task.targets.is_floating_point() else measure.nll
        layers = list(dict.fromkeys(head.layer for head in bench.heads))
        values: dict[str, Any] = {
            "layer": np.array([layers.index(head.layer) for head in bench.heads], dtype=float),
            "head": np.array([head.index for head in bench.heads], dtype=float),
            "projection": np.array([_projection(subject, bench, head) for head in bench.heads], dtype=float),
        }
        if 0 < self.settings.top < len(bench.heads) - self.settings.sample:
            rng = seeds.generator(root, self.name, seed)
            found = screened(bench, of, top=self.settings.top, sample=self.settings.sample, rng=rng)
            values |= {"rise": to_array(found.exact), "predicted": to_array(found.predicted)}
            values["measured"] = np.array([*found.top, *found.sampled], dtype=float)
            values |= {"top": np.array(float(len(found.top))), "missed": np.array(float(found.missed))}
        else:
            targets = task.targets.cpu()
            before = of(bench.clean, targets, bench.clean)

            def rise(scores: Tensor) -> Tensor:
                return of(scores, targets, bench.clean) - before

            values["rise"] = to_array(bench.ablated(bench.heads, rise))
            values["measured"] = np.arange(len(bench.heads), dtype=float)
        return Readings(values, forwards=bench.spent, path=bench.path)


def _projection(subject: Subject, bench: HeadAblation, head: Head) -> int:
    layers, path = subject.record.layers, bench.projection(head)
    return layers.index(path) if path in layers else -1
