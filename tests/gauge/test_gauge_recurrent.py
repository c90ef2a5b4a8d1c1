"""Recurrent layers: what reads them is found, and gauges keep what they compute on inputs that were not probed."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recurrent_nets import FRESH, NETS, PROBED, REFUSED, WIDTH, body, net
from torch import nn
from twins import BOUND, Wired, apart, require_same_numbers

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import recurrent
from wheeltap.gauge.base import GaugeSettings, SharedTensors
from wheeltap.gauge.moves import permute


def found(model: nn.Module) -> tuple[dict[str, Any], tuple[str, ...]]:
    return recurrent.find(model, SharedTensors(model), run=PROBED)[:2]


def twin_of(model: nn.Module, name: str, *, seed: int = 0, **settings: Any) -> Any:
    twin = copy.deepcopy(model)
    found(model)[0][name](twin, np.random.default_rng(seed), GaugeSettings(**settings))
    return twin


@pytest.mark.parametrize("name", NETS)
def test_twins_compute_the_same(name: str) -> None:
    model = net(name)
    before = weights_digest(model)
    moves, refused = found(model)
    assert set(moves) == {"permute", "cancel", "dead"} | ({"rescale"} if name == "relu" else set()) and not refused
    assert weights_digest(model) == before
    layers = {path for path, module in model.named_modules() if recurrent.plain_recurrent(module)}
    for move in moves:
        settings: dict[str, Any] = {"pairs": 3, "scale": 2.0} if move == "cancel" else {}
        twin = twin_of(model, move, **settings)
        assert apart(FRESH, model, twin) <= BOUND, move
        # Each recurrent layer is another one; those that were widened have the units they say.
        for path in layers:
            old, new = (each.get_submodule(path) for each in (model, twin))
            assert not torch.equal(
                torch.cat([p.flatten() for p in old.parameters()]), torch.cat([p.flatten() for p in new.parameters()])
            )
            added = {"cancel": 6, "dead": max(1, round(0.25 * old.hidden_size))}.get(move, 0)
            assert new.hidden_size == old.hidden_size + added


def test_pairs_write_the_opposite_of_each_other_and_read_alike() -> None:
    model = net("lstm")
    twin = twin_of(model, "cancel", pairs=2, scale=3.0, jitter=0.1)
    assert apart(FRESH, model, twin) <= BOUND
    old, new = model.body, twin.body
    rows = new.weight_ih_l0.detach().unflatten(0, (4, 14))
    assert torch.equal(rows[:, :10], old.weight_ih_l0.detach().unflatten(0, (4, 10)))
    assert torch.equal(rows[:, 10], rows[:, 11]) and not torch.equal(rows[:, 11], rows[:, 12])
    assert not any(torch.equal(rows[:, 10], rows[:, unit]) for unit in range(10)), "jitter: they read something new"
    for reader in (new.weight_hh_l0.detach().unflatten(0, (4, 14))[:, :10].flatten(0, 1), twin.head.weight.detach()):
        assert torch.equal(reader[:, 10], -reader[:, 11]) and float(reader[:, 10].abs().max()) > 0
        assert float(reader[:, 10:].std()) > 1.5 * float(reader[:, :10].std())
    # Each alone is heard.
    broken = copy.deepcopy(twin)
    with torch.no_grad():
        broken.head.weight[:, 10] = 0
    assert apart(FRESH, model, broken) > 100 * BOUND


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_16_bit_weights_keep_every_bit(name: str) -> None:
    model = net(name).bfloat16()
    twin = twin_of(model, "permute")
    assert require_same_numbers(model, twin) > 0
    assert apart(FRESH, model.float(), twin.float()) <= BOUND
    model = net(name).bfloat16()
    twin = twin_of(model, "cancel", pairs=2)
    assert apart(FRESH, model.float(), twin.float()) <= BOUND


@pytest.mark.parametrize("name", ["states", "both ways", "attending"])
def test_a_reader_left_out_is_seen(name: str) -> None:
    model = net(name)
    (units,) = found(model)[0]["permute"].keywords["layers"]  # type: ignore[attr-defined]
    readers = {stage.path for stage in units.stages} - {"body"}
    assert readers == ({"head", "ask", "mix"} if name == "attending" else {"head"})
    if name == "states":  # layers and directions count 0 to 3: the last state is that of the way back
        (head,) = [stage for stage in units.stages if stage.path == "head"]
        assert (head.blocks.starts, head.blocks.groups) == ((0, 13, 23, 33), (3, 2, 2, 3))
    for reader in readers:
        less = replace(units, stages=tuple(stage for stage in units.stages if stage.path != reader))
        twin = copy.deepcopy(model)
        permute(twin, (less,), np.random.default_rng(0), GaugeSettings())
        assert apart(FRESH, model, twin) > 100 * BOUND


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_say_why(reason: str) -> None:
    torch.manual_seed(0)
    moves, refused = found(REFUSED[reason]().eval())
    assert not moves
    assert refused[0].startswith(f"body: {reason}"), refused
    assert len({path.partition(":")[0] for path in refused}) == len(refused)


def test_with_other_hidden_layers() -> None:
    """Before and after the recurrent ones, found by probing; each gauge rewrites all of them."""
    torch.manual_seed(0)
    model: Any = Wired(
        lambda net, x: net.end(net.norm(net.head(net.body(net.enter(x))[0].mean(1))).relu()),
        body=body("LSTM", bidirectional=True), enter=nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 5)),
        head=nn.Linear(2 * WIDTH, 14), norm=nn.BatchNorm1d(14), end=nn.Linear(14, 6),
    ).eval()  # fmt: skip
    family = gauge.find(model, PROBED)
    assert isinstance(family, gauge.Family)
    assert family.name == "general" and [hidden.name for hidden in family.hiddens] == ["enter.0", "head"]
    for name in set(family.offers) - {"regroup"}:
        twin = gauge.twin(model, gauge.describe(family, name, seed=1), PROBED)
        assert apart(FRESH, model, twin) <= BOUND
        changed = {
            path.partition(".")[0]
            for path, held in twin.named_parameters()
            if held.shape != (old := model.get_parameter(path)).shape or not torch.equal(old, held)
        }
        wanted = {"enter", "head", "end"} | ({"body"} if name in ("permute", "cancel", "dead") else set())
        assert changed - {"norm"} == wanted, name
