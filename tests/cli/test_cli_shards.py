"""``wheeltap run --shard`` and ``wheeltap merge`` as docs/cluster.md shows them."""

import os
import re
import shlex
from pathlib import Path

import pytest
from test_cli_study import TOML as STUDY

from wheeltap.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
JOB, DRIVER = (re.search(rf"```bash\n({first}.*?)```", PAGE, re.DOTALL) for first in ("#!/bin/bash", "for round"))
OF = 8


def found(match: re.Match[str] | None) -> str:
    assert match is not None
    return match[1]


def words(line: str) -> list[str]:
    """What a shell would call, after the name of the program."""
    name, *rest = shlex.split(os.path.expandvars(line))
    assert name == "wheeltap"
    return rest


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, and the report that one process makes of it."""
    folder = tmp_path_factory.mktemp("plan")
    plan, store = folder / "audit.plan.json", folder / "serial.wheeltap"
    assert main(["plan", "digits", "--audits", "score", "-o", str(plan)]) == 0
    assert main(["run", str(plan), "--store", str(store), "--quiet"]) == 0
    assert main(["report", str(store), "--json", str(folder / "serial.json")]) == 0
    return folder


@pytest.fixture
def here(planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with that plan, as the current one."""
    (tmp_path / "audit.plan.json").write_bytes((planned / "audit.plan.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_slurm_array_runs_what_the_page_shows(planned: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = (line for line in found(JOB).splitlines() if line.startswith("wheeltap"))
    (merging,) = (line.strip() for line in found(DRIVER).splitlines() if line.strip().startswith("wheeltap merge"))
    assert re.findall(r"--array=0-(\d+)\n", found(JOB)) == [str(OF - 1)]
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", str(OF))
    code, rounds = 1, 0
    while code == 1 and rounds < 5:
        for index in range(OF):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
            assert main(words(line)) == 0
        stores = sorted(path.name for path in here.glob("part-*.wheeltap"))
        code, rounds = main(words(merging.replace("part-*.wheeltap", shlex.join(stores)))), rounds + 1
    assert code == 0 and rounds > 1
    assert main(["report", "all.wheeltap", "--json", "all.json"]) == 0
    assert (here / "all.json").read_bytes() == (planned / "serial.json").read_bytes()


TOML = (
    STUDY.replace('"12", epochs = 5', '"4", epochs = 2')
    .replace('"12", epochs = 0', '"4", epochs = 0')
    .replace("seeds = 10", "seeds = 3")
)


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.release)])
def test_nets_of_a_study_are_found_in_a_folder_or_made_again(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(TOML)
    assert main(["plan", "study", "mine.toml", "-o", "mine.plan.json"]) == 0
    capsys.readouterr()
    code, said = 1, list[str]()
    while code == 1 and len(said) < 5:
        for index in (0, 1):
            more = ["--store", f"part-{index}.wheeltap", "--base", "all.wheeltap", *(["--made", "made"] * shared)]
            assert main(["run", "mine.plan.json", "--shard", f"{index}/2", *more]) == 0
        code = main(["merge", "part-0.wheeltap", "part-1.wheeltap", "-o", "all.wheeltap"])
        said.append(capsys.readouterr().out)
    assert code == 0 and len(said) > 1 and "twice" not in "".join(said)
    folders = {path.name: len(list(path.glob("*.safetensors"))) for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"made": 6} if shared else (len(folders) == 2 and sum(folders.values()) > 6)
    assert main(["run", "mine.plan.json", "--store", "serial.wheeltap"]) == 0
    for store in ("serial", "all"):
        assert main(["report", f"{store}.wheeltap", "--json", f"{store}.json"]) == 0
    assert Path("all.json").read_bytes() == Path("serial.json").read_bytes()
