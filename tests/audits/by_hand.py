"""Deployment by hand: rounding, pruning and storing written from their papers, and a slow test of what they cost.

Nothing here is shared with the package: rows are rounded in loops, and what random weights say is drawn.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from torch import Tensor, nn

Array = NDArray[np.float64]


def hall_interval(x: Array, level: float = 0.95) -> tuple[float, float]:
    """Means whose transformed t lies within Student's quantiles (Hall 1992), by bisection."""
    n, spread, g = len(x), x.std(ddof=1), float(stats.skew(x))

    def transformed(mean: float) -> float:
        u = (x.mean() - mean) / spread
        return float(np.sqrt(n) * (u + g * u**2 / 3.0 + g**2 * u**3 / 27.0 + g / (6.0 * n)))

    far, t = 30.0 * spread / np.sqrt(n), stats.t.ppf((1.0 + level) / 2.0, n - 1)
    high = optimize.brentq(lambda mean: transformed(mean) + t, x.mean() - far, x.mean() + far, xtol=1e-14)
    low = optimize.brentq(lambda mean: transformed(mean) - t, x.mean() - far, x.mean() + far, xtol=1e-14)
    return float(low), float(high)


Change = Callable[[Tensor], Tensor]
"""Of a weight ``[output, input]``."""


def on_grid(numbers: Tensor, bits: int) -> Tensor:
    """Rounded to the symmetric grid that ends at the largest of them."""
    most = float(numbers.abs().max())
    if most == 0.0:
        return numbers.clone()
    step = numbers.abs().max() / (2 ** (bits - 1) - 1)
    return torch.round(numbers / step) * step


def rounded(bits: int, *, group: int | None = None, tensor: bool = False) -> Change:
    """One grid per output channel, per group of consecutive inputs, or for all."""

    def change(weight: Tensor) -> Tensor:
        if tensor:
            return on_grid(weight.reshape(-1), bits).reshape(weight.shape)
        rows: list[Tensor] = []
        for row in weight:
            rows.append(torch.cat([on_grid(part, bits) for part in row.split(group or len(row))]))
        return torch.stack(rows)

    return change


def pruned(share: float) -> Change:
    """The smallest of all weights set to zero."""

    def change(weight: Tensor) -> Tensor:
        order = weight.abs().reshape(-1).argsort()
        flat = weight.reshape(-1).clone()
        flat[order[: round(share * len(flat))]] = 0.0
        return flat.reshape(weight.shape)

    return change


def changed(
    model: nn.Module, change: Change, *, layers: Iterable[str] | None = None, turned: bool = False
) -> nn.Module:
    """A deep copy with its linear layers changed, or those named; ``turned`` are stored ``[input, output]``."""
    made = copy.deepcopy(model)
    names = [n for n, m in made.named_modules() if isinstance(m, nn.Linear)] if layers is None else layers
    with torch.no_grad():
        for name in names:
            weight = made.get_parameter(f"{name}.weight")
            new = change(weight.detach().T.contiguous() if turned else weight.detach())
            weight.copy_(new.T if turned else new)
    return made


@dataclass(frozen=True)
class Slow:
    """What one loss shows, by hand, of one draw.

    Attributes:
        value: Mean loss.
        ends: Of the 95 % interval: Student's t; of 0/1 answers with two imaginary ones, one lost and one gained.
        above: P-value of "at most the margin".
        below: P-value of "at least the margin".
    """

    value: float
    ends: tuple[float, float]
    above: float
    below: float

    @classmethod
    def of(cls, lost: Array, *, margin: float, one_sided: bool = True, most: float = 1.0) -> "Slow":
        """The test of losses ``[example]`` of whole answers against a margin; ``most`` is what one can be.

        Of a pair, one net may lose an answer and the other gain it: then no imaginary answers are added.
        """
        bounded, value = bool(np.abs(lost).max() <= 1.0), float(lost.mean())
        seen = np.concatenate([lost, [1.0, -1.0]]) if bounded else lost
        df, centre, error = len(seen) - 1, float(seen.mean()), float(seen.std(ddof=1)) / np.sqrt(len(seen))
        half = float(stats.t.ppf(0.975, df)) * error
        ends = (min(centre - half, value), max(centre + half, value))

        def beyond(distance: float) -> float:
            return 1.0 if distance <= 0.0 else 2.0 * float(stats.t.sf(distance / error, df))

        def short(sign: float) -> float:
            x = sign * lost
            if x.mean() >= margin:
                return 1.0
            return max(beyond(margin - sign * centre), _weighed(x, most, margin))

        sides = [short(sign) for sign in ((1.0,) if one_sided else (1.0, -1.0))]
        return cls(value, ends, beyond(abs(centre) - margin), max(sides))


def _weighed(lost: Array, most: float, margin: float) -> float:
    """How often the mean under random weights reaches the margin, one imaginary loss of ``most`` among the losses."""
    stream = np.random.default_rng(0)
    values, counts = np.unique(np.append(lost, most), return_counts=True)
    weights = [stream.gamma(count, size=200_000) for count in counts]
    means = sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
    return min(1.0, 2.0 * float((means >= margin).mean()))


def holm(p: list[float]) -> list[float]:
    """Adjusted for how many there are: the smallest by all, the next by one fewer, never out of order."""
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        worst = max(worst, min(1.0, p[at] * (len(p) - rank)))
        adjusted[at] = worst
    return adjusted


def statuses(tests: list[Slow], *, alpha: float = 0.05, one_sided: list[bool]) -> list[str]:
    """Found, excluded or inconclusive, with either side corrected by itself."""
    above, below = holm([one.above for one in tests]), holm([one.below for one in tests])
    found = [
        p <= alpha and not (side and one.value <= 0.0) for one, p, side in zip(tests, above, one_sided, strict=True)
    ]
    return [
        "found" if shown else "excluded" if p <= alpha else "inconclusive"
        for shown, p in zip(found, below, strict=True)
    ]
