"""Undo from the file of a model: the same bits as from copies, and a file that changed underneath is an error."""

import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from wheeltap.core.errors import RestorationError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance, verified_restoration
from wheeltap.perturb import create
from wheeltap.sources import load_model


def written(subject: Subject, name: str, doses: tuple[float, ...]) -> list[str]:
    """Digests of the weights at some doses of one draw."""
    found: list[str] = []
    with verified_restoration(subject), Disturbance(subject, create(name), WHOLE) as disturbance:
        for dose in doses:
            disturbance.apply(dose, root=3, seed=1, keep=True)
            found.append(f"{weights_digest(subject.model)} {disturbance.relative_norm}")
    return found


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["relative", "std", "low-rank", "quantize"])
def test_the_file_gives_the_same_bits_as_a_copy(llama_folder: Path, stored: str, name: str) -> None:
    model = load_model(f"hf:{llama_folder}").model
    model.to(getattr(torch, stored)).save_pretrained(llama_folder)
    subject = load_model(f"hf:{llama_folder}")
    before = weights_digest(subject.model)
    with Disturbance(subject, create(name), WHOLE) as disturbance:
        assert disturbance._clean.from_file
        assert not disturbance._clean._copies
    doses = (4.0, 8.0) if name == "quantize" else (0.01, 0.1)
    from_file = written(subject, name, doses)
    assert weights_digest(subject.model) == before
    assert len({*from_file, before}) == 3
    subject.contents = None
    assert written(subject, name, doses) == from_file


@pytest.mark.parametrize("room", [True, False])
def test_copies_of_a_large_model_are_in_a_scratch_file_where_there_is_room(room: bool) -> None:
    model = nn.Sequential(nn.Linear(4000, 4000), nn.Linear(4000, 2000)).eval()
    subject, limits = Subject(model, name="large"), resource.getrlimit(resource.RLIMIT_FSIZE)
    before, weight = weights_digest(model), model[1].weight.detach().clone()
    if not room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (70_000_000, limits[1]))  # the first matrix, part of the second
    try:
        with verified_restoration(subject), Disturbance(subject, create("quantize"), WHOLE) as disturbance:
            assert [*disturbance._clean._copies] == ([] if room else ["1.weight", "1.bias"])
            disturbance.apply(8.0, root=0, seed=0)
            assert not torch.equal(model[1].weight, weight)
            assert torch.equal(disturbance._clean.of(subject.layers[1]).weight, weight)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert weights_digest(model) == before


def test_what_was_changed_since_it_was_loaded_is_copied(llama_folder: Path) -> None:
    subject = load_model(f"hf:{llama_folder}")
    with torch.no_grad():
        subject.parameter("model.layers.0.mlp.up_proj.weight")[0, 0] += 1.0
    with Disturbance(subject, create("relative"), WHOLE) as disturbance:
        assert [*disturbance._clean._copies] == ["model.layers.0.mlp.up_proj.weight"]
    before = weights_digest(subject.model)
    written(subject, "relative", (0.1,))
    assert weights_digest(subject.model) == before
    shutil.rmtree(llama_folder)
    written(subject, "relative", (0.1,))  # copies alone


@pytest.mark.parametrize("damage", ["another number", "cut short"])
def test_a_file_that_changes_underneath_is_an_error(llama_folder: Path, damage: str) -> None:
    subject, file = load_model(f"hf:{llama_folder}"), llama_folder / "model.safetensors"
    with (
        pytest.raises(RestorationError, match=r"file of the weights changed while(.|\n)*model.safetensors"),
        verified_restoration(subject),
        Disturbance(subject, create("relative"), WHOLE) as disturbance,
    ):
        disturbance.apply(0.1, root=0, seed=0)
        with open(file, "r+b") as opened:
            opened.seek(-2, os.SEEK_END)
            opened.write(b"\x01\x02") if damage == "another number" else opened.truncate()


def test_a_file_that_is_replaced_is_still_read(llama_folder: Path) -> None:
    subject, file = load_model(f"hf:{llama_folder}"), llama_folder / "model.safetensors"
    with verified_restoration(subject), Disturbance(subject, create("relative"), WHOLE) as disturbance:
        disturbance.apply(0.1, root=0, seed=0)
        (llama_folder / "new").write_bytes(b"another file")
        os.replace(llama_folder / "new", file)


def test_a_change_that_leaves_no_trace_but_other_numbers_is_seen(llama_folder: Path) -> None:
    subject, file = load_model(f"hf:{llama_folder}"), llama_folder / "model.safetensors"
    with (
        pytest.raises(RestorationError, match="did not come back bit-identical"),
        verified_restoration(subject),
        Disturbance(subject, create("relative"), WHOLE) as disturbance,
    ):
        disturbance.apply(0.1, root=0, seed=0)
        held = file.stat()
        with open(file, "r+b") as opened:
            opened.seek(held.st_size // 2)
            opened.write(bytes(range(64)))
        os.utime(file, ns=(held.st_atime_ns, held.st_mtime_ns))
