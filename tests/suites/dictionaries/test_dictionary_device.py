"""Nets on another device than the CPU: nothing is made or indexed on the wrong one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration


@pytest.mark.release
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"), reason="torch has no such backends"
)
def test_a_net_on_another_device_is_trained_on_and_checked(tmp_path: Path) -> None:
    script = Path(__file__).with_name("another_device.py")
    paths = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": paths})  # fmt: skip
    assert done.returncode == 0 and "checked" in done.stdout, done.stderr[-3000:]
