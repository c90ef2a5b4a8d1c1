"""The fast engine against a slow one that deep-copies the model for every trial."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine_nets import ConvNet, TiedLanguageModel, choices, numbers, seeded, taught
from oracle import measured_slowly
from torch import nn

from wheeltap.core import measure
from wheeltap.core.records import Outcome, Scalar, Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.trial_runner import TrialRunner, run_trials
from wheeltap.perturb import perturbations

Case = tuple[Subject, BaseTask]

SETTINGS: dict[str, list[dict[str, Scalar]]] = {
    "relative": [{}, {"draw": "sign"}],
    "std": [{}, {"draw": "sign"}],
    "function": [{}],
    "quantize": [{"scale": "channel"}, {"scale": "tensor"}],
    "prune": [{}],
}
DOSES: dict[str, tuple[float, ...]] = {
    "relative": (0.05, 0.8),
    "std": (0.05, 0.8),
    "function": (0.02, 0.4),
    "quantize": (8, 3),
    "prune": (0.2, 0.7),
}
EXACT = ("quantize", "prune")
"""Written by ``replace`` in both engines, so equal to the bit; the fast one adds noise in one fused step."""


def conv(dtype: torch.dtype) -> Case:
    model = seeded(ConvNet).to(dtype)
    inputs = numbers(60, 1, 8, 8, seed=1, dtype=dtype)
    return Subject(model, name="conv"), taught(model, inputs, more=numbers(80, 1, 8, 8, seed=2, dtype=dtype))


def language(dtype: torch.dtype) -> Case:
    return Subject(seeded(TiedLanguageModel).to(dtype), name="language"), choices()


def trials_of(subject: Subject, task: BaseTask, sites: list[Site]) -> list[Trial]:
    return [
        Trial(
            subject=subject.record.fingerprint,
            task=task.digest,
            measures=tuple(m.name for m in task.measures),
            perturbation=name,
            version=perturbations.get(name).version,
            settings=settings,
            site=site,
            dose=dose,
            seed=seed,
            root=7,
        )
        for name, several in SETTINGS.items()
        for settings in several
        for site in sites
        for dose in DOSES[name]
        for seed in ((0, 3) if perturbations.get(name).random else (0,))
    ]


def run(subject: Subject, task: BaseTask, trials: list[Trial]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    run_trials(trials, TrialRunner([subject], (), task), lambda outcome: found.update({outcome.key: outcome}))
    return found


def require_equal(subject: Subject, task: BaseTask, sites: list[Site], *, tolerance: float) -> int:
    trials = trials_of(subject, task, sites)
    fast, compared = run(subject, task, trials), 0
    for trial in trials:
        outcome = fast[trial.key]
        label = f"{trial.perturbation} {trial.settings} {trial.site} {trial.dose} {trial.seed}"
        if outcome.status == "skipped":
            # Function-space noise is not defined on tied weights alone.
            assert trial.perturbation == "function" and "no weight" in outcome.because, label
            continue
        assert outcome.status == "done", f"{label}: {outcome.because}"
        slow = measured_slowly(trial, subject.model, task)
        assert slow.keys() == outcome.values.keys()
        for name, values in slow.items():
            scale = max(1.0, float(np.abs(values).max()))
            gap = float(np.abs(values - outcome.values[name]).max()) / scale
            assert gap <= tolerance, f"{label}: {name} differs by {gap:.1e}"
        compared += 1
    return compared


@pytest.mark.parametrize("make", [conv, language])
def test_every_perturbation_site_dose_and_seed_equals_the_slow_engine(make: Callable[[torch.dtype], Case]) -> None:
    subject, task = make(torch.float64)
    sites = {
        conv: [WHOLE, Site.without(["first", "head"]), Site("layer", "second"), Site("block", "head")],
        language: [
            WHOLE, Site.without(["embed"]), Site("layer", "blocks.1.up"), Site("block", "blocks.1"),
            Site("layer", "embed"),
        ],
    }[make]  # fmt: skip
    # Double precision, so that only the result's own rounding is left.
    assert require_equal(subject, task, sites, tolerance=1e-6) >= 60


@pytest.mark.parametrize("make", [conv, language])
def test_single_precision_equals_the_slow_engine_up_to_rounding(make: Callable[[torch.dtype], Case]) -> None:
    subject, task = make(torch.float32)
    require_equal(subject, task, [WHOLE], tolerance=2e-5)


def test_the_digits_net_equals_the_slow_engine(digits: Subject, digits_task: Task) -> None:
    sites = [WHOLE, Site("layer", digits.record.layers[1])]
    require_equal(digits, digits_task, sites, tolerance=2e-5)


def test_a_block_is_not_another_block_whose_name_starts_alike() -> None:
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(11)]).eval()
    subject = Subject(model)
    task = taught(model, numbers(20, 3))
    inside = {layer for layer in subject.record.layers if Site("block", "1").covers(layer)}
    assert inside == {"1"}
    require_equal(subject, task, [Site("block", "1")], tolerance=1e-4)


def test_tied_weights_are_disturbed_once_and_in_both_places() -> None:
    subject, _task = language(torch.float64)
    names = [layer.weight for layer in subject.layers]
    assert names.count("embed.weight") == 1 and "out.weight" not in names
    [embed] = [layer for layer in subject.layers if layer.weight == "embed.weight"]
    assert embed.tied


def test_the_order_of_trials_does_not_matter() -> None:
    subject, task = conv(torch.float32)
    trials = trials_of(subject, task, [WHOLE, Site("layer", "second")])
    forth, back = run(subject, task, trials), run(subject, task, trials[::-1])
    alone = [run(subject, task, [trial])[trial.key] for trial in trials[::5]]
    assert list(forth) == list(back), "run in an order of its own"
    for outcome in (*back.values(), *alone):
        for name, values in outcome.values.items():
            assert np.array_equal(values, forth[outcome.key].values[name])


def test_what_replace_writes_is_what_runs_to_the_bit() -> None:
    subject, task = conv(torch.float32)
    task.measure = measure.margin  # a difference of scores, which two ways of rounding would tell apart
    trials = [t for t in trials_of(subject, task, [WHOLE]) if t.perturbation in EXACT]
    fast = run(subject, task, trials)
    for trial in trials:
        slow = measured_slowly(trial, subject.model, task)
        assert np.array_equal(slow["accuracy"], fast[trial.key].values["accuracy"])
        assert np.array_equal(slow["margin"].astype(np.float32), fast[trial.key].values["margin"])
