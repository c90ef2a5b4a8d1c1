"""The subject after any run, also one that raised, is what it was: to the bit, in mode, flags, buffers."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from engine_nets import Unruly, numbers, seeded, taught
from engine_trials import trial
from store_outcomes import AUDITS, LITTLE, judged
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import ModelError, RestorationError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import Layer
from wheeltap.core.records import Outcome
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance, verified_restoration
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.models.mlp import mlp
from wheeltap.perturb import Perturbation
from wheeltap.perturb.base import Draw, Weights
from wheeltap.plans.store import Store

QUICK = ("score", "relative-noise")


def sound_net() -> nn.Module:
    return seeded(lambda: mlp((6, 12, 4)), scale=1.0)


def task_for(model: nn.Module, *, rows: int = 40) -> Task:
    body = model.get_submodule("body") if isinstance(model, Unruly) else model
    return taught(body, numbers(rows, 6, seed=1), more=numbers(40, 6, seed=2))


@contextmanager
def nothing_changes(model: nn.Module) -> Generator[None]:
    """Weights, buffers and their identity, modes, flags; torch's threads, gradients and random numbers."""
    flagged = next(model.parameters())
    flagged.requires_grad_(False)
    before = everything(model)
    objects = {name: id(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    yield
    assert everything(model) == before
    assert {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())} == objects


def everything(model: nn.Module) -> dict[str, object]:
    return {
        "weights": weights_digest(model),
        "modes": [module.training for module in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()],
        "threads": torch.get_num_threads(),
        "gradients on": torch.is_grad_enabled(),
        # Not of the standard library: the type checker that tests run under draws from it.
        "random": torch.get_rng_state().tolist(),
        "numpy's random": np.random.get_state()[1].tolist(),
    }


@pytest.fixture
def two_threads() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    "make",
    [
        lambda: Unruly(touch="inplace", flip=True, random=True),
        lambda: Unruly(touch="replace", fail_at=30, error=KeyError),
        lambda: Unruly(fail_at=31, error=MemoryError),
    ],
    ids=["inplace", "replace", "memory"],
)
def test_the_subject_comes_back_and_the_run_goes_on(make: Callable[[], nn.Module]) -> None:
    model = make()
    task = task_for(model)
    with nothing_changes(model):
        report = wt.audit(Subject(model, name="net"), task, audits=(*QUICK, "quantization"), effort=LITTLE)
    assert len(report.findings) == 3 + 1, "those asked for, and the census"


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("error", "call"), [(SystemExit, 6), (KeyboardInterrupt, 40)])
def test_an_interrupted_run_gives_the_subject_back_and_resumes(
    error: type[BaseException], call: int, tmp_path: Path
) -> None:
    model = Unruly(fail_at=call, error=error)
    task, store = task_for(model), tmp_path / "s.wheeltap"
    subject = Subject(model, name="net")
    # An exit in a model's code would pass for success, so it becomes an error.
    with nothing_changes(model), pytest.raises((KeyboardInterrupt, ModelError), match="told to"):
        wt.audit(subject, task, store=store, audits=QUICK, effort=LITTLE)
    done = 0
    if store.exists():  # else the plan itself was interrupted: it runs the forward once to find the structure
        with Store(store, readonly=True) as kept:
            done = len(kept.keys())
    # Passes that find structure (of the model and of each control copy) or layer moments are no trial's; every other
    # pass that ended was committed.
    assert call - 24 <= done <= call
    again = wt.audit(subject, task, store=store, audits=QUICK, effort=LITTLE)
    whole = wt.audit(subject, task, audits=QUICK, effort=LITTLE)
    assert judged(again) == judged(whole)
    # Where one of the two clean passes is missing, both run again.
    assert 0 <= again.cost.trials - (whole.cost.trials - done) <= 1


def test_a_clean_pass_that_fails_stops_the_run_and_gives_the_subject_back() -> None:
    model = Unruly(fail_at=0)
    with nothing_changes(model), pytest.raises(ModelError, match="told to"):
        wt.audit(Subject(model), task_for(model), audits=AUDITS, effort=LITTLE)


class Wandering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = sound_net()
        self.register_buffer("passes", torch.zeros(()))
        self.eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.get_buffer("passes").add_(1.0)
        return self.body(inputs) * self.get_buffer("passes")


def test_a_model_that_remembers_is_refused_and_given_back() -> None:
    model = Wandering()
    task = task_for(model.body)
    with nothing_changes(model), pytest.raises(ModelError, match="not deterministic"):
        wt.audit(Subject(model), task, audits=AUDITS, effort=LITTLE)


# ---- perturbations that break their contract -----------------------------------------------------------------------


class Rude(Perturbation):
    """Base of perturbations that misbehave in one way each."""

    name = "rude"
    title = unit = "rude"
    lowest, highest = 0.0, 10.0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Trespassing(Rude):
    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        self.model.get_parameter("2.weight").data[0, 0] += 1e-6
        return weights


class InPlace(Rude):
    """Changes the clean copy that it was given."""

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        weights.weight.mul_(1.0 + dose)
        return weights


class Raising(Rude):
    """Raises at the second layer, when the first is disturbed already."""

    error: ClassVar[type[BaseException]] = RuntimeError

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        if layer.name == "2":
            raise self.error("told to")
        return Weights(weights.weight + 1.0, None)


class Interrupted(Raising):
    error = KeyboardInterrupt


class Misshapen(Rude):
    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        return Weights(weights.weight[:, :-1], None)


class Forgetful(Rude):
    """Moves the bias only at doses above 1, and else leaves it alone."""

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        moved = None if weights.bias is None or dose <= 1 else weights.bias + dose
        return Weights(weights.weight.clone(), moved)


def disturb(
    subject: Subject, task: Task, perturbation: Perturbation, doses: list[float], site: Site = WHOLE
) -> list[Outcome]:
    runner = TrialRunner([subject], (), task)
    runner.clean(subject)
    with verified_restoration(subject), Disturbance(subject, perturbation, site) as disturbance:
        return [runner.disturbed(trial(subject, task, "none", dose, site), disturbance) for dose in doses]


@pytest.mark.parametrize("kind", [Trespassing, InPlace])
def test_a_write_outside_the_site_is_detected(kind: type[Rude]) -> None:
    model = sound_net()
    subject, task = Subject(model, name="net"), task_for(model)
    with pytest.raises(RestorationError) as caught:
        disturb(subject, task, kind(model), [0.5], Site("layer", "0"))
    assert "net" in str(caught.value) and "bit-identical" in str(caught.value)


@pytest.mark.parametrize("kind", [Raising, Misshapen])
def test_a_perturbation_that_raises_fails_its_trials_only(kind: type[Rude]) -> None:
    model = sound_net()
    subject, task = Subject(model), task_for(model)
    with nothing_changes(model):
        outcomes = disturb(subject, task, kind(model), [0.5, 20.0])
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert "RuntimeError: " in outcomes[0].because
    assert "dose" in outcomes[1].because
    assert all(outcome.values == {} for outcome in outcomes)
    with nothing_changes(model), pytest.raises(KeyboardInterrupt):  # half-way, and undone
        disturb(subject, task, Interrupted(model), [0.5])


def test_a_bias_left_alone_is_the_clean_one() -> None:
    model = sound_net()
    subject, task = Subject(model), task_for(model)
    first, _, third = disturb(subject, task, Forgetful(model), [0.5, 2.0, 0.5])
    assert np.array_equal(first.values["nll"], third.values["nll"])


class Drifting(nn.Linear):
    """Writes into its own weight in each pass, so that a disturbance of the bias alone is not all that changes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        self.weight.data[0, 0] += 1e-6
        return super().forward(input)


def test_a_run_proves_that_its_subject_came_back() -> None:
    model, found = Drifting(6, 4).eval(), list[Outcome]()
    subject, task = Subject(model, name="net"), task_for(model)
    asked = trial(subject, task, "erase", 1.0, Site.number("bias", (1,)))
    with pytest.raises(RestorationError, match="bit-identical"):
        run_trials([asked], TrialRunner([subject], (), task), found.append)
    assert [outcome.status for outcome in found] == ["done"]
