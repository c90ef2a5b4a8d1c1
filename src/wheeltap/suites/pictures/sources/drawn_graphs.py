"""The graph that a layered net was laid out from, beside the net: does it draw the same, and what is known of it."""

from collections import Counter
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.models.cppn import OUTPUTS, Cppn, grid
from wheeltap.suites.pictures.nets.genome import Genome, Key, Link
from wheeltap.suites.pictures.nets.pictures import Picture, mirror_image
from wheeltap.suites.pictures.readings import drawing
from wheeltap.suites.pictures.sources.drawn import picture_named
from wheeltap.suites.pictures.specs import PICTURE_GRAPH, GraphSettings, as_bytes


@final
class PictureGraph(Reading):
    """How far a layered net is from the graph it was laid out from, and what is known of that graph.

    Both are computed in double precision, and the graph with its weights rounded as the net holds them: in single
    precision, a sound net of a deep genome may differ from its graph by more than a wrong net of a shallow one.
    """

    spec = PICTURE_GRAPH
    settings: GraphSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """Two passes.

        Raises:
            ModelError: If the subject draws no picture.
            WheeltapError: If there is no such graph.
        """
        net = drawing(subject)
        kind, _, rest = self.settings.source.partition(":")
        drawn = picture_named(kind, rest)
        gap, rmse = gaps(drawn.genome, net, size=self.settings.size)
        factors = drawn.genome.factors()
        values: dict[str, NDArray[Any]] = {
            "strongest": np.array(np.count_nonzero(net.flat_parameters())),
            "folds": np.array(_folds(drawn)),
            "about": np.array(as_bytes(drawn.about)),
        }
        if factors:
            values["factor"] = np.array([(at, *net.layout.address(at)) for at in factors])
            values["factors"] = np.array(as_bytes("\n".join(factors.values())))
        values |= {name: np.array(value) for name, value in (("gap", gap), ("rmse", rmse)) if np.isfinite(value)}
        return Readings(values, forwards=2.0)


def gaps(genome: Genome, net: Cppn, *, size: int) -> tuple[float, float]:
    """How far a layered net is from its graph: in double precision, and as it is.

    The first is the largest difference in hue, saturation or brightness at any pixel, as a share of the largest value
    that this has in the picture where that is above 1; the second the root mean square of the difference in color.
    """
    pixels = grid(size).double()
    with torch.no_grad():
        graph, layered = _as_held(genome).evaluate(pixels), net.precise().hsv(pixels)
        gap = float(((layered - graph).abs() / graph.abs().amax(0).clamp(min=1.0)).max())
        single = to_array(net(grid(size))) - genome.render(size).reshape(-1, len(OUTPUTS))
    return gap, float(np.sqrt(np.square(single, dtype=np.float64).mean()))


def _as_held(genome: Genome) -> Genome:
    """The graph with its weights as the layered net holds them: of all links between two nodes together, rounded."""
    total: dict[tuple[Key, Key], float] = {}
    links = [(link.source, link.target) for link in genome.links]
    for ends, link in zip(links, genome.links, strict=True):
        total[ends] = total.get(ends, 0.0) + link.weight
    count = Counter(links)
    rounded = {ends: float(np.float32(weight)) / count[ends] for ends, weight in total.items()}
    return Genome(genome.nodes, [Link(*ends, weight=rounded[ends]) for ends in links], name=genome.name)


def _folds(drawn: Picture) -> int:
    """Turns that leave the picture as it is, where its symmetry is more than one mirror; else 0."""
    if drawn.symmetric is None or drawn.symmetric is mirror_image:
        return 0
    return drawn.symmetric(8)[1].order // 2
