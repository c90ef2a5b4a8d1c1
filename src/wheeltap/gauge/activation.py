"""What an activation lets through, tried on a few numbers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_TRIED = (-3.0, -1.5, -0.5, -0.1, 0.0, 0.2, 0.7, 1.6, 3.1, 7.0)
_FACTORS = (0.25, 3.0)


class Traits(NamedTuple):
    """What holds for an activation that acts unit by unit.

    Attributes:
        homogeneous: A positive factor passes through.
        silent: Zero stays zero, exactly.
    """

    homogeneous: bool
    silent: bool

    def then(self, other: "Traits") -> "Traits":
        """What holds for this activation followed by another."""
        return Traits(self.homogeneous and other.homogeneous, self.silent and other.silent)


TRANSPARENT = Traits(homogeneous=True, silent=True)
"""Nothing in the way."""


def traits(function: Callable[[Tensor], Tensor]) -> Traits | None:
    """The traits of ``function``; ``None`` if an output depends on more than the input at its own place."""
    values = torch.tensor([_TRIED])
    try:
        with torch.no_grad():
            whole = function(values.clone())
            alone = torch.cat([function(values[:, [k]]) for k in range(values.shape[1])], dim=1)
            # Backwards as well: a slope per place would pass the first comparison.
            turned = function(values.flip(1)).flip(1)
            scaled = [(function(factor * values), factor * whole) for factor in _FACTORS]
            zero = bool((function(torch.zeros(1, 1)) == 0).all())
    except Exception:
        return None
    if whole.shape != values.shape or not (_alike(whole, alone) and _alike(whole, turned)):
        return None
    return Traits(all(_alike(one, two) for one, two in scaled), zero)


def _alike(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-5, atol=1e-6)
