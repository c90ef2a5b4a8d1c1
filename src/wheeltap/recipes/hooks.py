"""What training may do at each step beside going down the loss: pruning, sharpness, averaging, noise."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from torch import Tensor

from wheeltap.core.errors import UsageError
from wheeltap.core.typed import largest
from wheeltap.perturb.quantize import RoundToNearest
from wheeltap.recipes.fit import Fit, Hook

_TINY: Final = 1e-12

_SOFT: Final = 1e-5
"""Added to the size of a gradient that is divided by it."""


@final
@dataclass(eq=False)
class WeightNoise(Hook):
    """The gradient is taken at disturbed weights: each times 1 + ``dose`` x a standard normal number.

    Attributes:
        dose: Standard deviation of the change, as a share of each weight.
    """

    dose: float
    _held: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def before(self, fit: Fit) -> None:
        """See ``Hook.before``."""
        self._held = [parameter.detach().clone() for parameter in fit.trained]
        with torch.no_grad():
            for parameter in fit.trained:
                # Drawn on the CPU: the same numbers on every device.
                parameter.mul_(1.0 + self.dose * torch.randn(parameter.shape).to(parameter))

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        _put_back(fit.trained, self._held)


@final
@dataclass(eq=False)
class StraightThrough(Hook):
    """Quantization-aware training: the gradient is taken where every matrix is rounded, and moves the exact weights.

    Attributes:
        bits: Of the grid, one per row, that ends at its largest weight.

    Source: Bengio et al. 2013, arXiv:1308.3432, section 4; Jacob et al. 2018, arXiv:1712.05877.
    """

    bits: int
    _held: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def before(self, fit: Fit) -> None:
        """See ``Hook.before``."""
        self._held = [parameter.detach().clone() for parameter in fit.trained]
        with torch.no_grad():
            for parameter in fit.trained:
                if parameter.ndim >= 2:
                    rounded = RoundToNearest().rounded(parameter.flatten(1), self.bits)
                    parameter.copy_(rounded.view_as(parameter))

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        _put_back(fit.trained, self._held)


@final
@dataclass(eq=False)
class Sharpness(Hook):
    """Sharpness-aware minimization: the gradient is taken a step of length ``rho`` uphill.

    Attributes:
        rho: Length of that step over all weights together.

    Source: Foret et al. 2021, arXiv:2010.01412, equation 3.
    """

    rho: float

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        here = [parameter.detach().clone() for parameter in fit.trained]
        slopes = [parameter.grad for parameter in fit.trained]
        uphill = self.rho / (_length([slope for slope in slopes if slope is not None]) + _TINY)
        with torch.no_grad():
            for parameter, slope in zip(fit.trained, slopes, strict=True):
                if slope is not None:
                    parameter.add_(slope * uphill)
        fit.gradient()
        _put_back(fit.trained, here)


@final
@dataclass(eq=False)
class UnitGradient(Hook):
    """The gradient is divided by its root mean square over all parameters.

    Source: Gao et al. 2025, arXiv:2511.13653, appendix A.
    """

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        slopes = [parameter.grad for parameter in fit.trained if parameter.grad is not None]
        size = _length(slopes) / sum(slope.numel() for slope in slopes) ** 0.5
        for slope in slopes:
            slope.div_(size + _SOFT)


@final
@dataclass(eq=False)
class Decay(Hook):
    """Of some parameters, a share of every weight is lost in a step: ``share`` times the rate.

    Attributes:
        share: Over the rate.
        of: The parameters.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    share: float
    of: Sequence[Tensor]

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        with torch.no_grad():
            for parameter in self.of:
                parameter.mul_(1.0 - self.share * fit.rate)


@final
@dataclass(frozen=True)
class MatrixMask:
    """What is left of one matrix.

    Attributes:
        share: Of its weights, those that are not 0 in the end.
        alive: Largest weights of each neuron, which always stay.
        neurons: Whose dimension this is: 0 where each neuron has a row of weights, 1 where it has a column.
    """

    share: float
    alive: int = 0
    neurons: int = 0

    def apply(self, matrix: Tensor, share: float) -> None:
        """Sets all but the largest weights to 0: this share of them stays, but at least ``alive`` of each neuron."""
        with torch.no_grad():
            sizes = matrix.abs()
            if self.alive:
                by_neuron = sizes.movedim(self.neurons, 0).flatten(1)
                alive = min(self.alive, by_neuron.shape[1])
                safe = largest(by_neuron, alive).view_as(sizes.movedim(self.neurons, 0)).movedim(0, self.neurons)
                sizes = sizes.masked_fill(safe, torch.inf)
                share = max(share, alive / by_neuron.shape[1])
            keep = max(round(share * sizes.numel()), 1)
            matrix.masked_fill_(~largest(sizes.flatten(), keep).view(sizes.shape), 0.0)


@final
@dataclass(eq=False)
class TopK(Hook):
    """Weight sparsity: after each step, all but the largest weights of every matrix are 0.

    The share that is left falls linearly from 1 at the start to ``share`` after ``until`` of the steps. Weights may
    come back as long as training goes on. Biases and other vectors are left alone.

    Attributes:
        share: Of each matrix, weights that are not 0 in the end.
        until: Share of the steps after which it is reached.
        cuts: Which parameters are cut, and how; every matrix to ``share`` where ``None``.

    Source: Gao et al. 2025, arXiv:2511.13653, section 2 (top-k by magnitude after each step, with a linear decline).
    """

    share: float
    until: float = 0.5
    cuts: Mapping[Tensor, MatrixMask] | None = None

    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        for parameter, cut in self._every(fit):
            left = annealed(cut.share, fit.step, steps=fit.steps, until=self.until)
            if left < 1.0:
                cut.apply(parameter, left)

    def finish(self, fit: Fit) -> None:
        """See ``Hook.finish``."""
        for parameter, cut in self._every(fit):
            cut.apply(parameter, cut.share)

    def _every(self, fit: Fit) -> Iterable[tuple[Tensor, MatrixMask]]:
        if self.cuts is not None:
            return self.cuts.items()
        return ((parameter, MatrixMask(self.share)) for parameter in fit.trained if parameter.ndim >= 2)


def annealed(share: float, step: int, *, steps: int, until: float) -> float:
    """Of the weights, the share that is left after so many steps: from 1 down to ``share`` after ``until`` of them."""
    return 1.0 - (1.0 - share) * min(step / max(until * steps, 1.0), 1.0)


@final
@dataclass(eq=False)
class Average(Hook):
    """The net that is kept is a moving average of the weights after each step.

    Attributes:
        share: Of the average that is left after each step, 0 to 1.
    """

    share: float
    _mean: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def start(self, fit: Fit) -> None:
        """See ``Hook.start``."""
        self._mean = [parameter.detach().clone() for parameter in fit.trained]

    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        for mean, parameter in zip(self._mean, fit.trained, strict=True):
            mean.lerp_(parameter.detach(), 1.0 - self.share)

    def finish(self, fit: Fit) -> None:
        """See ``Hook.finish``."""
        _put_back(fit.trained, self._mean)

    def tensors(self) -> dict[str, Tensor]:
        """See ``Hook.tensors``."""
        return {str(at): mean for at, mean in enumerate(self._mean)}


def _length(slopes: Sequence[Tensor]) -> Tensor:
    """Of all of them as one vector."""
    squares = [slope.detach().square().sum() for slope in slopes]
    return torch.stack(squares).sum().sqrt()


def _put_back(parameters: Sequence[Tensor], held: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, tensor in zip(parameters, held, strict=True):
            parameter.copy_(tensor)


def hooks(*, noise: float = 0.0, rho: float = 0.0, share: float = 1.0, average: float = 0.0) -> list[Hook]:
    """The hooks that settings ask for, in the order in which they work together.

    Args:
        noise: Dose of weight noise; 0 for none.
        rho: Length of the step uphill; 0 for none.
        share: Of each matrix, weights that are not 0 in the end; 1 for all.
        average: Share of a moving average that is left after each step; 0 for none.

    Raises:
        UsageError: If one is out of range.
    """
    if not (0.0 <= noise <= 1.0 and 0.0 <= rho <= 10.0 and 0.0 < share <= 1.0 and 0.0 <= average < 1.0):
        raise UsageError(
            "A net cannot be trained with these settings.",
            where="wheeltap.recipes.hooks",
            expected="noise from 0 to 1, rho from 0 to 10, a share above 0 and up to 1, an average from 0 to below 1",
            got=f"noise {noise}, rho {rho}, share {share}, average {average}",
        )
    found: list[Hook] = []
    found += [WeightNoise(noise)] if noise else []
    found += [Sharpness(rho)] if rho else []
    found += [TopK(share)] if share < 1.0 else []
    return found + ([Average(average)] if average else [])
