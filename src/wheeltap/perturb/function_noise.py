"""Function-space noise: noise scaled by what each layer reads and gives, not by how its weights are parametrized.

For a layer y = W x with input second moment C_x = E[x x'] and output second moment C_y:

    dW = dose x sqrt(C_y) G C_x^(-1/2) / sqrt(rank C_x),   G standard Gaussian,

so that on the task's own inputs E|dW x|^2 = dose^2 E|y|^2, whatever linear coordinates x and y are written in.
A bias is the weight of a constant input 1. The square roots are Cholesky factors (pivoted where rank is
deficient), not symmetric ones: rescaled units then meet the same draw. C_y is that of all outputs of a module, so
the noise does depend on how maps are cut into modules: q, k and v fused into one layer get other noise than split ones.
"""

from typing import Any, ClassVar, cast, final

import numpy as np
import scipy.linalg.lapack as untyped_lapack
from jaxtyping import Float
from torch import Tensor

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.perturb.base import EVERY_GAUGE, Draw, Factors, Noise, Weights

SUPPORT_TOLERANCE = 1e-9
"""Share of an input's variance below which what the others leave unexplained is rounding, not signal."""

SUPPORT_IN_16_BITS = 1e-4
"""The same for weights of 16 bits: they cannot resolve a direction of less variance, and noise along it would be
rounded into all others."""


@final
class FunctionNoise(Noise):
    """Noise scaled by each layer's own inputs and outputs: invariant to every linear reparametrization of them.

    Every gauge is one, and keeps how the maps are cut into modules. Units that repeat others (split, cancelling or
    entangled ones) add no direction to what is read and are disturbed as what they repeat; dead ones have no scale; a
    shift moves what a constant input writes. Pairs that cancel but read something new (jitter above 0) do add
    directions: those are not claimed.
    """

    name = "function"
    version = 3  # since 3 layers share a moment only where they read alike, and factors are of 32 bits or more
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
        if not isinstance(draw.known, Factors):
            raise ModelError("Function-space noise needs the layer's moments.", where=layer.name)
        change = _change(layer, draw.known, draw)
        fan_in = layer.fan_in
        bias = None if weights.bias is None else change[:, fan_in].to(weights.bias.dtype)
        return Weights(layer.stored(change[:, :fan_in]).to(weights.weight.dtype), bias)


def _change(layer: Layer, factors: Factors, draw: Draw) -> Float[Tensor, "unit inputs"]:
    """``out G whiten / sqrt(rank)``; zero where the layer's inputs or outputs are all zero on the task."""
    rank = len(factors.whiten)
    drawn = draw.normal(layer.weight, (factors.out.shape[1], rank), like=factors.out)
    root = (factors.out @ drawn).mul_(max(rank, 1) ** -0.5)
    change = root * factors.whiten if factors.whiten.ndim == 1 else root @ factors.whiten
    if factors.support is None:
        return change
    return change.new_zeros(layer.units, layer.fan_in).index_copy_(1, factors.support, change)


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
    if not np.isfinite(moment).all():
        raise ModelError(
            "A layer's inputs are not finite on the task.",
            expected="finite activations",
            got="NaN or infinite",
            do="Check the model and the task's inputs.",
        )
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


def output_root(weight: Tensor, bias: Tensor | None, spread: Tensor) -> Tensor:
    """Square root ``[unit, rank]`` of the layer's output moment, from that of its inputs: [W b] L."""
    out = weight @ spread[: weight.shape[1]]
    return out if bias is None else out + bias[:, None] * spread[weight.shape[1]]
