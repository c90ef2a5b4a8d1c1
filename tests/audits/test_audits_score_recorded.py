"""Differences of scores between recorded answers: exact where there is one answer an item, clustered where repeated."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from wheeltap.audits import settle
from wheeltap.audits.score_recorded import MOST
from wheeltap.core.records import Cost, Finding
from wheeltap.plans.plan import AuditSpec
from wheeltap.runs.recorded import imported
from wheeltap.runs.stored import judge
from wheeltap.sources.recorded import Answers, Recording

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_solutions = pytest.mark.skipif(
    not (DATA / "gsm8k" / "example_model_solutions.jsonl").is_file(), reason="needs the released solutions of GSM8K"
)


def findings(*systems: tuple[NDArray[np.int32], int]) -> dict[str, Finding]:
    """Of systems with so many right answers of so many to each item."""
    held = tuple(
        Answers(name=f"s{at}", right=right.astype(np.int32), samples=np.full(len(right), count, dtype=np.int32))
        for at, (right, count) in enumerate(systems)
    )
    items = tuple(map(str, range(len(systems[0][0]))))
    made = imported([Recording(shape="x", items=items, systems=held)], audits=[AuditSpec(name="score")])
    known = {one.key: one for one in made.outcomes}
    free = Cost(forwards=0.0, seconds=0.0, trials=0, reused=0)
    return {one.subject: one for one in settle.judge(made.plan, known.get, cost=free, provenance={}).findings}


@needs_solutions
def test_the_released_solutions_of_gsm8k(tmp_path: Path) -> None:
    from wheeltap.sources.recorded import read

    store = tmp_path / "x.wheeltap"
    imported([read(DATA / "gsm8k" / "example_model_solutions.jsonl")]).put(store)
    found = {one.subject: one for one in judge(store).record.findings}
    assert len(found) == 4 + 6
    gap = found["6b_verification vs 175b_finetuning"]
    paired, unpaired = gap.estimates
    assert paired.p == pytest.approx(stats.binomtest(152, 361).pvalue) and paired.p == pytest.approx(0.0032, abs=5e-5)
    assert unpaired.p == pytest.approx(0.0214, abs=2e-4)
    assert gap.status == "found" and "exact McNemar p .0032, unpaired p .021" in gap.said
    assert "6b_verification does better on 209 items, 175b_finetuning on 152" in gap.because
    assert found["6b_verification"].estimates[0].value == pytest.approx(515 / 1319)


def test_two_that_never_differ_are_equivalent_and_that_is_said() -> None:
    same = (np.arange(1000) % 3 == 0).astype(np.int32)
    gap = findings((same, 1), (same, 1))["s0 vs s1"]
    assert gap.status == "excluded" and gap.verdict == "equivalent" and gap.estimates[0].p == 1.0
    assert "There is no item on which they differ" in gap.because


@pytest.mark.parametrize("right", [0, 1])
def test_all_right_and_all_wrong(right: int) -> None:
    same, other = np.full(30, right, dtype=np.int32), np.full(30, 1 - right, dtype=np.int32)
    assert findings((same, 1), (same, 1))["s0 vs s1"].status == "inconclusive"
    assert findings((same, 1), (other, 1))["s0 vs s1"].status == "found"


def test_many_systems_are_compared_with_the_first_alone() -> None:
    same = (np.arange(50) % 3 == 0).astype(np.int32)
    assert len(findings(*[(same, 1)] * MOST)) == MOST + MOST * (MOST - 1) // 2
    assert len(findings(*[(same, 1)] * (MOST + 1))) == MOST + 1 + MOST


@pytest.mark.parametrize("count", [1, 8])
def test_false_differences_are_rare_with_and_without_repeats(count: int) -> None:
    """Items differ in how hard they are, for each system in its own way: answers to one are no independent items."""
    rng, runs = np.random.default_rng(count), 200
    found = 0
    for _ in range(runs):
        two = [(rng.binomial(count, rng.beta(0.3, 0.3, size=60)).astype(np.int32), count) for _ in range(2)]
        found += findings(*two)["s0 vs s1"].status == "found"
    assert found <= stats.binom.ppf(0.999, runs, 0.05)
