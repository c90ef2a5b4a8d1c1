"""Every built-in audit keeps the contract that those of other packages must keep."""

from typing import Any

from wheeltap.audits.base import BUILTIN, audits
from wheeltap.testing.contract import AuditContract

SETTINGS: dict[str, dict[str, Any]] = {
    "relearning": {"group": 0},
    "improvement": {"draws": 3, "rungs": [-4, 0]},
}
"""Of audits that need others than their defaults here."""


for _name in BUILTIN:
    _held = {"audit": audits.get(_name), "settings": SETTINGS.get(_name, {})}
    globals()[f"Test {_name}"] = type(f"Test{_name}", (AuditContract,), _held)


def test_every_builtin_audit_is_held_to_it() -> None:
    tested = {kind.audit.name for name, kind in globals().items() if name.startswith("Test ")}
    assert tested == set(BUILTIN)
