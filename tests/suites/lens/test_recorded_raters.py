"""Who voted: names in tables, documents and rows; one vote for each person; what does not fit."""

import json
from pathlib import Path

import numpy as np
from logs import lines

from tests.published import published
from wheeltap.suites.lens.recorded import AnswerFile, Votes, read
from wheeltap.suites.lens.runs import imported


def votes(recording: AnswerFile) -> Votes:
    assert recording.votes is not None
    return recording.votes


def said(recording: AnswerFile) -> list[tuple[str, str, str]]:
    """Item, rater and label of each vote."""
    held = votes(recording)
    assert held.ballots is not None
    return [(recording.items[i], held.raters[r], held.labels[label]) for i, r, label in held.ballots]


def test_rows_with_the_people_by_name(tmp_path: Path) -> None:
    rows = [{"id": "x", "raters": {"ann": "yes", "bob": "no"}}, {"id": "y", "raters": {"bob": "yes", "cy": "yes"}}]
    made = read(lines(tmp_path / "v.jsonl", rows))
    assert said(made) == [("x", "ann", "yes"), ("x", "bob", "no"), ("y", "bob", "yes"), ("y", "cy", "yes")]
    assert votes(made).votes.sum(1).tolist() == [2, 2]
    part = made.part(("y",))
    assert said(part) == [("y", "bob", "yes"), ("y", "cy", "yes")]
    plan = imported([made]).plan
    assert plan.names is not None and plan.names.raters == ("ann", "bob", "cy")


def test_several_choices_of_one_person_are_one_vote(tmp_path: Path) -> None:
    people = {"ann": "entailment, neutral", "bob": "neutral", "cy": "neutral"}
    document = {str(at): {"annotations": people} for at in range(40)}
    (tmp_path / "v.json").write_text(json.dumps(document))
    made = read(tmp_path / "v.json")
    assert votes(made).votes.sum(1).tolist() == [3] * 40
    of_ann = [label for _, who, label in said(made) if who == "ann"]
    assert len(of_ann) == 40 and 8 < of_ann.count("neutral") < 32  # one of the two, at random
    assert any("40 times a person chose several labels" in note for note in made.notes)
    assert np.array_equal(votes(read(tmp_path / "v.json")).votes, votes(made).votes)


def test_documents_with_the_people_in_a_field_of_their_own(tmp_path: Path) -> None:
    rows = {"1": {"annotations": "1,0,1", "annotators": "A1,A2,A3"}, "2": {"annotations": "0,0", "annotators": "A2,A4"}}
    (tmp_path / "v.json").write_text(json.dumps(rows))
    assert said(read(tmp_path / "v.json"))[2:] == [("1", "A3", "1"), ("2", "A2", "0"), ("2", "A4", "0")]


def test_labels_that_soft_labels_lack_are_read_whatever_is_drawn_of_the_first_item(tmp_path: Path) -> None:
    soft = {"a": 1.0, "b": 0.0, "c": 0.0}
    for first in "01234567":
        rows = {first: {"annotations": {"ann": "a, x", "bob": "a"}, "soft_label": soft}, "y": {"annotations": "x,a"}}
        (tmp_path / "v.json").write_text(json.dumps(rows))
        assert "x" in votes(read(tmp_path / "v.json")).labels


def test_people_who_are_known_of_some_items_alone_are_nothing_to_go_by(tmp_path: Path) -> None:
    rows = {"1": {"annotations": "1,0,1", "annotators": "A1,A2,A3"}, "2": {"annotations": "0,0"}}
    (tmp_path / "v.json").write_text(json.dumps(rows))
    assert votes(read(tmp_path / "v.json")).ballots is None


def test_a_table_with_the_people(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("id,a1,a2,c_0,c_1\nx,0,1,1,1\ny,1,,0,1\n")
    assert said(read(path)) == [("x", "a1", "0"), ("x", "a2", "1"), ("y", "a1", "1")]


def test_convabuse_names_eight_people() -> None:
    made = read(published("convabuse/test.csv"))
    held = votes(made)
    assert held.ballots is not None and len(held.raters) == 8 and len(held.ballots) == held.votes.sum()
    again = np.zeros_like(held.votes)
    np.add.at(again, (held.ballots[:, 0], held.ballots[:, 2]), 1)
    assert np.array_equal(again, held.votes)


def test_ambient_does_not_say_who_voted() -> None:
    assert votes(read(published("ambient/crowdworker_annotations.jsonl"))).ballots is None
