"""Tasks with attributes are full factorials with shared options, whatever the tokenizer; attributes are true."""

from collections import Counter

import numpy as np
import pytest
import torch

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError
from wheeltap.suites.dictionaries.nets import NAMES, TEMPLATES, tokenizer
from wheeltap.suites.dictionaries.sources import AttributeWords, agreement, digits, ioi, strokes


class Words:
    """Each word is a token of its own, but for long ones, which are two."""

    def __init__(self, longest: int = 99) -> None:
        self.longest, self.ids = longest, dict[str, int]()

    def start(self, text: str) -> list[int]:
        return self.more(text)

    def more(self, text: str) -> list[int]:
        parts = [part for word in text.split() for part in (word[: self.longest], word[self.longest :]) if part]
        return [self.ids.setdefault(part, len(self.ids)) for part in parts]


def factorial(task: ChoiceTask, groups: int) -> None:
    """Each combination of values once in each group; one list of options; all contexts differ."""
    assert task.clusters is not None
    rows = Counter(
        zip(task.clusters.tolist(), *(one.tolist() for one in task.annotations.factors.values()), strict=True)
    )
    sizes = [len(one.unique()) for one in task.annotations.factors.values()]
    assert set(rows.values()) == {1} and len(rows) == groups * int(np.prod(sizes)) == len(set(task.contexts))
    assert set(task.choices) == {task.choices[0]} and min(sizes) > 1


def test_sentences_with_two_names_are_a_full_factorial() -> None:
    task, reads = ioi(), tokenizer()
    factorial(task, len(TEMPLATES))
    words = task.annotation(AttributeWords)
    assert words is not None and len(TEMPLATES) >= 16
    names = {name: reads.more(f" {name}")[0] for name in NAMES}
    for at in range(0, len(task.targets), 7):
        io, s, order = (int(task.annotations.factors[name][at]) for name in ("io", "s", "order"))
        one, other = (words.values[name][value] for name, value in (("io", io), ("s", s)))
        found = [token for token in task.contexts[at] if token in names.values()]
        assert found.count(names[other]) == 2 and found.count(names[one]) == 1 and found[-1] == names[other]
        assert (found[0] == names[other]) == bool(order)
        assert task.choices[at][int(task.targets[at])] == (names[one],)
        assert tuple(reads.start(words.texts[at])) == task.contexts[at]
    part = task.part(torch.tensor([3, 5])).annotation(AttributeWords)
    assert part is not None and part.texts == (words.texts[3], words.texts[5])


def test_names_that_a_tokenizer_divides_are_left_out() -> None:
    task = ioi(Words(4))  # "Sarah" is two tokens
    words = task.annotation(AttributeWords)
    assert words is not None and all(len(name) <= 4 for name in (*words.values["io"], *words.values["s"]))
    factorial(task, len(TEMPLATES))
    with pytest.raises(DataError):
        ioi(Words(3))
    with pytest.raises(DataError):
        agreement(Words(2))


def test_verbs_agree_with_their_subject() -> None:
    task = agreement(Words())
    factorial(task, 24)
    words = task.annotation(AttributeWords)
    assert words is not None
    plural = task.annotations.factors["number"]
    assert torch.equal(task.targets, plural)
    assert {"The farmers that the teacher admires", "The farmers that admire the teacher"} <= set(words.texts)
    kinds = {int(kind): text for kind, text in zip(task.annotations.factors["construction"], words.texts, strict=True)}
    assert [kinds[at].split()[2] for at in range(3)][1:] == ["that", "that"] and "that the" in kinds[1]
    few = agreement(Words(6))  # some words alone are one token: subject and attractor still differ
    for text in few.annotation(AttributeWords).texts:  # type: ignore[union-attr]
        assert text.split()[1].rstrip("s") != text.split()[-1].rstrip("s")


def test_strokes_are_measured() -> None:
    line = np.zeros((4, 8, 8), dtype=np.float32)
    line[0, :, 3] = 1.0  # one pixel wide, upright
    line[1, :, 2:5] = 1.0  # three
    for row in range(8):
        line[2, row, 7 - row] = 1.0  # the top leans right
        line[3, row, row] = 1.0
    (thin, thick, *_), slant = strokes(torch.from_numpy(line.reshape(4, -1)))
    assert 0.7 < thin < 1.1 and 2.0 < thick < 3.2
    assert slant == pytest.approx([0.0, 0.0, 1.0, -1.0])
    task = digits()
    counts = {name: torch.bincount(one) for name, one in task.annotations.factors.items()}
    assert {name: len(one) for name, one in counts.items()} == {"class": 10, "stroke": 3, "slant": 3}
    assert all(int(one.min()) > 50 for one in counts.values())
    assert len(task.annotation(AttributeWords)) == len(task.targets)  # type: ignore[arg-type]
