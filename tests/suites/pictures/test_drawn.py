"""Pictures as sources: symmetries that are there, nets by their names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_sources_genomes import GREY, xml
from test_sources_genomes import INPUTS as AXES

import wheeltap as wt
from published import DATA, needs_data
from wheeltap.core.errors import DataError, FileFormatError, UnknownName
from wheeltap.core.task import Task
from wheeltap.models.cppn import INPUTS, OUTPUTS, grid
from wheeltap.runs.studying import create
from wheeltap.sources import load, load_model
from wheeltap.sources.specs import load_task
from wheeltap.suites.pictures.nets.genome import Genome, GenomeLink, GenomeNode
from wheeltap.suites.pictures.nets.pictures import mirror_image, mirrored_share, picture
from wheeltap.suites.pictures.sources.drawn import MIRRORED, picture_named

QUICK = {
    "seeds": 2, "control_seeds": 1, "size": 16, "steps": 3, "controls": "abs-x", "weights": 6, "links": 12,
}  # fmt: skip


def bump(at: float, *, name: str = "bump") -> Genome:
    """Brightness is a gaussian of x - ``at``; below 0 it is seen by its size, so that .8 draws nearly a V."""
    nodes = [GenomeNode(label, kind="in", label=label) for label in INPUTS]
    nodes += [GenomeNode(label, "gaussian" if label == "brightness" else "identity", "out", label) for label in OUTPUTS]
    return Genome(nodes, [GenomeLink("x", "brightness", 1.0), GenomeLink("bias", "brightness", -at)], name=name)


def test_the_share_that_is_its_own_mirror_image_is_that_of_the_picture() -> None:
    places = (0.0, 0.1, 0.4, 0.8)
    shares = [mirrored_share(bump(at)) for at in places]
    assert shares == pytest.approx([1.0, 0.87, 0.03, 0.93], abs=0.005)
    for at, share in zip(places, shares, strict=True):
        drawn = bump(at).render(128).astype(np.float64)
        drawn -= drawn.mean((0, 1))
        even = (drawn + drawn[:, ::-1]) / 2
        assert share == pytest.approx((even**2).sum() / (drawn**2).sum(), abs=1e-9)
    assert mirrored_share(picture("face").genome) == pytest.approx(1.0, abs=1e-9)
    assert mirrored_share(Genome(bump(0.0).nodes, [])) == 1.0  # of one color


def test_symmetry_is_asked_for_where_there_is_enough_of_it(tmp_path: Path) -> None:
    lopsided, even = (picture_named("genome", str(written(tmp_path / f"{at}.xml", at=at))) for at in (0.4, 0.05))
    assert even.symmetric is mirror_image
    assert lopsided.symmetric is None


@needs_data
@pytest.mark.parametrize(("name", "share"), [("skull", 0.86), ("butterfly", 0.92)])
def test_the_published_pictures_are_symmetric_enough(name: str, share: float) -> None:
    found = picture_named("genome", str(DATA / f"{name}.zip"))
    assert found.symmetric is mirror_image and mirrored_share(found.genome) == pytest.approx(share, abs=0.01)
    assert mirrored_share(found.genome) > MIRRORED + 0.05


def written(path: Path, *, at: float) -> Path:
    """The same bump as a file: a grey genome."""
    path.write_text(xml([*AXES, *GREY], [(0, 4, "1.0"), (3, 4, str(-at))]))
    return path


def test_a_study_of_a_lopsided_genome_asks_for_no_symmetry(tmp_path: Path) -> None:
    genome = written(tmp_path / "a bump, too.xml", at=0.4)
    record = wt.study("pictures", settings={**QUICK, "genome": str(genome)}).record
    assert "WT206" not in [finding.code for finding in record.findings if finding.status != "not_applicable"]
    status = {control.name: control.status for control in record.controls}
    assert status["WT204, WT206 abs-x nets are symmetric"] == "skipped"


def test_a_task_holds_what_is_known_of_its_picture() -> None:
    face, flower, scene = (load_task(f"picture:{name},20") for name in ("face", "flower", "scene"))
    assert isinstance(face, Task) and isinstance(face.inputs, torch.Tensor)
    assert torch.equal(face.inputs, grid(20))
    assert np.array_equal(face.targets.numpy(), picture("face").genome.render(20).reshape(-1, 3))
    known = [task.annotations.symmetry is not None for task in (face, flower, scene)]
    assert known == [True, False, False]  # the flower's acts on circles, not on the square
    assert face.name == "face, 20 x 20 pixels"
    assert len(load_task("picture:face").targets) == 64 * 64


def test_what_draws_nothing_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "blank.xml", at=0.0)
    path.write_text(path.read_text().replace("<weight>1.0</weight>", "<weight>0.0</weight>"))
    with pytest.raises(DataError):
        load_task(f"genome:{path},16")


def test_nets_are_named_by_their_file_and_their_array(tmp_path: Path) -> None:
    face = picture("face").genome.layerize()
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    np.savez(one, arch=face.arch, only=face.flat_parameters())
    np.savez(two, arch=face.arch, a=face.flat_parameters(), b=2 * face.flat_parameters())
    same = load_model("picture:face").record.fingerprint
    assert load_model(f"npz:{one}").record.fingerprint == same
    assert load_model(f"npz:{two}#a").record.fingerprint == same
    assert load_model(f"npz:{two}#b").record.fingerprint != same
    for spec in (f"npz:{two}", f"npz:{two}#c"):
        with pytest.raises(UnknownName, match="net"):
            load_model(spec)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK no")
    with pytest.raises(FileFormatError):
        create("pictures", {"nets": str(damaged)}).cast()
    assert load("picture:face").task.name == "face, 64 x 64 pixels"
