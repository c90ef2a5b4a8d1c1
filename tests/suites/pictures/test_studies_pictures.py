"""The picture study in small, whole: its numbers, its controls, what it resumes, and that judging needs no model."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import wheeltap as wt
from tests.blocks import blocks
from wheeltap.core.errors import MissingFile, UnknownName, UsageError
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Pictures as Shown
from wheeltap.core.section import Widget
from wheeltap.runs.studying import create, planned
from wheeltap.suites.pictures.nets.pictures import PICTURES, picture
from wheeltap.suites.pictures.recipes.picture import PictureNet
from wheeltap.suites.pictures.specs import DrawnNet
from wheeltap.suites.pictures.studies.pictures import KINDS, LOPSIDED, TESTED, PictureStudy
from wheeltap.testing.study_contract import StudyContract

SMALL: dict[str, Any] = {
    "seeds": 2, "control_seeds": 1, "size": 16, "steps": 5, "controls": "abs-x", "weights": 6, "links": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def settings(place: Path) -> dict[str, Any]:
    """With a given net that is the one under study, and is called like the trained ones."""
    face = picture("face").genome.layerize()
    np.savez(place / "nets.npz", arch=face.arch, sgd=face.flat_parameters())
    return {**SMALL, "nets": str(place / "nets.npz")}


class TestContract(StudyContract):
    """The picture study keeps what every study keeps: the one that the tests below look at."""

    study = PictureStudy
    effort = wt.Effort()
    given: Any = SMALL

    def made(self) -> PictureStudy:
        return PictureStudy(dict(self.given))

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, place: Path, settings: dict[str, Any]) -> Path:
        cls.given = settings
        return place


@pytest.fixture(scope="module")
def record(place: Path, settings: dict[str, Any]) -> ReportRecord:
    contract = TestContract()
    contract.given = settings
    return contract.run(place).record


def study_of(record: ReportRecord) -> Any:
    assert record.study is not None
    return record.study


def test_every_kind_of_net_has_every_number(record: ReportRecord) -> None:
    rows = {row.metric.key: {one.cohort: one for one in row.cohorts} for row in study_of(record).rows}
    assert set(TESTED) < rows.keys()
    for key, cohorts in rows.items():
        counts = {name: len(one.values) for name, one in cohorts.items()}
        assert counts == {"face": 1, "sgd": 2, "untrained": 2, "abs-x": 1, "given: sgd": 1}, key
        assert cohorts["given: sgd"].values == cohorts["face"].values
        assert all(np.isfinite(one.values).all() for one in cohorts.values())
    assert rows["error"]["face"].values == (0.0,)
    assert rows["distinct_maps"]["face"].values == (22.0,)
    assert rows["response_symmetry"]["abs-x"].values == pytest.approx((1.0,))


def test_controls_pass_and_each_tested_number_has_its_finding(record: ReportRecord) -> None:
    status = {control.name: control.status for control in record.controls}
    assert "failed" not in status.values() and not record.void
    for name in (
        "the layered net draws what the graph draws", "WT206 reparametrized copy",
        "WT204, WT206 abs-x nets are symmetric", "every member has its numbers", "starts of training",
    ):  # fmt: skip
        assert status[name] == "passed", name
    assert [finding.code for finding in record.findings] == ["WT204", "WT206", "WT207"]
    assert {finding.subject for finding in record.findings} == {"face vs sgd"}


def test_what_is_shown_is_what_the_nets_are(record: ReportRecord) -> None:
    made = study_of(record)
    drawn, maps, strips = (one.pictures for one in blocks(record, Shown))
    assert all(one.png.startswith(b"\x89PNG") for one in (*drawn, *maps, *strips))
    assert [one.name for one in drawn] == [member.name for member in made.members]
    assert [one.name for one in maps] == ["face", "sgd 1", "untrained 1"]
    assert made.members[0].note == drawn[0].says == "" and made.members[1].note == drawn[1].says
    assert drawn[1].says.endswith(" dB") and drawn[0].png == drawn[-1].png  # the given net is the same one
    [widget] = blocks(record, Widget)
    own, trained = msgspec.convert(widget.data, list[DrawnNet])
    face = picture("face").genome
    kernels = np.frombuffer(own.weights, dtype="<f4")
    assert np.array_equal(kernels, np.concatenate([kernel.ravel() for kernel in face.layerize().kernels()]))
    assert (own.name, own.arch, own.fold) == ("face", face.layerize().arch, "")
    layout = face.layerize().layout
    assert own.labels == {",".join(map(str, layout.address(at))): name for at, name in face.factors().items()}
    assert list(own.links) == [layout.address(int(at)) for at in face.layerize().links()]
    assert (trained.name, trained.labels, trained.links) == ("sgd 1", {}, ())
    assert len(trained.weights) == len(own.weights)
    assert {strip.name for strip in strips} == {"face", "sgd 1"}
    assert any(strip.says.split(",")[0] in face.factors().values() for strip in strips)
    changes = [float(strip.says.partition("; change ")[2].split(",")[0]) for strip in strips]
    assert changes == pytest.approx([0.09] * len(strips), abs=0.011 * 0.09 + 0.0005)  # as it is rounded


def test_nets_that_read_the_mirror_image_look_unified(record: ReportRecord) -> None:
    beside = {one.cohort: one.beside for one in study_of(record).rows[1].cohorts}
    assert (beside["face"], beside["sgd"], beside["abs-x"]) == ("", "", "looks unified")


def test_kinds_are_settings_of_the_recipe_and_pictures_know_their_symmetry() -> None:
    for how in KINDS.values():
        PictureNet({"steps": 3, **how})
    assert set(LOPSIDED) == {name for name in PICTURES if picture(name).symmetric is None}
    names = {name: [cast.name for cast in create("pictures", {"picture": name}).cast()] for name in PICTURES}
    assert names["face"] == ["face", "sgd", "untrained", "abs-x", "l1"]
    assert "abs-x" in names["flower"] and "abs-x" not in names["scene"]


def test_members_are_seeded_as_before_and_named_apart() -> None:
    study = create("pictures", {"seeds": 2, "control_seeds": 1, "controls": "l1, l1"})
    casts = {cast.name: cast for cast in study.cast()}
    assert list(casts) == ["face", "sgd", "untrained", "l1"]
    assert casts["sgd"].members[0].seed == casts["untrained"].members[0].seed == casts["l1"].members[0].seed
    assert casts["sgd"].members[0].seed != casts["sgd"].members[1].seed
    other = create("pictures", {"seed": 1})
    assert other.cast()[1].members[0].seed != casts["sgd"].members[0].seed
    assert isinstance(study, PictureStudy) and PictureStudy({"genome": "folder/sgd.xml"}).own == "sgd (under study)"


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"picture": "fase"}, UnknownName, "face"),
    ({"genome": "nowhere.zip"}, MissingFile, "nowhere.zip"),
    ({"genome": "face"}, UsageError, "--picture face"),
    ({"controls": "l2"}, UnknownName, "l1"),
    ({"controls": "sgd"}, UnknownName, "sgd"),
    ({"seeds": 1}, UsageError, "seeds"),
    ({"directions": 4}, UsageError, "directions"),
    ({"nets": "nowhere.npz"}, MissingFile, "nowhere.npz"),
]


def test_what_cannot_be_done_is_refused_at_once() -> None:
    for settings, kind, words in REFUSED:
        with pytest.raises(kind) as raised:
            planned(create("pictures", settings))
        assert words in str(raised.value)
