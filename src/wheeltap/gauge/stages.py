"""Stages of hidden layers that were found by probing: any tensor, along any axis, in any part or module."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.typed import to_tensor
from wheeltap.gauge.hidden import Fresh, UnitReader, UnitStage, put, times
from wheeltap.gauge.trace import parametrized


@final
@dataclass(frozen=True)
class AxisPlace:
    """An axis of a tensor of a model, cut as ``[before, unit, after]``.

    Attributes:
        names: Every name of the tensor: all are rewritten alike.
        axis: Of the tensor.
        before: Blocks of units: 2 where two layers of as many units are fused one after the other.
        after: Entries of a unit in a row: 2 where two layers are interleaved, or the places of a flattened map.
    """

    names: tuple[str, ...]
    axis: int
    before: int = 1
    after: int = 1

    @property
    def path(self) -> str:
        """Path of the module that holds it."""
        return self.names[0].rpartition(".")[0]

    @property
    def label(self) -> str:
        """What it is called in reports: a layer by its path, any other tensor by its name."""
        path, _, name = self.names[0].rpartition(".")
        return path if name == "weight" and path else self.names[0]

    def read(self, model: nn.Module) -> Tensor:
        """The tensor with this axis first, as ``[before, unit, after, ...]``; perhaps the stored numbers themselves."""
        held, name = self._held(model)
        tensor: Tensor = getattr(held, name).detach().movedim(self.axis, 0)
        return tensor.reshape(self.before, -1, self.after, *tensor.shape[1:])

    def write(self, model: nn.Module, value: Tensor) -> None:
        """Store what ``read`` gives, of any number of units; the module's own sizes follow."""
        held, name = self._held(model)
        value = value.flatten(0, 2).movedim(0, self.axis)
        grown = value.shape[self.axis] != getattr(held, name).shape[self.axis]
        if name in parametrized(held):
            with torch.no_grad():
                setattr(held, name, value.to(getattr(held, name).dtype))
        else:
            put(held, name, value)
        for other in self.names[1:]:
            path, _, alias = other.rpartition(".")
            setattr(model.get_submodule(path), alias, getattr(held, name))
        if grown:
            _declare(held, name, self.axis, value.shape[self.axis])

    def _held(self, model: nn.Module) -> tuple[nn.Module, str]:
        path, _, name = self.names[0].rpartition(".")
        return model.get_submodule(path), name


_SIZES: Final[Mapping[tuple[str, int], tuple[str, ...]]] = {
    ("Linear.weight", 0): ("out_features",),
    ("Linear.weight", 1): ("in_features",),
    ("Conv.weight", 0): ("out_channels",),
    ("Conv.weight", 1): ("in_channels",),
    ("Depthwise.weight", 0): ("out_channels", "in_channels", "groups"),
    ("ConvTranspose.weight", 0): ("in_channels",),
    ("ConvTranspose.weight", 1): ("out_channels",),
    ("Conv1D.weight", 0): ("nx",),
    ("Conv1D.weight", 1): ("nf",),
    ("BatchNorm.running_mean", 0): ("num_features",),
    ("Embedding.weight", 1): ("embedding_dim",),
    ("PReLU.weight", 0): ("num_parameters",),
}
"""Where torch's own layers, and the Conv1D of transformers, keep the length of an axis of a tensor."""


def kind_of(module: nn.Module) -> str:
    """The kind of layer that ``module`` is, of those that keep sizes; empty for any other."""
    for kind in type(module).__mro__:
        name = kind.__name__
        if name.startswith(("Conv", "BatchNorm")) and name != "Conv1D":
            depthwise = getattr(module, "groups", 1) > 1 and not name.startswith("ConvTranspose")
            return "Depthwise" if depthwise else name.rstrip("123d")
        if name in ("Linear", "Conv1D", "Embedding", "PReLU"):
            return name
    return ""


def _declare(module: nn.Module, name: str, axis: int, width: int) -> None:
    for size in _SIZES.get((f"{kind_of(module)}.{name}", axis), ()):
        if isinstance(vars(module).get(size), int):
            setattr(module, size, width)


@final
@dataclass(frozen=True)
class Slices(UnitStage):
    """Slices of a tensor that make the units what they are.

    Attributes:
        place: The tensor and how its axis is cut.
        parts: Which of the ``before x after`` slices of a unit are its own; the others belong to something else.
        scaled: Which of them a unit's factor is applied to.
        writes: Whether it multiplies what the units read.
    """

    place: AxisPlace
    parts: tuple[int, ...]
    scaled: tuple[int, ...] = ()
    writes: bool = False

    @property
    def path(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Path of the module that holds the tensor."""
        return self.place.path

    @property
    def whole(self) -> bool:
        """Whether all slices of a unit are its own: else no unit can be added."""
        return len(self.parts) == self.place.before * self.place.after

    def _own(self, tensor: Tensor, parts: tuple[int, ...]) -> Iterator[Tensor]:
        """Views ``[unit, ...]`` of some slices."""
        return (tensor[part // self.place.after, :, part % self.place.after] for part in parts)

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``UnitStage.gather``."""
        tensor = self.place.read(model)
        index = index.to(tensor.device)
        if self.whole:
            self.place.write(model, tensor.index_select(1, index))
            return
        assert len(index) == tensor.shape[1], "units are only added where all slices are theirs"
        moved = tensor.clone()
        for new, old in zip(self._own(moved, self.parts), self._own(tensor, self.parts), strict=True):
            new.copy_(old[index])
        self.place.write(model, moved)

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``UnitStage.rescale``."""
        if self.scaled:
            tensor = self.place.read(model).double().clone()
            for own in self._own(tensor, self.scaled):
                own.copy_(times(own, scale, dim=0))
            self.place.write(model, tensor)
        return scale

    def silence(self, model: nn.Module, *, first: int) -> None:
        """See ``UnitStage.silence``; a variance stays, as it divides."""
        if self.place.names[0].rpartition(".")[2] == "running_var":
            return
        tensor = self.place.read(model).clone()
        tensor[:, first:] = 0
        self.place.write(model, tensor)

    def jitter(self, model: nn.Module, rng: np.random.Generator, *, units: int, amount: float) -> None:
        """See ``UnitStage.jitter``."""
        if not self.writes:
            return
        tensor = self.place.read(model).double().movedim(1, 0).clone()
        noise = to_tensor(rng.standard_normal(((len(tensor) - units) // 2, *tensor.shape[1:])))
        tensor[units:] *= 1 + amount * noise.repeat_interleave(2, dim=0).to(tensor.device)
        self.place.write(model, tensor.movedim(0, 1))

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """See ``UnitStage.tensors``."""
        yield self.place.read(model)


@final
@dataclass(frozen=True)
class Inputs(UnitReader):
    """A tensor that multiplies the units along one of its axes.

    Attributes:
        place: The tensor and how its axis is cut.
        outputs: See ``UnitReader``.
        called: Whether it is the module that holds it, and no other, that multiplies what it is given by it.
    """

    place: AxisPlace
    outputs: int
    called: bool = False

    @property
    def path(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Path of the module that holds the tensor."""
        return self.place.path

    @property
    def label(self) -> str:
        """See ``UnitReader``."""
        return self.place.label

    @property
    def before(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See ``UnitReader``."""
        return self.place.before

    @property
    def after(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See ``UnitReader``."""
        return self.place.after

    def view(self, model: nn.Module) -> Tensor:
        """See ``UnitReader.view``."""
        stored = self.place.read(model)
        return stored.reshape(*stored.shape[:3], -1).permute(3, 0, 1, 2)

    def write(self, model: nn.Module, view: Tensor) -> None:
        """See ``UnitReader.write``."""
        stored = self.place.read(model)
        self.place.write(model, view.permute(1, 2, 3, 0).reshape(*view.shape[1:], *stored.shape[3:]))


_EXPERTS: Final = "_experts_implementation_internal"


def one_by_one(module: nn.Module) -> bool:
    """Lets the fused experts of a module of transformers run one after another; whether it has a say in that.

    Every way of running them gives the same, but for kernels that want widths of a multiple of 16 bytes.
    """
    held: dict[str, Any] = getattr(vars(module).get("config"), "__dict__", {})
    if _EXPERTS in held:
        held[_EXPERTS] = "eager"
    return _EXPERTS in held


@final
@dataclass(frozen=True)
class Experts(UnitStage):
    """A module whose fused experts run one after another as soon as units are added.

    Attributes:
        path: Module path.
        units: How many units there are before.
    """

    path: str
    units: int

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``UnitStage.gather``."""
        if len(index) != self.units:
            one_by_one(model.get_submodule(self.path))


@final
@dataclass(frozen=True)
class Widths(UnitStage):
    """Attributes of a module that say how many units there are.

    Attributes:
        path: Module path.
        names: Of the attributes.
    """

    path: str
    names: tuple[str, ...]

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``UnitStage.gather``."""
        module: Any = model.get_submodule(self.path)
        for name in self.names:
            setattr(module, name, len(index))
