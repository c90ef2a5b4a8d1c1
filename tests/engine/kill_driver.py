"""Kills running audits at random moments and lets them resume; prints what it saw as JSON. Run by the kill test.

One process holds the trained net and forks; each child audits into a store until it is done or killed.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Moments, Task
from wheeltap.plans.store import Store
from wheeltap.report import jsonfile
from wheeltap.report.report import Report
from wheeltap.sources import digits

KILLS = 20
AUDITS = ("score", "relative-noise", "function-noise", "quantization", "pruning")
# One pass a trial: readings make many, so that passes could not be counted against outcomes.

EFFORT = wt.Effort(draws=6, control_draws=4, block_draws=2)


class LoggedTask(BaseTask):
    """The digits; each pass over them leaves a byte in a file before it begins."""

    def __init__(self, inner: Task, log: Path) -> None:
        self.inner, self.log = inner, log
        self.name, self.targets, self.measure = inner.name, inner.targets, inner.measure

    @property
    def digest(self) -> str:
        return self.inner.digest

    @property
    def tokens(self) -> int:
        return self.inner.tokens

    def forward(self, model: nn.Module) -> Tensor:
        with self.log.open("ab", buffering=0) as file:
            file.write(b".")
        return self.inner.forward(model)

    def moments(self) -> Iterator[Moments]:
        return self.inner.moments()


class Killer:
    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.log = folder / "passes.log"
        self.log.touch()
        self.task = LoggedTask(digits.task(), self.log)
        self.random = random.Random(int(sys.argv[2]))
        self.kills = 0
        self.excess: list[int] = []  # passes of a process beyond the outcomes it committed
        self.whole: list[int] = []  # the same, of processes that nobody killed
        self.lost = 0  # outcomes seen once and gone or changed later

    def audit(self, store: Path) -> Report:
        return wt.audit(self.subject, self.task, store=store, audits=AUDITS, effort=EFFORT, seed=3)

    def start(self, store: Path) -> int:
        child = os.fork()
        if child:
            return child
        try:
            self.audit(store).json(store.with_suffix(".json"))
            os._exit(0)
        finally:
            os._exit(1)

    def attack(self, store: Path, delay: float) -> None:
        before, passes = rows(store), self.log.stat().st_size
        child = self.start(store)
        if self.kills < KILLS:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and os.WEXITSTATUS(status) != 0:
            raise RuntimeError("an audit failed by itself")
        self.kills += killed
        after = rows(store)
        self.lost += sum(after.get(key) != row for key, row in before.items())
        excess = self.log.stat().st_size - passes - (len(after) - len(before))
        (self.excess if killed else self.whole).append(excess)


def rows(store: Path) -> dict[str, tuple[float, bytes]]:
    """What is committed, with the time each trial took: a trial that ran again would show another one."""
    if not store.exists():
        return {}
    try:
        with Store(store, readonly=True) as kept:
            found = [kept.get(key) for key in kept.keys()]  # noqa: SIM118 - a Store is no mapping
    except wt.errors.StoreError:
        return {}  # killed before the file became a store
    return {o.key: (o.seconds, b"".join(v.tobytes() for v in o.values.values())) for o in found if o is not None}


def told(path: Path) -> str:
    """The numbers of a report, without its cost."""
    record = jsonfile.validate(path.read_bytes(), where=str(path))
    kept = (
        record.headline,
        record.findings,
        record.controls,
        record.curves,
        record.blocks,
        record.subjects,
        record.task,
    )
    return repr(kept)


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    killer = Killer(digits.subject(name="digits"), folder)
    reference = folder / "reference.wheeltap"
    killer.kills = KILLS  # nobody kills this one
    began = time.perf_counter()
    killer.attack(reference, 0.0)
    seconds = time.perf_counter() - began
    killer.kills = 0
    equal, stores = list[bool](), 0
    while killer.kills < KILLS:
        store = folder / f"attacked-{stores}.wheeltap"
        while not store.with_suffix(".json").exists():
            killer.attack(store, killer.random.uniform(0.0, 0.4 * seconds))
        equal.append(told(store.with_suffix(".json")) == told(reference.with_suffix(".json")))
        stores += 1
    print(json.dumps({
        "kills": killer.kills, "stores": stores, "equal": equal, "excess": killer.excess, "whole": killer.whole,
        "lost": killer.lost, "trials": len(rows(reference)), "seconds": seconds,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
