"""Nets trained to draw a picture by their recipe, as tests look at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from wheeltap.core.task import Task
from wheeltap.models.cppn import Cppn, Layout
from wheeltap.recipes.base import Given, recipe_of, spec
from wheeltap.recipes.make import make


@dataclass(frozen=True, eq=False)
class Painted:
    """Nets in the order of their seeds: how each ended, and the starts that were lost."""

    nets: tuple[Cppn, ...]
    status: tuple[str, ...]
    restarts: tuple[int, ...]

    @property
    def bits(self) -> list[bytes]:
        return [net.flat_parameters().tobytes() for net in self.nets]


def asked(layout: Layout, canvas: Task, seed: int, **settings: Any) -> Given:
    """What the recipe is given for one net."""
    return Given(spec("picture", {**settings, "layout": str(layout)}, seed=seed, data=canvas.digest), task=canvas)


def paint(layout: Layout, canvas: Task, *, seeds: Sequence[int], **settings: Any) -> Painted:
    given = [asked(layout, canvas, seed, **settings) for seed in seeds]
    made = [make(one, recipe_of(one.spec)) for one in given]
    return Painted(
        nets=tuple(cast("Cppn", one.model) for one in made),
        status=tuple(one.status for one in made),
        restarts=tuple(int(one.report["restarts"]) for one in made),
    )
