"""Recurrent layers: what reads them is found, and gauges keep what they compute on inputs that were not probed."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recurrent_nets import (
    FRESH,
    NETS,
    PROBED,
    WIDTH,
    Bare,
    Last,
    Mixed,
    Normed,
    Projected,
    Starting,
    Unheard,
    Zeros,
    body,
    net,
    on,
)  # fmt: skip
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import feedback, recurrent
from wheeltap.gauge.base import GaugeSettings, SharedTensors
from wheeltap.gauge.bench import check

BOUND = 1e-4


def found(model: nn.Module) -> tuple[dict[str, Any], tuple[str, ...]]:
    return recurrent.find(model, SharedTensors(model), run=on(PROBED))


def twin_of(model: nn.Module, name: str, *, seed: int = 0, **settings: Any) -> Any:
    twin = copy.deepcopy(model)
    found(model)[0][name](twin, np.random.default_rng(seed), GaugeSettings(**settings))
    return twin


def difference(model: nn.Module, twin: nn.Module) -> float:
    run = on(FRESH)
    return check(run(model).float().numpy(), run(twin).float().numpy()).difference


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
        assert difference(model, twin) <= BOUND, move
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
    assert difference(model, twin) <= BOUND
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
    assert difference(model, broken) > 100 * BOUND


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_16_bit_weights_keep_every_bit(name: str) -> None:
    model = net(name).bfloat16()
    twin = twin_of(model, "permute")
    for old, new in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(old.detach().flatten().sort().values, new.detach().flatten().sort().values)
    assert difference(model.float(), twin.float()) <= BOUND
    model = net(name).bfloat16()
    twin = twin_of(model, "cancel", pairs=2)
    assert difference(model.float(), twin.float()) <= BOUND


@pytest.mark.parametrize("name", ["both ways", "states", "attending"])
def test_a_reader_left_out_is_seen(name: str) -> None:
    model = net(name)
    move = found(model)[0]["permute"]
    (units,) = move.keywords["units"]  # type: ignore[attr-defined]
    readers = {sliced.path for sliced in units.tensors} - {"body"}
    assert readers == ({"head", "ask", "mix"} if name == "attending" else {"head"})
    for reader in readers:
        less = replace(units, tensors=tuple(sliced for sliced in units.tensors if sliced.path != reader))
        twin = copy.deepcopy(model)
        feedback.permute(twin, less, np.random.default_rng(0), GaugeSettings())
        assert difference(model, twin) > 100 * BOUND


def test_where_units_are_read() -> None:
    model = net("states")
    (units,) = found(model)[0]["permute"].keywords["units"]  # type: ignore[attr-defined]
    (head,) = [sliced for sliced in units.tensors if sliced.path == "head"]
    # Layers and directions count 0 to 3: the last state is that of the way back.
    assert head.blocks == ((0, 3), (13, 2), (23, 2), (33, 3))


def _weight_norm(model: Any) -> Any:
    parametrizations.weight_norm(model.body, "weight_hh_l0")
    return model


def _hooked(model: Any) -> Any:
    model.body.register_forward_hook(lambda module, args, output: output)
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: Starting(body("GRU")), "body: head reads its units in a way that is not followed"),
        (lambda: Mixed(body("LSTM")), "body: answer starts from its units in a way that is not followed"),
        (lambda: Bare(body("GRU")), "body: what it computes is read by more than layers"),
        (lambda: Unheard(body("GRU")), "body: the model's outputs do not depend on it"),
        (lambda: Projected(body("LSTM", proj_size=4)), "body: what its units write is projected before it is read"),
        (
            lambda: _weight_norm(Last(body("GRU"))),
            "body: it is a ParametrizedGRU, not a recurrent layer of torch itself",
        ),
        (lambda: _hooked(Last(body("GRU"))), "body: it has forward hooks"),
    ],
)
def test_refusals_say_why(model: Callable[[], nn.Module], reason: str) -> None:
    torch.manual_seed(0)
    moves, refused = found(model().eval())
    assert not moves
    assert refused[0].startswith(reason), refused
    assert len({path.partition(":")[0] for path in refused}) == len(refused)


@pytest.mark.parametrize("kind", [Zeros, Normed])
def test_a_width_that_cannot_change_leaves_the_permutation(kind: type[Last]) -> None:
    torch.manual_seed(0)
    model = kind(body("GRU")).eval()
    moves, refused = found(model)
    assert set(moves) == {"permute"}
    assert "cancel, dead: units cannot be added" in refused[0]
    assert difference(model, twin_of(model, "permute")) <= BOUND


def test_without_examples_nothing_is_proven() -> None:
    model = net("lstm")
    assert recurrent.find(model, SharedTensors(model)) == ({}, ("body: no examples to find out what reads it",))
    plain = nn.Sequential(nn.Linear(5, 3))
    assert recurrent.find(plain, SharedTensors(plain), run=on(PROBED)) == ({}, ())


class Deep(Last):
    """Hidden units before and after the recurrent ones."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.enter, self.head = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 5)), nn.Linear(2 * WIDTH, 14)
        self.norm, self.end = nn.BatchNorm1d(14), nn.Linear(14, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.norm(self.head(self.body(self.enter(x))[0].mean(1))).relu())


def test_with_other_hidden_layers() -> None:
    """Found together with those that probing finds; each gauge rewrites all of them."""
    torch.manual_seed(0)
    model = Deep(body("LSTM", bidirectional=True)).eval()

    def run(model: Any) -> Tensor:
        return model(PROBED.to(next(model.parameters()).dtype))

    family = gauge.find(model, run)
    assert isinstance(family, gauge.Family)
    assert family.name == "general" and [hidden.name for hidden in family.hiddens] == ["enter.0", "head"]
    for name in set(family.offers) - {"regroup"}:
        twin = gauge.twin(model, gauge.describe(family, name, seed=1), run)
        assert difference(model, twin) <= BOUND
        changed = {path.partition(".")[0] for path, held in twin.named_parameters() if _moved(model, path, held)}
        wanted = {"enter", "head", "end"} | ({"body"} if name in ("permute", "cancel", "dead") else set())
        assert changed - {"norm"} == wanted, name


def _moved(model: nn.Module, path: str, held: Tensor) -> bool:
    old = model.get_parameter(path)
    return old.shape != held.shape or not torch.equal(old, held)


def test_pairs_in_some_layers_alone() -> None:
    model = net("stacked")
    widths = set[tuple[int, int]]()
    for seed in range(6):
        twin = twin_of(model, "cancel", seed=seed, pairs=1, layers=1)
        assert difference(model, twin) <= BOUND
        widths.add((twin.body.hidden_size, twin.second.hidden_size))
    assert widths == {(WIDTH + 2, 7), (WIDTH, 9)}


@pytest.mark.parametrize("name", ["lstm", "gru", "both ways"])
def test_strong_pairs_still_cancel(name: str) -> None:
    model = net(name)
    twin = twin_of(model, "cancel", pairs=0.25, scale=256.0)
    assert difference(model, twin) <= 10 * BOUND


def test_same_draws_same_bits() -> None:
    model = net("both ways")
    digests = [weights_digest(twin_of(model, "cancel", seed=seed)) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_model_that_cannot_be_run_is_left_alone() -> None:
    model = net("lstm")

    def run(model: Any) -> Tensor:
        raise ValueError("no examples")

    assert recurrent.find(model, SharedTensors(model), run=run) == ({}, ("body: it cannot be tried (ValueError)",))
