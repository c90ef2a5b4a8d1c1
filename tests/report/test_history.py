"""Reports over the steps of a training: when a scheme stops being safe, as table and picture; what is refused."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import wheeltap as wt
from tests.plugin_package.project import gated
from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError, MissingFile, UsageError
from wheeltap.report.history import histories, read

SCHEMES = "int8,int4-tensor"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints that survive, one that does not survive one scheme at equal outputs, and one not told apart."""
    folder = tmp_path_factory.mktemp("history")
    few = tuple(part[:800] for part in gated.examples())
    for step, net in ((100, gated.net()), (200, gated.net()), (1000, gated.broken())):
        wt.audit(net, few, schemes=SCHEMES, name=f"at-{step}").json(folder / f"step-{step}.json")
    (folder / "step-x.json").write_text("of another program")
    return folder


def test_it_says_from_which_step_on_a_scheme_is_not_safe(folder: Path) -> None:
    assert main(["history", str(folder)]) == 0
    assert ElementTree.parse(folder / "history.svg").getroot().tag.endswith("svg")
    verdicts = {tuple(f.verdict for f in one.findings.values()) for one in histories(read(folder))}
    assert ("safe", "safe", "costs") in verdicts and ("safe", "safe", "safe") in verdicts


def test_histories_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read(tmp_path / "none")
    shutil.copytree(folder, tmp_path / "two", ignore=shutil.ignore_patterns("*.svg"))
    torch.manual_seed(0)
    other = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    wt.audit(other, gated.examples(), audits="score").json(tmp_path / "two" / "step-1500.json")
    with pytest.raises(UsageError, match="172"):
        read(tmp_path / "two")
    wt.audit(gated.net(), gated.examples(), audits="score", margin=0.1).json(tmp_path / "two" / "step-1500.json")
    with pytest.raises(UsageError):
        read(tmp_path / "two")
    (tmp_path / "two" / "step-1500.json").write_text("{}")
    with pytest.raises(FileFormatError):
        read(tmp_path / "two")
    assert main(["history", str(tmp_path / "two")]) == 2 and not (tmp_path / "two" / "history.svg").exists()
