"""Normal numbers read off a table are normal numbers."""

from itertools import cycle, pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats

from wheeltap.core import device_draws, seeds
from wheeltap.perturb.base import Draw


def drawn(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    out = np.empty(count, np.float32)
    seeds.fill_normal(seeds.words(seed, "test"), out)
    return out


def slowly(count: int, *, seed: int = 0) -> list[float]:
    """The same from the definition, one number at a time: a step's middle, and in the tails a step of a step."""
    bits = seeds.words(seed, "test")
    out: list[float] = []
    while len(out) < count:
        size = min(2**16, count - len(out))
        tail = size / 256
        steps = bits.random_raw(-(-size // 4)).view(np.uint16)[:size].tolist()
        finer = cycle(bits.random_raw(int(tail + 8 * tail**0.5 + 8) // 4).view(np.uint16).tolist())
        for step in ((number - 128) % 2**16 for number in steps):
            if min(step, 2**16 - 1 - step) >= 128:
                out.append(float(special.ndtri((step + 0.5) / 2**16)))
            else:
                size = abs(float(special.ndtri((next(finer) + 0.5) / 2**16 * 128 / 2**16)))
                out.append(size if step > 2**15 else -size)
    return out


@pytest.mark.parametrize("count", [0, 2**16 + 1, 150_001])
def test_a_device_computes_the_same_bits(count: int) -> None:
    expected = drawn(count)
    shape = torch.zeros(count)
    like = Draw(3, 4).signs("a", (count,), like=shape)
    for device in [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]:
        got = device_draws.normal(seeds.words(0, "test"), count, device).cpu().numpy()
        assert got.dtype == np.float32 and np.array_equal(got.view(np.uint32), expected.view(np.uint32))
        signs = device_draws.signs(seeds.words(3, "signs", 4, "a"), count, device).cpu()
        assert torch.equal(signs, like)


@pytest.mark.parametrize("count", [3, 1000, 2**16 + 1])
def test_they_are_what_the_definition_gives(count: int) -> None:
    np.testing.assert_allclose(drawn(count), np.array(slowly(count)), atol=1e-6)


def test_their_distribution_is_the_normal_one() -> None:
    numbers = drawn(2**22).astype(np.float64)
    assert stats.kstest(numbers, "norm").pvalue > 1e-4
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        spread = special.factorial2(4 * power // 2 - 1) ** 0.5 if power > 1 else 1.0
        assert abs((numbers**power).mean() - moment) < 5 * spread / 2**11
    for beyond in (2.5, 3.0, 3.5, 4.0, 4.5):
        wanted = 2 * float(special.ndtr(-beyond)) * len(numbers)
        assert abs(int((np.abs(numbers) > beyond).sum()) - wanted) < 5 * wanted**0.5 + 1


def test_steps_are_as_narrow_as_said() -> None:
    """Between neighbours that the table tells apart; and the farthest."""
    numbers = np.unique(drawn(2**22))
    inner = numbers[np.abs(numbers) < 2.88]
    assert max(high - low for low, high in pairwise(inner.tolist())) < 0.0025
    assert np.abs(numbers).max() < 5.55


def test_a_seed_means_these_bits_on_every_machine() -> None:
    bits = drawn(4).view(np.uint32)
    assert [f"{number:08x}" for number in bits] == ["3fbe5a91", "c00fed75", "3f89412e", "3f8ea39a"]
