"""WT504 on planted truths, recorded and live: sharper but narrower, more able, the same; and how answers are drawn."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import wheeltap as wt
from tests.blocks import blocks, rows
from wheeltap.core.records import Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Chart, Table
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.plans.plan import AuditSpec
from wheeltap.runs.stored import judge
from wheeltap.suites.lens.readings.answers import Samples
from wheeltap.suites.lens.recorded.base import AnswerFile, Answers
from wheeltap.suites.lens.runs import imported
from wheeltap.suites.lens.stats.passk import pass_at

ITEMS, SAMPLES = 400, 32
ONCE, SOLVED = "Difference at one try (pass@1)", "Solved at least once"


def report(
    tmp_path: Path, *shares: np.ndarray, samples: tuple[int | np.ndarray, ...] = (SAMPLES, SAMPLES)
) -> ReportRecord:
    """Of two systems with these chances of a right answer to each item."""
    rng = np.random.default_rng(7)
    items = tuple(f"q{at}" for at in range(len(shares[0])))
    files = [
        AnswerFile(
            shape="planted", items=items,
            systems=(Answers(name=name, right=rng.binomial(n, share).astype(np.int32),
                             samples=np.full(len(items), n, dtype=np.int32)),),
        )
        for name, share, n in zip(("base", "after"), shares, samples, strict=True)
    ]  # fmt: skip
    held = imported(files, audits=[AuditSpec(name="support")])
    assert held.put(tmp_path / "planted.wheeltap") == len(held.outcomes)
    assert held.put(tmp_path / "planted.wheeltap") == 0
    return judge(tmp_path / "planted.wheeltap").record


def finding(record: ReportRecord, title: str) -> Finding:
    [one] = [one for one in record.findings if one.title == title]
    return one


@pytest.fixture
def ability() -> np.ndarray:
    """Chances of the first system: most items are solved sometimes, a few hardly ever."""
    return np.random.default_rng(0).beta(0.6, 0.8, size=ITEMS)


def test_sharper_and_narrower(tmp_path: Path, ability: np.ndarray) -> None:
    record = report(tmp_path, ability, np.where(ability > 0.3, np.minimum(ability + 0.25, 1.0), 0.0))
    once, solved = finding(record, ONCE), finding(record, SOLVED)
    assert once.status == "found" and not once.alarm and "points more" in once.because
    assert solved.status == "found" and solved.alarm and solved.verdict == "shrank"
    [gap] = blocks(record, Chart, "Gain")
    runs = re.findall(r"(\d+)(?: to (\d+))?", gap.alt.partition("against base:")[2].partition("(95 %")[0])
    assert "more at 1" in gap.alt and f"to {SAMPLES}" in gap.alt.partition("fewer at ")[2].partition(";")[0]
    assert sum(int(high or low) - int(low) + 1 for low, high in runs) == SAMPLES
    [(both, first, second, neither, _, sure)] = rows(record, "Items solved").values()
    assert int(first) > 20 and int(second) <= 2 and int(sure.partition(" ")[0]) < int(first)
    assert sum(map(int, (both, first, second, neither))) == ITEMS


def test_more_able(tmp_path: Path, ability: np.ndarray) -> None:
    record = report(tmp_path, np.where(ability > 0.5, ability, 0.0), ability)
    assert finding(record, SOLVED).verdict == "grew" and not finding(record, SOLVED).alarm


def test_the_same(tmp_path: Path, ability: np.ndarray) -> None:
    record = report(tmp_path, ability, ability)
    assert finding(record, ONCE).status == "excluded"
    assert finding(record, SOLVED).status == "inconclusive"
    assert blocks(record, Chart, "Gain")[0].spans == ((1, SAMPLES),)
    assert rows(record, "Items solved")["base vs after"][-1].startswith("none of")


def test_other_numbers_of_answers_are_not_compared_by_what_is_solved_once(tmp_path: Path, ability: np.ndarray) -> None:
    record = report(tmp_path, ability, ability, samples=(SAMPLES, 4))
    assert finding(record, SOLVED).status == "not_applicable"
    assert blocks(record, Chart, "Gain")[0].series[0].x[-1] == 4 and not blocks(record, Table, "Items solved")


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


def test_a_sharper_copy_solves_more_at_one_try_and_fewer_within_many() -> None:
    base, sharp = (wt.Subject(Given(by, 4).eval(), name=name) for by, name in ((0.5, "base"), (3.0, "sharp")))
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 4, generator=rng)
    right = torch.where(torch.rand(300, generator=rng) < 0.7, scores.argmax(1), scores.argmin(1))
    report = wt.compare(base, sharp, wt.Task(scores, right), audits=["support"])
    [solved] = [one for one in report.findings if one.title == "Solved at least once"]
    assert solved.status == "found" and solved.verdict == "shrank"
    assert "more at 1" in blocks(report.record, Chart, "Gain")[0].alt
