"""The error of a CPPN's picture and its gradient by every weight, derived by hand.

Most units of a layered CPPN are linear (copies, identity), and what linear units do to a map can be worked out among
weights, without touching a pixel. So only bent units (gaussian, sine, ...) are drawn; each reads the bent units and
inputs below it through products of kernels. The function and its gradient are those of the net, up to rounding. Where
few units are linear, a layer is drawn whole and the next begin from it.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.typed import to_array, to_tensor
from wheeltap.models.cppn import CACHE, INPUTS, OUTPUTS, Layout

Bend = Callable[[Tensor, Tensor], None]
"""Of what arrives and of a place for what leaves; puts the slope in the place of what arrived."""

Step = Callable[[], object]

LINEAR: Final = frozenset({CACHE, "identity"})

_ZERO: Final = torch.zeros(())
_HALF: Final = torch.full((), 0.5)
_ONE: Final = torch.ones(())


def _gaussian(arriving: Tensor, leaving: Tensor) -> None:
    torch.addcmul(_ZERO, arriving, arriving, value=-1.0, out=leaving)
    leaving.exp_()
    torch.addcmul(_ZERO, arriving, leaving, value=-4.0, out=arriving)
    torch.add(-_ONE, leaving, alpha=2.0, out=leaving)


def _sigmoid(arriving: Tensor, leaving: Tensor) -> None:
    torch.sigmoid(arriving, out=leaving)
    torch.add(-_ONE, leaving, alpha=2.0, out=leaving)
    torch.addcmul(_HALF, leaving, leaving, value=-0.5, out=arriving)


def _tanh(arriving: Tensor, leaving: Tensor) -> None:
    torch.tanh(arriving, out=leaving)
    torch.addcmul(_ONE, leaving, leaving, value=-1.0, out=arriving)


def _sin(arriving: Tensor, leaving: Tensor) -> None:
    torch.sin(arriving, out=leaving)
    arriving.cos_()


def _cos(arriving: Tensor, leaving: Tensor) -> None:
    torch.cos(arriving, out=leaving)
    arriving.sin_().neg_()


def _relu(arriving: Tensor, leaving: Tensor) -> None:
    torch.clamp(arriving, min=0.0, out=leaving)
    torch.sign(leaving, out=arriving)


def _abs(arriving: Tensor, leaving: Tensor) -> None:
    torch.abs(arriving, out=leaving)
    arriving.sign_()


BENDS: Final[dict[str, Bend]] = {
    "sin": _sin,
    "cos": _cos,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "gaussian": _gaussian,
    "relu": _relu,
    "abs": _abs,
}


@final
@dataclass(frozen=True, eq=False)
class _Stage:
    """One kernel, and where the maps that it leads to are kept. All tensors are views of shared memory.

    Attributes:
        kernel: ``[unit, source]``; units (but outputs) and sources (but inputs) with bent ones first.
        by_kernel: Gradient by ``kernel``.
        opens: Whether it reads the last whole layer (or the inputs) alone.
        whole: Whether its linear units are drawn too.
        bent: Number of its bent units.
        reads: Maps that it is a function of, ``[map, pixel]``.
        products: Its products of kernels, ``[drawn unit, map]``.
        by_products: Gradient by ``products``.
        carried: Where it is not whole, every unit of its layer in terms of maps, ``[unit, map]``.
        by_carried: Gradient by ``carried``; of bent units, by ``products``.
        drawn: Maps of its drawn units, ``[unit, pixel]``.
        by_drawn: Gradient by what arrives at them, ``[unit, pixel]``.
        slope: What arrives at its bent units, then their slopes, ``[unit, pixel]``.
        later: Products by which later stages read its drawn units, ``[unit, later unit]``.
        by_later: Their ``by_drawn``.
    """

    kernel: Tensor
    by_kernel: Tensor
    opens: bool
    whole: bool
    bent: int
    reads: Tensor
    products: Tensor
    by_products: Tensor
    carried: Tensor
    by_carried: Tensor
    drawn: Tensor
    by_drawn: Tensor
    slope: Tensor
    later: Tensor
    by_later: Tensor


@final
class PictureLoss:
    """Mean squared error in RGB of nets of one layout against one picture.

    It owns its memory: one is for one thread at a time. It computes in the precision of ``inputs``.

    Args:
        layout: Of the nets.
        inputs: Already folded.
        target: Red, green and blue from 0 to 1.
    """

    def __init__(self, layout: Layout, inputs: Float[Tensor, "pixel 4"], target: Float[Tensor, "pixel 3"]) -> None:
        self.layout = layout
        # Units of a hidden layer, bent ones first.
        linear = np.concatenate([np.full(units, name in LINEAR) for name, units in layout.blocks])
        self.order = np.argsort(linear, kind="stable")
        bends = [(BENDS[name], units) for name, units in layout.blocks if name not in LINEAR]
        ends = np.cumsum([units for _, units in bends]).tolist()
        spans = [(bend, end - units, end) for (bend, units), end in zip(bends, ends, strict=True)]
        self.gradient = inputs.new_zeros(layout.parameters)
        self._weights = inputs.new_zeros(layout.parameters)
        self._target = target.T.to(inputs.dtype).contiguous()
        self._turns = inputs.new_tensor([[5.0], [3.0], [1.0]])
        stages = _stages(layout, inputs.T, weights=self._views(self._weights), gradients=self._views(self.gradient))
        self._colours, self._by_colours = stages[-1].drawn, stages[-1].by_drawn
        # The same steps on the same memory each time: slicing at every call would cost as much as the sums.
        self._forward, self._backward = _forward(stages, spans), _backward(stages)

    def _views(self, flat: Float[Tensor, " weight"]) -> list[Float[Tensor, "unit source"]]:
        found: list[Tensor] = []
        start = 0
        for fan_in, units in self.layout.shapes:
            found.append(flat[start : start + fan_in * units].view(units, fan_in))
            start += fan_in * units
        return found

    def pack(self, kernels: Sequence[NDArray[np.floating]]) -> Float[Tensor, " weight"]:
        """All weights in a row, from kernels ``[in, out]`` with units in the layout's order."""
        moved = [kernels[0][:, self.order], *(kernel[self.order][:, self.order] for kernel in kernels[1:-1])]
        moved.append(kernels[-1][self.order])
        return to_tensor(np.concatenate([kernel.T.ravel() for kernel in moved]))

    def unpack(self, flat: Float[Tensor, " weight"]) -> list[NDArray[np.float32]]:
        """The inverse of ``pack``, in single precision."""
        back = np.argsort(self.order)
        kernels = [to_array(view).T for view in self._views(flat)]
        moved = [kernels[0][:, back], *(kernel[back][:, back] for kernel in kernels[1:-1]), kernels[-1][back]]
        return [np.ascontiguousarray(kernel) for kernel in moved]

    def value(self, weights: Float[Tensor, " weight"]) -> float:
        """The error of the net with these weights (from ``pack``)."""
        self._weights.copy_(weights)
        for step in self._forward:
            step()
        return self._compare()

    def value_and_gradient(self, weights: Float[Tensor, " weight"]) -> float:
        """The error; puts its gradient by all weights into ``gradient``.

        At the ends of a clip, as autograd has it: a value that equals an end still moves.
        """
        error = self.value(weights)
        for step in self._backward:
            step()
        return error

    def _compare(self) -> float:
        """The error of the colours; puts its gradient by hue, saturation and brightness in its place."""
        hue, saturation, brightness = self._colours
        turn = self._turns + 6.0 * (hue - hue.floor())
        turn.sub_(6.0 * (turn >= 6.0))  # exact: the remainder by 6, for numbers below 12
        slanted = torch.minimum(turn, 4.0 - turn)
        ramp = slanted.clamp(0.0, 1.0)
        clipped, size = saturation.clamp(0.0, 1.0), brightness.abs()
        value = size.clamp(0.0, 1.0)
        chroma = value * clipped
        wrong = torch.sub(value, chroma * ramp).sub_(self._target)
        flat = wrong.view(-1)
        error = float(torch.dot(flat, flat)) / flat.numel()
        wrong.mul_(2.0 / flat.numel())
        ramped, total = (wrong * ramp).sum(0), wrong.sum(0)
        rising = wrong.mul_(slanted == ramp).mul_(turn.neg_().add_(2.0).sign_()).sum(0)
        by_hue, by_saturation, by_brightness = self._by_colours
        torch.mul(rising, chroma, out=by_hue).mul_(-6.0)
        torch.mul(ramped, value, out=by_saturation).mul_(saturation == clipped).neg_()
        torch.addcmul(total, clipped, ramped, value=-1.0, out=by_brightness)
        by_brightness.mul_(brightness.sign_()).mul_(size <= 1.0)
        return error


def _forward(stages: Sequence[_Stage], bends: Sequence[tuple[Bend, int, int]]) -> list[Step]:
    steps: list[Step] = []
    below = stages[0]
    for stage in stages:
        drawn, bent, maps = len(stage.products), stage.bent, stage.reads.shape[0]
        parts = [(stage.kernel[:drawn], stage.products)]
        if not stage.whole:
            parts.append((stage.kernel[bent:], stage.carried[bent:, :maps]))
        for kernel, place in parts:
            step = partial(place.copy_, kernel) if stage.opens else partial(torch.mm, kernel, below.carried, out=place)
            steps += [step] if len(kernel) else []
        if bent:
            steps.append(partial(torch.mm, stage.products[:bent], stage.reads, out=stage.slope))
            steps += [partial(bend, stage.slope[start:end], stage.drawn[start:end]) for bend, start, end in bends]
        if drawn > bent:
            steps.append(partial(torch.mm, stage.products[bent:], stage.reads, out=stage.drawn[bent:]))
        below = stage
    return steps


def _backward(stages: Sequence[_Stage]) -> list[Step]:
    """Steps back from the last stage: by what arrives at pixels, then by products of kernels, then by kernels."""
    steps: list[Step] = []
    for stage in reversed(stages):
        if len(stage.drawn) and stage is not stages[-1]:
            steps.append(partial(torch.mm, stage.later, stage.by_later, out=stage.by_drawn))
            steps.append(partial(stage.by_drawn[: stage.bent].mul_, stage.slope))
        if len(stage.drawn):
            steps.append(partial(torch.mm, stage.by_drawn, stage.reads.T, out=stage.by_products))
    for at in range(len(stages) - 1, -1, -1):
        stage = stages[at]
        given = stage.by_products
        if not stage.whole:
            given = stage.by_carried[:, : stage.reads.shape[0]]
            steps.append(partial(given[: stage.bent].copy_, stage.by_products))
        if stage.opens:
            steps.append(partial(stage.by_kernel.copy_, given))
            continue
        below = stages[at - 1]
        steps.append(partial(torch.mm, given, below.carried.T, out=stage.by_kernel))
        sources = stage.kernel.T[below.bent :]
        steps += [partial(torch.mm, sources, given, out=below.by_carried[below.bent :])] if len(sources) else []
    return steps


def _whole(layout: Layout, bent: int) -> frozenset[int]:
    """Stages (from 1) drawn whole, so that the fewest products are taken at each pixel."""
    best, before = [0], [0]
    for end in range(1, layout.layers + 2):
        outputs = layout.width if end <= layout.layers else len(OUTPUTS)

        def cost(start: int, end: int = end, outputs: int = outputs) -> int:
            size, between = layout.width if start else len(INPUTS), end - start - 1
            drawn = bent * between * size + bent * bent * between * (between - 1) // 2
            return best[start] + drawn + outputs * (size + bent * between)

        start = min(range(end), key=cost)
        before.append(start)
        best.append(cost(start))
    found, at = set[int](), layout.layers + 1
    while at:
        found.add(at)
        at = before[at]
    return frozenset(found)


def _stages(
    layout: Layout, inputs: Float[Tensor, "4 pixel"], *, weights: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[_Stage]:
    bent = sum(units for name, units in layout.blocks if name not in LINEAR)
    whole, last = _whole(layout, bent), layout.layers + 1
    sizes = [len(INPUTS), *(layout.width if at in whole else bent for at in range(1, last)), len(OUTPUTS)]
    ends = [int(end) for end in np.cumsum(sizes)]
    maps = inputs.new_zeros(ends[-1], inputs.shape[1])
    maps[: len(INPUTS)] = inputs
    # From one whole layer to the next is a piece; its gradients are read by the piece before, and then done with.
    cuts = [0, *sorted(whole)]
    rows = max(ends[after] - ends[before] for before, after in pairwise(cuts))
    by_maps = inputs.new_zeros(2, rows, inputs.shape[1])
    # In one matrix, by the maps they lead to and the maps they read: so all products that read a map are a block.
    products, by_products = inputs.new_zeros(2, ends[-1], ends[-1])
    carried, by_carried = (_carried(layout, bent, whole, inputs) for _ in range(2))
    slopes = inputs.new_zeros(layout.layers, bent, inputs.shape[1])
    found: list[_Stage] = []
    for at in range(1, last + 1):
        start, end = ends[at - 1], ends[at]
        piece = bisect_left(cuts, at)
        opening, closing = cuts[piece - 1], cuts[piece]
        base, first = ends[opening] - sizes[opening], ends[opening]
        later = piece + 1 if at == closing < last else piece
        until = ends[cuts[later]]
        by_later = (
            by_maps[later % 2, : until - end] if later > piece else by_maps[piece % 2, end - first : until - first]
        )
        found.append(
            _Stage(
                kernel=weights[at - 1],
                by_kernel=gradients[at - 1],
                opens=opening == at - 1,
                whole=at in whole,
                bent=bent if at < last else 0,
                reads=maps[base:start],
                products=products[start:end, base:start],
                by_products=by_products[start:end, base:start],
                carried=carried[at - 1],
                by_carried=by_carried[at - 1],
                drawn=maps[start:end],
                by_drawn=by_maps[piece % 2, start - first : end - first],
                slope=slopes[min(at, layout.layers) - 1],
                later=products[end:until, start:end].T,
                by_later=by_later,
            )
        )
    return found


def _carried(layout: Layout, bent: int, whole: frozenset[int], like: Tensor) -> list[Tensor]:
    """For each stage, room for its units in terms of maps; its own bent units are maps themselves."""
    found: list[Tensor] = []
    size = len(INPUTS)
    for at in range(1, layout.layers + 2):
        size = layout.width if at in whole else size + bent
        room = like.new_zeros(layout.width, size)
        if at not in whole:
            room[:bent, size - bent :] = torch.eye(bent)
        found.append(room)
    return found
