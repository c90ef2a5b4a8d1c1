"""A perturbation and an audit from another package, really installed: found, run, and held to the contracts."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import wheeltap
from tests.plugin_package import installing
from wheeltap.cli import main

HERE = Path(__file__).parent
SOURCE = Path(wheeltap.__file__).parents[1]


def run(site: Path, *command: str, also: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that sees the installed package and this wheeltap."""
    return installing.run(site, *command, paths=(site, *([] if also is None else [also]), SOURCE))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the example package."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(HERE / "example", folder / "source")
    target = folder / "site"
    installing.install(folder / "source", target)
    return target


def test_an_audit_runs_with_it(site: Path) -> None:
    done = run(site, "-W", "error", str(HERE / "run_salt.py"), str(site), str(site.parent / "run.wheeltap"))
    assert done.returncode == 0, done.stderr


VERBS = """
import sys
from wheeltap.cli import main
assert main(["--help"]) == 0
assert "torch" not in sys.modules
assert main(["salt", "digits"]) == 0
assert main(["study", "labels", "--help"]) == 0
assert main(["broken"]) == 2
assert main(["audit", "digits", "--audits", "score", "--out", "out", "--store", "s.wheeltap"]) == 0
for kind in ("perturbations", "audits", "readings", "models", "data", "studies"):
    print("====")
    assert main(["list", kind]) == 0
print("====")
from wheeltap.sources import load
found = load("seeded-digits:7", data="inverted-digits")
print(found.subject.name, found.task.name, len(found.task.targets))
"""


@pytest.mark.release
def test_the_command_line_has_what_it_brings_and_a_broken_one_hides_no_other(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken-0.1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    points = {"wheeltap.verbs": "broken", "wheeltap.files": "broken.txt"}
    (broken / "entry_points.txt").write_text("".join(f"[{g}]\n{n} = wheeltap_gone:verb\n" for g, n in points.items()))
    done = run(tmp_path, "-c", VERBS, also=site)
    assert done.returncode == 0, done.stderr
    said, perturbations, audits, readings, models, data, studies, loaded = done.stdout.split("====")
    assert "ModuleNotFoundError: No module named 'wheeltap_gone'" in " ".join(said.replace("│", " ").split())
    assert "wheeltap_gone:verb" in done.stderr
    assert re.search(r"digits: \d+ weights", said) and "--seeds" in said
    assert (tmp_path / "out" / "taste.txt").read_text() == "2 findings\n"
    assert "broken.txt was not written" in done.stderr and (tmp_path / "out" / "report.html").is_file()
    assert "salt" in perturbations and "salt" in audits and "WTX02" in audits and "confidence" in readings
    assert "labels" in studies
    assert "seeded-digits:SEED" in models and "inverted-digits" in data
    assert loaded.split() == ["seeded-digits:7", "inverted-digits", "599"]
    # Where it is not installed it is not listed.
    assert main(["list", "perturbations"]) == 0 and "salt" not in capsys.readouterr().out


@pytest.mark.release
def test_its_own_contract_tests_pass(site: Path) -> None:
    checks = shutil.copy(HERE / "example" / "check_salt.py", site.parent / "check_salt.py")
    (site.parent / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    told = ("-p", "no:cacheprovider", "-q", "-c", str(site.parent / "pytest.ini"))
    done = run(site, "-m", "pytest", *told, str(checks))
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("part", ["confidence", "recipe", "source", "study"])
def test_the_example_of_contributing_is_this_package(part: str) -> None:
    source = (HERE / "example" / "wheeltap_salt" / f"{part}.py").read_text()
    assert len(source.splitlines()) <= 60
    assert source in (HERE.parents[1] / "CONTRIBUTING.md").read_text()
