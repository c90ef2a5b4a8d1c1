"""Shapes written in annotations are checked while tests run: ``Float[Tensor, "example option"]`` is a promise."""

import pytest
from jaxtyping import install_import_hook

SHAPED = (
    "wheeltap.core.choices",
    "wheeltap.core.layer",
    "wheeltap.core.measure",
    "wheeltap.core.task",
    "wheeltap.perturb.function_noise",
)

# Before any test module imports the package.
_hook = install_import_hook(SHAPED, "beartype.beartype")

LONGEST = (
    "test_sources_audits", "test_audits_twins", "test_cli_verbs", "test_fer_study", "test_engine_kill",
    "test_engine_pool", "test_audits_passes", "test_audits_heads", "test_page", "test_perturb_contract",
    "test_ground_contracts", "test_audits_relearning", "test_audits_race", "test_responses",
)  # fmt: skip
"""Files that take longest, as measured. Each is one process's, so they come first: else one would idle in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))
