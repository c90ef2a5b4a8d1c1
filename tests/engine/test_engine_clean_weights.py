"""Undo from the file of a model: the same bits as from copies, and a file that changed underneath is an error."""

import inspect
import os
import resource
import shutil
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.core.errors import RestorationError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance, verified_restoration
from wheeltap.engine.lent_memory import LentMemory
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.perturb import create
from wheeltap.sources import load, load_model


def written(subject: Subject, name: str, doses: tuple[float, ...]) -> list[str]:
    """Digests of the weights at some doses of one draw."""
    found: list[str] = []
    with verified_restoration(subject), Disturbance(subject, create(name), WHOLE) as disturbance:
        for dose in doses:
            disturbance.apply(dose, root=3, seed=1, keep=True)
            found.append(f"{weights_digest(subject.model)} {disturbance.relative_norm}")
    return found


@pytest.mark.parametrize(("name", "stored"), [("relative", "float32"), ("std", "bfloat16"), ("quantize", "bfloat16")])
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


def test_copies_of_a_large_model_are_in_a_scratch_file_where_there_is_room() -> None:
    model = nn.Sequential(nn.Linear(4000, 4000), nn.Linear(4000, 2000)).eval()
    subject, limits = Subject(model, name="large"), resource.getrlimit(resource.RLIMIT_FSIZE)
    before, weight = weights_digest(model), model[1].weight.detach().clone()
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000_000, limits[1]))  # the first matrix, part of the second
    try:
        with verified_restoration(subject), Disturbance(subject, create("quantize"), WHOLE) as disturbance:
            assert [*disturbance._clean._copies] == ["1.weight", "1.bias"]
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


@pytest.mark.parametrize("damage", ["another number", "cut short", "another number, without a trace"])
def test_a_file_that_changes_underneath_is_an_error(llama_folder: Path, damage: str) -> None:
    subject, file = load_model(f"hf:{llama_folder}"), llama_folder / "model.safetensors"
    with (
        pytest.raises(RestorationError),
        verified_restoration(subject),
        Disturbance(subject, create("relative"), WHOLE) as disturbance,
    ):
        disturbance.apply(0.1, root=0, seed=0)
        held = file.stat()
        with open(file, "r+b") as opened:
            opened.seek(held.st_size // 2)
            opened.truncate() if damage == "cut short" else opened.write(bytes(range(64)))
        if damage.endswith("trace"):
            os.utime(file, ns=(held.st_atime_ns, held.st_mtime_ns))


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """A file of forty items."""
    path = tmp_path / "ids.jsonl"
    path.write_text('{"clean": [3, 4, 5], "corrupted": [3, 6, 5], "answer": 7, "wrong": 8}\n' * 40)
    return path


def test_a_control_copy_has_the_memory_of_its_base_meanwhile(llama_folder: Path, items: Path) -> None:
    loaded = load(f"hf:{llama_folder}", data=items)
    subject, task = loaded.subject, loaded.task
    before, settings = weights_digest(subject.model), {"audits": ["score", "deployment"], "schemes": "int4"}
    plan = wt.plan(subject, task, **settings)
    assert plan.twin is not None
    runner, held = TrialRunner([subject], plan.controls, task), subject.model.state_dict()
    with runner.lending():
        copy = runner.subject(plan.twin.fingerprint)
        assert all(one.numel() == 0 for one in subject.model.parameters())
        with verified_restoration(copy), Disturbance(copy, create("quantize"), WHOLE) as disturbance:
            disturbance.apply(4.0, root=0, seed=0)
            lent = runner.scores(copy)
        assert runner.subject(plan.reference.fingerprint) is subject
        assert weights_digest(subject.model) == before
        assert all(one.numel() == 0 for one in copy.model.parameters())  # not the base's numbers under its name
        runner.subject(plan.twin.fingerprint)
    assert weights_digest(subject.model) == before
    # What else has the same memory has it still: a state dict of before is saved with the weights that it had.
    assert all(one.data_ptr() == held[name].data_ptr() for name, one in subject.model.named_parameters())
    copy = TrialRunner([subject], plan.controls, task).subject(plan.twin.fingerprint)  # the plain way
    with Disturbance(copy, create("quantize"), WHOLE) as disturbance:
        disturbance.apply(4.0, root=0, seed=0)
        assert torch.equal(runner.scores(copy), lent)


def interrupting(function: Any, at: int) -> Any:
    """For ``sys.setprofile``: sends Ctrl-C to this process at so many calls that a function makes."""
    code, calls = inspect.unwrap(function).__code__, list[str]()

    def look(frame: Any, event: str, _: object) -> None:
        within = frame if event == "c_call" else frame.f_back if event == "call" else None
        if within is not None and within.f_code is code:
            calls.append(event)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGINT)

    return look


@pytest.fixture
def interrupts() -> Generator[None]:
    """Ctrl-C raises KeyboardInterrupt: workers of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("at", [1, 5])
def test_an_interrupt_waits_until_the_weights_are_back(at: int) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    subject, before = Subject(model, name="net"), weights_digest(model)
    try:
        with pytest.raises(KeyboardInterrupt), Disturbance(subject, create("relative"), WHOLE) as disturbance:
            disturbance.apply(0.1, root=0, seed=0)
            sys.setprofile(interrupting(Disturbance.__exit__, at))
    finally:
        sys.setprofile(None)
    assert weights_digest(model) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_waits_until_a_base_has_its_memory_again(llama_folder: Path, items: Path) -> None:
    loaded = load(f"hf:{llama_folder}", data=items)
    plan = wt.plan(loaded.subject, loaded.task, audits=["score", "deployment"], schemes="int4")
    assert plan.twin is not None
    before, runner = weights_digest(loaded.subject.model), TrialRunner([loaded.subject], plan.controls, loaded.task)
    back = LentMemory.give_back
    for function, at in ((TrialRunner._drop_copy, 1), (back, 1), (back, 5), (back, 20)):
        try:
            with pytest.raises(KeyboardInterrupt), runner.lending():
                runner.subject(plan.twin.fingerprint)
                sys.setprofile(interrupting(function, at))
        finally:
            sys.setprofile(None)
        assert weights_digest(loaded.subject.model) == before


@pytest.mark.parametrize("stored", ["bfloat16"])
def test_an_audit_of_a_folder_says_what_one_with_copies_says(llama_folder: Path, items: Path, stored: str) -> None:
    load_model(f"hf:{llama_folder}").model.to(getattr(torch, stored)).save_pretrained(llama_folder)
    loaded = load(f"stored:{llama_folder}", data=items)
    assert {one.dtype for one in loaded.subject.model.parameters()} == {getattr(torch, stored)}
    before, found = weights_digest(loaded.subject.model), list[str]()
    for _ in range(2):
        report = wt.audit(loaded.subject, loaded.task, audits=["score", "deployment"], schemes="int4,noise5")
        found.append(str([(one.code, one.status, one.estimates) for one in report.findings]))
        assert weights_digest(loaded.subject.model) == before
        loaded.subject.contents = None
    assert found[0] == found[1]
