"""Files of recorded answers and votes in every shape: who answered what, how often that was right, who chose what."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import HEADER, by_zstandard, choice, generated, loaded, sample

from tests.published import published
from wheeltap.core.errors import DataError
from wheeltap.suites.lens.recorded import AnswerFile, Answers, Votes, read
from wheeltap.suites.lens.recorded.gathered import in_order
from wheeltap.suites.lens.runs import imported

NLI = ("entailment", "neutral", "contradiction")
SCALE = ("-3", "-2", "-1", "0", "1")
HALF, LOGS = 1 / (1 + np.exp(-1.0)), np.exp([[-1.0, -2.0, -4.0], [-3.0, -1.0, -1.5]])

Case = tuple[str, Any, dict[str, Any]]
"""Name of the file, its content, and what is read: see ``held``; notes may be given in part (``noted``, ``silent``)."""

OWN: list[Case] = [
    ("m.jsonl", [{"id": "a", "correct": True}, {"id": 7, "correct": 0}],
     {"items": ("a", "7"), "systems": ["m"], "right": [1, 0], "samples": [1, 1],
      "says": "rows of answers: 1 system, 2 items, 1 answer each"}),
    # Repeats of an item go together in the order of their numbers.
    ("m.jsonl", [{"id": "a", "sample": 2, "correct": True, "answer": "4"},
                 {"id": "b", "sample": 0, "correct": False, "answer": None},
                 {"id": "a", "sample": 0, "correct": False, "answer": "5"},
                 {"id": "a", "sample": 1, "correct": True, "answer": "4"}],
     {"right": [2, 0], "samples": [3, 1], "answers": [[0, 1, 1], [-1, -1, -1]]}),
    # A line may have those labels alone that somebody chose.
    ("v.jsonl", [{"id": 0, "votes": {"yes": 3}}, {"id": 1, "votes": {"no": 1, "maybe": 2}},
                 {"id": 2, "votes": {"yes": 1, "maybe": 2}}, {"id": 3, "votes": {"other": 3}}],
     {"says": "rows of votes: 4 items, 3 votes each on 4 labels"}),
    ("x.jsonl", [{"id": "a", "votes": {"5": 1, "1": 2}}, {"id": "b", "votes": {"2": 1}}],
     {"voted": tuple("12345"), "ordinal": True, "votes": [[2, 0, 0, 0, 1], [0, 1, 0, 0, 0]]}),
    # Were answers without a grade wrong or right, the score would be another one: no score without that bound.
    ("m.jsonl", [{"id": at, "correct": (True, None, False, None)[at], "answer": "4"} for at in range(4)],
     {"items": ("0", "2"), "right": [1, 0], "samples": [1, 1], "notes": (
         "2 answers without a grade (null) left out.",
         "m: 50.0 % without them, 25.0 % of all answers if they are wrong, 75.0 % if they are right.")}),
    ("t.jsonl", [{"id": 1, "correct": 0.5}, {"id": 2, "correct": True}], {"right": None, "score": [0.5, 1.0]}),
    ("m.jsonl", [{"id": "a", "system": "one", "correct": True}, {"id": "b", "system": "one", "correct": True},
                 {"id": "b", "system": "two", "correct": False}],
     {"items": ("b",), "systems": ["one", "two"], "noted": "1 of 2 items has"}),
    ("m.jsonl", [{"id": "a", "probabilities": {"no": 0.25, "yes": 0.75}, "votes": {"yes": 3}},
                 {"id": "b", "probabilities": {"yes": 0.5, "no": 0.5}, "votes": {"yes": 1, "no": 2}}],
     {"labels": ("no", "yes"), "voted": ("no", "yes"), "votes": [[0, 3], [2, 1]],
      "probability": [[0.25, 0.75], [0.5, 0.5]]}),
    ("m.jsonl", [{"id": "a", "correct": True, "group": "old"}, {"id": "b", "correct": True, "group": "new"}],
     {"groups": ("old", "new")}),
]  # fmt: skip

LM_EVAL: list[Case] = [
    ("samples_x.jsonl", [choice(0, [-1.0, -2.0, -4.0], 0), choice(1, [-3.0, -1.0, -1.5], 0)],
     {"right": [1, 0], "samples": [1, 1], "probability": LOGS / LOGS.sum(1, keepdims=True), "labels": ("0", "1", "2"),
      "noted": "Right is acc; also there: acc_norm."}),
    ("s.jsonl", [choice(0, [-1.0, -2.0], 0, filtered_resps=[[-1.0, True], [-2.0, False]], arguments=[["?", " a"]])],
     {"probability": [[HALF, 1 - HALF]]}),
    ("s.jsonl", [choice(0, [-1.0, -2.0], 0), choice(1, [-1.0, -2.0, -3.0], 0)],
     {"probability": None, "labels": (), "noted": "different numbers of choices"}),
    ("s.jsonl", [row for doc in range(3) for row in (generated(doc, ["4"], 1.0),
                                                     generated(doc, ["5"], 0.0, name="flexible-extract"))],
     {"right": [1, 1, 1], "samples": [1, 1, 1], "noted": "flexible-extract"}),
    ("s.jsonl", [generated(0, ["4", "5", "4", "3"], 0.5), generated(1, ["1", "1", "1", "1"], 0.0)],
     {"right": [2, 0], "samples": [4, 4], "answers": [[0, 1, 0, 2], [0, 0, 0, 0]]}),
    ("s.jsonl", [generated(0, ["4", "5", "4"], 1.0, "maj@3", filtered_resps=["4"])], {"silent": "not graded",
     "noted": "that of a majority over an item's answers, not of single ones (filter maj@3)"}),
    ("s.jsonl", [generated(0, ["4", "5"], 1.0, filtered_resps=["4"])],
     {"right": [1], "samples": [1], "noted": "Up to 1 more answer to an item was sampled and not graded"}),
    # The flattened shape: one answer without the lists around it; repeats each in a row of its own.
    ("s.jsonl", [{"doc_id": doc, "filtered_resps": "4", "resps": ["4"], "filter": "none", "exact_match": "1.0",
                  "sample": at} for doc in range(2) for at in range(3)], {"right": [3, 3], "samples": [3, 3]}),
    ("samples_x.jsonl", [{"doc_id": at, "doc_hash": f"h{at}", "resps": [["x"] * 5], "filtered_resps": ["x"] * 5,
                          "metrics": ["pass@4"], "pass@4": 1.0} for at in range(3)],
     {"right": [1, 1, 1], "samples": [1, 1, 1],
      "noted": "The score is pass@4 of each item's answers, not of single ones."}),
]  # fmt: skip

INSPECT: list[Case] = [
    ("x.eval", [sample("b", 2, "I"), sample("b", 1, "C"), sample("a", 1, "N"), sample("a", 2, "C")],
     {"items": ("a", "b"), "systems": ["maker/model"], "right": [1, 1], "samples": [2, 2],
      "answers": [[0, 1], [0, 1]]}),
    *(("x.eval", [sample(1, 1, value)], {"right": None, "score": [score]})
      for value, score in (("P", 0.5), ({"f1": 0.75}, 0.75), ("3.5", 3.5))),
    *(("x.eval", [sample(1, 1, value)], {"right": [right]}) for value, right in (("yes", 1), (False, 0))),
    ("x.eval", [sample(1, 1, "C"), sample(2, 1, "C", scores=None)],
     {"items": ("1",), "noted": "1 sample without a score is left out"}),
    ("x.json", {**HEADER, "status": "cancelled", "samples": [sample(1, 1, "C")]}, {"noted": "status: cancelled"}),
]  # fmt: skip

VOTES: list[Case] = [
    ("x.jsonl", [{"id": 1, "q0_gold": ["neutral", "neutral", "entailment"]}, {"id": "2_c", "q0_gold": ["neutral"]}],
     {"voted": NLI, "votes": [[1, 2, 0], [0, 1, 0]], "ordinal": False}),
    # A pair that two panels were asked is two items.
    ("x.jsonl", [{"id": 1, "q0_gold": ["neutral"]}, {"id": 1, "q0_gold": ["entailment"]}],
     {"items": ("1", "1 (2)"), "noted": "second time"}),
    ("x.csv", "example_id,n,c_1,c_0,c_-1\r\n7.0,3,2,1,0\r\n8.0,1,0,0,1\r\n",
     {"items": ("7", "8"), "voted": ("-1", "0", "1"), "ordinal": True, "votes": [[0, 1, 2], [1, 0, 0]]}),
]  # fmt: skip


def held(found: AnswerFile) -> dict[str, Any]:
    """What was read, by name; of several systems, the arrays of the first one."""
    one, votes = (found.systems or (Answers(name=""),))[0], found.votes
    own = {name: getattr(one, name) for name in ("right", "samples", "answers", "probability", "score")}
    known = {name: getattr(found, name) for name in ("items", "says", "notes", "labels", "groups")}
    people = {} if votes is None else {"voted": votes.labels, "votes": votes.votes, "ordinal": votes.ordinal}
    return own | known | people | {"systems": [system.name for system in found.systems]}


def test_what_a_file_holds(tmp_path: Path) -> None:
    for name, content, expected in (*OWN, *LM_EVAL, *INSPECT, *VOTES):
        found = held(loaded(tmp_path / name, content))
        notes = " ".join(found["notes"])
        assert expected.get("noted", "") in notes and expected.get("silent", "none") not in notes, (content, notes)
        for key in expected.keys() - {"noted", "silent"}:
            value = expected[key]
            if isinstance(found[key], np.ndarray):
                np.testing.assert_allclose(found[key], value, atol=1e-6, err_msg=f"{key} of {content}")
            else:
                assert found[key] == value, (content, key)


def test_json_and_archive_say_the_same(tmp_path: Path) -> None:
    samples = [sample(at, 1, "CI"[at % 2]) for at in range(5)]
    one, two = loaded(tmp_path / "x.eval", samples), loaded(tmp_path / "x.json", {**HEADER, "samples": samples})
    assert (one.items, one.systems[0].digest) == (two.items, two.systems[0].digest)
    again = read(by_zstandard(tmp_path / "x.eval"))
    assert (again.items, again.systems[0].digest) == (two.items, two.systems[0].digest)


def test_real_logs() -> None:
    folder = published("inspect-logs")
    (scored,), (unscored,), (document,) = map(folder.glob, ("*15-18-04*.eval", "*15-17-00*.eval", "*.json"))
    assert held(read(scored))["right"].sum() == 8
    assert held(read(document))["right"].tolist() == [1, 1, 0]
    assert read(folder / "mmlu-summary-choices.eval").systems[0].name == "openai/gpt-4o"
    with pytest.raises(DataError, match="No sample of the log is scored"):
        read(unscored)


# ---- votes ---------------------------------------------------------------------------------------------------------


def test_numbers_with_equal_steps_are_in_an_order() -> None:
    for labels, expected in (
        (["1", "-1", "-3", "0"], (SCALE, True)), (["0", "1"], (("0", "1"), False)), (["b", "a"], (("a", "b"), False)),
        (["1", "900", "3"], (("1", "3", "900"), False)), (["0.5", "1", "2"], (("0.5", "1", "2"), False)),
        (["inf", "nan", "1"], (("1", "inf", "nan"), False)),
    ):  # fmt: skip
        assert in_order(labels) == expected


def votes(recording: AnswerFile) -> Votes:
    assert recording.votes is not None
    return recording.votes


def test_the_crowd_of_ambient() -> None:
    found = votes(read(published("ambient/crowdworker_annotations.jsonl")))
    sizes = found.votes.max(1)
    assert found.votes.shape == (542, 3) and set(found.votes.sum(1).tolist()) == {9}
    assert [int((sizes == size).sum()) for size in range(9, 2, -1)] == [116, 120, 105, 98, 89, 12, 2]
    assert found.ballots is None


def test_convabuse_names_eight_people() -> None:
    sizes = {name: len(read(published(f"convabuse/{name}.csv")).items) for name in ("train", "test", "valid")}
    assert sizes == {"train": 2501, "test": 853, "valid": 831}
    train = votes(read(published("convabuse/train.csv")))
    assert train.labels == SCALE and train.ordinal and len(set(train.votes.sum(1).tolist())) > 3
    recording = read(published("convabuse/test.csv"))
    test, (note,) = votes(recording), imported([recording]).notes
    assert note.startswith("2 of 853 items have one vote")
    assert test.ballots is not None and len(set(test.ballots[:, 1].tolist())) == 8
    assert len(test.ballots) == test.votes.sum()
    again = np.zeros_like(test.votes)
    np.add.at(again, (test.ballots[:, 0], test.ballots[:, 2]), 1)
    assert np.array_equal(again, test.votes)


def said(recording: AnswerFile) -> list[tuple[str, int, str]]:
    """Item, number of the rater, and label of each vote."""
    known = votes(recording)
    assert known.ballots is not None
    return [(recording.items[i], int(rater), known.labels[label]) for i, rater, label in known.ballots]


def test_who_voted(tmp_path: Path) -> None:
    rows = [{"id": "x", "raters": {"ann": "yes", "bob": "no"}}, {"id": "y", "raters": {"bob": "yes", "cy": "yes"}}]
    made = loaded(tmp_path / "v.jsonl", rows)
    assert said(made) == [("x", 0, "yes"), ("x", 1, "no"), ("y", 1, "yes"), ("y", 2, "yes")]
    assert votes(made).votes.sum(1).tolist() == [2, 2]
    assert said(made.part(("y",))) == said(made)[2:]
    # Raters who are known of some items alone are nothing to go by.
    some = loaded(tmp_path / "w.csv", "id,a1,a2,c_0,c_1\nx,0,1,1,1\ny,,,0,1\n")
    assert votes(some).ballots is None
    table = loaded(tmp_path / "v.csv", "id,a1,a2,c_0,c_1\nx,0,1,1,1\ny,1,,0,1\n")
    assert said(table) == [("x", 0, "0"), ("x", 1, "1"), ("y", 0, "1")]
