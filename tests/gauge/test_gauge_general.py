"""Hidden units found by probing: where no tracer follows, and where units may not move; ablated one by one."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from odd_nets import READS, UNITS, Gated, Odd, Pictures, made, running, tied
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core.fingerprint import identify, weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.units import hidden_units, means, replaced, to_value
from wheeltap.gauge import general
from wheeltap.gauge.bench import TwinBench
from wheeltap.gauge.hidden import HiddenLayer

ALL = ("permute", "rescale", "split", "cancel", "dead", "entangle")
UNSCALED = tuple(name for name in ALL if name != "rescale")


def found(model: nn.Module, features: int = READS) -> gauge.Family | gauge.Refusal:
    return general.recognise(model, running(model, seed=1, features=features))


def assert_twins_hold(model: nn.Module, family: gauge.Family, *, bound: float = 1e-9, features: int = READS) -> None:
    """Each gauge's twin answers the same on inputs that were never probed, and its weights are others."""
    before = weights_digest(model)
    for seed in (7, 8):
        run = running(model, seed=seed, rows=200, features=features)
        original = run(model).numpy()
        for name in family.offers:
            twin = gauge.twin(model, gauge.describe(family, name, seed=seed), family=family)
            likeness = gauge.check(original, run(twin).numpy())
            assert likeness.difference < bound, name
            assert weights_digest(twin) != before, name
    assert weights_digest(model) == before


@pytest.mark.parametrize(
    ("model", "offers", "hidden"),
    [
        (Odd("shared"), ALL, [("first", UNITS)]),
        (Odd("slopes"), ALL, [("first", UNITS)]),
        (Odd("weighed"), ("rescale",), [("first", UNITS)]),
        (Odd("fed back"), UNSCALED, [("back", UNITS)]),
        (Gated(interleaved=True), ALL, [("both", UNITS)]),
        (Gated(interleaved=True, clamped=True), UNSCALED, [("both", UNITS)]),
        (Gated(experts=3, interleaved=True), ALL, [("both", UNITS)]),
        (tied(), ("permute",), [("code", UNITS)]),
        (Pictures(), ALL, [("enter", 8), ("one", 8), ("widen", 12), ("narrow", 4)]),
    ],
    ids=lambda value: getattr(value, "kind", type(value).__name__) if isinstance(value, nn.Module) else "",
)
def test_what_holds(model: nn.Module, offers: tuple[str, ...], hidden: list[tuple[str, int]]) -> None:
    features = 36 if isinstance(model, Pictures) else READS
    family = found(made(model), features)
    assert isinstance(family, gauge.Family)
    assert family.offers == offers
    assert sorted((layer.name, layer.units) for layer in family.hiddens) == sorted(hidden)
    assert_twins_hold(model, family, features=features)
    if getattr(model, "kind", "") == "shared":  # stays shared, in each
        for name in family.offers:
            twin: Any = gauge.twin(model, gauge.describe(family, name, seed=0), family=family)
            assert twin.other.weight is twin.first.weight is not model.first.weight
        assert model.other.weight is model.first.weight


UNMOVED = {
    "no hidden units were found": ("sorted", "normed"),
    "first: its units are not permuted or rescaled": ("leaves", "two readers of half"),
    "the forward of the model branches on the values that it computes": ("branches",),
    "the examples that were tried do not show what other.weight does": ("other branch",),
}


@pytest.mark.parametrize(("kind", "because"), [(kind, because) for because, kinds in UNMOVED.items() for kind in kinds])
def test_units_that_may_not_move(kind: str, because: str) -> None:
    family = found(made(Odd(kind)))
    assert isinstance(family, gauge.Refusal)
    assert because in family.because


def test_the_model_is_left_as_it_was() -> None:
    """Also its buffers, hooks and gradients; and where the examples cannot be run."""
    model = made(Pictures())
    model.enter.weight.requires_grad_(False)
    model.one.weight.grad = torch.ones_like(model.one.weight)
    model.each_norm.register_forward_hook(lambda module, args, output: None)
    before, hooks = identify(model), len(model.each_norm._forward_hooks)

    def failing(model: nn.Module) -> Tensor:
        raise RuntimeError("no such examples")

    for run in (running(model, seed=0, features=36), failing):
        found = general.recognise(model, run)
        assert not before.differing(identify(model))
        assert len(model.each_norm._forward_hooks) == hooks
        assert [p.requires_grad for p in model.parameters()].count(False) == 1
        assert torch.equal(model.one.weight.grad, torch.ones_like(model.one.weight))
        assert model.two.weight.grad is None
        assert isinstance(found, gauge.Refusal) == (run is failing)
    assert "it cannot be probed (RuntimeError: no such examples)" in general.recognise(model, failing).because


def test_sixteen_bit_weights() -> None:
    """Proven on a copy in double precision; offered is what keeps every bit of each product."""
    model = made(Gated(experts=3)).bfloat16()
    family = found(model)
    assert isinstance(family, gauge.Family)
    assert family.offers == ("permute", "rescale", "cancel", "dead")
    run = running(model, seed=4)
    twin = gauge.twin(model, gauge.describe(family, "rescale", seed=0), family=family)
    assert weights_digest(twin) != weights_digest(model)
    assert torch.equal(run(model), run(twin))


def test_a_proof_can_fail() -> None:
    """Without one of its tensors a hidden layer is refused, and one that hardly matters is not proven at all."""
    model = made(Odd("slopes"))
    bench = TwinBench(model, running(model, seed=1))
    (group,) = [one for one in general._probed(bench) if one.hidden.name == "first"]
    order = np.random.default_rng(0).permutation(UNITS)
    assert bench.holds(lambda shell: group.hidden.gather(shell, [order]))
    for left_out in group.hidden.stages:
        rest = HiddenLayer("first", UNITS, tuple(stage for stage in group.hidden.stages if stage is not left_out))
        assert bench.matters(lambda shell, rest=rest: rest.gather(shell, [order])), left_out
    with torch.no_grad():
        model.last.weight.mul_(1e-9)
    assert isinstance(found(model), gauge.Refusal)


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
