"""WT502: planted skill is found, none is not; published files are scored as published; a run that stops goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import wheeltap as wt
from tests.blocks import rows
from tests.published import published
from wheeltap.cli import main
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.records import Finding
from wheeltap.plans.store import Store
from wheeltap.runs import loop
from wheeltap.stats.effect import mean_effect
from wheeltap.suites.lens.annotations import Ambiguity, AmbiguousSentence
from wheeltap.suites.lens.audits.ambiguity import of_continuations, of_labels, of_rewrites, of_statements, sets
from wheeltap.suites.lens.recorded import read
from wheeltap.suites.lens.recorded.base import ReadingArrays
from wheeltap.suites.lens.specs import DISTRACTOR, FALSE, NO_ANSWER, NONE, NOT_ASKED, READING, TRUE

ITEMS, TOKENS = 120, 12


class Sees(nn.Module):
    """What comes next depends on the last token: alike after 0 and 1, otherwise after 2; labels follow 3, 4 and 5."""

    def __init__(self, *, skill: float) -> None:
        super().__init__()
        self.table = nn.Embedding(TOKENS, TOKENS)
        with torch.no_grad():
            table = torch.zeros(TOKENS, TOKENS)
            table[2, 6] = 5.0 * skill
            # After 3 label 7 alone, after 4 label 8 alone, after 5 both; 10 is true and 11 false.
            table[3, 7], table[4, 8], table[5, 7], table[5, 8] = (6.0 * skill,) * 4
            table[:, 10] += 2.0
            self.table.weight.copy_(table)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids)


def items(count: int = ITEMS) -> ChoiceTask:
    """A third of them ambiguous."""
    kinds = np.arange(count) % 3
    one = AmbiguousSentence(side=0, sentence=(9, 0), readings=((9, 1), (8, 9, 0)), distractor=(9, 2))
    asked = tuple(tuple((reading, template) for template in range(4)) for reading in range(2))
    known = Ambiguity(
        sentences=tuple((one,) if kind == 2 else () for kind in kinds),
        statements=tuple(asked if kind == 2 else () for kind in kinds),
        options=((11,), (10,)), ends=frozenset(),
        labels=tuple(((True, False, False), (False, True, False), (True, True, False))[kind] for kind in kinds),
    )  # fmt: skip
    contexts = [[9, 3 + int(kind)] for kind in kinds]
    made = ChoiceTask(contexts, [[[7], [8], [9]]] * count, [int(kind == 1) for kind in kinds], name="items")
    return made.with_annotation(known)


SETTINGS = {"size": 50, "continuations": 6, "longest": 3, "top_p": 1.0}
ASKED = [wt.AuditSpec(name="ambiguity", settings=SETTINGS)]


def judged(model: nn.Module, **how: Any) -> tuple[dict[str, Finding], wt.Report]:
    report = wt.audit(wt.Subject(model.eval(), name="net"), items(), audits=ASKED, **how)
    return {one.title: one for one in report.findings if one.code == "WT502"}, report


def test_planted_skill_is_found() -> None:
    found, report = judged(Sees(skill=1.0))
    distant, labels = found["Readings against a distractor"], found["Sets of labels"]
    assert (distant.status, distant.verdict, distant.alarm) == ("found", "above chance", False), distant.because
    assert (labels.status, labels.verdict) == ("found", "above the most common set"), labels.because
    stated = found["Statements about readings"]
    # It always says true: right in two of four templates, never in all of an item.
    assert stated.status == "measured" and "50.0 % [" in stated.because and "for 0.0 % [" in stated.because
    shares = {name: cells[0] for name, cells in rows(report.record, "right, %").items()}
    assert shares["sets of labels"].startswith("100.0 [") and shares["sets of labels"].endswith(f"; {ITEMS}")
    assert f"; {ITEMS // 3}" in shares["continuations of readings"]
    assert f"; {8 * ITEMS // 3}" in shares["statements about readings"]


def test_without_skill_nothing_is_found() -> None:
    found, _ = judged(Sees(skill=0.0))
    assert all(one.status in ("excluded", "inconclusive", "measured") for one in found.values())


def test_one_item_has_no_sets_of_labels() -> None:
    """The threshold of each half is tuned on the other, and one item has no halves."""
    single = items(3).part(torch.tensor([2]))
    report = wt.audit(wt.Subject(Sees(skill=1.0).eval(), name="net"), single, audits=ASKED)
    by_title = {one.title: one for one in report.findings if one.code == "WT502"}
    assert by_title["Sets of labels"].status == "not_applicable"
    assert by_title["Statements about readings"].status == "measured"


def test_a_run_that_is_broken_off_goes_on(tmp_path: Path) -> None:
    """Parts that were read are not read again, and the answer is the same."""
    store, task = tmp_path / "s.wheeltap", items()
    whole, first = judged(Sees(skill=1.0))
    plan = wt.plan(wt.Subject(Sees(skill=1.0).eval(), name="net"), task, audits=ASKED)

    def stop(state: loop.Progress) -> None:
        if state.done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wt.run(plan, wt.Subject(Sees(skill=1.0).eval(), name="net"), task, store=store, watch=stop)
    with Store(store, readonly=True) as kept:
        assert kept.count()["done"] == 6
    report = wt.run(plan, wt.Subject(Sees(skill=1.0).eval(), name="net"), task, store=store)
    assert report.cost.trials == first.cost.trials - 6
    again = {one.title: one.because for one in report.findings if one.code == "WT502"}
    assert again == {title: one.because for title, one in whole.items()}


def test_recorded_systems_are_compared_item_by_item() -> None:
    files = [str(published(f"ambient/results/TF_{name}.jsonl")) for name in ("gpt-4", "flan-t5-xxl")]
    assert main(["lens", *files]) == 1  # the second is worse


class TestScores:
    """Numbers of small arrays by hand."""

    def test_statements(self) -> None:
        answer = np.full((3, 2, 4), NOT_ASKED)
        answer[0, :] = [TRUE, TRUE, FALSE, FALSE]
        answer[2, 0] = [TRUE, FALSE, NO_ANSWER, TRUE]
        found = of_statements([{"answer": answer}])
        assert found is not None and found.items.tolist() == [0, 2] and found.values.tolist() == [1.0, 0.25]
        share = {one.what: one for one in found.shares}
        assert share["statements about readings"].estimate.value == 9 / 12
        assert share["statements about readings, no answer left out"].estimate.value == 9 / 11
        assert share["all statements of an item"].estimate.value == 1 / 2
        assert share['"This may mean:"'].answers == 3
        assert of_statements([{"answer": np.full((3, 2, 4), NOT_ASKED)}]) is None

    def test_continuations(self) -> None:
        kind = np.array([[[READING, READING, DISTRACTOR], [READING, DISTRACTOR, NONE]], [[NONE] * 3] * 2])
        divergence = np.array([[[0.1, 0.4, 0.3], [0.2, 0.3, 0.0]], [[0.0] * 3] * 2])
        found = of_continuations([{"kind": kind, "divergence": divergence, "continuations": np.full((2, 2), 9)}])
        assert found is not None and found.values.tolist() == [0.5] and found.items.tolist() == [0]
        assert found.chance is not None and found.chance[0] == pytest.approx((1 / 3 + 1 / 2) / 2)

    def test_labels_are_scored_with_a_threshold_tuned_on_others(self) -> None:
        """Noise alone: a threshold tuned on the same items would look better than one tuned on others does."""
        rng, own, other = np.random.default_rng(0), list[float](), list[float]()
        for seed in range(60):
            p, right = rng.dirichlet(np.ones(3), 40), rng.random((40, 3)) < 0.4
            right[~right.any(1), 0] = True
            tried = [(sets(p, at) == right).all(1).mean() for at in np.arange(1, 100) / 100]
            own.append(max(tried))
            other.append(of_labels(p, right, seed=seed).values.mean())
        assert np.mean(own) > np.mean(other) + 0.03

    def test_chance_is_found_no_more_often_than_it_should(self) -> None:
        """Readings and distractor that differ by luck: the interval lies above chance in at most 5 %."""
        rng, alarms = np.random.default_rng(3), 0
        kind = np.broadcast_to([[READING, READING, DISTRACTOR], [NONE] * 3], (80, 2, 3))
        for _ in range(300):
            arrays = {"kind": kind, "divergence": rng.random((80, 2, 3)), "continuations": np.full((80, 2), 9)}
            one = of_continuations([arrays])
            assert one is not None and one.chance is not None
            effect = mean_effect((one.values - one.chance)[None, :], bounded=True, unit="share")
            alarms += effect.low is not None and effect.low > 0.0
        assert alarms / 300 < 0.05


def read_of(path: Path) -> ReadingArrays:
    """What the one system of a file is known by."""
    [system] = read(path).systems
    [one] = system.more
    return one


def arrays(one: ReadingArrays) -> dict[str, Any]:
    """As an audit gets them."""
    return {name: np.asarray(array) for name, array in one.values.items()}


@pytest.mark.parametrize(("name", "right", "nulls"), [("gpt-4", 0.630, 113), ("flan-t5-xxl", 0.564, 0)])
def test_statements(name: str, right: float, nulls: int) -> None:
    one = read_of(published(f"ambient/results/TF_{name}.jsonl"))
    assert (one.values["answer"] == NO_ANSWER).sum() == nulls and (one.values["answer"] != NOT_ASKED).sum() == 4692
    found = of_statements([arrays(one)])
    assert found is not None
    share = {each.what: each.estimate.value for each in found.shares}
    assert round(share["statements about readings"] or 0.0, 3) == right
    assert [each.answers for each in found.shares if "left out" in each.what] == [4692 - nulls] * (nulls > 0)
    if name == "gpt-4":
        assert share["statements about readings, no answer left out"] == pytest.approx(2956 / 4579)
        assert share["all statements of an item"] == pytest.approx(1 / 543)
        by_template = [value for what, value in share.items() if what.startswith('"')]
        np.testing.assert_allclose(by_template, [0.92, 0.69, 0.82, 0.10], atol=0.005)


def test_continuations_and_rewrites() -> None:
    found = of_continuations([arrays(read_of(published("ambient/results/KL_flan-t5-xxl.jsonl")))])
    assert found is not None and "470 of 580 sentences" in found.words
    [share] = found.shares
    assert (share.answers, share.items, share.estimate.value) == (580, 543, pytest.approx(470 / 580))
    [one] = read(published("ambient/crowdworker_annotations.jsonl")).more
    words = of_rewrites(arrays(one)).words
    assert "489 of 542" in words and "16 of 50 items, 32.0 % [20.8, 45.8]" in words and "90.2 % [87.4, 92.4]" in words
