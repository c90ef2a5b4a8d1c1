"""Vectors of sites against a plain pass with a hook; what is no vector is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, ModelError, UnknownName
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.dictionaries.activations import center, collect, of_array
from wheeltap.suites.dictionaries.doors import joined
from wheeltap.suites.dictionaries.nets import WordTransformer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    with reproducible(1):
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def words() -> WordTransformer:
    with reproducible(2):
        return WordTransformer(11, width=8, blocks=2).eval()


CONTEXTS = [[1, 2, 3], [4, 5], [1, 2, 3], [6, 7, 8, 9, 10], [1, 2]]
TASK = ChoiceTask(CONTEXTS, [[[1], [2]]] * 5, [0, 1, 0, 1, 0])


def test_an_ordinary_net(net: nn.Sequential) -> None:
    """In the order of the examples, over several calls; rows in any order."""
    inputs = drawn(10, 6)
    task = Task(inputs, torch.zeros(10, dtype=torch.long), batch=4)
    held, active = (collect(net, task, site) for site in ("0", "1"))
    with torch.no_grad():
        wanted = net[0](inputs)
    assert (held.shape, held.dtype) == ((10, 8), torch.float32)
    torch.testing.assert_close(held, wanted)
    rows = torch.tensor([7, 0, 7])
    torch.testing.assert_close(active[rows], wanted.relu()[rows])
    mean, scale = center(held, where="0")
    torch.testing.assert_close(mean, wanted.mean(0))
    assert ((wanted - mean) * scale).square().mean().item() == pytest.approx(1.0, rel=1e-5)


def test_a_language_model(words: WordTransformer) -> None:
    """Each context by itself gives the same: last positions in order, also of repeated ones; all but the first."""
    with torch.no_grad():
        streams = list[Tensor]()
        handle = words.blocks[0].register_forward_hook(lambda module, args, output: streams.append(output[0]))
        for context in CONTEXTS:
            words(torch.tensor([context]))
        handle.remove()
    last = collect(words, TASK, "blocks.0")
    torch.testing.assert_close(last, torch.stack([stream[-1] for stream in streams]))
    every = collect(words, TASK, "blocks.0", positions="all")
    distinct = [streams[at][1:] for at in (4, 1, 0, 3)]  # by length, then by words: [1, 2], [4, 5], ...
    torch.testing.assert_close(every, torch.cat(distinct))
    plain = Task(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.zeros(2, dtype=torch.long))
    assert collect(words, plain, "blocks.0", positions="all").shape == (6, 8)
    assert collect(words, plain, "blocks.0").shape == (2, 24)
    assert joined(Subject(words, name="words"), plain, "blocks.0", "last") == " (3 positions x 8, joined)"
    assert not joined(Subject(words, name="words"), TASK, "blocks.0", "last")


def test_what_is_no_site(net: nn.Sequential, words: WordTransformer) -> None:
    """A module that is not there, not called, called twice, or of numbers that are not finite."""
    task = Task(drawn(4, 6), torch.zeros(4, dtype=torch.long))
    with pytest.raises(UnknownName, match=r"no\.such"):
        collect(net, task, "no.such")
    with pytest.raises(UnknownName):
        collect(net, task, "")
    twice = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    twice.append(twice[0])
    with pytest.raises(ModelError):
        collect(twice, task, "0")
    idle = nn.Sequential(nn.Linear(6, 6))
    idle[0].register_module("idle", nn.Linear(6, 6))
    with pytest.raises(ModelError):
        collect(idle, task, "0.idle")
    with torch.no_grad():
        bad = nn.Sequential(nn.Linear(6, 8))
        bad[0].weight[2, 3] = torch.nan
    with pytest.raises(ModelError, match="NaN"):
        collect(bad, task, "0")
    with pytest.raises(ModelError):
        collect(net, Task(drawn(4, 5), torch.zeros(4, dtype=torch.long)), "0")
    with pytest.raises(ModelError):
        collect(net, TASK, "0")
    assert not net[0]._forward_hooks and not bad[0]._forward_hooks and not twice[0]._forward_hooks
    with pytest.raises(DataError):
        center(collect(net, Task(torch.ones(4, 6), torch.zeros(4, dtype=torch.long)), "0"), where="0")


def test_plain_arrays(tmp_path: Path) -> None:
    """From memory and from files; what is no table of finite numbers is refused, and a pickle."""
    vectors = drawn(5, 4).numpy()
    np.save(tmp_path / "a.npy", vectors)
    np.savez_compressed(tmp_path / "a.npz", any_name=vectors.astype(np.float64))
    for given in (vectors, tmp_path / "a.npy", str(tmp_path / "a.npy"), tmp_path / "a.npz"):
        task = of_array(given)
        assert isinstance(task.inputs, Tensor)
        np.testing.assert_array_equal(task.inputs.numpy(), vectors)
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.npz").write_text("no array")
    np.savez(tmp_path / "objects.npz", np.array([{}, {}], dtype=object))
    np.savez(tmp_path / "two.npz", one=vectors, other=vectors)
    bad: list[tuple[Any, type[Exception]]] = [
        (vectors[0], DataError), (np.ones((3, 2), dtype=np.int64), DataError), (vectors * np.nan, DataError),
        (tmp_path / "objects.npy", FileFormatError), (tmp_path / "objects.npz", DataError),
        (tmp_path / "two.npz", DataError), (tmp_path / "text.npz", FileFormatError),
        (tmp_path / "text.npy", FileFormatError), (tmp_path / "none.npy", MissingFile),
    ]  # fmt: skip
    for given, kind in bad:
        with pytest.raises(kind):
            of_array(given)
    with pytest.raises(DataError, match=r"'one'.*'other'"):
        of_array(tmp_path / "two.npz")
