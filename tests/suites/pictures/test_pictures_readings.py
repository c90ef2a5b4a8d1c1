"""Readings of nets that draw pictures keep the contract, and say where they are not defined."""

from typing import Any

import numpy as np
import pytest
import torch

from wheeltap.core.errors import DataError, ModelError
from wheeltap.engine.readings import create, readings
from wheeltap.sources.specs import load_model, load_task
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.readings import strip
from wheeltap.suites.pictures.specs import BLOCKS, METRICS, PICTURE, STEPS
from wheeltap.testing import planted
from wheeltap.testing.contract import ReadingContract
from wheeltap.testing.planted import PlantedCase

MOVED: dict[str, Any] = {"weights": 6, "links": 12}
SETTINGS: dict[str, dict[str, Any]] = {
    "picture-drawn": {},
    "picture-graph": {"size": 16},
    "picture-inside": {**MOVED, "explored": True, "strips": 2},
    "picture-numbers": MOVED,
}


def drawn(spec: str = "picture:face", *, size: int = 16) -> PlantedCase:
    """A net that draws a picture, and the picture."""
    return PlantedCase(load_model(spec), load_task(f"{spec},{size}"))


class Drawn(ReadingContract):
    def case(self) -> PlantedCase:
        return drawn()


for _name, _settings in SETTINGS.items():
    _held: dict[str, Any] = {"reading": readings.get(_name), "settings": _settings}
    globals()[f"Test {_name}"] = type(f"Test{_name}", (Drawn,), _held)


def read(name: str, spec: str = "picture:face", **settings: Any) -> dict[str, Any]:
    case = drawn(spec)
    return create(name, {**SETTINGS[name], **settings}).read(case.subject, case.task, root=0, seed=0).values


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_what_draws_nothing_is_refused(name: str) -> None:
    case = planted.clusters()
    with pytest.raises(ModelError):
        create(name, SETTINGS[name]).read(case.subject, case.task, root=0, seed=0)


def test_a_task_that_is_no_square_is_refused() -> None:
    case = drawn()
    for task in (case.task.part(torch.arange(100)), case.task.part(torch.arange(256).flip(0))):
        with pytest.raises(DataError):
            create("picture-numbers", SETTINGS["picture-numbers"]).read(case.subject, task, root=0, seed=0)


def test_a_copy_in_another_order_has_other_weights_moved_and_the_same_features() -> None:
    plain, copy = (read("picture-numbers", reordered=flag) for flag in (False, True))
    at = {key: place for place, key in enumerate(METRICS)}
    feature = at["feature_symmetry"]
    assert copy["value"][feature] == pytest.approx(plain["value"][feature], rel=1e-4)
    assert copy["value"][at["distinct_maps"]] == plain["value"][at["distinct_maps"]] == 22.0
    assert bool(plain["there"].all())


def test_what_is_known_of_a_picture_is_read_with_its_numbers() -> None:
    face, scene = (read("picture-numbers", f"picture:{name}") for name in ("face", "scene"))
    flower = read("picture-numbers", "picture:flower", folds=6)
    got = [(bool(one["symmetric"]), bool(one["mirror"])) for one in (face, flower, scene)]
    assert got == [(True, True), (True, False), (False, False)]
    assert [int(read("picture-graph", f"picture:{name}", source=f"picture:{name}")["folds"]) for name in (
        "face", "flower", "scene")] == [0, 6, 0]  # fmt: skip
    missing = [key for key, there in zip(METRICS, scene["there"], strict=True) if not there]
    assert missing == ["response_symmetry", "feature_symmetry"]
    assert (int(face["moved"]), int(face["movable"]), bool(face["sparse"])) == (12, 106, True)


def test_named_weights_are_moved_as_far_as_asked() -> None:
    face = picture("face").genome
    net, named = face.layerize(), next(iter(face.factors()))
    found = read("picture-inside", strips=0, links=300, named=str(named))
    assert found["place"].tolist() == [[named, *net.layout.address(named)]]
    assert float(found["effect"][0]) == pytest.approx(0.09, rel=0.011)
    place, delta = net.layout.address(named), float(found["delta"][0])
    moved = strip(net, weight=place, steps=[delta], size=16)[0]
    assert np.sqrt(np.square(moved - net.render(16)).mean()) == pytest.approx(0.09, rel=0.011)
    middle = found["strip"][0, STEPS.index(0.0)]
    assert np.array_equal(middle, np.rint(net.render(96) * 255))
    counts = dict(zip(BLOCKS, found["units"].tolist(), strict=True))
    assert {name: count for name, count in counts.items() if count} == dict(net.layout.blocks)
    assert np.array_equal(read("picture-drawn")["picture"], net.render(PICTURE))
