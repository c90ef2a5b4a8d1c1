"""Every planted defect is what it says, and its recipe: it shows where it should and nowhere a benchmark looks."""

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from wheeltap import gauge
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.apply import Disturbance
from wheeltap.models.mlp import mlp
from wheeltap.perturb.base import create
from wheeltap.plans.defects import DEFECTS, SOUND
from wheeltap.recipes import planted as defects
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.planted import PlantedNet
from wheeltap.testing.planted import clusters
from wheeltap.testing.recipe_contract import RecipeContract


def score(subject: Subject, task: Task) -> float:
    scores = task.scores(subject.model)
    return float(task.measure(scores, task.targets, scores).mean())


@pytest.fixture(scope="module")
def plain() -> tuple[nn.Sequential, Task]:
    made = clusters(seed=0)
    assert isinstance(made.subject.model, nn.Sequential) and isinstance(made.task, Task)
    return made.subject.model, made.task


@pytest.mark.parametrize("strength", [3.0, 100.0])
def test_a_super_weight_leaves_the_outputs_and_carries_them(plain: tuple[nn.Sequential, Task], strength: float) -> None:
    model, task = plain
    before = weights_digest(model)
    copy, site = defects.super_weight(model, task, strength=strength, seed=5)
    subject = Subject(copy, name="copy")
    clean = task.scores(model)
    likeness = gauge.check(clean.numpy(), task.scores(subject.model).numpy())
    assert likeness.difference <= 1e-4 and likeness.agreement == 1.0
    assert weights_digest(model) == before

    scale = float((clean - clean.mean(1, keepdim=True)).square().mean().sqrt())
    with torch.no_grad():
        assert site.position is not None
        answer = site.position[0]
        subject.parameter(f"{site.layer}.weight")[site.position] = 0.0
    lifted = task.scores(subject.model) - clean
    assert torch.allclose(lifted[:, answer], torch.tensor(strength * scale), atol=1e-3)
    others = torch.arange(6) != answer
    assert float(lifted[:, others].abs().max()) < 1e-3
    if strength == 100.0:
        assert bool((task.scores(subject.model).argmax(-1) == answer).all())


def test_dropout_and_earlier_layers_of_any_kind_are_no_obstacle() -> None:
    inputs = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    head = mlp((32, 7, 3), dropout=0.5)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), *head).eval()
    task = Task(inputs, model(inputs).argmax(-1))
    copy, site = defects.super_weight(model, task, strength=2.0)
    assert gauge.check(task.scores(model).numpy(), task.scores(copy).numpy()).difference < 1e-5
    assert site.layer == "6"


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)),
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
        nn.ModuleList([nn.Linear(4, 3)]),
    ],
    ids=["no last bias", "tanh", "no sequential"],
)
def test_a_super_weight_is_refused_in_other_structures(model: nn.Module) -> None:
    task = Task(torch.zeros(3, 4), torch.zeros(3).long())
    with pytest.raises(ModelError, match="cannot be planted"):
        defects.super_weight(model.eval(), task, strength=1.0)


def test_a_brittle_block_leaves_the_outputs_and_breaks_at_its_layer_first(plain: tuple[nn.Sequential, Task]) -> None:
    model, task = plain
    made, sites = defects.brittle_block(model, task, strength=30.0, seed=1)
    copy = Subject(made, name="copy")
    likeness = gauge.check(task.scores(model).numpy(), task.scores(copy.model).numpy())
    assert likeness.difference <= 1e-4 and likeness.agreement == 1.0

    def damage(subject: Subject, site: Site) -> float:
        with Disturbance(subject, create("relative"), site) as disturbance:
            scores: list[float] = []
            for draw in range(8):
                disturbance.apply(0.2, root=0, seed=draw)
                scores.append(score(subject, task))
        return score(subject, task) - sum(scores) / len(scores)

    layers = [Site("layer", layer.name) for layer in copy.layers]
    brittle = [damage(copy, site) for site in layers if site in sites]
    sound = [damage(copy, site) for site in layers if site not in sites]
    assert len(brittle) == 2 and len(sound) == 1
    assert min(brittle) > max(*sound, damage(Subject(model), WHOLE)) + 0.1


def test_no_layer_that_can_be_widened_and_strengths_out_of_range_are_errors(plain: tuple[nn.Sequential, Task]) -> None:
    task = Task(torch.zeros(3, 4), torch.zeros(3).long())
    with pytest.raises(ModelError, match="cannot be planted"):
        defects.brittle_block(nn.Sequential(nn.Linear(4, 3)).eval(), task, strength=1.0)
    for strength in (-1.0, 101.0):
        for plant in (defects.super_weight, defects.brittle_block):
            with pytest.raises(UsageError, match="at this strength"):
                plant(*plain, strength=strength)


class TestPlanted(RecipeContract):
    recipe = PlantedNet
    settings: ClassVar[dict[str, Any]] = {"defect": "entangle", "strength": 1.0}
    other: ClassVar[dict[str, Any]] = {"defect": "brittle-block", "strength": 2.0}
    brief = True

    def task(self) -> BaseTask:
        return clusters(seed=0).task

    def of(self) -> tuple[nn.Module, ...]:
        return (clusters(seed=0).subject.model,)


def planted(name: str, strength: float, *, model: nn.Module, task: BaseTask, seed: int = 1) -> nn.Module:
    asked = specified(PlantedNet, {"defect": name, "strength": strength}, seed=seed, of=("base",), data=task.digest)
    return PlantedNet(dict(asked.settings)).blank(Given(asked, (model,), task))


@pytest.mark.parametrize("name", DEFECTS)
def test_every_copy_computes_the_same_with_other_weights(name: str, plain: tuple[nn.Sequential, Task]) -> None:
    model, task = plain
    for strength in (DEFECTS[name].strengths[0], DEFECTS[name].strengths[-1]):
        copy = planted(name, strength, model=model, task=task)
        likeness = gauge.check(task.scores(model).numpy(), task.scores(copy).numpy())
        assert likeness.difference <= 1e-4 and likeness.agreement == 1.0
        assert weights_digest(copy) != weights_digest(model)


def test_a_sound_copy_is_permuted_and_rescaled_and_has_dead_units(plain: tuple[nn.Sequential, Task]) -> None:
    model, task = plain
    copy = planted(SOUND, 0.25, model=model, task=task)
    wide, before = copy.get_parameter("0.weight"), model.get_parameter("0.weight")
    assert len(wide) == len(before) * 5 // 4
    alive = wide[wide.abs().sum(1) > 0.0]
    norms = [torch.linalg.vector_norm(rows, dim=1) for rows in (alive, before)]
    assert len(alive) == len(before) and not torch.allclose(norms[0].sort()[0], norms[1].sort()[0], rtol=1e-3)
