"""Every built-in audit keeps the contract that those of other packages must keep."""

from typing import Any

import pytest

from wheeltap.audits.base import BUILTIN, audits
from wheeltap.testing.audit_contract import WORLDS
from wheeltap.testing.contract import AuditContract

SETTINGS: dict[str, dict[str, Any]] = {
    "relearning": {"group": 0},
    "improvement": {"draws": 3, "rungs": [-4, 0]},
}
"""Of audits that need others than their defaults here."""

GAIN_BY_COPIES = {
    "redundancy": "a difference of exactly 0 is excluded with copies: an unseen group is taken to lose less than a row",
    "entanglement": "as redundancy",
    "parts": "among random sets that tie, another is the best one: sums over more rows round differently",
}
"""Audits that conclude more from groups of copies than from one of each, and why; known, and to be mended."""

CHOSEN = (
    ("deployment", "a mixture"), ("relative-noise", "falls with the dose"), ("redundancy", "always wrong"),
    ("single-point", "disturbed trials diverge"), ("merging", "a mixture"), ("census", "everything fails"),
    ("fine-tuning", "disturbed trials are skipped"),
)  # fmt: skip
"""An audit of each kind, and how its trials end."""


def contract(name: str) -> AuditContract:
    held = {"audit": audits.get(name), "settings": SETTINGS.get(name, {})}
    return type(f"Contract of {name}", (AuditContract,), held)()


@pytest.mark.parametrize(("name", "world"), CHOSEN)
def test_it_asks_for_known_things_ends_and_always_judges(name: str, world: str) -> None:
    contract(name).test_it_asks_for_known_things_ends_and_always_judges(world, 2)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=GAIN_BY_COPIES[name], strict=True))
        if name in GAIN_BY_COPIES
        else name
        for name in BUILTIN
    ],
)
def test_groups_of_copies_say_no_more_than_one_of_each(name: str) -> None:
    contract(name).test_groups_of_copies_say_no_more_than_one_of_each()


@pytest.mark.release
@pytest.mark.parametrize("name", BUILTIN)
def test_all_that_the_contract_asks(name: str) -> None:
    made = contract(name)
    made.test_says_what_it_is()
    made.test_unknown_settings_are_refused()
    for world in WORLDS:
        for subjects in (1, 2):
            made.test_it_asks_for_known_things_ends_and_always_judges(world, subjects)
    made.test_it_is_deterministic("a mixture")
