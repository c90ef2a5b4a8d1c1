"""Trials on nets whose weights are no plain layers, as these tests ask for them."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.nets.uncommon import uncommon
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.engine.clean import settle
from wheeltap.engine.trial_runner import TrialRunner, run_trials
from wheeltap.perturb import create
from wheeltap.testing.planted import PlantedCase

DOSES = {
    "relative": 0.3, "std": 0.3, "low-rank": 0.3, "function": 0.2, "quantize": 3, "quantize-aware": 3, "cast": 16,
    "prune": 0.5, "prune-random": 0.5, "prune-nm": 0.5, "prune-wanda": 0.5, "prune-units": 0.3, "prune-heads": 0.5,
    "flip": 0.01, "flip-worst": 3, "erase": 0.5, "fine-tune": 2, "merge": 0.5,
}  # fmt: skip


def settled(kind: str, seed: int = 0) -> PlantedCase:
    case = uncommon(kind, seed=seed)
    settle(case.subject, case.task)
    return case


def trial(case: PlantedCase, perturbation: str, dose: float, site: Site = WHOLE, **more: Any) -> Trial:
    record = case.subject.record
    return Trial(
        subject=record.fingerprint,
        task=case.task.digest,
        measures=tuple(m.name for m in case.task.measures),
        perturbation=perturbation,
        version=create(perturbation).version,
        site=site,
        dose=float(dose),
        root=1,
        path=record.path,
        **more,
    )


def run(case: PlantedCase, trials: list[Trial], *others: PlantedCase) -> list[Outcome]:
    found: dict[str, Outcome] = {}
    runner = TrialRunner([case.subject, *(other.subject for other in others)], (), case.task)
    run_trials(trials, runner, lambda outcome: found.update({outcome.key: outcome}))
    return [found[one.key] for one in trials]


def copied(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for module in model.modules():  # what hooks computed in a graph cannot be copied
            for name, held in list(vars(module).items()):
                if isinstance(held, Tensor) and not held.is_leaf:
                    vars(module)[name] = held.detach()
    return copy.deepcopy(model)
