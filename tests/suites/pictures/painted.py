"""Nets trained to draw a picture by their recipe, as tests look at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from msgspec import structs

from wheeltap.core.task import Task
from wheeltap.models.cppn import Cppn, Layout
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, recipe_of, spec
from wheeltap.recipes.make import Pace, Watch, make
from wheeltap.suites.pictures.recipes.picture import PictureSettings


@dataclass(frozen=True, eq=False)
class Painted:
    """Nets in the order of their seeds: how each ended, starts that were lost, errors ``[checkpoint, net]``."""

    nets: tuple[Cppn, ...]
    status: tuple[str, ...]
    restarts: tuple[int, ...]
    steps: np.ndarray
    errors: np.ndarray

    @property
    def bits(self) -> list[bytes]:
        return [net.flat_parameters().tobytes() for net in self.nets]


def asked(layout: Layout, canvas: Task, settings: PictureSettings, seed: int) -> Given:
    """What the recipe is given for one net."""
    filled = {**structs.asdict(settings), "layout": str(layout)}
    return Given(spec("picture", filled, seed=seed, data=canvas.digest), task=canvas)


def paint(
    layout: Layout,
    canvas: Task,
    *,
    seeds: Sequence[int],
    settings: PictureSettings = PictureSettings(),  # noqa: B008  (frozen)
    folder: Path | None = None,
    watch: Watch | None = None,
    pace: Pace = Pace(),  # noqa: B008  (frozen)
) -> Painted:
    kept = None if folder is None else Artifacts(folder)
    given = [asked(layout, canvas, settings, seed) for seed in seeds]
    made = [make(one, recipe_of(one.spec), kept, watch=watch, pace=pace) for one in given]
    return Painted(
        nets=tuple(cast("Cppn", one.model) for one in made),
        status=tuple(one.status for one in made),
        restarts=tuple(int(one.report["restarts"]) for one in made),
        steps=settings.recorded,
        errors=np.stack([one.report["errors"] for one in made], 1),
    )
