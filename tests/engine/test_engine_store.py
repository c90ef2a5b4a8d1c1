"""The store: what it keeps it gives back, and whatever is wrong with the file is said and nothing is lost."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from engine_nets import Counting, numbers, taught
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import wheeltap as wt
from wheeltap.errors import MissingFile, StoreError, WheeltapError
from wheeltap.models.mlp import mlp
from wheeltap.records import Outcome, OutcomeStatus
from wheeltap.report import jsonfile
from wheeltap.report.unfinished import MISSING
from wheeltap.sources import digits as source
from wheeltap.store import STORE_VERSION, Store
from wheeltap.subject import Subject

AUDITS = ("score", "relative-noise", "function-noise", "quantization", "pruning")
"""One pass a trial, so that passes can be counted against outcomes."""

LITTLE = wt.Effort(draws=3, control_draws=3, block_draws=2)


def outcome(key: str, *values: float) -> Outcome:
    return Outcome(
        key=key, status="done", values={"nll": np.array(values, dtype=np.float32)}, seconds=0.25, forwards=1.0
    )


def same(a: Outcome | None, b: Outcome) -> bool:
    if a is None or (a.key, a.status, a.seconds, a.forwards, a.because) != (
        b.key,
        b.status,
        b.seconds,
        b.forwards,
        b.because,
    ):
        return False
    return a.values.keys() == b.values.keys() and all(
        a.values[name].shape == b.values[name].shape
        and a.values[name].dtype == np.float32
        and a.values[name].tobytes() == b.values[name].tobytes()
        for name in b.values
    )


# ---- round trips ---------------------------------------------------------------------------------------------------

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
VALUES = arrays.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@settings(deadline=None)  # the disk of a busy machine has its own mind
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


def test_outcomes_put_together_are_put_together_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path / "s.wheeltap") as store:
        with pytest.raises(StoreError):
            store.put_all([outcome("a", 1.0), outcome("b", float("inf"))])
        assert store.keys() == frozenset()


# ---- who may open it -----------------------------------------------------------------------------------------------

HOLD = """
import sys
from wheeltap.store import Store
with Store(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path) -> Generator[tuple[Path, "subprocess.Popen[str]"]]:
    """A store that another process has open for writing."""
    path = tmp_path / "s.wheeltap"
    with Store(path) as store:
        store.put(outcome("a", 1.0))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield path, process
        process.kill()


def test_one_process_writes_and_others_read(held: tuple[Path, "subprocess.Popen[str]"]) -> None:
    path, process = held
    with pytest.raises(StoreError, match="in use by another process") as caught:
        Store(path)
    assert str(path) in str(caught.value) and "status" in str(caught.value)
    with Store(path, readonly=True) as store:
        assert store.keys() == {"a"}
    process.kill()
    process.wait()
    with Store(path) as store:  # the lock went with the process that was killed
        store.put(outcome("b", 2.0))
        assert store.keys() == {"a", "b"}


def test_the_same_process_cannot_open_it_twice_for_writing(tmp_path: Path) -> None:
    with Store(tmp_path / "s.wheeltap"), pytest.raises(StoreError, match="in use"):
        Store(tmp_path / "s.wheeltap")
    with Store(tmp_path / "s.wheeltap") as store:
        store.put(outcome("a", 1.0))


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
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = '99.1' WHERE name = 'version'")
        db.commit()


def no_version(path: Path) -> None:
    Store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM meta")
        db.commit()


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (thing TEXT)")
        db.execute("INSERT INTO mine VALUES ('precious')")
        db.commit()


def another_database_in_use(path: Path) -> None:
    """What is in it is still in its log: a process that was killed leaves it so."""
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA journal_mode=WAL')\n"
        "db.execute('CREATE TABLE mine (thing TEXT)'); db.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert Path(f"{path}-wal").stat().st_size


def text(path: Path) -> None:
    path.write_text("this is a letter, not a database, and it is long enough to be looked at\n" * 100)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (other_version, f"expected: store version {STORE_VERSION}"),
        (no_version, "got: store version missing"),
        (another_database, "another kind of SQLite file"),
        (another_database_in_use, "another kind of SQLite file"),
        (text, "not a wheeltap store"),
        (folder, "no store at this path|cannot be opened"),
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
    with pytest.raises(MissingFile, match="folder does not exist"):
        Store(tmp_path / "none" / "s.wheeltap")
    with pytest.raises(MissingFile):
        wt.judge(tmp_path / "none" / "s.wheeltap")
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_a_plan_cannot_be_judged(tmp_path: Path) -> None:
    Store(tmp_path / "s.wheeltap").close()
    with pytest.raises(StoreError, match="holds no plan"):
        wt.judge(tmp_path / "s.wheeltap")


# ---- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Subject) -> Path:
    """A small but complete store."""
    data = source.split()
    probe = wt.Probe(data.test_inputs[::5], data.test_targets[::5])
    path = tmp_path_factory.mktemp("whole") / "s.wheeltap"
    effort = wt.Effort(draws=8, control_draws=8, block_draws=0)
    report = wt.audit(digits, probe, audits=["score", "relative-noise", "pruning"], store=path, effort=effort)
    assert not report.void
    return path


def judged(path: Path) -> bytes:
    return jsonfile.to_json(wt.judge(path).record)


def test_a_flipped_bit_is_noticed_or_harmless(whole: Path, tmp_path: Path) -> None:
    """Never another verdict or number, and never another kind of error than ours.

    A flip in a key loses that outcome: its trial "has not run", as after a kill, and will run again.
    """
    good, data = wt.judge(whole).record, whole.read_bytes()
    pick, noticed = random.Random(0), 0
    for trial in range(300):
        broken = bytearray(data)
        at = pick.randrange(len(data))
        broken[at] ^= 1 << pick.randrange(8)
        path = tmp_path / f"{trial}.wheeltap"
        path.write_bytes(bytes(broken))
        try:
            record = wt.judge(path).record
        except WheeltapError:
            noticed += 1
            continue
        told = [finding for finding in record.findings if finding.status not in ("error", "void")]
        assert all(finding in good.findings for finding in told), f"byte {at}"
        assert all(finding in good.findings or not finding.estimates for finding in record.findings if not record.void)
        assert all(curve in good.curves for curve in record.curves), f"byte {at}"
        provenance = {name: value for name, value in record.provenance.items() if name != MISSING}
        assert record.subjects == good.subjects and provenance == good.provenance, f"byte {at}"
        noticed += len(told) < len(good.findings)
    # The rest fell on unused parts of pages, file headers, and outcomes that the judgement does not read.
    assert noticed >= 150


def test_a_truncated_store_is_noticed(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path = tmp_path / f"{share}.wheeltap"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(StoreError, match="damaged"):
            judged(path)


def test_a_flipped_number_is_noticed(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.wheeltap"
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path)) as db:
        key, blob = db.execute("SELECT key, vals FROM outcomes WHERE length(vals) > 0 LIMIT 1").fetchone()
        changed = bytes([blob[0] ^ 1, *blob[1:]])
        db.execute("UPDATE outcomes SET vals = ? WHERE key = ?", (changed, key))
        db.commit()
    with (
        Store(path, readonly=True) as store,
        pytest.raises(StoreError, match="An outcome in the store is damaged") as caught,
    ):
        store.get(key)
    assert key in str(caught.value)


# ---- no room, no permission ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 1 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small file system; the page bound below is tested everywhere")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("this machine lets nobody mount; the page bound below is tested everywhere")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(store: Store) -> int:
    for at in range(10_000):
        try:
            store.put(outcome(str(at), *[float(at)] * 500))
        except StoreError as error:
            assert "The disk is full" in str(error) and "resumes" in str(error)
            return at
    raise AssertionError("it never was full")


def test_a_full_disk_is_said_and_what_was_committed_is_kept(small_disk: Path) -> None:
    path = small_disk / "s.wheeltap"
    with Store(path) as store:
        count = fill(store)
        assert count > 10
        (small_disk / "ballast").unlink(missing_ok=True)
    with Store(path, readonly=True) as store:
        assert store.keys() == {str(at) for at in range(count)}
        assert all(same(store.get(str(at)), outcome(str(at), *[float(at)] * 500)) for at in range(count))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    with Store(path) as store:  # room again: the same store goes on
        store.put(outcome(str(count), *[float(count)] * 500))
        assert len(store.keys()) == count + 1


def test_an_audit_on_a_full_disk_stops_clearly_and_resumes(small_disk: Path) -> None:
    model = mlp((6, 12, 4)).eval()
    subject, probe = Subject(model, name="net"), taught(model, numbers(300, 6, seed=1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    path = small_disk / "s.wheeltap"
    with pytest.raises(StoreError, match="The disk is full"):
        wt.audit(subject, probe, store=path, effort=LITTLE)
    assert all(bool((p == before[name]).all()) for name, p in model.named_parameters())
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    with Store(path, readonly=True) as store:
        done = len(store.keys())
    assert done > 5
    report = wt.audit(subject, probe, store=path, effort=LITTLE)
    assert report.cost.reused >= 4
    assert report.cost.trials == wt.audit(subject, probe, effort=LITTLE).cost.trials - done


def test_a_bound_on_pages_is_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "s.wheeltap"
    with Store(path) as store:
        store._db.execute("PRAGMA max_page_count=40")
        count = fill(store)
        assert count > 10 and len(store.keys()) == count
    with Store(path) as store:
        store.put(outcome("after", 1.0))
        assert len(store.keys()) == count + 1


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_a_store_on_a_read_only_disk_can_be_read(left: str, small_disk: Path, tmp_path: Path) -> None:
    path = small_disk / "s # 1?.wheeltap"  # an odd name: SQLite reads addresses
    if left == "closed":
        with Store(path) as store:
            store.put(outcome("a", 1.0))
    else:
        script = (
            "import os, sys\nsys.path.insert(0, sys.argv[2])\nfrom test_engine_store import Store, outcome\n"
            "s = Store(sys.argv[1])\ns.put(outcome('a', 1.0))\nos.kill(os.getpid(), 9)"
        )
        subprocess.run(
            [sys.executable, "-c", script, str(path), str(Path(__file__).parent)], check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Store(path, readonly=True) as store:
        assert same(store.get("a"), outcome("a", 1.0))
    with pytest.raises(StoreError, match="cannot be opened"), Store(path) as store:
        store.put(outcome("b", 1.0))
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(small_disk / "new.wheeltap")


# ---- a second run --------------------------------------------------------------------------------------------------


def test_a_second_identical_run_makes_no_forward(tmp_path: Path) -> None:
    counted = Counting(mlp((6, 12, 4)))
    probe = taught(counted.body, numbers(60, 6, seed=1), more=numbers(60, 6, seed=2))
    first = wt.audit(Subject(counted, name="net"), probe, store=tmp_path / "s.wheeltap", audits=AUDITS, effort=LITTLE)
    traced = 1  # planning looks at the structure by running a copy on placeholders
    assert counted.calls >= first.cost.forwards > 50
    before = counted.calls
    again = wt.audit(Subject(counted, name="net"), probe, store=tmp_path / "s.wheeltap", audits=AUDITS, effort=LITTLE)
    assert counted.calls - before <= traced
    assert (again.cost.forwards, again.cost.trials) == (0.0, 0)
    assert again.cost.reused >= 2
    assert (again.findings, again.controls, again.record.curves) == (
        first.findings,
        first.controls,
        first.record.curves,
    )
    # More draws need only what is new.
    before = counted.calls
    more = wt.audit(
        Subject(counted, name="net"),
        probe,
        store=tmp_path / "s.wheeltap",
        audits=AUDITS,
        effort=wt.Effort(draws=4, control_draws=3, block_draws=2),
    )
    assert 0 < more.cost.trials < first.cost.trials / 2
    copies = 24  # so many looks at the structure it takes to make the control copies again
    assert counted.calls - before - traced - copies <= more.cost.forwards + 1


def test_a_changed_weight_or_example_is_never_a_hit(tmp_path: Path) -> None:
    model = mlp((6, 12, 4)).eval()
    inputs = numbers(60, 6, seed=1)
    first = wt.audit(
        Subject(model, name="net"),
        taught(model, inputs),
        audits=["pruning"],
        store=tmp_path / "s.wheeltap",
        effort=LITTLE,
    )
    model.get_parameter("0.weight").data[0, 0] += 1e-6
    second = wt.audit(
        Subject(model, name="net"),
        taught(model, inputs),
        audits=["pruning"],
        store=tmp_path / "s.wheeltap",
        effort=LITTLE,
    )
    inputs[0, 0] += 1e-6
    third = wt.audit(
        Subject(model, name="net"),
        taught(model, inputs),
        audits=["pruning"],
        store=tmp_path / "s.wheeltap",
        effort=LITTLE,
    )
    assert first.cost.trials == second.cost.trials == third.cost.trials
