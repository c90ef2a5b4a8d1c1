"""Noise: drawn weight by weight, or scaled by the inputs and outputs of each layer.

*Function-space noise* is not scaled by how weights are parametrized. For a layer y = W x with input second moment
C_x = E[x x'] = L L':

    dW = dose x W L G L^-1 / sqrt(rank C_x),   G standard Gaussian,

so that on the task's own inputs E|dW x|^2 = dose^2 E|y|^2, whatever linear coordinates x and y are written in.
A bias is the weight of a constant input 1. The square root is a Cholesky factor (pivoted where rank is deficient), not
a symmetric one: rescaled units then meet the same draw.

G belongs to the input, not to the layer: all that read one input share it, so that rows get the noise they get whether
they are in one module or in several (q, k and v fused or split). What surely is one map is disturbed as one: a layer
whose output a batch norm alone reads gets its scale from what the norm gives, and of two linear layers in a row only
the first one is disturbed.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, final

import numpy as np
import scipy.linalg.lapack as untyped_lapack
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.core.typed import squares, to_array, to_tensor
from wheeltap.perturb.base import BY, EVERY_GAUGE, BlockFactors, Draw, Factors, Noise, Weights, at_least_single


class NoiseDrawSettings(Settings, frozen=True, kw_only=True):
    """Settings of noise drawn weight by weight.

    Attributes:
        draw: ``gaussian``, or ``sign`` (every weight moves by exactly the dose, up or down: cheaper, and a
            distribution of its own).
    """

    draw: Literal["gaussian", "sign"] = "gaussian"


class _Elementwise(Noise):
    version = 3  # since 3 the bits are those that a device computes too
    settings_type: ClassVar[type[Settings]] = NoiseDrawSettings

    @property
    def kind(self) -> Literal["normal", "signs"]:
        """Which numbers are drawn."""
        return "signs" if self.settings.draw == "sign" else "normal"

    @abstractmethod
    def scale(self, weights: Tensor) -> Tensor:
        """What each number is multiplied by: one for all, or as many as there are weights."""

    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """Independent numbers of unit variance, each times its scale."""
        take, bias = draw.signs if self.kind == "signs" else draw.normal, weights.bias

        def scaled(name: str, held: Tensor) -> Tensor:
            like = at_least_single(held)
            return take(name, tuple(like.shape), like=like).mul_(self.scale(like))

        return Weights(scaled(layer.weight, weights.weight), None if bias is None else scaled(layer.bias or "", bias))

    def write(self, held: Weights, layer: Layer, weights: Weights, dose: float, draw: Draw) -> float | None:
        """See ``Noise.write``: the same numbers as along ``direction``, a few at a time.

        So they are drawn, scaled, added and measured while they are in the processor's cache: weights are read once
        and written once.
        """
        parts = [(weights.weight, held.weight, layer.weight)]
        if weights.bias is not None and held.bias is not None:
            parts.append((weights.bias, held.bias, layer.bias or ""))
        if not all(_plain(clean) and _plain(out) for clean, out, _ in parts):
            return super().write(held, layer, weights, dose, draw)
        length = 0.0
        for clean, out, name in parts:
            scale, fill = self.scale(clean), draw.stream(self.kind, name)
            flat, into = clean.view(-1), out.data.view(-1)
            drawn, each = torch.empty(BY, dtype=torch.float32), scale.view(-1) if scale.ndim else None
            for start in range(0, len(flat), BY):
                part = slice(start, start + BY)
                new = into[part] if into.dtype is torch.float32 else drawn[: len(into[part])]
                fill(to_array(new))
                new.mul_(scale if each is None else each[part])
                if self.kind == "normal":
                    length += squares(new)
                torch.add(flat[part], new, alpha=dose, out=into[part])
        return length if self.kind == "normal" else None

    def squared_length(self, weights: Weights) -> float | None:
        """Known for signs: every number is its scale or minus that."""
        if self.kind == "normal":
            return None
        parts = (weights.weight, *(() if weights.bias is None else (weights.bias,)))
        return sum(squares(self.scale(part).expand_as(part)) for part in parts)


@final
class RelativeNoise(_Elementwise):
    """Each weight times (1 + dose x e): how the function is written in coordinates.

    Rescaling a unit in and out rescales its noise alike, so the disturbed function has the same distribution;
    redundant or cancelling weights are disturbed each on its own, so redundancy is seen.
    """

    name = "relative"
    title = "relative noise"
    unit = "share of each weight (sd)"
    lowest, highest = 0.0, 4096.0
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "rescale", "dead", "heads", "experts", "fold"})

    def scale(self, weights: Tensor) -> Tensor:
        """The weights themselves."""
        return weights


@final
class StdNoise(_Elementwise):
    """Noise with the standard deviation of the whole tensor times the dose. Not invariant to rescaling units.

    Shipped because it is what most people use, and to show why it is not the default: a rescaled copy of the same
    function looks broken to it.
    """

    name = "std"
    title = "std-normalized noise"
    unit = "standard deviations of the tensor"
    lowest, highest = 0.0, 4096.0
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})

    def scale(self, weights: Tensor) -> Tensor:
        """The tensor's standard deviation."""
        return at_least_single(weights).std(correction=0)


def _plain(tensor: Tensor) -> bool:
    """Whether its numbers lie one after another where they are drawn, and none is finer than what is drawn."""
    return tensor.is_cpu and tensor.dtype.itemsize <= torch.float32.itemsize and tensor.is_contiguous()


SUPPORT_TOLERANCE = 1e-9
"""Share of an input's variance below which what the others leave unexplained is rounding, not signal."""

SUPPORT_IN_16_BITS = 1e-4
"""The same for weights of 16 bits: they cannot resolve a direction of less variance, and noise along it would be
rounded into all others."""


@final
class FunctionNoise(Noise):
    """Noise scaled by each layer's own inputs and outputs: invariant to every linear reparametrization of them.

    Every gauge is one. Units that repeat others (split, cancelling or entangled ones) add no direction to what is read
    and are disturbed as what they repeat; dead ones have no scale; a shift moves what a constant input writes. How maps
    are cut into modules makes no difference. Pairs that cancel but read something new (jitter above 0) do add
    directions: those are not claimed.
    """

    name = "function"
    version = 5  # since 5 the bits are those that a device computes too
    title = "function-space noise"
    unit = "share of each layer's output (rms)"
    lowest, highest = 0.0, 4096.0
    needs = "moments"
    invariant_to: ClassVar[frozenset[str]] = EVERY_GAUGE

    def accepts(self, layer: Layer) -> bool:
        """All but tied weights: one matrix with two input spaces has no single invariant scale."""
        return not layer.tied

    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """``out G whiten / sqrt(rank)``, split into weight and bias."""
        known, dtype = draw.known, at_least_single(weights.weight.new_empty(0)).dtype
        if isinstance(known, BlockFactors):
            rows = layer.units // len(known.factors)
            width = layer.fan_in + (weights.bias is not None)
            still = weights.weight.new_zeros(rows, width, dtype=dtype)
            change = torch.cat([still if one is None else _change(layer, one, draw).to(dtype) for one in known.factors])
        elif isinstance(known, Factors):
            change = _change(layer, known, draw)
        else:
            raise ModelError("Function-space noise needs the layer's moments.", where=layer.name)
        if isinstance(known, Factors) and known.table:
            return Weights(change.T.reshape(layer.shape).to(dtype))
        bias = None if weights.bias is None else change[:, layer.fan_in].reshape(weights.bias.shape)
        along = layer.stored(change[:, : layer.fan_in]).to(dtype)
        return Weights(along, None if bias is None else bias.to(dtype))


def _change(layer: Layer, factors: Factors, draw: Draw) -> Float[Tensor, "unit inputs"]:
    """``out G whiten / sqrt(rank)``; zero where the layer's inputs or outputs are all zero on the task."""
    rank = len(factors.whiten)
    root = (factors.out @ _drawn(layer, factors, draw)).mul_(max(rank, 1) ** -0.5)
    change = root * factors.whiten if factors.whiten.ndim == 1 else root @ factors.whiten
    if factors.support is None:
        return change
    return change.new_zeros(len(root), layer.fan_in).index_copy_(1, factors.support, change)


def _drawn(layer: Layer, factors: Factors, draw: Draw) -> Tensor:
    """G, ``[rank_out, rank]``: its part without the constant is the same for all that read the input."""
    name, (below, beside) = factors.name or layer.weight, factors.constant
    rows, columns = factors.out.shape[1] - below, len(factors.whiten) - beside
    drawn = draw.normal(name, (rows, columns), like=factors.out)
    if not (below or beside):
        return drawn
    edge = draw.normal(f"{name} constant", (rows + columns + 1,), like=factors.out)
    if beside:
        drawn = torch.cat([drawn, edge[:rows, None]], 1)
    if not below:
        return drawn
    last = torch.cat([edge[rows:-1], edge[-1:]]) if beside else edge[rows:-1]
    return torch.cat([drawn, last[None]])


def require_finite(moment: Float[np.ndarray, "d d"]) -> None:
    """Raises ``ModelError`` if a moment of inputs is not finite."""
    if not np.isfinite(moment).all():
        raise ModelError(
            "A layer's inputs are not finite on the task.",
            expected="finite activations",
            got="NaN or infinite",
            do="Check the model and the task's inputs.",
        )


def factor(
    moment: Float[np.ndarray, "d d"], *, tolerance: float = SUPPORT_TOLERANCE
) -> tuple[Float[np.ndarray, "d rank"], Float[np.ndarray, "rank d"]]:
    """Lower factor L with L L' = ``moment`` and P with P L = 1, on the moment's support.

    The moment is first scaled to unit diagonal, so that neither the pivots nor the rank depend on the units in
    which each input is written.

    Args:
        moment: Second moment of the inputs.
        tolerance: Share of an input's variance below which what the others leave unexplained is no direction of its
            own.

    Raises:
        ModelError: If the moment is not finite.
    """
    require_finite(moment)
    scale = np.sqrt(np.diag(moment))
    live = np.flatnonzero(scale > 0)
    size = len(moment)
    if len(live) == 0:
        return np.zeros((size, 0)), np.zeros((0, size))
    unit = moment[np.ix_(live, live)] / np.outer(scale[live], scale[live])
    np.fill_diagonal(unit, 1.0)  # exactly, or rounding would choose the first pivot and a re-coded twin another one
    lapack = cast(Any, untyped_lapack)
    lower, failed = lapack.dpotrf(unit, lower=1, clean=1)
    if failed == 0 and float(np.diag(lower).min()) ** 2 > tolerance:
        order, rank = np.arange(len(live)), len(live)
    else:
        lower, pivots, rank, _ = lapack.dpstrf(unit, tol=tolerance, lower=1)
        order, lower = pivots - 1, np.tril(lower)[:, :rank]
    inverse, _ = lapack.dtrtri(np.ascontiguousarray(lower[:rank]), lower=1)
    spread, whiten = np.zeros((size, rank)), np.zeros((rank, size))
    spread[live[order]] = lower * scale[live[order], None]
    # Inputs outside the pivots are linear combinations of them on the support: the pivots say it all.
    whiten[:, live[order[:rank]]] = np.tril(inverse) / scale[live[order[:rank]]]
    return spread, whiten


@dataclass(frozen=True)
class InputFactors:
    """Of one input: its factor, how much of a constant 1 lies in it, and what is left of that.

    Attributes:
        spread: ``[d, rank]``: L.
        whiten: ``[rank, d]``: its inverse on the support.
        along: ``[rank]``: E[z] of the whitened inputs z.
        beyond: Root mean square of what no linear map of the inputs makes of the constant; 0 where there is nothing.
    """

    spread: Tensor
    whiten: Tensor
    along: Tensor
    beyond: float

    def output_root(self, weight: Tensor, offset: Tensor | None) -> Tensor:
        """Square root ``[unit, rank (+1)]`` of the moment of ``weight @ x + offset``."""
        out = weight @ self.spread
        if offset is None:
            return out
        out = out + offset[:, None] * self.along
        return torch.cat([out, offset[:, None] * self.beyond], 1) if self.beyond else out

    @property
    def whiten_with_constant(self) -> Tensor:
        """``[rank (+1), d + 1]``: whitens inputs and a constant 1 together."""
        if not self.beyond:
            return functional.pad(self.whiten, (0, 1))
        last = torch.cat([-self.along @ self.whiten, self.along.new_ones(1)]) / self.beyond
        return torch.cat([functional.pad(self.whiten, (0, 1)), last[None]])


def input_factors(
    moment: Float[np.ndarray, "d d"], mean: Float[np.ndarray, " d"], *, tolerance: float, like: Tensor
) -> InputFactors:
    """See ``InputFactors``; with dtype and device of ``like``.

    Args:
        moment: Second moment of the inputs.
        mean: Their mean.
        tolerance: See ``factor``.
        like: In single precision or better.
    """
    spread, whiten = factor(moment, tolerance=tolerance)
    along = whiten @ mean
    left = 1.0 - float(along @ along)
    parts = (to_tensor(part, like=like) for part in (spread, whiten, along))
    return InputFactors(*parts, beyond=left**0.5 if left > tolerance else 0.0)
