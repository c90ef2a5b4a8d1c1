"""Every example runs, its assertions hold, and the manual shows what it prints (renew: run this file)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
MARK = "=== "
# One process for all: an import of torch costs more than some of them.
RUN = f"""import runpy, sys
for path in sys.argv[1:]:
    print({MARK!r} + path)
    runpy.run_path(path, run_name="__main__")"""


def printed() -> dict[Path, str]:
    """What each script prints."""
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = (part.split("\n", 1) for part in done.stdout.split(MARK)[1:])
    return {Path(path): said for path, said in parts}


def answers(text: str) -> list[str]:
    """Of each line what stands before the details, whose last digits are of the machine."""
    return [re.sub(r"\d+", "N", line.partition(":")[0]) for line in text.splitlines()]


@pytest.mark.release
def test_examples_run_and_print_what_the_manual_shows() -> None:
    assert len(SCRIPTS) == 6
    for path, said in printed().items():
        assert answers(said) == answers(path.with_suffix(".txt").read_text()), path.name


def test_examples_are_short_and_shown() -> None:
    page = (EXAMPLES.parent / "docs" / "api.md").read_text()
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= 40, path.name
        assert f"../examples/{path.name}" in page and f"../examples/{path.stem}.txt" in page, path.name


if __name__ == "__main__":
    for script, text in printed().items():
        script.with_suffix(".txt").write_text(text)
