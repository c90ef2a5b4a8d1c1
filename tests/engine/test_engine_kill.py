"""kill -9 at a random moment, twenty times; and with the real command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wheeltap.core.errors import StoreError
from wheeltap.plans.store import Store

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "PYTHONWARNINGS": "error,ignore::DeprecationWarning",
}


@pytest.mark.full
def test_killed_twenty_times_the_report_is_the_uninterrupted_one_and_nothing_runs_twice(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("kill_driver.py")
    ran = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), "7"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["kills"] == 20 and all(seen["equal"]), seen
    assert seen["lost"] == 0, "an outcome once committed is never lost or written again"
    # A process makes one pass to see that the model is the stored one, and one for each outcome it commits; a kill cuts
    # off one more at most. Had any committed trial run again, there would be more.
    # The census of weights is an outcome without a pass, of the process that commits it.
    assert set(seen["excess"]) <= {-1, 0, 1, 2}, seen["excess"]
    assert set(seen["whole"]) <= {0, 1} and len(seen["whole"]) == seen["stores"] + 1, seen["whole"]
    assert seen["trials"] > 200


def command(store: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "wheeltap",
        "audit",
        "digits",
        "--store",
        str(store),
        "--json",
        str(out),
        "--draws",
        "3",
    ]


def numbers_of(path: Path) -> dict[str, Any]:
    report = json.loads(path.read_text())
    return {key: value for key, value in report.items() if key != "cost"}


@pytest.mark.slow
def test_the_command_line_resumes_after_kill_9(tmp_path: Path) -> None:
    store, done = tmp_path / "s.wheeltap", 0
    with subprocess.Popen(command(store, tmp_path / "r.json"), env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        while done < 20 and process.poll() is None:
            time.sleep(0.02)
            try:
                if store.exists():
                    with Store(store, readonly=True) as kept:
                        done = len(kept.keys())
            except StoreError:
                continue  # not a store yet
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "r.json").exists()
    with Store(store, readonly=True) as kept:
        done = len(kept.keys())
    assert done >= 20
    for place, where in (("r.json", store), ("whole.json", tmp_path / "whole.wheeltap")):
        code = subprocess.run(command(where, tmp_path / place), env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=False)
        assert code.returncode in (0, 1)
    assert numbers_of(tmp_path / "r.json") == numbers_of(tmp_path / "whole.json")
    costs = [json.loads((tmp_path / name).read_text())["cost"] for name in ("r.json", "whole.json")]
    assert costs[0]["trials"] == costs[1]["trials"] - done
