"""Necessary and sufficient parts: nets in which the answer is planted, and random sets claimed to be the set."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from reports import estimate, number
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.audits import parts
from wheeltap.audits.base import Case
from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding, Outcome
from wheeltap.models.mlp import mlp
from wheeltap.report.report import Report

INPUTS, UNITS, CLASSES, EXAMPLES = 8, 96, 4, 400
TASK = tuple(range(8, 16))
"""Units that compute the function; by default all others write nothing."""


@dataclass(frozen=True)
class Plant:
    """A net of one hidden layer, its subject and a task with its own answers."""

    model: nn.Sequential

    @property
    def reader(self) -> Tensor:
        return self.model[2].weight.data  # type: ignore[return-value]

    def audit(
        self, units: tuple[int, ...] | None = TASK, *, seed: int = 0, examples: int = EXAMPLES, **settings: Any
    ) -> Report:
        given = {} if units is None else {"units": f"0:{','.join(map(str, units))}"}
        spec = wt.AuditSpec(name="parts", settings={**given, **settings})
        task = own(self.model, numbers(examples, INPUTS, seed=100))
        return wt.audit(wt.Subject(self.model, name="net"), task, audits=[spec], seed=seed)


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plant(seed: int = 0) -> Plant:
    """Eight units compute the function; the others read the inputs and write nothing."""
    model = mlp((INPUTS, UNITS, CLASSES)).eval()
    found = Plant(model)
    model[0].weight.data = numbers(UNITS, INPUTS, seed=seed)
    model[0].bias.data.zero_()
    # Where no input is positive every class would get 0, and rounding would choose between them.
    model[2].bias.data = 1e-3 * torch.arange(CLASSES)
    found.reader.zero_()
    # Class c answers to the sum of two inputs' positive parts: balanced, and every unit counts.
    model[0].weight.data[list(TASK)] = torch.eye(INPUTS)
    found.reader[:, list(TASK)] = torch.eye(CLASSES).repeat(1, 2) * 3.0
    return found


def spare(seed: int = 0) -> Plant:
    """The function is computed twice, by ``TASK`` and by the last eight units."""
    found = plant(seed)
    found.model[0].weight.data[-8:] = torch.eye(INPUTS)
    found.reader[:, -8:] = found.reader[:, list(TASK)]
    return found


def cancelling(strength: float, seed: int = 0) -> Plant:
    """Outside ``TASK``, pairs that all say the same with both signs: silent unless a part of them is ablated."""
    found = plant(seed)
    outside = [unit for unit in range(UNITS) if unit not in TASK]
    found.model[0].weight.data[outside] = numbers(1, INPUTS, seed=seed + 1)
    signs = torch.tensor([1.0, -1.0]).repeat(len(outside) // 2)
    found.reader[:, outside] = strength * numbers(CLASSES, 1, seed=seed + 2) * signs
    return found


def both(report: Report) -> dict[str, Finding]:
    return {found.title.rpartition(" ")[2]: found for found in report["WT205"]}


def statuses(found: dict[str, Finding]) -> list[str]:
    return [found[name].status for name in ("necessary", "sufficient")]


def own(model: nn.Module, inputs: Tensor, **more: Any) -> wt.Task:
    """A task of the model's own answers."""
    with torch.no_grad():
        return wt.Task(inputs, model(inputs).argmax(-1), **more)


def test_the_planted_set_is_necessary_and_sufficient() -> None:
    found = both(plant().audit())
    assert statuses(found) == ["found", "found"]
    assert number(found["sufficient"], "adversarial: the set keeps above chance") == pytest.approx(0.75)
    assert number(found["necessary"], "mean: the set costs") > 0.6
    for one in found.values():
        assert one.subject == "net" and len(one.trials) == 1 and one.smallest_detectable is not None
        assert len(one.estimates) == 4 * len(parts.ABLATIONS)
    by_cost = both(plant().audit(None, share=8 / UNITS))
    assert statuses(by_cost) == ["found", "found"], "by default the set is found by its cost"
    for some in (found, by_cost):
        assert "layer 0: 8, 9, 10, 11, 12, 13, 14, 15." in some["necessary"].because


def test_half_of_the_set_is_not_sufficient_and_too_much_is_not_wrong() -> None:
    assert both(plant().audit(TASK[:4]))["sufficient"].status != "found"
    assert statuses(both(plant().audit((*TASK, 20, 30)))) == ["found", "found"]


def test_of_two_spare_halves_each_is_sufficient_and_neither_necessary() -> None:
    """With values of other examples in its double a half stays half right, so less is asked of it."""
    for units in (TASK, tuple(range(UNITS - 8, UNITS))):
        found = both(spare().audit(units, at_least=0.25, nulls=32))
        assert found["sufficient"].status == "found", found["sufficient"].because
        assert found["necessary"].status != "found"
        assert number(found["necessary"], "zero: the set costs") == 0.0
    together = both(spare().audit((*TASK, *range(UNITS - 8, UNITS)), nulls=32, margin=0.02))
    assert statuses(together) == ["found", "found"], "a set may hold a spare of itself"


def test_what_cancels_outside_looks_sufficient_until_a_part_of_it_goes() -> None:
    found = both(cancelling(0.15).audit())["sufficient"]
    assert found.status in ("excluded", "inconclusive")
    assert number(found, "mean: the set keeps above chance") == pytest.approx(0.75)
    assert number(found, "adversarial: the set keeps above chance") < 0.5 * 0.75


@pytest.mark.release
def test_random_sets_claimed_to_be_the_set_are_excluded() -> None:
    """No threshold on the score itself: only the comparison with other random sets is left to say no."""
    model = mlp((INPUTS, 32, CLASSES)).eval()
    model[0].weight.data, model[2].weight.data = numbers(32, INPUTS, seed=1), numbers(CLASSES, 32, seed=2)
    alarms = single = 0
    for claim in range(20):
        units = np.random.default_rng(claim).choice(32, size=16, replace=False)
        report = Plant(model).audit(
            tuple(int(unit) for unit in units), seed=claim, nulls=12, draws=1, tries=1, at_least=1e-6, margin=0.0
        )
        for found in report["WT205"]:
            alarms += found.status == "found"
            p = estimate(found, "mean: more than random sets").p
            single += p is not None and p <= 0.05
    assert alarms <= 2, f"{alarms} of 40"
    assert single <= 5, f"{single} of 40, one kind of ablation alone"


def test_a_behaviour_is_a_class() -> None:
    found = both(plant().audit((TASK[1], TASK[5]), behaviour=1, at_least=0.25, examples=1600))
    assert found["necessary"].status == "found", found["necessary"].because
    other = both(plant().audit((TASK[1], TASK[5]), behaviour=2, at_least=0.25, examples=1600))
    assert other["necessary"].status != "found"


def test_where_less_is_better_it_is_found_too() -> None:
    model = plant().model
    task = own(model, numbers(EXAMPLES, INPUTS, seed=100), measure=wt.measure.nll)
    spec = wt.AuditSpec(name="parts", settings={"units": f"0:{','.join(map(str, TASK))}"})
    found = both(wt.audit(wt.Subject(model, name="net"), task, audits=[spec]))
    assert statuses(found) == ["found", "found"], found


def test_without_hidden_units_or_ability_there_is_no_answer() -> None:
    linear, inputs, net = nn.Linear(INPUTS, CLASSES).eval(), numbers(100, INPUTS, seed=3), plant().model
    found = both(wt.audit(wt.Subject(linear, name="linear"), own(linear, inputs), audits=["parts"]))
    assert statuses(found) == ["not_applicable"] * 2
    unlearned = wt.Task(inputs, net(inputs).argmin(-1).detach())
    found = both(wt.audit(wt.Subject(net, name="net"), unlearned, audits=["parts"]))
    assert statuses(found) == ["not_applicable"] * 2


def simulated(ours: float, others: float) -> dict[str, Finding]:
    """The verdict on a reading made up: effects of the set and of random ones, the same under every ablation."""
    model = plant().model
    task = own(model, numbers(EXAMPLES, INPUTS, seed=100))
    plan = wt.plan(wt.Subject(model, name="net"), task, audits=["parts"])
    rng, sets, shape = np.random.default_rng(0), 17, (len(parts.ABLATIONS), 17, 200)
    shares = np.array([ours] + [others] * (sets - 1)) + 0.01 * rng.normal(size=sets)
    keeps = (rng.random(shape) < shares[None, :, None]).astype(np.float32)
    loss = np.zeros(shape, dtype=np.float32)
    values = {
        "clean_score": np.ones(200, dtype=np.float32), "clean_loss": loss[0, 0], "guided": np.float32(1),
        "without_score": 1 - keeps, "alone_score": keeps, "without_loss": loss, "alone_loss": loss,
        "units": np.zeros((1, 2), dtype=np.float32), "total": np.float32(9), "rows": np.arange(200),
    }  # fmt: skip
    clean = {"accuracy": np.ones(EXAMPLES, dtype=np.float32), "chance": np.float32(0.25)}

    def answer(key: str) -> Outcome:
        known = clean if key in {trial.key for trial in plan.baselines()} else values
        return Outcome(key=key, status="done", values={name: np.asarray(v) for name, v in known.items()})

    verdict = parts.PartsAudit().judge(Case(plan, answer))
    return {found.title.rpartition(" ")[2]: found for found in settle(verdict.drafts, alpha=plan.alpha)}


def test_doing_worse_than_random_sets_is_never_found() -> None:
    """However certain it is: both are far from equal, in the wrong direction; or better, and too little."""
    for ours, others, status in ((0.95, 0.7, "found"), (0.74, 0.98, "excluded"), (0.3, 0.05, "excluded")):
        assert statuses(simulated(ours, others)) == [status] * 2
