"""Rounding of nets whose weights are no plain layers, against a slow quantizer that knows nothing of layers."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from engine_nets import numbers
from folding import folded, norms
from torch import Tensor, nn
from uncommon_trials import copied, run, trial

from benchmarks.nets.uncommon import MODELS, Recurrent, uncommon
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.clean import settle
from wheeltap.perturb import create
from wheeltap.recipes.train import TrainSettings, reproducible, train_classifier
from wheeltap.testing.planted import PlantedCase


def units_of(name: str, weight: Tensor) -> Iterator[tuple[Any, ...]]:
    """Where the numbers of each output unit are, from what torch and transformers say of each class."""
    if name == "grouped.weight":  # [in, out / groups, ...]: the second half of the channels reads the second half
        for unit in range(6):
            yield slice(2 * (unit // 3), 2 * (unit // 3) + 2), unit % 3
    elif name in ("up.weight", "line.weight"):
        for unit in range(weight.shape[1]):
            yield slice(None), unit
    elif weight.ndim == 3 and name.endswith(("gate_up_proj", "down_proj")):
        for expert in range(len(weight)):
            for unit in range(weight.shape[2 if _is_transposed(name, weight) else 1]):
                yield (expert, slice(None), unit) if _is_transposed(name, weight) else (expert, unit)
    elif name == "positions":
        for place in range(weight.shape[1]):
            yield 0, place
    else:
        for unit in range(len(weight)):
            yield (unit,)


def _is_transposed(name: str, weight: Tensor) -> bool:
    """GPT-OSS stores experts ``[expert, in, out]``: of 8 hidden and 12 inner numbers."""
    return weight.shape[1:] == ((8, 24) if name.endswith("gate_up_proj") else (12, 8))


def slowly_rounded(values: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    top = 2 ** (bits - 1) - 1
    step = np.float32(np.abs(values).max() / np.float32(top))
    if step == 0:
        return values
    rounded = [np.float32(round(float(np.float32(value / step))) * step) for value in values.ravel()]
    return np.array(rounded).reshape(values.shape)


def quantized_copy(model: nn.Module, bits: int) -> nn.Module:
    """A copy with each weight of two axes or more rounded, unit by unit; of a weight norm, what it computes."""
    rounded = copied(model)
    held, computed = dict(rounded.named_parameters()), folded(rounded)
    for name, (_, weight) in computed.items():
        held[name].data = weight
    for name, parameter in rounded.named_parameters():
        bias = name.endswith("_bias")  # of experts: [expert, unit]
        if sum(size > 1 for size in parameter.shape) < 2 or bias or "norm" in name.lower():
            continue
        array = parameter.detach().numpy().copy()
        for unit in units_of(name, parameter):
            array[unit] = slowly_rounded(array[unit], bits)
        parameter.data = torch.from_numpy(array)
    for name, (lengths, _) in computed.items():
        held[lengths].data = norms(held[name].detach(), held[lengths])
    return rounded


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", list(MODELS))
def test_rounding_gives_the_scores_of_an_independent_quantizer(kind: str, bits: int) -> None:
    case = uncommon(kind)
    slow = case.task.scores(quantized_copy(case.subject.model, bits))
    clean = case.task.scores(case.subject.model)
    with Disturbance(case.subject, create("quantize"), WHOLE) as disturbance:
        disturbance.apply(bits, root=0, seed=0)
        fast = case.task.scores(case.subject.model)
    assert float((slow - clean).abs().max()) > 1e-3, "nothing was rounded"
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    assert torch.equal(case.task.scores(case.subject.model), clean)


@cache
def classifier() -> PlantedCase:
    """An LSTM that has learnt by heart whether each sum of a sequence is low, middling or high."""
    inputs = numbers(400, 6, 8, seed=1)
    total = inputs.sum((1, 2))
    targets = total.gt(2).long() + total.gt(-2).long()
    with reproducible(0):
        model = Recurrent(nn.LSTM(8, 32, batch_first=True))
    train_classifier(model, inputs, targets=targets, settings=TrainSettings(epochs=150, batch=400, rate=1e-2))
    return PlantedCase(Subject(model, name="sums"), Task(inputs, targets, name="sums"))


def accuracy(case: PlantedCase, model: nn.Module) -> float:
    with torch.no_grad():
        scores = model(case.task.inputs)  # type: ignore[attr-defined]
    return float((scores.argmax(1) == case.task.targets).float().mean())


def test_a_trained_recurrent_net_loses_what_an_independent_quantizer_says() -> None:
    """Rounding the head alone, .02 of the weights, as was done where nothing else was found, loses nothing."""
    case = classifier()
    settle(case.subject, case.task)
    clean = accuracy(case, case.subject.model)
    assert clean > 0.98
    whole, head = run(case, [trial(case, "quantize", 2), trial(case, "quantize", 2, Site("layer", "head"))])
    assert whole.status == "done" and not whole.because
    assert float(whole.values["coverage"]) > 0.9
    left = float(whole.values["accuracy"].mean())
    assert left == pytest.approx(accuracy(case, quantized_copy(case.subject.model, 2)))
    assert left < clean - 0.08
    assert float(head.values["accuracy"].mean()) > clean - 0.01


@pytest.mark.parametrize("kind", ["spectral norm", "spectral norm by hooks"])
def test_codes_of_what_is_behind_a_norm_are_those_of_the_computed_weight(kind: str) -> None:
    """Per channel, so up to one scale: of what is divided by a norm."""
    subject = uncommon(kind).subject
    for layer in subject.layers:
        computed: Any = subject.model.get_submodule(layer.module).weight
        rows = (layer.matrix(subject.parameter(layer.weight)).detach(), computed.detach().reshape(layer.units, -1))
        # In sizes, for what a spectral norm divides by may be negative before it was trained.
        scaled = [(one / (one.abs().amax(1, keepdim=True) / 7)).abs() for one in rows]
        torch.testing.assert_close(*scaled, rtol=1e-5, atol=1e-5)  # of which the codes are the nearest whole numbers
        factor = rows[1] / rows[0]
        torch.testing.assert_close(factor, factor[0, 0].expand_as(factor), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["weight norm", "weight norm by hooks"])
def test_a_weight_norm_computes_what_was_asked_for_and_comes_back(kind: str) -> None:
    """Also where nothing is left of a row, which then has no direction."""
    case = uncommon(kind)
    subject, layer = case.subject, case.subject.layers[1]
    before = {name: held.detach().clone() for name, held in subject.model.named_parameters()}
    clean = subject.weight(layer).detach().clone()
    other, computed = folded(subject.model)[layer.weight]
    torch.testing.assert_close(clean, computed)
    assert other == layer.length
    with Disturbance(subject, create("erase"), Site("layer", layer.name)) as disturbance:
        for dose in (1.0, 0.25):
            disturbance.apply(dose, root=0, seed=0)
            assert case.task.scores(subject.model).isfinite().all()
            now: Any = subject.model.get_submodule(layer.module).weight
            torch.testing.assert_close(now, clean * (1.0 - dose))
    for name, held in subject.model.named_parameters():
        assert torch.equal(held, before[name]), name


class Products(nn.Module):
    """The layers of an MLP as bare parameters: one read ``x @ W``, one as ``nn.functional.linear`` reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Parameter(torch.randn(6, 9, generator=torch.Generator().manual_seed(0)))
        self.rows = nn.Parameter(torch.randn(4, 9, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear((x @ self.right).relu(), self.rows)


@pytest.mark.parametrize("bits", [2, 3])
def test_a_bare_parameter_is_rounded_by_the_axis_that_its_product_shows(bits: int) -> None:
    subject = Subject(Products().eval())
    settle(subject, Task(numbers(8, 6), torch.arange(8) % 4))
    kinds = {layer.name: layer.kind for layer in subject.layers}
    assert kinds == {"right": "stacked", "rows": "plain"}
    right, rows = (subject.parameter(name).detach().clone().numpy() for name in ("right", "rows"))
    with Disturbance(subject, create("quantize"), WHOLE) as disturbance:
        disturbance.apply(bits, root=0, seed=0)
        columns = np.stack([slowly_rounded(right[:, unit], bits) for unit in range(9)], 1)
        assert np.allclose(subject.parameter("right").detach().numpy(), columns, atol=1e-6)
        lines = np.stack([slowly_rounded(line, bits) for line in rows])
        assert np.allclose(subject.parameter("rows").detach().numpy(), lines, atol=1e-6)
