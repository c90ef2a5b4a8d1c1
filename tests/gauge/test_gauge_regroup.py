"""Copies whose maps are cut into other modules: the same outputs, other layers, and the same function-space noise."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from twins import Wired

from wheeltap import gauge
from wheeltap.core.records import SubjectRecord
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject, derived_record
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.moments import layer_moments
from wheeltap.engine.units import probe_run
from wheeltap.perturb import create


def convolved() -> nn.Module:
    def read(net: Any, rows: Tensor) -> Tensor:
        first = net.norm(net.stem(rows.view(-1, 1, 4, 4))).relu()
        return net.head((first + net.second(net.inner(first)).relu()).mean((2, 3)))

    layers = {"stem": nn.Conv2d(1, 6, 3, padding=1, bias=False), "inner": nn.Conv2d(6, 6, 3, padding=1)}
    return Wired(read, **layers, norm=nn.BatchNorm2d(6), second=nn.BatchNorm2d(6), head=nn.Linear(6, 4))


def mlp(norm: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Module:
    return nn.Sequential(norm(nn.Linear(16, 12)), nn.ReLU(), norm(nn.Linear(12, 10)), nn.ReLU(), nn.Linear(10, 4))


NETS: dict[str, Callable[[], nn.Module]] = {
    "an mlp": mlp,
    "a weight norm": lambda: mlp(parametrizations.weight_norm),
    "batch norms": convolved,
}


def net(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = NETS[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 3.0)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    with torch.no_grad():
        model.eval()(numbers(2))
    return model


def numbers(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)) + 0.3


def cut_anew(subject: Subject, seed: int = 0) -> Subject:
    task = Task(numbers(60), torch.zeros(60, dtype=torch.long))
    family = gauge.find(subject.model, probe_run(task, subject.model))
    assert isinstance(family, gauge.Family)
    made = gauge.describe(family, "regroup", seed=seed)
    record: SubjectRecord = derived_record(subject.record, made, role="twin")
    return subject.derived(gauge.twin(subject.model, made, probe_run(task, subject.model)), record)


@pytest.mark.parametrize("name", NETS)
def test_a_copy_computes_the_same_from_other_layers_and_the_model_stays(name: str) -> None:
    subject = Subject(net(name))
    before = {path: held.detach().clone() for path, held in subject.model.named_parameters()}
    twin = cut_anew(subject)
    fresh = numbers(50, seed=9)
    with torch.no_grad():
        torch.testing.assert_close(twin.model(fresh), subject.model(fresh), rtol=1e-4, atol=1e-5)
        assert subject.model(fresh).isfinite().all(), "its own class still computes its weights"
    assert {layer.name for layer in twin.layers} != {layer.name for layer in subject.layers} or "norm" in name
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.model.modules())
    assert dict(subject.model.named_parameters()).keys() == before.keys()
    for path, held in subject.model.named_parameters():
        assert torch.equal(held, before[path])


@pytest.mark.parametrize("name", [name for name in NETS if name != "batch norms"])
def test_function_noise_is_the_same_draw_by_draw(name: str) -> None:
    subject = Subject(net(name))
    task = Task(numbers(120), torch.zeros(120, dtype=torch.long))
    twin = cut_anew(subject)
    settle(subject, task)
    given: list[Tensor] = []
    for one in (subject, twin):
        known = layer_moments(one, task)
        assert not known.left_out
        with torch.no_grad(), Disturbance(one, create("function"), WHOLE, known.known) as disturbance:
            disturbance.apply(0.3, root=0, seed=1)
            given.append(one.model(numbers(50, seed=9)))
    with torch.no_grad():
        assert float((given[0] - subject.model(numbers(50, seed=9))).abs().max()) > 0.05
    torch.testing.assert_close(*given, rtol=1e-3, atol=1e-4)


def test_function_noise_of_a_folded_norm_is_as_large() -> None:
    """Not the same numbers: a convolution with a bias reads a constant as well.

    At a dose so small that outputs follow it: at .1 a few draws move them a hundred times as far as most.
    """
    subject = Subject(net("batch norms"))
    task = Task(numbers(200), torch.zeros(200, dtype=torch.long))
    settle(subject, task)
    moved: list[float] = []
    for one in (subject, cut_anew(subject)):
        known = layer_moments(one, task)
        with torch.no_grad(), Disturbance(one, create("function"), WHOLE, known.known) as disturbance:
            clean = copy.deepcopy(one.model)(task.inputs)
            squares: list[float] = []
            for seed in range(200):
                disturbance.apply(0.002, root=0, seed=seed)
                squares.append(float((one.model(task.inputs) - clean).square().mean()))
        moved.append(sum(squares) / len(squares))
    assert moved[1] == pytest.approx(moved[0], rel=0.25)
