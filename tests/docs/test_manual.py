"""The manual is built without a warning, leaves out no page, and its own examples run."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import wheeltap
from wheeltap.audits.base import audits
from wheeltap.cli import application, main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("furo", reason="needs the extra docs")
    pages = tmp_path_factory.mktemp("cache") / "wheeltap" / f"manual-{wheeltap.__version__}"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(pages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pages


@pytest.mark.release
def test_every_page_is_one_click_away(built: Path) -> None:
    first = (built / "README.html").read_text()
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")} - {"README"}
    assert {name for name in pages if f'href="{name}.html"' not in first} == set()


@pytest.mark.release
def test_api_speaks_of_what_users_call(built: Path) -> None:
    page = (built / "api.html").read_text()
    for name in ("audit", "compare", "study", "plan", "run", "judge", "load", "Task", "Subject", "Report"):
        assert f'id="wheeltap.{name}"' in page, name


def opened(cache: Path, tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """What ``wheeltap docs`` says, with pages in this cache, and the address that the browser gets."""
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >"{seen}"\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "wheeltap", "docs"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "BROWSER": str(browser)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done, seen.read_text() if seen.exists() else ""


@pytest.mark.release
def test_the_manual_opens_offline(built: Path, tmp_path: Path) -> None:
    done, address = opened(built.parents[1], tmp_path)
    page = Path(done.stdout.removeprefix("The manual: ").strip())
    assert done.returncode == 0 and page.is_file() and address == page.as_uri(), done.stderr
    fetched = re.compile(r'<(?:script|img|iframe|link)[^>]* (?:src|href)="(?:https?:)?//')
    assert [path.name for path in built.glob("*.html") if fetched.search(path.read_text())] == []


def test_what_is_not_built_is_not_opened(tmp_path: Path) -> None:
    done, address = opened(tmp_path, tmp_path)
    assert done.returncode == 2 and address == "" and "wheeltap docs --build" in done.stderr


def blocks(page: str, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def test_every_code_has_its_section() -> None:
    _, *sections = re.split(r"^### ", (DOCS / "codes.md").read_text(), flags=re.MULTILINE)
    told = {code: text for text in sections for code in re.findall(r"WT\d{3}", text.splitlines()[0])}
    known = {audits.get(name).code for name in audits}
    for source in (ROOT / "src").rglob("*.py"):  # rules of studies, slices
        known |= set(re.findall(r'"(WT\d{3})"', source.read_text()))
    known -= set(audits.removed)  # refused by name, so they stand in the source
    assert len(known) > 30 and known - set(told) == set()
    for code, text in told.items():
        missing = [
            part for part in ("Measured", "Fooled by", "Figures", "Do") if f"**{part}**" not in " ".join(text.split())
        ]
        assert not missing, (code, missing)


def commands() -> Iterator[tuple[str, str]]:
    """Every command that a page shows, whole: in a block, or within a line with what it takes."""
    for page in (*sorted(DOCS.rglob("*.md")), ROOT / "README.md"):
        text = page.read_text()
        for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            lines = block.replace("\\\n", " ").splitlines()
            yield from ((page.name, line) for line in lines if line.startswith("wheeltap "))
        yield from ((page.name, line) for line in re.findall(r"`(wheeltap [^`]+)`", text) if VERB.search(line) is None)


VERB = re.compile(r"^wheeltap \w+( (train|find|check|show|ci))?$|\.\.\.")
"""A verb that is spoken of, without what it takes."""


def test_commands_are_read_as_they_are_shown(tmp_path: Path) -> None:
    (tmp_path / "relearn.toml").write_text('audits = "score,relearning"')
    app, unread = application(overview=False), dict[str, str]()
    with contextlib.chdir(tmp_path):
        for page, line in commands():
            try:
                app.parse_args(
                    shlex.split(line.split(" |")[0], comments=True)[1:], exit_on_error=False, print_error=False
                )
            except Exception as error:  # of any kind: all are told at once
                unread[f"{page}: {line}"] = str(error)
    assert not unread


def test_audits_that_pages_name_exist() -> None:
    groups = {"survival", "noise", "circuit", "dictionary", "structure"}
    named = {(page, name) for page, line in commands() for names in re.findall(r"--audits (\S+)", line)
             for name in names.split(",") if not name.startswith("WT")}  # fmt: skip
    assert len(named) > 20
    assert {(page, name) for page, name in named if name not in audits and name not in groups} == set()


@pytest.mark.release
def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_nets.py").write_text(
        "".join(blocks("start.md", "python")) + "\n\ndef again() -> nn.Module:\n    return small(1)\n"
    )
    inputs, targets = import_module("my_nets").data()
    np.savez("test.npz", inputs=inputs, targets=targets)
    shown = [line for page in ("start.md", "deployment.md") for block in blocks(page, "sh")
             for line in block.splitlines() if "my_nets:" in line]  # fmt: skip
    assert len(shown) == 4
    for line in shown:
        assert main(shlex.split(line, comments=True)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
    assert (tmp_path / "ring.html").stat().st_size > 10_000
