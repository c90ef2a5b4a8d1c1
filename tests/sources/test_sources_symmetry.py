"""A symmetry from a data file, asked about by the audit from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wheeltap.cli import main

NET = '''
import torch
from torch import nn


class Folded(nn.Module):
    """Reads |x|, so that every answer is a mirror image of itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(2, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.two(torch.tanh(self.one(torch.cat([x[:, :1].abs(), x[:, 1:]], 1))))


def folded():
    return Folded().eval()
'''


def points() -> dict[str, np.ndarray]:
    half = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    inputs = np.concatenate([half, half * [-1, 1]]).astype(np.float32)
    still = np.arange(120)
    return {
        "inputs": inputs,
        "targets": (inputs[:, 1] > 0).astype(np.int64),
        "symmetry": np.stack([still, (still + 60) % 120]),
    }


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the audit from the command line on these points; gives its report."""

    def run(given: dict[str, np.ndarray], *more: str) -> dict[str, Any]:
        np.savez("points.npz", **given)
        command = ["audit", "folded_nets:folded", "--data", "points.npz", "--audits", "symmetry", "--fail-on", "never"]
        assert main([*command, "--json", "report.json", *more]) == 0
        return json.loads(Path("report.json").read_text())

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folded_nets.py").write_text(NET)
    return run


def test_the_audit_is_asked_for_by_name(asked: Callable[..., dict[str, Any]]) -> None:
    (finding,) = (found for found in asked(points())["findings"] if found["code"] != "WT002")
    assert (finding["code"], finding["status"]) == ("WT204", "found")
    values = {estimate["name"]: estimate["value"] for estimate in finding["estimates"]}
    assert values["single_weights"] == pytest.approx(1.0, abs=1e-4)
    crossed = np.concatenate([np.arange(119, 59, -1), np.arange(59, -1, -1)])  # not of the targets
    report = asked({**points(), "symmetry": np.stack([np.arange(120), crossed])})
    (control,) = [one for one in report["controls"] if one["name"] == "WT204 targets have the symmetry"]
    assert control["status"] == "skipped"
