"""A plan run in shards, two of them killed, and merged: the report of one process, no trial twice; what is refused."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.core.errors import MissingFile, StoreError, UsageError, WheeltapError
from wheeltap.core.records import Outcome
from wheeltap.plans.plan import Plan
from wheeltap.plans.shard import Shard, shard_of
from wheeltap.plans.store import Store
from wheeltap.report.jsonfile import to_json
from wheeltap.runs.merging import MergeResult, merge
from wheeltap.runs.pace import Progress
from wheeltap.runs.stored import judge, plan_of

OF = 3
INPUTS = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))


def net(seed: int = 0) -> wt.Subject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return wt.Subject(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval(), name="net")


with torch.no_grad():
    TASK = wt.Task(INPUTS, net().model(INPUTS).argmax(1))


@cache
def planned(seed: int = 0) -> Plan:
    effort = wt.Effort(draws=4, control_draws=4, block_draws=0)
    return wt.plan(net(), TASK, audits=["score", "relative-noise"], effort=effort, seed=seed)


def run(folder: Path, index: int, plan: Plan | None = None, watch: Callable[[Progress], None] | None = None) -> Any:
    how = {"shard": f"{index}/{OF}", "store": folder / f"part-{index}.wheeltap", "base": folder / "all.wheeltap"}
    return wt.run(planned() if plan is None else plan, net(), TASK, watch=watch, **how)  # type: ignore[arg-type]


def run_until_killed(folder: Path, index: int, after: int) -> None:
    """Runs a shard; the process kills itself once it has committed so many outcomes."""

    def kill(state: Progress) -> None:
        if state.done == after:
            os.kill(os.getpid(), signal.SIGKILL)

    run(folder, index, watch=kill)


def killed(folder: Path, index: int, *, after: int) -> None:
    """Runs a shard in a process of its own, until it is killed."""
    # A fork would deadlock where a thread of this process holds a lock.
    child = get_context("spawn").Process(target=run_until_killed, args=(folder, index, after))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def merged(folder: Path) -> MergeResult:
    return merge(sorted(folder.glob("part-*.wheeltap")), folder / "all.wheeltap")


def rows(path: Path) -> dict[str, Outcome]:
    with Store(path, readonly=True) as store:
        return {key: found for key in store.keys() if (found := store.get(key)) is not None}  # noqa: SIM118


def seconds(path: Path) -> dict[str, float]:
    """When a trial is run twice, it takes another time."""
    return {key: found.seconds for key, found in rows(path).items()}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serial") / "serial.wheeltap"
    wt.run(planned(), net(), TASK, store=path)
    return path


@pytest.fixture(scope="module")
def round_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of all shards after the first round."""
    folder = tmp_path_factory.mktemp("round")
    for index in range(OF):
        run(folder, index)
    return folder


@pytest.fixture
def parts(round_one: Path, tmp_path: Path) -> Path:
    """The same, to be spoiled."""
    return Path(shutil.copytree(round_one, tmp_path / "parts"))


# ---- whose a trial is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variables", "shard"),
    [
        ("0/1", {"SLURM_ARRAY_TASK_ID": "5"}, Shard(0, 1)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "0"}, Shard(0, 8)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "8"}, Shard(7, 8)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1",
                  "SLURM_ARRAY_TASK_MAX": "3"}, Shard(2, 3)),
    ],
)  # fmt: skip
def test_a_shard_is_named_or_a_scheduler_names_it(text: str, variables: dict[str, str], shard: Shard) -> None:
    assert shard_of(text, store="s", environment=variables) == shard


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("8/8", {}, "There is no such shard"),
        ("-1/8", {}, "cannot be read"),
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "many"}, "none of them"),
        ("auto", {"JOB_COMPLETION_INDEX": "2"}, "--shard auto/8"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "2",
                  "SLURM_ARRAY_TASK_MAX": "5"}, "auto/8"),
    ],
)  # fmt: skip
def test_a_shard_that_there_is_not_is_refused(text: str, variables: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        shard_of(text, store="s", environment=variables)
    assert words in str(caught.value)


def test_every_trial_is_one_shards_and_the_same_ones_tomorrow() -> None:
    plan, shards = planned(), [Shard(index, 8) for index in range(8)]
    trials = [plan.trial(plan.reference, "gaussian", dose=0.1, seed=seed) for seed in range(800)]
    counts = [sum(map(shard.has, trials)) for shard in shards]
    assert sum(counts) == 800 and min(counts) > 60
    key = "0" * 31 + "b"
    pinned = msgspec.structs.replace(trials[0], subject=key, task=key, version=1)
    assert [shard.has(pinned) for shard in shards].index(True) == int(pinned.key[-1], 16) % 8
    first, second = (plan.clean(plan.reference, seed=seed) for seed in (0, 1))
    assert [shard.has(first) for shard in shards] == [shard.has(second) for shard in shards]


# ---- run, killed, run again, merged -------------------------------------------------------------------------------


def test_shards_of_which_two_are_killed_give_the_report_of_one_process(serial: Path, tmp_path: Path) -> None:
    found, ran, rounds, kills = None, dict[str, float](), 0, 0
    while found is None or found.missing:
        assert found is None or (found.another and sum(len(one.trials) for one in found.work) == len(found.missing))
        work = {Shard(0, OF): 3} if found is None else {one.shard: len(one.trials) for one in found.work}
        busiest = max(work, key=lambda shard: work[shard])
        if found is None or (kills == 1 and work[busiest] > 20):
            killed(tmp_path, busiest.index, after=2)
            kills += 1
            early = merged(tmp_path)
            assert early.missing and not early.another and busiest in [one.shard for one in early.work]
            assert len(seconds(tmp_path / "all.wheeltap")) == len(ran) + 2
            ran = seconds(tmp_path / "all.wheeltap")
        for index in range(OF):
            run(tmp_path, index)
        found, rounds = merged(tmp_path), rounds + 1
        now = seconds(tmp_path / "all.wheeltap")
        assert ran.items() <= now.items() and found.twice == 0 and rounds < 20
        ran = now
    assert kills == 2 and rounds > 2 and ran.keys() == rows(serial).keys() and not found.work and not found.another
    report = judge(tmp_path / "all.wheeltap").record
    assert to_json(report) == to_json(judge(serial).record)
    again = wt.run(planned(), net(), TASK, store=tmp_path / "all.wheeltap")
    assert (again.cost.trials, again.cost.reused) == (0, len(ran))


def test_the_store_of_a_shard_is_no_other_shards(parts: Path) -> None:
    path = parts / "part-0.wheeltap"
    assert judge(path).record.provenance["missing_trials"]
    with pytest.raises(UsageError, match=r"that of another shard(.|\n)*shard 0/3"):
        wt.run(planned(), net(), TASK, shard="1/3", store=path)


def test_what_failed_elsewhere_does_not_stop_a_shard(parts: Path) -> None:
    """It is known to have failed: only the shard whose it is could run it again, and the round after needs it."""
    twin = planned().twin
    assert twin is not None
    key = planned().clean(twin).key
    owner = next(path for path in sorted(parts.glob("part-*.wheeltap")) if key in rows(path))
    with Store(owner) as store:
        store._db.execute("DELETE FROM outcomes WHERE key=?", (bytes.fromhex(key),))
        store.put(Outcome(key=key, status="failed", because="no memory"))
    found = merged(parts)
    assert key not in [trial.key for trial in found.missing]
    assert rows(parts / "all.wheeltap")[key].status == "failed"
    other = next(one.shard.index for one in found.work if not one.shard.has(planned().clean(twin)))
    assert run(parts, other).cost.trials > 0 and rows(parts / f"part-{other}.wheeltap")[key].status == "failed"
    with Store(parts / "all.wheeltap") as store:  # a measured one is worth more, whatever came first
        store.put(Outcome(key=key, status="done"))
    assert merged(parts).twice == 0 and rows(parts / "all.wheeltap")[key].status == "done"


# ---- what is refused ------------------------------------------------------------------------------------------------


def refused(kind: type[WheeltapError], words: str, folder: Path) -> None:
    """The merge is refused, the parts stay as they are, and nothing is merged."""
    parts = sorted(folder.glob("part-*.wheeltap"))
    before = [path.read_bytes() for path in parts]
    with pytest.raises(kind) as caught:
        merge(parts, folder / "all.wheeltap")
    assert words in str(caught.value), str(caught.value)
    assert [path.read_bytes() for path in parts] == before
    if (folder / "all.wheeltap").exists():
        assert rows(folder / "all.wheeltap") == {}


def test_parts_of_another_plan_or_model_are_refused(parts: Path) -> None:
    run(parts, 1, planned(seed=1))
    refused(UsageError, "plan", parts)
    other = wt.plan(net(1), TASK, audits="score")
    (parts / "part-1.wheeltap").unlink()
    wt.run(other, net(1), TASK, shard="1/3", store=parts / "part-1.wheeltap")
    refused(UsageError, "subjects net (", parts)


@pytest.mark.parametrize("name", ["wheeltap", "path"])
def test_parts_of_another_version_or_path_are_refused(parts: Path, name: str) -> None:
    with Store(parts / "part-2.wheeltap") as store:
        key, _ = plan_of(store)
        said: dict[str, Any] = msgspec.json.decode(store.note(f"provenance:{key}") or b"")
        store.put_note(f"provenance:{key}", msgspec.json.encode(said | {name: "another"}))
    refused(UsageError, f"got: {name} another", parts)


def test_a_trial_that_gave_other_numbers_elsewhere_is_refused(parts: Path) -> None:
    key, found = next((key, one) for key, one in rows(parts / "part-0.wheeltap").items() if one.values)
    with Store(parts / "part-1.wheeltap") as store:
        store.put(Outcome(key=key, status="done", values=found.values, seconds=found.seconds + 1.0))
    assert merged(parts).twice == 1
    (parts / "all.wheeltap").unlink()
    other = {name: array + 1 for name, array in found.values.items()}
    with Store(parts / "part-2.wheeltap") as store:
        store.put(Outcome(key=key, status="done", values=other))
    refused(StoreError, "gave different numbers", parts)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_part_is_refused_and_named(parts: Path, share: float) -> None:
    path = parts / "part-1.wheeltap"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(StoreError, str(path), parts)


def test_what_cannot_be_merged_into(parts: Path, tmp_path: Path) -> None:
    several = sorted(parts.glob("part-*.wheeltap"))
    with pytest.raises(UsageError, match="named twice"):
        merge(several, several[0])
    with pytest.raises(MissingFile):
        merge([*several, parts / "part-9.wheeltap"], parts / "all.wheeltap")
    (tmp_path / "thesis.txt").write_text("of years")
    with pytest.raises(StoreError, match="not a wheeltap store"):
        merge(several, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "of years"
    wt.run(planned(seed=1), net(), TASK, shard="0/9", store=tmp_path / "other.wheeltap")
    before = rows(tmp_path / "other.wheeltap").keys()
    with pytest.raises(UsageError, match="not parts of one run"):
        merge(several, tmp_path / "other.wheeltap")
    assert rows(tmp_path / "other.wheeltap").keys() == before
