"""The contract of audits: each asks for trials that exist, ends, and always has something to say."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wheeltap.audits.base import Audit, Case, Verdict
from wheeltap.audits.settle import settle
from wheeltap.core import seeds
from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.core.inputs import chosen
from wheeltap.core.records import Outcome, OutcomeStatus, Trial
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine import readings
from wheeltap.perturb import create, perturbations
from wheeltap.plans.plan import Effort, Plan
from wheeltap.runs import planning
from wheeltap.testing import planted

ROUNDS = 64
"""Times an audit may ask before it counts as endless."""

_EXAMPLES = 60
_OPTIONS = 6
_STATUSES: tuple[OutcomeStatus, ...] = ("done", "failed", "skipped", "diverged")


_COPIES = 8
"""Of each example, where they come in groups of copies."""

_NARROWER = 0.08
"""Share by which an interval over groups of copies may be narrower than that over one of each."""


@cache
def _case(copies: int = 1) -> tuple[Subject, Task]:
    """A real subject and a short task: what readings are read from, in every world in which they are done.

    Args:
        copies: Of each example, a group for each; readings are those of the task without copies.
    """
    case = planted.clusters()
    assert isinstance(case.task, Task)
    first = slice(_EXAMPLES)
    task = Task(chosen(case.task.inputs, first), case.task.targets[first], name="clusters")
    if copies == 1:
        return case.subject, task
    which = torch.arange(_EXAMPLES).repeat_interleave(copies)
    several = task.part(which)
    # Copies would be left out, or merged, before a plan is made. No trial runs on these.
    assert isinstance(several.inputs, torch.Tensor)
    several.inputs = torch.randn(several.inputs.shape, generator=torch.Generator().manual_seed(0))
    return case.subject, several.with_groups(which)


def _repeated(trial: Trial, values: dict[str, NDArray[Any]], axes: dict[str, int]) -> dict[str, NDArray[Any]]:
    """What the task with copies gives: these values, on the axis of examples as often as each is there."""
    if trial.task != _case(_COPIES)[1].digest:
        return values
    return {name: np.repeat(one, _COPIES, axis=axes[name]) if name in axes else one for name, one in values.items()}


_read: dict[str, Outcome] = {}


def _reading(trial: Trial) -> Outcome:
    """What a reading of the real subject gives."""
    if trial.key not in _read:
        subject, task = _case()
        made = readings.create(trial.perturbation, trial.settings)
        try:
            found = made.read(subject, task, root=trial.root, seed=trial.seed)
        except WheeltapError as error:  # not defined on this subject: skipped, as in a run
            return Outcome(key=trial.key, status="skipped", because=error.what)
        values = made.spec.typed(found.values, examples=_EXAMPLES)
        axes = {name: made.spec.arrays[name.rpartition("|")[2]].axes.split() for name in values}
        by = "half" if axes.get("rows") == ["half"] else "example"
        values = _repeated(trial, values, {name: of.index(by) for name, of in axes.items() if by in of})
        if by == "half" and trial.task != task.digest:
            values["rows"] = values["rows"] * _COPIES + np.resize(np.arange(_COPIES), len(values["rows"]))
        _read[trial.key] = Outcome(key=trial.key, status="done", values=values, forwards=found.forwards)
    return _read[trial.key]


def _values(trial: Trial, share: float) -> Outcome:
    """A trial done, with about this ``share`` of examples right."""
    if trial.kind == "read":
        return _reading(trial)
    rng = seeds.generator(0, "world", trial.perturbation, trial.seed)
    right = (rng.random(_EXAMPLES) < share).astype(np.float32)
    values = {name: rng.random(_EXAMPLES).astype(np.float32) for name in trial.measures}
    values |= {name: right for name in ("accuracy", "agreement") if name in values}
    if trial.kind == "clean":
        # Every clean pass is the same, whatever its seed and subject.
        right = (np.arange(_EXAMPLES) % 10 < round(10 * share)).astype(np.float32)
        values |= {name: right for name in ("accuracy", "agreement") if name in values}
        values["scores"] = np.eye(_OPTIONS, dtype=np.float32)[np.arange(_EXAMPLES) % _OPTIONS]
        values["chance"] = np.array(1 / _OPTIONS, dtype=np.float32)
        if trial.task == _case(_COPIES)[1].digest:
            values["group"] = np.arange(_EXAMPLES, dtype=np.float32)
    values = _repeated(trial, values, dict.fromkeys(values.keys() - {"chance"}, 0))
    if trial.subset is not None:
        index = trial.subset.examples(len(values["accuracy"]), root=trial.root)
        values = {name: array[index] for name, array in values.items()}
    return Outcome(key=trial.key, status="done", values=values, seconds=0.1, forwards=1.0)


def _falling(trial: Trial) -> Outcome:
    chance = 1 / _OPTIONS
    return _values(trial, chance + (0.9 - chance) * math.exp(-trial.dose))


def _without(trial: Trial, status: OutcomeStatus) -> Outcome:
    return Outcome(key=trial.key, status=status, because=f"The contract's world made it {status}.")


def _disturbed(trial: Trial, status: OutcomeStatus) -> Outcome:
    return _falling(trial) if trial.kind == "clean" or status == "done" else _without(trial, status)


WORLDS: dict[str, Callable[[Trial], Outcome]] = {
    "falls with the dose": _falling,
    "nothing hurts": lambda trial: _values(trial, 0.9),
    "always right": lambda trial: _values(trial, 1.0),
    "always wrong": lambda trial: _values(trial, 0.0),
    "disturbed trials fail": lambda trial: _disturbed(trial, "failed"),
    "disturbed trials are skipped": lambda trial: _disturbed(trial, "skipped"),
    "disturbed trials diverge": lambda trial: _disturbed(trial, "diverged"),
    "everything fails": lambda trial: _without(trial, "failed"),
    "a mixture": lambda trial: _disturbed(trial, _STATUSES[seeds.derive(1, trial.key) % len(_STATUSES)]),
}
"""What may come of a plan's trials."""


@cache
def _plan(several: int, *, copies: int = 1) -> Plan:
    """A plan on one subject or more, with controls; its trials are answered by a world, never run."""
    task = _case(copies)[1]
    subjects = [Subject(planted.clusters(seed=seed).subject.model, name=f"net {seed}") for seed in range(several)]
    effort = Effort(draws=4, control_draws=4, block_draws=1)
    return planning.plan(subjects, task, audits=["score", "relative-noise"], effort=effort)


class AuditContract:
    """Subclass it as ``Test...`` and set the attributes.

    Attributes:
        audit: The class under test.
        settings: With which it is made.
    """

    audit: ClassVar[type[Audit]]
    settings: ClassVar[dict[str, Any]] = {}

    def made(self) -> Audit:
        """The audit under test."""
        return self.audit(self.settings)

    def _stages(self, plan: Plan, world: Callable[[Trial], Outcome]) -> Iterator[tuple[Case, list[Trial]]]:
        """What is known and newly asked at each round, as a run would go; the last one asks nothing new."""
        known: dict[str, Outcome] = {}
        audit, case = self.made(), Case(plan, known.get)
        for _ in range(ROUNDS):
            asked = {trial.key: trial for trial in (*plan.baselines(), *audit.ask(case))}
            new = [trial for trial in asked.values() if trial.key not in known]
            yield case, new
            if not new:
                return
            known.update((trial.key, world(trial)) for trial in new)
        pytest.fail(f"the audit still asks after {ROUNDS} rounds")

    def _read(self, case: Case) -> Verdict:
        return self.made().judge(case)

    def test_says_what_it_is(self) -> None:
        """Name, code and title are there."""
        assert self.audit.name and self.audit.code and self.audit.title, "name, code and title must be given"

    @pytest.mark.parametrize("world", list(WORLDS))
    @pytest.mark.parametrize("subjects", [1, 2])
    def test_it_asks_for_known_things_ends_and_always_judges(self, world: str, subjects: int) -> None:
        """Subjects, task, sites and versions are the plan's, doses are in the domain, and the asking ends.

        Whatever is known, missing, failed or diverged: a reading without an exception, of finite numbers.
        """
        plan = _plan(subjects)
        names = {subject.name for subject in plan.subjects}
        baselines = {trial.key for trial in plan.baselines()}
        total = 0
        for case, new in self._stages(plan, WORLDS[world]):
            assert case.plan is plan
            for trial in new:
                _require_known(trial, plan)
                total += trial.key not in baselines
            self._require_sound(self._read(case), plan, names)
        assert total <= self.made().most(plan), f"{total} trials asked, more than most() says"

    def _require_sound(self, verdict: Verdict, plan: Plan, names: set[str]) -> None:
        findings = settle(verdict.drafts, alpha=plan.alpha)
        assert findings, "an audit without a finding has not answered"
        for finding in findings:
            assert finding.code and finding.title and finding.because, "code, title and words must be given"
            assert any(name in finding.subject for name in names), f"of whom is this: {finding.subject!r}?"
        for record in (*findings, *verdict.controls, *verdict.curves, *verdict.blocks):
            _require_finite(msgspec.to_builtins(record), where="a verdict")

    @pytest.mark.parametrize("world", ["falls with the dose", "a mixture"])
    def test_it_is_deterministic(self, world: str) -> None:
        """The same plan and outcomes give the same questions and the same answer."""
        runs = [[(new, self._read(case)) for case, new in self._stages(_plan(1), WORLDS[world])] for _ in range(2)]
        for (asked, verdict), (again, second) in zip(*runs, strict=True):
            assert asked == again, "other trials were asked the second time"
            assert verdict == second, "another verdict the second time"

    def test_groups_of_copies_say_no_more_than_one_of_each(self) -> None:
        """Each example repeated, a group for each: no new conclusion, and no interval that is narrower."""
        once, several = (self._last(_plan(2, copies=copies), _falling) for copies in (1, _COPIES))
        known = {(finding.title, finding.subject): finding for finding in settle(once.drafts, alpha=0.05)}
        for finding in settle(several.drafts, alpha=0.05):
            if finding.status in ("found", "excluded"):
                before = known[finding.title, finding.subject].status
                assert finding.status == before, f"{finding.title}: {before}, {finding.status}"
        widths = {name: dict(_widths(verdict)) for name, verdict in (("once", once), ("copies", several))}
        for name, width in widths["copies"].items():
            before = widths["once"].get(name, 0.0)
            assert width >= (1.0 - _NARROWER) * before, f"{name}: {before:.3g} became {width:.3g}"

    def _last(self, plan: Plan, world: Callable[[Trial], Outcome]) -> Verdict:
        """What is concluded once nothing more is asked."""
        *_, (case, _) = self._stages(plan, world)
        return self._read(case)

    def test_unknown_settings_are_refused(self) -> None:
        """A setting that it does not have: ``UsageError``."""
        with pytest.raises(UsageError):
            self.audit({**self.settings, "no such setting": 1})


def _widths(verdict: Verdict) -> Iterator[tuple[tuple[str, ...], float]]:
    """Width of every interval, by what it is of; infinite where it is open."""
    shown = [
        ((draft.finding.title, draft.finding.subject), one)
        for draft in verdict.drafts
        for one in draft.finding.estimates
    ]
    for curve in verdict.curves:
        of = (curve.title, curve.subject, curve.variant)
        for dose, low, high in zip(curve.doses, curve.low, curve.high, strict=True):
            yield (*of, str(dose)), math.inf if low is None or high is None else high - low
        shown += [(of, one) for one in (curve.half, curve.area) if one is not None]
    for block in verdict.blocks:
        shown += [((block.title, name), drop) for name, drop in zip(block.blocks, block.drops, strict=True)]
    for of, one in shown:
        yield (*of, one.name), math.inf if one.low is None or one.high is None else one.high - one.low


def _require_known(trial: Trial, plan: Plan) -> None:
    subjects = {subject.fingerprint: subject for subject in (*plan.subjects, *plan.controls)}
    assert trial.subject in subjects, "a subject that the plan does not name"
    subject = subjects[trial.subject]
    assert (trial.task, trial.measures) == (plan.task.digest, plan.task.measures), "another task"
    assert (trial.root, trial.path) == (plan.seed, subject.path), "another root seed or numerical path"
    if trial.kind == "read":
        assert trial.version == readings.readings.get(trial.perturbation).version, "another version of the reading"
        readings.create(trial.perturbation, trial.settings)
    else:
        assert trial.perturbation in set(perturbations), f"no perturbation is called {trial.perturbation!r}"
        assert trial.version == perturbations.get(trial.perturbation).version, "another version of the perturbation"
        create(trial.perturbation, trial.settings).require_dose(trial.dose)
    known = {"whole": ("",), "block": subject.blocks}.get(trial.site.kind, subject.layers)
    if trial.site.kind == "inner":
        assert set(trial.site.name.split(",")) <= set(known), "a layer is spared that there is not"
        return
    if trial.site.entry is not None:
        path, _ = trial.site.entry
        modules = {*subject.layers, *subject.blocks, *(one.name for one in subject.untouched)}
        known = any(path in subject.weights or path.startswith(f"{module}.") for module in modules)
        assert known, f"no parameter is called {path!r}"
        return
    assert trial.site.layer in known, f"no {trial.site.kind} is called {trial.site.name!r}"


def _require_finite(value: Any, *, where: str) -> None:
    if isinstance(value, float):
        assert math.isfinite(value), f"{where}: a number that is not finite"
    elif isinstance(value, dict):
        for part in value.values():  # pyright: ignore[reportUnknownVariableType]
            _require_finite(part, where=where)
    elif isinstance(value, list | tuple):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            _require_finite(part, where=where)
