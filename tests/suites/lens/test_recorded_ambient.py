"""AmbiEnt's result files: the published figures recomputed, and files that cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import lines

from tests.published import published
from wheeltap.suites.lens.audits.ambiguity import of_continuations, of_rewrites, of_statements
from wheeltap.suites.lens.recorded import read
from wheeltap.suites.lens.recorded.base import ReadingArrays
from wheeltap.suites.lens.specs import DISTRACTOR, NO_ANSWER, NOT_ASKED, TRUE


def known(path: Path) -> ReadingArrays:
    """What the one system of a file is known by."""
    [system] = read(path).systems
    [one] = system.more
    return one


def arrays(one: ReadingArrays) -> dict[str, Any]:
    """As an audit gets them."""
    return {name: np.asarray(array) for name, array in one.values.items()}


@pytest.mark.parametrize(("name", "right", "nulls"), [("gpt-4", 0.630, 113), ("flan-t5-xxl", 0.564, 0)])
def test_statements(name: str, right: float, nulls: int) -> None:
    one = known(published(f"ambient/results/TF_{name}.jsonl"))
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


@pytest.mark.parametrize(("name", "right", "of"), [("llama-65b", 397, 576), ("flan-t5-xxl", 470, 580)])
def test_continuations(name: str, right: int, of: int) -> None:
    found = of_continuations([arrays(known(published(f"ambient/results/KL_{name}.jsonl")))])
    assert found is not None and f"{right} of {of} sentences" in found.words
    [share] = found.shares
    assert (share.answers, share.items, share.estimate.value) == (of, 543, pytest.approx(right / of))


def test_rewrites() -> None:
    recording = read(published("ambient/crowdworker_annotations.jsonl"))
    [one] = recording.more
    found = of_rewrites(arrays(one))
    assert recording.votes is not None and "489 of 542" in found.words
    assert "16 of 50 items, 32.0 % [20.8, 45.8]" in found.words and "90.2 % [87.4, 92.4]" in found.words


def stated(**changed: Any) -> dict[str, Any]:
    """A row of statements."""
    row = {"example_id": "1_c", "ambiguous_sentence_key": "premise", "disambiguation": "It rains.", "template_id": 0,
           "answer": True, "prediction": 1.0}  # fmt: skip
    return row | changed


def test_an_answer_that_was_not_given_is_kept_as_such(tmp_path: Path) -> None:
    rows = [stated(), stated(template_id=2, answer=False, prediction=None), stated(example_id=2, prediction=False)]
    answer = known(lines(tmp_path / "x.jsonl", rows)).values["answer"]
    assert answer.shape == (2, 1, 4) and answer[0, 0].tolist() == [TRUE, NOT_ASKED, NO_ANSWER, NOT_ASKED]


def went_on(**changed: Any) -> dict[str, Any]:
    """A row of divergences."""
    return {"id": 1, "options": {"y0": {"KL_div": 0.1}, "d": {"KL_div": 0.5}}, "num_conts": 9} | changed


def test_an_item_with_two_ambiguous_sentences(tmp_path: Path) -> None:
    one = known(lines(tmp_path / "x.jsonl", [went_on(), went_on(), went_on(id="2_c")]))
    assert one.values["kind"].shape == (2, 2, 2) and (one.values["kind"] == DISTRACTOR).sum() == 3
    assert one.values["continuations"].tolist() == [[9, 9], [9, 0]]


def crowd(**changed: Any) -> dict[str, Any]:
    """A row of votes on a pair, its two rewrites and a distractor."""
    votes = {"q0_gold": ["neutral"] * 3, "labels": ["entailment", None, "neutral"]}
    for at, label in ((1, "entailment"), (2, "neutral"), (3, "neutral")):
        votes |= {f"q{at}_gold": [label] * 3, f"d{at}_gold": [True, True, False]}
    return {"id": 1, **votes} | changed


@pytest.mark.parametrize(
    ("changed", "confirmed"),
    [
        ({}, True),
        ({"d2_gold": [False] * 3, "q2_gold": ["contradiction"] * 3}, True),
        ({"d3_gold": [True, False, False]}, False),
        ({"q1_gold": ["neutral", "neutral", "entailment"]}, False),
    ],
)
def test_what_people_confirm(tmp_path: Path, changed: dict[str, Any], confirmed: bool) -> None:
    """All but the distractor, which counts for nothing."""
    [one] = read(lines(tmp_path / "x.jsonl", [crowd(**changed)])).more
    assert one.values["right"].tolist() == [confirmed]


def test_votes_without_rewrites(tmp_path: Path) -> None:
    assert read(lines(tmp_path / "x.jsonl", [{"id": 1, "q0_gold": ["neutral"]}])).more == ()
