"""Trials as these tests ask for them, run by the engine and compared with the slow one."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from oracle import measured_slowly
from torch import nn

from tests.nets.uncommon import uncommon
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.clean import settle
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.perturb import perturbations
from wheeltap.testing.planted import PlantedCase

DOSES = {
    "relative": 0.3, "std": 0.3, "function": 0.2, "quantize": 3, "quantize-aware": 3, "cast": 16,
    "prune": 0.5, "prune-random": 0.5, "prune-nm": 0.5, "prune-wanda": 0.5, "prune-units": 0.3, "prune-heads": 0.5,
    "flip": 0.01, "flip-worst": 3, "erase": 0.5, "fine-tune": 2, "merge": 0.5, "quantize-inputs": 8,
    "quantize-cache": 8,
}  # fmt: skip


def settled(kind: str, seed: int = 0) -> PlantedCase:
    case = uncommon(kind, seed=seed)
    settle(case.subject, case.task)
    return case


def trial(
    subject: Subject, task: BaseTask, perturbation: str, dose: float, site: Site = WHOLE, *, root: int = 1, **more: Any
) -> Trial:
    return Trial(
        subject=subject.record.fingerprint, task=task.digest, measures=tuple(m.name for m in task.measures),
        perturbation=perturbation, version=perturbations.get(perturbation).version, site=site, dose=float(dose),
        root=root, **more,
    )  # fmt: skip


def run(
    subject: Subject, task: BaseTask, trials: list[Trial], *others: Subject, runner: TrialRunner | None = None
) -> list[Outcome]:
    """The outcomes, in the order of the trials."""
    found: dict[str, Outcome] = {}
    runner = runner or TrialRunner([subject, *others], (), task)
    run_trials(trials, runner, lambda outcome: found.update({outcome.key: outcome}))
    return [found[one.key] for one in trials]


def require_slow(
    trials: Iterable[Trial], outcomes: Iterable[Outcome], model: nn.Module, task: BaseTask, *, tolerance: float
) -> None:
    """Every outcome is done and holds what the slow engine gives, within ``tolerance`` of the largest or of 1."""
    for one, outcome in zip(trials, outcomes, strict=True):
        label = f"{one.perturbation} {one.settings} {one.site} {one.dose} {one.seed}"
        assert outcome.status == "done", f"{label}: {outcome.because}"
        slow = measured_slowly(one, model, task)
        # The distribution over next tokens has tests of its own.
        assert slow.keys() == {name for name in outcome.values if not name.startswith("token")}, label
        for name, values in slow.items():
            gap = float(np.abs(values - outcome.values[name]).max()) / max(1.0, float(np.abs(values).max()))
            assert gap <= tolerance, f"{label}: {name} differs by {gap:.1e}"
