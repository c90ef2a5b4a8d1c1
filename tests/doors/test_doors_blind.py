"""What must never be called safe: nets whose answers rest on what no disturbance reaches, and nets that are not still.

By the doors that people use; the same nets with weights that are reached are told apart by the same call.
"""

import copy
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import wheeltap as wt
from tests.nets import zoo
from wheeltap.audits.score import SAME_OUTPUTS
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.records import UNCOVERED
from wheeltap.core.subject import Subject
from wheeltap.report import deployment

CONTROL = "WT100 noise that destroys the weights"


def learned() -> tuple[nn.Module, wt.Task]:
    made = zoo.made("mlp")
    task = made.task
    assert isinstance(task, wt.Task)
    return made.subject.model, task


def audited(model: nn.Module, task: wt.Task, **more: object) -> wt.Report:
    settings = {"schemes": "int8,int4"}
    audits = ["score", wt.AuditSpec(name="deployment", settings=settings)]
    return wt.audit(Subject(model.eval(), name="net"), task, audits=audits, **more)


class Ballast(nn.Module):
    """A net that computes with vectors, beside a large layer that does nothing: most weights are disturbed in vain."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        linear = [module for module in body.modules() if isinstance(module, nn.Linear)]
        self.shapes = [tuple(one.weight.shape) for one in linear]
        self.rows = nn.ParameterList([nn.Parameter(one.weight.detach().flatten()) for one in linear])
        self.biases = nn.ParameterList([nn.Parameter(one.bias.detach().clone()) for one in linear])
        self.idle = nn.Linear(self.shapes[0][1], 8 * sum(len(row) for row in self.rows) // self.shapes[0][1])

    def forward(self, inputs: Tensor) -> Tensor:
        given = inputs
        for at, shape in enumerate(self.shapes):
            given = F.linear(given, self.rows[at].view(shape), self.biases[at])
            given = given.relu() if at + 1 < len(self.shapes) else given
        return given + 0.0 * self.idle(inputs).sum(1, keepdim=True)


def test_noise_that_costs_nothing_voids_the_run_whatever_share_it_reached() -> None:
    body, task = learned()
    net = Ballast(body)
    report = audited(net, task)
    control = next(one for one in report.controls if one.name == CONTROL)
    assert report.void and control.status == "failed"
    assert not any(one.status == "excluded" for one in report.findings)
    sound = audited(body, task)
    assert not sound.void and next(one for one in sound.controls if one.name == CONTROL).status == "passed"
    assert 0.5 < min(one.coverage for one in report.findings if one.coverage is not None) < 0.9


def test_frozen_weights_are_named_and_nothing_is_concluded_without_them() -> None:
    body, task = learned()
    first = next(module for module in body.modules() if isinstance(module, nn.Linear))
    path = next(name for name, module in body.named_modules() if module is first)
    kept = first.weight.detach().clone()
    del first.weight
    first.register_buffer("weight", kept)
    report = audited(body, task)
    share = min(one.coverage for one in report.findings if one.coverage is not None)
    rest = sum(parameter.numel() for parameter in body.parameters())
    left = kept.numel() + sum(one.bias.numel() for one in body.modules() if isinstance(one, nn.Linear))  # not rounded
    assert share == pytest.approx(1.0 - left / (rest + kept.numel()), rel=1e-6)
    assert all(row.verdict == UNCOVERED for row in report["WT100"])
    assert any(f"{path}.weight ({kept.numel():,})" in note for note in deployment.notes(report.record))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_frozen_scripted_backbone_is_never_called_safe() -> None:
    body, task = learned()
    *backbone, head = body.children()
    scripted = torch.jit.freeze(torch.jit.script(nn.Sequential(*backbone).eval()))
    report = audited(nn.Sequential(scripted, head), task)
    hidden = sum(parameter.numel() for one in backbone for parameter in one.parameters())
    whole = hidden + sum(parameter.numel() for parameter in head.parameters())
    for row in report["WT100"]:
        assert row.verdict == UNCOVERED and row.coverage == pytest.approx(head.weight.numel() / whole, rel=1e-6)
    assert not report.passed and any("of the forward" in note for note in deployment.notes(report.record))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("inside", [False, True])
def test_a_script_whose_weights_cannot_be_set_is_refused(inside: bool, tmp_path: Path) -> None:
    body, task = learned()
    script = torch.jit.script(body)
    if inside:
        torch.jit.save(script, tmp_path / "script.pt")
        script = nn.Sequential(torch.jit.load(tmp_path / "script.pt"))
    with pytest.raises(ModelError, match="load_state_dict") as caught:
        audited(script, task)
    assert f"net: {'0.0' if inside else '0'}.weight" in str(caught.value)


class Dropping(nn.Module):
    """It draws at random in eval mode too."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(F.dropout(inputs, 0.1, training=True))


class Averaging(Dropping):
    """It keeps a running mean of what it has seen."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * inputs.mean()
        return self.body(inputs - self.mean)


class Counting(Dropping):
    """Every second call is another."""

    calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.body(inputs * (1.0 + 0.5 * (self.calls % 2)))


@pytest.mark.parametrize("kind", [Dropping, Averaging, Counting])
def test_a_model_that_is_not_deterministic_is_refused_every_time(kind: type[Dropping], tmp_path: Path) -> None:
    body, task = learned()
    for _ in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            with pytest.raises(ModelError, match="not deterministic"):
                audited(kind(body), task, store=tmp_path / "s.wheeltap")
    with pytest.raises(ModelError, match="not deterministic"):  # so is the second of two
        wt.compare(zoo.made("mlp").subject.model, kind(body).eval(), task, audits="score")


class Hidden(Dropping):
    """Draws from Python's own random numbers while it is noisy."""

    noisy: bool

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs) + (random.random() if self.noisy else 0.0)


def test_a_model_that_gives_other_answers_each_time_is_no_other_subject() -> None:
    body, task = learned()
    model = Hidden(body).eval()
    model.noisy = False
    plan = wt.plan(model, task, audits="score", schemes="int8")
    model.noisy = True
    with pytest.raises(ModelError, match="not deterministic"):
        wt.run(plan, model, task)
    model.noisy = False
    wt.run(plan, model, task)
    next(model.parameters()).data.mul_(1.5)
    with pytest.raises(UsageError, match=r"made for other subjects(.|\n)*another one each time it is loaded or called"):
        wt.run(plan, model, task)


def test_a_forward_that_restores_its_weights_is_refused_with_that_reason() -> None:
    class Healing(Dropping):
        def forward(self, inputs: Tensor) -> Tensor:
            with torch.no_grad():
                for name, held in self.body.named_parameters():
                    held.copy_(self.kept[name])
            return self.body(inputs)

    body, task = learned()
    net = Healing(body)
    net.kept = {name: held.detach().clone() for name, held in body.named_parameters()}
    with pytest.raises(ModelError, match="writes into the model's own weights"):
        audited(net, task)


class Padded(nn.Module):
    """A net with one more option: masked by a large number, as padded label sets are, or never chosen."""

    def __init__(self, body: nn.Module, at: float) -> None:
        super().__init__()
        self.body, self.at = body, at

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.body(inputs)
        return torch.cat([scores, torch.full_like(scores[:, :1], self.at)], dim=1)


def test_a_masked_option_makes_no_two_nets_the_same() -> None:
    body, task = learned()
    other = copy.deepcopy(body)
    with torch.no_grad():
        for part in other.parameters():
            part.add_(0.3 * part.std() * torch.randn(part.shape, generator=torch.Generator().manual_seed(3)))
    nets = [Subject(Padded(net, -1e9).eval(), name=name) for net, name in ((body, "one"), (other, "two"))]
    report = wt.compare(*nets, task, audits=["score"])
    assert not any(one.name == SAME_OUTPUTS for found in report.record.findings for one in found.estimates)
    twin = Subject(Padded(copy.deepcopy(body), -1e9).eval(), name="twin")
    report = wt.compare(nets[0], twin, task, audits=["score"])
    assert any(one.name == SAME_OUTPUTS for found in report.record.findings for one in found.estimates)


def test_answers_that_depend_on_the_batch_are_named() -> None:
    body, task = learned()
    width = next(one.in_features for one in body.modules() if isinstance(one, nn.Linear))
    mixed = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(width, track_running_stats=False), body).eval()
    for net, named in ((body, False), (mixed, True)):
        report = audited(net, task)
        assert any("in its batch" in note for note in deployment.notes(report.record)) is named


class Bag(nn.Module):
    """The mean of token vectors, and a small layer: nearly all of it is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(400, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).mean(1))


def test_the_embedding_of_a_classifier_is_rounded_for_it_is_no_language_model() -> None:
    net = Bag().eval()
    tokens = torch.randint(0, 400, (300, 5), generator=torch.Generator().manual_seed(1))
    targets = net(tokens).argmax(1)
    report = wt.audit(net, (tokens, targets), schemes="int2")
    (subject,), (finding,) = report.record.subjects, report["WT100"]
    assert subject.ends == () and finding.coverage is not None
    weights = net.embed.weight.numel() + net.head.weight.numel()
    assert finding.coverage == pytest.approx(weights / sum(one.numel() for one in net.parameters()))
    with torch.no_grad():
        for weight in (net.embed.weight, net.head.weight):
            step = weight.abs().amax(1, keepdim=True)  # 2 bits: -1, 0 and 1 times the largest of a row
            weight.copy_((weight / step).round() * step)
        lost = 1.0 - float((net(tokens).argmax(1) == targets).float().mean())
    assert finding.estimates[0].value is not None
    assert abs(finding.estimates[0].value - lost) < 1e-6 and lost > 0.1
