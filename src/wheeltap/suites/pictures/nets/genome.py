"""Genomes: CPPNs as graphs of nodes and links, and their exact translation into dense layered nets.

Source: Kumar et al. 2025, arXiv:2505.11581, appendix (layerized genomes), whose parameters it reproduces to the bit.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.typed import to_array
from wheeltap.models.cppn import CACHE, INPUTS, MOST_LAYERS, OUTPUTS, Cppn, Layout, activation, colour, grid

Key = Hashable

MOST_NODES: Final = 5_000
MOST_LINKS: Final = 100_000
LARGEST: Final = 1e6
"""Of a weight: beyond it every unit is saturated, and single precision overflows."""


@final
@dataclass(frozen=True)
class GenomeNode:
    """One unit of the graph.

    Attributes:
        key: What links call it by.
        activation: Name; inputs have none of their own.
        kind: ``in``, ``hidden`` or ``out``.
        label: Of an input, one of ``INPUTS``; of an output, one of ``OUTPUTS``.
    """

    key: Key
    activation: str = "identity"
    kind: Literal["in", "hidden", "out"] = "hidden"
    label: str = ""


@final
@dataclass(frozen=True)
class GenomeLink:
    """One weight of the graph.

    Attributes:
        name: What it does to the picture, where somebody knows it: a named factor.
    """

    source: Key
    target: Key
    weight: float
    name: str = ""


@final
@dataclass(frozen=True)
class _Place:
    """Where a node is in the layered net.

    Attributes:
        level: Longest path from an input.
        last: Highest level at which it is still held.
    """

    level: int
    last: int


@final
class Genome:
    """A CPPN as a graph.

    Args:
        nodes: In file order.
        links: In file order; several between two nodes add up.
        name: For reports and errors.

    Raises:
        DataError: If a key is given twice, an output is missing, a link leads nowhere or into an input, a weight is
            not finite, or the graph has a cycle.
        UnknownName: If an activation is not known.
    """

    def __init__(self, nodes: Sequence[GenomeNode], links: Sequence[GenomeLink], *, name: str = "genome") -> None:
        self.name, self.nodes, self.links = name, tuple(nodes), tuple(links)
        self._node = {node.key: node for node in self.nodes}
        self._require_sound()
        self._into: dict[Key, list[GenomeLink]] = {node.key: [] for node in self.nodes}
        for link in self.links:
            self._into[link.target].append(link)
        self._require_acyclic()
        self.order = self._ordered()

    def _require_sound(self) -> None:
        if len(self.nodes) > MOST_NODES or len(self.links) > MOST_LINKS:
            most, got = (MOST_NODES, MOST_LINKS), (len(self.nodes), len(self.links))
            raise self._wrong("at most {:,} nodes and {:,} links".format(*most), "{:,} and {:,}".format(*got))
        if len(self._node) < len(self.nodes):
            raise self._wrong("nodes with different keys", "a key that is given twice")
        labels = [(node.kind, node.label) for node in self.nodes if node.kind != "hidden"]
        for kind, names in (("in", INPUTS), ("out", OUTPUTS)):
            for name in names:
                if labels.count((kind, name)) != 1:
                    raise self._wrong(f"one {kind}put {name}", f"{labels.count((kind, name))} of them")
        if len(labels) > len(INPUTS) + len(OUTPUTS):
            raise self._wrong(f"inputs {', '.join(INPUTS)} and outputs {', '.join(OUTPUTS)}", "others beside them")
        for node in self.nodes:
            activation(node.activation)
        for link in self.links:
            if link.source not in self._node or link.target not in self._node:
                raise self._wrong("links between nodes of the genome", f"a link from {link.source} to {link.target}")
            if self._node[link.target].kind == "in" or not abs(link.weight) <= LARGEST:  # so that NaN fails
                raise self._wrong(
                    f"weights of at most {LARGEST:g}, none of them into an input", f"{link.weight} into {link.target}"
                )

    def _wrong(self, expected: str, got: str) -> DataError:
        return DataError("The genome is not a valid network.", where=self.name, expected=expected, got=got)

    def _labelled(self, names: Sequence[str], kind: str) -> list[Key]:
        return [next(n.key for n in self.nodes if n.kind == kind and n.label == name) for name in names]

    def _require_acyclic(self) -> None:
        """Takes away nodes that nothing left leads into, until none is left: on a cycle, some stay."""
        waiting = {key: len(into) for key, into in self._into.items()}
        readers: dict[Key, list[Key]] = {key: [] for key in self._into}
        for link in self.links:
            readers[link.source].append(link.target)
        free = [key for key, count in waiting.items() if count == 0]
        while free:
            key = free.pop()
            del waiting[key]
            for reader in readers[key]:
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    free.append(reader)
        if waiting:
            raise self._wrong("a graph without cycles", f"a cycle through or before {next(iter(waiting))}")

    def _ordered(self) -> tuple[Key, ...]:
        """Inputs, then every node an output depends on, each after all that it depends on.

        Depth first from hue, saturation and brightness, along incoming links in file order: this fixes the place of
        every unit, and with it the ids of the published weights.
        """
        order: list[Key] = self._labelled(INPUTS, "in")
        done = set(order)
        stack = [(root, 0) for root in reversed(self._labelled(OUTPUTS, "out"))]
        while stack:
            key, at = stack.pop()
            if key in done:
                continue
            into = self._into[key]
            if at < len(into):
                stack += [(key, at + 1), (into[at].source, 0)]
                continue
            done.add(key)
            order.append(key)
        return tuple(order)

    @cached_property
    def _places(self) -> dict[Key, _Place]:
        level: dict[Key, int] = {}
        for key in self.order:
            level[key] = 1 + max((level[link.source] for link in self._into[key]), default=0)
            if self._node[key].kind == "in":
                level[key] = 0
        top = max(level.values())
        last = dict(level)
        for key in self.order:
            for link in self._into[key]:
                last[link.source] = max(last[link.source], level[key] - 1)
        last |= dict.fromkeys(self._labelled(OUTPUTS, "out"), top)
        return {key: _Place(level[key], last[key]) for key in self.order}

    def evaluate(self, inputs: Float[Tensor, "pixel 4"]) -> Float[Tensor, "pixel 3"]:
        """Hue, saturation and brightness at each pixel, node by node, in double precision.

        The layered net is checked against it.
        """
        inputs = inputs.double()
        values: dict[Key, Tensor] = {key: inputs[:, at] for at, key in enumerate(self._labelled(INPUTS, "in"))}
        for key in self.order[len(INPUTS) :]:
            total = torch.zeros_like(inputs[:, 0])
            for link in self._into[key]:
                total = total + link.weight * values[link.source]
            values[key] = activation(self._node[key].activation)(total)
        return torch.stack([values[key] for key in self._labelled(OUTPUTS, "out")], 1)

    def render(self, size: int) -> NDArray[np.float32]:
        """The picture, ``[row, column, 3]``: red, green and blue from 0 to 1."""
        return to_array(colour(self.evaluate(grid(size)))).reshape(size, size, 3)

    def layerize(self) -> Cppn:
        """The dense layered net that draws the same picture.

        A node is held from its level (longest path from an input) on, as long as something reads it: in a slot of the
        cache block, copied by a weight of 1. Units that stay unused have weights of 0.

        Raises:
            UsageError: If the net would be too large.
        """
        return Cppn.of(self._layout, self._kernels())

    @cached_property
    def _slots(self) -> list[dict[Key, tuple[str, int]]]:
        """For each level, the block of every node held there and its place in it."""
        top = max(place.level for place in self._places.values())
        if top > MOST_LAYERS:
            raise UsageError(
                "The genome is too deep for a layered net.",
                where=self.name,
                expected=f"at most {MOST_LAYERS} links from an input to an output",
                got=f"{top:,}",
            )
        levels: list[dict[Key, tuple[str, int]]] = []
        for level in range(top + 1):
            counts: dict[str, int] = {}
            slots: dict[Key, tuple[str, int]] = {}
            for key in self.order:
                place = self._places[key]
                if place.level <= level <= place.last:
                    new = place.level == level and level > 0
                    block = self._node[key].activation if new else CACHE
                    slots[key] = (block, counts.get(block, 0))
                    counts[block] = counts.get(block, 0) + 1
            levels.append(slots)
        return levels

    @cached_property
    def _layout(self) -> Layout:
        sizes: dict[str, int] = {}
        for slots in self._slots:
            for block, at in slots.values():
                sizes[block] = max(sizes.get(block, 0), at + 1)
        return Layout(len(self._slots) - 1, tuple(sorted(sizes.items())))

    def _units(self, level: int) -> dict[Key, int]:
        """Unit of every node held at a level; of the inputs, their own places."""
        if level == 0:
            return {key: at for at, key in enumerate(self._labelled(INPUTS, "in"))}
        starts = {name: start for name, start, _ in self._layout.spans}
        return {key: starts[block] + at for key, (block, at) in self._slots[level].items()}

    def _kernels(self) -> list[NDArray[np.float32]]:
        kernels = [np.zeros(shape) for shape in self._layout.shapes]
        for level in range(1, self._layout.layers + 1):
            below, here = self._units(level - 1), self._units(level)
            for key, unit in here.items():
                if self._places[key].level < level:
                    kernels[level - 1][below[key], unit] = 1.0
                for link in self._into[key] if self._places[key].level == level else ():
                    kernels[level - 1][below[link.source], unit] += link.weight
        top = self._units(self._layout.layers)
        for at, key in enumerate(self._labelled(OUTPUTS, "out")):
            kernels[-1][top[key], at] = 1.0
        return [kernel.astype(np.float32) for kernel in kernels]

    def factors(self) -> Mapping[int, str]:
        """Published id in the layered net of every named link, with its name."""
        found: dict[int, str] = {}
        for link in self.links:
            if link.name and link.target in self._places:
                level = self._places[link.target].level
                source, target = self._units(level - 1)[link.source], self._units(level)[link.target]
                found[self._layout.flat_id(level - 1, source, target)] = link.name
        return found
