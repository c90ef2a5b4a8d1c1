"""Recorded answers as outcomes of a store: all of them or none, once, and judged without a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import choice, generated, loaded
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.plans.plan import AuditSpec
from wheeltap.plans.store import Store
from wheeltap.runs.stored import judge, noted
from wheeltap.suites.lens.recorded import AnswerFile
from wheeltap.suites.lens.runs import MOST_TRIES, RecordedRun, imported
from wheeltap.suites.lens.stats.passk import pass_at

SCORE = (AuditSpec(name="score"),)
Rows = list[dict[str, Any]]


def graded(right: str, **more: Any) -> Rows:
    """One answer to each item, right where there is a 1."""
    return [{"id": f"item {at}", "correct": one == "1", **more} for at, one in enumerate(right)]


def crowd(*votes: int) -> Rows:
    """So many votes on each item."""
    return [{"id": f"item {at}", "votes": {"a": one, "b": 0}} for at, one in enumerate(votes)]


def counts(samples: int, *, items: int = 3) -> Rows:
    """Counts of right answers."""
    return [{"id": at, "n": samples, "c": at} for at in range(items)]


def grouped(*groups: str) -> Rows:
    return [{"id": at, "correct": True, "group": group} for at, group in enumerate(groups)]


def files(folder: Path, *several: Rows) -> list[AnswerFile]:
    """Files a, b and so on with these rows."""
    return [loaded(folder / f"{name}.jsonl", rows) for name, rows in zip("abcd", several, strict=False)]


def arrays(held: RecordedRun, subject: int, reading: str) -> dict[str, NDArray[Any]]:
    """What was recorded of a subject."""
    trial = held.plan.reading(held.plan.subjects[subject], reading, {})
    (found,) = [one for one in held.outcomes if one.key == trial.key]
    return found.values


def asked(held: RecordedRun) -> list[str]:
    """Audits by name."""
    return [spec.name for spec in held.plan.audits]


def test_it_is_imported_once_and_judged_from_the_store_alone(tmp_path: Path) -> None:
    store = tmp_path / "x.wheeltap"
    held = imported(files(tmp_path, graded("1101" * 20), graded("1000" * 20)), audits=SCORE)
    assert held.put(store) == len(held.outcomes) == 4
    again = imported(files(tmp_path, graded("1101" * 20), graded("1000" * 20)), audits=SCORE)
    assert again.put(store) == 0 and again.plan.key == held.plan.key
    with Store(store, readonly=True) as kept:
        assert len(kept.keys()) == 4
        assert "1 system, 80 items" in str(noted(kept, held.plan.key)["recorded"])
    (gap,) = [one for one in judge(store).record.findings if one.subject == "a vs b"]
    assert gap.status == "found" and gap.estimates[0].value == pytest.approx(-0.5)
    assert gap.estimates[0].p == pytest.approx(2.0 * 0.5**40)
    # Other answers are other outcomes.
    assert imported(files(tmp_path, graded("1111" * 20), graded("1000" * 20)), audits=SCORE).put(store) == 2


def test_items_are_those_that_all_files_have_in_the_order_of_the_first(tmp_path: Path) -> None:
    held = imported(files(tmp_path, graded("11011"), graded("011")), audits=SCORE)
    assert held.plan.task.examples == 3 and arrays(held, 0, "samples")["right"].tolist() == [1, 1, 0]
    rows = [{"id": f"item {at}", "correct": at == 2} for at in (2, 0, 1)]
    held = imported(files(tmp_path, graded("100"), rows), audits=SCORE)
    assert arrays(held, 1, "samples")["right"].tolist() == [0, 0, 1]


NULL = [{"id": f"item {at}", "correct": None if at == 3 else True} for at in range(4)]
HALF = [{"id": at, "sample": draw, "correct": 0.5} for at in range(3) for draw in range(2)]
MARKS = [{"id": f"item {at}", "votes": {"a": 1, "b": at % 2, "c": 0}} for at in range(6)]
PEOPLE = [{"id": "item 0", "votes": {"a": 2, "b": 0, "c": 0}}, *MARKS[1:]]  # somewhere two agree


def test_what_is_judged(tmp_path: Path) -> None:
    parts = [{"id": at, "sample": draw, "correct": True, "group": "xy"[at]} for at in range(2) for draw in range(2)]
    cases: list[tuple[list[Rows], list[str]]] = [
        ([graded("11011"), graded("011")], ["score"]),
        ([graded("1101"), NULL], ["score"]),
        ([crowd(3, 4)], ["disagreement"]),
        ([parts], ["score", "support"]),
        ([grouped("x", "y")], ["score"]),
        ([HALF], ["score"]),
        ([counts(8), counts(1, items=2)], ["score"]),
        ([graded("101"), crowd(1, 1, 2)], ["score"]),
        ([crowd(1, 2, 3, 1)], ["disagreement"]),
        ([crowd(2, 3), crowd(4, 4)], ["disagreement"]),
        ([graded("101101"), MARKS], ["score"]),
        ([PEOPLE], ["disagreement"]),
    ]
    for rows, audits in cases:
        assert asked(imported(files(tmp_path, *rows))) == audits, rows


REFUSED: list[tuple[list[Rows], str, str]] = [
    ([graded("11"), [{"id": "other", "correct": True}]], "no item in common",
     "2, 1 items, 0 in common; the first are item 0, other"),
    # Documents of lm-eval are numbered from 0 in every task: their digests distinguish them.
    ([[choice(at, [-1.0, -2.0], 0) for at in range(3)],
      [choice(at, [-1.0, -2.0], 0, doc_hash="f" * 64) for at in range(3)]], "no item in common", ""),
    ([[{"id": "a", "probabilities": {"yes": 0.75, "maybe": 0.25}}], [{"id": "a", "votes": {"no": 3, "yes": 1}}]],
     "(?s)other labels than votes.*expected: no, yes", "yes, maybe"),
    # Two tasks may number their documents alike: what is right in one is not what is right in the other.
    ([[choice(at, [-1.0, -2.0], 0) for at in range(3)], [generated(at, ["4"], 1.0) for at in range(3)]],
     "different metrics", "acc in a, exact_match in b"),
    ([[{"id": "a", "answer": "4"}]], "nothing to judge", ""),
    ([crowd(1, 1, 1)], "One vote an item cannot be split", "0 of 3 items"),
    ([crowd(5)], "One item does not", "1 of 1 item"),
    ([MARKS], "look like marks of right answers", ""),
    *(([grouped("x", "x", "y"), grouped(*other)], "different groups", "") for other in ("122", "123", "111")),
]  # fmt: skip


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for several, what, got in REFUSED:
        with pytest.raises(DataError, match=what) as error:
            imported(files(tmp_path, *several))
        assert (error.value.got or "").startswith(got), what


def test_votes_in_a_file_of_their_own_order_the_labels(tmp_path: Path) -> None:
    answers = [{"id": "a", "probabilities": {"yes": 0.75, "no": 0.25}}]
    held = imported(files(tmp_path, answers, [{"id": "a", "votes": {"no": 3, "yes": 1}}]), audits=())
    assert arrays(held, 0, "votes")["votes"].tolist() == [[3, 1]]
    assert arrays(held, 0, "label-probabilities")["probability"].tolist() == [[0.25, 0.75]]
    first = imported(files(tmp_path, crowd(2, 3), crowd(4, 4)))
    assert [one.name for one in first.plan.subjects] == ["people"]
    assert arrays(first, 0, "votes")["votes"][:, 0].tolist() == [2, 3]


def test_items_that_look_alike_are_groups(tmp_path: Path) -> None:
    """Six passages of five questions each, nowhere declared: named, and the sample of every interval."""
    rng = np.random.default_rng(0)
    passages, questions = ([[f"w{at}" for at in rng.integers(500, size=many)] for _ in range(count)]
                           for many, count in ((40, 6), (6, 30)))  # fmt: skip
    texts = [" ".join([*passages[at // 5], *questions[at]]) for at in range(30)]
    right = np.arange(30) // 5 % 2 == 0  # a whole passage, or none of it
    rows: Rows = [{"id": at, "prompt": texts[at], "correct": bool(right[at])} for at in range(30)]
    held = imported(files(tmp_path, rows))
    clean = next(one for one in held.outcomes if one.key == held.plan.clean(held.plan.subjects[0]).key)
    assert clean.values["group"].tolist() == [at // 5 for at in range(30)]
    free = imported(files(tmp_path, [{**row, "group": f"g{at}"} for at, row in enumerate(rows)]))
    assert not any("group" in one.values for one in free.outcomes if "chance" in one.values)


def test_as_many_tries_as_can_be_judged_and_one_more(tmp_path: Path) -> None:
    assert asked(imported(files(tmp_path, counts(MOST_TRIES)))) == ["score", "support"]
    pass_at(np.array([1]), np.array([MOST_TRIES]), most=MOST_TRIES)
    held = imported(files(tmp_path, counts(MOST_TRIES + 1)))
    assert asked(held) == ["score"]
    held.put(tmp_path / "x.wheeltap")
    (score,) = judge(tmp_path / "x.wheeltap").record.findings
    assert score.code == "WT001"
    many = imported(files(tmp_path, counts(60_000, items=3000)))
    assert asked(many) == ["score"]


def test_groups_count_whatever_its_store_holds(tmp_path: Path) -> None:
    """Eight groups whose items are all alike: the same answers are first judged without them, in the same store."""

    def report(**groups: Any) -> Estimate:
        odd = [at // 20 % 2 for at in range(160)]
        rows = [{"id": at, "correct": not odd[at], **{k: at // of for k, of in groups.items()}} for at in range(160)]
        held = imported(files(tmp_path, rows))
        held.put(tmp_path / "x.wheeltap")
        return judge(tmp_path / "x.wheeltap").record.findings[0].estimates[0]

    alone, over, each = report(), report(group=20), report(group=1)
    widths = [(one.high or 0.0) - (one.low or 0.0) for one in (alone, over, each)]
    assert widths[1] > 3.0 * widths[0] == 3.0 * widths[2]
