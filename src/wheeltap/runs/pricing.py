"""What the parts of a plan take on this machine: one trial of each kind timed, on the models themselves."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from secrets import token_bytes
from statistics import fmean
from time import perf_counter
from typing import Final, final

import msgspec

from wheeltap.audits.base import Audit, Case
from wheeltap.audits.noise import NoiseAudit
from wheeltap.audits.settle import audits_of
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import as_before
from wheeltap.engine.clean import threads_for
from wheeltap.engine.run import run_trials
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.runs.budget import Prices, least

_DRAWS: Final = 12
"""Draws that are timed, at most, where one draw has one dose or a noise's few; the first trial warms up."""

TIMING: Final = 0.05
"""Share of a time budget after which no further audit is timed."""


def priced(plan: Plan, subjects: Sequence[Subject], task: BaseTask, *, seconds: float) -> Prices:
    """Times a clean pass of each subject, and trials of the reference until about ``seconds`` are gone.

    Where a pass takes long, little else is timed: drawing and writing weights then takes little beside it.

    Args:
        plan: Whose audits are to be priced.
        subjects: The models it names.
        task: The examples it names.
        seconds: What the timing may take.
    """
    began = perf_counter()
    each = [seconds_of_a_pass(subject, task) for subject in subjects]
    with (
        tempfile.TemporaryDirectory(prefix="wheeltap-") as folder,
        Store(Path(folder) / "timing.wheeltap", key=token_bytes()) as store,
    ):
        timing = _Timing(least(plan), TrialRunner(list(subjects), plan.controls, task), store, each[0])
        if each[0] < seconds:
            timing.run(until=began + seconds)
    slower = fmean(each) / each[0]
    return Prices(
        clean=fmean(each),
        beside={name: seconds * slower for name, seconds in timing.beside.items()},
        kept=fmean(timing.kept or [0.0]),
        copy=timing.copy,
        spent=perf_counter() - began,
    )


def seconds_of_a_pass(subject: Subject, task: BaseTask) -> float:
    """Wall-clock seconds of one clean pass over the task, on the threads that a run would use."""
    with as_before(subject), threads_for(subject.record.parameters):
        if subject.settled is None:
            task.scores(subject.model)  # the first pass is slower than the others
        began = perf_counter()
        task.scores(subject.model)
        return max(perf_counter() - began, 1e-9)


@final
class _Timing:
    """Runs some of what each audit would ask of the reference.

    Attributes:
        beside: By audit, what a trial takes beside its passes.
        kept: What keeping each outcome took.
        copy: What making a control copy took; 0 where none was made.
    """

    def __init__(self, plan: Plan, runner: TrialRunner, store: Store, clean: float) -> None:
        self.plan, self.runner, self.store, self.clean = plan, runner, store, clean
        self.beside: dict[str, float] = {}
        self.kept: list[float] = []
        self.copy = 0.0
        self._outcomes: dict[str, Outcome] = {}

    def run(self, *, until: float) -> None:
        """Times audit after audit, those that cost most first, as long as there is time."""
        plan = self.plan
        run_trials([plan.clean(plan.reference)], self.runner, self._commit)
        for audit in sorted(audits_of(plan), key=lambda audit: -audit.most_passes(plan)):
            one = self.clean * max(audit.most_passes(plan), 1.0) / max(audit.most(plan), 1)
            left = until - perf_counter()
            if one < left:
                self._time(audit, most=max(int(left / (2.0 * one)), 2))
        if plan.twin is not None and perf_counter() < until:
            began = perf_counter()
            self.runner.subject(plan.twin.fingerprint)
            self.copy = perf_counter() - began

    def _time(self, audit: Audit, *, most: int) -> None:
        """Some trials of each kind that the audit asks for at first, and once these are known; so many at most."""
        kinds: dict[str, list[Trial]] = {}
        each: dict[str, float] = {}
        for _ in range(2):
            kinds = self._asked(audit)
            for kind in kinds.keys() - each.keys():
                some = _some(audit, kinds[kind])[:most]
                run_trials([trial for trial in some if trial.key not in self._outcomes], self.runner, self._commit)
                ran = [self._outcomes[trial.key] for trial in (some[1:] or some)]
                each[kind] = fmean(max(one.seconds - one.forwards * self.clean, 0.0) for one in ran)
        count = sum(map(len, kinds.values()))
        if count:
            self.beside[audit.name] = sum(each.get(kind, 0.0) * len(several) for kind, several in kinds.items()) / count

    def _asked(self, audit: Audit) -> dict[str, list[Trial]]:
        """Trials of the reference, by perturbation or reading."""
        kinds: dict[str, list[Trial]] = {}
        for trial in audit.ask(Case(self.plan, self._lookup)):
            if trial.subject == self.plan.reference.fingerprint and trial.kind != "clean":
                kinds.setdefault(trial.perturbation, []).append(trial)
        return kinds

    def _lookup(self, key: str) -> Outcome | None:
        """Clean outcomes of other subjects are taken to be the reference's: only what is asked first depends on it."""
        if key in self._outcomes:
            return self._outcomes[key]
        clean = {trial.key for trial in self.plan.baselines()}
        return self._outcomes[self.plan.clean(self.plan.reference).key] if key in clean else None

    def _commit(self, outcome: Outcome) -> None:
        began = perf_counter()
        self.store.put(outcome)
        self.kept.append(perf_counter() - began)
        self._outcomes[outcome.key] = outcome


def _some(audit: Audit, trials: Sequence[Trial]) -> list[Trial]:
    """Every dose of the first draw, which share what is drawn or trained; of one dose, further draws.

    A reading, which has no dose, takes long enough to be timed by one trial.
    """
    one = trials[0]
    doses = [trial for trial in trials if trial.seed == one.seed]
    if len(doses) > 1 or not one.dose:
        return doses
    # Noise is asked for at one dose first, and at several doses of each draw then.
    halved = range(len(audit.settings.rungs) if isinstance(audit, NoiseAudit) else 1)
    return [
        msgspec.structs.replace(one, seed=one.seed + draw, dose=one.dose / 2.0**times)
        for draw in range(_DRAWS)
        for times in halved
    ]
