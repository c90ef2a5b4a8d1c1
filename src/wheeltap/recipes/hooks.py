"""What training may do at each step beside going down the loss: pruning, sharpness, averaging, noise."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from torch import Tensor

from wheeltap.core.typed import largest, restored
from wheeltap.perturb.quantize import RoundToNearest
from wheeltap.recipes.fit import Fit, Hook

_TINY: Final = 1e-12
_SOFT: Final = 1e-5  # added to the size of a gradient that is divided by it


class ElsewhereHook(Hook):
    """The gradient is taken at other weights, and moves those that were there before."""

    _held: Sequence[Tensor] = ()

    def before(self, fit: Fit) -> None:
        """See ``Hook.before``."""
        self._held = [parameter.detach().clone() for parameter in fit.trained]
        with torch.no_grad():
            for parameter in fit.trained:
                self.displace(parameter)

    @abstractmethod
    def displace(self, parameter: Tensor) -> None:
        """Changes a parameter in place."""

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        _put_back(fit.trained, self._held)


@final
@dataclass(eq=False)
class WeightNoise(ElsewhereHook):
    """The gradient is taken at disturbed weights: each times 1 + ``dose`` x a standard normal number."""

    dose: float  # standard deviation of the change, as a share of each weight

    def displace(self, parameter: Tensor) -> None:
        """See ``ElsewhereHook.displace``."""
        # Drawn on the CPU: the same numbers on every device.
        parameter.mul_(1.0 + self.dose * torch.randn(parameter.shape).to(parameter))


@final
@dataclass(eq=False)
class StraightThrough(ElsewhereHook):
    """Quantization-aware training: the gradient is taken where every matrix is rounded, and moves the exact weights.

    Source: Bengio et al. 2013, arXiv:1308.3432, section 4; Jacob et al. 2018, arXiv:1712.05877.
    """

    bits: int  # of the grid, one per row, that ends at its largest weight

    def displace(self, parameter: Tensor) -> None:
        """See ``ElsewhereHook.displace``."""
        if parameter.ndim >= 2:
            parameter.copy_(RoundToNearest().rounded(parameter.flatten(1), self.bits).view_as(parameter))


@final
@dataclass(eq=False)
class Sharpness(Hook):
    """Sharpness-aware minimization: the gradient is taken a step of length ``rho`` uphill.

    Source: Foret et al. 2021, arXiv:2010.01412, equation 3.
    """

    rho: float  # length of that step over all weights together

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        slopes = [(one, one.grad) for one in fit.trained if one.grad is not None]
        uphill = self.rho / (_length([slope for _, slope in slopes]) + _TINY)
        with restored(fit.trained):
            for parameter, slope in slopes:
                parameter.data.add_(slope * uphill)
            fit.gradient()


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

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    share: float  # over the rate
    of: Sequence[Tensor]  # the parameters

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        with torch.no_grad():
            for parameter in self.of:
                parameter.mul_(1.0 - self.share * fit.rate)


@final
@dataclass(frozen=True)
class MatrixMask:
    """What is left of one matrix."""

    share: float  # of its weights, those that are not 0 in the end
    alive: int = 0  # largest weights of each neuron, which always stay
    neurons: int = 0  # whose dimension this is: 0 where each neuron has a row of weights, 1 where it has a column

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

    Source: Gao et al. 2025, arXiv:2511.13653, section 2 (top-k by magnitude after each step, with a linear decline).
    """

    share: float  # of each matrix, weights that are not 0 in the end
    until: float = 0.5  # share of the steps after which it is reached
    # Which parameters are cut, and how; every matrix to share where None.
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
    """The net that is kept is a moving average of the weights after each step."""

    share: float  # of the average that is left after each step, 0 to 1
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
    return torch.stack([slope.detach().square().sum() for slope in slopes]).sum().sqrt()


def _put_back(parameters: Sequence[Tensor], held: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, tensor in zip(parameters, held, strict=True):
            parameter.copy_(tensor)
