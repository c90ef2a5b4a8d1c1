"""What every store promises: what was put comes back, and nothing else, with strategies for its records."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from wheeltap.core.errors import StoreError
from wheeltap.core.records import Outcome, OutcomeStatus, Scalar, Trial
from wheeltap.core.site import WHOLE, Site

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


def trials(**fixed: Any) -> st.SearchStrategy[Trial]:
    """Any trial.

    Args:
        **fixed: Fields of ``Trial`` that every trial drawn shall have.
    """
    fields: dict[str, st.SearchStrategy[Any]] = {
        "subject": _HEX,
        "task": _HEX,
        "measures": st.lists(_NAMES, min_size=1, max_size=3, unique=True).map(tuple),
        "perturbation": _NAMES,
        "version": st.integers(0, 100),
        "settings": perturbation_settings(),
        "site": sites(),
        "dose": doses(),
        "seed": st.integers(0, 2**31),
        "root": st.integers(0, 2**53),
        "path": st.sampled_from(["plain", "plain/cpu/float32", "plain/cuda/bfloat16"]),
    }
    return st.builds(Trial, **{**fields, **{name: st.just(value) for name, value in fixed.items()}})


def arrays() -> st.SearchStrategy[NDArray[np.float32]]:
    """Finite single-precision arrays of up to two dimensions, empty ones and single numbers included."""
    shapes = st_numpy.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)
    return st_numpy.arrays(np.float32, shapes, elements=st.floats(-1e6, 1e6, width=32))


def outcomes() -> st.SearchStrategy[Outcome]:
    """Any outcome a store may be given: values only where it is done."""

    def made(status: OutcomeStatus) -> st.SearchStrategy[Outcome]:
        done = status == "done"
        return st.builds(
            Outcome,
            key=_HEX,
            status=st.just(status),
            values=st.dictionaries(_NAMES, arrays(), max_size=3) if done else st.just({}),
            seconds=doses(),
            forwards=doses(),
            because=st.just("") if done else st.text(st.characters(codec="utf-8"), max_size=20),
        )

    return st.sampled_from(_STATUSES).flatmap(made)


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

    def plans(self) -> dict[str, bytes]:
        """Every plan by its key, the latest at the end."""
        ...

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


def _arrays() -> st.SearchStrategy[NDArray[Any]]:
    """Arrays of every type that a store keeps: small ones of all shapes, and long ones of few different numbers."""
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

    @given(values=st.dictionaries(st.text(max_size=8), _arrays(), max_size=4))
    @settings(max_examples=50, deadline=None)
    def test_arrays_come_back_in_their_type(
        self, tmp_path_factory: pytest.TempPathFactory, values: dict[str, NDArray[Any]]
    ) -> None:
        """float32, int32 and bool, to the bit; each its reader's own, who may write into it."""
        outcome = Outcome(key="2" * 32, status="done", values=values)
        with self.opened(tmp_path_factory.mktemp("store") / "kept") as store:
            store.put(outcome)
            found = store.get(outcome.key)
            assert _equal(_sorted(outcome), found), "other arrays came back"
            assert found is not None and all(array.flags.writeable for array in found.values.values())

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

    def test_every_plan_is_kept(self, tmp_path: Path) -> None:
        """Each once, in the order in which they were last put."""
        path = tmp_path / "kept"
        with self.opened(path) as store:
            assert store.plans() == {}, "plans where none was put"
            for key, plan in (("a", b'{"a": 1}'), ("b", b'{"b": 2}'), ("c", b'{"c": 3}'), ("a", b'{"a": 1}')):
                store.put_plan(key, plan)
        with self.opened(path) as store:
            kept = [("b", b'{"b": 2}'), ("c", b'{"c": 3}'), ("a", b'{"a": 1}')]
            assert list(store.plans().items()) == kept, "other plans, or another order"

    def test_a_note_replaces_the_last_one_of_its_name(self, tmp_path: Path) -> None:
        """And leaves those of other names alone."""
        with self.opened(tmp_path / "kept") as store:
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
