"""The real command line, killed at random moments and run again; judging where torch cannot be imported."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wheeltap.core.errors import MissingFile, StoreError
from wheeltap.plans.store import Store

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
        with Store(store, readonly=True) as kept:
            found = [kept.get(key) for key in kept.keys()]  # noqa: SIM118 - a Store is no mapping
    except (MissingFile, StoreError):
        return {}  # killed before the file became a store
    return {o.key: (o.seconds, b"".join(v.tobytes() for v in o.values.values())) for o in found if o is not None}


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.full)])
def test_the_command_line_resumes_after_kill_9(kills: int, tmp_path: Path) -> None:
    """Nothing that is committed is lost or runs again, and the report is that of a run that nobody killed."""
    store, done, chance = tmp_path / "s.wheeltap", rows(tmp_path / "s.wheeltap"), random.Random(kills)
    for _ in range(kills):
        enough = len(done) + (20 if kills == 1 else chance.randrange(9))
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
