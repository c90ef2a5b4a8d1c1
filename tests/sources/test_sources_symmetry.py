"""A symmetry from a data file: read, checked, and asked about by the audit from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from wheeltap.cli import main
from wheeltap.core.errors import DataError
from wheeltap.sources import load_task

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


def test_a_symmetry_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "points.npz", **points())
    task = load_task(tmp_path / "points.npz")
    assert task.annotations.symmetry is not None
    assert task.annotations.symmetry.order == 2
    bare = {name: array for name, array in points().items() if name != "symmetry"}
    np.savez(tmp_path / "bare.npz", **bare)
    assert load_task(tmp_path / "bare.npz").digest != task.digest


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.stack([np.arange(120), np.arange(120) * 0]), "not a symmetry"),
        (np.stack([np.arange(120), np.roll(np.arange(120), 1)]), "not a symmetry"),
        (np.arange(120)[None] + 5, "not a symmetry"),
        (np.arange(120), "not a symmetry"),
        (np.stack([np.arange(60), np.arange(60)[::-1]]), "does not fit the examples"),
        (np.arange(120)[None], "between 2 and"),
        (np.stack([np.arange(120), np.arange(1, 121)]), "place 120"),
        (np.arange(120.0)[None], "does not say where"),
        (np.ones((1, 120), dtype=bool), "does not say where"),
    ],
)
def test_what_is_no_symmetry_is_refused(wrong: np.ndarray, words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "points.npz", **{**points(), "symmetry": wrong})
    with pytest.raises(DataError, match=words):
        load_task(tmp_path / "points.npz")


def test_the_audit_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folded_nets.py").write_text(NET)
    np.savez("points.npz", **points())
    asked = ["audit", "folded_nets:folded", "--data", "points.npz", "--audits", "symmetry", "--fail-on", "never"]
    assert main([*asked, "--json", "report.json"]) == 0
    assert "Warning" not in capsys.readouterr().out
    findings = json.loads(Path("report.json").read_text())["findings"]
    (finding,) = (found for found in findings if found["code"] != "WT002")
    assert finding["code"] == "WT204"
    assert finding["status"] == "found"
    values = {estimate["name"]: estimate["value"] for estimate in finding["estimates"]}
    assert values["single_weights"] == pytest.approx(1.0, abs=1e-4)


def test_a_permutation_that_the_targets_do_not_bear_out_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folded_nets.py").write_text(NET)
    given = points()
    differ = (given["targets"][:60] != given["targets"][59::-1]).mean()  # the second half are images of the first
    crossed = np.concatenate([np.arange(119, 59, -1), np.arange(59, -1, -1)])
    np.savez("points.npz", **{**given, "symmetry": np.stack([np.arange(120), crossed])})
    asked = ["audit", "folded_nets:folded", "--data", "points.npz", "--audits", "symmetry", "--fail-on", "never"]
    assert main([*asked, "--json", "report.json", "--html", "page.html"]) == 0
    warning = f"Warning: this is no symmetry of the task. The targets of {100 * differ:.2g} % of the examples differ"
    assert 0.2 < differ < 0.8
    assert warning in " ".join(capsys.readouterr().out.split())
    assert warning in Path("page.html").read_text()
    report = json.loads(Path("report.json").read_text())
    assert warning in report["findings"][0]["because"]
    (control,) = [one for one in report["controls"] if one["name"] == "WT204 targets have the symmetry"]
    assert control["status"] == "skipped" and warning in control["because"]
