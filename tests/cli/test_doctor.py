"""``wheeltap doctor MODEL``: what it says is so, on few lines, whatever the model."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from twins import Wired

from tests.nets import zoo
from wheeltap import api, gauge
from wheeltap.cli import doctor, main
from wheeltap.core.records import UntouchedModule
from wheeltap.core.subject import Subject
from wheeltap.engine.units import probe_run
from wheeltap.gauge.base import GaugeSettings
from wheeltap.plans.plan import Effort
from wheeltap.runs.checkup import Checkup, checkup, proofs

LINES, COLUMNS = 30, 80


def shown(found: Checkup) -> str:
    text = io.StringIO()
    doctor.show(found, Console(file=text, width=COLUMNS))
    lines = text.getvalue().splitlines()
    assert len(lines) <= LINES and all(len(line) <= COLUMNS for line in lines)
    return " ".join(text.getvalue().split())


def state(model: nn.Module) -> dict[str, Tensor]:
    return {path: value.clone() for path, value in model.state_dict().items()}


def net() -> Any:
    return zoo.made("mlp").subject.model


def of(model: nn.Module) -> Checkup:
    return checkup(Subject(model.eval(), name="mine"), zoo.made("mlp").task)


def test_a_sound_model_is_ready_and_comes_back_as_it_was() -> None:
    case = zoo.made("cnn")
    before = state(case.subject.model)
    found = checkup(case.subject, case.task)
    assert all(torch.equal(before[path], value) for path, value in case.subject.model.state_dict().items())
    assert found.gaps == () and found.usable
    assert {"permute", "cancel"} <= {proof.gauge for proof in found.proofs}
    assert all(proof.holds and (proof.difference or 0.0) < 1e-5 for proof in found.proofs)
    assert found.twin and found.planted and found.hidden > 0
    assert found.covered == case.subject.record.covered / case.subject.record.parameters
    assert shown(found).startswith("Ready: ")


def test_copies_that_are_not_exact_or_cannot_be_made_are_said() -> None:
    case = zoo.made("mlp")

    def wrong(model: nn.Module, rng: np.random.Generator, settings: GaugeSettings) -> None:
        with torch.no_grad():
            next(model.parameters()).mul_(1.1)

    def broken(model: nn.Module, rng: np.random.Generator, settings: GaugeSettings) -> None:
        raise ValueError("no such units")

    family = gauge.find(case.subject.model, probe_run(case.task, case.subject.model))
    assert isinstance(family, gauge.Family)
    bad = replace(family, moves={**family.moves, "rescale": wrong, "shift": broken})
    found = {proof.gauge: proof for proof in proofs(case.subject, case.task, bad)}
    assert not found["rescale"].holds and (found["rescale"].difference or 0.0) > 1e-3
    assert found["permute"].holds
    assert not found["shift"].holds and found["shift"].difference is None and "no such units" in found["shift"].because


@pytest.mark.parametrize("name", ["tied", pytest.param("rwkv", marks=pytest.mark.release)])
def test_the_controls_that_are_promised_are_those_that_a_run_has(name: str) -> None:
    """RWKV keeps a state of a width that is written in its config: a copy that scores may fail all the same."""
    case = zoo.made(name)
    found = checkup(case.subject, case.task)
    effort = Effort(draws=2, control_draws=2, block_draws=0)
    report = api.audit(case.subject, case.task, audits=("score", "relative-noise"), effort=effort)
    status = {control.name: control.status for control in report.controls if control.kind == "gate"}
    assert found.twin == (status.get("reparametrized copy computes the same function") == "passed")
    assert bool(found.planted) == (status.get("planted copy computes the same function") == "passed")
    shown(found)


class Integers(nn.Module):
    """A linear layer that holds its weight as integers, as a buffer or as a parameter."""

    def __init__(self, layer: nn.Linear, *, shown: bool) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.scale = float(weight.abs().max()) / 127
        held = (weight / self.scale).round().to(torch.int8)
        if shown:
            self.weight: Tensor = nn.Parameter(held, requires_grad=False)
        else:
            self.register_buffer("weight", held)
        self.bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.weight.float() * self.scale, self.bias)


def test_weights_that_are_integers_are_named_and_not_counted_as_disturbed() -> None:
    for parameter in (True, False):
        model = net()
        model[2] = Integers(model[2], shown=parameter)
        found = of(model)
        total, packed = 8_970, 64 * 64
        assert found.subject.parameters == total and [(one.name, one.size) for one in found.packed] == [("2", packed)]
        assert found.covered == pytest.approx((total - packed - 64) / total)
        assert all(reach.share == pytest.approx(found.covered) for reach in found.reaches)
        assert shown(found).startswith("Usable with gaps: ")
    model[0] = Integers(model[0], shown=True)
    found = of(model)
    assert not found.usable and shown(found).startswith("Not usable as it is: ")


def test_a_forward_that_cannot_be_probed_is_told_with_what_still_works() -> None:
    def outside(hidden: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(hidden.detach().numpy()))

    layers = zoo.made("mlp").subject.model
    found = of(Wired(lambda net, x: net.layers[2:](outside(net.layers[:2](x))), layers=layers))
    assert found.covered == 1.0 and found.reaches[0].share == 1.0
    # The layers after it are in sight all the same.
    assert all(proof.holds for proof in found.proofs)


def test_a_shared_weight_is_refused_or_rewritten_exactly() -> None:
    """One matrix is used twice, before and after a nonlinearity."""
    one, two, head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
    two.weight = one.weight
    found = of(Wired(lambda net, x: net.head(net.two(net.one(x).relu()).relu()), one=one, two=two, head=head))
    assert all(proof.holds for proof in found.proofs)


MINE = """
import torch
from tests.nets import zoo
from torch import nn

def sound():
    case = zoo.made("mlp")
    return case.subject.model, case.task

def meta():
    task = zoo.made("mlp").task
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(64, 10)).eval(), task

def broken():
    net = zoo.made("mlp").subject.model
    net[4] = nn.Linear(3, 10)
    return net.eval(), zoo.made("mlp").task
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models in it, from which the command is run."""
    (tmp_path / "mine_for_doctor.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_command_prints_and_writes_what_was_found(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "mine_for_doctor:sound", "--json", "found.json"]) == 0
    said = capsys.readouterr().out
    found = json.loads((mine / "found.json").read_text())
    assert found["gaps"] == [] and found["covered"] == 1.0 and found["answer"] in said
    assert {proof["gauge"] for proof in found["proofs"]} >= {"permute", "rescale", "cancel"}
    assert main(["doctor", "mine_for_doctor:sound", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == found["family"]


def test_a_model_that_cannot_be_run_is_an_error(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, words in {"meta": ("no data", "0.weight", "meta device"), "broken": ("3",)}.items():
        assert main(["doctor", f"mine_for_doctor:{model}"]) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in words) and "bug" not in said


# ---- what an audit would conclude nothing of ------------------------------------------------------------------------


def test_weights_in_buffers_are_named_and_the_model_is_never_called_ready() -> None:
    model = net()
    kept = model[0].weight.detach().clone()
    del model[0].weight
    model[0].register_buffer("weight", kept)
    found = of(model)
    assert found.fixed == (UntouchedModule("0.weight", kept.numel()),) and found.covered < 0.9
    assert "Ready" not in shown(found)


def test_a_model_at_chance_is_not_usable() -> None:
    model = net()
    with torch.no_grad():
        model[-1].weight.zero_()
    found = of(model)
    assert not found.usable
