"""Outcomes of a store, each read once."""

from typing import final

from wheeltap.core.records import Outcome
from wheeltap.plans.store import Store


@final
class Outcomes:
    """From a trial's key to its outcome, as audits ask for it again and again: read from the store the first time.

    Args:
        store: Where they are kept.
        retry: Whether what failed in an earlier run counts as missing, so that it is tried again.
    """

    def __init__(self, store: Store, *, retry: bool = False) -> None:
        self._store, self._retry = store, retry
        self._known: dict[str, Outcome] = {}

    def __call__(self, key: str) -> Outcome | None:
        """The outcome, if it is there."""
        if key not in self._known:
            found = self._store.get(key)
            if found is None or (self._retry and found.status == "failed"):
                return None
            self._known[key] = found
        return self._known[key]

    def put(self, outcome: Outcome) -> None:
        """Commits an outcome to the store; from now on it is known, also if it failed."""
        self._store.put(outcome)
        self._known[outcome.key] = outcome
