"""Genomes: CPPNs as graphs of nodes and links, and their exact translation into dense layered nets.

Source: Kumar et al. 2025, arXiv:2505.11581, appendix (layerized genomes), whose parameters it reproduces to the bit.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
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
        self._inputs, self._outputs = (
            [next(node.key for node in self.nodes if node.kind == kind and node.label == name) for name in names]
            for kind, names in (("in", INPUTS), ("out", OUTPUTS))
        )
        self._into: dict[Key, list[GenomeLink]] = {node.key: [] for node in self.nodes}
        for link in self.links:
            self._into[link.target].append(link)
        try:
            TopologicalSorter({key: [link.source for link in into] for key, into in self._into.items()}).prepare()
        except CycleError as error:
            raise self._wrong("a graph without cycles", f"a cycle through {error.args[1][0]}") from error
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

    def _ordered(self) -> tuple[Key, ...]:
        """Inputs, then every node an output depends on, each after all that it depends on.

        Depth first from hue, saturation and brightness, along incoming links in file order: this fixes the place of
        every unit, and with it the ids of the published weights.
        """
        order: list[Key] = [*self._inputs]
        done = set(order)
        stack = [(root, 0) for root in reversed(self._outputs)]
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
    def _levels(self) -> dict[Key, range]:
        """Levels at which each node is held: from its longest path from an input on, as long as something reads it."""
        first = dict.fromkeys(self._inputs, 0)
        for key in self.order[len(INPUTS) :]:
            first[key] = 1 + max((first[link.source] for link in self._into[key]), default=0)
        last = dict(first)
        for key in self.order:
            for link in self._into[key]:
                last[link.source] = max(last[link.source], first[key] - 1)
        last |= dict.fromkeys(self._outputs, max(first.values()))
        return {key: range(first[key], last[key] + 1) for key in self.order}

    def evaluate(self, inputs: Float[Tensor, "pixel 4"]) -> Float[Tensor, "pixel 3"]:
        """Hue, saturation and brightness at each pixel, node by node, in double precision.

        The layered net is checked against it.
        """
        inputs = inputs.double()
        values: dict[Key, Tensor] = {key: inputs[:, at] for at, key in enumerate(self._inputs)}
        for key in self.order[len(INPUTS) :]:
            total = torch.zeros_like(inputs[:, 0])
            for link in self._into[key]:
                total = total + link.weight * values[link.source]
            values[key] = activation(self._node[key].activation)(total)
        return torch.stack([values[key] for key in self._outputs], 1)

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
        layout, units = self._laid_out
        kernels = [np.zeros(shape) for shape in layout.shapes]
        for level in range(1, layout.layers + 1):
            below, here = units[level - 1 : level + 1]
            for key, unit in here.items():
                if self._levels[key].start < level:
                    kernels[level - 1][below[key], unit] = 1.0
                    continue
                for link in self._into[key]:
                    kernels[level - 1][below[link.source], unit] += link.weight
        for at, key in enumerate(self._outputs):
            kernels[-1][units[-1][key], at] = 1.0
        return Cppn.of(layout, [kernel.astype(np.float32) for kernel in kernels])

    @cached_property
    def _laid_out(self) -> tuple[Layout, list[dict[Key, int]]]:
        """The layout, and the unit of every node held at each level; of the inputs, their own places."""
        top = max(held.start for held in self._levels.values())
        if top > MOST_LAYERS:
            raise UsageError(
                "The genome is too deep for a layered net.", where=self.name, got=f"{top:,}",
                expected=f"at most {MOST_LAYERS} links from an input to an output",
            )  # fmt: skip
        slots: list[dict[Key, tuple[str, int]]] = []
        sizes: dict[str, int] = {}
        for level in range(top + 1):
            counts: dict[str, int] = {}
            slots.append({})
            for key in self.order:
                held = self._levels[key]
                if level in held:
                    block = self._node[key].activation if 0 < level == held.start else CACHE
                    slots[-1][key] = (block, counts.get(block, 0))
                    counts[block] = counts.get(block, 0) + 1
            sizes |= {block: max(sizes.get(block, 0), count) for block, count in counts.items()}
        layout = Layout(top, tuple(sorted(sizes.items())))
        starts = {name: start for name, start, _ in layout.spans}
        units = [{key: starts[block] + at for key, (block, at) in held.items()} for held in slots]
        return layout, [{key: at for at, key in enumerate(self._inputs)}, *units[1:]]

    def factors(self) -> Mapping[int, str]:
        """Published id in the layered net of every named link, with its name."""
        found: dict[int, str] = {}
        for link in self.links:
            if link.name and link.target in self._levels:
                (layout, units), level = self._laid_out, self._levels[link.target].start
                source, target = units[level - 1][link.source], units[level][link.target]
                found[layout.flat_id(level - 1, source, target)] = link.name
        return found
