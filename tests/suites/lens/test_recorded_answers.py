"""Files of recorded answers in every shape: who answered what, and how often that was right."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import HEADER, archive, choice, generated, lines, sample

from tests.published import published
from wheeltap.core.errors import DataError
from wheeltap.suites.lens.recorded import AnswerFile, read
from wheeltap.suites.lens.recorded.gathered import AnswerRow, AnswerTable
from wheeltap.suites.lens.runs import imported


def only(recording: AnswerFile) -> tuple[list[int], list[int]]:
    """Right answers and answers of the one system, item by item."""
    (one,) = recording.systems
    assert one.right is not None and one.samples is not None
    return one.right.tolist(), one.samples.tolist()


class TestOwnRows:
    """Our own rows."""

    def test_one_answer_an_item(self, tmp_path: Path) -> None:
        found = read(lines(tmp_path / "m.jsonl", [{"id": "a", "correct": True}, {"id": 7, "correct": 0}]))
        assert found.items == ("a", "7") and found.systems[0].name == "m"
        assert only(found) == ([1, 0], [1, 1])
        assert found.says == "rows of answers: 1 system, 2 items, 1 answer each"

    def test_repeats_of_an_item_go_together_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        rows = [
            {"id": "a", "sample": 2, "correct": True, "answer": "4"},
            {"id": "b", "sample": 0, "correct": False, "answer": None},
            {"id": "a", "sample": 0, "correct": False, "answer": "5"},
            {"id": "a", "sample": 1, "correct": True, "answer": "4"},
        ]
        found = read(lines(tmp_path / "m.jsonl", rows))
        assert only(found) == ([2, 0], [3, 1])
        answers = found.systems[0].answers
        assert answers is not None and answers.tolist() == [[0, 1, 1], [-1, -1, -1]]

    def test_a_line_may_have_those_labels_alone_that_somebody_chose(self, tmp_path: Path) -> None:
        rows = [{"id": 0, "votes": {"yes": 3}}, {"id": 1, "votes": {"no": 1, "maybe": 2}},
                {"id": 2, "votes": {"yes": 1, "maybe": 2}}, {"id": 3, "votes": {"other": 3}}]  # fmt: skip
        found = read(lines(tmp_path / "v.jsonl", rows))
        assert found.says.startswith("rows of votes: 4 items")
        scale = [{"id": 0, "votes": {"1": 2, "2": 1}}, {"id": 1, "votes": {"4": 2, "5": 1}}]
        assert read(lines(tmp_path / "s.jsonl", scale)).votes is not None

    def test_an_answer_that_was_not_graded_is_left_out_and_counted(self, tmp_path: Path) -> None:
        rows = [{"id": at, "correct": (True, None, False, None)[at], "answer": "4"} for at in range(4)]
        found = read(lines(tmp_path / "m.jsonl", rows))
        assert found.items == ("0", "2") and only(found) == ([1, 0], [1, 1])
        # Were they wrong or right, the score would be another one: no score without that bound.
        bound = "m: 50.0 % without them, 25.0 % of all answers if they are wrong, 75.0 % if they are right."
        assert found.notes == ("2 answers without a grade (null) left out.", bound)

    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    def test_a_table_of_answers_is_read_as_its_rows_are(self, tmp_path: Path, mark: str) -> None:
        rows = [
            ("a", "x", 0, "true", "4"),
            ("a", "x", 1, "False", "05"),
            ("b", "x", 0, "1", ""),
            ("b", "x", 1, "", "5"),
        ]
        path = tmp_path / "t.csv"
        head = ("id", "system", "sample", "correct", "answer")
        path.write_text("\n".join(mark.join(map(str, row)) for row in (head, *rows)))
        grades = {"true": True, "False": False, "1": 1, "": None}
        same = [{"id": item, "system": name, "sample": at, "correct": grades[grade], "answer": said or None}
                for item, name, at, grade, said in rows]  # fmt: skip
        table, lined = read(path), read(lines(tmp_path / "t.jsonl", same))
        as_texts = [{**row, "correct": grade} for row, (_, _, _, grade, _) in zip(same, rows, strict=True)]
        assert read(lines(tmp_path / "s.jsonl", as_texts)).systems[0].right.tolist() == [1, 1]  # pyright: ignore[reportOptionalMemberAccess]
        assert only(table) == only(lined) == ([1, 1], [2, 1]) and table.systems[0].name == "x"
        assert table.notes == lined.notes and table.systems[0].digest == lined.systems[0].digest

    def test_who_answered_more_items_has_a_score_on_all_of_them(self, tmp_path: Path) -> None:
        rows = [{"id": at, "system": name, "correct": None if name == "y" and at == 3 else at != 3}
                for at in range(4) for name in "xy"]  # fmt: skip
        told = "x: score 0.750 on all 4 items that it answered, 1.000 on these."
        assert read(lines(tmp_path / "m.jsonl", rows)).notes[-1] == told
        for name in "xy":
            lines(
                tmp_path / f"{name}.jsonl",
                [row for row in rows if row["system"] == name and row["correct"] is not None],
            )
        apart = imported([read(tmp_path / "x.jsonl"), read(tmp_path / "y.jsonl")])
        assert apart.notes == ("3 items are in all files, of 4, 3; only these are judged.", told)

    def test_a_table_with_one_answer_each_needs_no_numbers(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("id,correct\n1,0.5\n2,1\n")
        [one] = read(path).systems
        assert one.mean is not None and one.mean.tolist() == [0.5, 1.0]

    def test_of_several_answers_only_those_without_a_grade_are_left_out(self, tmp_path: Path) -> None:
        rows = [
            {"id": at, "sample": draw, "correct": None if draw == at else True} for at in (0, 1) for draw in (0, 1, 2)
        ]
        assert only(read(lines(tmp_path / "m.jsonl", rows))) == ([2, 2], [2, 2])

    def test_several_systems_keep_the_items_that_all_answered(self, tmp_path: Path) -> None:
        rows = [
            {"id": "a", "system": "one", "correct": True},
            {"id": "b", "system": "one", "correct": True},
            {"id": "b", "system": "two", "correct": False},
        ]
        found = read(lines(tmp_path / "m.jsonl", rows))
        assert found.items == ("b",) and [one.name for one in found.systems] == ["one", "two"]
        assert "1 of 2 items has" in found.notes[0]

    def test_probabilities_and_votes(self, tmp_path: Path) -> None:
        rows = [
            {"id": "a", "probabilities": {"no": 0.25, "yes": 0.75}, "votes": {"yes": 3}},
            {"id": "b", "probabilities": {"yes": 0.5, "no": 0.5}, "votes": {"yes": 1, "no": 2}},
        ]
        found = read(lines(tmp_path / "m.jsonl", rows))
        assert found.labels == ("no", "yes") and found.votes is not None and found.votes.labels == ("no", "yes")
        assert found.votes.votes.tolist() == [[0, 3], [2, 1]]
        p = found.systems[0].probability
        assert p is not None and p.tolist() == [[0.25, 0.75], [0.5, 0.5]]

    def test_a_score_that_is_neither_right_nor_wrong_is_kept_as_a_mean(self, tmp_path: Path) -> None:
        rows = [{"id": "a", "sample": at, "correct": score} for at, score in enumerate((0.5, 1.0))]
        (one,) = read(lines(tmp_path / "m.jsonl", rows)).systems
        assert one.right is None and one.score is not None and one.score.tolist() == [0.75]

    def test_groups(self, tmp_path: Path) -> None:
        rows = [{"id": "a", "correct": True, "group": "old"}, {"id": "b", "correct": True, "group": "new"}]
        assert read(lines(tmp_path / "m.jsonl", rows)).groups == ("old", "new")
        for wrong in ({"id": "a", "group": "new"}, {"id": "c", "group": ""}):
            with pytest.raises(DataError, match="group is not clear"):
                read(lines(tmp_path / "m.jsonl", [*rows, {"correct": True, **wrong}]))


@given(st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.sampled_from("xyz"))), min_size=1, max_size=30))
def test_answers_are_numbered_as_they_first_came(rows: list[tuple[int, str | None]]) -> None:
    gathered = AnswerTable("test", "nowhere")
    expected: dict[str, list[int]] = {}
    texts: dict[str, list[str]] = {}
    for line, (item, answer) in enumerate(rows):
        name = str(item)
        seen, own = texts.setdefault(name, []), expected.setdefault(name, [])
        gathered.add("m", AnswerRow(name, line, 1.0, answer, len(own)))
        if answer is not None and answer not in seen:
            seen.append(answer)
        own.append(-1 if answer is None else seen.index(answer))
    found = gathered.recording().systems[0].answers
    most = max(map(len, expected.values()))
    if most == 1 or not any(texts.values()):
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == [own + [-1] * (most - len(own)) for own in expected.values()]


class TestLmEval:
    """Samples of lm-eval."""

    def test_choices_become_probabilities(self, tmp_path: Path) -> None:
        rows = [choice(0, [-1.0, -2.0, -4.0], 0), choice(1, [-3.0, -1.0, -1.5], 0)]
        found = read(lines(tmp_path / "samples_x.jsonl", rows))
        assert only(found) == ([1, 0], [1, 1])
        p = found.systems[0].probability
        x = np.exp([[-1.0, -2.0, -4.0], [-3.0, -1.0, -1.5]])
        assert p is not None and np.allclose(p, x / x.sum(1, keepdims=True), atol=1e-6)
        assert found.labels == ("0", "1", "2")
        assert "Right is acc; also there: acc_norm." in found.notes

    def test_numbers_may_be_numbers_and_arguments_lists(self, tmp_path: Path) -> None:
        rows = [choice(0, [-1.0, -2.0], 0, filtered_resps=[[-1.0, True], [-2.0, False]], arguments=[["?", " a"]])]
        p = read(lines(tmp_path / "s.jsonl", rows)).systems[0].probability
        assert p is not None and p[0, 0] == pytest.approx(1 / (1 + np.exp(-1.0)))

    def test_different_numbers_of_choices_have_no_labels(self, tmp_path: Path) -> None:
        found = read(lines(tmp_path / "s.jsonl", [choice(0, [-1.0, -2.0], 0), choice(1, [-1.0, -2.0, -3.0], 0)]))
        assert found.systems[0].probability is None and found.labels == ()
        assert "different numbers of choices" in found.notes[-1]

    def test_votes_ride_along_in_documents(self, tmp_path: Path) -> None:
        rows = [choice(at, [-1.0, -2.0], 0, doc={"label_count": [3, at]}) for at in range(2)]
        found = read(lines(tmp_path / "s.jsonl", rows))
        assert found.votes is not None and found.votes.votes.tolist() == [[3, 0], [3, 1]]
        assert found.votes.labels == found.labels

    def test_the_filter_that_comes_first_is_taken_and_said(self, tmp_path: Path) -> None:
        rows = [
            row
            for doc in range(3)
            for row in (generated(doc, ["4"], 1.0), generated(doc, ["5"], 0.0, name="flexible-extract"))
        ]
        found = read(lines(tmp_path / "s.jsonl", rows))
        assert only(found) == ([1, 1, 1], [1, 1, 1])
        assert "those of the filter strict-match; also there: flexible-extract" in " ".join(found.notes)

    def test_repeats_share_their_mean(self, tmp_path: Path) -> None:
        rows = [generated(0, ["4", "5", "4", "3"], 0.5), generated(1, ["1", "1", "1", "1"], 0.0)]
        found = read(lines(tmp_path / "s.jsonl", rows))
        assert only(found) == ([2, 0], [4, 4])
        answers = found.systems[0].answers
        assert answers is not None and answers.tolist() == [[0, 1, 0, 2], [0, 0, 0, 0]]

    def test_the_score_of_a_majority_is_said_to_be_one(self, tmp_path: Path) -> None:
        rows = [generated(0, ["4", "5", "4"], 1.0, "maj@3", filtered_resps=["4"])]
        notes = " ".join(read(lines(tmp_path / "s.jsonl", rows)).notes)
        assert "that of a majority over an item's answers, not of single ones (filter maj@3)" in notes
        assert "not graded" not in notes

    def test_repeats_of_which_only_the_first_was_graded(self, tmp_path: Path) -> None:
        found = read(lines(tmp_path / "s.jsonl", [generated(0, ["4", "5"], 1.0, filtered_resps=["4"])]))
        assert only(found) == ([1], [1])
        assert "Up to 1 more answer to an item was sampled and not graded" in " ".join(found.notes)

    def test_the_flattened_shape(self, tmp_path: Path) -> None:
        """One answer without the lists around it; repeats each in a row of its own."""
        rows = [
            {"doc_id": doc, "filtered_resps": "4", "resps": ["4"], "filter": "none", "exact_match": "1.0", "sample": at}
            for doc in range(2)
            for at in range(3)
        ]
        assert only(read(lines(tmp_path / "s.jsonl", rows))) == ([3, 3], [3, 3])


class TestInspect:
    """Logs of inspect."""

    def test_epochs_are_repeats(self, tmp_path: Path) -> None:
        samples = [sample("b", 2, "I"), sample("b", 1, "C"), sample("a", 1, "N"), sample("a", 2, "C")]
        found = read(archive(tmp_path / "x.eval", samples))
        assert found.items == ("a", "b") and found.systems[0].name == "maker/model"
        assert only(found) == ([1, 1], [2, 2])
        answers = found.systems[0].answers
        assert answers is not None and answers.tolist() == [[0, 1], [0, 1]]

    @pytest.mark.parametrize(
        ("value", "score"), [("P", 0.5), (0.25, 0.25), ({"f1": 0.75}, 0.75), ("3.5", 3.5)]
    )  # fmt: skip
    def test_partial_grades_are_scores(self, tmp_path: Path, value: object, score: float) -> None:
        (one,) = read(archive(tmp_path / "x.eval", [sample(1, 1, value)])).systems
        assert one.right is None and one.score is not None and one.score.tolist() == [score]

    @pytest.mark.parametrize(("value", "right"), [(True, 1), ("yes", 1), ("C", 1), (1, 1), ("I", 0), (False, 0)])
    def test_whole_grades_are_right_or_wrong(self, tmp_path: Path, value: object, right: int) -> None:
        assert only(read(archive(tmp_path / "x.eval", [sample(1, 1, value)]))) == ([right], [1])

    def test_json_and_archive_say_the_same(self, tmp_path: Path) -> None:
        samples = [sample(at, 1, "CI"[at % 2]) for at in range(5)]
        path = tmp_path / "x.json"
        path.write_text(json.dumps({**HEADER, "samples": samples}, indent=2))
        one, two = read(archive(tmp_path / "x.eval", samples)), read(path)
        assert (one.items, one.systems[0].digest) == (two.items, two.systems[0].digest)

    def test_what_was_not_scored_is_left_out_and_said(self, tmp_path: Path) -> None:
        found = read(archive(tmp_path / "x.eval", [sample(1, 1, "C"), sample(2, 1, "C", scores=None)]))
        assert found.items == ("1",) and "1 sample without a score is left out" in found.notes[-1]

    def test_a_run_that_did_not_end_is_said(self, tmp_path: Path) -> None:
        found = read(archive(tmp_path / "x.eval", [sample(1, 1, "C")], header={**HEADER, "status": "cancelled"}))
        assert "status: cancelled" in " ".join(found.notes)

    def test_real_logs(self) -> None:
        folder = published("inspect-logs")
        (scored,) = folder.glob("*15-18-04*.eval")
        (unscored,) = folder.glob("*15-17-00*.eval")
        (document,) = folder.glob("*.json")
        assert sum(only(read(scored))[0]) == 8
        assert only(read(document)) == ([1, 1, 0], [1, 1, 1])
        assert read(folder / "mmlu-summary-choices.eval").systems[0].name == "openai/gpt-4o"
        with pytest.raises(DataError, match="No sample of the log is scored"):
            read(unscored)


class TestSolutions:
    """Graded solutions of several systems in each row."""

    def test_four_released_solutions(self) -> None:
        found = read(published("gsm8k/example_model_solutions.jsonl"))
        right = {one.name: int(one.right.sum()) for one in found.systems if one.right is not None}
        assert right == {"6b_finetuning": 286, "6b_verification": 515, "175b_finetuning": 458, "175b_verification": 742}
        assert found.says.endswith("4 systems, 1,319 items, 1 answer each")


class TestWithinTries:
    """Logs of lm-eval that are graded by what k answers reach."""

    def rows(self, answers: int) -> list[dict[str, object]]:
        graded = {"metrics": ["pass@4"], "pass@4": 1.0}
        given = {"resps": [["x"] * answers], "filtered_resps": ["x"] * answers}
        return [{"doc_id": at, "doc_hash": f"h{at}", **given, **graded} for at in range(3)]

    def test_of_enough_it_is_the_score_and_not_that_of_single_answers(self, tmp_path: Path) -> None:
        found = read(lines(tmp_path / "samples_x.jsonl", self.rows(5)))
        assert only(found) == ([1, 1, 1], [1, 1, 1])
        assert "The score is pass@4 of each item's answers, not of single ones." in found.notes
