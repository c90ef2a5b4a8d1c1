"""The fast engine against a slow one that deep-copies the model for every trial."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from engine_nets import ConvNet, TiedLanguageModel, choices, numbers, seeded, taught
from engine_trials import require_slow, run, trial
from oracle import measured_slowly
from torch import nn

from wheeltap.core import measure
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Scalar, Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create, perturbations

Case = tuple[Subject, BaseTask]

ASKED: dict[str, tuple[list[dict[str, Scalar]], tuple[float, ...]]] = {
    "relative": ([{}, {"draw": "sign"}], (0.3,)),
    "std": ([{}], (0.05, 0.8)),
    "function": ([{}], (0.4,)),
    "quantize": ([{"scale": "channel"}, {"scale": "tensor"}], (8, 3)),
    "prune": ([{}], (0.2, 0.7)),
}
"""Settings and doses by perturbation."""

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
        trial(subject, task, name, dose, site, settings=settings, seed=seed, root=7)
        for name, (several, doses) in ASKED.items()
        for settings in several
        for site in sites
        for dose in doses
        for seed in ((3,) if perturbations.get(name).random else (0,))
    ]


def require_equal(subject: Subject, task: BaseTask, sites: list[Site], *, tolerance: float) -> int:
    trials = trials_of(subject, task, sites)
    pairs = list(zip(trials, run(subject, task, trials), strict=True))
    for one, outcome in pairs:
        # Function-space noise is not defined on tied weights alone.
        assert outcome.status != "skipped" or (one.perturbation == "function" and "no weight" in outcome.because)
    ran = [pair for pair in pairs if pair[1].status != "skipped"]
    require_slow(*zip(*ran, strict=True), subject.model, task, tolerance=tolerance)
    return len(ran)


@pytest.mark.parametrize("make", [conv, language])
def test_every_perturbation_site_dose_and_seed_equals_the_slow_engine(make: Callable[[torch.dtype], Case]) -> None:
    subject, task = make(torch.float64)
    sites = {
        conv: [WHOLE, Site.without(["first", "head"]), Site("layer", "second")],
        language: [
            WHOLE, Site.without(["embed"]), Site("block", "blocks.1"),
        ],
    }[make]  # fmt: skip
    # Double precision, so that only the result's own rounding is left.
    assert require_equal(subject, task, sites, tolerance=1e-6) >= 28


def test_the_order_of_trials_does_not_matter() -> None:
    subject, task = conv(torch.float32)
    trials = trials_of(subject, task, [WHOLE, Site("layer", "second")])
    forth, back = run(subject, task, trials), run(subject, task, trials[::-1])[::-1]
    alone = [run(subject, task, [one])[0] for one in trials[::5]]
    for one, other in (*zip(forth, back, strict=True), *zip(forth[::5], alone, strict=True)):
        assert all(np.array_equal(values, other.values[name]) for name, values in one.values.items())


def test_what_replace_writes_is_what_runs_to_the_bit() -> None:
    subject, task = conv(torch.float32)
    task.measure = measure.margin  # a difference of scores, which two ways of rounding would tell apart
    trials = [one for one in trials_of(subject, task, [WHOLE]) if one.perturbation in EXACT]
    for one, outcome in zip(trials, run(subject, task, trials), strict=True):
        slow = measured_slowly(one, subject.model, task)
        assert np.array_equal(slow["accuracy"], outcome.values["accuracy"])
        assert np.array_equal(slow["margin"].astype(np.float32), outcome.values["margin"])


@pytest.mark.parametrize(
    ("make", "name", "draw", "dtype"),
    [
        (ConvNet, "relative", "gaussian", torch.bfloat16), (ConvNet, "std", "sign", torch.float32),
        (TiedLanguageModel, "relative", "sign", torch.float32), (TiedLanguageModel, "std", "gaussian", torch.float64),
    ],
)  # fmt: skip
def test_a_draw_kept_for_other_doses_or_not_gives_the_same_weights_to_the_bit(
    make: type[nn.Module], name: str, draw: str, dtype: torch.dtype
) -> None:
    subject = Subject(seeded(make).to(dtype))
    before, found = weights_digest(subject.model), list[Any]()
    for keep in (True, False):
        with Disturbance(subject, create(name, {"draw": draw}), WHOLE) as disturbance:
            for seed, dose in ((0, 0.1), (1, 0.1), (1, 0.3)):
                disturbance.apply(dose, root=5, seed=seed, keep=keep)
                found.append((weights_digest(subject.model), disturbance.relative_norm))
        assert weights_digest(subject.model) == before
    for (kept, norm), (fresh, same) in zip(found[:3], found[3:], strict=True):
        assert kept == fresh and norm == pytest.approx(same, rel=1e-6)
    assert len({digest for digest, _ in found}) == 3
