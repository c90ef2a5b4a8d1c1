"""Python-like lines and tasks on them: they are Python, draws are fixed, and a parser that knows no tables agrees."""

import ast
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core import canon, seeds
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.suites.circuits.nets.python import (
    CORPUS_PLACES,
    IDIOMS,
    TOKENS,
    VARIABLES,
    PythonDraw,
    PythonTokenizer,
    Split,
    Variant,
    corpus,
    decode,
    encode,
    line,
    pairs,
)
from wheeltap.suites.circuits.pairs import PairBatch, Pairs
from wheeltap.suites.circuits.specs import TASKS


def right(name: str, text: str) -> str:
    """The token that Python's rules ask for after this text."""
    before, _, last = text.rpartition("\n")
    match name:
        case "quote":
            opening = re.search(r"\(([\"'])[^\"']*$", last)
            assert opening
            return f"{opening[1]})"
        case "bracket":
            return "]" * (last.count("[") - last.count("]")) + "NL"
        case _:
            given = re.findall(rf"^{last} = (set\(\)|\"\")$", before, re.MULTILINE)
            return {"set()": ".add", '""': "+="}[given[-1]]


def both(batch: PairBatch) -> list[tuple[str, str, str]]:
    """Text, what should follow and what should not, of clean contexts and of corrupted ones."""
    said = [[TOKENS[at] for at in column] for column in (batch.answer.tolist(), batch.wrong.tolist())]
    clean, corrupted = ([decode(row) for row in rows.tolist()] for rows in (batch.clean, batch.corrupted))
    return [*zip(clean, *said, strict=True), *zip(corrupted, said[1], said[0], strict=True)]


def share(name: str, variant: Variant, split: Split = "test") -> float:
    said = both(pairs(name, seed=1, count=96, variant=variant, split=split))
    assert all(right(name, text) in (answer, wrong) for text, answer, wrong in said)
    return sum(right(name, text) == answer for text, answer, _ in said) / len(said)


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_those_of_the_rule(name: str) -> None:
    assert share(name, "plain") == share(name, "rephrased") == share(name, "plain", "train") == 1.0
    assert share(name, "irrelevant") == 0.5


@pytest.mark.parametrize("variant", ["plain", "rephrased", "irrelevant"])
@pytest.mark.parametrize("name", TASKS)
def test_pairs_differ_in_one_place_and_answers_take_turns(name: str, variant: Variant) -> None:
    batch = pairs(name, seed=2, count=40, variant=variant)
    assert batch.clean.shape == batch.corrupted.shape == (40, 24) and len(batch) == 40
    assert (batch.clean != batch.corrupted).sum(1).tolist() == [1] * 40
    assert len({tuple(row) for row in [*batch.clean.tolist(), *batch.corrupted.tolist()]}) == 80
    assert batch.answer.tolist() == batch.answer[:2].tolist() * 20
    assert torch.equal(batch.wrong[::2], batch.answer[1::2])


@pytest.mark.parametrize("name", TASKS)
def test_nonsense_follows_the_first_name_and_nothing_else(name: str) -> None:
    ends: dict[int, set[int]] = {0: set(), 1: set()}
    followed: list[bool] = []
    batch = pairs(name, seed=3, count=64, variant="irrelevant")
    for clean, corrupted, answer in zip(
        batch.clean.tolist(), batch.corrupted.tolist(), batch.answer.tolist(), strict=True
    ):
        first = [next(at for at, token in enumerate(row) if TOKENS[token] in VARIABLES) for row in (clean, corrupted)]
        assert first[0] == first[1] and clean[first[0]] != corrupted[first[0]]
        ends[VARIABLES.index(TOKENS[clean[first[0]]]) % 2].add(answer)
        assert right(name, decode(clean)) == right(name, decode(corrupted))
        followed.append(right(name, decode(clean)) == TOKENS[answer])
    assert sum(followed) == 32, "the rule says nothing of the answer"
    assert len(ends[0]) == len(ends[1]) == 1 and ends[0] != ends[1]


def test_no_pair_is_in_both_splits() -> None:
    def found(seed: int, split: Split, variant: Variant) -> set[str]:
        return {
            text for text, _, _ in both(pairs("quote", seed=seed, count=150, split=split, variant=variant, places=9))
        }

    for variant in ("plain", "irrelevant"):
        train, again, test = found(1, "train", variant), found(2, "train", variant), found(1, "test", variant)
        assert train & again, "contexts this short come twice"
        assert not (train | again) & (test | found(3, "test", variant))


def test_draws_are_fixed() -> None:
    digests = {name: Pairs.of(pairs(name, seed=0, count=16)).digest[:8] for name in TASKS}
    assert digests == {"quote": "ee746002", "bracket": "acdb4f5b", "set_or_string": "3673f1ea"}
    assert Pairs.of(pairs("quote", seed=0, count=16, variant="rephrased")).digest[:8] == "956cf09b"


def test_bad_requests() -> None:
    for name in ("quotes", "with_as"):  # an idiom of the corpus is not a task
        with pytest.raises(UnknownName):
            pairs(name, seed=0, count=4)
    with pytest.raises(UsageError):
        pairs("quote", seed=0, count=2, places=3)
    assert encode(["NL"]) == [0]


def drawn(count: int, seed: int = 0) -> list[list[str]]:
    draw = PythonDraw(seeds.generator(seed, "lines"))
    return [line(draw) for _ in range(count)]


def test_lines_are_python_and_read_back() -> None:
    for tokens in drawn(2000):
        text = decode(encode(tokens))
        ast.parse(text)
        assert PythonTokenizer().start(text) == encode(tokens)


@given(st.integers(0, 2**32))
def test_each_end_of_an_idiom_is_python_and_they_differ_first_in_one_token(seed: int) -> None:
    for make in IDIOMS.values():
        idiom = make(PythonDraw(seeds.generator(seed)))
        for end in (0, 1):
            ast.parse(decode(encode(idiom.line(end))))
        one, two = idiom.context(0), idiom.context(1)
        assert len(one) == len(two) and sum(a != b for a, b in zip(one, two, strict=True)) == 1
        assert idiom.line(0)[len(one)] != idiom.line(1)[len(one)]


def test_the_corpus_is_fixed() -> None:
    held = corpus(seed=3, sequences=50)
    assert held.shape == (50, CORPUS_PLACES) and str(held.dtype) == "torch.int64"
    assert canon.array_digest("corpus", held.numpy()) == "aec0f7ca0ac060fce4837ce673bc638e"
    assert not np.array_equal(held.numpy(), corpus(seed=4, sequences=50).numpy())
