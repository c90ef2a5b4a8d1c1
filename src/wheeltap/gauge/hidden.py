"""Hidden layers: every tensor that has one slice per hidden unit.

A hidden layer is a list of stages in the order of computation: rows that write the units, batch norms and slopes
on the way, columns that read them. Products are computed in double precision and rounded once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.typed import to_tensor

Fresh = Callable[[], Tensor] | None


def put(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter or buffer; its dtype, device and ``requires_grad`` stay."""
    old: Tensor = getattr(module, name)
    value = value.detach().to(dtype=old.dtype, device=old.device).contiguous()
    setattr(
        module, name, nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value
    )


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a layer, without its gradient history."""
    weight = getattr(module, "weight", None)
    assert isinstance(weight, Tensor), "a recognised layer has a weight"
    return weight.detach()


def _held(module: nn.Module, *names: str) -> list[str]:
    """The names among ``names`` under which ``module`` holds a tensor."""
    return [name for name in names if isinstance(getattr(module, name, None), Tensor)]


def _resize(module: nn.Module, names: Sequence[str], width: int) -> None:
    for name in names:
        if name in vars(module):
            setattr(module, name, width)


def times(tensor: Tensor, factor: Tensor, *, dim: int) -> Tensor:
    """``tensor`` times one factor per slice of ``dim``, in double precision."""
    shape = [1] * tensor.ndim
    shape[dim] = -1
    return tensor.detach().double() * factor.to(dtype=torch.float64, device=tensor.device).reshape(shape)


class UnitStage(ABC):
    """Tensors of one module that have one slice per unit.

    Attributes:
        path: Module path.
    """

    path: str

    @abstractmethod
    def gather(self, model: nn.Module, index: Tensor) -> None:
        """Replace the units by the units ``index`` (``[new unit]``, of old ones)."""

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """Take in units multiplied by ``scale`` (``[unit]``); return the factors that it gives out, by default these.

        Args:
            model: Changed in place.
            scale: Positive factors.
            fresh: Draws new factors where a stage is free to choose what it gives out; ``None`` keeps them.
        """
        return scale

    def silence(self, model: nn.Module, *, first: int) -> None:
        """Let the units from ``first`` on read nothing and be 0 in, 0 out; a stage that does so anyway stays."""
        return

    def jitter(self, model: nn.Module, rng: np.random.Generator, *, units: int, amount: float) -> None:
        """Multiply each incoming weight from unit ``units`` on by ``1 + amount x normal``, alike within a pair.

        Relative to each weight, so that what reads a small-scaled input keeps its proportions. A stage without
        incoming weights stays as it is.
        """
        return

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """What it holds, without gradient history; nothing, by default."""
        return iter(())


class UnitReader(UnitStage):
    """Weights that read the units.

    Attributes:
        outputs: Rows of ``view`` when it was recognised; rows added since belong to units added since.
        before: Second axis of ``view``.
        after: Last axis of ``view``.
    """

    outputs: int
    before: int
    after: int

    @property
    def label(self) -> str:
        """What the weight is called in reports: a layer by its path."""
        return self.path

    @abstractmethod
    def view(self, model: nn.Module) -> Tensor:
        """The weight as ``[output, before, unit, after]``."""

    @abstractmethod
    def write(self, model: nn.Module, view: Tensor) -> None:
        """Store a weight given as ``view`` gives it, of any number of units."""

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``UnitStage.gather``."""
        view = self.view(model)
        self.write(model, view.index_select(2, index.to(view.device)))

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``UnitStage.rescale``."""
        self.write(model, times(self.view(model), 1 / scale, dim=2))
        return scale

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """See ``UnitStage.tensors``."""
        yield self.view(model)


@final
@dataclass(frozen=True)
class UnitRows(UnitStage):
    """A Linear or convolution that writes the units: row ``i`` of weight and bias is unit ``i``.

    Attributes:
        scaled: Whether a unit's factor is applied here (not so for the gate of a gated unit).
        transposed: Whether the weight is stored ``[in, unit]``, as in the Conv1D of GPT-2.
    """

    path: str
    scaled: bool = True
    transposed: bool = False

    def _slices(self, module: nn.Module) -> Iterator[tuple[str, Tensor, int]]:
        """Name and value of weight and bias, and the axis along which the units lie."""
        for name in _held(module, "weight", "bias"):
            yield name, getattr(module, name).detach(), int(self.transposed and name == "weight")

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``UnitStage.gather``."""
        module = model.get_submodule(self.path)
        for name, value, axis in self._slices(module):
            put(module, name, value.index_select(axis, index.to(value.device)))
        _resize(module, ("out_features", "out_channels", "nf"), len(index))

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``UnitStage.rescale``."""
        module = model.get_submodule(self.path)
        for name, value, axis in self._slices(module) if self.scaled else ():
            put(module, name, times(value, scale, dim=axis))
        return scale

    def silence(self, model: nn.Module, *, first: int) -> None:
        """See ``UnitStage.silence``."""
        module = model.get_submodule(self.path)
        for name, value, axis in self._slices(module):
            silent = value.clone()
            silent.narrow(axis, first, silent.shape[axis] - first).zero_()
            put(module, name, silent)

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """See ``UnitStage.tensors``."""
        yield from (value for _, value, _ in self._slices(model.get_submodule(self.path)))

    def jitter(self, model: nn.Module, rng: np.random.Generator, *, units: int, amount: float) -> None:
        """See ``UnitStage.jitter``."""
        module = model.get_submodule(self.path)
        axis = int(self.transposed)
        weight = weight_of(module).double().movedim(axis, 0).clone()
        noise = to_tensor(rng.standard_normal(((len(weight) - units) // 2, *weight.shape[1:])))
        weight[units:] *= 1 + amount * noise.repeat_interleave(2, dim=0).to(weight.device)
        put(module, "weight", weight.movedim(0, axis))


@final
@dataclass(frozen=True)
class NormStage(UnitStage):
    """A batch norm in eval mode, one channel per unit: running statistics make it a fixed affine map per unit."""

    path: str

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``UnitStage.gather``."""
        module = model.get_submodule(self.path)
        for name in _held(module, "weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name)
            put(module, name, value.detach().index_select(0, index.to(value.device)))
        _resize(module, ("num_features",), len(index))

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """Follow the factor in the running statistics and give out a new one; exact with ``eps`` in it.

        With input ``s x``: mean ``s m``, variance ``s^2 v``; to give out ``t`` times as much: gain
        ``g t sqrt(s^2 v + eps) / (s sqrt(v + eps))``, offset ``t b``.
        """
        module = model.get_submodule(self.path)
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)  # pyright: ignore[reportPrivateUsage]
        assert module.running_mean is not None and module.running_var is not None
        put(module, "running_mean", times(module.running_mean, scale, dim=0))
        if fresh is None or not module.affine:
            # Without a gain of its own (or where only powers of two are exact) it hands the factor on.
            if module.affine:
                put(module, "bias", times(module.bias, scale, dim=0))
            return scale
        out = fresh()
        variance = module.running_var.double().cpu()
        seen = scale.double().square() * variance
        gain = out * (seen + module.eps).sqrt() / (scale * (variance + module.eps).sqrt())
        put(module, "running_var", seen)
        put(module, "weight", times(module.weight, gain, dim=0))
        put(module, "bias", times(module.bias, out, dim=0))
        return out

    def silence(self, model: nn.Module, *, first: int) -> None:
        """See ``UnitStage.silence``."""
        module = model.get_submodule(self.path)
        for name in _held(module, "running_mean", "bias"):
            value = getattr(module, name).detach().clone()
            value[first:] = 0
            put(module, name, value)

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """See ``UnitStage.tensors``."""
        module = model.get_submodule(self.path)
        yield from (getattr(module, name).detach() for name in _held(module, "weight", "bias", "running_mean"))


@final
@dataclass(frozen=True)
class UnitSlopes(UnitStage):
    """A PReLU with one slope per unit: homogeneous, so a factor passes through."""

    path: str

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``UnitStage.gather``."""
        module = model.get_submodule(self.path)
        weight = weight_of(module)
        put(module, "weight", weight.index_select(0, index.to(weight.device)))
        _resize(module, ("num_parameters",), len(index))

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """See ``UnitStage.tensors``."""
        yield weight_of(model.get_submodule(self.path))


@final
@dataclass(frozen=True)
class Columns(UnitReader):
    """A Linear or convolution that reads the units.

    Its weight, seen as ``[output, before, unit, after]``: ``after`` holds what one unit spreads over (kernel taps,
    or the places of a feature map that was flattened unit by unit), ``before`` the same where units vary fastest.

    Attributes:
        transposed: Whether the weight is stored ``[unit, output]``, as in the Conv1D of GPT-2.
    """

    path: str
    outputs: int
    before: int = 1
    after: int = 1
    transposed: bool = False

    def view(self, model: nn.Module) -> Tensor:
        """See ``UnitReader.view``."""
        weight = weight_of(model.get_submodule(self.path))
        weight = weight.T if self.transposed else weight
        return weight.reshape(len(weight), self.before, -1, self.after)

    def write(self, model: nn.Module, view: Tensor) -> None:
        """See ``UnitReader.write``."""
        module = model.get_submodule(self.path)
        kernel = () if self.transposed else weight_of(module).shape[2:]
        stored = view.reshape(len(view), -1, *kernel)
        put(module, "weight", stored.T if self.transposed else stored)
        _resize(module, ("in_features", "in_channels", "nx"), stored.shape[1])


@final
@dataclass(frozen=True)
class HiddenLayer:
    """One hidden layer.

    Attributes:
        name: Module path of what writes it.
        units: Width.
        stages: In the order of computation; those that read the units come last.
        widens: Whether units can be added (not where the model's code has the width written in it).
        homogeneous: Whether a positive factor passes through from the rows to the columns.
        silent: Whether a unit that reads nothing is 0 where it is read.
        refused: Further gauges that do not hold here, with the reason.
    """

    name: str
    units: int
    stages: tuple[UnitStage, ...]
    widens: bool = True
    homogeneous: bool = True
    silent: bool = True
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def readers(self) -> tuple[UnitReader, ...]:
        """The stages that read the units."""
        return tuple(stage for stage in self.stages if isinstance(stage, UnitReader))

    @property
    def reader(self) -> UnitReader:
        """The stage that reads the units, where there is one only."""
        (only,) = self.readers
        return only

    def coarse(self, model: nn.Module) -> bool:
        """Whether any of its weights is of 16 bits or fewer."""
        return any(tensor.dtype.itemsize < 4 for tensor in self.tensors(model))

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """What its stages hold, without gradient history."""
        return (tensor for stage in self.stages for tensor in stage.tensors(model))

    def gather(self, model: nn.Module, index: NDArray[np.int64]) -> None:
        """Replace the units of ``model`` by the units ``index`` (of old ones), in every stage."""
        for stage in self.stages:
            stage.gather(model, to_tensor(index))
