"""Ambiguous sentences: AmbiEnt's files, the generated set, distractors, tokenizers that join what they should not."""

import json
from pathlib import Path
from typing import Any

import pytest
from letters import Letters
from logs import lines
from wheeltap.suites.lens.sources.ambiguous import answer, task_of

from tests.published import published
from wheeltap.core.errors import DataError, FileFormatError, UsageError
from wheeltap.sources.base import ExampleReader
from wheeltap.suites.lens.annotations import Ambiguity
from wheeltap.suites.lens.sources import ambiguous
from wheeltap.suites.lens.specs import LABELS, TEMPLATES


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
    found = ambiguous.examples_in(published("ambient/test.jsonl"))
    assert len(found) == 1545 and sum(bool(one.readings) for one in found) == 543
    sides = [several for one in found for several in one.readings.values()]
    assert len(sides) == 580 and 4 * sum(len(one.readings) for one in sides) == 4692
    assert all(one.distractor not in one.readings for one in sides)
    assert sum(len(one.labels) > 1 for one in found) == 543


def test_a_line(tmp_path: Path) -> None:
    [one] = ambiguous.examples_in(lines(tmp_path / "x.jsonl", [item()]))
    assert one.labels == ("neutral", "entailment") and set(one.readings) == {"premise"}
    assert one.readings["premise"].readings == ("It may rain.", "It does rain.")
    assert one.readings["premise"].distractor != one.premise
    again = ambiguous.examples_in(lines(tmp_path / "y.jsonl", [item(disambiguations=str(item()["disambiguations"]))]))
    assert again == [one]


@pytest.mark.parametrize(
    ("row", "kind", "what"),
    [
        (item(labels="neutral, maybe"), DataError, "not in the set"),
        (item(id=0), DataError, "is there twice"),
        (item(id=2, premise=" "), DataError, "sentence is empty(.|\n)*line 2(.|\n)*nothing in premise"),
        (item(id=2, disambiguations=[{"premise": "", "hypothesis": "x", "label": "neutral"}]), DataError, "reading 1"),
        (item(id=2, labels="contradiction"), DataError, "No reading has a label of the item(.|\n)*line 2"),
        (item(id=2, hypothesis=None), FileFormatError, "no ambiguous inference"),
        (item(id=2, disambiguations="[open('x')]"), FileFormatError, "no ambiguous inference"),
        (item(id=2, disambiguations="[" * 300), FileFormatError, "no ambiguous inference"),
    ],
)
def test_lines_that_cannot_be(tmp_path: Path, row: dict[str, Any], kind: type[DataError], what: str) -> None:
    path = lines(tmp_path / "x.jsonl", [item(id=0), row])
    with pytest.raises(kind, match=what):
        ambiguous.examples_in(path)


def test_the_shape_is_told_by_the_first_line(tmp_path: Path) -> None:
    reader, fits = ExampleReader(tokenizer=Letters()), ambiguous.AmbientFiles().fits
    assert fits(lines(tmp_path / "x.jsonl", [item()]), reader)
    assert not fits(lines(tmp_path / "y.jsonl", [{"context": "2 + 2 =", "choices": [" 4"], "answer": 0}]), reader)
    (tmp_path / "z.jsonl").write_text("no JSON\n")
    assert not fits(tmp_path / "z.jsonl", reader)


def test_votes_of_people_are_counted_by_label(tmp_path: Path) -> None:
    """Right is what most people say; items of one premise are a group."""
    rows = [item(q0_gold=["neutral", "neutral", "entailment"]), item(q0_gold=["contradiction"]), item(premise="So.",
            q0_gold=["entailment"])]  # fmt: skip
    reader, source = ExampleReader(tokenizer=Letters()), ambiguous.AmbientVotes()
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
    nouns = ambiguous.lexicon(["The war is over.", "She saw the dog.", "He read the books in the house."])
    assert nouns == ("books", "dog", "house", "war")
    made = ambiguous.distractor("The dog can house us.", nouns, name="a")
    assert made in ("The house can house us.", "The war can house us.")
    assert ambiguous.distractor("The dog can house us.", nouns, name="a") == made
    assert ambiguous.distractor("Go!", (), name="a") == "Stones!"


class TestGenerated:
    """The set of templates."""

    def test_items(self) -> None:
        found = ambiguous.examples()
        assert len(found) == 2 * ambiguous.EACH * 3 == len({one.premise for one in found})
        assert found == ambiguous.examples() != ambiguous.examples(seed=1)
        for one in found:
            assert (len(one.labels) == 2) == bool(one.readings)
            for several in one.readings.values():
                assert len({one.premise, several.distractor, *several.readings}) == 4
        assert {label for one in found for label in one.labels} == set(LABELS)

    def test_the_task(self) -> None:
        task = task_of(ambiguous.examples(each=2), Letters(), name="x")
        known = task.annotation(Ambiguity)
        assert known is not None and len(task.targets) == 12
        assert [len(one) for one in known.statements[:4]] == [2, 2, 2, 0]
        assert sum(len(one) for each in known.statements for one in each) == 6 * 2 * len(TEMPLATES)
        part = task.part(task.targets.new_tensor([3, 0]))
        assert part.annotation(Ambiguity) is not None
        assert part.annotation(Ambiguity).sentences == (known.sentences[3], known.sentences[0])
        assert part.digest != task.digest


def test_a_tokenizer_that_joins_question_and_answer() -> None:
    assert answer(Letters(), "A:", " True", where="x") == tuple(Letters().more(" True"))
    with pytest.raises(DataError, match="joins the end of a question") as error:
        answer(Letters(joins=": T"), "A:", " True", where="x")
    assert "' True'" in str(error.value)
    with pytest.raises(DataError, match="joins the end of a question"):
        task_of(ambiguous.examples(each=1), Letters(joins=": N"), name="x")


def test_no_examples() -> None:
    with pytest.raises(DataError, match="no examples"):
        task_of([], Letters(), name="x")


def test_the_door(tmp_path: Path, llama_folder: Path) -> None:
    """Through ``--data``: the generated set by its name, a file by its shape."""
    from wheeltap.sources import specs

    named = f"hf:{llama_folder}"
    made = specs.load(named, data="ambiguous").task
    assert made.annotation(Ambiguity) is not None and made.name == "ambiguous"
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(item()) + "\n")
    assert specs.load(named, data=path).task.annotation(Ambiguity) is not None
    with pytest.raises(UsageError, match="for language models"):
        specs.load("digits", data="ambiguous")
