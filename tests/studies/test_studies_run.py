"""Studies from end to end: members made once, found again, remade where they are lost, never replaced."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from study_files import two_cohorts

import wheeltap as wt
from wheeltap.core.errors import FileFormatError, MissingFile, UnknownName, UsageError, WheeltapError
from wheeltap.core.report import ReportRecord
from wheeltap.studies.declared import DeclaredStudy, read

SAM = two_cohorts(
    ("sam", 'rho = 0.05, epochs = 3, hidden = "24"'), ("plain", 'epochs = 3, hidden = "24"'),
    scheme="int3", seeds=4, margin=0.02, more="\non_task = false",
)  # fmt: skip

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
}


def written(folder: Path, text: str = SAM) -> DeclaredStudy:
    (folder / "sam.toml").write_text(text)
    return read(folder / "sam.toml", allow_code="three_nets:" in text)


def answer(record: ReportRecord) -> tuple[object, ...]:
    return record.headline, record.findings, record.controls, record.study


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportRecord]:
    """A study that was never interrupted: its folder, and its report."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, wt.study(written(folder), store=folder / "s.wheeltap").record


def copied(whole: tuple[Path, ReportRecord], folder: Path) -> Path:
    """The study's folder again, to be broken."""
    shutil.copytree(whole[0], folder, dirs_exist_ok=True)
    return folder / "s.wheeltap"


def test_what_is_made_is_measured_and_judged(whole: tuple[Path, ReportRecord]) -> None:
    record = whole[1]
    assert record.study is not None
    assert [cohort.name for cohort in record.study.cohorts] == ["sam", "plain"]
    assert [len(row.values) for row in record.study.rows[0].cohorts] == [4, 4]
    [finding] = record.findings
    assert finding.estimates[0].n == 8 and finding.smallest_detectable is not None
    # The effect is the difference of the members' own losses, each as the audit of one model gives it.
    a, b = (row.values for row in record.study.rows[0].cohorts)
    assert finding.estimates[0].value == pytest.approx(sum(a) / 4 - sum(b) / 4, abs=1e-12)


def test_a_member_that_is_lost_or_another_net_is_made_again_and_never_measured(
    whole: tuple[Path, ReportRecord], tmp_path: Path
) -> None:
    other = SAM.replace("int3", "int2")
    fresh = wt.study(written(tmp_path, other), store=tmp_path / "fresh.wheeltap").record
    store = copied(whole, tmp_path / "lost")
    files = sorted((tmp_path / "lost" / "s.wheeltap.made").glob("*.safetensors"))
    assert len(files) == 8
    for file in files[:3]:
        file.unlink()
    assert wt.study(written(tmp_path), store=store).cost.trials == 0  # nothing needs them, so nothing is made
    assert answer(wt.study(written(tmp_path, other), store=store).record) == answer(fresh)
    store = copied(whole, tmp_path / "swapped")
    files = sorted((tmp_path / "swapped" / "s.wheeltap.made").glob("*.safetensors"))
    shutil.copy(files[1], files[0])
    with pytest.warns(UserWarning, match="made again"):
        assert answer(wt.study(written(tmp_path, other), store=store).record) == answer(fresh)


@pytest.mark.slow
@pytest.mark.release
def test_killed_anywhere_the_report_is_the_same(whole: tuple[Path, ReportRecord], tmp_path: Path) -> None:
    (tmp_path / "sam.toml").write_text(SAM)
    code = (
        "import sys, wheeltap as wt; from pathlib import Path; from wheeltap.studies.declared import read\n"
        "wt.study(read(Path('sam.toml')), store='k.wheeltap')"
    )
    drawn, kills = random.Random(3), 0
    while True:
        with (tmp_path / "told").open("w") as told:
            process = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, cwd=tmp_path, stderr=told)
        begun = time.monotonic()
        # The folder is there once the members are about to be made.
        while process.poll() is None and not (tmp_path / "k.wheeltap.made").exists() and time.monotonic() - begun < 60:
            time.sleep(0.01)
        time.sleep(drawn.uniform(0.0, 0.6))
        if process.poll() is None and kills < 2:
            process.kill()
            kills += 1
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL, (tmp_path / "told").read_text()
    assert kills >= 1
    assert answer(wt.judge(tmp_path / "k.wheeltap").record) == answer(whole[1])


def test_checkpoints_make_cohorts(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import numpy as np
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    for kind in ("sam", "plain"):
        for seed in range(3):
            torch.manual_seed(seed)
            net = ViTForImageClassification(ViTConfig(**size, image_size=8, patch_size=4, num_labels=3))
            net.save_pretrained(tmp_path / "runs" / f"{kind}-{seed}")
    rng = np.random.default_rng(0)
    images, right = rng.normal(size=(40, 3, 8, 8)).astype(np.float32), rng.integers(0, 3, 40)
    np.savez(tmp_path / "test.npz", inputs=images, targets=right)
    text = (
        'question = "Which are better?"\nexamples = "test.npz"\n[cohorts.sam]\nmembers = ["hf:runs/sam-*"]\n'
        '[cohorts.plain]\nmembers = ["hf:runs/plain-*"]\n[metrics.score]\naudit = "score"\n[[rules]]\n'
        'metric = "score"\ncohorts = ["sam", "plain"]\nstatistic = "difference"\nmargin = 0.5\n'
    )
    made = wt.study(written(tmp_path, text), store=tmp_path / "c.wheeltap")
    assert made.record.study is not None
    assert [cohort.members for cohort in made.record.study.cohorts] == [
        ("sam-0", "sam-1", "sam-2"), ("plain-0", "plain-1", "plain-2")
    ]  # fmt: skip
    # Nets of the same seeds are the same nets.
    assert made.findings[0].estimates[0].value == pytest.approx(0.0, abs=1e-12)
    assert wt.study(read(tmp_path / "sam.toml"), store=tmp_path / "c.wheeltap").cost.trials == 0


@pytest.mark.parametrize(
    ("change", "error", "hint"),
    [
        (("recipe = \"digits\"", "recipe = \"digit\""), UnknownName, "digits"),
        (("metric = \"loss\"", "metric = \"los\""), UnknownName, "loss"),
        (("margin = 0.02", "margin = -1.0"), FileFormatError, "rules"),
        (("seeds = 4", "seeds = 9223372036854775807"), UsageError, "N from 1 to"),
        (("epochs = 3", "epoch = 3"), UsageError, "Did you mean 'epochs'"),
        (("examples = \"digits\"", "examples = \"none.npz\""), MissingFile, "none.npz"),
        (("[[rules]]", "[[rules"), FileFormatError, "TOML"),
        (("seeds = 4", "seeds = 1"), UsageError, "member"),
    ],
)  # fmt: skip
def test_a_wrong_file_says_what_is_wrong(
    change: tuple[str, str], error: type[WheeltapError], hint: str, tmp_path: Path
) -> None:
    assert change[0] in SAM
    with pytest.raises(error) as caught:
        wt.study(written(tmp_path, SAM.replace(*change)), store=tmp_path / "s.wheeltap")
    assert hint in str(caught.value)


def test_two_rules_on_the_same_cohorts_keep_their_own_verdicts(tmp_path: Path) -> None:
    """By another margin of the same difference one is found and the other is not: neither gets the other's words."""
    rule = SAM.partition("[[rules]]")[2]
    text = SAM.replace("margin = 0.02", 'margin = 0.0\nsupports = "any"') + "[[rules]]" + rule.replace(
        "margin = 0.02", 'margin = 0.9\nrefutes = "not by 90 points"'
    )  # fmt: skip
    report = wt.study(written(tmp_path, text), store=tmp_path / "s.wheeltap")
    first, second = report.findings
    assert first.title != second.title and (first.margin, second.margin) == (0.0, 0.9)
    assert first.status != second.status == "excluded"


NET = """
import torch
from torch import nn

def made(seed):
    torch.manual_seed(seed)
    return nn.Linear(64, 10).eval()

def one():
    return made(0)

def two():
    return made(0)

def other():
    return made(1)

def narrow():
    return nn.Linear(8, 10).eval()
"""


@pytest.mark.parametrize(
    ("members", "what"),
    [('"three_nets:one", "three_nets:two"', "same net"), ('"three_nets:one", "three_nets:narrow"', "member narrow")],
)
def test_a_member_that_cannot_be_one_is_named_before_anything_runs(
    members: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "three_nets.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = SAM.partition("[cohorts.sam]")[0] + f"""[cohorts.sam]
members = [{members}]
[cohorts.plain]
members = ["three_nets:other"]
role = "compared"
[metrics""" + SAM.partition("[metrics")[2].replace('"sam", "plain"]', '"sam"]').replace(
        'statistic = "difference"', 'statistic = "mean"'
    )  # fmt: skip
    with pytest.raises(WheeltapError, match=what):
        wt.study(written(tmp_path, given), store=tmp_path / "s.wheeltap")
    sys.modules.pop("three_nets", None)
