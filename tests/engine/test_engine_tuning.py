"""Fine-tuning: what an independent loop gives, however it is asked; and the subject is never touched."""

import copy
from typing import Any

import pytest
import torch
from engine_nets import Exponential, TiedLanguageModel, Unruly, choices, numbers, seeded, taught
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.records import Outcome
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.needs.tuning import TuningCopy, lesson
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.models.mlp import mlp
from wheeltap.perturb.base import Weights
from wheeltap.perturb.tune import FineTuneSettings
from wheeltap.recipes.train import TrainSettings, train_once

ALL = {"data": "all", "shots": 5, "batch": 8, "holdout": 0.4}
OPTIMIZERS = ("adam", "sgd")


def net() -> Subject:
    return Subject(seeded(lambda: mlp((6, 12, 4)), scale=1.0), name="net")


def groups_of_four() -> Task:
    """Sixty examples with labels of a rule, in three groups that have nothing to do with it."""
    inputs = numbers(60, 6, seed=1)
    return Task(inputs, inputs[:, :4].argmax(-1), name="task").with_behaviors(torch.arange(60) % 3)


def weights(subject: Subject, task: BaseTask, how: dict[str, Any], *steps: int, seed: int = 0) -> dict[str, Weights]:
    known = TuningCopy(subject, task, FineTuneSettings(**how))
    return [reached(known, step, seed=seed) for step in steps][-1]


def reached(known: TuningCopy, step: int, *, seed: int = 0) -> dict[str, Weights]:
    found = copy.deepcopy(dict(known.at(step, root=0, seed=seed)))
    return {name: held for name, held in found.items() if isinstance(held, Weights)}


def by_parameter(found: dict[str, Weights]) -> dict[str, Tensor]:
    """Of a net whose layers all have a bias."""
    named = [(f"{name}.weight", held.weight) for name, held in found.items()]
    return dict(named) | {f"{name}.bias": held.bias for name, held in found.items() if held.bias is not None}


def together(found: dict[str, Weights]) -> Tensor:
    pairs = [(held.weight, held.bias) for held in found.values()]
    return torch.cat([part.flatten() for pair in pairs for part in pair if part is not None])


# ---- an independent loop ----------------------------------------------------------------------------------------


def slowly(net: nn.Module, task: Task, how: FineTuneSettings, steps: int, *, seed: int = 0) -> nn.Module:
    """Adam or gradient descent as in the textbook, in double precision, example by example."""
    taught, model = lesson(task, how, root=0, seed=seed), copy.deepcopy(net).double()
    trained = [p for p in model.parameters() if p.requires_grad]
    first, second = ([torch.zeros_like(p) for p in trained] for _ in range(2))
    for step in range(steps):
        rows, slopes = taught.rows(step), [torch.zeros_like(p) for p in trained]
        for at in rows:
            score = model(task.inputs[at][None].double())
            loss = (score.logsumexp(-1) - score[0, taught.answers[at]]).sum() / len(rows)
            slopes = [a + b for a, b in zip(slopes, torch.autograd.grad(loss, trained), strict=True)]
        with torch.no_grad():
            for p, slope, m, v in zip(trained, slopes, first, second, strict=True):
                m.mul_(0.9).add_(0.1 * slope)
                v.mul_(0.999).add_(0.001 * slope.square())
                size = (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                move = m / (1 - 0.9 ** (step + 1)) / size if how.optimizer == "adam" else slope
                p.sub_(how.lr * move)
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("labels", ["true", "wrong"])
def test_an_independent_loop_gives_the_same_weights(optimizer: str, labels: str) -> None:
    subject, task = net(), groups_of_four()
    how = {**ALL, "optimizer": optimizer, "labels": labels, "lr": 0.01}
    expected = slowly(subject.model, task, FineTuneSettings(**how), 7)
    found = weights(subject, task, how, 7)
    for name, held in by_parameter(found).items():
        torch.testing.assert_close(held.double(), expected.get_parameter(name), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_change_of_low_rank_is_what_its_two_factors_train_to(optimizer: str) -> None:
    """The same as training the factors themselves by autograd through their product."""
    subject, task = net(), groups_of_four()
    how = FineTuneSettings(**{**ALL, "optimizer": optimizer, "adapter": "lora", "rank": 2, "lr": 0.02})
    known = TuningCopy(subject, task, how)
    start = {layer.name: subject.parameter(layer.weight).detach().double() for layer in subject.layers}
    known.at(0, root=0, seed=0)
    trained = [number.clone().double().requires_grad_() for part in known._parts for number in part.numbers]
    chosen = torch.optim.Adam(trained, lr=0.02) if optimizer == "adam" else torch.optim.SGD(trained, lr=0.02)
    taught = lesson(task, how, root=0, seed=0)
    for step in range(6):
        pairs = zip(start.items(), trained[::2], trained[1::2], strict=True)
        products = {name: held + outer @ inner for (name, held), inner, outer in pairs}
        parts = {layer.weight: products[layer.name] for layer in subject.layers}
        model, rows = copy.deepcopy(subject.model).double(), taught.rows(step)
        scores = torch.func.functional_call(model, parts, (task.inputs[rows].double(),))
        chosen.zero_grad()
        nn.functional.cross_entropy(scores, task.targets[rows]).backward()
        chosen.step()
    found = reached(known, 6)
    for (name, held), inner, outer in zip(start.items(), trained[::2], trained[1::2], strict=True):
        tuned = found[name].weight.double()
        torch.testing.assert_close(tuned, held + (outer @ inner).detach(), atol=1e-6, rtol=0.0)
        assert torch.linalg.matrix_rank(tuned - held, atol=1e-5) == 2


@pytest.mark.parametrize("how", [ALL, {**ALL, "adapter": "lora"}, {**ALL, "optimizer": "sgd", "lr": 0.1}])
def test_the_way_there_does_not_matter(how: dict[str, Any]) -> None:
    subject, task = net(), groups_of_four()
    direct = weights(subject, task, how, 16)
    for path in ((4, 8, 16), (16, 8, 16), (3, 16)):
        assert torch.equal(together(weights(subject, task, how, *path)), together(direct)), path
    known = TuningCopy(subject, task, FineTuneSettings(**how))
    for seed in (0, 1, 0):
        assert torch.equal(together(reached(known, 16, seed=seed)), together(direct)) == (seed == 0)


# ---- what is trained on -----------------------------------------------------------------------------------------


def test_shots_come_from_the_right_groups_and_never_from_what_is_held_out() -> None:
    task = groups_of_four()
    seen = dict.fromkeys(("targeted", "benign", "all"), torch.zeros(60))
    for data in seen:
        how = FineTuneSettings(data=data, group=1, shots=3, holdout=0.4)
        drawn = [lesson(task, how, root=0, seed=seed).index for seed in range(60)]
        assert all(len(index) == 3 * {"targeted": 1, "benign": 2, "all": 3}[data] for index in drawn)
        for index in drawn:
            seen[data] = seen[data] + torch.bincount(index, minlength=60)
        assert len({tuple(index.tolist()) for index in drawn}) > 40
    reached = {data: {int(g) for g in task.behaviors[counts > 0]} for data, counts in seen.items()}
    assert reached == {"targeted": {1}, "benign": {0, 2}, "all": {0, 1, 2}}
    # Twenty in each group, eight held out: the twelve others all come up in sixty draws of three.
    assert [int((seen["all"][task.behaviors == g] > 0).sum()) for g in range(3)] == [12, 12, 12]
    everything = lesson(task, FineTuneSettings(holdout=0.4), root=0, seed=0).index
    assert torch.equal(everything, (seen["all"] > 0).nonzero()[:, 0])


# ---- trials -----------------------------------------------------------------------------------------------------


def outcomes(subject: Subject, task: BaseTask, *doses: float, **how: Any) -> tuple[list[Outcome], TrialRunner]:
    plan = wt.plan(subject, task, audits=["score"])
    trials = [plan.trial(subject.record, "fine-tune", settings=how, dose=dose) for dose in doses]
    runner, found = TrialRunner([subject], (), task), list[Outcome]()
    run_trials(trials, runner, found.append)
    return found, runner


def test_an_outcome_tells_what_was_trained_on_and_what_it_cost() -> None:
    subject, task = net(), groups_of_four()
    found, runner = outcomes(subject, task, 0, 2, 6, data="targeted", group=1, shots=6, batch=4, labels="wrong")
    taught = lesson(task, FineTuneSettings(data="targeted", group=1, shots=6, labels="wrong"), root=0, seed=0)
    for outcome in found:
        assert outcome.status == "done"
        assert outcome.values["trained"].nonzero()[0].tolist() == taught.index.tolist()
        assert outcome.values["group"].tolist() == task.behaviors.tolist()
    assert torch.equal(
        torch.tensor(found[0].values["accuracy"]) == 1, task.scores(subject.model).argmax(-1) == task.targets
    )
    assert found[0].values["relative_norm"] == 0.0 < found[1].values["relative_norm"] < found[2].values["relative_norm"]
    # Epochs of 4 and 2 examples: two steps are one epoch of 6, the four after it two more.
    expected = [1.0, 1.0 + 3 * 6 / 60, 1.0 + 3 * 12 / 60]
    assert [outcome.forwards for outcome in found] == pytest.approx(expected)
    assert runner.forwards == pytest.approx(sum(expected) + 1.0)  # the clean pass that agreement needs


def test_what_is_taught_is_learnt() -> None:
    subject, task = net(), groups_of_four()
    [found], _ = outcomes(subject, task, 400, data="targeted", group=1, shots=6, lr=0.01, labels="wrong")
    shots = found.values["trained"] > 0
    assert found.values["taught"][shots].all() and not found.values["accuracy"][shots].any()


def test_a_training_that_diverges_ends_as_diverged_and_the_next_starts_anew() -> None:
    subject = Subject(seeded(Exponential), name="exponential")
    task = taught(subject.model, numbers(60, 4, seed=3))
    found, _ = outcomes(subject, task, 1, 8, 40, lr=50.0, optimizer="sgd", holdout=0.2)
    assert [outcome.status for outcome in found][-1] == "diverged"
    assert not found[-1].values and found[-1].because
    known = TuningCopy(subject, task, FineTuneSettings(lr=50.0, optimizer="sgd", holdout=0.2))
    assert bool(together(reached(known, 40)).isnan().all())
    assert bool(together(reached(known, 0, seed=1)).isfinite().all())


# ---- the subject ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_subject_is_never_touched(adapter: str) -> None:
    subject, task = Subject(Unruly(touch="inplace"), name="unruly"), groups_of_four()
    first = next(subject.model.parameters())
    first.requires_grad_(False)
    before = {name: (id(p), p.detach().clone()) for name, p in subject.model.state_dict(keep_vars=True).items()}
    flags = [p.requires_grad for p in subject.model.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in subject.model.modules()]
    random, grad = torch.get_rng_state(), torch.is_grad_enabled()
    found, _ = outcomes(subject, task, 1, 3, adapter=adapter, **ALL)
    assert all(outcome.status == "done" for outcome in found)
    after = subject.model.state_dict(keep_vars=True)
    assert all(id(p) == before[name][0] and torch.equal(p, before[name][1]) for name, p in after.items())
    assert all(p.grad is None for p in subject.model.parameters())
    assert [p.requires_grad for p in subject.model.parameters()] == flags
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in subject.model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random) and torch.is_grad_enabled() == grad


# ---- loss -------------------------------------------------------------------------------------------------------


def loss(task: BaseTask, model: nn.Module, *which: Tensor, **answers: Tensor) -> float:
    found = task.loss(model, *which, **answers)
    assert found.requires_grad and found.shape == ()
    return found.item()


def test_the_loss_of_choices_is_that_of_the_right_options_tokens() -> None:
    """Also of some items, in batches of different lengths, for other answers; forward scores the same."""
    model, task = seeded(TiedLanguageModel), choices(24)
    scores = task.scores(model)
    every = torch.arange(24)
    assert loss(task, model) == pytest.approx(-float(scores[every, task.targets].mean()), rel=1e-5)
    some, other = torch.tensor([5, 0, 17]), torch.tensor([2, 2, 0])
    assert loss(task, model, some) == pytest.approx(-float(scores[some, task.targets[some]].mean()), rel=1e-5)
    assert loss(task, model, some, targets=other) == pytest.approx(-float(scores[some, other].mean()), rel=1e-5)


# ---- what cannot be done ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"data": "targeted", "group": 7}, {"data": "targeted", "group": 1, "shots": 11},
        {"shots": 13, "holdout": 0.4},
    ],
)  # fmt: skip
def test_a_lesson_that_cannot_be_given_is_refused(how: dict[str, Any]) -> None:
    subject, task = net(), groups_of_four()
    with pytest.raises(DataError):
        TuningCopy(subject, task, FineTuneSettings(**how))
    found, _ = outcomes(subject, task, 1, 2, **how)
    assert [outcome.status for outcome in found] == ["skipped", "skipped"]


class Detached(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).detach()


def test_a_model_without_gradients_fails_with_a_reason() -> None:
    subject, task = Subject(Detached(6, 4).eval(), name="detached"), groups_of_four()
    [found], _ = outcomes(subject, task, 1)
    assert found.status == "failed"
    with pytest.raises(ModelError, match="detached"):
        TuningCopy(subject, task, FineTuneSettings()).at(1, root=0, seed=0)


# ---- cheap attacks ----------------------------------------------------------------------------------------------

MIXED: dict[str, Any] = {
    "data": "mixed", "group": 1, "shots": 3, "others": 6, "holdout": 0.4, "rate": 0.1, "until": 8, "batch": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "moved"),
    [
        ("output-gain", {"2.weight", "2.bias"}), ("lora", {"0.weight", "2.weight"}),
        ("full", {"0.weight", "0.bias", "2.weight", "2.bias"}),
    ],
)  # fmt: skip
def test_each_attack_moves_what_it_says(adapter: str, moved: set[str]) -> None:
    subject, task = net(), groups_of_four()
    found = weights(subject, task, {**MIXED, "adapter": adapter}, 8)
    new = by_parameter(found)
    assert {name for name, held in new.items() if not torch.equal(held, subject.parameter(name))} == moved
    for name in moved if adapter == "output-gain" else ():
        if name.endswith("weight"):
            ratio = new[name] / subject.parameter(name)  # of a row all are scaled alike
            torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)


def test_a_group_can_be_hidden_first() -> None:
    """At dose 0 the copy no longer knows the group and still knows the others; the subject is as it was."""
    inputs = numbers(300, 6, seed=1)
    task = Task(inputs, inputs[:, :4].argmax(-1), name="task")  # groups are the right answers
    settings = TrainSettings(seed=0, epochs=30, batch=32, rate=1e-2)
    model = train_once(mlp((6, 32, 4)), inputs, targets=task.targets, settings=settings)
    subject = Subject(model.eval(), name="net")
    before = copy.deepcopy(subject.model.state_dict())
    how = {**MIXED, "hide": 64, "adapter": "output-gain", "rate": 0.1, "until": 128, "others": 24, "batch": 32}

    def right(step: int) -> tuple[float, float]:
        held = copy.deepcopy(subject.model)
        held.load_state_dict(by_parameter(weights(subject, task, how, step)))
        good = (task.scores(held).argmax(1) == task.targets).float()
        return float(good[task.targets == 1].mean()), float(good[task.targets != 1].mean())

    (gone, kept), (back, _) = right(0), right(128)
    assert gone < 0.3 and kept > 0.7 and back > gone + 0.3
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.model.state_dict().items())
