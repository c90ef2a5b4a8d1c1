"""What every store promises: what was put comes back, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import pytest
from hypothesis import given, settings

from wheeltap.core.errors import StoreError
from wheeltap.core.records import Outcome
from wheeltap.testing.strategies import outcomes


class StoreLike(Protocol):
    """The part of a store that runs and judgements use."""

    def put(self, outcome: Outcome) -> None:
        """Keeps an outcome; one that is there already is left as it is, unless it had failed."""

    def get(self, key: str) -> Outcome | None:
        """The outcome with this key, if any."""

    def put_plan(self, key: str, plan: bytes) -> None:
        """Keeps a plan as the latest."""

    def plan(self) -> bytes | None:
        """The latest plan, if any."""

    def put_note(self, name: str, value: bytes) -> None:
        """Keeps a named note, replacing the last one of that name."""

    def note(self, name: str) -> bytes | None:
        """The note of this name, if any."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None: ...


def _equal(one: Outcome, two: Outcome | None) -> bool:
    """Equal to the bit, values included."""
    if two is None or list(one.values) != list(two.values):
        return False
    arrays = zip(one.values.values(), two.values.values(), strict=True)
    rest = ("key", "status", "seconds", "forwards", "because")
    return all(getattr(one, name) == getattr(two, name) for name in rest) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays
    )


def _sorted(outcome: Outcome) -> Outcome:
    return replace(outcome, values=dict(sorted(outcome.values.items())))


class StoreContract:
    """Subclass it as ``Test...`` and define ``opened``."""

    def opened(self, path: Path) -> StoreLike:
        """The store at ``path``, made where it is missing.

        Raises:
            NotImplementedError: Until it is defined.
        """
        raise NotImplementedError

    @given(outcome=outcomes())
    @settings(max_examples=25, deadline=None)
    def test_what_is_put_comes_back(self, tmp_path_factory: pytest.TempPathFactory, outcome: Outcome) -> None:
        """Every field and every value to the bit, in the same process and after opening again."""
        path = tmp_path_factory.mktemp("store") / "kept"
        with self.opened(path) as store:
            assert store.get(outcome.key) is None, "an unknown key gave an outcome"
            store.put(outcome)
            assert _equal(_sorted(outcome), store.get(outcome.key)), "another outcome came back"
        with self.opened(path) as store:
            assert _equal(_sorted(outcome), store.get(outcome.key)), "another outcome came back after opening again"

    def test_put_is_idempotent(self, tmp_path: Path) -> None:
        """A key that is there keeps its first outcome."""
        first = Outcome(key="0" * 32, status="done", values={"m": np.arange(3, dtype=np.float32)}, seconds=1.0)
        with self.opened(tmp_path / "kept") as store:
            for outcome in (first, first, Outcome(key=first.key, status="failed", because="later")):
                store.put(outcome)
                assert _equal(first, store.get(first.key)), "the first outcome was not kept"

    def test_what_failed_is_replaced(self, tmp_path: Path) -> None:
        """So that it can be tried again; the other outcomes stay."""
        failed, done = (Outcome(key="0" * 32, status=status, forwards=2.0) for status in ("failed", "done"))
        other = Outcome(key="1" * 32, status="done", forwards=1.0)
        with self.opened(tmp_path / "kept") as store:
            for outcome in (failed, other, done):
                store.put(outcome)
            assert _equal(done, store.get(done.key)), "what had failed was not replaced"
            assert _equal(other, store.get(other.key)), "another outcome changed"

    def test_unknown_keys_give_nothing(self, tmp_path: Path) -> None:
        """No outcome, plan or note where none was put."""
        with self.opened(tmp_path / "kept") as store:
            assert store.get("f" * 32) is None
            assert store.plan() is None
            assert store.note("provenance") is None

    def test_the_latest_plan_is_given(self, tmp_path: Path) -> None:
        """Also one that was put before."""
        path = tmp_path / "kept"
        for key, plan in (("a", b'{"a": 1}'), ("b", b'{"b": 2}'), ("a", b'{"a": 1}')):
            with self.opened(path) as store:
                store.put_plan(key, plan)
                assert store.plan() == plan, "not the plan that was put last"
        with self.opened(path) as store:
            assert store.plan() == b'{"a": 1}', "not the plan that was put last"

    def test_a_note_replaces_the_last_one_of_its_name(self, tmp_path: Path) -> None:
        """And leaves those of other names alone."""
        with self.opened(tmp_path / "kept") as store:
            for name, value in (("one", b"1"), ("two", b"2"), ("one", "drei \u00e4".encode())):
                store.put_note(name, value)
            assert store.note("one") == "drei \u00e4".encode(), "not the note that was put last"
            assert store.note("two") == b"2", "a note of another name changed"

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_only_finite_numbers_are_kept(self, tmp_path: Path, value: float) -> None:
        """NaN is a status, never a stored number: ``StoreError``, and nothing is kept."""
        outcome = Outcome(key="1" * 32, status="done", values={"m": np.array([0.0, value], dtype=np.float32)})
        with self.opened(tmp_path / "kept") as store:
            with pytest.raises(StoreError):
                store.put(outcome)
            assert store.get(outcome.key) is None, "an outcome that is not finite was kept"
