"""The pytest plugin, installed from the wheel in a project of its own: what passes, what fails, and how it says so."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.plugin_package import installing

HERE = Path(__file__).parent


@pytest.mark.release
def test_it_passes_and_fails_as_it_should(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installing.install(HERE.parents[1], site)
    project = shutil.copytree(HERE / "project", tmp_path / "project")
    done = installing.run(project, "-m", "pytest", "-q", "checks.py", "--junit-xml=all.xml", paths=(site,))
    assert "2 failed, 2 passed" in done.stdout and done.returncode == 1, done.stdout + done.stderr
    assert "int4-tensor: loses 0.750 [0.718, 0.778]" in done.stdout
    assert "| 4 bits, one grid per tensor | 25.0 |" in done.stdout.partition("wheeltap report (Markdown)")[2]
    assert "def assert_survives" not in done.stdout  # the failing line is the test's
    # The store is in pytest's cache: the next run reads it.
    assert (project / ".pytest_cache" / "d" / "wheeltap" / "tests.wheeltap").is_file()
    cases = ElementTree.parse(project / "all.xml").iter("testcase")
    assert [case.find("failure") is not None for case in cases] == [False, False, True, True]


def test_it_loads_nothing_heavy_and_keeps_the_store_where_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "test_light.py").write_text(
        "import sys\n\n\ndef test_light(wheeltap_store):\n"
        "    assert str(wheeltap_store).endswith('kept/tests.wheeltap') and wheeltap_store.is_absolute()\n"
        "    assert not {'torch', 'numpy', 'scipy', 'msgspec', 'hypothesis'} & sys.modules.keys()\n"
    )
    source = Path(installing.__file__).parents[2] / "src"
    alone = "import os, pytest; os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'; "
    told = ["-q", "-p", "no:cacheprovider", "-p", "wheeltap.testing.plugin", "--wheeltap-store", "kept"]
    done = installing.run(tmp_path, "-c", f"{alone}raise SystemExit(pytest.main({told}))", paths=(source,))
    assert done.returncode == 0, done.stdout + done.stderr
