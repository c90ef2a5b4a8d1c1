"""A whole study in small: its numbers, its page in a real browser, its files, and that it goes on where it ended."""

import base64
import contextlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from wheeltap.cli import main
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.fer import showing
from wheeltap.fer.cast import TRAINING, Cast, Kind, Stage, StudySettings, train
from wheeltap.fer.controls import recoded, reordered, same_function
from wheeltap.fer.measures import Sampling, Sight, measured
from wheeltap.fer.study import study
from wheeltap.models.cppn import grid
from wheeltap.models.pictures import Picture, mirror_image, picture
from wheeltap.report import fer, jsonfile, png
from wheeltap.report.fer import FerRecord
from wheeltap.report.report import Report

CHROMIUM = Path("/usr/bin/chromium")
SMALL = Sampling(weights=6, links=12, directions=4, draws=2)
SETTINGS = StudySettings(seeds=2, control_seeds=1, size=16, steps=12, controls=("abs-x",), sampling=SMALL)
NASTY = '</script><img src=x onerror="document.title=1">'


def nasty() -> Picture:
    face = picture("face")
    return Picture(NASTY, f"About {NASTY}", face.genome, face.parts, mirror_image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nets")


@pytest.fixture(scope="module")
def record(folder: Path) -> FerRecord:
    told: list[float] = []
    stage = Stage(folder=folder, threads=2, watch=lambda label, share: told.append(share))
    made = study(nasty(), SETTINGS, given={"sgd": nasty().genome.layerize()}, stage=stage)
    assert told
    assert all(0.0 <= share <= 1.0 for share in told)
    return made


def test_every_kind_of_net_has_every_number(record: FerRecord) -> None:
    assert [row.metric.key for row in record.rows if row.metric.tested] == [
        "response_symmetry",
        "feature_symmetry",
        "distinct_maps",
        "regions",
        "noise_symmetry",
    ]
    for row in record.rows:
        kinds = {cohort.cohort: len(cohort.values) for cohort in row.cohorts}
        assert kinds == {"sgd": 2, "untrained": 2, "abs-x": 1, "given: sgd": 1}
        assert row.cohorts[-1].values == pytest.approx((row.own.value,), abs=1e-9)
    assert [net.psnr is None for net in record.nets] == [True, *[False] * 5, False]
    assert record.nets[-1].psnr > 90  # the same net: rounding only


def test_controls_pass_and_the_report_is_one_like_any_other(record: FerRecord) -> None:
    status = {control.name: control.status for control in record.report.controls}
    assert "failed" not in status.values()
    assert status["WT204, WT206 abs-x nets are symmetric"] == "passed"
    assert not record.report.void
    again = jsonfile.validate(jsonfile.to_json(record.report))
    assert {f.code for f in again.findings} == {"WT001", "WT102", "WT202", "WT204", "WT206", "WT207"}
    assert Report(again).headline == record.report.headline


def test_a_study_that_is_made_again_trains_nothing(record: FerRecord, folder: Path) -> None:
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = study(nasty(), SETTINGS, given={"sgd": nasty().genome.layerize()}, stage=Stage(folder=folder))
    assert len(written) >= 3
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == written
    assert msgspec.json.encode(again.rows) == msgspec.json.encode(record.rows)


def test_a_study_that_goes_on_begins_where_it_was(tmp_path: Path) -> None:
    """What was trained before is told before the first step, of all kinds of nets: the time left is this run's."""
    long = replace(SETTINGS, size=9, steps=1000, controls=("abs-x", "l1"))

    def train_on(folder: Path, settings: StudySettings, *, until: float = 2.0) -> list[float]:
        told: list[float] = []

        def watch(what: str, share: float) -> None:
            told.append(share)
            if share > until:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            train(nasty(), settings, given={}, stage=Stage(folder=folder, watch=watch))
        return told

    first = train_on(tmp_path, replace(long, controls=("l1",)))
    assert (first[0], first[-1]) == (0.0, TRAINING)
    broken = train_on(tmp_path, long, until=0.7)  # the nets of the first and last kind are there already
    assert broken[0] == pytest.approx(TRAINING * 3 / 4)
    resumed = train_on(tmp_path, long)
    assert resumed[0] > TRAINING * 3 / 4
    assert resumed == sorted(resumed) and resumed[-1] == TRAINING
    assert train_on(tmp_path, long)[0] == TRAINING


def test_a_twin_has_the_same_numbers_and_a_foreign_net_does_not() -> None:
    face = picture("face")
    net = face.genome.layerize()
    points, symmetry = mirror_image(16)
    sight = Sight(16, points, symmetry)
    own = measured(net, sight, SMALL)
    assert recoded(own, measured(reordered(net, seed=1), sight, SMALL)).status == "passed"
    folded = type(net).of(net.layout, net.kernels(), fold="abs-x")
    folded.dense[0].weight.data[:, 0] += 1.0
    assert recoded(own, measured(folded, sight, SMALL)).status == "failed"
    with torch.no_grad():
        assert torch.allclose(reordered(net, seed=1)(grid(16)), net(grid(16)), atol=1e-5)
    assert same_function(face.genome, net).status == "passed"
    assert same_function(picture("flower").genome, net).status == "failed"


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
@pytest.mark.parametrize("make", [fer.page, fer.explorer_page])
def test_the_page_opens_without_a_complaint_and_names_stay_text(
    record: FerRecord, make: Callable[[FerRecord], str], tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    path = tmp_path / "page.html"
    path.write_text(make(record))
    said: list[Any] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        page.wait_for_selector(".wheeltap-explorer[data-state=settled]")
        assert page.title() != "1"
        broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
        assert broken == 0
        assert page.locator("body").inner_text().count(NASTY) >= 1
        browser.close()
    assert said == []


def test_numbers_stand_under_their_own_kind_of_nets_where_one_has_none(record: FerRecord) -> None:
    first, *others = record.rows
    less = msgspec.structs.replace(first, cohorts=(first.cohorts[0], *first.cohorts[2:]))
    text = fer.page(msgspec.structs.replace(record, rows=(less, *others)))
    table = text[text.index('<table class="metrics">') : text.index("</tbody>")]
    heads = table[: table.index("</thead>")].count("<th ")
    lines = [re.findall(r"<t[hd].*?</t[hd]>", row, re.S) for row in table.split("<tr>")[2:]]
    assert len(lines) == len(record.rows)
    assert {len(line) for line in lines} == {heads}
    assert [cell == "<td>&ndash;</td>" for cell in lines[0]] == [False, False, False, True, False, False]


def test_nets_whose_training_failed_are_not_shown_as_those_that_were_measured() -> None:
    drawn = nasty()
    nets = tuple(drawn.genome.layerize() for _ in range(2))
    cast = Cast("own", nets[0], {"sgd": Kind(nets, ("stuck", "done")), "untrained": Kind(nets, ("done", "done"))})
    assert [name for name, _ in cast.trained] == ["sgd 2"]
    assert [net.name for net in showing.explored(cast, drawn)] == ["own", "sgd 2"]
    assert {net.name for net in showing.pictures(cast, drawn) if net.maps} == {"own", "sgd 2", "untrained 1"}
    shown = showing.sweeps(cast, drawn, Sight(16), sampling=SMALL)
    assert {sweep.net for sweep in shown} == {"own", "sgd 2"}


def test_a_void_study_concludes_nothing(folder: Path) -> None:
    """No p-value is below 2: the control that leaves nets out in turn must fail."""
    made = study(nasty(), replace(SETTINGS, seeds=4, worst=2.0), stage=Stage(folder=folder))
    assert made.report.void
    assert made.fooled == made.answers == ()
    assert "Told apart" not in fer.page(made)
    assert "Does function-space noise" not in fer.page(made)


def test_the_seed_is_that_of_every_draw(record: FerRecord, folder: Path) -> None:
    (own,) = {row.own.value for row in record.rows if row.metric.key == "noise_dose"}
    other = study(nasty(), replace(SETTINGS, seed=1), stage=Stage(folder=folder))
    assert {row.own.value for row in other.rows if row.metric.key == "noise_dose"} != {own}
    moved = [line for line in record.caveats if line.startswith("Weights moved one by one: 12 of ")]
    assert len(moved) == 1
    assert "6 of all" in moved[0]


def test_pictures_are_png_files_that_hold_what_was_drawn() -> None:
    drawn = picture("face").genome.render(8)
    data = png.encode(drawn)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    body = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(8, 25)
    assert np.array_equal(rows[:, 1:].reshape(8, 8, 3), np.rint(drawn * 255))
    assert base64.b64decode(png.address(data).split(",")[1]) == data


def test_the_numbers_are_all_in_a_file(record: FerRecord) -> None:
    told = json.loads(fer.numbers(record))
    assert [metric["metric"]["key"] for metric in told["metrics"]] == [row.metric.key for row in record.rows]
    for metric, row in zip(told["metrics"], record.rows, strict=True):
        assert {c["cohort"]: c["values"] for c in metric["cohorts"]} == {c.cohort: list(c.values) for c in row.cohorts}
    assert [net["name"] for net in told["nets"]] == [net.name for net in record.nets]
    assert "NaN" not in fer.numbers(record).decode()


def test_the_command_writes_its_files_and_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, also = tmp_path / "out", tmp_path / "also.json"
    code = main(
        ["fer", "--picture", "flower", "--seeds", "1", "--size", "16", "--steps", "3", "--controls", "",
         "--out", str(out), "--json", str(also)]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0
    assert (out / "report.json").read_bytes() == also.read_bytes()
    assert json.loads(also.read_text())["schema"] == "wheeltap.report/3"
    assert json.loads((out / "numbers.json").read_text())["command"] == "fer flower"
    assert (out / "explorer.html").stat().st_size < 5 * 2**20
    for text in ("flower", "Symmetry of response (WT204): cannot tell", "What this does not show", "Written: "):
        assert text in said
    assert re.search(r"untrained \(1\) +\d", said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "One picture is needed"),
        (["x.zip", "--picture", "face"], "One picture is needed"),
        (["--picture", "fase"], "Did you mean 'face'"),
        (["nowhere.zip"], "There is no genome at this path"),
        (["--picture", "face", "--controls", "l2"], "Did you mean 'l1'"),
        (["--picture", "face", "--controls", "sgd"], "kind of control net"),
        (["--picture", "face", "--size", "4"], "Must be >= 8"),
        (["--picture", "face", "--seeds", "0"], "Must be >= 1"),
        (["--picture", "face", "--seed", str(2**63)], "Must be <"),
        (["--picture", "face", "--nets", "nowhere.npz"], "There are no nets at this path"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fer", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err


def test_settings_that_make_no_study_are_refused() -> None:
    with pytest.raises(UsageError):
        StudySettings(seeds=0)
    with pytest.raises(UnknownName):
        StudySettings(controls=("untrained",))
