"""The Python-like corpus: its lines are Python, its draws are fixed, and each idiom is in it, either way it can end."""

import ast
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core import canon, seeds
from wheeltap.core.errors import DataError
from wheeltap.suites.circuits.nets.python import (
    CORPUS_PLACES,
    IDIOMS,
    TOKENS,
    PythonDraw,
    PythonTokenizer,
    corpus,
    decode,
    encode,
    line,
)


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


def test_a_wrong_end_is_no_python() -> None:
    """So the decoded text, which the tests' parser reads, says what the idiom's own table says."""
    for name in ("quote", "bracket", "with_as", "if_ternary", "lambda"):
        for seed in range(20):
            idiom = IDIOMS[name](PythonDraw(seeds.generator(seed)))
            for end in (0, 1):
                with pytest.raises(SyntaxError):
                    ast.parse(decode(encode([*idiom.context(end), idiom.ends[1 - end], *idiom.tails[1 - end]])))


def test_the_corpus_is_fixed() -> None:
    held = corpus(seed=3, sequences=50)
    assert held.shape == (50, CORPUS_PLACES) and str(held.dtype) == "torch.int64"
    assert canon.array_digest("corpus", held.numpy()) == "aec0f7ca0ac060fce4837ce673bc638e"
    assert not np.array_equal(held.numpy(), corpus(seed=4, sequences=50).numpy())


def test_every_token_occurs_and_sequences_start_with_a_line() -> None:
    held = corpus(seed=0, sequences=800, places=32)
    counts = Counter(held.flatten().tolist())
    assert set(counts) == set(range(len(TOKENS))) and len(set(TOKENS)) == len(TOKENS) == 129
    for row in held[:100].tolist():
        whole = decode(row).rpartition("\n")[0]
        # The last line may be cut off before its block.
        ast.parse(whole + ("\n    pass" if whole.endswith(":") else ""))


def test_idioms_come_as_often_either_way() -> None:
    counts = Counter(TOKENS[at] for at in corpus(seed=1, sequences=4000).flatten().tolist())
    ends = ['")', "')", "]]NL", "]NL", ".add", "+=", "with", "for", "while", "else", "lambda", "def"]
    each = [*(counts[end] for end in ends), counts["if"] / 2, counts[","] / 4]
    # Fewer where the end of a sequence cuts a line off before the token that is counted.
    assert min(each) > 800 and max(each) < 1.4 * min(each), each


def test_an_unknown_piece_of_text_is_named() -> None:
    with pytest.raises(DataError, match="'fro'"):
        encode(["for", "fro"])
    with pytest.raises(DataError, match="'walrus'"):
        PythonTokenizer().more("walrus = 3")
