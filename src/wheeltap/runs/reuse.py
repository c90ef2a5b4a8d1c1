"""The reuse guard: stored outcomes count only for a model that still gives the stored outputs.

A fingerprint covers tensors and class sources. Closures, globals, files, settings, and preprocessing are caught here:
one clean pass is compared with the stored one, and some perturbed trials are run again (see ``_Guard._repeated``).
Where anything differs, the plan moves on to its next generation, whose trials have other keys.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.settle import audits_of, wanted
from wheeltap.core.errors import ModelError
from wheeltap.core.records import Outcome, SubjectRecord, Trial
from wheeltap.core.sets import measured
from wheeltap.core.settings import SMALL
from wheeltap.core.subject import Subject
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.clean import first_difference
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.perturb import create
from wheeltap.plans.plan import Plan

_TOLERANCE = 1e-3
"""Largest difference of a repeated perturbed trial, as a share of the values' scale: rounding on another machine grows
through perturbed layers, so this is wider than for clean outputs."""

_FLIPPED = 0.01
"""Largest share of examples whose 0/1 value may differ in a repeated trial: near-ties that rounding decides."""


@final
@dataclass(frozen=True)
class Reuse:
    """What may be reused.

    Attributes:
        plan: The plan of the generation whose stored outcomes the models reproduce, or of a new one.
        reason: Why stored outcomes were not reused; empty if they are, or if there were none.
    """

    plan: Plan
    reason: str = ""


def set_variants(subjects: Sequence[Subject]) -> None:
    """Give subjects of equal identity but different clean outputs different fingerprints.

    Args:
        subjects: After ``settle`` on the same task.
    """
    distinct: dict[str, list[Subject]] = {}
    for subject in subjects:
        assert subject.settled is not None, "settle first"
        known = distinct.setdefault(subject.identity, [])
        scores = subject.settled.scores
        variants = (at for at, other in enumerate(known) if first_difference(other, scores) is None)
        variant = next(variants, len(known))
        if variant == len(known):
            known.append(subject)
        subject.set_variant(variant)


def reusable(
    plan: Plan, subjects: Sequence[Subject], runner: TrialRunner, lookup: Callable[[str], Outcome | None], *, where: str
) -> Reuse:
    """Find the generation of a plan whose stored outcomes the models at hand reproduce.

    Args:
        plan: Of any generation.
        subjects: The models it names that were given, after ``settle``.
        runner: Runs one perturbed trial of each.
        lookup: Stored outcomes by key.
        where: Name of the store, for messages.

    Returns:
        The plan of that generation; of the first one without stored outcomes if there is none.
    """
    guard, reasons = _Guard(subjects, runner, lookup), list[str]()
    for generation in count():
        candidate = msgspec.structs.replace(plan, generation=generation)
        if not any(lookup(candidate.clean(subject.record).key) for subject in subjects):
            return Reuse(candidate, reasons[0] if reasons else "")
        difference = guard.difference(candidate)
        if not difference:
            return Reuse(candidate)
        reasons.append(f"Stored outcomes in {where} were not reused: {difference}")
    raise AssertionError("generations do not end")


def require_reusable(
    plan: Plan, subjects: Sequence[Subject], runner: TrialRunner, lookup: Callable[[str], Outcome | None], *, where: str
) -> None:
    """Raise ``ModelError`` if the models at hand do not reproduce what other shards of the same plan have stored."""
    difference = _Guard(subjects, runner, lookup).difference(plan)
    if difference:
        raise ModelError(
            "The model does not reproduce the stored outcomes of its own run.", where=where, got=difference,
            expected="the outputs that the other shards of this plan have stored",
            do="Use the same model, data, and environment for all shards, or start again with a new store.",
        )  # fmt: skip


@final
class _Guard:
    """Compares models with the stored outcomes of a plan."""

    def __init__(
        self, subjects: Sequence[Subject], runner: TrialRunner, lookup: Callable[[str], Outcome | None]
    ) -> None:
        self._subjects, self._runner, self._lookup = subjects, runner, lookup

    def difference(self, plan: Plan) -> str:
        """First difference from what is stored for a plan, as a sentence; empty if there is none."""
        clean = (self._clean_difference(plan, subject) for subject in self._subjects)
        return next(filter(None, clean), "") or self._perturbed_difference(plan)

    def _clean_difference(self, plan: Plan, subject: Subject) -> str:
        stored = self._lookup(plan.clean(subject.record).key)
        if stored is None or "scores" not in stored.values:
            return ""
        scores = to_tensor(stored.values["scores"].copy())
        example = first_difference(subject, scores)
        if example is not None:
            return f"{subject.name} gives other outputs than before, first on example {example}."
        # The measure is code too: applied to the stored outputs, it must give the stored values.
        task = self._runner.task
        for name, values in measured(task, scores, scores).items():
            if name in stored.values and (wrong := _first_other(to_array(values), stored.values[name])) is not None:
                return f"the measure {name} gives other values than before, first on example {wrong} of {subject.name}."
        return ""

    def _perturbed_difference(self, plan: Plan) -> str:
        given = {subject.record.fingerprint: subject.record for subject in self._subjects}
        asked = wanted(plan, self._lookup, audits_of(plan))
        stored = [trial for trial in asked if trial.subject in given and self._is_repeatable(trial)]
        repeated = self._repeated(stored, given)
        for subject in self._subjects:
            if subject.settled is not None:  # saves the runner a clean pass
                self._runner.know_clean(subject.record.fingerprint, to_array(subject.settled.scores))
        outcomes: dict[str, Outcome] = {}
        run_trials(repeated, self._runner, lambda outcome: outcomes.__setitem__(outcome.key, outcome))
        for trial in repeated:
            before, now = self._lookup(trial.key), outcomes[trial.key]
            assert before is not None, "only stored trials are repeated"
            if now.status != before.status or not _agree(before.values, now.values):
                return _sentence(trial, given[trial.subject])
        return ""

    def _repeated(self, stored: list[Trial], given: Mapping[str, SubjectRecord]) -> list[Trial]:
        """Choose which stored trials are run again.

        Code that only some perturbations reach (a limit on the outputs, a file read when it is exceeded) changes some
        trials and leaves others as they were. So of a small model two trials of each perturbation are repeated: the one
        that lost the most, which is the likeliest to reach such code, and another at random. Of a large model, where
        each repeated trial takes a pass that reuse was to save, these are two in all.
        """
        # Of a large model, trials that first take passes for statistics of layers are repeated only for want of others.
        simple = [t for t in stored if given[t.subject].parameters < SMALL or not _needs_statistics(t)]
        of_subject = {trial.subject for trial in simple}
        stored = simple + [trial for trial in stored if trial.subject not in of_subject]
        groups: dict[tuple[object, ...], list[Trial]] = {}
        for trial in stored:
            is_small = given[trial.subject].parameters < SMALL
            groups.setdefault(_group(trial, by_perturbation=is_small), []).append(trial)
        return list(chain.from_iterable(map(self._draw, groups.values())))

    def _draw(self, trials: list[Trial]) -> list[Trial]:
        """The trial that lost the most, and one other."""
        worst = max(trials, key=self._loss)
        others = [trial for trial in trials if trial is not worst]
        # Unpredictable on purpose: a fixed choice would never notice what only other trials depend on.
        return [worst, *([random.SystemRandom().choice(others)] if others else [])]

    def _loss(self, trial: Trial) -> float:
        """Mean negative log-likelihood, which grows with the size of wrong outputs; else how far the weights moved."""
        outcome = self._lookup(trial.key)
        values = {} if outcome is None else outcome.values
        return float(np.mean(values["nll"] if "nll" in values else values.get("relative_norm", 0.0)))

    def _is_repeatable(self, trial: Trial) -> bool:
        if trial.kind not in ("disturb", "ship") or trial.perturbation == "weights":  # no model is run for the latter
            return False
        outcome = self._lookup(trial.key)
        return outcome is not None and outcome.status == "done"


def _needs_statistics(trial: Trial) -> bool:
    """Whether a trial first gathers statistics of the layers' inputs, which takes passes of its own."""
    return trial.kind == "disturb" and bool(create(trial.perturbation, trial.settings).needs)


def _group(trial: Trial, *, by_perturbation: bool) -> tuple[object, ...]:
    """Trials that share code outside of the fingerprint: of one model, or of one converted file."""
    if trial.kind == "ship":
        return trial.subject, str(trial.settings.get("file", ""))
    if not by_perturbation:
        return (trial.subject,)
    settings = tuple(sorted((name, str(value)) for name, value in trial.settings.items()))
    return trial.subject, trial.perturbation, settings, trial.site.kind


def _sentence(trial: Trial, record: SubjectRecord) -> str:
    if trial.kind == "ship":
        return f"a converted copy of {record.name} gives other outputs than before."
    return f"{record.name} gives other outputs than before under {trial.perturbation} at dose {trial.dose:g}."


def _agree(before: dict[str, NDArray[Any]], now: dict[str, NDArray[Any]]) -> bool:
    names = before.keys() & now.keys()
    return before.keys() == now.keys() and all(_same_values(before[name], now[name]) for name in names)


def _same_values(before: NDArray[Any], now: NDArray[Any]) -> bool:
    if before.shape != now.shape:
        return False
    difference = np.abs(before.astype(np.float64) - now.astype(np.float64))
    if np.isin(before, (0.0, 1.0)).all():
        return bool((difference > 0.0).mean() <= _FLIPPED) if difference.size else True
    scale = float(np.abs(before).mean()) + float(np.std(before))
    return bool(difference.max(initial=0.0) <= _TOLERANCE * scale)


def _first_other(values: NDArray[Any], stored: NDArray[Any]) -> int | None:
    """Index of the first example whose value differs from the stored one; NaN agrees with NaN."""
    if values.shape != stored.shape:
        return 0
    differs = ~np.isclose(values, stored, rtol=_TOLERANCE, atol=1e-6, equal_nan=True)
    return int(np.flatnonzero(differs)[0]) if differs.any() else None
