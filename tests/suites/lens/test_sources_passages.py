"""Plain texts as a task: what is read from which lines, and what is refused."""

import json
import random
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny import WORDS

import wheeltap as wt
from tests.contaminated import Letters
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.sources.base import ExampleReader
from wheeltap.sources.specs import load, load_task
from wheeltap.suites.lens.annotations import Passages
from wheeltap.suites.lens.sources.passages import PIECE, load_passages, recombined
from wheeltap.suites.lens.specs import SETS

READER = ExampleReader(tokenizer=Letters())


def written(folder: Path, *rows: object) -> Path:
    path = folder / "items.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_texts_and_twins(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "one two", "twin": "two one"}, {"text": "red", "twin": "blue"})
    task = load_task(path, tokenizer=Letters())
    assert isinstance(task, ChoiceTask)
    passages = task.annotation(Passages)
    assert passages is not None and passages.own == ("one two", "red") and passages.twins == ("two one", "blue")
    assert task.choices[1] == (tuple(map(ord, "red")), tuple(map(ord, "blue")))
    assert task.contexts == ((0,), (0,)) and task.targets.tolist() == [0, 0]
    part = task.part(task.targets[:1] + 1).annotation(Passages)
    assert part is not None and part.own == ("red",)


def test_new_items_are_pieces_of_a_few_words_in_the_order_of_the_texts() -> None:
    places = [[(text, word) for word in range(21)] for text in range(40)]
    new = recombined([" ".join(f"{text}.{word}" for text, word in row) for row in places])
    assert len(new) == 40 and all(len(set(some)) == SETS for some in new)
    for several in zip(*new, strict=True):
        made = [[tuple(map(int, word.split("."))) for word in text.split()] for text in several]
        assert [[word for _, word in row] for row in made] == [[word for _, word in row] for row in places]
        # At every place of a text the words of the next one follow, so that marks stay in order.
        neighbors = [pair for one, two in pairwise(made) for pair in zip(one, two, strict=True)]
        assert {(after[0] - before[0]) % 40 for before, after in neighbors} == {1}
        runs = [len(list(run)) for row in made for _, run in groupby(row, key=lambda word: word[0])]
        # A net that remembers a text in half sees that half nowhere.
        assert max(runs) <= 2 * PIECE and np.mean(runs) == PIECE


@pytest.mark.parametrize(
    ("texts", "sets"),
    [
        ([f"What is a {word}?" for word in "abcdef"], 0),  # one part of its own each
        ([f"{at}: What is a {word} in one line?" for at, word in enumerate("abcdef")], SETS),
        (["我喜欢吃苹果和香蕉", "他们今天去公园散步", "北京是中国的首都啊", "小明每天早上跑步吧"], SETS),
    ],
)
def test_of_one_template_there_are_no_new_items(texts: list[str], sets: int) -> None:
    new = recombined(texts)
    assert [len(some) for some in new] == ([sets] * len(texts) if sets else [])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "ab", "twin": "ba"}, {"text": "cd"}], "Some texts have a twin"),
        ([{"text": "ab", "twin": "ab"}], "are the same"),
        ([{"text": "a", "twin": "ab"}], "cannot be read"),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: list[dict[str, str]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_passages(written(tmp_path, *rows), Letters())


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError) as caught:
        load_passages(written(tmp_path, {"text": "ab"}, {"context": "no"}), Letters())
    assert (caught.value.where or "").endswith("line 2")
    # The repeated line is left out and counts as a line all the same.
    path = written(tmp_path, *[{"text": "ab", "twin": "ba"}] * 2, {"text": "cd", "twin": ""})
    with pytest.raises(DataError) as empty:
        load_task(path, tokenizer=Letters())
    assert empty.value.where == f"{path}: line 3, twin"


def test_lines_with_the_same_text_or_twin_count_once(tmp_path: Path) -> None:
    rows = [("one two", "four"), ("One  two", "five"), ("six", "four"), ("seven", "one two"), ("eight", "nine")]
    task = load_passages(written(tmp_path, *({"text": one, "twin": two} for one, two in rows)), Letters())
    passages = task.annotation(Passages)
    assert passages is not None and passages.own == ("one two", "eight") and passages.repeated == 3
    assert task.name == "items, 2 of 5 without repeats"


def test_a_folder_is_audited_on_a_file_of_texts(tmp_path: Path, llama_folder: Path) -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS[1:], k=10)) for _ in range(48)]
    path = written(tmp_path, *({"text": one, "twin": two} for one, two in zip(texts[:24], texts[24:], strict=True)))
    loaded = load(f"hf:{llama_folder}", data=path)
    settings = {"shards": 4, "shuffles": 3, "exposures": "1", "window": 48}
    report = wt.audit(loaded.subject, loaded.task, audits=[wt.AuditSpec(name="contamination", settings=settings)])
    found = {one.title: one.status for one in report.record.findings if one.code == "WT503"}
    assert found.pop("What would have been found") == "measured"
    assert len(found) == 3 and set(found.values()) == {"inconclusive"}
    assert max(map(len, str(report).splitlines())) <= 100
