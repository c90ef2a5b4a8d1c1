"""Number formats of four bits: the nearest of sixteen (fifteen) values.

Source: Dettmers et al. (2023), "QLoRA", arXiv 2305.14314, appendix E (NF4); Open Compute Project (2023),
"Microscaling Formats", section 5.3.3 (FP4, E2M1).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Codebook = Literal["nf4", "fp4"]

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution scaled to [-1, 1], with an exact zero."""

LARGEST: dict[Codebook, float] = {"nf4": 1.0, "fp4": 6.0}
"""The largest number of each format."""

_BINS = 64
_CHUNK = 65_536
"""Numbers rounded at a time: what they need on the way stays in the processor's cache."""


def snap(scaled: Tensor, codebook: Codebook) -> Tensor:
    """``scaled``, none beyond the format's largest number, rounded in place to the nearest number of the format."""
    flat = scaled.view(-1)
    rounded: Callable[[Tensor], Tensor] = _Nearest(NF4, like=scaled) if codebook == "nf4" else _fp4
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        part.copy_(rounded(part))
    return scaled


class _Nearest:
    """The nearest of sorted values in [-1, 1]; the lower one where two are as near.

    A number's place on a fine uniform grid tells the two values and the midpoint between them that it can be nearest
    to, so that it is compared once and not, as in a binary search, four times (six times faster on a CPU).
    """

    def __init__(self, values: tuple[float, ...], *, like: Tensor) -> None:
        table = torch.tensor(values, dtype=like.dtype, device=like.device)
        middles = (table[1:] + table[:-1]) / 2
        edges = torch.linspace(-1, 1, _BINS + 1, dtype=like.dtype, device=like.device)[:-1]
        below = torch.searchsorted(middles, edges)
        ends = torch.cat([middles, torch.full_like(middles[:1], torch.inf)])
        self._low, self._high = table[below], table[(below + 1).clamp_max(len(values) - 1)]
        self._middle = ends[below]

    def __call__(self, scaled: Tensor) -> Tensor:
        """The nearest values, in the shape of ``scaled``."""
        at = scaled.add(1.0).mul_(_BINS / 2).clamp_(0, _BINS - 1).int()
        low, high = self._low.index_select(0, at), self._high.index_select(0, at)
        return torch.where(scaled > self._middle.index_select(0, at), high, low)


def _fp4(scaled: Tensor) -> Tensor:
    """Steps of .5 up to 2, of 1 up to 4, of 2 up to 6; halfway to the number whose mantissa bit is 0."""
    size = scaled.abs()
    step = (size >= 2).to(scaled.dtype).mul_(0.5).add_(0.5).add_(size >= 4)
    return (scaled / step).round_().mul_(step)
