"""What every store promises: what was put comes back, and nothing else, with strategies for its records."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from wheeltap.core.errors import StoreError
from wheeltap.core.records import Outcome, OutcomeStatus, Scalar, Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.plans.store import Store

_HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
_NAMES = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=12)
_PATHS = st.lists(st.text("abcxyz0123456789_", min_size=1, max_size=6), min_size=1, max_size=4).map(".".join)
_STATUSES: tuple[OutcomeStatus, ...] = ("done", "diverged", "failed", "skipped")


def sites() -> st.SearchStrategy[Site]:
    """The whole model, all of it but some layers, a block or a layer."""
    parts = st.builds(Site, st.sampled_from(["block", "layer"]), _PATHS)
    inner = st.lists(_PATHS, min_size=1, max_size=3).map(Site.without)
    return st.just(WHOLE) | inner | parts


def doses() -> st.SearchStrategy[float]:
    """Finite numbers from 0, as doses are; never the negative zero."""
    return st.floats(min_value=0.0, max_value=1e6, allow_nan=False, allow_infinity=False)


def perturbation_settings() -> st.SearchStrategy[dict[str, Scalar]]:
    """Named settings of a perturbation, in one order."""
    scalars = st.text(max_size=8) | st.integers(-(2**53), 2**53) | st.booleans() | doses()
    named: st.SearchStrategy[dict[str, Scalar]] = st.dictionaries(_NAMES, scalars, max_size=3)
    return named.map(lambda drawn: dict(sorted(drawn.items())))


def trials() -> st.SearchStrategy[Trial]:
    """Any trial."""
    return st.builds(
        Trial,
        subject=_HEX,
        task=_HEX,
        measures=st.lists(_NAMES, min_size=1, max_size=3, unique=True).map(tuple),
        perturbation=_NAMES,
        version=st.integers(0, 100),
        settings=perturbation_settings(),
        site=sites(),
        dose=doses(),
        seed=st.integers(0, 2**31),
        root=st.integers(0, 2**53),
        path=st.sampled_from(["plain", "plain/cpu/float32", "plain/cuda/bfloat16"]),
    )


def arrays() -> st.SearchStrategy[NDArray[Any]]:
    """Finite arrays of every type that a store keeps: small ones of all shapes, and long ones of few numbers."""
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    kinds: list[tuple[type[np.generic], st.SearchStrategy[Any]]] = [
        (np.float32, floats),
        (np.float32, st.sampled_from([0.0, 1.0])),
        (np.float32, st.sampled_from([-0.0, 0.0, 1.0])),
        (np.int32, st.integers(-(2**31), 2**31 - 1)),
        (np.int32, st.integers(0, 1)),
        (np.bool_, st.booleans()),
    ]
    shapes = st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5) | st.tuples(st.integers(60, 600))
    return st.one_of(*[st_numpy.arrays(dtype, shapes, elements=elements) for dtype, elements in kinds])


def outcomes() -> st.SearchStrategy[Outcome]:
    """Any outcome a store may be given: values only where it is done."""

    def made(status: OutcomeStatus) -> st.SearchStrategy[Outcome]:
        done = status == "done"
        return st.builds(
            Outcome,
            key=_HEX,
            status=st.just(status),
            values=st.dictionaries(st.text(max_size=8), arrays(), max_size=4) if done else st.just({}),
            seconds=doses(),
            forwards=doses(),
            because=st.just("") if done else st.text(st.characters(codec="utf-8"), max_size=20),
        )

    return st.sampled_from(_STATUSES + 3 * _STATUSES[:1]).flatmap(made)  # most are done


def _equal(one: Outcome, two: Outcome | None) -> bool:
    """Equal to the bit, values included."""
    if two is None or list(one.values) != list(two.values):
        return False
    arrays = zip(one.values.values(), two.values.values(), strict=True)
    rest = ("key", "status", "seconds", "forwards", "because")
    return all(getattr(one, name) == getattr(two, name) for name in rest) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays
    )


class StoreContract:
    """Subclass it as ``Test...`` and define ``opened``."""

    def opened(self, path: Path) -> Store:
        """The store at ``path``, made where it is missing.

        Raises:
            NotImplementedError: Until it is defined.
        """
        raise NotImplementedError

    @given(outcome=outcomes())
    @settings(max_examples=75, deadline=None)
    def test_what_is_put_comes_back(self, tmp_path_factory: pytest.TempPathFactory, outcome: Outcome) -> None:
        """Every field, and every value in its type to the bit, in the same process and after opening again.

        Arrays are their reader's own, who may write into them.
        """
        path = tmp_path_factory.mktemp("store") / "kept"
        expected = replace(outcome, values=dict(sorted(outcome.values.items())))
        with self.opened(path) as store:
            assert store.get(outcome.key) is None, "an unknown key gave an outcome"
            store.put(outcome)
            found = store.get(outcome.key)
            assert _equal(expected, found), "another outcome came back"
            assert found is not None and all(array.flags.writeable for array in found.values.values())
        with self.opened(path) as store:
            assert _equal(expected, store.get(outcome.key)), "another outcome came back after opening again"

    @pytest.mark.parametrize(
        ("wide", "kept"),
        [(np.float64, np.float32), (np.float16, np.float32), (np.int64, np.int32), (np.uint8, np.int32)],
    )
    def test_numbers_of_other_widths_are_kept_as_the_nearest_type(
        self, tmp_path: Path, wide: type[np.generic], kept: type[np.generic]
    ) -> None:
        """Floats as float32, rounded; whole numbers as int32. Also where they do not lie row after row."""
        array = (np.arange(12).reshape(3, 4) * 10).astype(wide).T
        with self.opened(tmp_path / "kept") as store:
            store.put(Outcome(key="3" * 32, status="done", values={"m": array}))
            found = store.get("3" * 32)
        assert found is not None and found.values["m"].dtype == kept, "another type came back"
        assert np.array_equal(found.values["m"], array.astype(kept)), "other numbers came back"

    @pytest.mark.parametrize(
        "array",
        [
            np.array([2**31]), np.array([-(2**31) - 1]), np.array([2**63], dtype=np.uint64), np.array(["1.0"]),
            np.array([1j]), np.array([None]),
        ],
    )  # fmt: skip
    def test_what_fits_no_type_is_refused(self, tmp_path: Path, array: NDArray[Any]) -> None:
        """Whole numbers beyond int32, and what are no numbers: ``StoreError``, and nothing is kept."""
        with self.opened(tmp_path / "kept") as store:
            with pytest.raises(StoreError):
                store.put(Outcome(key="4" * 32, status="done", values={"m": array}))
            assert store.get("4" * 32) is None, "what fits no type was kept"

    def test_the_first_outcome_of_a_key_stays_but_for_a_failed_one(self, tmp_path: Path) -> None:
        """What failed can be tried again; the other outcomes stay."""
        failed, done = (Outcome(key="0" * 32, status=status, forwards=2.0) for status in ("failed", "done"))
        other = Outcome(key="1" * 32, status="done", values={"m": np.arange(3, dtype=np.float32)}, seconds=1.0)
        with self.opened(tmp_path / "kept") as store:
            for outcome in (failed, other, done, done, Outcome(key=done.key, status="failed", because="later")):
                store.put(outcome)
                kept = failed if outcome is failed or outcome is other else done
                assert _equal(kept, store.get(kept.key)), "what had failed was not replaced, or what was done was"
            assert _equal(other, store.get(other.key)), "another outcome changed"

    def test_every_plan_is_kept_and_the_latest_is_given(self, tmp_path: Path) -> None:
        """Each once, in the order in which they were last put; nothing where none was put."""
        path, plans = tmp_path / "kept", {"b": b'{"b": 2}', "c": b'{"c": 3}', "a": b'{"a": 1}'}
        with self.opened(path) as store:
            assert store.plan() is None and store.plans() == {}, "plans where none was put"
        for key in ("a", "b", "c", "a"):
            with self.opened(path) as store:
                store.put_plan(key, plans[key])
                assert store.plan() == plans[key], "not the plan that was put last"
        with self.opened(path) as store:
            assert store.plan() == plans["a"], "not the plan that was put last"
            assert list(store.plans().items()) == list(plans.items()), "other plans, or another order"

    def test_a_note_replaces_the_last_one_of_its_name(self, tmp_path: Path) -> None:
        """And leaves those of other names alone; none is there where none was put."""
        with self.opened(tmp_path / "kept") as store:
            assert store.note("one") is None, "a note where none was put"
            for name, value in (("one", b"1"), ("two", b"2"), ("one", "drei \u00e4".encode())):
                store.put_note(name, value)
            assert store.note("one") == "drei \u00e4".encode(), "not the note that was put last"
            assert store.note("two") == b"2", "a note of another name changed"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
    def test_only_finite_numbers_are_kept(self, tmp_path: Path, value: float) -> None:
        """NaN is a status, never a stored number: ``StoreError``, and nothing is kept. Too large for float32 also."""
        outcome = Outcome(key="1" * 32, status="done", values={"m": np.array([0.0, value])})
        with self.opened(tmp_path / "kept") as store:
            with pytest.raises(StoreError):
                store.put(outcome)
            assert store.get(outcome.key) is None, "an outcome that is not finite was kept"
