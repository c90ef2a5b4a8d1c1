"""Pictures whose parts, symmetries and factors are known by construction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.models.cppn import colour, coordinates, grid
from wheeltap.suites.pictures.nets.genome import Genome, Link
from wheeltap.suites.pictures.nets.pictures import PICTURES, Picture, flower, node_map, picture

NAMES = sorted(PICTURES)
HOUSE = ("roof", "door", "window")
SIZE = 64


def swept(genome: Genome, factor: str, change: float) -> Genome:
    links = [Link(k.source, k.target, k.weight + change, k.name) if k.name == factor else k for k in genome.links]
    return Genome(genome.nodes, links)


def factors(of: Picture) -> list[str]:
    return [link.name for link in of.genome.links if link.name]


def change(of: Picture, factor: str, by: float) -> NDArray[np.float64]:
    """Squared change of colour at each pixel."""
    after = swept(of.genome, factor, by).render(SIZE)
    return ((after - of.genome.render(SIZE)).astype(np.float64) ** 2).sum(2).ravel()


@pytest.mark.parametrize("name", NAMES)
def test_the_dense_net_draws_the_same_picture(name: str) -> None:
    genome = picture(name).genome
    net = genome.layerize()
    inputs = grid(SIZE).double()
    with torch.no_grad():
        assert float((net.double().hsv(inputs) - genome.evaluate(inputs)).abs().max()) < 1e-4
    assert 7 <= net.layout.layers <= 14
    assert 12 <= net.layout.width <= 30


@pytest.mark.parametrize("name", NAMES)
def test_most_weights_are_in_the_range_of_the_site(name: str) -> None:
    weights = np.abs([link.weight for link in picture(name).genome.links])
    assert np.mean(weights <= 3.0) > 0.85
    assert weights.max() <= 12.0


@pytest.mark.parametrize("name", NAMES)
def test_every_factor_is_one_weight_that_changes_the_picture(name: str) -> None:
    of = picture(name)
    assert sorted(of.genome.factors().values()) == sorted(factors(of))
    assert len(set(factors(of))) == len(factors(of)) >= 6
    for factor in factors(of):
        assert change(of, factor, 0.25).sum() > 0.05, factor


@pytest.mark.parametrize("name", NAMES)
def test_every_pixel_belongs_to_one_region_and_no_region_is_empty(name: str) -> None:
    of = picture(name)
    masks = of.masks(SIZE)
    assert masks.shape == (len(of.regions), SIZE * SIZE)
    assert (masks.sum(0) == 1).all()
    assert (masks.sum(1) > 0.01 * SIZE * SIZE).all()


@pytest.mark.parametrize(("of", "order"), [(picture("face"), 2), *((flower(k), 2 * k) for k in range(4, 13))])
def test_the_picture_has_its_symmetry_exactly(of: Picture, order: int) -> None:
    assert of.symmetric is not None
    points, symmetry = of.symmetric(SIZE)
    assert symmetry.order == order
    assert len(points) == pytest.approx(SIZE * SIZE, rel=0.1)
    hsv = of.genome.evaluate(coordinates(points.double()))
    assert float((hsv - symmetry.project(hsv)).abs().max()) < 1e-5
    assert float(colour(hsv).std(0).min()) > 0.05


@pytest.mark.parametrize("name", ["face", "flower"])
def test_the_symmetry_survives_every_change_of_a_named_factor(name: str) -> None:
    of = picture(name)
    assert of.symmetric is not None
    points, symmetry = of.symmetric(SIZE)
    inputs = coordinates(points.double())
    for factor in factors(of):
        hsv = swept(of.genome, factor, 0.5).evaluate(inputs)
        assert float((hsv - symmetry.project(hsv)).abs().max()) < 1e-5, factor


def test_a_change_of_one_weight_that_is_not_shared_breaks_the_symmetry() -> None:
    of = picture("face")
    assert of.symmetric is not None
    points, symmetry = of.symmetric(SIZE)
    links = [*of.genome.links, Link("x", "eye level", 0.3)]
    hsv = Genome(of.genome.nodes, links).evaluate(coordinates(points.double()))
    assert float((hsv - symmetry.project(hsv)).abs().max()) > 0.1


def test_a_flower_has_as_many_petals_as_were_asked_for() -> None:
    angles = torch.linspace(0, 2 * torch.pi, 1001, dtype=torch.float64)[:-1]
    ring = coordinates(0.72 * torch.stack([angles.cos(), angles.sin()], 1))
    for petals in range(4, 13):
        inside = node_map(flower(petals).genome, "petals seen", ring) > 0.5
        assert int((inside & ~inside.roll(1)).sum()) == petals


def test_a_scene_changes_where_the_object_is_that_was_changed() -> None:
    of = picture("scene")
    for factor in factors(of):
        thing = next(part for part in of.parts if part in factor or (part == "house" and factor.split()[0] in HOUSE))
        after = replace(of, genome=swept(of.genome, factor, 0.15))
        own = of.regions.index(thing)
        covered = near(of.masks(SIZE)[own] | after.masks(SIZE)[own])
        moved = change(of, factor, 0.15)
        assert moved[covered].sum() > 0.999 * moved.sum(), factor
        assert moved.sum() > 0.1


def near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region and two pixels round it: its edges are soft."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask.reshape(SIZE, SIZE), iterations=2).ravel()


def grown(name: str, part: str, factor: str, *, by: float = 0.5) -> float:
    """Pixels that a part gains, relative to what it had."""
    of = picture(name)
    own = of.regions.index(part)
    before, after = of.masks(SIZE)[own], replace(of, genome=swept(of.genome, factor, by)).masks(SIZE)[own]
    return float(after.sum() / before.sum()) - 1.0


@pytest.mark.parametrize(
    ("name", "part", "factor"),
    [
        ("face", "eyes", "eye size"),
        ("face", "eyes", "eye opening"),
        ("face", "mouth", "mouth opening"),
        ("face", "mouth", "lip thickness"),
        ("face", "brows", "brow thickness"),
        ("flower", "petals", "petal width"),
        ("flower", "heart", "heart size"),
        ("scene", "sun", "sun size"),
        ("scene", "hill", "hill height"),
        ("scene", "house", "house width"),
        ("scene", "house", "roof height"),
    ],
)
def test_a_part_grows_with_the_weight_that_says_so(name: str, part: str, factor: str) -> None:
    assert grown(name, part, factor) > 0.03
    assert grown(name, part, factor, by=-0.5) < -0.03


@pytest.mark.parametrize(
    ("name", "part", "factor", "axis"),
    [
        ("scene", "sun", "sun height", 0),
        ("scene", "sun", "sun to the right", 1),
        ("scene", "house", "house to the right", 1),
    ],
)
def test_a_part_moves_with_the_weight_that_says_so(name: str, part: str, factor: str, axis: int) -> None:
    of = picture(name)
    own = of.regions.index(part)
    centres = [
        np.argwhere(each.masks(SIZE)[own].reshape(SIZE, SIZE)).mean(0)
        for each in (of, replace(of, genome=swept(of.genome, factor, 0.2)))
    ]
    moved = centres[1] - centres[0]
    assert (-moved[0] if axis == 0 else moved[1]) > 2.0
    assert abs(moved[1 - axis]) < 1.0


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownName, match="face"):
        picture("fase")
    with pytest.raises(UnknownName, match="node"):
        node_map(picture("face").genome, "eye", grid(8))
    for petals in (3, 13):
        with pytest.raises(UsageError, match="petals"):
            flower(petals)
