"""The process pool gives what one process gives; processes that die or are killed say so, and lose nothing."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_nets import Deadly, numbers, taught
from store_outcomes import judged, same, stored
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import MissingFile, StoreError, UsageError, WheeltapError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp
from wheeltap.runs.executors import ProcessPool

EFFORT = wt.Effort(draws=3, control_draws=3, block_draws=1)


def test_a_pool_gives_the_same_numbers_to_the_bit(digits: Subject, digits_task: Task, tmp_path: Path) -> None:
    one, two = tmp_path / "one.wheeltap", tmp_path / "two.wheeltap"
    before = weights_digest(digits.model)
    serial = wt.audit(digits, digits_task, store=one, effort=EFFORT)
    pooled = wt.audit(digits, digits_task, store=two, effort=EFFORT, workers=2)
    assert weights_digest(digits.model) == before
    assert judged(pooled) == judged(serial)
    mine, theirs = stored(one), stored(two)
    assert mine.keys() == theirs.keys()
    for key, outcome in mine.items():
        assert same(replace(theirs[key], seconds=outcome.seconds), outcome)
    assert pooled.cost.trials == serial.cost.trials
    # Each worker estimates layer moments for itself; nothing else is done twice.
    assert serial.cost.forwards <= pooled.cost.forwards <= serial.cost.forwards + 4 * digits_task.moment_passes
    again = wt.audit(digits, digits_task, store=two, effort=EFFORT, workers=2)
    # A clean pass and two trials of each perturbation are compared with the stored ones.
    assert again.cost.trials == 0
    assert 1 < again.cost.forwards < serial.cost.forwards / 4


def test_a_model_that_cannot_travel_is_refused() -> None:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp((6, 12, 4))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.body(inputs)

    model = Local().eval()
    before = weights_digest(model)
    for workers in (0, -1):
        with pytest.raises(UsageError, match="needs workers"):
            ProcessPool(workers)
    with pytest.raises(UsageError, match="cannot be sent to worker processes") as caught:
        wt.audit(Subject(model), taught(model, numbers(60, 6)), audits=["pruning"], effort=EFFORT, workers=2)
    assert "workers=1" in str(caught.value) and "Local" in str(caught.value)
    assert weights_digest(model) == before
    assert wt.audit(Subject(model), taught(model, numbers(60, 6)), audits=["pruning"], effort=EFFORT).findings


def test_a_worker_that_dies_is_said_and_the_run_resumes(tmp_path: Path) -> None:
    model = Deadly(after=5)
    subject, task = Subject(model, name="deadly"), taught(model.body, numbers(60, 6, seed=1))
    path = tmp_path / "s.wheeltap"
    with pytest.raises(WheeltapError, match="A worker process died") as caught:
        wt.audit(subject, task, audits=["pruning", "relative-noise"], store=path, effort=EFFORT, workers=2)
    assert "run again to resume" in str(caught.value)
    done = stored(path)
    assert done
    resumed = wt.audit(subject, task, audits=["pruning", "relative-noise"], store=path, effort=EFFORT)
    whole = wt.audit(subject, task, audits=["pruning", "relative-noise"], effort=EFFORT)
    assert resumed.cost.trials == whole.cost.trials - len(done)
    assert (resumed.findings, resumed.controls) == (whole.findings, whole.controls)


def test_an_error_in_a_worker_comes_back_whole() -> None:
    error = WheeltapError("what", where="here", expected="this", got="that", do="so")
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) and (back.where, back.do) == ("here", "so")


# What was imported here can be imported there.

OWN = """
import torch
from torch import nn
import wheeltap as wt
from sizes import HIDDEN
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, HIDDEN), nn.Linear(HIDDEN, 3)
    def forward(self, x):
        return self.b(self.a(x).relu())
def made():
    torch.manual_seed(0)
    net, x = Mine().eval(), torch.randn(60, 6)
    with torch.no_grad():
        return net, wt.Task(x, net(x).argmax(-1))
"""


def ran(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """``python ARGS`` in a folder; ``-P`` leaves that folder out of where modules are looked for."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def audited(folder: Path, module: str, *, workers: int) -> list[object]:
    """What ``wheeltap audit`` finds in the model of a module that is written into the folder, with what it imports."""
    place = folder.joinpath(*module.split(".")).with_suffix(".py")
    place.parent.mkdir(exist_ok=True)
    place.write_text(OWN)
    (folder / "sizes.py").write_text("HIDDEN = 8\n")
    if module.startswith("packed"):
        (place.parent / "__init__.py").touch()
    told = ("--name", "mine", "--audits", "score,pruning", "--workers", str(workers), "--json", "report.json")
    done = ran(folder, "-P", "-m", "wheeltap", "audit", f"{module}:made", *told)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads((folder / "report.json").read_text())["findings"]
    # The keys of trials name the model's module.
    return [{part: value for part, value in one.items() if part != "trials"} for one in found]


@pytest.mark.release
def test_a_model_in_the_current_folder_is_audited_by_workers(tmp_path: Path) -> None:
    """In a package, as the command ``wheeltap`` does it."""
    assert audited(tmp_path, "packed.nets", workers=2) == audited(tmp_path, "packed.nets", workers=1)


ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "PYTHONWARNINGS": "error,ignore::DeprecationWarning",
}


def command(store: Path, out: Path) -> list[str]:
    told = ("--store", str(store), "--json", str(out), "--draws", "3")
    return [sys.executable, "-m", "wheeltap", "audit", "digits", *told]


def numbers_of(path: Path) -> dict[str, Any]:
    report = json.loads(path.read_text())
    return {key: value for key, value in report.items() if key != "cost"}


def rows(store: Path) -> dict[str, tuple[float, bytes]]:
    """What is committed, with the time each trial took: a trial that ran again would show another one."""
    try:
        outcomes = stored(store)
    except (MissingFile, StoreError):
        return {}  # killed before the file became a store
    return {key: (one.seconds, b"".join(v.tobytes() for v in one.values.values())) for key, one in outcomes.items()}


@pytest.mark.release
@pytest.mark.slow
def test_the_command_line_resumes_after_kill_9(tmp_path: Path) -> None:
    """Nothing that is committed is lost or runs again, and the report is that of a run that nobody killed."""
    store, done, chance = tmp_path / "s.wheeltap", rows(tmp_path / "s.wheeltap"), random.Random(0)
    for _ in range(10):
        enough = len(done) + chance.randrange(12)
        with subprocess.Popen(
            command(store, tmp_path / "r.json"), env=ENVIRONMENT, stdout=subprocess.DEVNULL
        ) as process:
            while len(rows(store)) < enough and process.poll() is None:
                time.sleep(0.02)
            time.sleep(0.1 * chance.random())
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and not (tmp_path / "r.json").exists()
        before, done = done, rows(store)
        assert len(done) >= enough and before.items() <= done.items()
    for place, where in (("r.json", store), ("whole.json", tmp_path / "whole.wheeltap")):
        code = subprocess.run(command(where, tmp_path / place), env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=False)
        assert code.returncode in (0, 1)
    assert done.items() <= rows(store).items()
    assert numbers_of(tmp_path / "r.json") == numbers_of(tmp_path / "whole.json")
    costs = [json.loads((tmp_path / name).read_text())["cost"] for name in ("r.json", "whole.json")]
    assert costs[0]["trials"] == costs[1]["trials"] - len(done)
