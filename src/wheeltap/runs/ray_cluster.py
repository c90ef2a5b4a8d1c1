"""Trials on a Ray cluster: one actor a worker, outcomes committed by the driver as they come.

Ray restarts nothing and tries nothing again: the batch of a worker that dies goes back to the queue, another worker is
asked for, and the driver never waits for one. A worker that cannot be used is named, and keeps its place on its node.
"""

import os
import pickle
import socket
import warnings
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from time import monotonic
from typing import Any, Final, Self, final

import numpy as np
import torch

from wheeltap import __version__
from wheeltap.core.errors import MissingExtra, ModelError, UsageError, WheeltapError
from wheeltap.core.plain import many
from wheeltap.core.records import Trial
from wheeltap.core.settings import SMALL
from wheeltap.core.subject import Subject
from wheeltap.engine.clean import in_line
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import Commit
from wheeltap.plans.plan import Plan
from wheeltap.runs.executors import Executor, ModelReference, arithmetic, batches, folders, look_in, packed, take

_DEATHS: Final = 3
"""Workers that may die on one batch, or one after another while they load, before it is given up."""

_REACH: Final = 10.0
"""Seconds in which a cluster must take a connection, or outcomes that are there must come."""

_RESUME: Final = "What was committed is kept: run it again to resume."


@final
@dataclass(frozen=True)
class RayCluster:
    """Where workers run: ``wt.audit(net, task, workers=RayCluster("10.0.0.1:6379"))``.

    Attributes:
        address: Of the cluster; by default that of ``RAY_ADDRESS`` or of this machine, started if there is none.
        workers: At most; by default as many as the nodes have processors for.
        patience: Seconds without any worker until a run ends: a cluster that grows needs minutes for a node.
    """

    address: str = ""
    workers: int | None = None
    patience: float = 300.0


def _versions(path: str) -> tuple[str, ...]:
    return f"torch {torch.__version__}", f"numpy {np.__version__}", arithmetic(path)


def equip(payload: bytes) -> WheeltapError | None:
    """Makes this process a worker; gives what stands in the way."""
    try:
        path, versions, place, sources, runner, threads = pickle.loads(payload)  # noqa: S301 - made by our own driver
        if (own := _versions(path)) != versions:
            return UsageError(
                "This node does not compute as the one where the run was started: last bits depend on it.",
                expected=", ".join(versions), got=", ".join(own),
                do="Use nodes of one kind, with the same packages.",
            )  # fmt: skip
        look_in(place[1])
        with suppress(OSError):  # where the node has no such folder, whole paths are found all the same
            os.chdir(place[0])
        take(runner, [source.model() for source in sources], threads=threads)
    except Exception as error:  # whatever loading raises there: others may be able to
        return error if isinstance(error, WheeltapError) else ModelError(
            "A model cannot be loaded on this node.", got=in_line(error),
            do="Put the same files and packages at the same paths on every node.",
        )  # fmt: skip
    return None


def _worker_class() -> type:
    class Worker:
        """A Ray actor; sent by value, and without our imports: a node may have another wheeltap, or none."""

        def where(self) -> str:
            ray: Any = __import__("ray")
            return f"node {ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"

        def load(self, version: str, payload: bytes) -> object:
            try:
                import wheeltap
            except ImportError as error:
                return str(error)
            if wheeltap.__version__ != version:
                return f"wheeltap {wheeltap.__version__}"
            from wheeltap.runs.ray_cluster import equip

            return equip(payload)

        def work(self, trials: list[Any]) -> object:
            from wheeltap.runs.executors import work

            return work(trials)

    return Worker


@dataclass
class _Batch:
    trials: list[Trial]
    deaths: int = 0


@dataclass
class _Worker:
    """A place for a worker: its actor, the node once it is placed, and what it has in hand."""

    actor: Any = None
    node: str = ""
    ready: bool = False
    batch: _Batch | None = None
    deaths: int = 0
    refused: WheeltapError | None = None


@final
class RayExecutor(Executor):
    """Actors of a cluster, each with as many threads as the serial run; settled subjects without a spec are sent."""

    def __init__(self, cluster: RayCluster, plan: Plan, subjects: Sequence[Subject]) -> None:
        self._cluster, self._path = cluster, plan.reference.path
        small = max(record.parameters for record in plan.subjects) < SMALL
        self._threads = 1 if small else torch.get_num_threads()
        pairs = list(zip(plan.sources, subjects, strict=False))
        self._sources = tuple(ModelReference.of(subject, spec) for spec, subject in pairs)
        self._models = [subject.model for _, subject in pairs]
        self._workers, self._calls, self._lost = list[_Worker](), dict[Any, _Worker](), list[_Batch]()
        self._payload, self._seen = None, 0.0

    def __enter__(self) -> Self:
        self._ray, self._connected = _connect(self._cluster.address)
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._connected:
            self._ray.shutdown()

    def close(self) -> None:
        """See ``Executor.close``."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers, self._calls, self._payload = [], {}, None

    def run(self, trials: list[Trial], runner: TrialRunner, commit: Commit) -> float:
        """See ``Executor.run``; it goes on as long as there is a worker."""
        if not self._workers:
            self._start(runner)
        waiting, forwards = deque(map(_Batch, batches(trials, runner, len(self._workers)))), 0.0
        self._seen = monotonic()
        while waiting or any(worker.batch for worker in self._workers):
            for worker in self._workers:
                self._give(worker, waiting)
            self._require_workers()
            for call in self._ray.wait([*self._calls], num_returns=1, timeout=1.0)[0]:
                worker = self._calls.pop(call)
                got = self._answer(call, worker, waiting)
                if worker.batch is not None and got is not None:
                    worker.batch = None
                    self._give(worker, waiting)  # it works while the store is written
                    forwards += got[1]
                    for outcome in got[0]:
                        commit(outcome)
        if self._lost:
            batch = self._lost.pop()
            raise WheeltapError(
                f"{_DEATHS} workers died on the same trials; all others have run.",
                where=f"{many(len(batch.trials), 'trial')}: {batch.trials[0].perturbation}, {batch.trials[0].site}",
                do=f"Most often memory ran out: let nodes have fewer workers. {_RESUME}",
            )
        return forwards

    def _start(self, runner: TrialRunner) -> None:
        needs = {"CPU": self._threads, "GPU": int(self._path.startswith("plain/cuda"))}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(min(int(node.get(name, 0) // need) for name, need in needs.items() if need) for node in nodes)
        if (wanted := self._cluster.workers or room) < 1:
            raise UsageError(
                "No node of the Ray cluster has room for a worker.", where=self._cluster.address or None,
                expected=str(needs), got="; ".join(str({name: node.get(name, 0) for name in needs}) for node in nodes),
                do="A worker has as many threads as a run in one process: set OMP_NUM_THREADS to fewer.",
            )  # fmt: skip
        place, sent = (os.getcwd(), folders()), packed(runner, self._models)
        payload = self._path, _versions(self._path), place, self._sources, sent, self._threads
        self._payload = self._ray.put(pickle.dumps(payload))
        self._kind = self._ray.remote(_worker_class()).options(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_restarts=0, max_task_retries=0,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        self._workers = [_Worker() for _ in range(wanted)]
        for worker in self._workers:
            self._place(worker)

    def _place(self, worker: _Worker) -> None:
        worker.actor, worker.node, worker.ready = self._kind.remote(), "", False
        self._calls[worker.actor.where.remote()] = worker

    def _give(self, worker: _Worker, waiting: deque[_Batch]) -> None:
        if worker.ready and worker.batch is None and waiting:
            worker.batch = waiting.popleft()
            self._calls[worker.actor.work.remote(worker.batch.trials)] = worker

    def _answer(self, call: Any, worker: _Worker, waiting: deque[_Batch]) -> Any:
        """What a worker made of its batch; nothing where it answered something else, or died."""
        try:
            got = self._ray.get(call, timeout=_REACH)
        except self._ray.exceptions.RayTaskError as error:  # raised by what it did: the same would happen elsewhere
            if worker.batch is None:
                return self._refuse(worker, in_line(error))
            failed = WheeltapError("A worker of the cluster failed.", where=worker.node, got=in_line(error), do=_RESUME)
            raise (error.cause if isinstance(error.cause, WheeltapError) else failed) from error
        except self._ray.exceptions.RayError as error:  # its process or node is not there any more
            return self._bury(worker, in_line(error), waiting)
        if worker.batch is not None:
            return got
        if not worker.node:
            worker.node = got
            self._calls[worker.actor.load.remote(__version__, self._payload)] = worker
        elif got is not None:
            self._refuse(worker, got)
        else:
            worker.ready, worker.deaths = True, 0
        return None

    def _bury(self, worker: _Worker, because: str, waiting: deque[_Batch]) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor)  # one that is cut off must not go on
        if worker.node:
            warnings.warn(f"A worker died on {worker.node}, and another is asked for: {because}", stacklevel=2)
        if worker.batch is None:  # a node that is gone may be asked for a while still: that is no fault of a worker
            worker.deaths += bool(worker.node)
        else:
            worker.batch.deaths += 1
            (self._lost.append if worker.batch.deaths == _DEATHS else waiting.appendleft)(worker.batch)
        worker.batch = None
        if worker.deaths == _DEATHS:
            self._refuse(worker, f"{_DEATHS} that died while they loaded the models: {because}")
        else:
            self._place(worker)

    def _refuse(self, worker: _Worker, got: str | WheeltapError) -> None:
        """Names a worker that cannot be used; the run goes on with the others."""
        if isinstance(got, str):
            got = UsageError(
                "A worker of the Ray cluster cannot be used.", expected=f"wheeltap {__version__}", got=got,
                do="Install the same wheeltap, with the same packages, on every node.",
            )  # fmt: skip
        worker.refused = got.at(": ".join(filter(None, (worker.node, got.where))))
        warnings.warn(worker.refused.in_line(), stacklevel=2)

    def _require_workers(self) -> None:
        refused = [worker.refused for worker in self._workers if worker.refused is not None]
        if len(refused) == len(self._workers):
            raise refused[0]
        if any(worker.node and worker.refused is None for worker in self._workers):
            self._seen = monotonic()
        elif monotonic() - self._seen > self._cluster.patience:
            raise WheeltapError(
                "No worker of the Ray cluster is left.", expected=f"one within {self._cluster.patience:g} s",
                got=f"free there: {self._ray.available_resources().get('CPU', 0):g} CPU",
                do=f"See what runs there: ray status. {_RESUME}",
            )  # fmt: skip


def _connect(address: str) -> tuple[Any, bool]:
    """Ray, and whether it was connected here."""
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise MissingExtra("ray", "ray", needed_for="workers on a Ray cluster") from error
    if ray.is_initialized():
        return ray, False
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=_REACH).close()
        ray.init(address=address or None, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (OSError, RuntimeError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS")
        if "AuthToken" in str(error.__cause__):
            raise UsageError(
                "The Ray cluster takes nobody without its token.", where=where,
                expected="the token of the cluster, in ~/.ray/auth_token or RAY_AUTH_TOKEN", got="none, or another",
                do="Set RAY_AUTH_MODE=token. The token: ray get-auth-token, on the machine where the cluster started.",
            ) from error  # fmt: skip
        raise UsageError(
            "The Ray cluster cannot be reached.", where=where,
            expected="the address of a running cluster, such as 10.0.0.1:6379", got=in_line(error),
            do="Start it: ray start --head. Its address is in: ray status.",
        ) from error  # fmt: skip
    return ray, True
