"""Building genomes in code: nodes and links by name, masks with sharp edges, and colours laid over one another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, final

from wheeltap.models.cppn import INPUTS, OUTPUTS
from wheeltap.suites.pictures.nets.genome import Genome, Link, Node

EDGE: Final = 3.0
"""Weight of each step that makes an edge sharper: the largest that Picbreeder's site allowed."""


class Factor(NamedTuple):
    """A weight with a meaning: what it does to the picture."""

    weight: float
    name: str


Weights = Mapping[str, float | Factor]
"""What a node reads: the weight of each link, by the node it comes from."""


class Colour(NamedTuple):
    """Hue (0 to 1, once round), saturation and brightness (0 to 1)."""

    hue: float
    saturation: float
    brightness: float


@final
@dataclass(frozen=True)
class Layer:
    """A part of the picture that lies on another.

    Attributes:
        mask: Node that is 1 on the part and 0 elsewhere.
        colour: Of the part.
        over: Of what lies below it.
    """

    mask: str
    colour: Colour
    over: Colour


@final
class Sketch:
    """A genome in the making; every node is called by its name."""

    def __init__(self) -> None:
        self._nodes = [Node(label, kind="in", label=label) for label in INPUTS]
        self._links: list[Link] = []

    def _add(self, name: str, activation: str, reads: Weights, kind: Literal["hidden", "out"] = "hidden") -> str:
        self._nodes.append(Node(name, activation, kind, name if kind == "out" else ""))
        for source, weight in reads.items():
            value, factor = weight if isinstance(weight, Factor) else (weight, "")
            self._links.append(Link(source, name, value, factor))
        return name

    def identity(self, name: str, reads: Weights) -> str:
        """Adds a linear node; like all that follow, gives its name back."""
        return self._add(name, "identity", reads)

    def gaussian(self, name: str, reads: Weights) -> str:
        """Adds a node that is 1 where its sum is 0, and -1 far from there."""
        return self._add(name, "gaussian", reads)

    def abs(self, name: str, reads: Weights) -> str:
        """Adds a node that gives the size of its sum."""
        return self._add(name, "abs", reads)

    def relu(self, name: str, reads: Weights) -> str:
        """Adds a node that gives its sum where positive, else 0."""
        return self._add(name, "relu", reads)

    def edge(self, name: str, reads: Weights, *, steps: int = 3) -> str:
        """Adds a node that is 1 where its sum is positive and -1 where negative.

        Args:
            name: Of the last node; those before it have a number behind.
            reads: What it reads.
            steps: Nodes in a row: the more, the sharper the edge between.
        """
        for step in range(1, steps):
            reads = {self._add(f"{name} {step}", "tanh", reads): EDGE}
        return self._add(name, "tanh", reads)

    def cover(self, name: str, shown: str, *, hidden_by: str = "") -> str:
        """Adds a mask: 1 on the part where ``shown`` is 1 and ``hidden_by`` is -1, else 0."""
        return self.relu(name, {shown: 0.5, **({hidden_by: -0.5} if hidden_by else {"bias": 0.5})})

    def within(self, name: str, edges: list[str]) -> str:
        """Adds a mask: 1 where all of these are 1, 0 where one of them is -1."""
        bias = {"bias": 1.0 - 0.5 * len(edges)} if len(edges) != 2 else {}
        return self.relu(name, {**dict.fromkeys(edges, 0.5), **bias})

    def paint(
        self, layers: list[Layer], ground: Colour, *, name: str, gradient: Mapping[str, Weights] | None = None
    ) -> Genome:
        """The genome with its outputs: the colour of the ground, and each layer's difference from what it lies on.

        Args:
            layers: Parts, each with the colour below it.
            ground: Colour where there is no layer.
            name: Of the genome.
            gradient: What outputs read beside these, by their names: how the ground changes from place to place.
        """
        for at, output in enumerate(OUTPUTS):
            reads: dict[str, float | Factor] = {"bias": ground[at], **(gradient or {}).get(output, {})}
            reads |= {layer.mask: round(layer.colour[at] - layer.over[at], 9) for layer in layers}
            self._add(output, "identity", {source: weight for source, weight in reads.items() if weight != 0}, "out")
        return Genome(self._nodes, self._links, name=name)
