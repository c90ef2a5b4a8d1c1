"""Shapes written in annotations are checked while tests run, and nets that tests train are trained once.

``Float[Tensor, "example option"]`` is a promise.
"""

import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

SHAPED = (
    "wheeltap.core.choices",
    "wheeltap.core.layer",
    "wheeltap.core.measure",
    "wheeltap.core.task",
    "wheeltap.perturb.noise",
)

# How fast a machine is proves nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Before any test module imports the package.
_hook = install_import_hook(SHAPED, "beartype.beartype")

LONGEST = (
    "test_engine_uncommon", "test_ground_contracts", "test_screens", "test_engine_heads", "test_audits_contamination",
    "test_audits_relearning", "test_cli_study", "test_reuse", "test_circuits_of_edges", "test_doors_shards",
    "test_audits_passes", "test_cli_verbs", "test_doctor", "test_dictionaries_doors", "test_engine_pool",
    "test_report_explorer", "test_doors_generated", "test_perturb_contract", "test_audits_parts", "test_plugin_package",
    "test_audits_heads", "test_audits_decodable", "test_studies_run", "test_near_sets", "test_engine_contamination",
    "test_page",
)  # fmt: skip
"""Files that take longest, as measured. Each is one process's, so they come first: else one would idle in the end."""

UNTRACED = frozenset({
    "audits", "detection", "doors", "plugin_package", "testing", "together", "test_engine_pool",
    "test_cli_verbs", "test_perturb_contract", "test_ground_contracts", "test_three_sided",
    "test_engine_memory", "test_cli_planted", "test_engine_store_mishaps",
})  # fmt: skip
"""Folders and files of tests that run without a tracer, which costs a third: what they run is run by others too."""

NETS = "WHEELTAP_NETS"
"""As ``wheeltap.recipes.make.FOLDER``, which must not be imported yet."""

_OWN_NETS = pytest.StashKey[Path]()


SUITES = ("circuits", "claims", "decodable", "dictionaries", "lens", "pictures", "seal", "training")
collect_ignore = [] if all(find_spec(f"wheeltap.suites.{name}") for name in SUITES) else ["together"]
"""Tests of all suites at once need all of them; each other test of a suite lies in the folder of that suite."""


def pytest_configure(config: pytest.Config) -> None:
    """Gives all processes of this run one folder of nets, where none is set. Those of the zoo stay in the cache."""
    if not os.environ.get(NETS):
        # Before any worker starts: they find the variable set.
        config.stash[_OWN_NETS] = folder = Path(tempfile.mkdtemp(prefix="wheeltap-nets-"))
        zoo = Path(platformdirs.user_cache_dir("wheeltap")) / "zoo"
        with contextlib.suppress(OSError):  # where the cache cannot be written to, they are trained in this run too
            zoo.mkdir(parents=True, exist_ok=True)
            (folder / "zoo").symlink_to(zoo)
        os.environ[NETS] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the folder, if this process made it."""
    if (folder := config.stash.get(_OWN_NETS, None)) is not None:
        del os.environ[NETS]
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; some run without a tracer, so measured coverage is a lower bound, at less cost.

    Of a test that is run with several parameters the first run is traced.
    """
    begun = set[str]()
    for item in items:
        function = item.nodeid.partition("[")[0]
        if item.get_closest_marker("slow") or UNTRACED & {item.path.parent.name, item.path.stem} or function in begun:
            item.add_marker("no_cover")
        begun.add(function)
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: else the garbage collector looks through all of it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; the test skips where it, or playwright, is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip(f"needs a browser at {chromium}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    """A Hugging Face folder: the tiny Llama and a tokenizer that splits at spaces."""
    from tiny import save_tokenizer, tiny_llama

    folder = tmp_path / "tiny-llama"
    tiny_llama().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def digits_task() -> Any:
    """The demo's test split."""
    from wheeltap.sources import digits as source

    return source.task()


@pytest.fixture(scope="session")
def digits() -> Any:
    """The demo's original net."""
    from wheeltap.sources import digits as source

    return source.subject(name="digits")
