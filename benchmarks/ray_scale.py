"""``python -m benchmarks.ray_scale [--workers 64] [--trials 20000] [--seconds 0.3]``.

Workers of a Ray cluster on this machine that sleep in the place of trials, from half to one and a half of the seconds
each. The executor that asks them and the store that keeps their outcomes are the real ones: how many of the workers are
kept busy, and how much memory does the driver take?
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from wheeltap.core.records import Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Outcomes, Store
from wheeltap.runs import ray_cluster
from wheeltap.runs.ray_cluster import RayCluster, RayExecutor
from wheeltap.sources import load

VALUES = 448
"""Numbers of an outcome: as many as of two measures on 224 examples."""


def sleeping(seconds: float) -> type:
    """Workers that load nothing."""

    class Sleeper(ray_cluster._worker_class()):  # type: ignore[misc]
        def load(self, version: str, payload: bytes) -> None:
            pass

        def work(self, trials: list[Trial]) -> tuple[list[Outcome], float]:
            outcomes = []
            for trial in trials:
                slept = seconds * (0.5 + (trial.seed * 0.618034) % 1.0)
                time.sleep(slept)
                values = np.full(VALUES, trial.seed, dtype=np.float32)
                outcomes.append(Outcome(key=trial.key, status="done", values={"nll": values}, seconds=slept))
            return outcomes, float(len(trials))

    return Sleeper


def memory() -> float:
    """Of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=0.3)
    asked = parser.parse_args()
    task = load("digits").task
    record = SubjectRecord(name="sleeping", fingerprint="sleeping", parameters=1)
    known = TaskRecord(name="none", digest="none", examples=1, measure="accuracy", measures=("nll",))
    plan = Plan(command="simulated", subjects=(record,), task=known, audits=())
    trials = [plan.trial(record, "gaussian", dose=0.1, seed=seed) for seed in range(asked.trials + asked.workers)]
    workers = sleeping(asked.seconds)
    ray_cluster._worker_class = lambda: workers
    ray.init(num_cpus=asked.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "scale.wheeltap") as store:
        lookup, slept, writing, done, seen = Outcomes(store), [0.0], [0.0], [0], list[str]()

        def commit(outcome: Outcome) -> None:
            began = time.perf_counter()
            lookup.put(outcome)
            writing[0] += time.perf_counter() - began
            slept[0] += outcome.seconds
            done[0] += 1
            if done[0] % (asked.trials // 8) == 0:
                seen.append(f"{memory():.0f}")

        runner: Any = TrialRunner([], (record,), task)
        with RayExecutor(RayCluster(workers=asked.workers), plan, []) as executor:
            executor.run(trials[: asked.workers], runner, commit)  # until all workers are there
            while not all(worker.ready for worker in executor._workers):
                executor.run(trials[:1], runner, lambda outcome: None)
            slept[0] = writing[0] = 0.0
            began, used, before = time.perf_counter(), time.process_time(), memory()
            executor.run(trials[asked.workers :], runner, commit)
            took, used = time.perf_counter() - began, time.process_time() - used
        print(f"{asked.workers} workers, {asked.trials:,} trials in {took:.1f} s")
        print(f"busy: {slept[0] / asked.workers / took:.1%}")
        print(
            f"driver: {used:.1f} s of CPU, {writing[0]:.1f} s of the clock in the store, {len(store.keys()):,} outcomes there"
        )
        print(
            f"memory of the driver in MB: {before:.0f} before, then {', '.join(seen)}; numbers alone {asked.trials * VALUES * 4 / 2**20:.0f}"
        )


if __name__ == "__main__":
    main()
