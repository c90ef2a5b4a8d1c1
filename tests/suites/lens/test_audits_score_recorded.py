"""Differences of scores between recorded answers: exact where there is one answer an item, clustered where repeated."""

from pathlib import Path

import numpy as np
import pytest
from logs import released
from numpy.typing import NDArray
from scipy import stats

from wheeltap.audits import settle
from wheeltap.core.records import Cost, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.plans.plan import AuditSpec
from wheeltap.runs.stored import judge
from wheeltap.suites.lens.recorded import AnswerFile, Answers, read
from wheeltap.suites.lens.runs import imported


def judged(*systems: Answers) -> ReportRecord:
    """The report on systems that answered the same items."""
    many = next(len(one) for one in (systems[0].right, systems[0].score) if one is not None)
    recording = AnswerFile(shape="x", items=tuple(map(str, range(many))), systems=systems)
    made = imported([recording], audits=[AuditSpec(name="score")])
    known = {one.key: one for one in made.outcomes}
    free = Cost(forwards=0.0, seconds=0.0, trials=0, reused=0)
    return settle.judge(made.plan, known.get, cost=free, provenance={})


def graded(*several: float | list[float]) -> tuple[Answers, ...]:
    """Systems with partial credit."""
    return tuple(Answers(name=f"s{at}", score=np.array(one, dtype=np.float32)) for at, one in enumerate(several))


def findings(*systems: tuple[NDArray[np.int32], int]) -> dict[str, Finding]:
    """Of systems with so many right answers of so many to each item."""
    held = tuple(
        Answers(name=f"s{at}", right=right.astype(np.int32), samples=np.full(len(right), count, dtype=np.int32))
        for at, (right, count) in enumerate(systems)
    )
    return {one.subject: one for one in judged(*held).findings}


def test_the_released_solutions_of_gsm8k(tmp_path: Path) -> None:
    store = tmp_path / "x.wheeltap"
    imported([read(released(tmp_path / "gsm8k.jsonl"))]).put(store)
    found = {one.subject: one for one in judge(store).record.findings}
    assert len(found) == 4 + 6
    gap = found["6b_verification vs 175b_finetuning"]
    paired, unpaired = gap.estimates
    assert paired.p == pytest.approx(stats.binomtest(152, 361).pvalue) and paired.p == pytest.approx(0.0032, abs=5e-5)
    assert unpaired.p == pytest.approx(0.0214, abs=2e-4)
    assert gap.status == "found" and gap.alarm
    ends = [paired.value, paired.low, paired.high]  # the second less the first
    assert ends == pytest.approx([-0.043, -0.071, -0.015], abs=6e-4)
    assert found["6b_verification"].estimates[0].value == pytest.approx(515 / 1319)


def test_two_that_never_differ_are_equivalent_and_that_is_said() -> None:
    same = (np.arange(1000) % 3 == 0).astype(np.int32)
    gap = findings((same, 1), (same, 1))["s0 vs s1"]
    assert gap.status == "excluded" and gap.verdict == "equivalent" and gap.estimates[0].p == 1.0


def test_only_what_is_worse_is_an_alarm() -> None:
    bad, good = np.zeros(40, dtype=np.int32), np.ones(40, dtype=np.int32)
    worse, better = (findings((one, 1), (two, 1))["s0 vs s1"] for one, two in ((good, bad), (bad, good)))
    assert (worse.status, worse.alarm, worse.estimates[0].value) == ("found", True, -1.0)
    assert (better.status, better.alarm, better.estimates[0].value) == ("found", False, 1.0)
    assert worse.estimates[0].name == "score difference (s1 - s0)"
    open_ = findings((good[:5], 1), (good[:5], 1))
    assert [one.status for one in open_.values()] == ["measured", "measured", "inconclusive"]
    assert not any(one.alarm for one in open_.values())


@pytest.mark.parametrize("items", [5, 12])
def test_few_items_with_partial_credit_prove_nothing(items: int) -> None:
    """Two that never differ: no interval without width, and no equivalence."""
    record = judged(*graded([0.5] * items, [0.5] * items))
    *alone, gap = record.findings
    assert gap.status == "inconclusive" and gap.margin == 0.02
    assert all(one.low is not None and one.high is not None and one.high - one.low > 0.2
               for finding in record.findings for one in finding.estimates[:1])  # fmt: skip
    assert len(alone) == 2


def test_the_margin_of_partial_credit_does_not_depend_on_the_score() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0.0, 0.1, size=2000)
    gap = judged(*graded(list(low), list(low + rng.normal(0.0, 0.01, size=2000).clip(-low, 1)))).findings[-1]
    assert (gap.status, gap.margin) == ("excluded", 0.02)


def test_scores_beyond_one_that_differ_by_the_same_amount_have_no_test() -> None:
    gap = judged(*graded([5.0] * 5, [7.0] * 5)).findings[-1]
    assert gap.status == "measured" and gap.estimates[0].low is None


@pytest.mark.parametrize("count", [1, 8])
def test_false_differences_are_rare_with_and_without_repeats(count: int) -> None:
    """Items differ in how hard they are, for each system in its own way: answers to one are no independent items."""
    rng, runs = np.random.default_rng(count), 40
    found = 0
    for _ in range(runs):
        two = [(rng.binomial(count, rng.beta(0.3, 0.3, size=60)).astype(np.int32), count) for _ in range(2)]
        found += findings(*two)["s0 vs s1"].status == "found"
    assert found <= stats.binom.ppf(0.999, runs, 0.05)
