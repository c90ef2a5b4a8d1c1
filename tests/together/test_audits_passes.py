"""What an audit says it costs at most, in passes, against the passes that a run of it makes."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from letters import Letters
from mirrored import mirrored
from tiny import tiny_llama
from torch.nn.modules.module import register_module_forward_pre_hook

import wheeltap as wt
from tests import contaminated
from tests.nets.planted_circuit import planted_circuit
from tests.nets.tiny_lm import tiny_lm
from wheeltap.audits import base
from wheeltap.core.settings import SMALL
from wheeltap.core.subject import Subject
from wheeltap.engine.readings import create
from wheeltap.models.mlp import mlp
from wheeltap.plans.plan import Effort
from wheeltap.runs.budget import most_passes
from wheeltap.sources import digits
from wheeltap.suites.circuits import sources as pairs
from wheeltap.suites.circuits.pairs import Pairs
from wheeltap.suites.lens.sources.ambient import Example, task_of
from wheeltap.testing.planted import PlantedCase

FEW = Effort(draws=5, control_draws=4, block_draws=2)


def _digits() -> PlantedCase:
    return PlantedCase(digits.subject(name="digits"), digits.task())


def _untrained() -> PlantedCase:
    return PlantedCase(Subject(mlp((64, 24, 10)).eval(), name="untrained"), digits.task())


def _language() -> PlantedCase:
    pytest.importorskip("transformers")
    return tiny_lm("llama", examples=40)


def _texts() -> PlantedCase:
    pytest.importorskip("transformers")
    return PlantedCase(contaminated.subject(seen=2), contaminated.task())


def _ambiguous() -> PlantedCase:
    pytest.importorskip("transformers")
    model = tiny_llama(vocabulary=Letters.size, positions=512)
    readings = {"premise": ("Some of it may rain.", "All of it may rain.")}
    distractors = {"premise": "Some of it may snow."}
    items = [
        Example(id=str(at), premise=f"All of it may not rain {at} times.", hypothesis="Some of it rains.",
                labels=("entailment", "neutral") if at % 2 else ("neutral",), readings=readings if at % 2 else {},
                distractors=distractors)
        for at in range(12)
    ]  # fmt: skip
    return PlantedCase(Subject(model, name="llama"), task_of(items, Letters(), name="ambiguous"))


def _paired() -> PlantedCase:
    planted = planted_circuit(3, fake=False, count=8)
    return PlantedCase(Subject(planted.net, name="planted"), pairs.task(Pairs.of(planted.pairs), name="planted"))


CIRCUIT: dict[str, Any] = {
    "penalties": "1e-4", "target": 0.6, "steps": 3, "batch": 4, "random": 19, "weight_draws": 2, "tries": 1, "again": 1,
}  # fmt: skip

CASES: dict[str, tuple[Callable[[], PlantedCase], dict[str, Any], float]] = {
    "score": (_digits, {}, 1.0),
    "relative-noise": (_digits, {}, 0.9),
    "function-noise": (_digits, {}, 0.7),
    "quantization": (_digits, {}, 0.95),
    "pruning": (_digits, {}, 0.95),
    "bit-flips": (_digits, {"draws": 8}, 0.95),
    "fine-tuning": (_digits, {"draws": 2}, 0.9),
    "relearning": (_digits, {"group": 1, "draws": 2}, 0.9),
    "single-point": (_digits, {}, 1.0),
    "redundancy": (_digits, {}, 0.9),
    "entanglement": (_digits, {}, 1.0),
    "parts": (_digits, {"nulls": 2, "draws": 2, "tries": 2}, 0.8),
    "decodable": (_digits, {}, 0.6),
    "improvement": (_untrained, {}, 0.6),
    "symmetry": (lambda: mirrored("plain"), {"weights": 12, "directions": 6, "copies": 1}, 0.5),
    "heads": (_language, {"top": 2, "sample": 2}, 0.5),
    "merging": (_digits, {}, 1.0),
    "contamination": (_texts, {"window": contaminated.WINDOW, "shards": 2, "shuffles": 3, "exposures": "1,4"}, 0.9),
    "ambiguity": (_ambiguous, {"continuations": 4, "longest": 6}, 0.3),
    "circuit-sufficient": (_paired, CIRCUIT, 0.3),
    "circuit-necessary": (_paired, CIRCUIT, 0.3),
    "circuit-nulls": (_paired, CIRCUIT, 0.3),
    "circuit-stable": (_paired, CIRCUIT, 0.3),
}
"""Where each is run (on the digits, if not named), its settings, and the least share of the bound that a run takes."""


EACH_TIME = ("quantization", "single-point")
OTHERS = [pytest.param(name, marks=pytest.mark.release) for name in base.BUILTIN if name not in EACH_TIME]


@pytest.mark.parametrize("name", [*EACH_TIME, *OTHERS])
def test_no_audit_makes_more_passes_than_it_says(name: str) -> None:
    make, settings, share = CASES.get(name, (_digits, {}, 0.3))
    case = make()
    subjects = [case.subject]
    if name == "merging":
        subjects.append(digits.subject(seed=1, name="other"))
    plan = wt.plan(subjects, case.task, audits=["score", wt.AuditSpec(name=name, settings=settings)], effort=FEW)
    if plan.stronger:
        # With plants and looks that are rarely needed it is a bound, and no more.
        assert wt.run(plan, subjects, case.task).cost.forwards <= most_passes(plan)
        plan = msgspec.structs.replace(plan, stronger=())
    assert share * most_passes(plan) <= wt.run(plan, subjects, case.task).cost.forwards <= most_passes(plan)


def test_a_comparison_makes_no_more_passes_than_it_says() -> None:
    subjects = [digits.subject(name="a"), digits.subject(seed=1, name="b")]
    plan = wt.plan(subjects, digits.task(), effort=FEW)
    # Random schemes make more draws only where they decide a row.
    assert 0.8 * most_passes(plan) <= wt.run(plan, subjects, digits.task()).cost.forwards <= most_passes(plan)


@pytest.mark.parametrize("classes", [(2,), (2, 5, 10)])
def test_factors_cost_what_their_number_and_classes_say(classes: tuple[int, ...]) -> None:
    case = _digits()
    generator = torch.Generator().manual_seed(0)
    count = len(case.task.targets)
    factors = {str(at): torch.randint(0, of, (count,), generator=generator) for at, of in enumerate(classes)}
    factors["digit"] = case.task.targets
    task = digits.task().with_factors(factors)
    settings = {"draws": 8, "matched": 2, "held": 2, "controls": 2}
    plan = wt.plan(case.subject, task, audits=[wt.AuditSpec(name="decodable", settings=settings)])
    assert wt.run(plan, [case.subject], task).cost.forwards <= most_passes(plan)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("cancellation", {}), ("unit-effects", {"limit": 32}), ("parts", {"tries": 0, "nulls": 2}), ("input-search", {})],
)
def test_readings_count_the_passes_that_they_make(name: str, settings: dict[str, Any]) -> None:
    case = _digits()
    rows = 0

    def count(module: torch.nn.Module, args: Any) -> None:
        nonlocal rows
        if module is case.subject.model:
            rows += len(args[0])

    # On all modules: the structure of a model with hooks of its own is not known.
    hook = register_module_forward_pre_hook(count)
    try:
        told = create(name, settings).read(case.subject, case.task, root=0, seed=0).forwards
    finally:
        hook.remove()
    # Finding the structure of the model runs it on a few rows; halves of an odd number of examples are not equal.
    assert told == pytest.approx(rows / len(case.task.targets), rel=0.01)


def test_a_large_model_makes_no_more_passes_than_are_told() -> None:
    """Recorded blocks, and what is read again because another reading took its place."""
    subject = Subject(mlp((64, 1500, 1300, 10)).eval(), name="large")
    task = digits.task().part(torch.arange(60))
    names = ["relative-noise", "quantization", "pruning"]
    plan = wt.plan(subject, task, audits=names, effort=Effort(draws=4, control_draws=2, block_draws=1))
    assert plan.reference.parameters >= SMALL
    assert wt.run(plan, [subject], task).cost.forwards <= most_passes(plan)
