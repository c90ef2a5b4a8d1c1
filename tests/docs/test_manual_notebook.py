"""The notebook of the manual runs, and its cells give what it shows (renew: run this file)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def executed(folder: Path) -> str:
    """The notebook as a new kernel leaves it, as text."""
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", "--log-level=ERROR",
               "--ExecutePreprocessor.record_timing=False", str(NOTEBOOK)]  # fmt: skip
    own = {name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **own})
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(text: str) -> list[list[str]]:
    """What each cell shows, but for the line of progress: kinds of values, and the first words of printed lines."""
    cells: list[list[str]] = []
    for cell in json.loads(text)["cells"]:
        outputs: list[dict[str, Any]] = cell.get("outputs", [])
        printed = "".join(part for one in outputs for part in one.get("text", ()) if "\r" not in part)
        kinds = [f"{one['output_type']}: {', '.join(one['data'])}" for one in outputs if "data" in one]
        cells.append([*kinds, *(line.split()[0] for line in printed.split("\n") if line.strip())])
    return cells


@pytest.mark.release
def test_every_cell_gives_what_is_shown(tmp_path: Path) -> None:
    for name in ("nbconvert", "ipykernel"):
        pytest.importorskip(name, reason=f"needs {name}, to execute the notebook")
    again, kept = executed(tmp_path), NOTEBOOK.read_text()
    assert shown(again) == shown(kept)
    pages = [kinds for kinds in shown(again) if kinds == ["execute_result: text/html, text/plain"]]
    assert len(pages) == 2 and len(kept) < 500_000
    reports = [one["data"] for cell in json.loads(again)["cells"] for one in cell.get("outputs", ()) if "data" in one]
    assert all("".join(one["text/plain"]).strip() and "<iframe" in "".join(one["text/html"]) for one in reports)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        NOTEBOOK.write_text(executed(Path(made)))
