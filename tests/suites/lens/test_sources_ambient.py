"""AmbiEnt's files as tasks: lines, distractors, tokenizers that join what they should not."""

from pathlib import Path
from typing import Any

import pytest
from letters import Letters
from logs import lines

from tests.published import published
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.sources.base import ExampleReader
from wheeltap.suites.lens.sources import ambient
from wheeltap.suites.lens.sources.ambient import answer, task_of


def item(**changed: Any) -> dict[str, Any]:
    """A line of a file."""
    rewrites = [
        {"premise": "It may rain.", "hypothesis": "It rains.", "label": "neutral"},
        {"premise": "It does rain.", "hypothesis": "It rains.", "label": "entailment"},
    ]
    row = {"id": 1, "premise": "It might rain.", "hypothesis": "It rains.", "premise_ambiguous": True,
           "hypothesis_ambiguous": False, "labels": "neutral, entailment", "disambiguations": rewrites}  # fmt: skip
    return row | changed


def test_the_published_items() -> None:
    found = ambient.examples_in(published("ambient/test.jsonl"))
    assert len(found) == 1545 and sum(bool(one.readings) for one in found) == 543
    sides = [(several, one.distractors[side]) for one in found for side, several in one.readings.items()]
    assert len(sides) == 580 and 4 * sum(len(several) for several, _ in sides) == 4692
    assert all(distractor not in several for several, distractor in sides)
    assert sum(len(one.labels) > 1 for one in found) == 543


def test_a_line(tmp_path: Path) -> None:
    [one] = ambient.examples_in(lines(tmp_path / "x.jsonl", [item()]))
    assert one.labels == ("neutral", "entailment") and set(one.readings) == {"premise"}
    assert one.readings["premise"] == ("It may rain.", "It does rain.")
    assert one.distractors["premise"] != one.premise
    again = ambient.examples_in(lines(tmp_path / "y.jsonl", [item(disambiguations=str(item()["disambiguations"]))]))
    assert again == [one]


@pytest.mark.parametrize(
    ("row", "kind", "what"),
    [
        (item(labels="neutral, maybe"), DataError, "not in the set"),
        (item(id=0), DataError, "is there twice"),
        (item(id=2, premise=" "), DataError, "sentence is empty(.|\n)*line 2(.|\n)*nothing in premise"),
        (item(id=2, labels="contradiction"), DataError, "No reading has a label of the item(.|\n)*line 2"),
        (item(id=2, disambiguations="[open('x')]"), FileFormatError, "no ambiguous inference"),
        (item(id=2, disambiguations="[" * 300), FileFormatError, "no ambiguous inference"),
    ],
)
def test_lines_that_cannot_be(tmp_path: Path, row: dict[str, Any], kind: type[DataError], what: str) -> None:
    path = lines(tmp_path / "x.jsonl", [item(id=0), row])
    with pytest.raises(kind, match=what):
        ambient.examples_in(path)


def test_votes_of_people_are_counted_by_label(tmp_path: Path) -> None:
    """Right is what most people say; items of one premise are a group."""
    rows = [item(q0_gold=["neutral", "neutral", "entailment"]), item(q0_gold=["contradiction"]), item(premise="So.",
            q0_gold=["entailment"])]  # fmt: skip
    reader, source = ExampleReader(tokenizer=Letters()), ambient.AmbientVotes()
    path = lines(tmp_path / "x.jsonl", [{k: v for k, v in row.items() if k != "disambiguations"} for row in rows])
    assert source.fits(path, reader) and not source.fits(lines(tmp_path / "y.jsonl", [item()]), reader)
    task = source.load(str(path), reader)
    assert task.annotations.votes is not None and task.annotations.votes.tolist() == [[1, 2, 0], [0, 0, 1], [1, 0, 0]]
    assert task.targets.tolist() == [1, 2, 0] and task.clusters is not None
    assert len(set(task.clusters.tolist())) == 2
    for wrong in (["maybe"], []):
        with pytest.raises(FileFormatError, match="no inference with votes"):
            source.load(str(lines(tmp_path / "z.jsonl", [item(q0_gold=wrong)])), reader)


def test_a_distractor_swaps_one_noun() -> None:
    nouns = ambient.lexicon(["The war is over.", "She saw the dog.", "He read the books in the house."])
    assert nouns == ("books", "dog", "house", "war")
    made = ambient.distractor("The dog can house us.", nouns, name="a")
    assert made in ("The house can house us.", "The war can house us.")
    assert ambient.distractor("The dog can house us.", nouns, name="a") == made
    assert ambient.distractor("Go!", (), name="a") == "Stones!"


def examples() -> list[ambient.Example]:
    """One ambiguous item with two readings, and two that are not ambient."""
    readings, distractors = {"premise": ("It may rain.", "It does rain.")}, {"premise": "It might snow."}
    return [
        ambient.Example(id="0", premise="It might rain.", hypothesis="It rains.", labels=("neutral", "entailment"),
                        readings=readings, distractors=distractors),
        *(ambient.Example(id=str(at), premise=f"It rained {at} times.", hypothesis="It rained.",
                          labels=("entailment",)) for at in (1, 2)),
    ]  # fmt: skip


def test_a_tokenizer_that_joins_question_and_answer() -> None:
    assert answer(Letters(), "A:", " True", where="x") == tuple(Letters().more(" True"))
    with pytest.raises(DataError, match="joins the end of a question") as error:
        answer(Letters(joins=": T"), "A:", " True", where="x")
    assert "' True'" in str(error.value)
    with pytest.raises(DataError, match="joins the end of a question"):
        task_of(examples(), Letters(joins=": N"), name="x")
