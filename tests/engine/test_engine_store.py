"""The store: what it keeps it gives back, and what is no store of ours is refused and left alone."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_nets import Counting, numbers, taught
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from store_outcomes import AUDITS, LITTLE, changed, judged, outcome, same

import wheeltap as wt
from wheeltap.core.errors import MissingFile, StoreError
from wheeltap.core.records import Outcome, OutcomeStatus
from wheeltap.core.subject import Subject
from wheeltap.models.mlp import mlp
from wheeltap.plans.store import STORE_VERSION, Outcomes, Store

# ---- round trips ---------------------------------------------------------------------------------------------------

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    np.float32: st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([-0.0, 0.0, 1.0]),
    np.int32: st.integers(-(2**31), 2**31 - 1) | st.integers(0, 1), np.bool_: st.booleans(),
}  # fmt: skip
VALUES = st.one_of(*(arrays.arrays(kind, SHAPES, elements=elements) for kind, elements in KINDS.items()))


@settings(max_examples=30)
@given(
    values=st.dictionaries(st.text(max_size=8), VALUES, max_size=4),
    status=st.sampled_from(["done", "diverged", "failed", "skipped"]),
    numbers=st.tuples(*[st.floats(0, 1e9)] * 2),
    because=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
)
def test_any_outcome_comes_back_to_the_bit(
    values: dict[str, np.ndarray],
    status: OutcomeStatus,
    numbers: tuple[float, float],
    because: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    put = Outcome(key="k", status=status, values=values, seconds=numbers[0], forwards=numbers[1], because=because)
    path = tmp_path_factory.mktemp("store") / "s.wheeltap"
    with Store(path) as store:
        store.put(put)
        assert same(store.get("k"), put)
    with Store(path, readonly=True) as store:
        assert same(store.get("k"), put)
        assert store.get("l") is None


def test_a_key_is_written_once_and_counts_keys_plans_and_notes_come_back(tmp_path: Path) -> None:
    path = tmp_path / "s.wheeltap"
    with Store(path) as store:
        store.put_all([outcome("a", 1.0), outcome("b", 2.0), Outcome(key="c", status="failed", because="why")])
        store.put(outcome("a", 9.0))
        assert store.plan() is None and store.note("provenance") is None
        store.put_plan("one", b"{1}")
        store.put_plan("two", b"{2}")
        store.put_note("provenance", b"old")
        store.put_note("provenance", b"new")
    with Store(path) as store:
        assert same(store.get("a"), outcome("a", 1.0))
        assert store.keys() == {"a", "b", "c"} and store.count() == {"done": 2, "failed": 1}
        assert store.plan() == b"{2}" and store.note("provenance") == b"new"
        store.put_plan("one", b"{1}")
        assert store.plan() == b"{1}", "the plan put last, though put before"
        assert list(store.plans().items()) == [("two", b"{2}"), ("one", b"{1}")]


def test_numbers_are_kept_as_the_nearest_type_and_what_fits_none_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "s.wheeltap") as store:
        kinds = {np.float64: np.float32, np.float16: np.float32, np.int64: np.int32, np.uint8: np.int32}
        for wide, kept in kinds.items():
            array = (np.arange(12).reshape(3, 4) * 10).astype(wide).T  # its rows do not lie one after another
            store.put(Outcome(key=wide.__name__, status="done", values={"m": array}))
            found = store.get(wide.__name__)
            assert found is not None and found.values["m"].dtype == kept and found.values["m"].flags.writeable
            assert np.array_equal(found.values["m"], array.astype(kept))
        for wrong in (2**31, -(2**31) - 1, np.uint64(2**63), "1.0", 1j, None, 1e39):
            with pytest.raises(StoreError):
                store.put(Outcome(key="wrong", status="done", values={"m": np.array([wrong])}))
            assert store.get("wrong") is None


def test_what_failed_is_replaced_and_the_other_outcomes_stay(tmp_path: Path) -> None:
    failed, done = (Outcome(key="a", status=status, forwards=2.0) for status in ("failed", "done"))
    with Store(tmp_path / "s.wheeltap") as store:
        for put in (failed, done, Outcome(key="a", status="failed", because="later")):
            store.put(put)
            assert same(store.get("a"), failed if put is failed else done)


def test_outcomes_are_put_together_or_not_at_all_and_none_that_is_not_finite(tmp_path: Path) -> None:
    with Store(tmp_path / "s.wheeltap") as store:
        for wrong in (np.inf, -np.inf, np.nan):
            with pytest.raises(StoreError, match="not finite"):
                store.put_all([outcome("a", 1.0), outcome("b", wrong)])
            assert store.keys() == frozenset()


# ---- who may open it -----------------------------------------------------------------------------------------------


def test_readers_see_whole_outcomes_while_a_writer_is_at_work(tmp_path: Path) -> None:
    path, wrong, stop = tmp_path / "s.wheeltap", list[str](), threading.Event()
    with Store(path) as writer:

        def read() -> None:
            known = 0
            while not stop.is_set():
                with Store(path, readonly=True) as store:
                    for key in sorted(store.keys(), key=int)[-5:]:
                        if not same(store.get(key), outcome(key, *[float(key)] * 500)):
                            wrong.append(key)
                    now = len(store.keys())
                    if now < known:
                        wrong.append(f"{known} outcomes, then {now}")
                    known = now

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for at in range(300):
            writer.put(outcome(str(at), *[float(at)] * 500))
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []


# ---- what is no store ----------------------------------------------------------------------------------------------


def other_version(path: Path) -> None:
    Store(path).close()
    changed(path, "UPDATE meta SET value = '99.1' WHERE name = 'version'")


def no_version(path: Path) -> None:
    Store(path).close()
    changed(path, "DELETE FROM meta")


def another_database(path: Path) -> None:
    changed(path, "CREATE TABLE mine (thing TEXT)", "INSERT INTO mine VALUES ('precious')")


def text(path: Path) -> None:
    path.write_text("this is a letter, not a database, and it is long enough to be looked at\n" * 100)


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (other_version, f"expected: store version {STORE_VERSION}"),
        (no_version, "got: store version missing"),
        (another_database, "another kind of SQLite file"),
        (text, "not a wheeltap store"),
        (Path.mkdir, "no store at this path|cannot be opened"),
    ],
)
def test_what_is_no_store_of_ours_is_refused_and_left_alone(
    make: Callable[[Path], None], message: str, readonly: bool, tmp_path: Path
) -> None:
    path = tmp_path / "s.wheeltap"
    make(path)
    before = contents(tmp_path)
    with pytest.raises((StoreError, MissingFile), match=message) as caught:
        Store(path, readonly=readonly)
    assert str(path) in str(caught.value) and "what to do" in str(caught.value)
    after = contents(tmp_path)
    assert after.get(path.name) == before.get(path.name)
    if make not in (other_version, no_version):
        # Where it is not ours, not even a lock is left beside it; the index of another's log is no one's data.
        assert {**after, f"{path.name}-shm": None} == {**before, f"{path.name}-shm": None}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_missing_store_or_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no store at this path"):
        Store(tmp_path / "s.wheeltap", readonly=True)
    with pytest.raises(MissingFile):
        wt.judge(tmp_path / "none" / "s.wheeltap")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "file" / "s.wheeltap")


# ---- a second run --------------------------------------------------------------------------------------------------


def test_a_second_identical_run_makes_few_passes_to_see_that_the_model_is_the_same(tmp_path: Path) -> None:
    counted = Counting(mlp((6, 12, 4)))
    task = taught(counted.body, numbers(60, 6, seed=1), more=numbers(60, 6, seed=2))
    first = wt.audit(Subject(counted, name="net"), task, store=tmp_path / "s.wheeltap", audits=AUDITS, effort=LITTLE)
    # Two on an example for uses of weights, two on two for what batches mix, one on placeholders for structure.
    traced = 5
    assert counted.calls >= first.cost.forwards > 50
    before = counted.calls
    again = wt.audit(Subject(counted, name="net"), task, store=tmp_path / "s.wheeltap", audits=AUDITS, effort=LITTLE)
    # One clean pass, and two perturbed trials of each perturbation again.
    assert counted.calls - before <= again.cost.forwards + traced
    assert again.cost.forwards <= 0.1 * first.cost.forwards and again.cost.trials == 0
    assert again.cost.reused >= 2
    assert judged(again) == judged(first)
    # More draws need only what is new.
    before, effort = counted.calls, wt.Effort(draws=4, control_draws=3)
    more = wt.audit(Subject(counted, name="net"), task, store=tmp_path / "s.wheeltap", audits=AUDITS, effort=effort)
    assert 0 < more.cost.trials < first.cost.trials / 2
    copies = 24  # so many looks at the structure it takes to make the control copies again
    assert counted.calls - before - traced - copies <= more.cost.forwards + 1


def test_a_changed_weight_or_example_is_never_a_hit(tmp_path: Path) -> None:
    model = mlp((6, 12, 4)).eval()
    inputs = numbers(60, 6, seed=1)

    def trials() -> int:
        task, store = taught(model, inputs), tmp_path / "s.wheeltap"
        return wt.audit(Subject(model, name="net"), task, audits=["pruning"], store=store, effort=LITTLE).cost.trials

    first = trials()
    model.get_parameter("0.weight").data[0, 0] += 1e-6
    second = trials()
    inputs[0, 0] += 1e-6
    assert first == second == trials()


def test_outcomes_are_read_once_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    done = Outcome(key="a" * 32, status="done", values={"accuracy": np.ones(3, dtype=np.float32)})
    failed = Outcome(key="b" * 32, status="failed", because="no memory")
    with Store(tmp_path / "s.wheeltap") as store:
        store.put_all([done, failed])
        known, again = Outcomes(store), Outcomes(store, retry=True)
        assert (known(done.key), again(done.key)) != (None, None) and known("c" * 32) is None
        assert known(failed.key) == failed and again(failed.key) is None
        again.put(failed)
        assert again(failed.key) == failed  # known of this run: not tried for ever
        again.put(Outcome(key="c" * 32, status="skipped", because="not here"))
        assert known("c" * 32) is not None
        reads: list[str] = []
        store._db.set_trace_callback(reads.append)
        assert known(done.key) is known(done.key) and known(failed.key) is not None
        assert reads == []
