"""CPPNs as dense layered nets: every hidden layer has the same blocks of units, one block for each activation.

Source: Kumar et al. 2025, arXiv:2505.11581 (layerized compositional pattern-producing networks); Stanley 2007 (CPPNs).
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, cast, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.errors import FileFormatError, UnknownName, UsageError
from wheeltap.core.typed import to_array, to_tensor

INPUTS: Final = ("x", "y", "d", "bias")
OUTPUTS: Final = ("hue", "saturation", "brightness")
CACHE: Final = "cache"
"""Block of units that carry a value on unchanged: copies made by layering, or linear units where a net is trained."""

MOST_LAYERS: Final = 512
MOST_PARAMETERS: Final = 50_000_000

Fold = Literal["", "abs-x"]
"""What is done to the inputs first: nothing, or the mirror image is made the same by |x|."""

Function = Callable[[Tensor], Tensor]


ACTIVATIONS: Final[dict[str, Function]] = {
    CACHE: lambda values: values,
    "identity": lambda values: values,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": lambda values: 2.0 * torch.sigmoid(values) - 1.0,
    "gaussian": lambda values: 2.0 * torch.exp(-values.square()) - 1.0,
    "relu": torch.relu,
    "abs": torch.abs,
}
"""By name, as Picbreeder has them: sigmoid from -1 to 1, gaussian 2 exp(-x^2) - 1 (so 1 where nothing arrives)."""


def activation(name: str) -> Function:
    """The activation of this name.

    Raises:
        UnknownName: If there is none.
    """
    if name not in ACTIVATIONS:
        raise UnknownName("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


@final
@dataclass(frozen=True)
class Layout:
    """How a layered CPPN is laid out; written ``12;cache:15,gaussian:4,identity:2,sin:1``.

    Raises:
        UsageError: If there is no layer or unit, or far too many.
        UnknownName: If an activation is not known.
    """

    layers: int  # hidden layers
    # Activation and number of units of each block, the same in every hidden layer, in alphabetical order.
    blocks: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        for name, _ in self.blocks:
            activation(name)
        names = [name for name, _ in self.blocks]
        sound = 1 <= self.layers <= MOST_LAYERS and names and names == sorted(set(names))
        if not sound or min(units for _, units in self.blocks) < 1 or self.parameters > MOST_PARAMETERS:
            raise UsageError(
                "A net cannot be laid out so.",
                where="wheeltap.models.cppn",
                expected=f"1 to {MOST_LAYERS} layers, blocks in alphabetical order with 1 unit or more, "
                f"{MOST_PARAMETERS:,} parameters at most",
                got=str(self),
            )

    @classmethod
    def parse(cls, text: str) -> "Layout":
        """The layout that ``text`` describes.

        Raises:
            FileFormatError: If it describes none.
        """
        if re.fullmatch(r"\d{1,4};[a-z]+:\d{1,5}(,[a-z]+:\d{1,5})*", text) is None:
            raise FileFormatError(
                "The layout of the net cannot be read.",
                expected="such as 12;cache:15,gaussian:4,identity:2,sin:1",
                got=text[:80],
            )
        layers, _, blocks = text.partition(";")
        pairs = (block.split(":") for block in blocks.split(","))
        return cls(int(layers), tuple((name, int(units)) for name, units in pairs))

    def __str__(self) -> str:
        return f"{self.layers};" + ",".join(f"{name}:{units}" for name, units in self.blocks)

    @property
    def width(self) -> int:
        """Units of each hidden layer."""
        return sum(units for _, units in self.blocks)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Of each kernel ``[in, out]``, from the inputs to the outputs."""
        inner = ((self.width, self.width),) * (self.layers - 1)
        return ((len(INPUTS), self.width), *inner, (self.width, len(OUTPUTS)))

    @property
    def parameters(self) -> int:
        """Weights in all."""
        return sum(fan_in * units for fan_in, units in self.shapes)

    @property
    def spans(self) -> tuple[tuple[str, int, int], ...]:
        """Activation, first unit and end of each block."""
        ends = accumulate(units for _, units in self.blocks)
        return tuple((name, end - units, end) for (name, units), end in zip(self.blocks, ends, strict=True))

    @property
    def carried(self) -> NDArray[np.bool_]:
        """Which units belong to the cache block, ``[unit]``."""
        return np.concatenate([np.full(units, name == CACHE) for name, units in self.blocks])

    @property
    def published(self) -> tuple[int, ...]:
        """Kernels in the order in which the paper's files hold them: Dense_0, Dense_1, Dense_10, ..., Dense_2, ..."""
        return tuple(sorted(range(self.layers + 1), key=str))

    def split(self, flat: NDArray[np.floating]) -> list[NDArray[np.float32]]:
        """Kernels ``[in, out]`` in order of computation, from parameters in the published order.

        Raises:
            UsageError: If their number is another.
        """
        if flat.shape != (self.parameters,):
            raise UsageError(
                "The number of parameters does not fit the net.",
                expected=f"{self.parameters:,} for {self}",
                got=str(list(flat.shape)),
            )
        kernels: dict[int, NDArray[np.float32]] = {}
        for layer in self.published:
            fan_in, units = self.shapes[layer]
            own, flat = np.split(flat, [fan_in * units])
            kernels[layer] = own.reshape(fan_in, units).astype(np.float32)
        return [kernels[layer] for layer in range(self.layers + 1)]

    def flat_id(self, layer: int, source: int, target: int) -> int:
        """Place of a weight in the published order: of kernel ``layer``, from unit ``source`` to unit ``target``."""
        before = self.published[: self.published.index(layer)]
        start = sum(fan_in * units for fan_in, units in (self.shapes[other] for other in before))
        return start + source * self.shapes[layer][1] + target

    def address(self, flat_id: int) -> tuple[int, int, int]:
        """The inverse of ``flat_id``.

        Raises:
            UsageError: If there is no such weight.
        """
        rest = flat_id
        for layer in self.published if flat_id >= 0 else ():
            fan_in, units = self.shapes[layer]
            if rest < fan_in * units:
                return layer, rest // units, rest % units
            rest -= fan_in * units
        raise UsageError("There is no such weight.", expected=f"0 to {self.parameters - 1}", got=str(flat_id))


@final
class Blocks(nn.Module):
    """The activations of one hidden layer, block by block."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.spans = layout.spans

    def forward(self, values: Float[Tensor, "... unit"]) -> Float[Tensor, "... unit"]:
        """Each block of the last axis through its own activation."""
        return torch.cat([ACTIVATIONS[name](values[..., start:end]) for name, start, end in self.spans], -1)


@final
class Cppn(nn.Module):
    """A picture as a function: coordinates of a pixel to its colour.

    Args:
        layout: Of the hidden layers.
        fold: What is done to the inputs first.
    """

    def __init__(self, layout: Layout, *, fold: Fold = "") -> None:
        super().__init__()
        self.arch: str = str(layout)
        self.fold: Fold = fold
        self.layers = nn.ModuleList(nn.Linear(fan_in, units, bias=False) for fan_in, units in layout.shapes)
        self.units = nn.ModuleList(Blocks(layout) for _ in range(layout.layers))

    @classmethod
    def of(cls, layout: Layout, kernels: "list[NDArray[np.float32]]", *, fold: Fold = "") -> "Cppn":
        """The net with these kernels ``[in, out]``, in eval mode."""
        net = cls(layout, fold=fold)
        with torch.no_grad():
            for layer, kernel in zip(net.dense, kernels, strict=True):
                layer.weight.copy_(to_tensor(np.ascontiguousarray(kernel.T)))
        return net.eval()

    @property
    def layout(self) -> Layout:
        """How it is laid out."""
        return Layout.parse(self.arch)

    @property
    def dense(self) -> tuple[nn.Linear, ...]:
        """Its layers, from the inputs to the outputs."""
        return tuple(cast("Iterator[nn.Linear]", iter(self.layers)))

    def kernels(self) -> list[NDArray[np.float32]]:
        """Weights ``[in, out]`` of each layer, from the inputs to the outputs."""
        return [to_array(layer.weight.T).copy() for layer in self.dense]

    def flat_parameters(self) -> NDArray[np.float32]:
        """All weights, in the published order (layers sorted by name, each row-major ``[in, out]``)."""
        kernels = self.kernels()
        return np.concatenate([kernels[layer].ravel() for layer in self.layout.published])

    def links(self) -> NDArray[np.int64]:
        """Published ids of the true links: weights other than 0, copies and the last kernel's aside."""
        layout, found = self.layout, list[int]()
        for layer, kernel in enumerate(self.kernels()[:-1]):
            source, target = np.nonzero(kernel * ~layout.carried)
            found += [layout.flat_id(layer, int(a), int(b)) for a, b in zip(source, target, strict=True)]
        return np.sort(np.array(found, dtype=np.int64))

    def walk(self, inputs: Float[Tensor, "pixel 4"]) -> Iterator[Float[Tensor, "pixel unit"]]:
        """The values of each hidden layer, then hue, saturation and brightness before they become a colour."""
        values = folded(inputs, self.fold)
        for layer, units in zip(self.dense[:-1], self.units, strict=True):
            values = units(layer(values))
            yield values
        yield self.dense[-1](values)

    def maps(self, inputs: Float[Tensor, "pixel 4"]) -> list[Float[Tensor, "pixel unit"]]:
        """What every unit of each hidden layer gives at each pixel."""
        return list(self.walk(inputs))[:-1]

    def hsv(self, inputs: Float[Tensor, "pixel 4"]) -> Float[Tensor, "pixel 3"]:
        """Hue, saturation and brightness, as they leave the last layer."""
        *_, last = self.walk(inputs)
        return last

    def forward(self, inputs: Float[Tensor, "pixel 4"]) -> Float[Tensor, "pixel 3"]:
        """The colour of each pixel: red, green and blue from 0 to 1."""
        return colour(self.hsv(inputs))

    def render(self, size: int) -> NDArray[np.float32]:
        """The picture, ``[row, column, 3]``: red, green and blue from 0 to 1.

        Raises:
            UsageError: If ``size`` is not from 2 to 4096.
        """
        with torch.no_grad():
            pixels = self.precise()(grid(size).double())
        return to_array(pixels).reshape(size, size, 3)

    def precise(self) -> "Cppn":
        """A copy in double precision: through 16 layers, the rounding of single precision grows to 1e-4."""
        return copy.deepcopy(self).cpu().double()


def folded(inputs: Float[Tensor, "pixel 4"], fold: Fold) -> Float[Tensor, "pixel 4"]:
    """The inputs as a net with this fold reads them."""
    return torch.cat([inputs[:, :1].abs(), inputs[:, 1:]], 1) if fold == "abs-x" else inputs


def coordinates(points: Float[Tensor, "pixel 2"]) -> Float[Tensor, "pixel 4"]:
    """What a CPPN reads at points (x, y): x, y, 1.4 times the distance from the centre, and 1."""
    distance = 1.4 * points.square().sum(1, keepdim=True).sqrt()
    return torch.cat([points, distance, torch.ones_like(distance)], 1)


def grid(size: int) -> Float[Tensor, "pixel 4"]:
    """Inputs of a square picture, row by row: x along columns, y along rows, both from -1 to 1.

    Raises:
        UsageError: If ``size`` is not from 2 to 4096.
    """
    if not 2 <= size <= 4096:
        raise UsageError("A picture cannot have this size.", expected="2 to 4096 pixels a side", got=str(size))
    line = torch.linspace(-1.0, 1.0, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return coordinates(torch.stack([x.flatten(), y.flatten()], 1))


def colour(hsv: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Red, green and blue from 0 to 1: hue goes round, saturation and the size of brightness are clipped to [0, 1]."""
    hue, saturation = hsv[..., :1].remainder(1.0), hsv[..., 1:2].clamp(0.0, 1.0)
    value = hsv[..., 2:].abs().clamp(0.0, 1.0)
    turn = (torch.tensor([5.0, 3.0, 1.0], dtype=hsv.dtype, device=hsv.device) + 6.0 * hue).remainder(6.0)
    return value - value * saturation * torch.minimum(turn, 4.0 - turn).clamp(0.0, 1.0)
