"""Function-space noise: noise scaled by what each layer reads and gives, not by how its weights are parametrized.

For a layer y = W x with input second moment C_x = E[x x'] = L L':

    dW = dose x W L G L^-1 / sqrt(rank C_x),   G standard Gaussian,

so that on the task's own inputs E|dW x|^2 = dose^2 E|y|^2, whatever linear coordinates x and y are written in.
A bias is the weight of a constant input 1. The square root is a Cholesky factor (pivoted where rank is deficient), not
a symmetric one: rescaled units then meet the same draw.

G belongs to the input, not to the layer: all that read one input share it, so that rows get the noise they get whether
they are in one module or in several (q, k and v fused or split). What surely is one map is disturbed as one: a layer
whose output a batch norm alone reads gets its scale from what the norm gives, and of two linear layers in a row only
the first one is disturbed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

import numpy as np
import scipy.linalg.lapack as untyped_lapack
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.typed import to_tensor
from wheeltap.perturb.base import EVERY_GAUGE, Blocks, Draw, Factors, Noise, Weights

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
    version = 4  # since 4 layers that read one input share what is drawn
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
        known = draw.known
        if isinstance(known, Blocks):
            rows = layer.units // len(known.factors)
            width = layer.fan_in + (weights.bias is not None)
            still = weights.weight.new_zeros(rows, width)
            change = torch.cat(
                [still if one is None else _change(layer, one, draw).to(still.dtype) for one in known.factors]
            )
        elif isinstance(known, Factors):
            change = _change(layer, known, draw)
        else:
            raise ModelError("Function-space noise needs the layer's moments.", where=layer.name)
        if isinstance(known, Factors) and known.table:
            return Weights(change.T.reshape(layer.shape).to(weights.weight.dtype))
        bias = None if weights.bias is None else change[:, layer.fan_in].reshape(weights.bias.shape)
        along = layer.stored(change[:, : layer.fan_in]).to(weights.weight.dtype)
        return Weights(along, None if bias is None or weights.bias is None else bias.to(weights.bias.dtype))


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
