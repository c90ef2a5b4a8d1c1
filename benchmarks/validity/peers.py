"""Peers beside ours, on the same rescaled twin: WeightWatcher and loss-landscapes, from their own released code.

Optional: ``pip install weightwatcher loss-landscapes``. What is not installed is left out and said so.
"""

import copy
import importlib.util
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.validity.page import Row, Section, table
from wheeltap import api, gauge
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp
from wheeltap.plans.plan import AuditSpec, Effort
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_classifier
from wheeltap.sources import digits

WIDTHS = (64, 256, 256, 10)
STEPS = 12


def _pair() -> tuple[Subject, Subject, Task]:
    """A digits net wide enough for WeightWatcher, and its rescaled twin."""
    split = digits.split()
    with reproducible(0):
        model = mlp(WIDTHS)
    train_classifier(model, split.train_inputs, targets=split.train_targets, settings=TrainSettings(epochs=20))
    family = gauge.find(model)
    assert isinstance(family, gauge.Family)
    twin = gauge.twin(model, gauge.describe(family, "rescale", seed=0))
    task = Task(split.test_inputs, split.test_targets, name="digits", more=split.train_inputs)
    return Subject(model, name="original"), Subject(twin, name="rescaled twin"), task


def _ours(one: Subject, two: Subject, task: Task) -> dict[str, Any]:
    audits = (AuditSpec(name="score"), AuditSpec(name="relative-noise"), AuditSpec(name="function-noise"))
    report = api.compare(one, two, task, audits=audits, effort=Effort(draws=32, control_draws=16, block_draws=0))
    pairs = [f for f in report.findings if " vs " in f.subject]
    return {f.code: [f.status, str(f.estimates[0])] for f in pairs}


def _weightwatcher(one: Subject, two: Subject) -> dict[str, Any] | str:
    if importlib.util.find_spec("weightwatcher") is None:
        return "not installed"
    watcher: Any = importlib.import_module("weightwatcher")

    def read(subject: Subject) -> list[list[Any]]:
        table = watcher.WeightWatcher(model=copy.deepcopy(subject.model)).analyze(min_evals=20)
        verdicts = table["warning"] if "warning" in table else [""] * len(table)
        return [[float(alpha), str(verdict)] for alpha, verdict in zip(table["alpha"], verdicts, strict=True)]

    return {"version": watcher.__version__, "original": read(one), "twin": read(two)}


def _loss_landscapes(one: Subject, two: Subject, task: Task) -> dict[str, Any] | str:
    if importlib.util.find_spec("loss_landscapes") is None:
        return "not installed"
    landscapes: Any = importlib.import_module("loss_landscapes")
    metrics: Any = importlib.import_module("loss_landscapes.metrics")

    def line(subject: Subject) -> list[float]:
        losses = []
        for seed in range(8):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            model = copy.deepcopy(subject.model)
            metric = metrics.Loss(nn.functional.cross_entropy, task.inputs, task.targets)
            # Its distance is inverted (a larger number moves less); 2 moves by half of the weights' norm in all.
            losses.append(landscapes.random_line(model, metric, distance=2, steps=STEPS, normalization="filter"))
        return [float(v) for v in np.mean(losses, axis=0)]

    return {"original": line(one), "twin": line(two)}


def measure(stores: Path, *, quick: bool) -> dict[str, Any]:
    """What each tool says of a network and of a copy with the same outputs."""
    del stores, quick  # one pair of networks is all there is
    one, two, task = _pair()
    outputs = [task.scores(subject.model) for subject in (one, two)]
    return {
        "largest_difference": float((outputs[0] - outputs[1]).abs().max()),
        "ours": _ours(one, two, task),
        "weightwatcher": _weightwatcher(one, two),
        "loss_landscapes": _loss_landscapes(one, two, task),
    }


def section(found: dict[str, Any]) -> Section:
    """What the page says of it."""
    said = {f"wheeltap {code}": f"{status}: {value}" for code, (status, value) in found["ours"].items()}
    watcher, landscape = _watcher(found["weightwatcher"]), _landscape(found["loss_landscapes"])
    changes = watcher.split("; then ")
    silent = all(status in ("excluded", "measured") for status, _ in found["ours"].values())
    return Section(
        title="Peers on the same copy",
        rows=(
            Row(
                "verdicts are the same on a rescaled copy",
                f"wheeltap: {'no difference' if silent else 'a difference'}; WeightWatcher: "
                f"{'not measured' if len(changes) < 2 else 'other verdicts' if changes[0] != changes[1] else 'the same'}",
                "yes" if silent else "no",
            ),
        ),
        text=f"""A digits net (64-256-256-10) and a copy whose units are rescaled in and out; their outputs differ by at most
{found["largest_difference"]:.1e}.""",
        tables={
            "What each tool says": table(
                ["tool", "original, then copy"],
                [[tool, value] for tool, value in (said | {"WeightWatcher": watcher, LANDSCAPES: landscape}).items()],
            )
        },
    )


LANDSCAPES = "loss-landscapes `random_line`, filter-normalized, mean of 8 lines: loss on the way"


def _watcher(found: dict[str, Any] | str) -> str:
    if isinstance(found, str):
        return found

    def say(layers: list[list[Any]]) -> str:
        return ", ".join(f"alpha {alpha:.2f} {verdict or 'no warning'}" for alpha, verdict in layers)

    return f"({found['version']}) {say(found['original'])}; then {say(found['twin'])}"


def _landscape(found: dict[str, Any] | str) -> str:
    if isinstance(found, str):
        return found

    def say(losses: list[float]) -> str:
        return ", ".join("inf" if math.isinf(loss) else f"{loss:.2f}" for loss in losses[:: max(1, STEPS // 4)])

    return f"{say(found['original'])}; then {say(found['twin'])}"
