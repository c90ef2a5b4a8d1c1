"""Packages as pip installs them, and processes that see these."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(folder: Path, *command: str, paths: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    """A command of Python in a process of its own, in a folder, with these paths alone."""
    inherited = {name: one for name, one in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**inherited, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1",
             "PYTEST_ADDOPTS": ""},
        timeout=300,
    )  # fmt: skip


def install(source: Path, site: Path) -> None:
    """Has pip build the package at ``source`` and install it into a folder; skips where it cannot."""
    # With hatchling at hand nothing is fetched; without it pip makes a build environment of its own.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    flags = ["--no-deps", "--no-compile", "--disable-pip-version-check", "--no-input", "--quiet", *isolation]
    command = [sys.executable, "-m", "pip", "install", *flags, "--target", str(site), str(source)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if made.returncode and not isolation:
        pytest.skip(f"pip cannot build here, perhaps for want of a network: {made.stderr.strip()[-300:]}")
    assert made.returncode == 0, made.stderr
