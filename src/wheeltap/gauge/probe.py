"""Which slices of which weights belong to one unit: shown by gradients, without reading any code.

What a product reads is traced back to the products before it (see ``trace``). One coordinate of what is read may
depend on the same coordinate of what they gave, and on nothing else: then the units that are read were written there,
and all that lies between works unit by unit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

import torch
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.gauge.trace import TensorIndex, Trace, TracedProduct

_TRIED: Final = 16
"""Coordinates of a reader that are looked at, at most: one of a unit that is silent on all examples tells nothing."""
_TELLING: Final = 5
"""Coordinates that must tell something: cuts of an axis that differ look alike on few of them."""
_NOTHING: Final = 100.0
"""A gradient of so many units in the last place of the largest one is rounding."""


@final
@dataclass(frozen=True)
class AxisCut:
    """How an axis is made of units: ``[before, unit, after]``.

    Attributes:
        axis: Of a tensor.
        before: Blocks.
        after: Entries of a unit in a row.
        parts: Which of the ``before x after`` entries of a unit were seen to be its own.
    """

    axis: int
    before: int
    after: int
    parts: tuple[int, ...]

    def position(self, part: int, unit: int, *, units: int) -> int:
        """Index along the axis."""
        block, entry = divmod(part, self.after)
        return (block * units + unit) * self.after + entry


Coordinate = tuple[float, Mapping[tuple[str, int, int], float]]
"""One coordinate of what a weight reads: its sum over all that was read, with random signs and weights; and by tensor,
axis and part what a small growth of the unit's own slice adds to it, relatively."""


@final
@dataclass(frozen=True)
class UnitReader:
    """What one weight reads, as units.

    Attributes:
        name: Of the weight.
        cut: Of the axis along which it reads.
        units: How many.
        touched: By tensor, the slices that make a unit what it is.
        written: Those of them that write the units: they multiply something.
        dense: Tensors and modules that all units depend on.
        probes: Single coordinates.
        order: Number of the call.
        inside: Paths of the modules that multiply by it.
    """

    name: str
    cut: AxisCut
    units: int
    touched: Mapping[str, AxisCut]
    written: frozenset[str]
    dense: tuple[str, ...]
    probes: tuple[Coordinate, ...]
    order: int
    inside: frozenset[str]


_Support = dict[int, dict[int, frozenset[int]]]
"""By axis, by coordinate of the reader: the indices that it depends on."""


@final
@dataclass(frozen=True)
class ProbeResult:
    """All that one pass shows of what is read.

    Attributes:
        readings: What is read as units, in the order of the calls.
        readers: Every weight that reads, with the axis along which it does, units or not.
        unknown: Weights of which the examples do not show what they do: they were not used, or to no effect.
    """

    readings: tuple[UnitReader, ...]
    readers: frozenset[tuple[str, int]]
    unknown: frozenset[str]


def seen(trace: Trace, weights: TensorIndex, scores: Tensor) -> ProbeResult:
    """What a pass shows that gave ``scores``."""
    calls: dict[tuple[str, int], list[int]] = {}
    outside: set[tuple[str, int]] = set()
    for order, product in enumerate(trace.products):
        if product.reads is not None and product.inputs is not None:
            calls.setdefault(product.reads, []).append(order)
            if not product.inputs.requires_grad:
                outside.add(product.reads)  # it reads the model's inputs
    loose = {name: tensor for name, tensor in trace.loose.items() if tensor.requires_grad}
    found: list[UnitReader] = []
    silent: set[str] = set()
    for (name, axis), orders in calls.items():
        if (name, axis) in outside:
            continue
        probe = _Probe(trace.products, orders, loose, weights)
        reading = probe.reading(name, axis)
        if reading is not None:
            found.append(reading)
        elif not probe.telling:
            silent.add(name)
    return ProbeResult(
        tuple(found), frozenset(calls), frozenset(silent | (weights.held.keys() - _alive(trace, scores)))
    )


def _alive(trace: Trace, scores: Tensor) -> set[str]:
    """The weights that something that is read, or the scores, depend on."""
    random = torch.Generator().manual_seed(1)
    ends = [scores, *(one.inputs for one in trace.products if one.inputs is not None)]
    ends = [end for end in ends if end.requires_grad and end.numel()]
    outputs = [one for one in trace.products if one.output.requires_grad]
    alive = set(trace.loose)
    if not ends:
        return alive
    summed = torch.stack(
        [(torch.randn(end.shape, generator=random).to(end) * end).sum().double() for end in ends]
    ).sum()
    for product, slope in zip(outputs, _gradients(summed, [one.output for one in outputs]), strict=True):
        if slope is not None and bool(slope.any()):
            alive |= {use.name for use, _ in product.operands}
    return alive


@final
class _Probe:
    """Probes what the calls ``orders`` of one weight read."""

    def __init__(
        self,
        products: Sequence[TracedProduct],
        orders: Sequence[int],
        loose: Mapping[str, Tensor],
        weights: TensorIndex,
    ) -> None:
        self._products, self._orders, self._loose, self._weights = products, orders, loose, weights
        self._read = [products[order] for order in orders]
        first = self._read[0]
        assert first.inputs is not None, "only calls that read something are probed"
        self.size = first.inputs.shape[first.axis]
        random = torch.Generator().manual_seed(0)
        self._mixed = [
            torch.randn(one.inputs.select(one.axis, 0).shape, generator=random).to(one.inputs)
            for one in self._read
            if one.inputs is not None
        ]
        self._outputs = {order: one.output for order, one in enumerate(products) if one.output.requires_grad}
        self._things: dict[int | str, Tensor] = {**self._outputs, **loose}
        self.telling: list[int] = []

    def reading(self, name: str, axis: int) -> UnitReader | None:
        """The units, or ``None`` if what is read is not made of any."""
        order = seeds.generator(0, "probe", name, axis).permutation(self.size)
        supports: dict[int | str, _Support] = {}
        telling = self.telling
        for j in order[:_TRIED].tolist():
            found = self._supports(j)
            if not found:
                continue
            telling.append(j)
            for thing, by_axis in found.items():
                for own, indices in by_axis.items():
                    supports.setdefault(thing, {}).setdefault(own, {})[j] = indices
            if not any(isinstance(thing, int) and self._confined(supports[thing], thing) for thing in supports):
                return None
            if len(telling) == _TELLING:
                break
        units, cut, cuts = self._units(axis, supports, telling)
        if not any(isinstance(thing, int) for thing in cuts):
            return None
        dense = [thing for thing in supports if thing not in cuts]
        return self._described(name, units, cut, cuts, dense, telling)

    def _summed(self, j: int) -> Tensor:
        terms = [
            (mixed * one.inputs.select(one.axis, j)).sum()
            for mixed, one in zip(self._mixed, self._read, strict=True)
            if one.inputs is not None
        ]
        return torch.stack(terms).sum()

    def _supports(self, j: int) -> dict[int | str, dict[int, frozenset[int]]]:
        """What coordinate ``j`` depends on: outputs of products by their number, other tensors by name."""
        gradients = _gradients(self._summed(j), list(self._things.values()))
        return {
            thing: {axis: _indices(gradient, axis) for axis in range(gradient.ndim)}
            for thing, gradient in zip(self._things, gradients, strict=True)
            if gradient is not None and bool(gradient.any())
        }

    def _confined(self, support: _Support, order: int) -> bool:
        """Whether some axis of an output may still be one of units."""
        sizes = self._outputs[order].shape
        return any(
            sizes[axis] > 1 and all(2 * len(indices) <= sizes[axis] for indices in by_j.values())
            for axis, by_j in support.items()
        )

    def _units(
        self, axis: int, supports: Mapping[int | str, _Support], telling: Sequence[int]
    ) -> tuple[int, AxisCut, dict[int | str, AxisCut]]:
        """How many units there are, how the reader's axis is made of them, and the cut of all that has any."""
        things = self._things
        sizes = {things[thing].shape[own] for thing, support in supports.items() for own in support}
        best: tuple[int, AxisCut, dict[int | str, AxisCut]] = 0, AxisCut(axis, 1, 1, (0,)), {}
        for units in sorted({self.size, *sizes}, reverse=True):
            if self.size % units or units < 2:
                continue
            for own in _cuts(axis, self.size // units):
                which = {j: j // own.after % units for j in telling}
                cuts = {
                    thing: cut
                    for thing, support in supports.items()
                    if (cut := _cut(things[thing].shape, support, which, units)) is not None
                }
                if len(set(which.values())) > 1 and len(cuts) > len(best[2]):
                    best = units, own, cuts
        return best

    def _described(
        self,
        name: str,
        units: int,
        cut: AxisCut,
        cuts: Mapping[int | str, AxisCut],
        dense: Sequence[int | str],
        telling: Sequence[int],
    ) -> UnitReader | None:
        supports: dict[str, _Support] = {}
        growths: list[tuple[int, float, dict[tuple[str, int], Tensor]]] = []
        written: set[str] = set()
        for j in telling:
            value, slopes = self._slopes(j, list(cuts), written)
            for (tensor, axis), (indices, _) in slopes.items():
                supports.setdefault(tensor, {}).setdefault(axis, {})[j] = indices
            growths.append((j, value, {key: growth for key, (_, growth) in slopes.items()}))
        which = {j: j // cut.after % units for j in telling}
        shapes = {tensor: self._weights.held[tensor].shape for tensor in supports}
        touched = {tensor: _cut(shapes[tensor], support, which, units) for tensor, support in supports.items()}
        known = {tensor: own for tensor, own in touched.items() if own is not None}
        if not known:
            return None
        lost = [tensor for tensor in touched if tensor not in known]
        probes = [
            (
                value,
                {
                    (tensor, own.axis, part): float(grown[tensor, own.axis][own.position(part, which[j], units=units)])
                    for tensor, own in known.items()
                    if (tensor, own.axis) in grown
                    for part in own.parts
                },
            )
            for j, value, grown in growths
        ]
        named = [thing if isinstance(thing, str) else self._products[thing].module for thing in dense]
        return UnitReader(
            name, cut, units, known, frozenset(written & set(known)), tuple(dict.fromkeys([*named, *lost])),
            tuple(probes), self._orders[0], frozenset(one.module for one in self._read),
        )  # fmt: skip

    def _slopes(
        self, j: int, things: Sequence[int | str], written: set[str]
    ) -> tuple[float, dict[tuple[str, int], tuple[frozenset[int], Tensor]]]:
        """Of coordinate ``j``: its value; by tensor and axis the indices it depends on, and value times slope there."""
        summed = self._summed(j)
        slopes: dict[str, Tensor] = {}
        growths: dict[tuple[str, int], Tensor] = {}
        indices: dict[tuple[str, int], set[int]] = {}
        for thing, gradient in zip(things, _gradients(summed, [self._things[t] for t in things]), strict=True):
            if gradient is None:
                continue
            if isinstance(thing, str):
                slopes[thing] = gradient
                continue
            product = self._products[thing]
            operands = [
                (use, one) for use, one in product.operands if use.name not in self._loose and one.requires_grad
            ]
            for (use, one), slope in zip(
                operands, _gradients(product.output, [one for _, one in operands], gradient), strict=True
            ):
                if slope is None:
                    continue
                written.update([use.name] if product.inputs is None or one.ndim > 1 else [])
                for axis, own in enumerate(use.axes):
                    if own is None:
                        continue
                    found = use.positions(axis, torch.tensor(sorted(_indices(slope, axis)), dtype=torch.long))
                    indices.setdefault((use.name, own), set()).update(_listed(found))
                    grown = growths.setdefault(
                        (use.name, own), torch.zeros(self._weights.held[use.name].shape[own], dtype=torch.float64)
                    )
                    every = use.positions(axis, torch.arange(one.shape[axis]))
                    grown.index_add_(0, every, _along(one.detach() * slope, axis).double().cpu())
        for name, slope in slopes.items():
            for axis in range(slope.ndim):
                indices[name, axis] = set(_indices(slope, axis))
                growths[name, axis] = _along(self._loose[name].detach() * slope, axis).double().cpu()
        return float(summed.detach()), {
            key: (frozenset(found), growths[key]) for key, found in indices.items() if found
        }


def _gradients(of: Tensor, things: Sequence[Tensor], weights: Tensor | None = None) -> tuple[Tensor | None, ...]:
    if not things:
        return ()
    found = torch.autograd.grad(of, things, grad_outputs=weights, retain_graph=True, allow_unused=True)
    return cast("tuple[Tensor | None, ...]", found)


def _along(tensor: Tensor, axis: int) -> Tensor:
    """Sums over all axes but one."""
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1).sum(1)


def _indices(gradient: Tensor, axis: int) -> frozenset[int]:
    """The indices along an axis at which a gradient is not zero."""
    size = gradient.abs()
    seen = (
        (size > _NOTHING * torch.finfo(size.dtype).eps * size.max())
        .movedim(axis, 0)
        .reshape(gradient.shape[axis], -1)
        .any(1)
    )
    return frozenset(_listed(seen.nonzero().flatten()))


def _listed(index: Tensor) -> list[int]:
    return cast("list[int]", cast("Any", index).tolist())


def _cuts(axis: int, blocks: int) -> Iterator[AxisCut]:
    """Every way in which an axis can hold ``blocks`` entries of each unit."""
    for after in range(1, blocks + 1):
        if blocks % after == 0:
            yield AxisCut(axis, blocks // after, after, tuple(range(blocks)))


def _cut(shape: Sequence[int], support: _Support, which: Mapping[int, int], units: int) -> AxisCut | None:
    """How an axis of a tensor is made of units, such that each coordinate depends on the slices of its unit alone."""
    for axis, by_j in reversed(support.items()):
        if shape[axis] % units:
            continue
        for cut in _cuts(axis, shape[axis] // units):
            own = [(j, index) for j, indices in by_j.items() for index in indices]
            if all(index // cut.after % units == which[j] for j, index in own):
                span = cut.after * units
                parts = {index // span * cut.after + index % cut.after for _, index in own}
                return AxisCut(axis, cut.before, cut.after, tuple(sorted(parts)))
    return None
