"""Workers on a Ray cluster give what one process gives; nodes, workers and drivers that die lose nothing."""

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_nets import choices
from store_outcomes import judged, same
from tiny import tiny_llama

import wheeltap as wt
from wheeltap.core.errors import MissingExtra, ModelError, UsageError, WheeltapError
from wheeltap.core.records import Outcome
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.clean import settle
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.plans.store import Store
from wheeltap.runs import executors
from wheeltap.runs.executors import ModelReference, batches, packed, take
from wheeltap.runs.pace import Progress
from wheeltap.runs.ray_cluster import RayCluster
from wheeltap.sources import load

EFFORT = wt.Effort(draws=4, control_draws=4, block_draws=2)
AUDITS = ("score", "relative-noise")

NETS = """
import os, time, torch
from torch import nn
import wheeltap as wt

class Net(nn.Module):
    def __init__(self, pause):
        super().__init__()
        self.pause, self.a, self.b = pause, nn.Linear(8, 16), nn.Linear(16, 4)
    def forward(self, x):
        time.sleep(self.pause)
        return self.b(self.a(x).relu())

def made(pause, seed=0):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = Net(pause).eval()
        torch.manual_seed(9)
        x = torch.randn(120, 8)
        return net, wt.Task(x, net(x).argmax(-1))

def quick():
    if os.environ.get("NODE") == "unlicensed":
        raise RuntimeError("no license on this machine")
    return made(0.0, seed=int(os.environ.get("NODE") == "other"))

def slow():
    return made(0.05)

class Fatal(Net):
    def forward(self, x):
        if "NODE" in os.environ and float((self.a.weight == 0).float().mean()) > 0.25:
            os._exit(1)
        return super().forward(x)

def fatal():
    net, task = made(0.0)
    other = Fatal(0.0).eval()
    other.load_state_dict(net.state_dict())
    return other, task
"""


def outcomes(path: Path) -> dict[str, Outcome]:
    with Store(path, readonly=True) as kept:
        found = [kept.get(key) for key in kept.keys()]  # noqa: SIM118 - a Store is no mapping
    return {outcome.key: outcome for outcome in found if outcome is not None}


def require_same(one: Path, two: Path) -> None:
    """Both stores hold the same trials with the same numbers to the bit."""
    mine, theirs = outcomes(one), outcomes(two)
    assert mine.keys() == theirs.keys() and len(mine) > 20
    for key, outcome in mine.items():
        assert same(replace(theirs[key], seconds=outcome.seconds), outcome)


# Without a cluster.


def test_a_runner_travels_without_the_weights_that_its_reader_has(digits: Subject, digits_task: Task) -> None:
    plan = wt.plan([digits], digits_task, audits=["score", "pruning"], effort=EFFORT)
    settle(digits, digits_task)
    small = Task(digits_task.inputs[:8].clone(), digits_task.targets[:8].clone())
    weights = sum(4 * one.numel() for one in digits.model.parameters())
    assert len(packed(TrialRunner([digits], (), small))) > weights
    sent = packed(TrialRunner([digits], (), small), [digits.model])
    assert len(sent) < weights / 2
    fresh = load("digits").subject.model
    take(sent, [fresh])
    runner = executors._bench.pop()
    assert isinstance(runner, TrialRunner)
    assert runner.subject(plan.reference.fingerprint).model is fresh
    with torch.no_grad():
        assert torch.equal(runner.scores(runner.subject(plan.reference.fingerprint)), digits.model(small.inputs))


def test_a_runner_travels_after_it_made_control_copies() -> None:
    """What it knows of a transformer's gauges holds functions that cannot be sent."""
    subject = Subject(tiny_llama(), name="llama")
    task = choices()
    plan = wt.plan([subject], task, audits=["relative-noise"], effort=EFFORT)
    assert plan.twin is not None
    runner = TrialRunner([subject], (*plan.subjects, *plan.controls), task)
    before = len(packed(runner, [subject.model]))
    runner.subject(plan.twin.fingerprint)
    assert len(packed(runner, [subject.model])) < before + 10_000  # the copy stays here


def test_another_model_at_the_same_place_is_refused(digits: Subject, digits_task: Task) -> None:
    settle(digits, digits_task)
    assert ModelReference.of(digits, "digits").model() is not digits.model
    other = Subject(copy.deepcopy(digits.model), name="digits")
    with torch.no_grad():
        other.parameter(other.layers[0].weight)[0, 0] += 1e-6
    settle(other, digits_task)
    with pytest.raises(ModelError, match="fingerprint of the model is another one") as caught:
        ModelReference.of(other, "digits").model()
    assert other.record.fingerprint[:8] in str(caught.value) and "1 part" in str(caught.value)


def test_batches_hold_every_trial_once_and_are_small(digits: Subject, digits_task: Task) -> None:
    plan = wt.plan([digits], digits_task, audits=["score"], effort=EFFORT)
    trials = [
        plan.trial(plan.reference, "gaussian-noise", dose=dose, seed=seed) for seed in range(40) for dose in (0.1, 0.2)
    ]
    parts = batches(trials, TrialRunner([], (), digits_task), 2)
    assert sorted(trial.key for part in parts for trial in part) == sorted(trial.key for trial in trials)
    assert max(map(len, parts)) <= executors.MOST and len(parts) == 4
    for part in parts:  # both doses of a draw
        assert all(sum(other.seed == trial.seed for other in part) == 2 for trial in part)


def test_a_cluster_that_is_not_there_is_said(digits: Subject, digits_task: Task) -> None:
    pytest.importorskip("ray", reason="needs ray")
    began = time.monotonic()
    with pytest.raises(UsageError, match="cannot be reached") as caught:
        wt.audit(digits, digits_task, audits="score", workers=RayCluster("127.0.0.1:1"))
    assert time.monotonic() - began < 60 and "127.0.0.1:1" in str(caught.value) and "ray start" in str(caught.value)


def test_without_ray_the_line_that_installs_it_is_said(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from wheeltap.runs.ray_cluster import _connect\n"
        "try: _connect('')\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert MissingExtra.__name__ in done.stdout and 'pip install "wheeltap[ray]"' in done.stdout


# With one.


class Nodes:
    """A real cluster on this machine: a head without processors, and nodes of one processor."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes: list[Any] = []
        self.address: str = self._cluster.address

    def add(self, name: str = "good", *, ahead: Path | None = None) -> None:
        """Starts a node; its workers find ``NODE`` in their environment, and modules in a folder before all others."""
        path = os.pathsep.join(map(str, [*([ahead] if ahead else []), self.folder, os.environ.get("PYTHONPATH", "")]))
        self._nodes.append(self._cluster.add_node(num_cpus=1, env_vars={"NODE": name, "PYTHONPATH": path}))

    def remove(self, *, kill: bool) -> None:
        """Ends the last node, or kills it, as where its power goes."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=not kill)

    def clear(self) -> None:
        while self._nodes:
            self.remove(kill=False)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="needs ray")
    folder = tmp_path_factory.mktemp("nets")
    (folder / "rayed.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "180")  # a busy machine
        patch.syspath_prepend(folder)
        nodes = Nodes(folder)
        yield nodes
        nodes.close()


@pytest.fixture
def nodes(cluster: Nodes) -> Iterator[Nodes]:
    """The cluster, with no node at first."""
    yield cluster
    cluster.clear()


def run(spec: str, store: Path, address: str = "", *, audits: tuple[str, ...] = AUDITS, **how: Any) -> wt.Report:
    """What the command line does with a spec: in one process, or on a cluster."""
    pair = load(spec)
    plan = wt.plan([pair.subject], pair.task, audits=audits, effort=EFFORT, sources=[spec])
    workers = RayCluster(address, patience=20.0) if address else 1
    return wt.run(plan, [pair.subject], pair.task, store=store, workers=workers, **how)


@pytest.mark.release
def test_a_cluster_with_a_token_says_how_to_give_it(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray")
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    start = [
        "ray",
        "start",
        "--head",
        "--block",
        "--port=6388",
        "--num-cpus=0",
        "--include-dashboard=false",
        "--temp-dir",
    ]
    with (tmp_path / "log").open("w") as log:
        head = subprocess.Popen([*start, f"/tmp/ray-{os.getpid()}"], env=env, stdout=log, stderr=log)
    try:
        while "Ray runtime started" not in (tmp_path / "log").read_text():
            assert head.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        audit = [sys.executable, "-m", "wheeltap", *["audit", "digits", "--audits", "score", "--ray", "127.0.0.1:6388"]]
        done = subprocess.run(audit, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "RAY_AUTH_MODE=token" in done.stderr, done.stderr
    finally:
        head.terminate()
        head.wait()


@pytest.mark.release
def test_two_nodes_give_the_same_numbers_to_the_bit(
    nodes: Nodes, tmp_path: Path, digits: Subject, digits_task: Task
) -> None:
    nodes.add()
    nodes.add()
    stores = [tmp_path / f"{name}.wheeltap" for name in ("serial", "spec", "sent")]
    serial = wt.audit(digits, digits_task, store=stores[0], effort=EFFORT)
    plan = wt.plan([digits], digits_task, effort=EFFORT, sources=["digits"])
    there = RayCluster(nodes.address)
    loaded = wt.run(plan, [digits], digits_task, store=stores[1], workers=there)
    sent = wt.audit(digits, digits_task, store=stores[2], effort=EFFORT, workers=there)
    assert judged(loaded) == judged(serial) == judged(sent)
    require_same(stores[0], stores[1])
    require_same(stores[0], stores[2])


@pytest.mark.release
def test_a_node_that_is_killed_costs_nothing(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add()
    nodes.add()
    serial = run("rayed:slow", tmp_path / "serial.wheeltap")
    killed = False

    def watch(state: Progress) -> None:
        nonlocal killed
        if state.done > 20 and not killed:
            killed = True
            nodes.remove(kill=True)

    with pytest.warns(UserWarning, match="A worker died on node"):
        report = run("rayed:slow", tmp_path / "ray.wheeltap", nodes.address, watch=watch)
    assert killed and judged(report) == judged(serial)
    require_same(tmp_path / "serial.wheeltap", tmp_path / "ray.wheeltap")


@pytest.mark.release
def test_a_cluster_without_nodes_ends_the_run_and_keeps_what_is_done(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add()

    def watch(state: Progress) -> None:
        if state.done == 20:
            nodes.remove(kill=True)

    with pytest.warns(UserWarning, match="A worker died"), pytest.raises(WheeltapError, match="is left"):
        run("rayed:slow", tmp_path / "ray.wheeltap", nodes.address, watch=watch)
    done = len(outcomes(tmp_path / "ray.wheeltap"))
    whole = run("rayed:slow", tmp_path / "serial.wheeltap")
    resumed = run("rayed:slow", tmp_path / "ray.wheeltap")
    assert done >= 20 and resumed.cost.trials == whole.cost.trials - done
    assert judged(resumed) == judged(whole)


@pytest.mark.release
def test_a_driver_that_is_killed_resumes(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add()
    nodes.add()
    asked = ["--audits", ",".join(AUDITS), "--draws", "4", "--quiet"]
    command = [sys.executable, "-m", "wheeltap", "audit", "rayed:slow", *asked]
    place = {**os.environ, "PYTHONPATH": f"{nodes.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    store = tmp_path / "ray.wheeltap"
    ray = [*command, "--store", str(store), "--ray", nodes.address]
    driver = subprocess.Popen(ray, env=place, cwd=tmp_path)
    while not store.exists() or len(outcomes(store)) < 30:
        assert driver.poll() is None
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = outcomes(store)
    subprocess.run(ray, env=place, cwd=tmp_path, check=True)
    subprocess.run([*command, "--store", str(tmp_path / "serial.wheeltap")], env=place, cwd=tmp_path, check=True)
    after = outcomes(store)
    # What was committed is the same row still, down to the seconds that it took.
    assert all(same(after[key], outcome) and after[key].seconds == outcome.seconds for key, outcome in before.items())
    require_same(tmp_path / "serial.wheeltap", store)


@pytest.mark.release
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unlicensed", "RuntimeError: no license on this machine"),
        ("other", "fingerprint of the model is another one"),
        ("outdated", "got wheeltap 0.0.1"),
    ],
)
def test_a_worker_that_cannot_be_used_is_named(nodes: Nodes, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "wheeltap").mkdir()
    (tmp_path / "wheeltap" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    nodes.add(name, ahead=tmp_path if name == "outdated" else None)
    with pytest.warns(UserWarning, match=said), pytest.raises(WheeltapError, match="node") as caught:
        run("rayed:quick", tmp_path / "none.wheeltap", nodes.address)
    assert "what to do" in str(caught.value)
    nodes.add()
    with pytest.warns(UserWarning, match=said):
        report = run("rayed:quick", tmp_path / "ray.wheeltap", nodes.address)
    assert judged(report) == judged(run("rayed:quick", tmp_path / "serial.wheeltap"))
    require_same(tmp_path / "serial.wheeltap", tmp_path / "ray.wheeltap")


@pytest.mark.release
def test_trials_that_kill_their_worker_are_given_up_and_the_others_run(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add()
    asked = {"audits": ("score", "pruning")}
    with (
        pytest.warns(UserWarning, match="A worker died"),
        pytest.raises(WheeltapError, match="3 workers died") as caught,
    ):
        run("rayed:fatal", tmp_path / "ray.wheeltap", nodes.address, **asked)
    assert "memory ran out" in str(caught.value) and outcomes(tmp_path / "ray.wheeltap")
    resumed = run("rayed:fatal", tmp_path / "ray.wheeltap", **asked)
    assert judged(resumed) == judged(run("rayed:fatal", tmp_path / "serial.wheeltap", **asked))
