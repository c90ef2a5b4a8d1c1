"""Mishaps of a store: its writer killed, its file damaged, its disk full or read-only; told, and nothing is lost."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from engine_nets import numbers, taught
from store_outcomes import LITTLE, outcome, same

import wheeltap as wt
from wheeltap.core.errors import StoreError, WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.models.mlp import mlp
from wheeltap.plans.store import Store
from wheeltap.report import jsonfile
from wheeltap.report.origin import MISSING
from wheeltap.sources import digits as source

# ---- a writer that is killed ---------------------------------------------------------------------------------------

HOLD = """
import sys
from wheeltap.plans.store import Store
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


# ---- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Subject) -> Path:
    data = source.split()
    task = wt.Task(data.test_inputs[::5], data.test_targets[::5])
    path = tmp_path_factory.mktemp("whole") / "s.wheeltap"
    effort = wt.Effort(draws=8, control_draws=8, block_draws=0)
    report = wt.audit(digits, task, audits=["score", "relative-noise", "pruning"], store=path, effort=effort)
    assert not report.void
    return path


@pytest.mark.slow
@pytest.mark.release
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
            jsonfile.to_json(wt.judge(path).record)


# ---- no room, no permission ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
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
    subject, task = Subject(model, name="net"), taught(model, numbers(300, 6, seed=1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    path, audits = small_disk / "s.wheeltap", ("score", "relative-noise", "function-noise", "quantization", "pruning")
    with pytest.raises(StoreError, match="The disk is full"):
        wt.audit(subject, task, audits=audits, store=path, effort=LITTLE)
    assert all(bool((p == before[name]).all()) for name, p in model.named_parameters())
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    with Store(path, readonly=True) as store:
        done = len(store.keys())
    assert done > 5
    report = wt.audit(subject, task, audits=audits, store=path, effort=LITTLE)
    assert report.cost.reused >= 4
    assert report.cost.trials == wt.audit(subject, task, audits=audits, effort=LITTLE).cost.trials - done


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_a_store_on_a_read_only_disk_can_be_read(left: str, small_disk: Path, tmp_path: Path) -> None:
    path = small_disk / "s # 1?.wheeltap"  # an odd name: SQLite reads addresses
    if left == "closed":
        with Store(path) as store:
            store.put(outcome("a", 1.0))
    else:
        script = (
            "import os, sys\nsys.path.insert(0, sys.argv[2])\n"
            "from store_outcomes import outcome\nfrom wheeltap.plans.store import Store\n"
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
