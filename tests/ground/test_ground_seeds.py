"""Streams of random numbers: named, independent of each other and of the order in which they are used."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core import seeds
from wheeltap.perturb.base import Draw

ROOTS = st.integers(0, 3) | st.integers(-(2**63), 2**63 - 1)
NAMES = st.lists(st.text(max_size=5) | st.integers(-5, 5), max_size=3)


@given(ROOTS, NAMES, ROOTS, NAMES)
def test_a_seed_has_63_bits_and_other_names_are_other_streams(
    a: int, one: list[str | int], b: int, two: list[str | int]
) -> None:
    assert 0 <= seeds.derive(a, *one) < 2**63
    assert (seeds.derive(a, *one) == seeds.derive(b, *two)) == ((a, one) == (b, two))


def test_a_draw_does_not_depend_on_what_was_drawn_before() -> None:
    like = torch.zeros(1)
    alone = Draw(3, 1).normal("b", (5, 4), like=like)
    draw = Draw(3, 1)
    first = draw.normal("a", (100,), like=like)
    assert torch.equal(draw.normal("b", (5, 4), like=like), alone)
    assert torch.equal(draw.normal("a", (100,), like=like), first)


def test_a_draw_leaves_torch_and_numpy_alone() -> None:
    before, held = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    Draw(3, 1).normal("a", (5,), like=torch.zeros(1))
    Draw(3, 1).signs("a", (5,), like=torch.zeros(1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(held, np.random.get_state()[1])


def test_seed_root_and_name_each_give_another_draw() -> None:
    draws = [(0, 0, "a"), (0, 1, "a"), (1, 0, "a"), (0, 0, "b")]
    drawn = np.stack([Draw(r, s).normal(n, (20_000,), like=torch.zeros(1)).numpy() for r, s, n in draws])
    signs = np.stack([Draw(r, s).signs(n, (20_000,), like=torch.zeros(1)).numpy() for r, s, n in draws])
    for numbers in (drawn, signs):
        apart = np.corrcoef(numbers) - np.eye(4)
        assert np.abs(apart).max() < 5 / 20_000**0.5
        assert np.abs(numbers.mean(1)).max() < 5 / 20_000**0.5
        assert np.abs(numbers.var(1) - 1).max() < 0.06


@pytest.mark.parametrize(
    ("shape", "dtype"), [((), torch.float32), ((5, 1, 13), torch.bfloat16), ((2**18 + 13,), torch.float32)], ids=str
)
def test_every_sign_is_one_bit_of_the_stream(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Bytes of each word from the lowest, bits of each byte from the highest; words start anew every 2**18 signs."""
    count = math.prod(shape)
    words, expected = seeds.words(3, "signs", 4, "a"), list[float]()
    for start in range(0, count, 2**18):
        part = min(count - start, 2**18)
        held = b"".join(int(word).to_bytes(8, "little") for word in words.random_raw((part + 63) // 64))
        expected += [1.0 if held[at // 8] >> (7 - at % 8) & 1 else -1.0 for at in range(part)]
    drawn = Draw(3, 4).signs("a", shape, like=torch.zeros(1, dtype=dtype))
    assert (drawn.dtype, drawn.shape) == (dtype, shape) and drawn.flatten().tolist() == expected
