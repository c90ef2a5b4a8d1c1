"""Twelve screens, word for word; ``python -m tests.golden.renew`` writes them anew."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from screens import FOLDER, SCREENS, drawn, masked

from wheeltap.cli.demo import cast_of_four
from wheeltap.report import jsonfile
from wheeltap.sources import digits


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The screen of the demo, and the folder with its files."""
    folder = tmp_path_factory.mktemp("demo")
    return drawn("demo", folder), folder / "wheeltap-demo"


def test_the_demo_finds_what_was_built_into_its_nets(demo: tuple[str, Path]) -> None:
    original, rescaled, *_ = cast_of_four()
    examples = digits.task()
    assert torch.equal(examples.forward(original.model), examples.forward(rescaled.model)), "bit for bit"
    screen, folder = demo
    data = json.loads((folder / "report.json").read_text())
    jsonschema.validate(data, jsonfile.schema())

    def finding(name: str, subject: str) -> dict[str, Any]:
        (match,) = [f for f in data["findings"] if name in (f["code"], f["scheme"]) and f["subject"] == subject]
        return match

    assert [s["name"] for s in data["subjects"]] == ["original", "rescaled", "other-seed", "imposter"]
    assert all(control["status"] == "passed" for control in data["controls"]) and not data["void"]
    loss = finding("int4-tensor", "original vs rescaled")
    assert loss["verdict"] == "differ" and 0.25 <= loss["estimates"][0]["value"] <= 0.35
    assert finding("int4-tensor", "rescaled")["verdict"] == "costs"
    assert finding("int4-tensor", "original")["verdict"] == "safe"
    alike = {f["scheme"]: f["verdict"] for f in data["findings"] if f["subject"] == "original vs other-seed"}
    # Nine draws in ten of two nets differ by less than 5 points: for that 600 examples are a few too few.
    assert alike.pop("noise25") in ("equivalent", "cannot tell") and {*alike.values()} <= {"equivalent"}
    assert finding("WT001", "original vs imposter")["estimates"][0]["value"] == 0.0
    assert finding("noise25", "imposter")["verdict"] == "costs"
    assert finding("noise25", "original")["verdict"] == "safe"
    assert finding("noise25", "original vs imposter")["verdict"] in ("differ", "may differ")
    lines = screen.splitlines()[2:]
    assert len(lines) <= 45, "it fits a screen"
    assert (folder / "demo.wheeltap").stat().st_size < 30e6


def test_the_screen_of_the_demo_is_as_it_was(demo: tuple[str, Path]) -> None:
    assert demo[0] == (FOLDER / "demo.txt").read_text()


@pytest.mark.parametrize("name", [name for name in SCREENS if name != "demo"])
def test_a_screen_is_as_it_was(name: str, tmp_path: Path) -> None:
    assert drawn(name, tmp_path) == (FOLDER / f"{name}.txt").read_text()


def test_each_golden_file_is_a_screen() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(SCREENS)


def test_masks_hide_what_differs_and_no_number_of_a_result(tmp_path: Path) -> None:
    assert masked(f"{tmp_path}/a.json, 0.31 s, 12 KB, 2026-01-02", tmp_path) == "FOLDER/a.json, TIME, SIZE, DATE\n"
    assert masked("4 bits, 0.2 [-0.4, 0.7], 599 examples", tmp_path) == "4 bits, 0.2 [-0.4, 0.7], 599 examples\n"
