"""Tasks of pairs: what a task knows of them, minimal pairs of the agreement task, a user's file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from wheeltap.core.errors import DataError, FileFormatError, MissingFile, UnknownName
from wheeltap.sources import jsonl
from wheeltap.sources.grammar import PEOPLE, THINGS
from wheeltap.suites.circuits import sources as source
from wheeltap.suites.circuits.nets.python import PythonTokenizer
from wheeltap.suites.circuits.pairs import Pairs

THREE = Pairs(((1, 2, 3), (4, 5), (1, 6, 3)), ((1, 9, 3), (4, 6), (1, 2, 3)), (7, 8, 7), (8, 7, 8))


class ByWord:
    """A token for each word, numbered as they come; some words, in several pieces."""

    def __init__(self, pieces: Sequence[str] = ()) -> None:
        self.known: dict[str, int] = {}
        self.pieces = set(pieces)

    def start(self, text: str) -> list[int]:
        said = [part for word in text.split() for part in (word if word in self.pieces else [word])]
        return [self.known.setdefault(part, len(self.known)) for part in said]

    def more(self, text: str) -> list[int]:
        return self.start(text)


def test_the_digest_says_which_pairs_they_are() -> None:
    task = source.task(THREE, name="three")
    others = [Pairs(THREE.clean, ((1, 9, 3), (4, 7), (1, 2, 3)), THREE.answer, THREE.wrong), THREE.part([0, 1, 2])]
    digests = [task.with_annotation(pairs).digest for pairs in others]
    assert digests[0] != task.digest == digests[1]
    with pytest.raises(DataError):
        task.with_annotation(THREE.part([0]))


def test_batches_hold_all_pairs_once_and_equally_long_ones_together() -> None:
    lengths = [4, 2, 4, 4, 3, 2, 4]
    clean = tuple(tuple(range(at, at + length)) for at, length in enumerate(lengths))
    pairs = Pairs(clean, tuple((99, *row[1:]) for row in clean), tuple(range(7)), tuple(range(50, 57)))
    batches = list(pairs.batches(size=3))
    assert [tuple(batch.clean.shape) for batch in batches] == [(2, 2), (1, 3), (3, 4), (1, 4)]
    assert pairs.order == (1, 5, 4, 0, 2, 3, 6)
    assert [int(at) for batch in batches for at in batch.answer] == list(pairs.order)
    assert [tuple(row) for batch in batches for row in batch.clean.tolist()] == [clean[at] for at in pairs.order]
    assert all((batch.corrupted[:, 0] == 99).all() and torch.equal(batch.wrong, batch.answer + 50) for batch in batches)
    assert Pairs.of(batches[2]) == pairs.part([0, 2, 3])


NO_PAIRS: list[tuple[Any, ...]] = [
    ((), (), (), ()), (((1,),), ((2,),), (1, 2), (2,)), (((1, 2),), ((2,),), (1,), (2,)),
    (((1, 2), (1, 2)), ((1, 3), (1, 2)), (1, 1), (2, 2)), (((1,),), ((2,),), (3,), (3,)),
]  # fmt: skip


def test_no_pairs() -> None:
    for columns in NO_PAIRS:
        with pytest.raises(DataError):
            Pairs(*columns)


def test_a_task_on_python_like_lines() -> None:
    task = source.python_task("quote", count=24)
    pairs = task.annotation(Pairs)
    assert pairs is not None and len(pairs) == 30 and task.name == "quote"
    assert task.annotations.factors["rephrased"].tolist() == [0] * 24 + [1] * 6
    assert torch.bincount(task.targets[:24]).tolist() == [12, 12]
    assert len(pairs.reference) == source.REFERENCE and pairs.part([3]).reference == pairs.reference
    with pytest.raises(UnknownName, match="quote"):
        source.python_task("quotes")


def test_all_tasks_on_python_like_lines_are_groups_and_nonsense_follows() -> None:
    task = source.python_suite(count=8)
    pairs, rephrased = task.annotation(Pairs), task.annotations.factors["rephrased"]
    assert pairs is not None and len(pairs) == 3 * (8 + 2 + 8)
    counts = torch.bincount(task.behaviors, minlength=6).tolist()
    assert counts == [10] * 3 + [8] * 3 and int(rephrased.sum()) == 6
    alone = source.python_task("bracket", count=8).annotation(Pairs)
    own = (task.behaviors == 1).nonzero()[:, 0].tolist()
    assert alone is not None and pairs.part(own).clean == alone.clean


def test_agreement_changes_the_number_of_the_subject_alone() -> None:
    tokenizer = ByWord()
    kept = source.agreement_pairs(tokenizer, each=200)
    assert len(kept) == 800
    spelled = {number: word for word, number in tokenizer.known.items()}
    forms = {frozenset(noun) for noun in (*PEOPLE, *THINGS)}
    singular = {noun.singular for noun in (*PEOPLE, *THINGS)}
    patient = 0
    for clean, corrupted, answer in zip(kept.clean, kept.corrupted, kept.answer, strict=True):
        changed = [(spelled[a], spelled[b]) for a, b in zip(clean, corrupted, strict=True) if a != b]
        assert len(changed) == 1 and frozenset(changed[0]) in forms
        verb = spelled[answer]
        ends_in_s = verb in {"is", "was", "has"} or verb.endswith("s")
        assert ends_in_s == (changed[0][0] in singular), (changed, verb)
        clause = " ".join(spelled[token] for token in clean).rpartition(", ")[2].split()
        # After a determiner and perhaps an adjective, as in "the patient cook".
        nouns = [word for word in clause[1:3] if any(word in noun for noun in forms)]
        assert changed[0][0] == nouns[-1]
        patient += len(nouns) == 2
    assert patient


def test_agreement_drops_what_does_not_fit() -> None:
    many = [noun.plural for noun in PEOPLE]
    whole, kept = source.agreement_pairs(ByWord(), each=40), source.agreement_pairs(ByWord(many), each=40)
    assert len(whole) == 160 and 0 < len(kept) < 80
    with pytest.raises(DataError):
        source.agreement_pairs(ByWord([*many, *(noun.plural for noun in THINGS)]), each=8)


def written(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_file_of_text_or_of_ids(tmp_path: Path) -> None:
    text = {"clean": "for a", "corrupted": "while a", "answer": "in", "wrong": ":"}
    tokenizer = PythonTokenizer()
    task = source.load(written(tmp_path / "mine.jsonl", text, text), tokenizer)
    ids = {name: tokenizer.start(said) for name, said in text.items()}
    same = {**ids, "answer": ids["answer"][0], "wrong": ids["wrong"][0]}
    again = source.load(written(tmp_path / "ids.jsonl", same, same))
    assert task.annotation(Pairs) == again.annotation(Pairs) and task.name == "mine" and len(task.targets) == 2
    texts = [one.annotation(Pairs).texts for one in (task, again) if one.annotation(Pairs)]
    assert texts == [(("for a", "while a", "in", ":"),) * 2, ()]
    assert task.digest == again.digest


GOOD = {"clean": [1, 2, 3], "corrupted": [1, 9, 3], "answer": 4, "wrong": 5}


BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"corrupted": [4, 9, 3]}, DataError), ({"corrupted": [1, 2, 3]}, DataError),
    ({"corrupted": [1, 9, 3, 3]}, DataError), ({"clean": "for a"}, DataError), ({"answer": "in"}, DataError),
    ({"answer": 5}, DataError), ({"clean": [1, -2, 3]}, DataError), ({"clean": [], "corrupted": []}, DataError),
    ({"clean": [1] * 9000, "corrupted": [1] * 9000}, DataError), ({"answer": [4]}, FileFormatError),
    ({"claen": [4]}, FileFormatError),
]  # fmt: skip


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    for line, kind in BAD:
        with pytest.raises(kind, match=r"x.jsonl: line 2"):
            source.load(written(tmp_path / "x.jsonl", GOOD, {**GOOD, **line}))


def test_no_file_no_lines_long_lines(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        source.load(tmp_path / "none.jsonl")
    with pytest.raises(DataError):
        source.load(written(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError):
        source.load(written(tmp_path / "long.jsonl", GOOD, {**GOOD, "clean": [1] * jsonl.MAX_LINE}))
