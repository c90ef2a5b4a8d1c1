"""What is read of a net that draws a picture: its numbers, what it draws, and what is inside."""

from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core import seeds
from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.models.cppn import Cppn, grid
from wheeltap.suites.pictures.engine import Number, Sight, Sweep, chosen_weights, is_sparse, measured, swept
from wheeltap.suites.pictures.specs import (
    BLOCKS,
    MAP,
    METRICS,
    PICTURE,
    PICTURE_DRAWN,
    PICTURE_INSIDE,
    PICTURE_NUMBERS,
    STEPS,
    STRIP,
    InsideSettings,
    NumbersSettings,
)

Arrays = dict[str, NDArray[Any]]

_NAMED: Final = 6
"""Named weights shown, at most."""


def drawing(subject: Subject) -> Cppn:
    """The subject's net.

    Raises:
        ModelError: If it is not one that draws pictures.
    """
    if not isinstance(subject.model, Cppn):
        raise ModelError(
            "The subject draws no picture.",
            where=subject.name,
            expected="a layered CPPN (wheeltap.models.cppn.Cppn)",
            got=type(subject.model).__name__,
        )
    return subject.model


@final
class PictureNumbers(Reading):
    """How a picture answers to changes of weights, and what the hidden units hold.

    Source: see ``studies.pictures``.
    """

    spec = PICTURE_NUMBERS
    settings: NumbersSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """About twenty passes for each weight, most of them over a part of a net.

        Raises:
            ModelError: If the subject draws no picture.
            DataError: If the task is no square picture.
        """
        net, sight = drawing(subject), Sight.of(task, folds=self.settings.folds)
        if self.settings.reordered:
            net = _reordered(net, seed=root)
        with torch.no_grad():
            found, moves = measured(net, sight, self.settings, root=root), chosen_weights(net, self.settings, root=root)
        none = Number(0.0)
        columns = {
            name: np.array([getattr(found.get(key, none), name) for key in METRICS])
            for name in ("value", "se", "sampled", "short")
        }
        sparse = is_sparse(net)
        values: Arrays = {
            **columns,
            "there": np.array([key in found for key in METRICS]),
            "moved": np.array(len(moves)),
            "movable": np.array(len(net.links()) if sparse else net.layout.parameters),
            "sparse": np.array(sparse),
            "symmetric": np.array(sight.symmetry is not None),
            "mirror": np.array(sight.symmetry is not None and sight.symmetry.name.startswith("mirror left-right")),
        }
        return Readings(values, forwards=20.0 * len(moves))


@final
class PictureDrawn(Reading):
    """The picture, in double precision."""

    spec = PICTURE_DRAWN

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """One pass.

        Raises:
            ModelError: If the subject draws no picture.
        """
        return Readings({"picture": drawing(subject).render(PICTURE)}, forwards=1.0)


@final
class PictureInside(Reading):
    """The maps of hidden units; the weights, and pictures while single ones move."""

    spec = PICTURE_INSIDE
    settings: InsideSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """One pass; about twenty for each weight that is moved.

        Raises:
            ModelError: If the subject draws no picture.
            DataError: If the task is no square picture.
        """
        how, net = self.settings, drawing(subject)
        with torch.no_grad():
            layers = [to_array(layer).T for layer in net.maps(grid(MAP).to(net.dense[0].weight))]
            values: Arrays = {"maps": np.stack(layers).reshape(len(layers), -1, MAP, MAP)}
            if how.explored:
                values |= _explored(net, Sight.of(task, folds=how.folds), how, root)
        return Readings(values, forwards=1.0 + 20.0 * how.weights * how.explored)


def _explored(net: Cppn, sight: Sight, how: InsideSettings, root: int) -> Arrays:
    found = swept(net, sight, how, root=root)
    rows = _shown(found, named=[int(one) for one in how.named.split(",") if one], count=how.strips)
    places = [net.layout.address(int(found.moves.ids[row])) for row in rows]
    delta = found.responses.delta[rows, 0]
    strips = [
        strip(net, weight=place, steps=[float(share * size) for share in STEPS], size=STRIP)
        for place, size in zip(places, delta, strict=True)
    ]
    links = np.array([net.layout.address(int(at)) for at in net.links()] if is_sparse(net) else [])
    blocks = dict(net.layout.blocks)
    shown = {
        "units": np.array([blocks.get(name, 0) for name in BLOCKS]),
        "folded": np.array(net.fold == "abs-x"),
        "delta": delta,
        "effect": found.responses.rmse[rows, 0],
        "strip": np.rint(np.clip(np.array(strips), 0.0, 1.0) * 255).reshape(-1, len(STEPS), STRIP, STRIP, 3),
        "place": np.array([(int(found.moves.ids[row]), *place) for row, place in zip(rows, places, strict=True)]),
    }
    shown["place"] = shown["place"].reshape(-1, 4)
    if sight.symmetry is not None:
        shown["symmetry"] = found.responses.symmetry[rows, 0]
    return {
        **shown,
        "kernels": np.concatenate([kernel.ravel() for kernel in net.kernels()]),
        "link": links.reshape(-1, 3),
    }


def strip(net: Cppn, *, weight: tuple[int, int, int], steps: Sequence[float], size: int) -> NDArray[np.float32]:
    """Pictures ``[step, row, column, 3]`` of a net as one weight moves; the net comes back as it was.

    Args:
        net: The net.
        weight: Kernel, unit it comes from, unit it leads to.
        steps: Added to the weight.
        size: Pixels of a picture's side.
    """
    layer, source, target = weight
    held = net.dense[layer].weight
    before = held.detach().clone()
    drawn: list[NDArray[np.float32]] = []
    try:
        for step in steps:
            with torch.no_grad():
                held.copy_(before)
                held[target, source] += step
            drawn.append(net.render(size))
    finally:
        with torch.no_grad():
            held.copy_(before)
    return np.stack(drawn)


def _shown(swept: Sweep, *, named: Sequence[int], count: int) -> list[int]:
    """Rows of the moves shown: the named weights, then ``count`` at even steps from the least to the most symmetric."""
    upwards = np.flatnonzero(swept.reached[:, 0])
    ranked = upwards[np.argsort(swept.responses.symmetry[upwards, 0], kind="stable")]
    steps = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    first = [int(row) for row in upwards if int(swept.moves.ids[row]) in named][:_NAMED]
    return list(dict.fromkeys([*first, *(int(ranked[at]) for at in steps)]))


def _reordered(net: Cppn, *, seed: int) -> Cppn:
    """A copy whose units are in another order within each block of each layer; it computes the same function."""
    rng = seeds.generator(seed, "fer", "reordered")
    kernels = net.kernels()
    for layer in range(net.layout.layers):
        order = np.concatenate([start + rng.permutation(end - start) for _, start, end in net.layout.spans])
        kernels[layer] = kernels[layer][:, order]
        kernels[layer + 1] = kernels[layer + 1][order]
    return Cppn.of(net.layout, kernels, fold=net.fold)
