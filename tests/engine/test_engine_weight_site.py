"""A disturbance of one weight changes that number, in every layout, and nothing else."""

import numpy as np
import pytest
import torch
from engine_nets import ConvNet, TiedLanguageModel, choices, numbers, seeded, taught
from engine_trials import run, trial
from torch import Tensor, nn

from tests.cases import MODEL_CASES
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.measure import nll
from wheeltap.core.site import Site
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance
from wheeltap.models.mlp import mlp
from wheeltap.perturb import create

LAYERS = {"linear": "mlp", "conv": "residual", "embedding": "llama", "transposed": "gpt2", "attention": "encoder"}
"""By kind of layer, a model of the table that has one."""


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def stored_place(kind: str, row: int, column: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where a module stores what unit ``row`` takes from input ``column``, by hand."""
    if kind in ("transposed", "embedding"):
        return (column, row)
    if kind != "conv":
        return (row, column)
    _, _, height, width = shape
    return (row, column // (height * width), column // width % height, column % width)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("name", "dose"), [("relative", 0.5), ("quantize", 2.0)])
def test_one_number_changes_as_it_would_with_its_layer(kind: str, name: str, dose: float) -> None:
    subject = MODEL_CASES[LAYERS[kind]].planted().subject
    model = subject.model
    layer = next(found for found in subject.layers if found.kind == kind)
    clean, digest = parameters(model), weights_digest(model)
    with Disturbance(subject, create(name), Site("layer", layer.name)) as whole:
        whole.apply(dose, root=3, seed=1)
        disturbed = parameters(model)[layer.weight]
    for row, column in ((0, 0), (layer.units - 1, layer.fan_in - 1), (1, layer.fan_in // 2)):
        with Disturbance(subject, create(name), Site.weight(layer.name, row=row, column=column)) as one:
            one.apply(0.125 if name != "quantize" else 3.0, root=3, seed=1)  # what one dose did, the next forgets
            one.apply(dose, root=3, seed=1)
            now = parameters(model)
        moved = [(n, place) for n in clean for place in (now[n] != clean[n]).nonzero().tolist()]
        place = stored_place(kind, row, column, layer.shape)
        # The largest weight of a grid keeps its value when it is rounded to that grid.
        changes = bool(disturbed[place] != clean[layer.weight][place])
        assert moved == ([(layer.weight, list(place))] if changes else [])
        assert changes or name == "quantize" or clean[layer.weight][place] == 0  # a padding token's row is zero
        # Noise is added in one fused step where a whole layer is disturbed.
        assert float(now[layer.weight][place]) == pytest.approx(float(disturbed[place]), rel=1e-5, abs=1e-7)
        assert weights_digest(model) == digest


def test_a_convolution_stored_channels_last_and_a_single_number() -> None:
    model = seeded(ConvNet).to(memory_format=torch.channels_last)
    subject, before = Subject(model), weights_digest(model)
    with Disturbance(subject, create("erase"), Site.weight("second", row=2, column=7)) as one:
        one.apply(1.0, root=0, seed=0)
        assert float(model.get_parameter("second.weight").detach()[2, 0, 2, 1]) == 0.0
    assert weights_digest(model) == before
    model.register_parameter("scale", nn.Parameter(torch.tensor(3.0)))
    with Disturbance(Subject(model), create("erase"), Site.number("scale", ())) as one:
        one.apply(1.0, root=0, seed=0)
        assert float(model.get_parameter("scale").detach()) == 0.0
    assert float(model.get_parameter("scale").detach()) == 3.0


def test_a_trial_measures_the_model_without_it() -> None:
    model = seeded(TiedLanguageModel)
    subject, task = Subject(model), choices()
    [done] = run(subject, task, [trial(subject, task, "erase", 1.0, Site.weight("embed", row=3, column=5))])
    with torch.no_grad():
        clean = task.scores(model)
        held = float(model.get_parameter("embed.weight")[5, 3])
        model.get_parameter("embed.weight")[5, 3] = 0.0
        scores = task.scores(model)  # the output layer shares the number
        model.get_parameter("embed.weight")[5, 3] = held
    for measure in task.measures:
        assert np.array_equal(done.values[measure.name], measure(scores, task.targets, clean).numpy())
    assert not np.array_equal(done.values["nll"], nll(clean, task.targets, clean).numpy())


@pytest.mark.parametrize("name", ["lstm", "weight norm", "deconvolved", "own parameters", "mamba"])
def test_a_number_of_any_parameter_is_removed_alone(name: str) -> None:
    """Recurrent, computed, fused and plain weights, biases, gains, a scalar; what follows is the model without it."""
    case = MODEL_CASES[name].planted()
    subject, before = case.subject, weights_digest(case.subject.model)
    clean = parameters(subject.model)
    for name, held in clean.items():
        place = tuple(size // 2 for size in held.shape)
        with Disturbance(subject, create("erase"), Site.number(name, place)) as one:
            one.apply(0.5, root=0, seed=0)
            one.apply(1.0, root=0, seed=0)
            now = parameters(subject.model)
        moved = [(n, tuple(at)) for n in clean for at in (now[n] != clean[n]).nonzero().tolist()]
        assert moved == ([(name, place)] if held[place] != 0 else [])
        assert now[name][place] == 0
        assert weights_digest(subject.model) == before


def test_a_place_that_is_not_there() -> None:
    model = seeded(lambda: mlp((6, 9, 4)))
    subject, task, before = Subject(model), taught(model, numbers(20, 6)), weights_digest(model)
    missing = [("nowhere", (0,)), ("0.weight", (9, 0)), ("0.weight", (0,)), ("0.bias", (0, 0))]
    sites = {Site.number(name, place): "skipped" for name, place in missing}
    sites |= {Site.weight("nowhere", row=0, column=0): "skipped", Site.weight("0", row=99, column=0): "failed"}
    found = run(subject, task, [trial(subject, task, "erase", 1.0, site) for site in sites])
    assert [outcome.status for outcome in found] == list(sites.values())
    assert all(outcome.because for outcome in found)
    assert weights_digest(model) == before
