"""No net of a study is measured on what it was trained on, and a rule on a loss shows the scores around it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_files import two_cohorts

import wheeltap as wt
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.repeats import near_copies
from wheeltap.plans.plan import Plan
from wheeltap.runs import studying
from wheeltap.sources import digits
from wheeltap.studies.declared import read

COMMON = 'optimizer = "adamw", epochs = 2, hidden = "8"'
STUDY = two_cohorts(
    ("strong", f"{COMMON}, decay = 0.1"), ("weak", f"{COMMON}, decay = 0.0001"),
    scheme="int4", seeds=3, examples="test.npz", recipe="classifier",
) + """[metrics.score]
audit = "score"
"""  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of digits without a common image, and some with the other's: in another precision, or with noise."""
    inputs, targets = digits.split().train_inputs.numpy(), digits.split().train_targets.numpy()
    parts = {"test": slice(0, 120), "train": slice(120, 420), "both": slice(83, 420)}
    for name, rows in parts.items():
        np.savez(tmp_path / f"{name}.npz", inputs=inputs[rows], targets=targets[rows])
    np.savez(
        tmp_path / "wide.npz", inputs=inputs[parts["both"]].astype(np.float64)[::-1], targets=targets[83:420][::-1]
    )
    draw = np.random.default_rng(0)
    noisy = inputs[parts["test"]] + 1e-4 * draw.normal(size=inputs[parts["test"]].shape).astype(np.float32)
    np.savez(tmp_path / "noisy.npz", inputs=np.concatenate([noisy, inputs[120:420]]), targets=targets[:420])
    return tmp_path


def planned(folder: Path, *changes: tuple[str, str]) -> studying.PlannedStudy:
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "own.toml").write_text(text)
    return studying.planned(read(folder / "own.toml"))


def named(line: str) -> tuple[str, str]:
    """A change that adds a line on what is trained on."""
    return '"test.npz"\n', f'"test.npz"\n{line}\n'


def trainings(plan: Plan) -> set[str]:
    assert plan.study is not None
    return {cohort.training for cohort in plan.study.cohorts}


# ---- what is trained on -----------------------------------------------------------------------------------------


def test_a_recipe_without_examples_to_train_on_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="no examples to train on") as caught:
        planned(folder)
    assert caught.value.do


def test_nets_are_trained_on_the_named_file_and_measured_on_the_other(folder: Path) -> None:
    asked = planned(folder, named('train = "train.npz"'))
    assert asked.training is not None and len(asked.training.targets) == 300
    assert {one.artifact.data for one in asked.plan.subjects if one.artifact} == {asked.training.digest}
    assert asked.plan.task.examples == 120
    assert trainings(asked.plan) == {"Trained on 300 examples of train, measured on 120 held out."}


def test_examples_in_common_are_counted_and_refused(folder: Path) -> None:
    """In another precision and order, or with noise, too."""
    near = "120 of them, or copies that differ by next to nothing"
    for name, count in {"both": "37 of them", "wide": "37 of them", "test": "120 of them", "noisy": near}.items():
        with pytest.raises(DataError, match="trained on examples that they are measured on") as caught:
            planned(folder, named(f'train = "{name}.npz"'))
        assert count in str(caught.value) and "120 examples of test" in str(caught.value)
    with pytest.raises(DataError, match="120 of them"):  # nor is a recipe that brings its own measured on them
        planned(folder, ('"classifier"', '"digits"'))


def test_the_split_is_ours_and_said_on_the_first_screen(folder: Path) -> None:
    (folder / "own.toml").write_text(STUDY.replace(*named("held_out = 0.33")))
    report = wt.study(read(folder / "own.toml"), store=folder / "s.wheeltap")
    assert report.record.study is not None and report.record.task.examples == 40
    # What was planned can be run from its plan.
    again = studying.again(Plan.from_bytes(planned(folder, named("held_out = 0.33")).plan.to_bytes(), where="plan"))
    assert again.training is not None and again.task.digest == report.record.task.digest
    assert not {*again.training.contents} & {*again.task.contents}


def test_copies_of_an_example_stay_on_one_side(folder: Path) -> None:
    with np.load(folder / "test.npz") as held:
        inputs, targets = np.tile(held["inputs"], (5, 1)), np.tile(held["targets"], 5)
    draws = np.random.default_rng(0).normal(size=inputs.shape).astype(np.float32)
    for noise in (0.0, 1e-5):
        np.savez(folder / "test.npz", inputs=inputs + np.float32(noise) * draws, targets=targets)
        asked = planned(folder, named("held_out = 0.25"))
        assert isinstance(asked.training, wt.Task) and isinstance(asked.task, wt.Task)
        assert near_copies(asked.task.inputs, asked.training.inputs) == 0
        assert (len(asked.training.targets), len(asked.task.targets)) == (450, 150)
        assert not {*asked.training.contents} & {*asked.task.contents}
        if not noise:
            assert (len({*asked.training.contents}), len({*asked.task.contents})) == (90, 30)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ((named('train = "train.npz"\nheld_out = 0.33'),), UsageError, "not held out"),
        ((('role = "studied"', 'role = "studied"\non_task = true'),), UsageError, "Remove on_task"),
        ((named('train = "train.npz"'), ("margin = 0.01", "margin = 2.5")), UsageError, r"Did you mean 0\.025\?"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    folder: Path, changes: tuple[tuple[str, str], ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        planned(folder, *changes)


# ---- a rule on a loss -------------------------------------------------------------------------------------------

NETS = """
import torch
from torch import nn

def made(seed, noise):
    from wheeltap.sources.digits import split
    data, base, own = split(), torch.Generator().manual_seed(3), torch.Generator().manual_seed(seed)
    means = torch.stack([data.train_inputs[data.train_targets == digit].mean(0) for digit in range(10)])
    net = nn.Linear(64, 10)
    with torch.no_grad():
        shared, alone = (torch.randn(10, 64, generator=one) for one in (base, own))
        net.weight.copy_(means * (1.0 + noise * shared + 0.02 * alone))
        net.bias.copy_(-means.square().sum(1) / 2.0)
    return net.eval()
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of nets: good ones that lose at 2 bits, and poor ones that have less to lose."""
    made = [
        f"def {kind}{at}(): return made({at}, {noise})"
        for kind, noise in (("poor", 0.6), ("good", 0.1))
        for at in range(4)
    ]
    (tmp_path / "held_nets.py").write_text("\n".join([NETS, *made]))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("held_nets", None)


def test_who_loses_less_and_is_worse_all_along_is_said(nets: Path) -> None:
    members = {kind: ", ".join(f'"held_nets:{kind}{at}"' for at in range(4)) for kind in ("poor", "good")}
    (nets / "own.toml").write_text(
        'question = "Who loses less?"\nexamples = "digits"\n'
        + "".join(f"[cohorts.{kind}]\nmembers = [{names}]\n" for kind, names in members.items())
        + '[metrics.loss]\naudit = "deployment"\nsettings = { schemes = "int2" }\nscheme = "int2"\n[[rules]]\n'
        'metric = "loss"\ncohorts = ["poor", "good"]\nstatistic = "difference"\ndirection = "less"\nmargin = 0.001\n'
        'supports = "Poor nets lose less."\n'
    )
    report = wt.study(read(nets / "own.toml", allow_code=True), store=nets / "s.wheeltap")
    assert report.record.study is not None
    rows = {row.metric.title: [float(np.mean(one.values)) for one in row.cohorts] for row in report.record.study.rows}
    loss, before, after = (
        rows[name] for name in ("What shipping costs (int2)", "Score before (int2)", "Score after (int2)")
    )
    # By hand: the nets' own scores, before they are rounded.
    module: Any = sys.modules["held_nets"]
    task = digits.task()
    for kind, found in zip(("poor", "good"), before, strict=True):
        own = [getattr(module, f"{kind}{at}")() for at in range(4)]
        with torch.no_grad():
            right = [float((net(task.inputs).argmax(1) == task.targets).float().mean()) for net in own]
        assert found == pytest.approx(np.mean(right), abs=1e-6)
    assert np.subtract(before, after) == pytest.approx(loss, abs=1e-6)
    assert loss[0] < loss[1] and before[0] < before[1] and after[0] < after[1]
    assert "worse all along" in report.headline
