"""Recorded answers as outcomes of a store: all of them or none, once, and judged without a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import choice, generated, lines
from numpy.typing import NDArray

from tests.published import published
from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate, Outcome
from wheeltap.plans.plan import AuditSpec, Names
from wheeltap.plans.readings.base import Array, ReadingSpec
from wheeltap.plans.store import Store
from wheeltap.runs.stored import judge, noted
from wheeltap.suites.lens.recorded import AnswerFile, Answers, Votes, read
from wheeltap.suites.lens.recorded.base import ReadingArrays
from wheeltap.suites.lens.runs import MOST_TRIES, RecordedRun, imported
from wheeltap.suites.lens.stats.passk import pass_at

SCORE = (AuditSpec(name="score"),)


def graded(path: Path, right: str, **more: Any) -> AnswerFile:
    """One answer to each item, right where there is a 1."""
    rows = [{"id": f"item {at}", "correct": one == "1", **more} for at, one in enumerate(right)]
    return read(lines(path, rows))


def outcome(held: RecordedRun, subject: int, reading: str) -> Outcome:
    """What was recorded of a subject."""
    trial = held.plan.reading(held.plan.subjects[subject], reading, {})
    (found,) = [one for one in held.outcomes if one.key == trial.key]
    return found


def arrays(held: RecordedRun, subject: int, reading: str) -> dict[str, NDArray[Any]]:
    """Its arrays."""
    return outcome(held, subject, reading).values


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    held = imported([graded(tmp_path / "a.jsonl", "1101")], audits=SCORE)
    store = tmp_path / "x.wheeltap"
    assert held.put(store) == len(held.outcomes) == 2
    again = imported([graded(tmp_path / "a.jsonl", "1101")], audits=SCORE)
    assert again.put(store) == 0 and again.plan.key == held.plan.key
    with Store(store, readonly=True) as kept:
        assert len(kept.keys()) == 2
        assert "1 system, 4 items" in str(noted(kept, held.plan.key)["recorded"])


def test_other_answers_are_other_outcomes(tmp_path: Path) -> None:
    store = tmp_path / "x.wheeltap"
    imported([graded(tmp_path / "a.jsonl", "1101")], audits=SCORE).put(store)
    assert imported([graded(tmp_path / "a.jsonl", "1111")], audits=SCORE).put(store) == 2


def test_it_is_judged_from_the_store_alone(tmp_path: Path) -> None:
    store = tmp_path / "x.wheeltap"
    two = [graded(tmp_path / f"{name}.jsonl", right * 20) for name, right in (("a", "1101"), ("b", "1000"))]
    imported(two, audits=SCORE).put(store)
    (gap,) = [one for one in judge(store).record.findings if one.subject == "a vs b"]
    assert gap.status == "found" and gap.estimates[0].value == pytest.approx(-0.5)
    assert gap.estimates[0].p == pytest.approx(2.0 * 0.5**40)


def test_items_that_all_files_have_are_judged_and_counted(tmp_path: Path) -> None:
    one, two = graded(tmp_path / "a.jsonl", "11011"), graded(tmp_path / "b.jsonl", "011")
    held = imported([one, two], audits=SCORE)
    assert held.plan.task.examples == 3
    more = "a: score 0.800 on all 5 items that it answered, 0.667 on these."
    assert held.notes == ("3 items are in all files, of 5, 3; only these are judged.", more)
    assert arrays(held, 0, "samples")["right"].tolist() == [1, 1, 0]


def test_the_order_of_items_is_that_of_the_first_file(tmp_path: Path) -> None:
    rows = [{"id": f"item {at}", "correct": at == 2} for at in (2, 0, 1)]
    held = imported([graded(tmp_path / "a.jsonl", "100"), read(lines(tmp_path / "b.jsonl", rows))], audits=SCORE)
    assert arrays(held, 1, "samples")["right"].tolist() == [0, 0, 1]


def test_files_of_different_items_are_refused(tmp_path: Path) -> None:
    one = graded(tmp_path / "a.jsonl", "11")
    two = read(lines(tmp_path / "b.jsonl", [{"id": "other", "correct": True}]))
    with pytest.raises(DataError, match="no item in common") as error:
        imported([one, two])
    assert error.value.got == "2, 1 items, 0 in common; the first are item 0, other"


def test_logs_of_two_tasks_with_the_same_numbers_have_nothing_in_common(tmp_path: Path) -> None:
    """Documents of lm-eval are numbered from 0 in every task: their digests tell them apart."""
    one = read(lines(tmp_path / "a.jsonl", [choice(at, [-1.0, -2.0], 0) for at in range(3)]))
    two = read(lines(tmp_path / "b.jsonl", [choice(at, [-1.0, -2.0], 0, doc_hash="f" * 64) for at in range(3)]))
    with pytest.raises(DataError, match="no item in common"):
        imported([one, two])


def test_two_systems_of_one_name_are_numbered(tmp_path: Path) -> None:
    two = [graded(tmp_path / "a.jsonl", "10", system="m"), graded(tmp_path / "b.jsonl", "11", system="m")]
    assert [one.name for one in imported(two, audits=SCORE).plan.subjects] == ["m (1)", "m (2)"]


def test_votes_in_a_file_of_their_own_order_the_labels(tmp_path: Path) -> None:
    answers = read(lines(tmp_path / "a.jsonl", [{"id": "a", "probabilities": {"yes": 0.75, "no": 0.25}}]))
    votes = read(lines(tmp_path / "v.jsonl", [{"id": "a", "votes": {"no": 3, "yes": 1}}]))
    held = imported([answers, votes], audits=())
    assert arrays(held, 0, "votes")["votes"].tolist() == [[3, 1]]
    assert arrays(held, 0, "label-probabilities")["probability"].tolist() == [[0.25, 0.75]]


def test_votes_on_other_labels_are_refused(tmp_path: Path) -> None:
    answers = read(lines(tmp_path / "a.jsonl", [{"id": "a", "probabilities": {"yes": 0.75, "maybe": 0.25}}]))
    votes = read(lines(tmp_path / "v.jsonl", [{"id": "a", "votes": {"no": 3, "yes": 1}}]))
    with pytest.raises(DataError, match="other labels than votes") as error:
        imported([answers, votes], audits=())
    assert (error.value.expected, error.value.got) == ("no, yes", "yes, maybe")


def test_files_of_different_metrics_are_refused_and_named(tmp_path: Path) -> None:
    """Two tasks may number their documents alike: what is right in one is not what is right in the other."""
    chosen = read(lines(tmp_path / "mc.jsonl", [choice(at, [-1.0, -2.0], 0) for at in range(3)]))
    written = [generated(at, ["4"], 1.0) for at in range(3)]
    with pytest.raises(DataError, match="different metrics") as error:
        imported([chosen, read(lines(tmp_path / "gen.jsonl", written))])
    assert error.value.got == "acc in mc, exact_match in gen"
    same = imported([chosen, read(lines(tmp_path / "other.jsonl", [choice(at, [-1.0, -2.0], 1) for at in range(3)]))])
    assert same.notes.count("Right is acc; also there: acc_norm.") >= 1 and "mc:" not in "".join(same.notes)


def test_notes_of_one_file_have_its_name(tmp_path: Path) -> None:
    whole = graded(tmp_path / "a.jsonl", "1101")
    rows = [{"id": f"item {at}", "correct": None if at == 3 else True} for at in range(4)]
    held = imported([whole, read(lines(tmp_path / "b.jsonl", rows))])
    assert "b: 1 answer without a grade (null) left out." in held.notes


def test_answers_that_nobody_graded_are_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to judge"):
        imported([read(lines(tmp_path / "a.jsonl", [{"id": "a", "answer": "4"}]))])


def test_votes_alone_are_of_people(tmp_path: Path) -> None:
    rows = [{"id": at, "votes": {"no": 3, "yes": 1}} for at in range(2)]
    held = imported([read(lines(tmp_path / "v.jsonl", rows))])
    assert [one.name for one in held.plan.subjects] == ["people"]
    assert [spec.name for spec in held.plan.audits] == ["disagreement"]


def test_names_are_kept_with_the_plan(tmp_path: Path) -> None:
    rows = [{"id": at, "correct": True, "group": group, "votes": {"b": 1, "a": 1}} for at, group in enumerate("yx")]
    names = imported([read(lines(tmp_path / "a.jsonl", rows))]).plan.names
    assert names == Names(items=("0", "1"), groups=("x", "y"), labels=("a", "b"))


@pytest.mark.parametrize("shape", ["own", "lm_eval"])
def test_items_that_look_alike_are_groups(tmp_path: Path, shape: str) -> None:
    """Six passages of five questions each, nowhere declared: named, and the sample of every interval."""
    rng = np.random.default_rng(0)

    def words(many: int) -> list[str]:
        return [f"w{at}" for at in rng.integers(500, size=many)]

    passages = [words(40) for _ in range(6)]
    texts = [" ".join([*passages[at // 5], *words(6)]) for at in range(30)]
    right = np.arange(30) // 5 % 2 == 0  # a whole passage, or none of it

    def row(at: int) -> dict[str, Any]:
        if shape == "own":
            return {"id": at, "prompt": texts[at], "correct": bool(right[at])}
        return {**generated(at, ["4"], float(right[at])), "doc": {"passage": texts[at], "choices": ["a", "b"]}}

    held = imported([read(lines(tmp_path / "a.jsonl", [row(at) for at in range(30)]))])
    assert any("The 30 items are 6 groups of 5" in note for note in held.notes)
    clean = next(one for one in held.outcomes if one.key == held.plan.clean(held.plan.subjects[0]).key)
    assert clean.values["group"].tolist() == [at // 5 for at in range(30)]
    store = tmp_path / "x.wheeltap"
    held.put(store)
    said = judge(store).record.headline
    assert "on 30 items in 6 groups, which count as about 5 independent" in said
    if shape == "own":
        free = imported([read(lines(tmp_path / "b.jsonl", [{**row(at), "group": f"g{at}"} for at in range(30)]))])
        assert not any("6 groups" in note for note in free.notes)
        assert not any("group" in one.values for one in free.outcomes if "chance" in one.values)


def test_repeats_ask_for_support_and_single_answers_do_not(tmp_path: Path) -> None:
    rows = [{"id": "a", "sample": at, "correct": True} for at in range(3)]
    names = [spec.name for spec in imported([read(lines(tmp_path / "a.jsonl", rows))]).plan.audits]
    assert names == ["score", "support"]
    assert [spec.name for spec in imported([graded(tmp_path / "b.jsonl", "10")]).plan.audits] == ["score"]


def test_what_else_a_file_says_becomes_a_reading_of_its_own() -> None:
    spec = ReadingSpec(
        name="mood", title="Mood", arrays={"mood": Array("example", "how"), "scale": Array("3", "steps")}
    )
    more = ReadingArrays(spec=spec, values={"mood": np.array([1.0, 2.0]), "scale": np.arange(3.0)}, audit="moody")
    right, samples = np.array([1, 0], dtype=np.int32), np.array([1, 1], dtype=np.int32)
    one = AnswerFile(
        shape="x", items=("a", "b"), systems=(Answers(name="m", right=right, samples=samples, more=(more,)),)
    )
    votes = Votes(labels=("x",), votes=np.array([[2], [2]], dtype=np.int32))
    held = imported([one, AnswerFile(shape="y", items=("b", "a"), votes=votes)])
    assert arrays(held, 0, "mood")["mood"].tolist() == [1.0, 2.0]
    assert arrays(imported([one.part(("b",))], audits=()), 0, "mood")["mood"].tolist() == [2.0]
    assert arrays(held, 0, "mood")["scale"].tolist() == [0.0, 1.0, 2.0]
    assert [spec.name for spec in held.plan.audits] == ["score", "disagreement", "moody"]


@pytest.mark.parametrize("items", [(), ("a", "a")])
def test_no_item_or_one_twice_is_refused(items: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        AnswerFile(shape="x", items=items)


def counts(path: Path, samples: int, *, items: int = 3) -> AnswerFile:
    """Counts of right answers."""
    return read(lines(path, [{"id": at, "n": samples, "c": at} for at in range(items)]))


def asked(held: RecordedRun) -> list[str]:
    """Audits by name."""
    return [spec.name for spec in held.plan.audits]


def test_as_many_tries_as_can_be_judged_and_one_more(tmp_path: Path) -> None:
    assert asked(imported([counts(tmp_path / "a.jsonl", MOST_TRIES)])) == ["score", "support"]
    pass_at(np.array([1]), np.array([MOST_TRIES]), most=MOST_TRIES)
    held = imported([counts(tmp_path / "b.jsonl", MOST_TRIES + 1)])
    assert asked(held) == ["score"]
    assert held.notes[0].startswith("b has 65,537 answers to each item, or more: pass@k is computed for up to 65,536.")
    held.put(tmp_path / "x.wheeltap")
    (score,) = judge(tmp_path / "x.wheeltap").record.findings
    assert score.code == "WT001"


def test_many_items_with_many_tries_are_left_to_their_score(tmp_path: Path) -> None:
    held = imported([counts(tmp_path / "a.jsonl", 60_000, items=3000)])
    assert asked(held) == ["score"] and "up to 44,739." in held.notes[0]


def test_partly_right_answers_have_no_pass_at_k_and_that_is_said(tmp_path: Path) -> None:
    rows = [{"id": at, "sample": draw, "correct": 0.5} for at in range(3) for draw in range(2)]
    held = imported([read(lines(tmp_path / "m.jsonl", rows))])
    assert asked(held) == ["score"]
    assert held.notes == ("No pass@k: some answers of m are partly right. The score is their mean.",)


def test_single_answers_of_one_of_two_have_no_pass_at_k_and_that_is_said(tmp_path: Path) -> None:
    held = imported([counts(tmp_path / "a.jsonl", 8), counts(tmp_path / "b.jsonl", 1, items=2)])
    assert "No pass@k: of b each item has one answer." in held.notes


@pytest.mark.parametrize("draws", [1, 2])
def test_parts_that_are_not_shown_are_said(tmp_path: Path, draws: int) -> None:
    rows = [{"id": at, "sample": draw, "correct": True, "group": "xy"[at]} for at in range(2) for draw in range(draws)]
    notes = imported([read(lines(tmp_path / "m.jsonl", rows))]).notes
    assert notes == (() if draws > 1 else ("Parts (group) are shown by themselves with pass@k alone.",))


def crowd(path: Path, *votes: int) -> AnswerFile:
    """So many votes on each item."""
    return read(lines(path, [{"id": f"item {at}", "votes": {"a": one, "b": 0}} for at, one in enumerate(votes)]))


@pytest.mark.parametrize(
    ("votes", "says", "got"),
    [((1, 1, 1), "One vote an item cannot be split", "0 of 3 items"), ((5,), "One item does not", "1 of 1 item")],
)
def test_votes_that_cannot_be_split_are_refused(tmp_path: Path, votes: tuple[int, ...], says: str, got: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        imported([crowd(tmp_path / "v.jsonl", *votes)])
    assert (error.value.got or "").startswith(got)


def test_beside_a_score_votes_that_cannot_be_split_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    held = imported([graded(tmp_path / "a.jsonl", "101"), crowd(tmp_path / "v.jsonl", 1, 1, 2)])
    assert asked(held) == ["score"]
    assert held.notes == ("Votes are not judged: 1 of 3 items with 2 votes or more, and one cannot be split.",)


def test_items_with_one_vote_are_counted(tmp_path: Path) -> None:
    held = imported([crowd(tmp_path / "v.jsonl", 1, 2, 3, 1)])
    assert held.notes == ("2 of 4 items have one vote, which cannot be split: left out of what is said of people.",)
    assert not imported([crowd(tmp_path / "w.jsonl", 2, 2)]).notes


def test_items_with_one_vote_of_convabuse_are_counted() -> None:
    (note,) = imported([read(published("convabuse/test.csv"))]).notes
    assert note.startswith("2 of 853 items have one vote")


def test_votes_of_several_files_are_those_of_the_first(tmp_path: Path) -> None:
    held = imported([crowd(tmp_path / "v.jsonl", 2, 3), crowd(tmp_path / "w.jsonl", 4, 4)])
    assert arrays(held, 0, "votes")["votes"][:, 0].tolist() == [2, 3]
    assert held.notes == ("Several files have votes: those of the first are read.",)


def test_several_right_answers_are_no_people(tmp_path: Path) -> None:
    marks = [{"id": f"item {at}", "votes": {"a": 1, "b": at % 2, "c": 0}} for at in range(6)]
    votes = read(lines(tmp_path / "v.jsonl", marks))
    with pytest.raises(DataError, match="look like marks of right answers"):
        imported([votes])
    held = imported([graded(tmp_path / "a.jsonl", "101101"), votes])
    assert asked(held) == ["score"] and "Votes are not judged: on 3 items several labels" in " ".join(held.notes)
    people = [*marks[1:], {"id": "item 0", "votes": {"a": 2, "b": 0, "c": 0}}]  # somewhere two agree
    assert asked(imported([read(lines(tmp_path / "p.jsonl", people))])) == ["disagreement"]


def test_items_of_one_group_say_nothing_of_others(tmp_path: Path) -> None:
    rows = [{"id": at, "system": name, "correct": at % 3 == 0, "group": "g"} for at in range(12) for name in "ab"]
    imported([read(lines(tmp_path / "a.jsonl", rows))], audits=SCORE).put(tmp_path / "x.wheeltap")
    record = judge(tmp_path / "x.wheeltap").record
    assert "on 12 items in one group, which says nothing of others" in record.headline
    (gap,) = [one for one in record.findings if one.subject == "a vs b"]
    assert gap.status == "inconclusive" and gap.estimates[0].low is None


@pytest.mark.parametrize("says", ["votes", "correct"])
def test_groups_count_whatever_a_file_says_and_whatever_its_store_holds(tmp_path: Path, says: str) -> None:
    """Eight groups whose items are all alike: the same answers are first judged without them, in the same store."""

    def report(**groups: Any) -> tuple[Estimate, tuple[str, ...]]:
        odd = [at // 20 % 2 for at in range(160)]
        said = [{"votes": {"a": 2 - one, "b": one}, "correct": not one} for one in odd]
        rows = [{"id": at, says: said[at][says], **{k: at // of for k, of in groups.items()}} for at in range(160)]
        held = imported([read(lines(tmp_path / "a.jsonl", rows))])
        held.put(tmp_path / "x.wheeltap")
        return judge(tmp_path / "x.wheeltap").record.findings[0].estimates[0], held.notes

    (alone, _), (over, notes), (each, _) = report(), report(group=20), report(group=1)
    assert "Intervals and tests are over the 8 groups." in notes[0]
    widths = [(one.high or 0.0) - (one.low or 0.0) for one in (alone, over, each)]
    assert widths[1] > 3.0 * widths[0] == 3.0 * widths[2]


def test_files_that_group_items_otherwise_are_refused(tmp_path: Path) -> None:
    def of(name: str, *groups: str) -> AnswerFile:
        rows = [{"id": at, "correct": True, "group": group} for at, group in enumerate(groups)]
        return read(lines(tmp_path / f"{name}.jsonl", rows))

    first = of("a", "x", "x", "y")
    assert imported([first, of("b", "1", "1", "0")]).plan.names is not None
    for other in (("1", "2", "2"), ("1", "2", "3"), ("1", "1", "1")):
        with pytest.raises(DataError, match="different groups"):
            imported([first, of("b", *other)])
