"""Answers sampled from a live model: the law of its own distribution, and WT504 on it."""

import numpy as np
import pytest
import torch
from torch import nn

import wheeltap as wt
from tests.blocks import blocks
from wheeltap.core.errors import DataError
from wheeltap.core.section import Chart
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.suites.lens.readings.answers import Samples
from wheeltap.suites.lens.stats.passk import pass_at


class Given(nn.Module):
    """Gives its inputs, times a number, as scores of options."""

    def __init__(self, sharpness: float, options: int = 3) -> None:
        super().__init__()
        self.last = nn.Linear(options, options, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(sharpness * torch.eye(options))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x)


PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
TASK = Task(PROBABILITY.log().float().repeat(40, 1), torch.tensor([0, 1, 2]).repeat(40))


def test_options_are_drawn_as_often_as_the_model_gives_them() -> None:
    read = Samples({"draws": 500}).read(Subject(Given(1.0).eval()), TASK, root=0, seed=0).values
    for item in range(3):
        shares = np.bincount(read["answers"][item::3].ravel(), minlength=3) / (40 * 500)
        np.testing.assert_allclose(shares, PROBABILITY[item], atol=4 * np.sqrt(0.25 / 20_000))
    assert (read["right"] == (read["answers"] == TASK.targets.numpy()[:, None]).sum(1)).all()
    # pass@k of independent draws is 1 - (1 - p)^k, in the mean over items of one probability.
    found = pass_at(read["right"], read["samples"], most=4)[::3].mean(axis=0)
    np.testing.assert_allclose(found, 1 - 0.3 ** np.arange(1, 5), atol=0.02)


def test_a_low_temperature_gives_the_best_option() -> None:
    read = Samples({"draws": 50, "temperature": 0.01}).read(Subject(Given(1.0).eval()), TASK, root=0, seed=0).values
    assert (read["answers"][0::3] == 0).all() and (read["answers"][1::3] == 2).all()


def test_targets_that_are_no_options_are_refused() -> None:
    numbers = Task(torch.randn(4, 3), torch.randn(4, 3), measure="squared_error")
    with pytest.raises(DataError, match="right options"):
        Samples().read(Subject(Given(1.0).eval()), numbers, root=0, seed=0)


def test_a_sharper_copy_solves_more_at_one_try_and_fewer_within_many() -> None:
    base, sharp = (wt.Subject(Given(by, 4).eval(), name=name) for by, name in ((0.5, "base"), (3.0, "sharp")))
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 4, generator=rng)
    right = torch.where(torch.rand(300, generator=rng) < 0.7, scores.argmax(1), scores.argmin(1))
    report = wt.compare(base, sharp, wt.Task(scores, right), audits=["support"])
    [solved] = [one for one in report.findings if one.title == "Solved at least once"]
    assert solved.status == "found" and solved.verdict == "shrank"
    assert "more at 1" in blocks(report.record, Chart, "Gain")[0].alt


def test_parts_of_a_task_are_numbered_in_order_where_they_are_given() -> None:
    parts = torch.tensor([10**9 + 7, -2, 10**9]).repeat(40)
    read = Samples({"draws": 2}).read(Subject(Given(1.0).eval()), TASK.with_groups(parts), root=0, seed=0).values
    assert read["group"].tolist() == [2, 0, 1] * 40
    assert "group" not in Samples({"draws": 2}).read(Subject(Given(1.0).eval()), TASK, root=0, seed=0).values
