"""Where trials run: in this process, or in a pool of others; outcomes are committed by one hand either way."""

import io
import multiprocessing
import os
import pickle
import platform
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Self, final

import torch
from torch import nn

from wheeltap.core.errors import ModelError, UsageError, WheeltapError
from wheeltap.core.fingerprint import Identity, identify
from wheeltap.core.plain import many
from wheeltap.core.records import Outcome, SubjectRecord, Trial
from wheeltap.core.subject import Subject
from wheeltap.core.typed import named_modules
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import Commit, run_trials
from wheeltap.sources.specs import load_model


def run_here(trials: list[Trial], runner: TrialRunner, commit: Commit) -> float:
    """Runs trials in this process, on the subjects as they were given; gives the forwards spent."""
    before = runner.forwards
    run_trials(trials, runner, commit)
    return runner.forwards - before


class Executor(ABC):
    """Who runs trials elsewhere. A context: its workers are kept from one run to the next, and end with it."""

    @abstractmethod
    def run(self, trials: list[Trial], runner: TrialRunner, commit: Commit) -> float:
        """Runs trials and gives the forwards spent; ``commit`` is called in the calling process.

        Raises:
            WheeltapError: If what runs them cannot be sent, or nobody is left to run them.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the workers: the next run starts others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


MOST: Final = 32
"""Trials of a batch at most: what is lost with a worker, and what the others may have to wait for in the end."""


def batches(trials: Iterable[Trial], runner: TrialRunner, workers: int) -> list[list[Trial]]:
    """Batches of members; and parts of one subject and perturbation each, doses of a draw together, for each worker."""
    lots, makings = dict[tuple[object, ...], list[Trial]](), list[Trial]()
    for trial in trials:
        lot = trial.subject, trial.perturbation, str(trial.site), trial.seed % workers
        (makings if trial.kind == "make" else lots.setdefault(lot, [])).append(trial)
    parts = [lot[at : at + MOST] for lot in lots.values() for at in range(0, len(lot), MOST)]
    return [*runner.batches(makings, parts=workers), *parts]


@final
class ProcessPool(Executor):
    """A pool of worker processes, each with its own copy of the subjects, on one thread each.

    The copies travel between our own processes only; nothing is read from a file. What was imported here can be
    imported there: the workers look for modules in the same folders.

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

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._let_go()  # whoever stops a run need not wait for the nets that are being trained
        super().__exit__(*error)

    def run(self, trials: list[Trial], runner: TrialRunner, commit: Commit) -> float:
        """See ``Executor.run``; a worker that dies ends the run."""
        if self._pool is None:
            self._pool = self._started(runner)
        pool, forwards = self._pool, 0.0
        waiting = [pool.submit(work, part) for part in batches(trials, runner, self.workers)]
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
        """See ``Executor.close``."""
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
        payload = packed(runner)
        self._ends = _CONTEXT.Pipe(duplex=False)
        stated = (payload, folders(), self._ends[0])
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


def not_sent(error: Exception) -> UsageError:
    """What to say where a model does not get to another process."""
    return UsageError(
        "The model cannot be sent to worker processes.",
        expected="a class that can be imported (not one made inside a function or in a notebook)",
        got=str(error),
        do="Move the model's class into a module, or use one process (workers=1).",
    )


_GUARD = 'if __name__ == "__main__":'
_GUARDED = f"Put what runs the audit under {_GUARD}, or use one process (workers=1)."


def folders() -> list[str]:
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


@final
@dataclass(frozen=True)
class ModelReference:
    """How another process gets a model without its weights being sent; ``initial``: its identity as loaded here."""

    spec: str
    record: SubjectRecord
    initial: Identity
    volatile: Set[str]

    @classmethod
    def of(cls, subject: Subject, spec: str) -> Self:
        """That of a subject that is settled."""
        assert subject.settled is not None, "settle first"
        return cls(spec, subject.record, subject.settled.initial, subject.settled.volatile)

    def model(self) -> nn.Module:
        """The same model, loaded here.

        Raises:
            WheeltapError: If it cannot be loaded, or is another one.
        """
        loaded = load_model(self.spec, name=self.record.name)
        if self.record.output is not None:
            loaded.choose(self.record.output)
        if other := sorted(identify(loaded.model).differing(self.initial) - self.volatile):
            raise ModelError(
                "The fingerprint of the model is another one on this node.", where=self.spec,
                expected=f"{self.record.fingerprint[:8]}, as where the run was started",
                got=f"{many(len(other), 'part')} that differ: {', '.join(other[:3])}",
                do="Put the same files and code at the same path on every node.",
            )  # fmt: skip
        return loaded.model


def _parts(models: Sequence[nn.Module]) -> dict[tuple[int, str, str], object]:
    """Modules and weights of models by name."""
    return {
        (at, kind, name): part
        for at, model in enumerate(models)
        for kind, several in (
            ("buffer", model.named_buffers()), ("weight", model.named_parameters()), ("module", named_modules(model)),
        )
        for name, part in several
    }  # fmt: skip


def packed(runner: TrialRunner, models: Sequence[nn.Module] = ()) -> bytes:
    """A runner for another of our own processes, without these models and their weights: the other has them.

    Raises:
        UsageError: If something of it cannot be sent.
    """
    file, names = io.BytesIO(), {id(part): name for name, part in _parts(models).items()}
    pickler: Any = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.persistent_id = lambda part: names.get(id(part))  # pyright: ignore
    try:
        pickler.dump(runner)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise not_sent(error) from error
    return file.getvalue()


def take(payload: bytes, models: Sequence[nn.Module] = (), *, threads: int = 1) -> None:
    """Makes this process one that runs trials: it takes what another one ``packed``, and models for those left out."""
    torch.set_num_threads(threads)
    parts = _parts(models)
    unpickler: Any = pickle.Unpickler(io.BytesIO(payload))  # noqa: S301 - made by our own process a moment ago
    unpickler.persistent_load = parts.__getitem__
    _bench[:] = [unpickler.load()]


def look_in(found: Iterable[str]) -> None:
    """Looks for modules in these folders too."""
    sys.path.extend(folder for folder in dict.fromkeys(found) if folder not in sys.path)


def arithmetic(path: str) -> str:
    """Of this machine, as far as last bits of trials with this numerical path depend on it."""
    if path.startswith("plain/cuda"):
        return torch.cuda.get_device_name()
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


_CONTEXT = multiprocessing.get_context("spawn")

_bench: list[TrialRunner | Exception] = []


def _leave(parent: Connection) -> None:
    """Ends this worker when the one that started it closes its end, or dies: trainings go on from their last state."""
    parent.poll(None)  # nothing is ever sent
    os._exit(0)


def _set_up(payload: bytes, found: list[str], parent: Connection) -> None:
    # Ctrl-C reaches every process of a terminal: the one that started the workers ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave, args=(parent,), daemon=True).start()
    look_in(found)
    try:
        try:
            take(payload)
        except KeyError:  # what another thread is importing is missing from sys.modules for a moment
            take(payload)
    except Exception as error:
        # Raised here it would look as if the worker had died; it is reported with the first work.
        _bench[:] = [error]


def _ready() -> None:
    """Done as soon as a worker is set up."""


def work(trials: list[Trial]) -> tuple[list[Outcome], float]:
    """What a worker does with a batch: its outcomes, and the forwards spent."""
    runner, outcomes = _bench[0], list[Outcome]()
    if isinstance(runner, Exception):
        raise not_sent(runner)
    return outcomes, run_here(trials, runner, outcomes.append)
