"""What a spec gives, and the errors of specs that give nothing."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wheeltap.core.errors import FileFormatError, MissingFile, ModelError, UnknownName, UsageError
from wheeltap.core.fingerprint import identify
from wheeltap.core.task import Task
from wheeltap.sources import digits, load, load_model
from wheeltap.sources.specs import located

NETS = """
import torch
from torch import nn
import wheeltap.core.task

def net():
    torch.manual_seed(0)
    return nn.Linear(3, 2).eval()

def with_task():
    return net(), wheeltap.core.task.Task(torch.ones(4, 3), torch.tensor([0, 1, 1, 0]), name="own")

def training():
    return nn.Linear(3, 2)

def broken():
    return {}["missing"]

def number():
    return 3

class Shelf:
    net = staticmethod(net)
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_nets.py").write_text(NETS)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name == "some_nets":
            del sys.modules[name]


def test_digits_are_the_net_and_the_test_split_or_own_data(tmp_path: Path) -> None:
    loaded = load("digits")
    assert loaded.subject.name == "digits" and loaded.tokenizer is None
    assert loaded.task.digest == digits.task().digest
    assert identify(load_model("digits").model).digest() == loaded.subject.record.fingerprint
    np.savez(tmp_path / "own.npz", inputs=np.zeros((5, 64)), targets=np.arange(5))
    loaded = load("digits", data=tmp_path / "own.npz")
    assert loaded.task.name == "own" and len(loaded.task.targets) == 5


def test_a_callable_in_the_current_folder_gives_a_model_and_a_task(workplace: Path) -> None:
    path = list(sys.path)
    loaded = load("some_nets:with_task")
    assert isinstance(loaded.subject.model, nn.Linear) and loaded.subject.name == "some_nets:with_task"
    assert isinstance(loaded.task, Task) and loaded.task.name == "own"
    assert sys.path == path


def test_a_callable_that_gives_a_model_alone_needs_data(workplace: Path) -> None:
    assert isinstance(load_model("some_nets:Shelf.net").model, nn.Linear)
    with pytest.raises(UsageError, match="--data"):
        load("some_nets:net")
    np.savez(workplace / "own.npz", inputs=np.ones((4, 3)), targets=np.array([0, 1, 1, 0]))
    assert load("some_nets:net", data=workplace / "own.npz").task.name == "own"


@pytest.mark.parametrize(
    ("spec", "error", "named"),
    [
        ("some_nets:number", ModelError, r"\bint\b"),
        ("some_nets:training", ModelError, None),
        ("some_nets:broken", ModelError, "KeyError"),
        ("no_such_nets:net", MissingFile, "no_such_nets"),
        ("digit", UnknownName, "digits"),
        ("", UnknownName, None),
        ("gguf:nowhere.gguf", MissingFile, "nowhere.gguf"),
        ("../" + "x" * 300, UnknownName, "xxx"),
    ],
)
def test_specs_that_give_nothing(workplace: Path, spec: str, error: type[Exception], named: str | None) -> None:
    with pytest.raises(error, match=named):
        load(spec)


def test_a_pickle_is_refused_by_name_or_bytes(tmp_path: Path) -> None:
    for name in ("net.pt", "net.safetensors", "net.gguf"):
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / name)
        for spec in ("{}", "gguf:{}", "hf:{}"):
            with pytest.raises(FileFormatError, match="pickle"):
                load(spec.format(tmp_path / name))


def test_a_plan_keeps_the_whole_path_of_a_file_of_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.npz", "x.jsonl"):
        (tmp_path / name).touch()
    kept = {
        "x.npz": f"{tmp_path}/x.npz",
        "generate:x.jsonl,tokens=4,end=a,b": f"generate:{tmp_path}/x.jsonl,tokens=4,end=a,b",
        "pairs:x.jsonl": f"pairs:{tmp_path}/x.jsonl",
        "pairs:quote": "pairs:quote",
        "lm_eval:arc_easy,limit=4": "lm_eval:arc_easy,limit=4",
        "x.npz + generate:x.jsonl": f"{tmp_path}/x.npz + generate:{tmp_path}/x.jsonl",
    }
    assert {name: located(name) for name in kept} == kept
