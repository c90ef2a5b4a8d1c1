"""Finite symmetries of a task: which examples and outputs a group moves into which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wheeltap.core import canon
from wheeltap.core.errors import DataError
from wheeltap.core.settings import checked
from wheeltap.core.typed import to_tensor

Places = NDArray[np.float64]

MOST: Final = 192
"""Largest order of a group: its table of products is checked entry by entry."""

APART: Final = 0.01
"""Difference of two targets that is one, as a share of the targets' spread: rounding is none."""


@final
@dataclass(frozen=True, eq=False)
class Symmetry:
    """A finite group acting on the examples of a task, and on the outputs where these move too.

    Element ``g`` turns a function ``f`` on the examples into ``(g f)[e] = signs[g] * f[examples[g, e]][outputs[g]]``.
    A function that all elements leave as it is has the symmetry.

    Attributes:
        name: For reports, such as ``mirror left-right``.
        examples: ``[element, example]``, a permutation for each element; the first one moves nothing.
        outputs: ``[element, output]``, a permutation for each element; ``None`` where outputs stay in place.
        signs: ``[element, output]``, 1 or -1; ``None`` where no output changes its sign.

    Raises:
        DataError: If a row is no permutation, the first element is not the identity, or products leave the set.
    """

    name: str
    examples: Int[Tensor, "element example"]
    outputs: Int[Tensor, "element output"] | None = None
    signs: Float[Tensor, "element output"] | None = None

    def __post_init__(self) -> None:
        if self.examples.ndim != 2 or not 2 <= len(self.examples) <= MOST:
            raise self._wrong(
                f"between 2 and {MOST} permutations [element, example], the first of which moves nothing",
                str(list(self.examples.shape)),
            )
        for moved in (self.examples, self.outputs):
            if moved is not None and moved.numel() and not 0 <= int(moved.min()) <= int(moved.max()) < moved.shape[1]:
                outside = int(moved.min()) if int(moved.min()) < 0 else int(moved.max())
                raise self._wrong(f"places from 0 to {moved.shape[1] - 1}", f"place {outside}")
            if moved is not None and not torch.equal(
                moved.sort(1).values, torch.arange(moved.shape[1]).expand_as(moved)
            ):
                raise self._wrong("a permutation in each row", "a row that gives a place twice")
        if self.signs is not None and not bool((self.signs.abs() == 1).all()):
            raise self._wrong("signs of 1 and -1", "another number")
        # The set holds the identity first, and every product of two of its elements.
        table, options = self._table(), 0 if self.signs is None else self.signs.shape[1]
        examples = self.examples.numpy()
        outputs = np.tile(np.arange(options), (len(table), 1)) if self.outputs is None else self.outputs.numpy()
        still: list[NDArray[np.int64]] = [np.arange(self.size)]
        still += [] if self.outputs is None else [np.arange(outputs.shape[1])]
        if not np.array_equal(table[0], np.concatenate([*still, np.ones(options, dtype=np.int64)])):
            raise self._wrong(
                f"the identity as the first element (a row 0, 1, ..., {self.size - 1})",
                "a first element that moves something",
            )
        known = {row.tobytes() for row in table}
        if len(known) < len(table):
            raise self._wrong("every element once", "the same element twice")
        for one in range(len(table)):
            for other in range(len(table)):  # first the other, then the one
                parts = [examples[other][examples[one]]]
                parts += [] if self.outputs is None else [outputs[other][outputs[one]]]
                if options:
                    signs = table[:, -options:]
                    parts.append(signs[one] * signs[other][outputs[one]])
                if np.concatenate(parts).tobytes() not in known:
                    raise self._wrong("a group: the product of two elements is one too", "a product that is missing")

    @property
    def size(self) -> int:
        """Examples it acts on."""
        return self.examples.shape[1]

    @property
    def order(self) -> int:
        """Elements of the group, the identity among them."""
        return len(self.examples)

    @property
    def digest(self) -> str:
        """Digest of the action; the name is no part of it."""
        return canon.array_digest("symmetry", self._table())

    def act(self, element: int, values: Tensor) -> Tensor:
        """What an element makes of ``values`` ``[..., example, output]``."""
        moved = values[..., self.examples[element].to(values.device), :]
        if self.outputs is not None:
            moved = moved[..., self.outputs[element].to(values.device)]
        return moved if self.signs is None else moved * self.signs[element].to(moved)

    def project(self, values: Tensor) -> Tensor:
        """The part of ``values`` ``[..., example, output]`` that has the symmetry: the mean over the group."""
        total = values.clone()
        for element in range(1, self.order):
            total += self.act(element, values)
        return total / self.order

    def share(self, change: Tensor, *, energy: Tensor | None = None) -> Tensor:
        """||P d||^2 / ||d||^2 of changes ``[..., example, output]``: which share has the symmetry; 0 of no change.

        Args:
            change: The changes, all examples of each.
            energy: ``[...]``, the sum of squares of each, where it is known.
        """
        whole = change.square().sum((-2, -1)) if energy is None else energy
        return self.project(change).square().sum((-2, -1)) / whole.clamp_min(torch.finfo(change.dtype).tiny)

    def broken(self, targets: Tensor, *, options: int) -> float:
        """Share of the examples whose target is not what the group makes of it: a symmetry of the task has none.

        Args:
            targets: Class or right option, integer ``[example]``, or wanted outputs, floating point
                ``[example, output]``.
            options: Outputs of the task.
        """
        held = targets.cpu()
        # About the middle of the classes, so that a change of sign takes one of two for the other.
        wanted = held.double() if held.is_floating_point() else functional.one_hot(held, options).double() - 1 / options
        least = APART * float((wanted - wanted.mean(0)).square().mean().sqrt())
        apart = torch.zeros(self.size, dtype=torch.bool)
        for element in range(1, self.order):
            apart |= (self.act(element, wanted) - wanted).abs().amax(1) > least
        return float(apart.double().mean())

    def _table(self) -> NDArray[np.int64]:
        """``[element, ...]``: where examples and outputs go, and the outputs' signs."""
        parts = [part for part in (self.examples, self.outputs, self.signs) if part is not None]
        return torch.cat([part.long() for part in parts], 1).numpy()

    def _wrong(self, expected: str, got: str) -> DataError:
        return DataError("This is not a symmetry of a set of examples.", where=self.name, expected=expected, got=got)


def of_points(
    name: str, points: Float[Tensor, "example coordinate"], *, maps: Sequence[Float[Tensor, "coordinate coordinate"]]
) -> Symmetry:
    """The symmetry by which linear maps move a set of points into itself.

    Args:
        name: For reports.
        points: Coordinates of each example.
        maps: One matrix for each element of the group, the identity first.

    Raises:
        DataError: If a map moves a point to a place where there is none, or the maps are no group.
    """
    from scipy.spatial import KDTree

    places = _places(points, name)
    if not maps:
        raise DataError("A symmetry has at least one element.", where=name, expected="the identity first", got="no map")
    gap = 1e-6 * max(float(np.abs(places).max()), 1.0)
    tree, found = KDTree(places), list[Tensor]()
    for at, matrix in enumerate(maps):
        moved = places @ matrix.double().numpy().T
        distance, index = cast("tuple[Places, NDArray[np.int64]]", tree.query(moved))  # pyright: ignore[reportUnknownMemberType]
        if float(np.max(distance)) > gap or len(np.unique(index)) < len(places):
            worst = int(np.argmax(distance))
            raise DataError(
                "The inputs do not have this symmetry.",
                where=f"{name}: element {at}",
                expected="every point moved onto a point",
                got=f"{tuple(round(float(v), 4) for v in places[worst])} moved to "
                f"{tuple(round(float(v), 4) for v in moved[worst])}, where there is none",
                do="Take inputs that the group moves into themselves (a polar grid for rotations), or another group.",
            )
        found.append(to_tensor(index.astype(np.int64)))
    return Symmetry(name, torch.stack(found))


def _places(points: Tensor, name: str) -> Places:
    """Coordinates in double precision.

    Raises:
        DataError: If they are no finite table, or two points are the same.
    """
    places: Places = torch.as_tensor(points).detach().cpu().double().numpy()
    if places.ndim != 2 or not places.size or not np.isfinite(places).all():
        raise DataError(
            "There are no points to move.",
            where=name,
            expected="finite coordinates [example, coordinate]",
            got=f"{list(places.shape)}{'' if np.isfinite(places).all() else ', not all finite'}",
        )
    if len(np.unique(places, axis=0)) < len(places):
        raise DataError(
            "Two examples have the same coordinates, so it is not clear which goes where.",
            where=name,
            expected=f"{len(places)} different points",
            got=f"{len(np.unique(places, axis=0))}",
            do="Leave the repetitions out.",
        )
    return places


def mirror(points: Float[Tensor, "example coordinate"], *, axis: int = 0) -> Symmetry:
    """Reflection of one coordinate of the points (left-right where ``axis`` is the columns).

    Raises:
        DataError: If there is no such coordinate, or the points are not moved into themselves.
    """
    if not 0 <= axis < _places(points, "mirror").shape[1]:
        raise DataError(
            "The points have no such coordinate.", where="mirror", expected=f"0 to {points.shape[1] - 1}", got=str(axis)
        )
    flip = torch.eye(points.shape[1], dtype=torch.float64)
    flip[axis, axis] = -1.0
    names = {0: "mirror left-right", 1: "mirror top-bottom"}
    still = torch.eye(points.shape[1], dtype=torch.float64)
    return of_points(names.get(axis, f"mirror of axis {axis}"), points, maps=[still, flip])


@checked
def rotations(points: Float[Tensor, "example 2"], *, folds: int, mirrored: bool = False) -> Symmetry:
    """Turns by 360 / ``folds`` degrees about the origin; with ``mirrored``, the reflections too (dihedral group).

    Raises:
        DataError: If there is no fold, the points are not in a plane, or they are not moved into themselves.
    """
    if folds < 1 or _places(points, "rotations").shape[1] != 2:
        raise DataError(
            "Points in a plane are turned by whole parts of a circle.",
            where="rotations",
            expected="points [example, 2] and at least 1 fold",
            got=f"{list(points.shape)} and {folds}",
        )
    maps: list[Tensor] = []
    for turn in range(folds):
        angle = torch.tensor(2 * torch.pi * turn / folds, dtype=torch.float64)
        sin, cos = float(angle.sin()), float(angle.cos())
        maps.append(torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64))
    if mirrored:
        flip = torch.tensor([[-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        maps += [turn @ flip for turn in maps]
    return of_points(f"{folds}-fold rotation{' and mirror' if mirrored else ''}", points, maps=maps)
