"""Stores that others can write: what does not bear the mark of the user's key is measured afresh, and said."""

import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import torch
from store_outcomes import changed, outcome, same
from torch import nn

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core import canon
from wheeltap.core.errors import StoreError
from wheeltap.core.files import VARIABLE, own_key
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store, _Row

FIELDS = "status, layouts, vals, seconds, forwards, because, path"


def audited(store: Path) -> wt.Report:
    """A net that survives 8 bits and does not survive 2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
        inputs = torch.randn(400, 4)
    with torch.no_grad():
        targets = net(inputs).argmax(1)
    return wt.audit(net, (inputs, targets), name="net", schemes="int8,int2", margin=0.05, store=store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, wt.Report]:
    store = tmp_path_factory.mktemp("keys") / "s.wheeltap"
    report = audited(store)
    assert not report.passed
    return store, report


def copied(whole: Path, folder: Path) -> Path:
    return Path(shutil.copy(whole, folder))


def forged(whole: Path, folder: Path) -> Path:
    """A copy in which every outcome of the same measures is that of the undisturbed net, digests and all."""
    path = copied(whole, folder)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(f"SELECT key, {FIELDS} FROM outcomes").fetchall()
        layouts, values = next((row[2], row[3]) for row in rows if msgspec.msgpack.decode(row[2])[0][0] == "accuracy")
        for key, *held in rows:
            if held[1] == layouts:
                row = msgspec.convert([*held[:2], values, *held[3:]], _Row)
                db.execute("UPDATE outcomes SET vals=?, seal=? WHERE key=?", (values, row.digest(key.hex()), key))
        db.commit()
    return path


def test_forged_outcomes_are_measured_afresh(whole: tuple[Path, wt.Report], tmp_path: Path) -> None:
    kept, first = whole
    path = forged(kept, tmp_path)
    with Store(path, readonly=True) as store:
        count = store.foreign()
    assert count > 1
    again = audited(path)
    assert again.findings == first.findings and again.cost.trials >= count
    with Store(path, readonly=True) as store:
        assert store.foreign() == 0  # replaced by what was measured


@pytest.mark.parametrize("more", ["CREATE INDEX i ON outcomes(key, own(seal))", "CREATE VIEW v AS SELECT 1"])
def test_a_store_laid_out_by_others_is_refused(whole: tuple[Path, wt.Report], tmp_path: Path, more: str) -> None:
    """An index may hold what a function of the attacker's said of each mark."""
    path = forged(whole[0], tmp_path)
    with closing(sqlite3.connect(path)) as db:
        db.create_function("own", 1, lambda seal: 1, deterministic=True)
        db.execute(more)
        db.commit()
    with pytest.raises(StoreError):
        audited(path)


def test_a_store_without_marks_counts_only_where_it_is_trusted(
    whole: tuple[Path, wt.Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an older wheeltap wrote it: a digest alone, for plans of their data alone."""
    kept, first = whole
    path = copied(kept, tmp_path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE outcomes SET seal = substr(seal, 1, 16)")
        for key, data in db.execute("SELECT 'seal:plan:' || key, plan FROM plans").fetchall():
            db.execute("UPDATE meta SET value=? WHERE name=?", (canon.digest("sealed", data), key))
        db.execute("DELETE FROM meta WHERE name GLOB '*note:*' OR name GLOB '*plans:*'")
        db.commit()
    with pytest.raises(StoreError, match="not written with your key") as caught:
        wt.judge(path)
    assert "--trust" in str(caught.value)
    assert main(["report", str(path), "--trust", "--full"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "results reused from the store (same weights, same data)." in told
    assert wt.judge(path).findings == first.findings


def test_a_plan_that_was_put_into_a_store_is_not_judged(whole: tuple[Path, wt.Report], tmp_path: Path) -> None:
    """With a margin that everything passes: the plan of the user is the last that counts."""
    path = copied(whole[0], tmp_path)
    with Store(path, key=b"of another user" * 2) as store:
        assert store.plan() is None and store.keys() == frozenset()
        with closing(sqlite3.connect(path)) as db:
            (held,) = db.execute("SELECT plan FROM plans").fetchone()
        laxer = msgspec.structs.replace(Plan.from_bytes(held, where="test"), margin=1.0)
        store.put_plan(laxer.key, laxer.to_bytes())
    assert wt.judge(path).findings == whole[1].findings


@pytest.mark.parametrize(
    "change", ["DELETE FROM plans WHERE id=(SELECT max(id) FROM plans)", "DELETE FROM meta WHERE name GLOB 'plans:*'"]
)
def test_which_plan_was_run_last_is_what_the_key_says(tmp_path: Path, change: str) -> None:
    path = tmp_path / "s.wheeltap"
    for key in ("passes", "fails"):
        with Store(path) as store:
            store.put_plan(key, key.encode())
    with Store(changed(path, change)) as store:
        with pytest.raises(StoreError, match="which plan was run last"):
            store.plan()
        if "meta" in change:
            store.trust()
            assert store.plan() == b"fails"


def test_another_key_reads_nothing_and_writes_over_it(tmp_path: Path) -> None:
    path = tmp_path / "s.wheeltap"
    with Store(path, key=b"a" * 32) as store:
        store.put_all([outcome("a", 1.0), outcome("b", 2.0)])
    with Store(path, key=b"b" * 32) as store:
        assert (store.get("a"), store.count(), store.foreign()) == (None, {}, 2)
        store.put(outcome("a", 3.0))
        assert same(store.get("a"), outcome("a", 3.0)) and store.foreign() == 1


# ---- the key -------------------------------------------------------------------------------------------------------

OTHER_PROCESS = "from wheeltap.core.files import own_key; print(own_key().hex())"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "wheeltap"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep settings elsewhere, or have other rights")
def test_the_key_is_made_once_for_its_owner_alone(folder: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", OTHER_PROCESS], stdout=subprocess.PIPE) for _ in range(2)]
    told = {process.communicate()[0].decode().strip() for process in processes}
    assert told == {own_key().hex()}
    assert [path.name for path in folder.iterdir()] == ["key"]
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    (folder / "key").chmod(0o640)
    with pytest.raises(StoreError, match=r"not yours alone(.|\n)*mode 0640"):
        own_key()
    (folder / "key").unlink()
    assert own_key().hex() not in told


def test_a_secret_in_the_environment_is_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "a secret of a pipeline")
    first = own_key()
    assert not folder.exists()
    monkeypatch.setenv(VARIABLE, "a secret of another pipeline")
    assert own_key() != first
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(StoreError, match="too short"):
        own_key()
