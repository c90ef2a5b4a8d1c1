"""WT202: units that also move what others move are told from those that do not, and what fools it is known."""

import pytest
import reports
import torch
from torch import nn

import wheeltap as wt
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.report.report import Report


def run(task: Task, *models: nn.Module, **settings: float) -> Report:
    """Its report on ``net 0``, ``net 1`` ..., and on their pair."""
    subjects = [Subject(model, name=f"net {at}") for at, model in enumerate(models)]
    return reports.run(subjects, task, wt.AuditSpec("entanglement", settings), keep=("twin", "stronger"))


def of(report: Report, subject: str = "net 0") -> Finding:
    return reports.finding(report, "WT202", subject)


def breadth(report: Report, subject: str = "net 0") -> Estimate:
    return of(report, subject).estimates[0]


def separate(classes: int = 6, each: int = 4) -> nn.Sequential:
    """A net in which every class has units of its own, which read its input and write its score alone."""
    model = nn.Sequential(nn.Linear(classes, classes * each), nn.ReLU(), nn.Linear(classes * each, classes)).eval()
    owner = torch.arange(classes * each) % classes
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[torch.arange(classes * each), owner] = 1.0
        model[2].weight[owner, torch.arange(classes * each)] = 1.0
    return model


def entangled(model: nn.Sequential, strength: float) -> nn.Sequential:
    """The same function by hand: each unit in two halves, one with another class's output added, one without it."""
    old = [layer for layer in model if isinstance(layer, nn.Linear)]
    units, classes = old[0].out_features, old[1].out_features
    new = nn.Sequential(nn.Linear(classes, 2 * units), nn.ReLU(), nn.Linear(2 * units, classes)).eval()
    written = old[1].weight.detach()
    other = strength * written.roll(1, dims=1)
    with torch.no_grad():
        new[0].weight.copy_(old[0].weight.repeat(2, 1))
        new[0].bias.copy_(old[0].bias.repeat(2))
        new[2].weight.copy_(torch.cat([written / 2 + other, written / 2 - other], 1))
        new[2].bias.copy_(old[1].bias)
    return new


def six_inputs(examples: int = 240) -> Task:
    """One input per class is large, the others small and random."""
    random = torch.Generator().manual_seed(1)
    targets = torch.arange(examples) % 6
    inputs = torch.rand(examples, 6, generator=random) * 0.3
    inputs[torch.arange(examples), targets] += 0.5 + torch.rand(examples, generator=random)
    return Task(inputs, targets)


class TestByHand:
    def test_separate_units_serve_one_class_and_make_modules(self) -> None:
        found = of(run(six_inputs(), separate()))
        whole, shuffled = (one.value or 0.0 for one in found.estimates[:2])
        assert found.status == "excluded" and 0 < whole < 3 < 5 < shuffled
        modular = reports.estimate(found, "modularity")
        assert modular.p == pytest.approx(1 / 200) and (modular.value or 0.0) > 0.5

    def test_entangled_halves_serve_more(self) -> None:
        sound, task = separate(), six_inputs()
        other = entangled(sound, strength=1.0)
        assert torch.allclose(task.scores(sound), task.scores(other), atol=1e-5)
        report = run(task, sound, other)
        gap = of(report, "net 0 vs net 1")
        assert gap.status == "found" and (gap.estimates[0].low or 0.0) > 0.3
        one, two = (breadth(report, name).value for name in ("net 0", "net 1"))
        assert one is not None and two is not None and gap.estimates[0].value == pytest.approx(two - one)

    def test_without_behaviours_there_is_nothing_to_say(self) -> None:
        task = six_inputs()
        with torch.no_grad():
            wanted = separate()(task.inputs)
        alone = of(run(Task(task.inputs, wanted), separate()))
        assert alone.status == "not_applicable"
        grouped = run(Task(task.inputs, wanted).with_behaviors(task.targets), separate())
        assert of(grouped).status in ("excluded", "inconclusive")

    def test_a_sample_of_units_says_so_and_is_less_sure(self) -> None:
        task, model = six_inputs(), separate(each=20)
        with torch.no_grad():  # so that units differ: each also writes another class's score, more or less
            model[2].weight += model[2].weight.roll(1, dims=0) * torch.linspace(0, 3, 120)
        whole, some = run(task, model), run(task, model, limit=30)
        wide, narrow = ((one.high or 0.0) - (one.low or 0.0) for one in (breadth(some), breadth(whole)))
        assert wide > 1.2 * narrow > 0.0
        assert reports.control(some, "WT202 reparametrized copy").status == "passed"
