"""Twelve screens, word for word; ``python -m tests.golden.renew`` writes them anew."""

from pathlib import Path

import pytest
from screens import FOLDER, SCREENS, drawn, masked


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_it_was(name: str, tmp_path: Path) -> None:
    assert drawn(name, tmp_path) == (FOLDER / f"{name}.txt").read_text()


def test_each_golden_file_is_a_screen() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(SCREENS)


def test_masks_hide_what_differs_and_no_number_of_a_result(tmp_path: Path) -> None:
    assert masked(f"{tmp_path}/a.json, 0.31 s, 12 KB, 2026-01-02", tmp_path) == "FOLDER/a.json, TIME, SIZE, DATE\n"
    assert masked("4 bits, 0.2 [-0.4, 0.7], 599 examples", tmp_path) == "4 bits, 0.2 [-0.4, 0.7], 599 examples\n"
