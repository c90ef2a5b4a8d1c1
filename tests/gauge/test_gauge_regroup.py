"""Copies whose maps are cut into other modules: the same outputs, other layers, and the same function-space noise."""

import pytest
import torch
from torch import Tensor

from tests.cases import MODEL_CASES
from wheeltap import gauge
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject, derived_record
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.moments import layer_moments
from wheeltap.engine.units import probe_run
from wheeltap.perturb import create
from wheeltap.testing.planted import PlantedCase


def cut_anew(case: PlantedCase) -> Subject:
    subject = case.subject
    run = probe_run(case.task, subject.model)
    family = gauge.find(subject.model, run)
    assert isinstance(family, gauge.Family)
    made = gauge.describe(family, "regroup", seed=0)
    record = derived_record(subject.record, made, role="twin")
    return subject.derived(gauge.twin(subject.model, made, run, family=family), record)


def moved(case: PlantedCase, subject: Subject, *, dose: float, draws: int) -> Tensor:
    """Changes of scores under function-space noise, ``[draw, example, option]``."""
    known = layer_moments(subject, case.task)
    assert not known.left_out
    clean, changes = case.task.scores(subject.model), list[Tensor]()
    with Disturbance(subject, create("function"), WHOLE, known.known) as disturbance:
        for seed in range(draws):
            disturbance.apply(dose, root=0, seed=seed)
            changes.append(case.task.scores(subject.model) - clean)
    return torch.stack(changes)


@pytest.mark.parametrize("name", ["mlp", "weight norm", "residual"])
def test_a_copy_computes_the_same_from_other_layers_and_the_model_stays(name: str) -> None:
    case = MODEL_CASES[name].planted()
    subject = case.subject
    before = {path: held.detach().clone() for path, held in subject.model.named_parameters()}
    twin = cut_anew(case)
    torch.testing.assert_close(case.task.scores(twin.model), case.task.scores(subject.model), rtol=1e-4, atol=1e-5)
    assert dict(twin.model.named_parameters()).keys() != before.keys()
    assert dict(subject.model.named_parameters()).keys() == before.keys()
    assert all(torch.equal(held, before[path]) for path, held in subject.model.named_parameters())


@pytest.mark.parametrize("name", ["mlp", "weight norm"])
def test_function_noise_is_the_same_draw_by_draw(name: str) -> None:
    case = MODEL_CASES[name].planted()
    twin = cut_anew(case)
    settle(case.subject, case.task)
    changes = [moved(case, subject, dose=0.3, draws=2) for subject in (case.subject, twin)]
    assert float(changes[0].abs().max()) > 0.05
    torch.testing.assert_close(*changes, rtol=1e-3, atol=1e-4)


def test_function_noise_of_a_folded_norm_is_as_large() -> None:
    """Not the same numbers: a convolution with a bias reads a constant as well.

    At a dose so small that outputs follow it: at .1 a few draws move them a hundred times as far as most.
    """
    case = MODEL_CASES["residual"].planted()
    settle(case.subject, case.task)
    sizes = [
        float(moved(case, subject, dose=0.002, draws=200).square().mean()) for subject in (case.subject, cut_anew(case))
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.25)
