"""Models and files that the command line is tried on."""

import os
from pathlib import Path

import pytest

NETS = '''
import torch
from torch import nn


class Net(nn.Module):
    """Two layers; knows a few tricks that models should not."""

    def __init__(self, trick=""):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.trick = nn.Linear(4, 8), nn.Linear(8, 3), trick

    def forward(self, x):
        scores = self.two(torch.relu(self.one(x)))
        if self.trick == "random":
            scores = scores + torch.randn_like(scores)
        return scores


def sound():
    return Net().eval()


def training():
    return Net().train()


def random():
    return Net("random").eval()


def poisoned():
    net = Net().eval()
    net.one.weight.data[0, 0] = float("nan")
    return net


def ends():
    raise SystemExit(3)
'''


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``nets.py`` and ``data.npz``."""
    import numpy as np

    folder = tmp_path_factory.mktemp("work")
    (folder / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    np.savez(
        folder / "data.npz",
        inputs=rng.normal(size=(60, 4)).astype(np.float32),
        targets=rng.integers(0, 3, size=60),
    )
    return folder


@pytest.fixture
def here(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder from which ``nets`` can be imported; ``data.npz`` is in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(workplace))
    os.link(workplace / "data.npz", tmp_path / "data.npz")
    return tmp_path
