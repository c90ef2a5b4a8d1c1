"""What the command makes sure of before it trains anything: sizes that show every part, symmetries that are there."""

import json
from pathlib import Path

import numpy as np
import pytest

from published import DATA, needs_data
from wheeltap.cli import main
from wheeltap.cli.fer import Written
from wheeltap.cli.pictured import MIRRORED, known_symmetry
from wheeltap.core.errors import UsageError
from wheeltap.models.cppn import INPUTS, OUTPUTS
from wheeltap.models.genome import Genome, Link, Node
from wheeltap.models.pictures import PICTURES, Picture, mirror_image, mirrored_share, picture
from wheeltap.sources import genomes

QUICK = ["--seeds", "1", "--control-seeds", "1", "--steps", "3", "--controls", "abs-x"]


def bump(at: float, *, name: str = "bump") -> Genome:
    """Brightness is a gaussian of x - ``at``; below 0 it is seen by its size, so that .8 draws nearly a V."""
    nodes = [Node(label, kind="in", label=label) for label in INPUTS]
    nodes += [Node(label, "gaussian" if label == "brightness" else "identity", "out", label) for label in OUTPUTS]
    return Genome(nodes, [Link("x", "brightness", 1.0), Link("bias", "brightness", -at)], name=name)


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
    assert mirrored_share(Genome(bump(0.0).nodes, [])) == 1.0  # of one colour


def test_symmetry_is_asked_for_where_there_is_enough_of_it() -> None:
    symmetric, said = known_symmetry(bump(0.05))
    assert symmetric is mirror_image
    assert "% of the picture is its own mirror image: metrics ask" in said
    symmetric, said = known_symmetry(bump(0.4))
    assert symmetric is None
    assert said.startswith(f"Only {int(100 * mirrored_share(bump(0.4)))} % of")
    assert "left out" in said


@needs_data
@pytest.mark.parametrize(("name", "share"), [("skull", 0.86), ("butterfly", 0.92)])
def test_the_published_pictures_are_symmetric_enough(name: str, share: float) -> None:
    found = genomes.read(DATA / f"{name}.zip")
    assert mirrored_share(found) == pytest.approx(share, abs=0.01)
    assert mirrored_share(found) > MIRRORED + 0.05
    assert known_symmetry(found)[0] is mirror_image


XML = """<genome><nodes>{nodes}</nodes><links>{links}</links></genome>"""


def written(path: Path, *, at: float) -> Path:
    """The same bump as a file: a grey genome."""
    labels = [("in", label, "identity") for label in INPUTS] + [("out", "ink", "gaussian")]
    nodes = [
        f'<node type="{kind}" label="{label}"><marking branch="b" id="{number}"/><activation>{name}(x)</activation>'
        "</node>"
        for number, (kind, label, name) in enumerate(labels)
    ]
    links = [
        f'<link><marking branch="b" id="{9 + source}"/><source branch="b" id="{source}"/><target branch="b" id="4"/>'
        f"<weight>{weight}</weight></link>"
        for source, weight in ((0, 1.0), (3, -at))
    ]
    path.write_text(XML.format(nodes="".join(nodes), links="".join(links)))
    return path


@pytest.mark.parametrize(("at", "line"), [(0.4, "Only 3 %"), (0.05, " % of the picture is its own mirror image")])
def test_the_command_says_what_follows_from_the_picture(
    at: float, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genome = written(tmp_path / "bump.xml", at=at)
    assert main(["fer", str(genome), *QUICK, "--size", "16", "--out", str(tmp_path / "out")]) in (0, 3)
    first = capsys.readouterr().out.splitlines()[0]
    assert line in first
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    asked = [finding["code"] for finding in report["findings"] if finding["status"] != "not_applicable"]
    folded = [subject["name"] for subject in report["subjects"] if "abs-x" in subject["name"]]
    assert ("WT206" in asked, bool(folded)) == (at < 0.1, at < 0.1)


def test_each_picture_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    genome = written(tmp_path / "a bump.xml", at=0.4)
    assert main(["fer", str(genome), *QUICK, "--size", "16"]) in (0, 3)
    assert "Written: wheeltap-fer-a-bump/report.html" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "wheeltap-fer-a-bump").iterdir()) == [
        "explorer.html", "nets", "numbers.json", "report.html", "report.json",
    ]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"a bump.xml", "wheeltap-fer-a-bump"}
    assert Written().folder("skull") == Path("wheeltap-fer-skull")
    assert Written(out=Path("here")).folder("skull") == Path("here")
    assert main(["fer", "--help"]) == 0
    assert "wheeltap-fer-NAME" in capsys.readouterr().out


@pytest.mark.parametrize(("size", "larger"), [(8, 9), (11, 12)])
def test_a_face_too_small_for_its_parts_is_refused_before_anything_is_trained(
    size: int, larger: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["fer", "--picture", "face", *QUICK, "--size", str(size), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "too small for its parts" in said
    assert f"Take {larger} pixels a side" in said
    assert not out.exists()
    picture("face").require_parts(larger)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_every_other_size_shows_every_part(name: str) -> None:
    for size in range(12, 65):
        picture(name).require_parts(size)


def test_a_part_that_is_never_seen_is_told_from_one_that_is_small() -> None:
    face = picture("face")
    hidden = Picture("hidden", "", face.genome, {"none": ("head seen",), **face.parts}, mirror_image)
    with pytest.raises(UsageError, match="none of none") as caught:
        hidden.require_parts(60)
    assert "more than 64" in str(caught.value)
    Picture("whole", "", face.genome, {}, mirror_image).require_parts(2)


@pytest.mark.slow
def test_a_study_of_the_smallest_face_comes_to_an_end(tmp_path: Path) -> None:
    assert main(["fer", "--picture", "face", *QUICK, "--size", "9", "--out", str(tmp_path)]) in (0, 3)
