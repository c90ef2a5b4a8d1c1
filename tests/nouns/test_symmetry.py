"""Symmetries are groups, act as they say, and are refused where the examples do not have them."""

from collections.abc import Callable

import pytest
import torch

import wheeltap as wt
from wheeltap.core import symmetry
from wheeltap.core.errors import DataError
from wheeltap.core.symmetry import Symmetry


def square(size: int) -> torch.Tensor:
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def polar(rings: int, spokes: int) -> torch.Tensor:
    angle = torch.arange(spokes, dtype=torch.float64) * 2 * torch.pi / spokes
    radius = torch.arange(1, rings + 1, dtype=torch.float64) / rings
    return torch.stack([torch.outer(radius, angle.cos()).flatten(), torch.outer(radius, angle.sin()).flatten()], 1)


def test_a_mirror_splits_every_function_into_an_even_and_an_odd_part() -> None:
    points = square(7)
    group = symmetry.mirror(points)
    x, y = points.T
    even, odd = (x.square() + y)[:, None], (x * y.exp())[:, None]
    assert torch.allclose(group.project(even + odd), even)
    assert torch.allclose(group.project(odd), torch.zeros_like(odd), atol=1e-15)


def test_the_projection_is_a_projection_that_every_element_leaves_alone() -> None:
    for folds, mirrored, order in ((5, False, 5), (3, True, 6)):
        points = polar(3, 12 if folds != 5 else 10)
        group = symmetry.rotations(points, folds=folds, mirrored=mirrored)
        values = torch.randn(2, len(points), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        kept = group.project(values)
        assert group.order == order and not torch.allclose(kept, values)
        for again in (group.project(kept), *(group.act(element, kept) for element in range(order))):
            assert torch.allclose(again, kept)
    # Outputs may move and change sign.
    swap, signs = torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    group = Symmetry("odd", swap, outputs=torch.tensor([[0, 1], [1, 0]]), signs=signs)
    values = torch.tensor([[1.0, 2.0], [3.0, -3.0], [-2.0, -1.0]])
    assert torch.equal(group.act(1, values), values) and torch.equal(group.project(values), values)


REFUSED: list[tuple[Callable[[], Symmetry], str]] = [
    (lambda: symmetry.rotations(square(8), folds=6), "do not have this symmetry"),
    (lambda: symmetry.mirror(square(8) + 0.1), "do not have this symmetry"),
    (lambda: symmetry.mirror(square(4), axis=2), "no such coordinate"),
    (lambda: symmetry.mirror(torch.zeros(4, 2)), "same coordinates"),
    (lambda: symmetry.mirror(torch.zeros(0, 2)), "no points to move"),
    (lambda: symmetry.mirror(square(4) * float("nan")), "no points to move"),
    (lambda: symmetry.rotations(square(4), folds=0), "whole parts of a circle"),
    (lambda: symmetry.of_points("none", square(4), maps=[]), "at least one element"),
]


def test_points_that_nothing_can_be_made_of_are_refused() -> None:
    for make, words in REFUSED:
        with pytest.raises(DataError, match=words):
            make()


def test_what_is_no_group_is_refused() -> None:
    still, turn = torch.arange(3), torch.tensor([1, 2, 0])
    for rows in ([turn, still], [still, turn], [still, still], [still, torch.tensor([0, 0, 1])]):
        with pytest.raises(DataError, match="not a symmetry"):
            Symmetry("wrong", torch.stack(rows))


def test_annotations_change_the_digest_and_the_examples_keep_their_factors() -> None:
    inputs, targets = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 0, 1])
    bare = wt.Task(inputs, targets)
    known = bare.with_factors({"parity": targets.flip(0)})
    mirrored = known.with_symmetry(Symmetry("flip", torch.stack([torch.arange(6), torch.arange(6).flip(0)])))
    assert len({bare.digest, known.digest, mirrored.digest}) == 3
    assert bare.annotations.factors == {}
    part = mirrored.part(torch.tensor([4, 1]))
    assert part.annotations.factors["parity"].tolist() == [1, 0]
    assert part.annotations.symmetry is None
    with pytest.raises(DataError, match="symmetry does not fit"):
        part.with_symmetry(Symmetry("flip", torch.tensor([[0, 1, 2], [2, 1, 0]])))
    with pytest.raises(DataError, match="groups do not fit"):
        bare.with_factors({"half": torch.tensor([0.5] * 6)})


def test_targets_that_do_not_have_the_symmetry_are_counted() -> None:
    swapped = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]])
    still, turned = Symmetry("pairs", swapped), Symmetry("pairs", swapped, torch.tensor([[0, 1, 2], [1, 0, 2]]))
    alike, crossed, mixed = ([0, 0, 1, 1, 2, 2], [0, 1, 1, 0, 2, 2], [0, 1, 1, 1, 2, 2])
    for group, shares in ((still, (0, 4 / 6, 2 / 6)), (turned, (4 / 6, 0, 2 / 6))):
        for targets, share in zip((alike, crossed, mixed), shares, strict=True):
            assert group.broken(torch.tensor(targets), options=3) == pytest.approx(share)
    signed = Symmetry("signs", swapped, None, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    assert signed.broken(torch.tensor([0, 1, 1, 0, 0, 0]), options=2) == pytest.approx(2 / 6)
    numbers = torch.tensor([[1.0], [1.0 + 1e-6], [2.0], [2.0], [3.0], [3.5]])
    assert still.broken(numbers, options=1) == pytest.approx(2 / 6)
    assert still.broken(torch.zeros(6, 1), options=1) == 0.0
    turns = Symmetry("turns", torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]))
    assert turns.broken(torch.tensor([0, 0, 0, 1]), options=2) == 1.0  # one example's target is that of no other
