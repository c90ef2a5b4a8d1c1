"""Workers on a Ray cluster give what one process gives; nodes, workers and drivers that die lose nothing."""

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from store_outcomes import judged, same, stored

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.clean import settle
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.runs import executors
from wheeltap.runs.executors import ModelReference, batches, packed, take
from wheeltap.runs.pace import Progress
from wheeltap.runs.ray_cluster import RayCluster
from wheeltap.sources import load

EFFORT = wt.Effort(draws=4, control_draws=4, block_draws=2)
AUDITS = ("score", "relative-noise")

NETS = """
import time, torch
from torch import nn
import wheeltap as wt

class Net(nn.Module):
    def __init__(self, pause):
        super().__init__()
        self.pause, self.a, self.b = pause, nn.Linear(8, 16), nn.Linear(16, 4)
    def forward(self, x):
        time.sleep(self.pause)
        return self.b(self.a(x).relu())

def made(pause):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = Net(pause).eval()
        torch.manual_seed(9)
        x = torch.randn(120, 8)
        return net, wt.Task(x, net(x).argmax(-1))

def slow():
    return made(0.05)
"""


def require_same(one: Path, two: Path) -> None:
    """Both stores hold the same trials with the same numbers to the bit."""
    mine, theirs = stored(one), stored(two)
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


def test_another_model_at_the_same_place_is_refused(digits: Subject, digits_task: Task) -> None:
    settle(digits, digits_task)
    assert ModelReference.of(digits, "digits").model() is not digits.model
    other = Subject(copy.deepcopy(digits.model), name="digits")
    with torch.no_grad():
        other.parameter(other.layers[0].weight)[0, 0] += 1e-6
    settle(other, digits_task)
    with pytest.raises(ModelError):
        ModelReference.of(other, "digits").model()


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


# With one.


class Nodes:
    """A real cluster on this machine: a head without processors, and nodes of one processor."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes: list[Any] = []
        self.address: str = self._cluster.address

    def add(self) -> None:
        """Start a node."""
        path = f"{self.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        self._nodes.append(self._cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path}))

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
