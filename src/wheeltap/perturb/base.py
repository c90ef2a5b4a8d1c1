"""What a perturbation is: weights in, other weights out; nothing else is touched."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wheeltap.core import device_draws, seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.registry import Registry
from wheeltap.core.settings import Component
from wheeltap.core.typed import squares, to_array


@dataclass(frozen=True)
class Weights:
    """A layer's weight and bias, in the layout the module stores."""

    weight: Tensor
    bias: Tensor | None = None

    @property
    def squared_norm(self) -> float:
        """Sum of the squares of all of them."""
        return squares(self.weight) + (0.0 if self.bias is None else squares(self.bias))


@dataclass(frozen=True)
class Factors:
    """What function-space noise knows of one layer, or of one block of its rows (see ``FunctionNoise``).

    Attributes:
        out: ``[unit, rank_out]``: a square root of the second moment of the outputs.
        whiten: ``[rank, fan_in (+1)]``: maps inputs (and a constant 1, where the layer has a bias) to
            coordinates of unit second moment; ``[rank]`` where the map is diagonal.
        support: Input indices that the columns of ``whiten`` stand for; all where ``None``.
        name: Of the input, as the order of inputs in a pass says: layers that read one input share what is drawn.
            Where it is empty, the weight's name is taken.
        constant: Whether the last column of ``out``, and whether the last row of ``whiten``, is that of the constant:
            what else is drawn is then drawn alike for layers with and without a bias.
        table: Whether they are of a table ``[place, unit]`` that is added as it is.
    """

    out: Tensor
    whiten: Tensor
    support: Tensor | None = None
    name: str = ""
    constant: tuple[bool, bool] = (False, False)
    table: bool = False


@dataclass(frozen=True)
class BlockFactors:
    """What it knows of a layer whose rows read different inputs: experts, groups of channels, queries and values.

    Attributes:
        factors: Of equal blocks of rows, in order; ``None`` for one that the task hardly reaches.
    """

    factors: tuple[Factors | None, ...]

    @property
    def reached(self) -> float:
        """Share of the rows that the task says enough of to disturb them."""
        return sum(one is not None for one in self.factors) / len(self.factors)


@dataclass(frozen=True)
class InputScale:
    """How large one layer's inputs are on the task.

    Attributes:
        rms: ``[fan_in]``: root mean square of each input; of a token's indicator, for an embedding.
    """

    rms: Tensor


@dataclass(frozen=True)
class HeadMoments:
    """What each head of one attention layer hands to the layer's output projection on the task.

    Attributes:
        second: ``[head, width, width]``: second moment of each head's ``width`` numbers, over all places.
    """

    second: Tensor


@dataclass(frozen=True)
class Slopes:
    """How the task's mean loss changes with one layer's weights.

    Attributes:
        weight: Gradient of the mean cross-entropy (squared error) by each weight, as stored.
    """

    weight: Tensor


Known = Factors | BlockFactors | InputScale | HeadMoments | Slopes | Weights
"""What a perturbation may need to know of a layer beyond its weights; ``Weights`` are those of another checkpoint."""

Need = Literal["", "moments", "inputs", "heads", "slopes", "tuned", "other"]
"""Which of these: layer moments, input scales, moments of heads, slopes, weights after fine-tuning, another subject's
weights."""


_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_SIGNS = (2.0 * _BITS - 1.0).astype(np.float32).view("V32")[:, 0]
"""The eight signs of each byte: +1 for a bit that is set, from the highest to the lowest."""

BY = 2**17
"""Numbers that are drawn together: few enough to stay in the processor's cache, and whole steps of both streams."""


@dataclass(frozen=True)
class Draw:
    """The randomness of one trial: a named stream per tensor, the same on every device.

    Attributes:
        root: The plan's root seed.
        seed: Index of the draw.
        known: What the perturbation needs to know of the layer at hand.
    """

    root: int
    seed: int
    known: Known | None = None

    def normal(self, name: str, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        """Independent standard normal numbers, with dtype and device of ``like``."""
        return self._drawn("normal", name, shape, like=like)

    def signs(self, name: str, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        """Independent -1 or +1 with equal probability, with dtype and device of ``like``."""
        return self._drawn("signs", name, shape, like=like)

    def stream(self, kind: Literal["normal", "signs"], name: str) -> Callable[[NDArray[np.float32]], None]:
        """What writes the next of these numbers to a flat array; all but the last one take multiples of ``BY``."""
        return partial(
            seeds.fill_normal if kind == "normal" else _fill_signs, seeds.words(self.root, kind, self.seed, name)
        )

    def _drawn(self, kind: Literal["normal", "signs"], name: str, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        if like.is_cuda:
            on_device = device_draws.normal if kind == "normal" else device_draws.signs
            words = seeds.words(self.root, kind, self.seed, name)
            return on_device(words, math.prod(shape), like.device).view(shape).to(like.dtype)
        drawn = torch.empty(shape, dtype=torch.float32, device="cpu")  # whatever the defaults are
        self.stream(kind, name)(to_array(drawn.view(-1)))
        return drawn.to(device=like.device, dtype=like.dtype)


def _fill_signs(words: np.random.PCG64DXSM, out: NDArray[np.float32]) -> None:
    """Writes a sign for each bit of the next words, eight at a time: bytes are looked up, bits are not unpacked."""
    for start in range(0, len(out), BY):
        part = out[start : start + BY]
        held = words.random_raw((len(part) + 63) // 64).astype("<u8", copy=False).view(np.uint8)
        eights, rest = divmod(len(part), 8)
        # "clip" spares numpy a check of the indices; a byte is never out of range.
        _SIGNS.take(held[:eights], mode="clip", out=part[: 8 * eights].view(_SIGNS.dtype))
        if rest:
            part[8 * eights :] = _SIGNS[held[eights : eights + 1]].view(np.float32)[:rest]


class Perturbation(Component, ABC):
    """A pure function (weights, layer, dose, draw) -> replaced weights.

    Attributes:
        version: Raise it whenever the same settings would give other weights: it is part of every trial's key.
        title: In plain words.
        unit: Unit of the dose.
        lowest: Smallest dose allowed.
        highest: Largest dose allowed.
        identity: The dose that changes nothing; ``None`` where no dose does.
        random: Whether the draw matters.
        whole: What its doses count, where they are whole numbers, as a noun that begins a sentence; else empty.
        needs: What must be known of each layer first, if anything; ``Draw.known`` holds it.
        changes: Weights alone; weights and what their layers are given; or, and no weights, the keys and values that a
            model caches of earlier tokens.
        invariant_to: Gauges whose copies it disturbs in the same way, in distribution. It is sensitive to all else.
    """

    noun = "perturbation"
    version: ClassVar[int] = 1
    title: ClassVar[str]
    unit: ClassVar[str]
    lowest: ClassVar[float]
    highest: ClassVar[float]
    identity: ClassVar[float | None] = 0.0
    random: ClassVar[bool] = True
    whole: ClassVar[str] = ""
    needs: ClassVar[Need] = ""
    changes: ClassVar[Literal["weights", "inputs", "cache"]] = "weights"
    invariant_to: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The layer's disturbed weights; ``weights`` itself is left alone."""

    def activation(self, values: Tensor, dose: float) -> Tensor:
        """What takes the place of ``values`` ``[..., feature]``: inputs of a layer, or keys or values of a head."""
        return values

    def accepts(self, layer: Layer) -> bool:
        """Whether this perturbation is defined on ``layer``; layers it is not are left as they are."""
        return True

    def require_dose(self, dose: float) -> None:
        """Raises ``UsageError`` if ``dose`` is outside this perturbation's domain."""
        if not (self.lowest <= dose <= self.highest):
            raise UsageError(
                f"The dose is outside the domain of {self.name!r}.",
                expected=f"{self.lowest:g} to {self.highest:g} ({self.unit})",
                got=f"{dose:g}",
                do="Choose a dose inside the domain.",
            )
        if self.whole and dose != round(dose):
            raise UsageError(
                f"{self.whole} come in whole numbers.",
                expected=f"{self.lowest:g}, {self.lowest + 1:g}, ... {self.highest:g} ({self.unit})",
                got=f"{dose:g}",
            )


EVERY_GAUGE = frozenset(
    {
        "permute", "rescale", "split", "cancel", "dead", "entangle",
        "heads", "experts", "value", "query", "fold", "shift", "rotate",
        "regroup",
    }
)  # fmt: skip
"""The names of all gauges: see ``wheeltap.gauge``."""


class Noise(Perturbation):
    """A perturbation linear in its dose: weights + dose x direction. One draw serves a whole curve."""

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """Weights moved by ``dose`` along the draw's direction."""
        along, dtype = self.direction(layer, weights, draw), weights.weight.dtype
        bias = weights.bias
        if bias is not None and along.bias is not None:
            bias = (bias + dose * along.bias).to(dtype)
        return Weights((weights.weight + dose * along.weight).to(dtype), bias)

    @abstractmethod
    def direction(self, layer: Layer, weights: Weights, draw: Draw) -> Weights:
        """The change at dose 1, in single precision or better; a ``None`` bias is left alone."""

    def write(self, held: Weights, layer: Layer, weights: Weights, dose: float, draw: Draw) -> float | None:
        """Writes ``weights`` moved by ``dose`` along the draw's direction to ``held``, where no other dose follows.

        Returns:
            The direction's squared length; ``None`` where no draw changes it (see ``squared_length``).
        """
        along = self.direction(layer, weights, draw)
        move(held, weights, along, dose)
        return along.squared_norm

    def squared_length(self, weights: Weights) -> float | None:
        """Squared length of a direction, where no draw changes it."""
        return None


def move(held: Weights, weights: Weights, along: Weights, dose: float) -> None:
    """Writes ``weights`` moved by ``dose`` along a direction to ``held``; without a bias there, that is left alone.

    The sum is taken in single precision or better; numbers of 16 bits are rounded once, to the nearest.
    """
    torch.add(weights.weight, along.weight, alpha=dose, out=held.weight.data)
    if held.bias is not None and weights.bias is not None and along.bias is not None:
        torch.add(weights.bias, along.bias, alpha=dose, out=held.bias.data)


BUILTIN = {
    "none": "wheeltap.perturb.merge:Clean",
    "relative": "wheeltap.perturb.noise:RelativeNoise",
    "std": "wheeltap.perturb.noise:StdNoise",
    "function": "wheeltap.perturb.noise:FunctionNoise",
    "quantize": "wheeltap.perturb.quantize:RoundToNearest",
    "quantize-aware": "wheeltap.perturb.quantize:ScaledRoundToNearest",
    "prune": "wheeltap.perturb.prune:MagnitudeMask",
    "prune-random": "wheeltap.perturb.prune:RandomMask",
    "prune-nm": "wheeltap.perturb.prune:PatternMask",
    "prune-wanda": "wheeltap.perturb.prune:OutputMask",
    "prune-units": "wheeltap.perturb.prune:UnitMask",
    "prune-heads": "wheeltap.perturb.prune:HeadMask",
    "flip": "wheeltap.perturb.flip:RandomFlips",
    "flip-worst": "wheeltap.perturb.flip:WorstFlips",
    "quantize-inputs": "wheeltap.perturb.quantize:InputRounding",
    "quantize-cache": "wheeltap.perturb.quantize:CacheRounding",
    "cast": "wheeltap.perturb.quantize:Cast",
    "merge": "wheeltap.perturb.merge:Merge",
    "erase": "wheeltap.perturb.merge:Erase",
    "fine-tune": "wheeltap.perturb.tune:FineTune",
}

perturbations: Registry[Perturbation] = Registry(
    "perturbation",
    "wheeltap.perturbations",
    BUILTIN,
    Perturbation,  # pyright: ignore[reportAbstractUsage]
)


create = perturbations.create


def to_rows(layer: Layer, weight: Tensor) -> Shaped[Tensor, "row in"]:
    """The weight as one row per output unit, or per token for an embedding; a view where the layout allows."""
    return weight.reshape(weight.shape[0], -1) if layer.kind == "embedding" else layer.matrix(weight)


def from_rows(layer: Layer, rows: Shaped[Tensor, "row in"]) -> Tensor:
    """The inverse of ``to_rows``: back to the layout that the module stores."""
    return rows if layer.kind == "embedding" else layer.stored(rows)


def grouped(rows: Shaped[Tensor, "row in"], size: int) -> Shaped[Tensor, "group size"]:
    """Every ``size`` consecutive numbers of a row as a row of their own; the last of each is filled up with zeros."""
    short = -rows.shape[1] % size
    return (functional.pad(rows, (0, short)) if short else rows).reshape(-1, size)


def ungrouped(groups: Shaped[Tensor, "group size"], *, like: Shaped[Tensor, "row in"]) -> Shaped[Tensor, "row in"]:
    """The inverse of ``grouped``, in the shape of ``like``."""
    return groups.reshape(len(like), -1)[:, : like.shape[1]]


def at_least_single(rows: Tensor) -> Tensor:
    """``rows`` in single precision where they are in half: there the step of a row of small weights would be zero."""
    return rows.float() if rows.dtype.itemsize < 4 else rows
