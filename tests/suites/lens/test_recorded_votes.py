"""Files of votes: how many people chose each label, in every shape."""

import json
from pathlib import Path
from typing import Any

import pytest
from logs import lines

from tests.published import published
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.suites.lens.recorded import Votes, read
from wheeltap.suites.lens.recorded.gathered import in_order
from wheeltap.suites.lens.recorded.votes import ballots

NLI = ("entailment", "neutral", "contradiction")


def votes(path: Path) -> Votes:
    """Of the file."""
    found = read(path).votes
    assert found is not None
    return found


def document(path: Path, rows: dict[str, Any]) -> Path:
    """One JSON document."""
    path.write_text(json.dumps(rows, indent=2))
    return path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b", "a"], [["a"], ["b"], ["a"]]),
        ("a,b, a", [["a"], ["b"], ["a"]]),
        ("['a', 'b', None]", [["a"], ["b"], []]),
        ("[1, -1.0, 0]", [["1"], ["-1"], ["0"]]),
        ({"Ann1": "a", "Ann2": "a,b"}, [["a"], ["a", "b"]]),
        ([1, True, 2.0], [["1"], ["True"], ["2"]]),
    ],
)
def test_ballots(value: object, expected: list[list[str]]) -> None:
    assert ballots(value, where="here") == expected


@pytest.mark.parametrize("value", [3, "[open('x')]", "[" * 200, ["a", {"b": 1}], "x" * 100_001])
def test_what_is_no_ballot_is_refused(value: object) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        ballots(value, where="here")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "-1", "-3", "0"], (("-3", "-2", "-1", "0", "1"), True)),
        (["0", "1"], (("0", "1"), False)),
        (["b", "a"], (("a", "b"), False)),
        (["1", "900", "3"], (("1", "3", "900"), False)),
        (["0.5", "1", "2"], (("0.5", "1", "2"), False)),
    ],
)
def test_numbers_with_equal_steps_are_in_an_order(labels: list[str], expected: tuple[tuple[str, ...], bool]) -> None:
    assert in_order(labels) == expected


class TestInference:
    """AmbiEnt's crowd and ChaosNLI."""

    def test_lists_of_labels(self, tmp_path: Path) -> None:
        rows = [{"id": 1, "q0_gold": ["neutral", "neutral", "entailment"]}, {"id": "2_c", "q0_gold": "['neutral']"}]
        found = votes(lines(tmp_path / "x.jsonl", rows))
        assert found.labels == NLI and found.votes.tolist() == [[1, 2, 0], [0, 1, 0]] and not found.ordinal

    @pytest.mark.parametrize(
        "row",
        [
            {"label_counter": {"n": 60, "e": 38, "c": 2}, "label_dist": [0.38, 0.6, 0.02]},
            {"label_count": [38, 60, 2]},
            {"label_dist": [0.38, 0.6, 0.02]},
        ],
    )
    def test_a_hundred_votes(self, tmp_path: Path, row: dict[str, Any]) -> None:
        found = read(lines(tmp_path / "x.jsonl", [{"uid": "a", **row}]))
        assert found.votes is not None and found.votes.labels == NLI and found.votes.votes.tolist() == [[38, 60, 2]]
        assert bool(found.notes) == (set(row) == {"label_dist"})

    def test_two_choices(self, tmp_path: Path) -> None:
        found = votes(lines(tmp_path / "x.jsonl", [{"uid": "a", "label_counter": {"1": 90, "2": 10}}]))
        assert found.labels == ("1", "2") and found.votes.tolist() == [[90, 10]]

    def test_a_pair_asked_of_two_panels_is_two_items_and_one_that_is_there_twice_is_refused(
        self, tmp_path: Path
    ) -> None:
        rows = [{"id": 1, "q0_gold": ["neutral"]}, {"id": 1, "q0_gold": ["entailment"]}]
        found = read(lines(tmp_path / "x.jsonl", rows))
        assert found.items == ("1", "1 (2)") and "second time" in found.notes[0]
        with pytest.raises(DataError, match="twice"):
            read(lines(tmp_path / "x.jsonl", [rows[0], rows[0]]))

    def test_the_crowd_of_ambient(self) -> None:
        found = votes(published("ambient/crowdworker_annotations.jsonl"))
        sizes = found.votes.max(1)
        assert found.votes.shape == (542, 3) and set(found.votes.sum(1).tolist()) == {9}
        assert [int((sizes == size).sum()) for size in range(9, 2, -1)] == [116, 120, 105, 98, 89, 12, 2]


class TestLewidi:
    """Documents in the form of LeWiDi."""

    def test_annotations_as_text_with_a_binary_soft_label(self, tmp_path: Path) -> None:
        rows = {
            "1": {"annotations": "0,-1,-3", "soft_label": {"0": 0.33, "1": 0.67}},
            "2": {"annotations": "1,1", "soft_label": {"0": 1.0, "1": 0.0}},
        }
        found = votes(document(tmp_path / "x.json", rows))
        assert found.labels == ("-3", "-2", "-1", "0", "1") and found.ordinal
        assert found.votes.tolist() == [[1, 0, 1, 1, 0], [0, 0, 0, 0, 2]]

    def test_annotations_by_person(self, tmp_path: Path) -> None:
        soft = {str(label): 0.0 for label in range(1, 7)}
        rows = {"1": {"annotations": {"Ann1": "3", "Ann2": "5"}, "soft_label": soft}}
        found = votes(document(tmp_path / "x.json", rows))
        assert found.labels == tuple("123456") and found.ordinal and found.votes.tolist() == [[0, 0, 1, 0, 1, 0]]

    def test_soft_labels_and_how_many_voted(self, tmp_path: Path) -> None:
        rows = {"a": {"soft_label": {"0": 0.667, "1": 0.333}, "number of annotations": 3}}
        assert votes(document(tmp_path / "x.json", rows)).votes.tolist() == [[2, 1]]


class TestTable:
    """Tables with a column for each label."""

    def test_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("example_id,n,c_1,c_0,c_-1\r\n7.0,3,2,1,0\r\n8.0,1,0,0,1\r\n")
        found = read(path)
        assert found.items == ("7", "8") and found.votes is not None and found.votes.ordinal
        assert found.votes.labels == ("-1", "0", "1") and found.votes.votes.tolist() == [[0, 1, 2], [1, 0, 0]]

    def test_convabuse(self) -> None:
        sizes = {name: len(read(published(f"convabuse/{name}.csv")).items) for name in ("train", "test", "valid")}
        assert sizes == {"train": 2501, "test": 853, "valid": 831}
        found = votes(published("convabuse/train.csv"))
        assert found.labels == ("-3", "-2", "-1", "0", "1") and found.ordinal
        assert len(set(found.votes.sum(1).tolist())) > 3


def test_ordinal_votes_in_our_own_rows(tmp_path: Path) -> None:
    rows = [{"id": "a", "votes": {"5": 1, "1": 2}}, {"id": "b", "votes": {"2": 1}}]
    found = votes(lines(tmp_path / "x.jsonl", rows))
    assert found.labels == tuple("12345") and found.ordinal
    assert found.votes.tolist() == [[2, 0, 0, 0, 1], [0, 1, 0, 0, 0]]


class TestRefused:
    """Tables that cannot be counts of votes: the file and the line are named."""

    def test_labels_that_are_no_numbers_have_no_order(self) -> None:
        assert in_order(["inf", "nan", "1"]) == (("1", "inf", "nan"), False)
