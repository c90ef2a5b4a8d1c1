"""The manual is built without a warning, leaves out no page, and its own examples run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("furo", reason="needs the extra docs")
    pages = tmp_path_factory.mktemp("manual")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(pages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pages


def test_every_page_is_one_click_away(built: Path) -> None:
    first = (built / "README.html").read_text()
    pages = {path.stem for path in DOCS.glob("*.md")} - {"README"}
    assert {name for name in pages if f'href="{name}.html"' not in first} == set()


def test_messages_say_what_to_do(built: Path) -> None:
    page = (built / "troubleshooting.html").read_text()
    assert "There are too many slices." in page and "Give a factor with fewer values" in page
    assert page.count("<strong>") > 400


def test_api_speaks_of_what_users_call(built: Path) -> None:
    page = (built / "api.html").read_text()
    for name in ("audit", "compare", "study", "plan", "run", "judge", "load", "Task", "Subject", "Report"):
        assert f'id="wheeltap.{name}"' in page, name


def blocks(page: str, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_examples_run(tmp_path: Path) -> None:
    (tmp_path / "my_nets.py").write_text(
        "".join(blocks("start.md", "python")) + "\n\ndef again() -> nn.Module:\n    return small(1)\n"
    )
    write = "import numpy, my_nets; x, y = my_nets.data(); numpy.savez('test.npz', inputs=x, targets=y)"
    subprocess.run([sys.executable, "-c", write], cwd=tmp_path, check=True)
    shown = [line for page in ("start.md", "ship-at-4-bits.md", "two-checkpoints.md") for block in blocks(page, "sh")
             for line in block.splitlines() if "my_nets:" in line]  # fmt: skip
    assert len(shown) == 4
    for line in shown:
        command = [sys.executable, "-m", *shlex.split(line, comments=True)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Holds for these examples only" in done.stdout
    assert (tmp_path / "ring.html").stat().st_size > 10_000
