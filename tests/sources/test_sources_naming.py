"""Default names: short, never two alike."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.cli.execution import load
from wheeltap.sources import names_of

NAMES = [
    (["digits", "digits", "digits"], ["digits", "digits-2", "digits-3"]),
    (["hf:runA/final/", "hf:./runB/../runB/final"], ["runA-final", "runB-final"]),
    (["hf:a/final", "hf:b/final", "hf:a/final"], ["a-final", "b-final", "a-final-2"]),
    (["gguf:a/model.Q4.gguf", "gguf:a/model.Q8.gguf"], ["model.Q4", "model.Q8"]),
    (["hf:a/model", "gguf:a/model.gguf"], ["model", "model-2"]),
    (["nets:small", "other.nets:small"], ["nets:small", "other.nets:small"]),
    (["nets:small", "hf:runs/small"], ["nets:small", "runs-small"]),
    (["x", "x", "x-2"], ["x", "x-3", "x-2"]),
    (["hf:", ""], ["hf:", ""]),
]


def test_names() -> None:
    for specs, names in NAMES:
        assert list(names_of(specs)) == names


def test_a_folder_is_called_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-500").mkdir()
    os.symlink(tmp_path / "checkpoint-500", tmp_path / "best")
    monkeypatch.chdir(tmp_path / "checkpoint-500")
    assert names_of(["hf:."]) == ("checkpoint-500",)
    assert names_of([f"hf:{tmp_path / 'best'}"]) == ("best",)


PARTS = st.lists(st.sampled_from(["a", "b", "a-b", "final"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(st.one_of(PARTS.map("hf:{}".format), PARTS.map("gguf:{}.gguf".format), PARTS), max_size=6))
def test_no_two_are_alike_and_none_is_empty(specs: list[str]) -> None:
    names = names_of(specs)
    assert len(names) == len(specs) == len(set(names)) and all(names)


def test_checkpoints_of_two_runs_can_be_compared(llama_folder: Path, tmp_path: Path) -> None:
    for run in ("runA", "runB"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "final").symlink_to(llama_folder)
    specs = tuple(f"hf:{tmp_path}/{run}/final" for run in ("runA", "runB"))
    subjects, _ = load(specs, None)
    assert [subject.name for subject in subjects] == ["runA-final", "runB-final"]
    subjects, _ = load(specs, None, names=("before", "after"))
    assert [subject.record.name for subject in subjects] == ["before", "after"]
