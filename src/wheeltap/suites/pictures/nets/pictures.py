"""Pictures with known factors: CPPNs written by hand, one meaning for each named weight.

They stand where a genome from Picbreeder is not at hand, and their symmetries and factors are known by construction:
a face (mirror image), a flower (turns and mirror images) and a scene (independent objects).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from wheeltap.core.errors import UnknownName
from wheeltap.core.symmetry import Symmetry, mirror, rotations
from wheeltap.models.cppn import INPUTS, OUTPUTS, grid
from wheeltap.suites.pictures.nets.genome import Genome, GenomeLink, GenomeNode

EDGE: Final = 3.0
"""Weight of each step that makes an edge sharper: the largest that Picbreeder's site allowed."""


NamedWeight = tuple[float, str]
"""A weight with a meaning: what it does to the picture."""

Weights = Mapping[str, float | NamedWeight]
"""What a node reads: the weight of each link, by the node it comes from."""

Colour = tuple[float, float, float]
"""Hue (0 to 1, once round), saturation and brightness (0 to 1)."""

PaintLayer = tuple[str, Colour, Colour]
"""A part of the picture that lies on another: a node that is 1 on the part and 0 elsewhere; its colour, and that of
what lies below it."""


@final
class Sketch:
    """A genome in the making; every node is called by its name."""

    def __init__(self) -> None:
        self._nodes = [GenomeNode(label, kind="in", label=label) for label in INPUTS]
        self._links: list[GenomeLink] = []

    def add(self, name: str, activation: str, reads: Weights, kind: Literal["hidden", "out"] = "hidden") -> str:
        """Adds a node that gives its activation of what it reads; like all that follow, gives its name back.

        A gaussian is 1 where its sum is 0, and -1 far from there.
        """
        self._nodes.append(GenomeNode(name, activation, kind, name if kind == "out" else ""))
        for source, weight in reads.items():
            value, factor = weight if isinstance(weight, tuple) else (weight, "")
            self._links.append(GenomeLink(source, name, value, factor))
        return name

    def edge(self, name: str, reads: Weights, *, steps: int = 3) -> str:
        """Adds a node that is 1 where its sum is positive and -1 where negative.

        Args:
            name: Of the last node; those before it have a number behind.
            reads: What it reads.
            steps: Nodes in a row: the more, the sharper the edge between.
        """
        for step in range(1, steps):
            reads = {self.add(f"{name} {step}", "tanh", reads): EDGE}
        return self.add(name, "tanh", reads)

    def cover(self, name: str, shown: str, *, hidden_by: str = "") -> str:
        """Adds a mask: 1 on the part where ``shown`` is 1 and ``hidden_by`` is -1, else 0."""
        return self.add(name, "relu", {shown: 0.5, **({hidden_by: -0.5} if hidden_by else {"bias": 0.5})})

    def within(self, name: str, edges: list[str]) -> str:
        """Adds a mask: 1 where all of these are 1, 0 where one of them is -1."""
        bias = {"bias": 1.0 - 0.5 * len(edges)} if len(edges) != 2 else {}
        return self.add(name, "relu", {**dict.fromkeys(edges, 0.5), **bias})

    def paint(
        self, layers: list[PaintLayer], ground: Colour, *, name: str, gradient: Mapping[str, Weights] | None = None
    ) -> Genome:
        """The genome with its outputs: the colour of the ground, and each layer's difference from what it lies on.

        Args:
            layers: Parts, each with the colour below it.
            ground: Colour where there is no layer.
            name: Of the genome.
            gradient: What outputs read beside these, by their names: how the ground changes from place to place.
        """
        for at, output in enumerate(OUTPUTS):
            reads: dict[str, float | NamedWeight] = {"bias": ground[at], **(gradient or {}).get(output, {})}
            reads |= {mask: round(colour[at] - below[at], 9) for mask, colour, below in layers}
            self.add(output, "identity", {source: weight for source, weight in reads.items() if weight != 0}, "out")
        return Genome(self._nodes, self._links, name=name)


Points = Float[Tensor, "point 2"]
Symmetric = Callable[[int], tuple[Points, Symmetry]]
"""Points (x, y), about as many as a square picture of this size has, and how the symmetry moves them."""


@final
@dataclass(frozen=True)
class KnownPicture:
    """A picture whose factors are known.

    Attributes:
        name: What it is called by.
        about: One sentence for people.
        genome: The CPPN; its meaningful weights have names.
        symmetric: Its symmetry and the points on which it acts, or ``None``.
    """

    name: str
    about: str
    genome: Genome
    symmetric: Symmetric | None = None


def _ellipse(sketch: Sketch, name: str, across: str, along: str, *, size: NamedWeight, steps: int) -> str:
    """A mask: 1 where two gaussians add up to more than -``size`` / 3."""
    return sketch.edge(name, {across: 3.0, along: 3.0, "bias": size}, steps=steps)


def mirror_image(size: int) -> tuple[Points, Symmetry]:
    """The pixels of a square picture, and how its mirror left-right moves them."""
    points = grid(size)[:, :2]
    return points, mirror(points)


_MIRRORED: Final = 128
"""Pixels of a side on which a symmetry is measured."""


def mirrored_share(genome: Genome) -> float:
    """How much of a genome's picture is its own mirror image left-right: ||P(I - mean)||^2 / ||I - mean||^2.

    P is the mean of a picture and its mirror image; the mean colour has every symmetry and is left out. A picture of
    one colour has 1, one that is not finite has 0.
    """
    _, symmetry = mirror_image(_MIRRORED)
    drawn = torch.as_tensor(genome.render(_MIRRORED)).double().reshape(symmetry.size, -1)
    centred = drawn - drawn.mean(0)
    if not bool(centred.any()):
        return 1.0
    share = float(symmetry.share(centred))
    return share if math.isfinite(share) else 0.0


BACKDROP: Final = (-0.42, 0.35, 0.80)
SKIN: Final = (0.07, 0.42, 0.97)
HAIR: Final = (0.04, 0.65, 0.33)
EYE: Final = (0.07, 0.03, 1.00)
PUPIL: Final = (0.07, 0.55, 0.12)
LIPS: Final = (-0.01, 0.62, 0.80)
MOUTH: Final = (-0.01, 0.70, 0.30)


def _face() -> KnownPicture:
    sketch = Sketch()
    sketch.add("side", "abs", {"x": 1.0})
    _head(sketch)
    _eyes(sketch)
    _mouth(sketch)
    layers = [
        ("hair seen", HAIR, BACKDROP),
        ("head seen", SKIN, BACKDROP),
        ("nose seen", (0.05, 0.50, 0.86), SKIN),
        ("brows seen", HAIR, SKIN),
        ("eyes seen", EYE, SKIN),
        ("pupils seen", PUPIL, EYE),
        ("lips seen", LIPS, SKIN),
        ("mouth seen", MOUTH, LIPS),
    ]
    return KnownPicture(
        "face",
        "A face, the same left and right: both eyes, both brows and the two halves of the mouth are drawn by the same "
        "nodes from |x|.",
        sketch.paint(layers, BACKDROP, name="face"),
        mirror_image,
    )


def _head(sketch: Sketch) -> None:
    sketch.add(
        "head across",
        "gaussian",
        {"side": (-0.95, "face width"), "y": (-0.10, "jaw width"), "bias": 0.02},
    )
    sketch.add("head along", "gaussian", {"y": (-0.72, "face length"), "bias": 0.10})
    _ellipse(sketch, "head", "head across", "head along", size=(-4.0, "head size"), steps=3)
    sketch.add("hair across", "gaussian", {"side": 0.82})
    sketch.add("hair along", "gaussian", {"y": 0.95, "bias": (0.25, "hair height")})
    _ellipse(sketch, "hair", "hair across", "hair along", size=(-3.6, "hair volume"), steps=3)
    sketch.cover("head seen", "head")
    sketch.cover("hair seen", "hair", hidden_by="head")


def _eyes(sketch: Sketch) -> None:
    sketch.add("eye side", "identity", {"side": -1.0, "bias": (0.28, "eye spacing")})
    sketch.add("eye level", "identity", {"y": 1.0, "bias": (0.06, "eye height")})
    sketch.add("eye across", "gaussian", {"eye side": (-3.0, "eye width")})
    sketch.add("eye along", "gaussian", {"eye level": (-5.0, "eye opening")})
    _ellipse(sketch, "eyes", "eye across", "eye along", size=(-4.5, "eye size"), steps=3)
    _ellipse(sketch, "pupils", "eye across", "eye along", size=(-5.3, "pupil size"), steps=3)
    sketch.add("brow across", "gaussian", {"eye side": 4.0})
    height = {"eye level": 9.0, "eye side": (1.0, "brow tilt"), "bias": (2.0, "brow height")}
    sketch.add("brow along", "gaussian", height)
    _ellipse(sketch, "brows", "brow across", "brow along", size=(-3.6, "brow thickness"), steps=3)
    for part in ("eyes", "pupils", "brows"):
        sketch.cover(f"{part} seen", part)


def _mouth(sketch: Sketch) -> None:
    sketch.add("bend", "gaussian", {"side": 1.5})
    sketch.add("mouth level", "abs", {"y": -1.0, "bias": 0.40, "bend": (0.10, "smile")})
    sketch.add("mouth across", "gaussian", {"side": (-2.2, "mouth width")})
    opening = {"mouth across": 1.5, "mouth level": -12.0, "bias": (0.0, "mouth opening")}
    sketch.add("gape", "identity", opening)
    sketch.edge("lips", {"gape": 3.0, "bias": (1.5, "lip thickness")}, steps=2)
    sketch.edge("mouth", {"gape": 3.0, "bias": -1.5}, steps=2)
    sketch.cover("lips seen", "lips")
    sketch.cover("mouth seen", "mouth")
    sketch.add("nose across", "gaussian", {"side": 7.0, "y": -2.0, "bias": 0.6})
    sketch.add("nose along", "gaussian", {"y": 4.0, "bias": -0.7})
    _ellipse(sketch, "nose", "nose across", "nose along", size=(-3.6, "nose size"), steps=2)
    sketch.cover("nose seen", "nose")


PETAL: Final = (-0.09, 0.55, 0.96)
SPOT: Final = (-0.05, 0.75, 0.85)
HEART: Final = (0.13, 0.85, 0.95)
SEEDS: Final = (0.08, 0.80, 0.55)
LEAVES: Final = (0.30, 0.45, 0.30)


PETALS: Final = 6


def _flower() -> KnownPicture:
    sketch = Sketch()
    _petals(sketch)
    sketch.edge("heart", {"d": -3.0, "bias": (1.25, "heart size")}, steps=4)
    sketch.edge("seeds", {"d": -3.0, "bias": (0.65, "seed ring")}, steps=4)
    for part in ("petals", "spots"):
        sketch.cover(f"{part} seen", part, hidden_by="heart")
    for part in ("heart", "seeds"):
        sketch.cover(f"{part} seen", part)
    layers = [
        ("petals seen", PETAL, LEAVES),
        ("spots seen", SPOT, PETAL),
        ("heart seen", HEART, LEAVES),
        ("seeds seen", SEEDS, HEART),
    ]
    return KnownPicture(
        "flower",
        f"A flower with {PETALS} petals, the same after a turn by {360 / PETALS:g} degrees and in a mirror: gaussians "
        "across equally turned directions add up.",
        sketch.paint(layers, LEAVES, name="flower"),
        lambda size: turned(size, PETALS),
    )


def _petals(sketch: Sketch) -> None:
    """Ridges along as many rays as petals, and a bump at their distance from the centre.

    Petals are opposite each other: one node for two is 1 along both rays and -1 beside them.
    """
    width, rays = 0.63 * PETALS, list[str]()
    for line in range(PETALS // 2):
        angle = 2 * math.pi * line / PETALS
        across = {"x": width * math.cos(angle), "y": width * math.sin(angle)}
        reads = {name: weight for name, weight in across.items() if abs(weight) > 1e-12}
        rays.append(sketch.add(f"ray {line}", "gaussian", reads))
    sketch.add("rays", "identity", {**dict.fromkeys(rays, 1.0), "bias": len(rays) - 1.0})
    sketch.add("reach", "gaussian", {"d": (-1.6, "bloom"), "bias": 1.5})
    shape = {"rays": (1.0, "petal division"), "reach": 2.5, "bias": (-2.38, "petal width")}
    sketch.add("petal", "identity", shape)
    sketch.edge("petals", {"petal": 3.0})
    sketch.edge("spots", {"petal": 3.0, "bias": (-2.0, "spot size")})


def turned(size: int, petals: int) -> tuple[Points, Symmetry]:
    """Points on circles, and their turns by one petal and mirror images.

    As many circles as half the rows, and a whole number of points to each petal.
    """
    spokes = 2 * petals * max(1, round(size / petals))
    angles = torch.arange(spokes, dtype=torch.float64) * (2 * math.pi / spokes)
    radii = (torch.arange(max(1, size // 2), dtype=torch.float64) + 0.5) / max(1, size // 2)
    points = radii[:, None, None] * torch.stack([angles.cos(), angles.sin()], 1)
    points = points.reshape(-1, 2)
    return points, rotations(points, folds=petals, mirrored=True)


SKY: Final = (0.08, 0.50, 0.93)
SUN: Final = (0.14, 0.75, 1.00)
GRASS: Final = (0.24, 0.65, 0.52)
WALL: Final = (0.06, 0.22, 0.90)
ROOF: Final = (0.00, 0.75, 0.58)
DOOR: Final = (0.06, 0.65, 0.35)
WINDOW: Final = (0.14, 0.60, 1.00)


def _scene() -> KnownPicture:
    sketch = Sketch()
    _sun(sketch)
    _hill(sketch)
    _house(sketch)
    layers = [
        ("sun seen", SUN, SKY),
        ("hill seen", GRASS, SKY),
        ("wall seen", WALL, SKY),
        ("roof seen", ROOF, SKY),
        ("door seen", DOOR, WALL),
        ("windows seen", WINDOW, WALL),
    ]
    return KnownPicture(
        "scene",
        "A house on a hill before an evening sky: sun, hill and house are drawn by nodes of their own.",
        sketch.paint(layers, SKY, name="scene", gradient={"saturation": {"y": -0.12}, "hue": {"y": 0.03}}),
    )


def _sun(sketch: Sketch) -> None:
    sketch.add("sun across", "gaussian", {"x": -2.0, "bias": (-0.9, "sun to the right")})
    sketch.add("sun along", "gaussian", {"y": 2.0, "bias": (1.1, "sun height")})
    _ellipse(sketch, "sun", "sun across", "sun along", size=(-4.8, "sun size"), steps=3)
    sketch.add("sun seen", "relu", {"sun": 0.5, "hill": -0.5, "wall seen": -1.0, "roof seen": -1.0})


def _hill(sketch: Sketch) -> None:
    sketch.add("hilltop", "gaussian", {"x": -1.1, "bias": (0.3, "hill to the right")})
    sketch.edge("hill", {"y": 3.0, "hilltop": (0.9, "hill steepness"), "bias": (-1.2, "hill height")})
    sketch.add("hill seen", "relu", {"hill": 0.5, "bias": 0.5, "wall seen": -1.0, "roof seen": -1.0})


def _house(sketch: Sketch) -> None:
    sketch.add("house middle", "identity", {"x": -1.0, "bias": (0.35, "house to the right")})
    sketch.add("house side", "abs", {"house middle": 1.0})
    sketch.add("house level", "identity", {"y": 1.0, "bias": (0.05, "house height")})
    sketch.edge("inside", {"house side": -3.0, "bias": (0.75, "house width")}, steps=4)
    sketch.edge("below eaves", {"house level": 3.0}, steps=4)
    sketch.edge("above ground", {"y": -3.0, "bias": (0.96, "house depth")}, steps=4)
    sketch.edge("below ridge", {"house level": 3.0, "house side": -2.7, "bias": (0.95, "roof height")}, steps=4)
    sketch.within("wall seen", ["inside", "below eaves", "above ground"])
    sketch.cover("roof seen", "below ridge", hidden_by="below eaves")
    sketch.edge("beside door", {"house side": -3.0, "bias": (0.21, "door width")}, steps=4)
    sketch.edge("below lintel", {"house level": 3.0, "bias": -0.42}, steps=4)
    sketch.within("door seen", ["beside door", "below lintel", "above ground"])
    sketch.add("window across", "gaussian", {"house side": 7.0, "bias": -1.12})
    sketch.add("window along", "gaussian", {"house level": 7.0, "bias": -1.05})
    _ellipse(sketch, "windows", "window across", "window along", size=(-4.6, "window size"), steps=3)
    sketch.cover("windows seen", "windows")


PICTURES: Final[dict[str, Callable[[], KnownPicture]]] = {"face": _face, "flower": _flower, "scene": _scene}
"""Each is built when it is asked for."""


def picture(name: str) -> KnownPicture:
    """The picture of this name.

    Raises:
        UnknownName: If there is none.
    """
    if name not in PICTURES:
        raise UnknownName("picture", name, PICTURES)
    return PICTURES[name]()
