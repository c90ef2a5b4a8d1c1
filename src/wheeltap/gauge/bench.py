"""A model laid out to be tried on a few examples, in double precision where possible; how alike scores are."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wheeltap.core import typed
from wheeltap.core.errors import DataError
from wheeltap.core.typed import to_array
from wheeltap.gauge.hidden import one_by_one

Run = Callable[[nn.Module], Tensor]
"""Runs a model on a few examples; gives scores ``[example, option]``. The same model gets the same."""


class Likeness(NamedTuple):
    """How alike the outputs of a model and its twin are.

    Attributes:
        difference: Largest absolute difference of a score, in units of the logit scale: the standard deviation of
            the original's scores about each example's mean (about the overall mean where an example has one score).
        agreement: Share of examples whose highest score is at the same place.
    """

    difference: float
    agreement: float


def check(original: NDArray[Any], twin: NDArray[Any]) -> Likeness:
    """How alike two arrays of scores are; a wrong gauge shows here. A score that is not finite differs by infinity.

    Args:
        original: ``[example, option]``.
        twin: The same shape.

    Raises:
        DataError: If the arrays are empty or differ in shape.
    """
    if original.shape != twin.shape or original.ndim != 2 or original.size == 0:
        raise DataError(
            "The scores of a model and its copy cannot be compared.",
            expected="two arrays [example, option] of one shape",
            got=f"{list(original.shape)} and {list(twin.shape)}",
        )
    ours, theirs = original.astype(np.float64), twin.astype(np.float64)
    agreement = float((ours.argmax(1) == theirs.argmax(1)).mean())
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Likeness(float("inf"), agreement)
    centre = ours.mean(axis=1 if ours.shape[1] > 1 else 0, keepdims=True)
    scale = float(((ours - centre) ** 2).mean()) ** 0.5 or 1.0
    return Likeness(float(np.abs(ours - theirs).max()) / scale, agreement)


SAME: Final = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Scores that differ by no more, in units of the logit scale, are the same. Norms of transformers are computed in
single precision whatever the model is in."""
OTHER: Final = 30.0
"""Scores that differ by this many times as much are others."""
DOUBLE: Final = 50_000_000
"""Parameters of the largest model that is tried in double precision."""
MOST: Final = 300
"""Trials of one model; what is not proven by then is left alone."""


class TrialLimit(Exception):
    """Raised when a model was tried as often as allowed."""


@final
class TwinBench:
    """Tries changes on copies of one model; the model is not touched.

    Attributes:
        model: The copy that all others are copied from.
        dtype: What it is in.
        run: What copies are run with.

    Raises:
        TypeError: If the model cannot be copied; also RuntimeError, NotImplementedError. Whatever ``run`` raises.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        self.run, self._tried = run, 0
        large = sum(parameter.numel() for parameter in model.parameters()) > DOUBLE
        self.dtype = torch.float32 if large else torch.float64
        try:
            self.model = _laid_out(model, self.dtype)
            self._clean = self.scores(self.model)
        except Exception:  # code that names a precision, or a kernel that has no double one
            if large:
                raise
            self.dtype = torch.float32
            self.model = _laid_out(model, self.dtype)
            self._clean = self.scores(self.model)
        # What is written through a parametrization is changed in place, so each copy needs its own.
        rewritten = {
            id(parameter)
            for module in self.model.modules()
            if isinstance(module, parametrize.ParametrizationList)
            for parameter in module.parameters()
        }
        self._sharing = [parameter for parameter in self.model.parameters() if id(parameter) not in rewritten]

    def copy(self) -> nn.Module:
        """A copy whose parameters are those of the base until they are replaced."""
        return typed.copied(self.model, sharing=self._sharing)

    def holds(self, change: Callable[[nn.Module], None]) -> bool:
        """Whether the model gives the same scores after ``change``; not so if it then cannot be run."""
        return self.difference(change) <= SAME[self.dtype]

    def matters(self, change: Callable[[nn.Module], None]) -> bool:
        """Whether the model gives other scores after ``change``, or cannot be run."""
        return self.difference(change) >= OTHER * SAME[self.dtype]

    def difference(self, change: Callable[[nn.Module], None]) -> float:
        """Largest difference of a score, in units of the logit scale; infinite if the changed model cannot be run.

        Raises:
            TrialLimit: If there were too many before.
        """
        if self._tried >= MOST:
            raise TrialLimit
        self._tried += 1
        changed = self.copy()
        try:
            change(changed)
            scores = self.scores(changed)
        except Exception:  # whatever the model's own code raises at sizes that it was not written for
            return float("inf")
        if scores.shape != self._clean.shape:
            return float("inf")
        return check(to_array(self._clean), to_array(scores)).difference

    @torch.no_grad()
    def scores(self, model: nn.Module) -> Tensor:
        """What the examples get."""
        return self.run(model).detach().double().cpu()


def _laid_out(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in ``dtype``; fused experts of transformers run one by one, as each way of running them gives the same."""
    copied = typed.copied(model).eval()
    if not any(parameter.is_complex() for parameter in model.parameters()):  # it would lose the imaginary parts
        copied = copied.to(dtype)
    for module in copied.modules():
        one_by_one(module)
    return copied
