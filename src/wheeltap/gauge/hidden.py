"""Hidden layers: every tensor that has one slice per hidden unit.

A hidden layer is a list of stages in the order of computation: rows that write the units, batch norms and slopes
on the way, columns that read them. Products are computed in double precision and rounded once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.typed import to_tensor
from wheeltap.gauge.trace import parametrized

Fresh = Callable[[], Tensor] | None


def put(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter or buffer; its dtype, device and ``requires_grad`` stay."""
    old: Tensor = getattr(module, name)
    value = value.detach().to(dtype=old.dtype, device=old.device).contiguous()
    if vars(old).get("alone") and value.shape == old.shape:  # of a copy that has the memory of its base
        old.data.copy_(value)
        return
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


def times(tensor: Tensor, factor: Tensor, *, dim: int) -> Tensor:
    """``tensor`` times one factor per slice of ``dim``, in double precision."""
    shape = [1] * tensor.ndim
    shape[dim] = -1
    return tensor.detach().double() * factor.to(dtype=torch.float64, device=tensor.device).reshape(shape)


class UnitStage(ABC):
    """Tensors of one module that have one slice per unit."""

    path: str
    """Module path."""

    @abstractmethod
    def gather(self, model: nn.Module, index: Sequence[Tensor]) -> None:
        """Replace the units of each group by its units ``index`` (``[new unit]``, of old ones)."""

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """Take in units multiplied by ``scale``, group after group; return the factors that it gives out.

        By default these are the same.

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


@final
@dataclass(frozen=True)
class NormStage(UnitStage):
    """A batch norm in eval mode, one channel per unit: running statistics make it a fixed affine map per unit."""

    path: str

    def gather(self, model: nn.Module, index: Sequence[Tensor]) -> None:
        """See ``UnitStage.gather``."""
        module: Any = model.get_submodule(self.path)
        for name in _held(module, "weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name)
            put(module, name, value.detach().index_select(0, index[0].to(value.device)))
        module.num_features = len(index[0])

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


@final
@dataclass(frozen=True)
class UnitBlocks:
    """Blocks of units among other entries of an axis, all of one width; all grow alike.

    Attributes:
        starts: Where each begins, in order, before any unit was added.
        groups: Which group of units each holds.
        width: Units of each before any was added.
        length: Of the axis, likewise.
    """

    starts: tuple[int, ...]
    groups: tuple[int, ...]
    width: int
    length: int

    def split(self, tensor: Tensor) -> list[Tensor]:
        """The pieces of the first axis: what comes before a block and the block, in turn, and what follows the last."""
        grown = (len(tensor) - self.length) // len(self.starts)
        pieces: list[Tensor] = []
        done = 0
        for number, start in enumerate(self.starts):
            first = start + number * grown
            pieces += [tensor[done:first], tensor[first : first + self.width + grown]]
            done = first + self.width + grown
        return [*pieces, tensor[done:]]

    def old(self, length: int) -> Tensor:
        """Which entries of an axis that has this length now were there before units were added."""
        pieces = self.split(torch.ones(length, dtype=torch.bool))
        for block in pieces[1::2]:
            block[self.width :] = False
        return torch.cat(pieces)


@dataclass(frozen=True, kw_only=True)
class AxisStage(UnitStage):
    """An axis of a tensor of a model, cut as ``[before, unit, after]``.

    Attributes:
        names: Every name of the tensor: all are rewritten alike.
        axis: Of the tensor.
        before: Blocks of units: 2 where two layers of as many units are fused one after the other.
        after: Entries of a unit in a row: 2 where two layers are interleaved, or the places of a flattened map.
        blocks: Where these blocks are and which group each is; ``None`` where they fill the axis, of one group.
    """

    names: tuple[str, ...]
    axis: int
    before: int = 1
    after: int = 1
    blocks: UnitBlocks | None = None

    @property
    def path(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Path of the module that holds the tensor."""
        return self.names[0].rpartition(".")[0]

    @property
    def label(self) -> str:
        """What it is called in reports: a layer by its path, any other tensor by its name."""
        path, _, name = self.names[0].rpartition(".")
        return path if name == "weight" and path else self.names[0]

    def read(self, model: nn.Module) -> Tensor:
        """The tensor with this axis first, as ``[before, unit, after, ...]``; perhaps the stored numbers themselves."""
        held, name = model.get_submodule(self.path), self.names[0].rpartition(".")[2]
        tensor: Tensor = getattr(held, name).detach().movedim(self.axis, 0)
        if self.blocks is not None:
            tensor = torch.cat(self.blocks.split(tensor)[1::2])
        return tensor.reshape(self.before, -1, self.after, *tensor.shape[1:])

    def store(self, model: nn.Module, value: Tensor) -> None:
        """Store what ``read`` gives, of any number of units; the module's own sizes follow."""
        held, name = model.get_submodule(self.path), self.names[0].rpartition(".")[2]
        value = value.flatten(0, 2)
        if self.blocks is not None:
            pieces = self.blocks.split(getattr(held, name).detach().movedim(self.axis, 0))
            pieces[1::2] = value.chunk(self.before)
            value = torch.cat(pieces)
        value = value.movedim(0, self.axis)
        width = value.shape[self.axis]
        grown = width != getattr(held, name).shape[self.axis]
        if name in parametrized(held):
            with torch.no_grad():
                setattr(held, name, value.to(getattr(held, name).dtype))
        else:
            put(held, name, value)
        for other in self.names[1:]:
            path, _, alias = other.rpartition(".")
            setattr(model.get_submodule(path), alias, getattr(held, name))
        for size in _SIZES.get((f"{kind_of(held)}.{name}", self.axis), ()) if grown else ():
            if isinstance(vars(held).get(size), int):
                setattr(held, size, width)

    def gather(self, model: nn.Module, index: Sequence[Tensor]) -> None:
        """See ``UnitStage.gather``."""
        groups = (0,) * self.before if self.blocks is None else self.blocks.groups
        tensor = self.read(model)
        pairs = zip(tensor, groups, strict=True)
        self.store(model, torch.stack([block.index_select(0, index[group].to(block.device)) for block, group in pairs]))

    def factors(self, scale: Tensor) -> Tensor:
        """The factors of the units of each block, ``[block, unit]``, of those of each group, one after the other."""
        if self.blocks is None:
            return scale.expand(self.before, -1)
        return scale.reshape(-1, self.blocks.width)[list(self.blocks.groups)]

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """See ``UnitStage.tensors``."""
        yield self.read(model)


@final
@dataclass(frozen=True, kw_only=True)
class Slices(AxisStage):
    """Slices of a tensor that make the units what they are.

    Attributes:
        parts: Which of the ``before x after`` slices of a unit are its own; the others belong to something else.
        scaled: Which of them a unit's factor is applied to.
        writes: Whether it multiplies what the units read.
        silent: Whether a unit that reads nothing and is always 0 has zeros here; a variance divides, so it has none.
    """

    parts: tuple[int, ...] = (0,)
    scaled: tuple[int, ...] = ()
    writes: bool = False
    silent: bool = True

    @property
    def whole(self) -> bool:
        """Whether all slices of a unit are its own: else no unit can be added."""
        return len(self.parts) == self.before * self.after

    def _own(self, tensor: Tensor, parts: tuple[int, ...]) -> Iterator[Tensor]:
        """Views ``[unit, ...]`` of some slices."""
        return (tensor[part // self.after, :, part % self.after] for part in parts)

    def gather(self, model: nn.Module, index: Sequence[Tensor]) -> None:
        """See ``UnitStage.gather``."""
        if self.whole:
            super().gather(model, index)
            return
        tensor = self.read(model)
        order = index[0].to(tensor.device)
        assert len(order) == tensor.shape[1], "units are only added where all slices are theirs"
        moved = tensor.clone()
        for new, old in zip(self._own(moved, self.parts), self._own(tensor, self.parts), strict=True):
            new.copy_(old[order])
        self.store(model, moved)

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``UnitStage.rescale``."""
        if self.scaled:
            tensor, factors = self.read(model).double().clone(), self.factors(scale)
            for part, own in zip(self.scaled, self._own(tensor, self.scaled), strict=True):
                own.copy_(times(own, factors[part // self.after], dim=0))
            self.store(model, tensor)
        return scale

    def silence(self, model: nn.Module, *, first: int) -> None:
        """See ``UnitStage.silence``."""
        if self.silent:
            tensor = self.read(model).clone()
            tensor[:, first:] = 0
            self.store(model, tensor)

    def jitter(self, model: nn.Module, rng: np.random.Generator, *, units: int, amount: float) -> None:
        """See ``UnitStage.jitter``."""
        if not self.writes:
            return
        tensor = self.read(model).double().movedim(1, 0).clone()
        noise = to_tensor(rng.standard_normal(((len(tensor) - units) // 2, *tensor.shape[1:])))
        tensor[units:] *= 1 + amount * noise.repeat_interleave(2, dim=0).to(tensor.device)
        self.store(model, tensor.movedim(0, 1))


def rows(module: nn.Module, path: str, *, scaled: bool = True, transposed: bool = False) -> tuple[Slices, ...]:
    """The stages of a Linear or convolution that writes the units: row ``i`` of weight and bias is unit ``i``.

    Args:
        module: The layer.
        path: Where it is in the model.
        scaled: Whether a unit's factor is applied here (not so for the gate of a gated unit).
        transposed: Whether the weight is stored ``[in, unit]``, as in the Conv1D of GPT-2.
    """
    return tuple(
        Slices(
            names=(f"{path}.{name}",), axis=int(transposed and name == "weight"), scaled=(0,) if scaled else (),
            writes=name == "weight",
        )
        for name in _held(module, "weight", "bias")
    )  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True)
class Inputs(AxisStage):
    """A tensor that multiplies the units along one of its axes.

    Attributes:
        outputs: Rows of ``view`` when it was recognised; rows added since belong to units added since.
        taps: Whether axes after the first one belong to a unit, as the taps of a convolution known by its class.
        called: Whether it is the module that holds it, and no other, that multiplies what it is given by it.
        rows: Where its rows are units of the same layer, their blocks.
    """

    outputs: int
    taps: bool = False
    called: bool = True
    rows: UnitBlocks | None = None

    def view(self, model: nn.Module) -> Tensor:
        """The weight as ``[output, before, unit, after]``."""
        stored = self.read(model)
        if self.taps:
            return stored.movedim(3, 0).flatten(3)
        return stored.reshape(*stored.shape[:3], -1).permute(3, 0, 1, 2)

    def write(self, model: nn.Module, view: Tensor) -> None:
        """Store a weight given as ``view`` gives it, of any number of units."""
        rest = self.read(model).shape[3:]
        if self.taps:
            self.store(model, view.reshape(*view.shape[:3], self.after, *rest[1:]).movedim(0, 3))
        else:
            self.store(model, view.permute(1, 2, 3, 0).reshape(*view.shape[1:], *rest))

    def old(self, view: Tensor) -> Tensor | slice:
        """Which rows of the view were there when it was recognised."""
        return slice(self.outputs) if self.rows is None else self.rows.old(len(view)).to(view.device)

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``UnitStage.rescale``."""
        view = self.view(model).double()
        self.write(model, view * (1 / self.factors(scale)).to(view)[:, :, None])
        return scale


def sliced(
    module: nn.Module, name: str, blocks: Sequence[tuple[int, int]], width: int, *, axis: int = 0, scaled: bool = True
) -> Slices:
    """The slices of a tensor that make the units of some groups.

    Args:
        module: That holds the tensor.
        name: Of the tensor in the model.
        blocks: Where each block begins along the axis, in order, and which group it is.
        width: Units of a group.
        axis: Of the tensor.
        scaled: Whether a unit's factor is applied here.
    """
    parts, last = tuple(range(len(blocks))), name.rpartition(".")[2]
    cut = _blocks(getattr(module, last), blocks, width, axis)
    return Slices(
        names=(name,), axis=axis, before=len(blocks), blocks=cut, parts=parts, scaled=parts if scaled else (),
        writes=last.startswith("weight"),
    )  # fmt: skip


def reading(
    module: nn.Module,
    name: str,
    blocks: Sequence[tuple[int, int]],
    width: int,
    *,
    axis: int = 1,
    rows: UnitBlocks | None = None,
) -> Inputs:
    """What reads the units of some groups; see ``sliced`` and ``Inputs``."""
    tensor: Tensor = getattr(module, name.rpartition(".")[2])
    outputs, cut = tensor.numel() // tensor.shape[axis], _blocks(tensor, blocks, width, axis)
    return Inputs(names=(name,), axis=axis, before=len(blocks), blocks=cut, outputs=outputs, rows=rows)


def _blocks(tensor: Tensor, blocks: Sequence[tuple[int, int]], width: int, axis: int) -> UnitBlocks:
    starts, groups = zip(*blocks, strict=True)
    return UnitBlocks(starts, groups, width, tensor.shape[axis])


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
class Widths(UnitStage):
    """What a module keeps of the number of its units.

    Fused experts run one after another as soon as units are added.

    Attributes:
        path: Module path.
        units: How many units there are before.
        names: Of the attributes that say it.
        groups: How many groups of units they count together.
    """

    path: str
    units: int
    names: tuple[str, ...] = ()
    groups: int = 1

    def gather(self, model: nn.Module, index: Sequence[Tensor]) -> None:
        """See ``UnitStage.gather``."""
        module, added = model.get_submodule(self.path), len(index[0]) - self.units
        for name in self.names:
            setattr(module, name, getattr(module, name) + self.groups * added)
        if added:
            one_by_one(module)


@final
@dataclass(frozen=True)
class HiddenLayer:
    """One hidden layer: one group of units, or several of one width.

    Attributes:
        name: Module path of what writes it.
        units: Width of each group.
        stages: In the order of computation; those that read the units come last.
        widens: Whether units can be added (not where the model's code has the width written in it).
        homogeneous: Whether a positive factor passes through from the rows to the columns.
        silent: Whether a unit that reads nothing is 0 where it is read.
        refused: Further gauges that do not hold here, with the reason.
        groups: How many groups of units there are, each with an order of its own.
    """

    name: str
    units: int
    stages: tuple[UnitStage, ...]
    widens: bool = True
    homogeneous: bool = True
    silent: bool = True
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    groups: int = 1

    @property
    def readers(self) -> tuple[Inputs, ...]:
        """The stages that read the units."""
        return tuple(stage for stage in self.stages if isinstance(stage, Inputs))

    def coarse(self, model: nn.Module) -> bool:
        """Whether any of its weights is of 16 bits or fewer."""
        return any(tensor.dtype.itemsize < 4 for tensor in self.tensors(model))

    def tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """What its stages hold, without gradient history."""
        return (tensor for stage in self.stages for tensor in stage.tensors(model))

    def gather(self, model: nn.Module, index: Sequence[NDArray[np.int64]]) -> None:
        """Replace the units of each group by its units ``index`` (of old ones), in every stage."""
        reorder(model, self.stages, index)


def reorder(model: nn.Module, stages: Sequence[UnitStage], index: Sequence[NDArray[np.int64]]) -> None:
    """Replace the units of each group by its units ``index`` (of old ones), in some stages."""
    for stage in stages:
        stage.gather(model, [to_tensor(order) for order in index])
