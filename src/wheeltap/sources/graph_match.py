"""Which weight of a graph is which parameter of the original, and what its format makes of that.

By name, where the export kept names; else by their values, each weight with the parameter that it is most like. A batch
norm behind a layer may be folded into it. What is like nothing is not compared: exporters fuse, split and rename.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, final

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from wheeltap.core.typed import named_modules, to_array
from wheeltap.sources.graphs import GraphWeight, RuntimeGraph, matrix_of
from wheeltap.sources.shipped import Array, Piece, StoredWeights, numbers_of, same, unpaired

_LIKE: Final = 0.9
"""Cosine from which a matrix without a name may be a parameter."""

_NEAR: Final = 0.05
"""Error up to which a bias says which layer it belongs to."""

_SAME: Final = 0.02
"""Error up to which a vector without a name is a parameter: many are all but constant, so that all are alike."""

_SCALED: Final = 0.5
"""Share of the error that a factor for each column must leave at most, to be what is wrong."""

_APART: Final = 0.2
"""Error from which a bias is not another layer's."""

_SAMPLED: Final = 2**14
"""Values by which tensors are distinguished."""

_ENDS: Final = re.compile(r"(_Transposed)?(_quantized)?$|_fp16$|_fused_bn$")
"""What converters write behind a name."""

_COARSE: Final = 2.1
"""How many times as wide as it must be the step of a grid is, at most: some converters leave a bit unused."""

_ROUNDED: Final = 2.0**-9
"""Error that any way of storing numbers may make."""

Change = Callable[[Tensor], Tensor]
"""What an exporter makes of a parameter."""


@final
@dataclass(frozen=True)
class _Fold:
    """A batch norm that an exporter may fold into the layer before it.

    Attributes:
        norm: Which, with running statistics.
    """

    norm: _BatchNorm
    path: str
    bias: Tensor | None

    @property
    def factor(self) -> Tensor:
        """What each unit is multiplied by."""
        gain, spread = self.norm.weight if self.norm.affine else 1.0, self.norm.running_var
        assert spread is not None
        return gain / (spread + self.norm.eps).sqrt()

    def weight(self, weight: Tensor) -> Tensor:
        """The layer's weight with the norm in it."""
        return weight * self.factor.detach().reshape([-1] + [1] * (weight.ndim - 1))

    def shift(self, beta: Tensor) -> Tensor:
        """The layer's bias with the norm in it, from the norm's."""
        mean = self.norm.running_mean
        assert mean is not None
        return beta + ((0.0 if self.bias is None else self.bias.detach()) - mean) * self.factor.detach()


def _folds(model: nn.Module) -> dict[str, _Fold]:
    """Batch norms that come next behind a layer of as many units, by the path of that layer's weight."""
    found, before = dict[str, _Fold](), ("", dict[str, nn.Parameter]())
    for path, module in named_modules(model):
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, _BatchNorm):
            weight = before[1].get("weight")
            if weight is not None and module.running_var is not None and len(weight) == module.num_features:
                found[f"{before[0]}.weight".lstrip(".")] = _Fold(module, path, before[1].get("bias"))
        before = (path, own) if own else before
    return found


@final
class GraphMatcher:
    """Matches the weights of a graph with the parameters of a model, one with one."""

    def __init__(self, graph: RuntimeGraph, model: nn.Module) -> None:
        self._graph, self._folds = graph, _folds(model)
        self._own = numbers_of(model)
        self._called = {name.replace(".", "/"): name for name in self._own}
        self._pieces, self._taken = dict[str, Piece](), set[str]()
        self._folded, self._scaled = dict[str, _Fold](), set[str]()
        self._samples = dict[str, Array]()

    def found(self) -> StoredWeights:
        """What belongs together, and the parameters that belong to nothing."""
        weights = [one for one in self._graph.weights if not one.opaque]
        products = [one for one in weights if not one.bias_of]
        for weight in products:
            name = self._named(weight)
            if name:
                self._take(weight, name, max(self._ways(name, weight), key=partial(self._likeness, weight, name)))
        biases = {one.bias_of: one for one in weights if one.bias_of}
        for weight in products:
            if weight.name not in self._pieces and weight.name in biases:
                self._by_bias(weight, biases[weight.name])
        self._by_values([one for one in products if one.name not in self._pieces])
        for weight in (one for one in weights if one.bias_of):
            of = self._pieces.get(weight.bias_of)
            fold = None if of is None else self._folded.get(of.parameter)
            beside = "" if of is None else f"{of.parameter.removesuffix('weight')}bias"
            name = f"{fold.path}.bias" if fold is not None else self._named(weight) or beside
            if name in self._own and name not in self._taken and self._fits(weight, name):
                self._take(weight, name, same if fold is None else fold.shift)
        self._by_values([one for one in weights if one.name not in self._pieces])
        seen = {id(self._own[name]) for name in self._taken if name in self._own}
        left = [name for name, one in self._own.items() if id(one) not in seen or name in self._scaled]
        return StoredWeights(list(self._pieces.values()), unpaired("uncompared", dict.fromkeys(left, "")))

    def _named(self, weight: GraphWeight) -> str:
        """The parameter with a weight's name and as many values; nothing where there is none."""
        name = self._called.get(_ENDS.sub("", weight.name).replace(".", "/"), "")
        held = self._own.get(name)
        return name if held is not None and held.numel() == math.prod(weight.shape) and name not in self._taken else ""

    def _fits(self, weight: GraphWeight, name: str) -> bool:
        return weight.matrix == matrix_of(self._own[name].shape)

    def _ways(self, name: str, weight: GraphWeight) -> list[Change]:
        fold = self._folds.get(name)
        return [same] if fold is None or weight.bias_of else [same, fold.weight]

    def _likeness(self, weight: GraphWeight, name: str, way: Change) -> float:
        """Cosine of matrices; of vectors 1 less the error, for these are often all but constant."""
        if weight.name not in self._samples:
            self._samples[weight.name] = _sampled(weight.rows(self._graph.read(weight.name)))
        key = f"{name} {way is same}"
        if key not in self._samples:
            self._samples[key] = _sampled(to_array(way(self._own[name].detach().float().cpu())))
        one, two = self._samples[weight.name], self._samples[key]
        if weight.matrix[0] > 1:
            lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(two))
            return float(np.vdot(one, two)) / lengths if lengths > 0.0 else 0.0
        size = float(np.linalg.norm(two))
        return 1.0 - float(np.linalg.norm(one - two)) / size if size > 0.0 else 0.0

    def _by_bias(self, weight: GraphWeight, bias: GraphWeight) -> None:
        """Takes a weight as that of the layer whose bias it has, where no other layer has a bias like it.

        So it is known which layer it must be, whatever its values are.
        """
        found: list[tuple[float, str, Change]] = []
        for name in (one for one in self._own if one not in self._taken and self._fits(weight, one)):
            fold = self._folds.get(name)
            ways = [(f"{name.removesuffix('weight')}bias", same, same)]
            ways += [] if fold is None else [(f"{fold.path}.bias", fold.shift, fold.weight)]
            found += [
                (self._likeness(bias, beside, shift), name, way)
                for beside, shift, way in ways
                if beside in self._own and self._fits(bias, beside)
            ]
        alike, name, way = max(found, key=lambda one: one[0], default=(0.0, "", same))
        if alike >= 1.0 - _NEAR and all(one[1] == name or one[0] < 1.0 - _APART for one in found):
            self._take(weight, name, way)

    def _by_values(self, weights: list[GraphWeight]) -> None:
        """Takes pairs, the most alike first."""
        pairs = [
            (self._likeness(weight, name, way), at, name, way)
            for at, weight in enumerate(weights)
            for name in self._own
            if name not in self._taken and self._fits(weight, name)
            for way in self._ways(name, weight)
        ]
        for alike, at, name, way in sorted(pairs, key=lambda pair: -pair[0]):
            least = _LIKE if weights[at].matrix[0] > 1 else 1.0 - _SAME
            if alike >= least and weights[at].name not in self._pieces and name not in self._taken:
                self._take(weights[at], name, way)

    def _take(self, weight: GraphWeight, name: str, way: Change) -> None:
        self._taken.add(name)
        if weight.matrix[0] > 1 and self._by_columns(weight, way(self._own[name].detach().float().cpu())):
            self._scaled.add(name)
            return
        fold = self._folds.get(name)
        if fold is not None and way is not same:
            self._folded[name] = fold
            self._taken |= {f"{fold.path}.{part}" for part in ("weight", "running_mean", "running_var")}
            self._taken.add(f"{name.removesuffix('weight')}bias")
        bare = _ENDS.sub("", weight.name).replace(".", "/")
        self._pieces[weight.name] = Piece(
            name=weight.name if self._called.get(bare) == name else f"{weight.name.rpartition('/')[2]}: {name}",
            parameter=name, format=_format(weight), shape=weight.matrix,
            read=lambda start, stop: weight.rows(self._graph.read(weight.name), start, stop),
            laid=lambda held: way(held).reshape(matrix_of(held.shape)),
            ours=partial(_rounded, weight),
        )  # fmt: skip

    def _by_columns(self, weight: GraphWeight, made: Tensor) -> bool:
        """Whether each column of a weight is the parameter's by a factor of its own.

        Exporters fold the gains of a layer norm into the layers behind it, and smoothing moves large inputs into them.
        """
        if matrix_of(made.shape) != weight.matrix:
            return False
        held, first = weight.rows(self._graph.read(weight.name)), to_array(made).reshape(weight.matrix)
        size = np.maximum((first * first).sum(0), np.finfo(np.float32).tiny)
        products = (held * first).sum(0)
        whole, each = (
            float(np.linalg.norm(held - first * factor)) for factor in (products.sum() / size.sum(), products / size)
        )
        return whole > _ROUNDED * float(np.sqrt(size.sum())) and each < _SCALED * whole


def _sampled(values: Array) -> Array:
    """Some of a tensor's values, in one line: the same ones of each tensor of a size."""
    return values.reshape(1, -1)[:, :: (values.size // _SAMPLED) | 1]


def _format(weight: GraphWeight) -> str:
    grid = weight.grid
    if grid is None or weight.matrix[0] == 1:
        return weight.dtype.name
    each = f"block of {grid.block}" if grid.block else "tensor" if grid.scale.size == 1 else "channel"
    return f"{weight.dtype.name} per {each}"


def _rounded(weight: GraphWeight, rows: Array, start: int) -> Array:
    """Our own rounding of the original's rows: to the grid of the file, or to the one that it must have been."""
    grid = weight.grid_of_rows(start, start + len(rows))
    if grid is None or weight.grid is None:
        return rows.astype(weight.dtype).astype(np.float32)
    if weight.matrix[0] > 1 and weight.grid.scale.size > 1 and weight.dtype.itemsize == 1:
        parts = rows.reshape(-1, grid.block or rows.shape[1])
        needed = 2.0 * np.abs(parts).max(1, keepdims=True) / (grid.high - grid.low)
        most = np.broadcast_to(needed, parts.shape).reshape(rows.shape)
        scale = np.where((grid.scale > _COARSE * most) & (most > 0.0), most, grid.scale)
        grid = replace(grid, scale=scale.astype(np.float32))
    return grid.values(grid.codes(rows))
