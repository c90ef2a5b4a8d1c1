"""Hidden layers: every tensor that has one slice per hidden unit, and the moves that keep the function.

A hidden layer is a list of stages in the order of computation: rows that write the units, batch norms and slopes
on the way, columns that read them. All moves are made of three: gather units (permute, repeat), rescale units, and
set the outgoing weights of the units that were added.

Source: Dinh et al. 2017, "Sharp minima can generalize for deep nets" (rescaling); Hecht-Nielsen 1990 (permutation).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.errors import ModelError
from wheeltap.gauge.settings import Cancel, Recode

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


def _times(tensor: Tensor, factor: Tensor, *, dim: int) -> Tensor:
    """``tensor`` times one factor per slice of ``dim``, computed in at least float32 and rounded once."""
    wide = torch.promote_types(tensor.dtype, torch.float32)
    shape = [1] * tensor.ndim
    shape[dim] = -1
    return tensor.detach().to(wide) * factor.to(dtype=wide, device=tensor.device).reshape(shape)


class Stage(ABC):
    """Tensors of one module that have one slice per unit.

    Attributes:
        path: Module path.
    """

    path: str

    @abstractmethod
    def gather(self, model: nn.Module, index: Tensor) -> None:
        """Replace the units by the units ``index`` (``[new unit]``, of old ones)."""

    @abstractmethod
    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """Take in units multiplied by ``scale`` (``[unit]``); return the factors of the units given out.

        Args:
            model: Changed in place.
            scale: Positive factors.
            fresh: Draws new factors where a stage is free to choose what it gives out; ``None`` keeps them.
        """


@final
@dataclass(frozen=True)
class Rows(Stage):
    """A Linear or convolution that writes the units: row ``i`` of weight and bias is unit ``i``.

    Attributes:
        scaled: Whether a unit's factor is applied here (not so for the gate of a gated unit).
    """

    path: str
    scaled: bool = True

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``Stage.gather``."""
        module = model.get_submodule(self.path)
        for name in _held(module, "weight", "bias"):
            value = getattr(module, name)
            put(module, name, value.detach().index_select(0, index.to(value.device)))
        _resize(module, ("out_features", "out_channels"), len(index))

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``Stage.rescale``."""
        module = model.get_submodule(self.path)
        for name in _held(module, "weight", "bias") if self.scaled else ():
            put(module, name, _times(getattr(module, name), scale, dim=0))
        return scale

    def jitter(self, model: nn.Module, rng: np.random.Generator, *, units: int, amount: float) -> None:
        """Multiply each incoming weight from unit ``units`` on by ``1 + amount x normal``, alike within a pair.

        Relative to each weight, so that what reads a small-scaled input keeps its proportions.
        """
        module = model.get_submodule(self.path)
        weight = weight_of(module).clone()
        pairs = (len(weight) - units) // 2
        noise = torch.as_tensor(rng.standard_normal((pairs, *weight.shape[1:]), dtype=np.float32))
        factor = 1 + amount * noise.repeat_interleave(2, dim=0)
        weight[units:] = (weight[units:] * factor.to(weight.device)).to(weight.dtype)
        put(module, "weight", weight)


@final
@dataclass(frozen=True)
class Norm(Stage):
    """A batch norm in eval mode, one channel per unit: running statistics make it a fixed affine map per unit."""

    path: str

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``Stage.gather``."""
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
        put(module, "running_mean", _times(module.running_mean, scale, dim=0))
        if fresh is None or not module.affine:
            # Without a gain of its own (or where only powers of two are exact) it hands the factor on.
            if module.affine:
                put(module, "bias", _times(module.bias, scale, dim=0))
            return scale
        out = fresh()
        variance = module.running_var.double().cpu()
        seen = scale.double().square() * variance
        gain = out * (seen + module.eps).sqrt() / (scale * (variance + module.eps).sqrt())
        put(module, "running_var", seen)
        put(module, "weight", _times(module.weight, gain, dim=0))
        put(module, "bias", _times(module.bias, out, dim=0))
        return out


@final
@dataclass(frozen=True)
class Slopes(Stage):
    """A PReLU with one slope per unit: homogeneous, so a factor passes through."""

    path: str

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``Stage.gather``."""
        module = model.get_submodule(self.path)
        weight = weight_of(module)
        put(module, "weight", weight.index_select(0, index.to(weight.device)))
        _resize(module, ("num_parameters",), len(index))

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``Stage.rescale``."""
        return scale


@final
@dataclass(frozen=True)
class Columns(Stage):
    """A Linear or convolution that reads the units.

    Its weight, seen as ``[output, before, unit, after]``: ``after`` holds what one unit spreads over (kernel taps,
    or the places of a feature map that was flattened unit by unit), ``before`` the same where units vary fastest.

    Attributes:
        outputs: Rows of the weight when it was recognised; rows added since belong to units added since.
    """

    path: str
    outputs: int
    before: int = 1
    after: int = 1

    def _view(self, module: nn.Module) -> Tensor:
        weight = weight_of(module)
        return weight.reshape(len(weight), self.before, -1, self.after)

    def _store(self, module: nn.Module, view: Tensor) -> None:
        stored = view.reshape(len(view), -1, *weight_of(module).shape[2:])
        put(module, "weight", stored)
        _resize(module, ("in_features", "in_channels"), stored.shape[1])

    def gather(self, model: nn.Module, index: Tensor) -> None:
        """See ``Stage.gather``."""
        module = model.get_submodule(self.path)
        view = self._view(module)
        self._store(module, view.index_select(2, index.to(view.device)))

    def rescale(self, model: nn.Module, scale: Tensor, *, fresh: Fresh) -> Tensor:
        """See ``Stage.rescale``."""
        module = model.get_submodule(self.path)
        self._store(module, _times(self._view(module), 1 / scale, dim=2))
        return torch.ones_like(scale)

    def oppose(self, model: nn.Module, rng: np.random.Generator, *, units: int, scale: float) -> None:
        """Set what is read from the units ``units`` on: ``v`` and ``-v`` in turn.

        ``v`` is Gaussian at ``scale`` times the standard deviation of the weights that read the first ``units``.
        Rows that belong to added units read nothing from these, so that in a deep net pairs do not feed pairs.
        """
        module = model.get_submodule(self.path)
        view = self._view(module).clone()
        pairs = (view.shape[2] - units) // 2
        old = view[: self.outputs, :, :units].float()
        spread = float(old.std(correction=0))
        shape = (self.outputs, self.before, pairs, self.after)
        drawn = torch.as_tensor(rng.standard_normal(shape, dtype=np.float32) * np.float32(scale * spread))
        value = drawn.to(dtype=view.dtype, device=view.device)
        view[:, :, units:] = 0
        view[: self.outputs, :, units::2] = value
        view[: self.outputs, :, units + 1 :: 2] = -value
        self._store(module, view)


@final
@dataclass(frozen=True)
class Hidden:
    """One hidden layer.

    Attributes:
        name: Module path of what writes it.
        units: Width.
        stages: In the order of computation; the last one reads the units.
        widens: Whether units can be added (not where the model's code has the width written in it).
    """

    name: str
    units: int
    stages: tuple[Stage, ...]
    widens: bool = True


def _dtype(model: nn.Module, hidden: Hidden) -> torch.dtype:
    return weight_of(model.get_submodule(hidden.name)).dtype


def recode(model: nn.Module, hidden: Hidden, rng: np.random.Generator, *, settings: Recode) -> None:
    """Permute and rescale the units of ``hidden`` in place.

    Factors are lognormal. In 16-bit types they are rounded to powers of two, so that each weight keeps every bit
    and the twin still computes the same function.
    """
    if settings.permute:
        order = torch.as_tensor(rng.permutation(hidden.units))
        for stage in hidden.stages:
            stage.gather(model, order)
    if settings.spread == 0:
        return
    coarse = _dtype(model, hidden).itemsize < 4

    def factors() -> Tensor:
        logs = torch.as_tensor(rng.standard_normal(hidden.units)) * settings.spread
        return (logs / math.log(2)).round().exp2() if coarse else logs.exp()

    scale = factors()
    for stage in hidden.stages:
        scale = stage.rescale(model, scale, fresh=None if coarse else factors)


def cancel(model: nn.Module, hiddens: Sequence[Hidden], rng: np.random.Generator, *, settings: Cancel) -> None:
    """Add cancelling pairs to each of ``hiddens`` that can be widened, in place.

    Raises:
        ModelError: If none can be widened.
    """
    wide = [hidden for hidden in hiddens if hidden.widens]
    if not wide:
        raise ModelError(
            "No hidden layer can be widened.",
            where=", ".join(hidden.name for hidden in hiddens),
            expected="a forward that does not have the width of a hidden layer written in it",
            got="a view or reshape to a fixed number of features after each of them",
            do="Write x.flatten(1) in the model instead, or leave the planted control out.",
        )
    # All rows first: copies must be taken before any opposed columns are in the rows they are copied from.
    for hidden in wide:
        pairs = settings.count(hidden.units)
        sources = rng.choice(hidden.units, size=pairs, replace=pairs > hidden.units)
        index = torch.as_tensor(np.concatenate([np.arange(hidden.units), np.repeat(sources, 2)]))
        for stage in hidden.stages:
            stage.gather(model, index)
            if isinstance(stage, Rows):
                stage.jitter(model, rng, units=hidden.units, amount=settings.jitter)
    for hidden in wide:
        for stage in hidden.stages:
            if isinstance(stage, Columns):
                stage.oppose(model, rng, units=hidden.units, scale=settings.scale)
