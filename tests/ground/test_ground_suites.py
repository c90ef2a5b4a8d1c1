"""A suite is a plug-in: without its folder and its entry points, everything else is there and works."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import wheeltap

SCRIPT = """
import sys
from importlib import import_module
from pkgutil import walk_packages

import wheeltap
from wheeltap.audits.base import audits, studies
from wheeltap.cli import application, main
from wheeltap.engine.readings import readings
from wheeltap.recipes.base import recipes

assert wheeltap.__file__.startswith(sys.argv[1]), wheeltap.__file__
for module in walk_packages(wheeltap.__path__, "wheeltap."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
for registry in (audits, studies, readings, recipes):
    assert all(registry.get(name) for name in registry)
assert main(["list", "models"]) == 0 and main(["--help"]) == 0
assert main(["audit", "digits", "--for", "int8", "--quiet", "--store", "digits.wheeltap"]) == 0
"""


@pytest.mark.release
@pytest.mark.parametrize("suite", ["circuits", "seal"])
def test_everything_else_works_without_a_suite(suite: str, tmp_path: Path) -> None:
    copy = tmp_path / "wheeltap"
    shutil.copytree(Path(wheeltap.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(copy / "suites" / suite)
    about = tmp_path / "wheeltap-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wheeltap\nVersion: 0\n")
    points = (distribution("wheeltap").read_text("entry_points.txt") or "").splitlines()
    kept = [line for line in points if f"wheeltap.suites.{suite}" not in line]
    assert len(points) - len(kept) > 0
    (about / "entry_points.txt").write_text("\n".join(kept) + "\n")
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=tmp_path, check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    listed = re.search(rf"^[^\w\n]*{suite}\b", ran.stdout, re.MULTILINE)
    assert listed is None, "a verb or a kind of model of its own"
