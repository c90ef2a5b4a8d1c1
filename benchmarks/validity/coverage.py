"""Coverage: how often do 95 % intervals hold the true effect of a planted disturbance?"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.validity.nets import net
from benchmarks.validity.page import Row, Section, table
from benchmarks.validity.twin_areas import HALVES, Tried, half_dose, scores
from wheeltap.core import measure as measures
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb.base import create
from wheeltap.stats.curve import area_values
from wheeltap.stats.effect import mean_effect
from wheeltap.testing.planted import numbers

INPUTS, OUTPUTS, EXAMPLES, DRAWS, DOSE = 6, 4, 64, 16, 0.3


def _closed_form(replicates: int) -> float:
    """Share of intervals that hold the expected rise of the squared error of a linear model under relative noise.

    Examples and draws are new in each replicate; the rise over all inputs that could be drawn is known exactly.
    """
    mix, weight, bias = numbers(INPUTS, INPUTS, seed=1), numbers(OUTPUTS, INPUTS, seed=2), numbers(OUTPUTS, seed=3)
    second = (mix @ mix.T).diagonal() + 0.25
    truth = DOSE**2 * float((weight.square() @ second).sum() + bias.square().sum())
    model = nn.Linear(INPUTS, OUTPUTS, dtype=torch.float64).eval()
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(bias)
    return float(np.mean([_holds(Subject(model), mix, truth, seed) for seed in range(replicates)]))


def _holds(subject: Subject, mix: torch.Tensor, truth: float, seed: int) -> bool:
    inputs = numbers(EXAMPLES, INPUTS, seed=10_000 + seed) @ mix.T + 0.5
    with torch.no_grad():
        targets = subject.model(inputs) + 0.5 * numbers(EXAMPLES, OUTPUTS, seed=50_000 + seed)
    task = Task(inputs, targets, measure=measures.squared_error)

    def error() -> np.ndarray[Any, Any]:
        given = task.scores(subject.model)
        return task.measure(given, task.targets, given).numpy().astype(np.float64)

    clean, rises = error(), list[np.ndarray[Any, Any]]()
    with Disturbance(subject, create("relative"), WHOLE) as disturbance:
        for draw in range(DRAWS):
            disturbance.apply(DOSE, root=seed, seed=draw)
            rises.append(error() - clean)
    found = mean_effect(np.stack(rises), unit="squared error")
    assert found.low is not None and found.high is not None
    return found.low <= truth <= found.high


def _resampled(replicates: int, draws: int) -> float:
    """Share of intervals from few draws and examples that hold the mean over very many of both, on a real network."""
    case = net("mlp")
    tried = Tried("relative", tuple(half_dose(case, "relative") * half for half in HALVES), draws)
    whole = area_values(scores(case.subject, case, tried=tried, draws=range(draws)), np.asarray(tried.doses))
    clean = case.task.scores(case.subject.model)
    change = whole - case.task.measure(clean, case.task.targets, clean).numpy()
    random, held = np.random.default_rng(0), 0
    for _ in range(replicates):
        some = change[np.ix_(random.integers(0, draws, 24), random.integers(0, change.shape[1], 120))]
        found = mean_effect(some, unit="accuracy")
        held += found.low is not None and found.high is not None and found.low <= change.mean() <= found.high
    return held / replicates


def measure(stores: Path, *, quick: bool) -> dict[str, Any]:
    """Coverage of two kinds of planted truth."""
    del stores  # nothing here is a trial of a plan
    return {
        "closed_form": {"replicates": 200 if quick else 2000, "coverage": _closed_form(200 if quick else 2000)},
        "resampled": {
            "replicates": 400 if quick else 4000,
            "coverage": _resampled(400 if quick else 4000, 64 if quick else 512),
        },
    }


def section(found: dict[str, Any]) -> Section:
    """What the page says of it."""
    closed, real = found["closed_form"], found["resampled"]
    truths = {
        f"expected rise of squared error of a linear model under relative noise (closed form), {DRAWS} draws x "
        f"{EXAMPLES} examples": closed,
        "loss of curve area of the digits net over very many draws and examples, estimated from 24 x 120 of them": real,
    }
    held = [truth["coverage"] for truth in truths.values()]
    return Section(
        title="Coverage of 95 % intervals",
        rows=(
            Row(
                "95 % intervals hold the planted truth",
                f"{min(held):.1%} and {max(held):.1%} of {closed['replicates']:,} and {real['replicates']:,} intervals",
                "yes" if min(held) >= 0.93 and max(held) <= 0.97 else "no",
            ),
        ),
        text="Two planted truths: one in closed form, one that is the mean over very many draws and examples.",
        tables={
            "Both truths": table(
                ["planted truth", "replicates", "intervals that hold it"],
                [[name, str(truth["replicates"]), f"{truth['coverage']:.1%}"] for name, truth in truths.items()],
            )
        },
    )
