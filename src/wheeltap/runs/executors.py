"""Where trials run: in this process, or in a pool of others; outcomes are committed by one hand either way."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self, final

import torch

from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.core.records import Outcome, Trial
from wheeltap.engine.trial_runner import Commit, TrialRunner, run_trials


def run_here(trials: list[Trial], runner: TrialRunner, commit: Commit) -> float:
    """Runs trials in this process, on the subjects as they were given; gives the forwards spent."""
    before = runner.forwards
    run_trials(trials, runner, commit)
    return runner.forwards - before


@final
class ProcessPool:
    """A pool of worker processes, each with its own copy of the subjects, on one thread each.

    A context: workers are kept from one run to the next, and end with it. The copies travel between our own processes
    only; nothing is read from a file. What was imported here can be imported there: the workers look for modules in
    the same folders.

    Args:
        workers: Number of processes.

    Raises:
        UsageError: If ``workers`` is below 1, a model's class cannot be imported by another process, or this is a
            worker that imports a script which starts workers whenever it is imported.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UsageError("A process pool needs workers.", expected="1 or more", got=str(workers))
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise UsageError(
                "This script starts worker processes whenever it is imported, and each of them imports it.",
                where=sys.argv[0],
                expected=f"a script that runs nothing when it is imported ({_GUARD})",
                do=_GUARDED,
            )
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._ends: tuple[Connection, Connection] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._let_go()  # whoever stops a run need not wait for the nets that are being trained
        self.close()

    def run(self, trials: list[Trial], runner: TrialRunner, commit: Commit) -> float:
        """Runs trials and gives the forwards spent; ``commit`` is called in the calling process.

        Raises:
            UsageError: If what runs them cannot be sent to other processes.
            WheeltapError: If a worker dies.
        """
        if self._pool is None:
            self._pool = self._started(runner)
        pool, forwards = self._pool, 0.0
        waiting = [pool.submit(_work, part) for part in self._parts(trials, runner)]
        try:
            for future in as_completed(waiting):
                outcomes, spent = future.result()
                forwards += spent
                for outcome in outcomes:
                    commit(outcome)
        except BrokenProcessPool as error:
            raise WheeltapError(
                "A worker process died.",
                got=str(error),
                do="Most often memory ran out: use fewer workers. What was committed is kept; run again to resume.",
            ) from error
        finally:
            for future in waiting:
                future.cancel()
        return forwards

    def close(self) -> None:
        """Ends the workers."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._let_go()

    def _let_go(self) -> None:
        """Ends the workers in the middle of what they do."""
        for end in self._ends or ():
            end.close()
        self._ends = None

    def _started(self, runner: TrialRunner) -> ProcessPoolExecutor:
        try:
            payload = pickle.dumps(runner)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise _not_sent(error) from error
        self._ends = _CONTEXT.Pipe(duplex=False)
        stated = (payload, _folders(), self._ends[0])
        pool = ProcessPoolExecutor(self.workers, mp_context=_CONTEXT, initializer=_set_up, initargs=stated)
        try:
            pool.submit(_ready).result()  # a script that is not guarded ends each worker before it is set up
        except BrokenProcessPool as error:
            pool.shutdown()
            self._let_go()
            raise WheeltapError(
                "The worker processes did not start.",
                expected=f"a script that runs nothing when it is imported ({_GUARD}), and memory for every worker",
                got=str(error),
                do=f"{_GUARDED} If it has that, use fewer workers: their memory may have run out.",
            ) from error
        return pool

    def _parts(self, trials: list[Trial], runner: TrialRunner) -> list[list[Trial]]:
        """Parts of one subject and perturbation each, with every dose of a draw together; and batches of members."""
        lots: dict[tuple[object, ...], list[Trial]] = {}
        for trial in trials:
            if trial.kind == "make":
                continue
            lot = trial.subject, trial.perturbation, str(trial.site), trial.seed % self.workers
            lots.setdefault(lot, []).append(trial)
        makings = [trial for trial in trials if trial.kind == "make"]
        return [*runner.batches(makings, parts=self.workers), *lots.values()]


def _not_sent(error: Exception) -> UsageError:
    return UsageError(
        "The model cannot be sent to worker processes.",
        expected="a class that can be imported (not one made inside a function or in a notebook)",
        got=str(error),
        do="Move the model's class into a module, or use one process (workers=1).",
    )


_GUARD = 'if __name__ == "__main__":'
_GUARDED = f"Put what runs the audit under {_GUARD}, or use one process (workers=1)."


def _folders() -> list[str]:
    """Where modules are looked for here, and the folders of those that were imported from anywhere else."""
    found = [entry or os.getcwd() for entry in sys.path]
    for name, module in list(sys.modules.items()):
        spec: ModuleSpec | None = getattr(module, "__spec__", None)
        if "." in name or spec is None or spec.name != name or PathFinder.find_spec(name) is not None:
            continue
        if spec.submodule_search_locations is not None:
            found += [str(Path(folder).resolve().parent) for folder in spec.submodule_search_locations]
        elif isinstance(spec.loader, SourceFileLoader) and spec.origin is not None:
            found.append(str(Path(spec.origin).resolve().parent))
    return found


_CONTEXT = multiprocessing.get_context("spawn")

_bench: list[TrialRunner | Exception] = []


def _leave(parent: Connection) -> None:
    """Ends this worker when the one that started it closes its end, or dies: trainings go on from their last state."""
    parent.poll(None)  # nothing is ever sent
    os._exit(0)


def _set_up(payload: bytes, folders: list[str], parent: Connection) -> None:
    # Ctrl-C reaches every process of a terminal: the one that started the workers ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave, args=(parent,), daemon=True).start()
    sys.path.extend(folder for folder in dict.fromkeys(folders) if folder not in sys.path)
    torch.set_num_threads(1)
    try:
        try:
            _bench.append(pickle.loads(payload))  # noqa: S301 - made by our own parent process a moment ago
        except KeyError:  # what another thread is importing is missing from sys.modules for a moment
            _bench.append(pickle.loads(payload))  # noqa: S301
    except Exception as error:
        # Raised here it would look as if the worker had died; it is reported with the first work.
        _bench.append(error)


def _ready() -> None:
    """Done as soon as a worker is set up."""


def _work(trials: list[Trial]) -> tuple[list[Outcome], float]:
    runner, outcomes = _bench[0], list[Outcome]()
    if isinstance(runner, Exception):
        raise _not_sent(runner)
    return outcomes, run_here(trials, runner, outcomes.append)
