"""A race ends as soon as it can, whoever is ahead, and says what it cost; on simulated subjects and on a real net."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from worlds import Simulated, World, falling, finding

import wheeltap as wt
from wheeltap import gauge
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.subject import Subject
from wheeltap.report.report import Report
from wheeltap.sources import digits, load_model

RACE = ("score", "relative-race")


@dataclass
class Parts(World):
    """A world whose trials may be on parts of the task."""

    audits: tuple[str | wt.AuditSpec, ...] = RACE

    def answer(self, trial: Trial, name: str) -> Outcome:
        whole = super().answer(trial, name)
        if trial.subset is None or whole.status != "done":
            return whole
        index = trial.subset.examples(self.examples, root=trial.root)
        return Outcome(key=trial.key, status="done", values={n: v[index] for n, v in whole.values.items()})


def raced(theirs: Callable[[float], float], *, seed: int = 0, **more: Simulated) -> tuple[Parts, Report]:
    world = Parts({"one": Simulated({"relative": falling(0.5)}), "two": Simulated({"relative": theirs}), **more})
    world.seed = seed
    return world, Report(world.run())


def test_the_more_fragile_is_named_early() -> None:
    world, report = raced(falling(0.15))
    found = finding(report, "WT101", "one vs two")
    assert found.status == "found" and "two is more fragile than one" in found.because
    assert found.estimates[0].low is not None and found.estimates[0].low > 0.02
    rounds = [trial for trial in world.asked if trial.subset is not None]
    assert len(rounds) < 2 * 300  # of 2 x 2048 that it might have taken
    assert all(trial.subset is not None for trial in world.asked if trial.perturbation == "relative")


def test_equals_are_called_even_and_the_smallest_difference_is_told() -> None:
    _, report = raced(falling(0.5))
    found = finding(report, "WT101", "one vs two")
    assert found.status == "excluded" and found.smallest_detectable == pytest.approx(0.10)
    assert "a difference of 0.1 is ruled out" in found.because


@pytest.mark.full
def test_equals_are_rarely_told_apart() -> None:
    alarms = sum(finding(raced(falling(0.5), seed=n)[1], "WT101", "one vs two").status == "found" for n in range(40))
    assert alarms <= 4  # at .05 more than 4 of 40 have a chance of 5 %


def test_a_race_that_cannot_be_decided_says_so() -> None:
    spec = wt.AuditSpec(name="relative-race", settings={"rounds": 32})
    world = Parts({"one": Simulated({"relative": falling(0.5)}), "two": Simulated({"relative": falling(0.4)})})
    world.audits = ("score", spec)
    found = finding(Report(world.run()), "WT101", "one vs two")
    assert found.status == "inconclusive" and "not decided after 32 rounds" in found.because


def test_a_twin_that_differs_voids_the_run() -> None:
    sound = {"twin": Simulated({"relative": falling(0.5)}), "planted": Simulated({"relative": falling(0.1)})}
    _, report = raced(falling(0.5), **sound)
    assert not report.void
    assert {c.status for c in report.controls if "raced" in c.name} == {"passed"}
    _, report = raced(falling(0.5), **{**sound, "twin": Simulated({"relative": falling(0.1)})})
    assert report.void


def test_alone_it_does_not_apply() -> None:
    world = Parts({"one": Simulated({"relative": falling(0.5)})})
    found = finding(Report(world.run()), "WT101", "one")
    assert found.status == "not_applicable" and "two models" in found.because


def test_examples_in_groups_are_not_raced() -> None:
    @dataclass
    class Grouped(Parts):
        def answer(self, trial: Trial, name: str) -> Outcome:
            made = super().answer(trial, name)
            if trial.kind != "clean":
                return made
            return replace(made, values={**made.values, "group": np.arange(self.examples) // 4})

    world = Grouped({"one": Simulated({"relative": falling(0.5)}), "two": Simulated({"relative": falling(0.1)})})
    found = finding(Report(world.run()), "WT101", "one vs two")
    assert found.status == "not_applicable" and "come in groups" in found.because
    assert not any(trial.perturbation == "relative" for trial in world.asked)


@pytest.mark.full
def test_on_the_digits_net() -> None:
    one, task = load_model("digits"), digits.task()
    family = gauge.find(one.model)
    assert isinstance(family, gauge.Family)
    many = Subject(gauge.twin(one.model, gauge.describe(family, "cancel", seed=5, pairs=24)), name="cancelling")
    report = wt.compare(one, many, task, audits=list(RACE))
    found = finding(report, "WT101", "digits vs cancelling")
    assert found.status == "found" and "cancelling is more fragile" in found.because
    assert report.cost.forwards < 40  # most of them clean passes: the curves alone would take more than 400
    again = wt.compare(one, many, task, audits=list(RACE))
    assert again.findings == report.findings and np.isclose(again.cost.forwards, report.cost.forwards)
