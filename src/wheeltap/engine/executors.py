"""Executors: where trials run. One process, or a pool of them; outcomes are committed by one hand either way."""

import multiprocessing
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import final

import torch

from wheeltap.engine.run import Commit, run_trials
from wheeltap.engine.workshop import Workshop
from wheeltap.errors import UsageError, WheeltapError
from wheeltap.records import Outcome, Trial


class Executor(ABC):
    """Carries out trials; ``commit`` is always called in the calling process."""

    @abstractmethod
    def run(self, trials: list[Trial], make: Callable[[], Workshop], commit: Commit) -> float:
        """Runs ``trials`` and gives the forwards spent. ``make`` makes the workshop when it is first needed."""


@final
class Serial(Executor):
    """Everything in this process, on the subject as it was given."""

    def run(self, trials: list[Trial], make: Callable[[], Workshop], commit: Commit) -> float:
        """See ``Executor.run``."""
        workshop = make()
        before = workshop.forwards
        run_trials(trials, workshop, commit)
        return workshop.forwards - before


@final
class ProcessPool(Executor):
    """A pool of worker processes, each with its own copy of the subjects, on one thread each.

    The copies travel between our own processes only; nothing is read from a file.

    Args:
        workers: Number of processes.

    Raises:
        UsageError: If ``workers`` is below 1, or a model's class cannot be imported by another process.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UsageError("A process pool needs workers.", expected="1 or more", got=str(workers))
        self.workers = workers

    def run(self, trials: list[Trial], make: Callable[[], Workshop], commit: Commit) -> float:
        """See ``Executor.run``."""
        workshop = make()
        try:
            payload = pickle.dumps(workshop)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(
                "The model cannot be sent to worker processes.",
                expected="a class that can be imported (not one made inside a function or in a notebook)",
                got=str(error),
                do="Move the model's class into a module, or use one process (workers=1).",
            ) from error
        context = multiprocessing.get_context("spawn")
        forwards = 0.0
        with ProcessPoolExecutor(self.workers, mp_context=context, initializer=_set_up, initargs=(payload,)) as pool:
            waiting: list[Future[_Done]] = [pool.submit(_work, part) for part in self._parts(trials)]
            try:
                for future in as_completed(waiting):
                    done = future.result()
                    forwards += done.forwards
                    for outcome in done.outcomes:
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

    def _parts(self, trials: list[Trial]) -> list[list[Trial]]:
        """Parts of one subject and perturbation each, with every dose of a draw together."""
        lots: dict[tuple[object, ...], list[Trial]] = {}
        for trial in trials:
            lots.setdefault((trial.subject, trial.perturbation, str(trial.site), trial.seed % self.workers), []).append(
                trial
            )
        return list(lots.values())


@dataclass(frozen=True)
class _Done:
    outcomes: list[Outcome]
    forwards: float


_bench: list[Workshop] = []


def _set_up(payload: bytes) -> None:
    torch.set_num_threads(1)
    _bench.append(pickle.loads(payload))  # noqa: S301 - made by our own parent process a moment ago


def _work(trials: list[Trial]) -> _Done:
    workshop, outcomes = _bench[0], list[Outcome]()
    before = workshop.forwards
    run_trials(trials, workshop, outcomes.append)
    return _Done(outcomes, workshop.forwards - before)
