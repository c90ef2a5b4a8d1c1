"""Files as they are shipped, beside the model that they were made from: one is loaded, measured and let go of."""

import time
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.measure import kl
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.sets import measured
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.clean import scores_of
from wheeltap.engine.next_tokens import NextTokens


class Shelf(Protocol):
    """Opens the files that a plan knows as they are shipped, one at a time."""

    def model(self, fingerprint: str, reference: Subject) -> nn.Module:
        """The model of a file; nothing else holds it.

        Raises:
            WheeltapError: If it cannot be loaded, or is not what was planned.
        """
        ...

    def compared(self, fingerprint: str, reference: Subject) -> dict[str, NDArray[Any]]:
        """Its tensors beside the original's: see ``plans.shipped``."""
        ...


def tensors_of(trial: Trial, reference: Subject, shelf: Shelf) -> Outcome:
    """What the tensors of a file are beside those of the original."""
    began = time.perf_counter()
    values = shelf.compared(str(trial.settings["file"]), reference)
    return Outcome(key=trial.key, status="done", values=values, seconds=time.perf_counter() - began)


def answered(
    trial: Trial, reference: Subject, clean: Tensor, task: BaseTask, shelf: Shelf, *, tokens: NextTokens
) -> Outcome:
    """What a file's model answers, measured as a disturbed copy of the original would be.

    Args:
        trial: Which names the file.
        reference: The original.
        clean: Its scores ``[example, option]``.
        task: The examples.
        shelf: Loads the model.
        tokens: What the original says next.

    Raises:
        WheeltapError: If it cannot be loaded, or gives other outputs than the original.
    """
    began = time.perf_counter()
    model = shelf.model(str(trial.settings["file"]), reference)
    scores, beside = tokens.compared(lambda: scores_of(model, task))
    if scores.shape != clean.shape:
        raise ModelError(
            "The model as it is shipped gives other outputs than the original.", where=reference.name,
            expected=f"scores of shape {list(clean.shape)}", got=str(list(scores.shape)),
            do="Ship what the original was converted to, with the same outputs in the same order.",
        )  # fmt: skip
    targets, values = task.targets.cpu(), dict[str, NDArray[np.float32]]()
    if bool(torch.isfinite(scores).all()):
        values = {name: to_array(one) for name, one in measured(task, scores, clean).items()}
        if not targets.is_floating_point():
            values["kl"] = to_array(kl(scores, targets, clean))
    done = bool(values) and all(np.isfinite(array).all() for array in values.values())
    return Outcome(
        key=trial.key, status="done" if done else "diverged", values=values | beside if done else {}, forwards=1.0,
        seconds=time.perf_counter() - began, because="" if done else "The outputs of the shipped model are not finite.",
    )  # fmt: skip
