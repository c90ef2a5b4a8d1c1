"""The loop: asks for trials, carries out what the store lacks, asks again, and judges."""

import platform
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypedDict, Unpack

import numpy as np
import torch

from wheeltap import __version__
from wheeltap.audits.settle import audits_of, more_may_follow, wanted
from wheeltap.audits.settle import judge as judged
from wheeltap.core.errors import FileError, UsageError
from wheeltap.core.records import Cost, Outcome, Scalar, Trial
from wheeltap.core.settings import SMALL
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.clean import require_repeatable, settle, settled_since_planned
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.plans.plan import Plan
from wheeltap.plans.shard import Shard, ShardNote, put_shard_note, shard_of
from wheeltap.plans.store import Outcomes, Store
from wheeltap.report.origin import NOT_REUSED, unfinished
from wheeltap.report.report import Report
from wheeltap.runs.executors import Executor, ProcessPool, arithmetic, run_here
from wheeltap.runs.given import Model, subjects_of
from wheeltap.runs.merging import begin, reworded
from wheeltap.runs.pace import MakingProgress, Progress, Watch, in_cell
from wheeltap.runs.planning import require_installed, require_named, settled_on
from wheeltap.runs.ray_cluster import RayCluster, RayExecutor
from wheeltap.runs.request import Given, door, whole_of
from wheeltap.runs.reuse import require_reusable, reusable, set_variants
from wheeltap.runs.shipping import FileShelf
from wheeltap.runs.stored import note_run, noted, require_audits, unread
from wheeltap.runs.studying import MemberMaker
from wheeltap.sources.examples import Examples, task_of


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where outcomes are kept, and who computes them.

    Attributes:
        store: File that keeps every outcome; a rerun resumes. In a temporary file if not given.
        workers: Processes; 1 runs in this one. Or a ``wheeltap.runs.ray_cluster.RayCluster``: see docs/cluster.md.
        watch: Called after each trial; where this process makes a member, several times a second too. What it raises
            ends the run, and what was measured or made so far is kept. By default, in a cell of a notebook, a line.
        memory: Bytes that may be used beside the models themselves; what does not fit goes a slower way.
        shard: ``3/8`` runs the fourth of eight shares of the trials, into a store of its own; the report is unfinished
            until ``runs.merging.merge`` has put the stores together. See docs/cluster.md.
        base: Of a shard: the merged store of the rounds before; one that is not there holds nothing yet.
    """

    store: str | Path | None = None
    workers: int | RayCluster = 1
    watch: Watch | None = None
    memory: int | None = None
    shard: str | None = None
    base: str | Path | None = None

    def limits(self) -> tuple[int | RayCluster, int | None]:
        """Return the workers and the memory.

        Raises:
            UsageError: If one of them is no whole number, or too small.
        """
        workers, memory = self.workers, self.memory
        if not isinstance(workers, RayCluster):
            workers = whole_of(workers, name="workers", least=1)
        if memory is not None:
            memory = whole_of(memory, name="memory", least=1, do="Give bytes: memory=4_000_000_000 is 4 GB.")
        return workers, memory


class ExecutionOptions(TypedDict, total=False):
    """Fields of ``Execution`` as keywords."""

    store: str | Path | None
    workers: int | RayCluster
    watch: Watch | None
    memory: int | None
    shard: str | None
    base: str | Path | None


@door(Execution)
def run(
    plan: Plan,
    subjects: Model | Sequence[Model],
    task: Examples,
    *,
    members: MemberMaker | None = None,
    given: Given | None = None,
    again: str = "",
    **asked: Unpack[ExecutionOptions],
) -> Report:
    """Run what the store lacks of a plan, and judge.

    Args:
        plan: What to run.
        subjects: The models it names; a bare module is called as its class.
        task: The examples it names: a task, or what one is made of (see ``sources.examples.task_of``).
        members: Who makes or loads the subjects that are not given: see ``PlannedStudy.members``.
        given: Functions that give models as they are shipped, by the names that they have among the schemes.
        again: The command that started it, which resumes it; kept in the store and said where it is not over.
        asked: What is passed on.

    Raises:
        UsageError: If the subjects or the task are not those of the plan, or lack what its settings name.
        StoreError: If the store cannot be used.
        ModelError: If a clean pass is not finite or not repeatable.
    """
    how = Execution(**asked)
    store, workers, memory = how.store, *how.limits()
    shard = shard_of(how.shard, store=store, base=how.base)
    require_audits(plan, where="the plan")
    several, task = subjects_of(subjects) if subjects else [], task_of(task)
    if task.digest != plan.task.digest:
        task = settled_on(task, several, measure=plan.task.measure)
    settled = [settled_since_planned(subject, task) for subject in several]
    set_variants(several)
    _require_same(plan, several, task, members)
    require_named(plan, several, task)
    with ExitStack() as stack:
        pool = _pool(stack, workers, plan, several)
        kept = stack.enter_context(_temporary(stack) if store is None else Store(store))
        shelf = FileShelf(plan.files, given) if plan.files else None
        records = (*plan.subjects, *plan.controls)
        runner = TrialRunner(several, records, task, memory=memory, maker=members, shelf=shelf)
        # What another shard's trial failed with is known here: this one cannot try it again.
        lookup = Outcomes(kept, retry=shard is None)
        where = kept.path.name
        if shard is None:
            # Nothing is stored yet in a new store: members that code gives need not be loaded twice then.
            members_by_code = members.loaded_by_code(task) if members is not None and kept.keys() else ()
            reuse = reusable(plan, [*several, *members_by_code], runner, lookup, where=where)
            plan = reuse.plan
            note_run(kept, plan, provenance(plan, reuse.reason), again)
        else:
            note_run(kept, plan, provenance(plan), reworded(again, shard=str(shard)))
            begin(kept, plan, ShardNote(shard=shard, arithmetic=arithmetic(plan.reference.path)), how.base)
            require_reusable(plan, several, runner, lookup, where=where)
        running = _Run(plan, runner, lookup, pool, how.watch or stack.enter_context(in_cell()), shard)
        running.take(members)
        running.spent = sum(passes.forwards for passes in settled) + runner.forwards
        return running.finish()


def _pool(
    stack: ExitStack, workers: int | RayCluster, plan: Plan, subjects: Sequence[Subject]
) -> RayExecutor | ProcessPool | None:
    """The workers, which end with the stack; None where this process does the work."""
    if isinstance(workers, RayCluster):
        return stack.enter_context(RayExecutor(workers, plan, subjects))
    return None if workers == 1 else stack.enter_context(ProcessPool(workers))


def _temporary(stack: ExitStack) -> Store:
    """A store that lasts as long as the stack."""
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wheeltap-"))
    except OSError as error:
        raise FileError.of(
            error, what="There is no folder for temporary files.",
            do="Give a store (--store FILE), or a folder that can be written: TMPDIR.",
        ) from error  # fmt: skip
    return Store(Path(folder) / "run.wheeltap", key=secrets.token_bytes())  # of this run alone: it need not be kept


def _require_same(plan: Plan, subjects: list[Subject], task: BaseTask, members: MemberMaker | None) -> None:
    got = [(s.name, s.record.fingerprint) for s in subjects]
    given = (s for s in plan.subjects if members is None or not members.has(s))
    expected = [(s.name, s.fingerprint) for s in given]
    if got != expected or task.digest != plan.task.digest:
        what = "task" if got == expected else "subjects"
        others = {name for name, _ in {*expected} - {*got}}
        for subject in subjects if task.digest == plan.task.digest else ():
            if subject.name in others and subject.settled is not None:
                require_repeatable(subject, subject.settled.scores, settle(subject, task).scores)
        raise UsageError(
            f"The plan was made for other {what}.",
            expected=", ".join(f"{n} ({f[:8]})" for n, f in expected) + f" on task {plan.task.digest[:8]}",
            got=", ".join(f"{n} ({f[:8]})" for n, f in got) + f" on task {task.digest[:8]}",
            do="Weights, examples or code changed since: make a new plan. If you changed nothing, the model is another "
            "one each time it is loaded or called (random numbers, a counter, the clock): seed that, or switch it off.",
        )


class _Run:
    """One run of a plan: asks, carries out what is missing, asks again, until nothing new is wanted."""

    def __init__(
        self, plan: Plan, runner: TrialRunner, lookup: Outcomes, pool: Executor | None, watch: Watch | None,
        shard: Shard | None,
    ) -> None:  # fmt: skip
        self.plan, self.runner, self.store, self.pool, self.watch = plan, runner, lookup.store, pool, watch
        self.shard = shard
        self.lookup, self.audits = lookup, audits_of(plan)
        self.members: MemberMaker | None = None
        self.done = self.total = 0
        self.making = self.growing = False
        self.spent = self.before = 0.0
        self.ended: Exception | None = None

    def take(self, members: MemberMaker | None) -> None:
        """Who makes what is missing: what other processes make is seen when it is there."""
        self.members = members
        if members is not None:
            members.watch = self.watch_making if self.pool is None else None

    def finish(self) -> Report:
        began = perf_counter()
        ignored, required = unread(self.store), wanted(self.plan, self.lookup, self.audits)
        asked = self._missing(required)
        now = {trial.key for trial in asked}
        reused = sum(self.lookup(trial.key) is not None and trial.key not in now for trial in required)
        while asked:
            asked = [*self._passed_again(asked), *asked]
            self._tell_clean(asked)
            kinds = {trial.kind for trial in asked}
            self.before, self.making = self.runner.forwards, kinds == {"make"}
            # Makings are all known from the start, and have a time left of their own.
            self.growing = not self.making and (
                kinds == {"clean"} or more_may_follow(self.plan, self.lookup, self.audits)
            )
            # Clean passes are compared with each other, so they stay in one process.
            run = run_here if self.pool is None or kinds == {"clean"} else self.pool.run
            self.spent += run(asked, self.runner, self._commit)
            if "make" in kinds and self.pool is not None:
                self.pool.close()  # its workers do not know what was made
            asked = self._missing(wanted(self.plan, self.lookup, self.audits))
        cost = Cost(forwards=self.spent, seconds=perf_counter() - began, trials=self.done, reused=reused)
        found = judged(self.plan, self.lookup, cost=cost, provenance={**noted(self.store, self.plan.key), **ignored})
        if self.shard is None:
            return Report(found)
        note = ShardNote(shard=self.shard, arithmetic=arithmetic(self.plan.reference.path), finished=True)
        put_shard_note(self.store, self.plan.key, note)
        left = sum(self.lookup(trial.key) is None for trial in wanted(self.plan, self.lookup, self.audits))
        return Report(unfinished(found, left, shard=str(self.shard)))

    def _missing(self, required: Sequence[Trial]) -> list[Trial]:
        asked = [trial for trial in required if self.lookup(trial.key) is None]
        asked = [trial for trial in asked if self.shard is None or self.shard.has(trial)]
        asked = [*self._to_make(asked), *asked]
        require_installed(asked)
        self.total = max(self.total, self.done + len(asked))
        return asked

    def _to_make(self, asked: Sequence[Trial]) -> list[Trial]:
        """The makings of members whose file is not there any more though a trial needs it.

        What was made before is known by its digest, so that nothing else is ever measured under its name.
        """
        if self.members is None:
            return []
        needed, again = {trial.subject for trial in asked if trial.kind != "make"}, list[Trial]()
        for record in self.plan.subjects:
            made = None if record.artifact is None else self.lookup(self.plan.make(record).key)
            if made is None or made.status != "done":
                continue
            self.members.know(record.fingerprint, made.values["digest"])
            if record.fingerprint in needed and not self.members.there(record):
                again.append(self.plan.make(record))
        return again

    def _passed_again(self, asked: Sequence[Trial]) -> list[Trial]:
        """First clean passes from the store whose second one is asked for: two of one process are compared."""
        keys = {trial.key for trial in asked}
        second = {trial.subject for trial in asked if trial.kind == "clean" and trial.seed}
        clean = (trial for trial in self.plan.baselines() if not trial.seed and trial.subject in second)
        return [trial for trial in clean if trial.key not in keys]

    def _tell_clean(self, asked: Sequence[Trial]) -> None:
        """Clean scores from the store, so that a resumed run makes no clean pass again but those that are asked for."""
        keys = {trial.key for trial in asked}
        for trial in self.plan.baselines():
            outcome = None if trial.key in keys else self.lookup(trial.key)
            if outcome is not None and "scores" in outcome.values:
                self.runner.know_clean(trial.subject, outcome.values["scores"])

    def _commit(self, outcome: Outcome) -> None:
        if self.ended is not None:  # not the member's fault: it is no outcome
            raise self.ended
        self.lookup.put(outcome)
        self.done += 1
        self._tell(outcome.status)

    def watch_making(self, name: str, step: int, steps: int) -> None:
        """Tells how far the making of a member is."""
        try:
            self._tell("making", MakingProgress(name, step, steps))
        except Exception as error:
            self.ended = error
            raise

    def _tell(self, label: str, member: MakingProgress | None = None) -> None:
        if self.watch is not None:
            forwards = self.spent + self.runner.forwards - self.before
            state = Progress(
                self.done, self.total, forwards, label, making=self.making, growing=self.growing, member=member
            )
            self.watch(state)


def provenance(plan: Plan, not_reused: str = "") -> dict[str, Scalar]:
    """Return versions, numerical path and settings that the numbers depend on; and why nothing was reused, if so."""
    return {
        "wheeltap": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "path": plan.reference.path,
        "threads": 1 if plan.reference.parameters < SMALL else torch.get_num_threads(),
        "seed": plan.seed,
        "alpha": plan.alpha,
        "draws": plan.effort.draws,
        "plan": plan.key,
        **({NOT_REUSED: not_reused} if not_reused else {}),
    }
