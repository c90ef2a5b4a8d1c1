"""Hidden units of probed layers can be ablated one by one where one layer of its own reads them."""

import copy

import pytest
import torch
from odd_nets import READS, UNITS, Gated, Odd, Pictures, made
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.units import hidden_units, means, replaced, to_value


def settled(model: nn.Module, *, features: int = READS) -> tuple[Subject, Task]:
    inputs = torch.randn(50, features, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        targets = model(inputs).argmax(1)
    return Subject(model, name="net"), Task(inputs, targets)


def without(model: nn.Module, reader: str, unit: int, value: Tensor) -> nn.Module:
    """Slow: a copy whose reader takes a constant instead of a unit."""
    changed = copy.deepcopy(model)
    layer = changed.get_submodule(reader)
    with torch.no_grad():
        column = layer.weight[:, unit].clone()
        layer.weight[:, unit] = 0
        layer.bias += column.reshape(len(column), -1).sum(1) * value
    return changed


@pytest.mark.parametrize(
    ("model", "features", "layer", "reader", "units"),
    [(Odd("slopes"), READS, "first", "last", UNITS), (Pictures(), 36, "widen", "narrow", 12)],
    ids=["gain", "pictures"],
)
def test_units_are_ablated_as_weights_would_be(
    model: nn.Module, features: int, layer: str, reader: str, units: int
) -> None:
    subject, task = settled(made(model), features=features)
    hiddens = {hidden.layer: hidden for hidden in hidden_units(subject, task)}
    hidden, value = hiddens[layer], means(subject, task, tuple(hiddens.values()))
    assert (hidden.reader, hidden.units) == (reader, units)
    moved = 0.0
    for unit in range(0, units, 3):
        index = torch.tensor([unit])
        with replaced(subject, {hidden: to_value(index, value[hidden][index])}):
            fast = task.scores(subject.model)
        slow = task.scores(without(subject.model, reader, unit, value[hidden][unit]))
        assert torch.allclose(fast, slow, atol=1e-5)
        moved = max(moved, float((fast - task.scores(subject.model)).abs().max()))
    assert moved > 0.01


def test_units_that_are_left_out_say_why() -> None:
    for model, because in (
        (Gated(), "both: they are read inside of the model, which is no layer of its own"),
        (Odd("read twice"), "first: its units are read by 2 weights"),
        (Odd("fed back"), "its units are read by 2 weights"),
        (Odd("weighed"), "first: its units are not known to be alike"),
        (Odd("branches"), "branches on the values that it computes"),
    ):
        with pytest.raises(ModelError, match=because):
            hidden_units(*settled(made(model)))
