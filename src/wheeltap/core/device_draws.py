"""Random numbers computed on a model's device: the same bits as ``wheeltap.core.seeds`` gives on the processor.

PCG64DXSM steps a 128-bit state s to a s + c. So the state at place i is a^i s + (1 + a + ... + a^(i-1)) c: two products
with factors that are the same for every stream, in integers of 64 bits that wrap around.

Source: O'Neill (2014), "PCG: a family of simple fast space-efficient statistically good algorithms", HMC-CS-2014-0905;
numpy's PCG64DXSM (the cheap multiplier of 64 bits; the state is permuted before it is stepped).
"""

from functools import cache
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.typed import to_tensor

_MULTIPLIER: Final = 0xDA942042E4DD58B5
_LOW: Final = 0xFFFFFFFF
_CHUNK: Final = 2**20
"""Words computed together: some 150 MB of a device's memory."""

_Wide = tuple[Tensor, Tensor]
"""Integers of 128 bits: their upper and their lower halves."""


def normal(words: np.random.PCG64DXSM, count: int, device: torch.device) -> Float32[Tensor, " count"]:
    """What ``seeds.fill_normal`` writes from the start of a stream, on the device."""
    steps, tail = (to_tensor(table).to(device) for table in seeds.tables())
    first, second = seeds.words_of(seeds.BLOCK)
    out, at_once = torch.empty(count, dtype=torch.float32, device=device), _CHUNK // (first + second) * seeds.BLOCK
    for start in range(0, count, at_once):
        part = out[start : start + at_once]
        whole, rest = divmod(len(part), seeds.BLOCK)
        place = start // seeds.BLOCK * (first + second)
        _fill(part[: whole * seeds.BLOCK], _sixteen(words, place, whole * (first + second), device), steps, tail)
        place += whole * (first + second)
        if rest:
            _fill(part[whole * seeds.BLOCK :], _sixteen(words, place, sum(seeds.words_of(rest)), device), steps, tail)
    return out


def signs(words: np.random.PCG64DXSM, count: int, device: torch.device) -> Float32[Tensor, " count"]:
    """A sign for each bit of the words from the start of a stream, as ``Draw.signs`` takes them, on the device."""
    shifts = torch.arange(7, -1, -1, device=device, dtype=torch.uint8)
    parts = [torch.empty(0, device=device)]
    for start in range(0, count, 64 * _CHUNK):
        held = _words(words, start // 64, min(-(-(count - start) // 64), _CHUNK), device).view(torch.uint8)
        parts.append((held[:, None] >> shifts & 1).view(-1).float().mul_(2).sub_(1))
    return torch.cat(parts)[:count]


def _fill(out: Tensor, bits: Tensor, steps: Tensor, tail: Tensor) -> None:
    """Writes a block's numbers, or those of several whole ones; ``bits`` are of 16 each, as int32."""
    if not len(out):
        return
    size = min(len(out), seeds.BLOCK)
    first, second = seeds.words_of(size)
    rows = bits.view(-1, 4 * (first + second))
    step = rows[:, :size].reshape(-1)
    torch.index_select(steps, 0, step, out=out)
    far = (step < 2 * seeds.TAIL).nonzero().view(-1)
    block = far // size
    begins = torch.searchsorted(block, torch.arange(len(rows), device=out.device))
    rank = (torch.arange(len(far), device=out.device) - begins[block]) % (4 * second)
    finer = rows[block, 4 * first + rank]
    out[far] = torch.copysign(tail[finer], out[far])


def _sixteen(words: np.random.PCG64DXSM, place: int, count: int, device: torch.device) -> Tensor:
    return _words(words, place, count, device).view(torch.int16).int() & 0xFFFF


def _words(words: np.random.PCG64DXSM, place: int, count: int, device: torch.device) -> Int64[Tensor, " count"]:
    """Words of a stream from a place on, at most ``_CHUNK``; each is a step's output."""
    start = words.state["state"]
    state, step = int(start["state"]), int(start["inc"])
    power, total = _jump(place)
    powers, totals = ((high[:count], low[:count]) for high, low in _factors(device))
    high, low = _add(_times(powers, power * state + total * step), _times(totals, step))
    high = (high ^ _shifted(high, 32)) * _signed(_MULTIPLIER)
    return (high ^ _shifted(high, 48)) * (low | 1)


def _jump(steps: int) -> tuple[int, int]:
    """a^n and 1 + a + ... + a^(n-1), both mod 2^128."""
    power, total, jump, over = 1, 0, _MULTIPLIER, 1
    while steps:
        if steps & 1:
            power, total = power * jump, total * jump + over
        jump, over, steps = jump * jump, over * (jump + 1), steps >> 1
        power, total, jump, over = (number % 2**128 for number in (power, total, jump, over))
    return power, total


@cache
def _factors(device: torch.device) -> tuple[_Wide, _Wide]:
    """Both for every n below ``_CHUNK``: the second half follows from the first."""
    zero, one = (torch.tensor([number], device=device) for number in (0, 1))
    powers, totals = (zero, one), (zero, zero)
    while (size := len(powers[0])) < _CHUNK:
        power, total = _jump(size)
        more, further = _times(powers, power), _times(totals, power)
        behind = torch.full_like(further[0], _signed(total >> 64)), torch.full_like(further[1], _signed(total))
        powers = torch.cat([powers[0], more[0]]), torch.cat([powers[1], more[1]])
        further = _add(further, behind)
        totals = torch.cat([totals[0], further[0]]), torch.cat([totals[1], further[1]])
    return powers, totals


def _times(wide: _Wide, by: int) -> _Wide:
    """Products mod 2^128."""
    (high, low), top, bottom = wide, _signed(by >> 64), by % 2**64
    x0, x1, y0, y1 = low & _LOW, _shifted(low, 32), bottom & _LOW, bottom >> 32
    near, far, least = x0 * y1, x1 * y0, x0 * y0
    carry = _shifted(least, 32) + (near & _LOW) + (far & _LOW)
    upper = x1 * y1 + _shifted(near, 32) + _shifted(far, 32) + (carry >> 32)
    return upper + high * _signed(bottom) + low * top, low * _signed(bottom)


def _add(one: _Wide, two: _Wide) -> _Wide:
    low, lowest = one[1] + two[1], torch.iinfo(torch.int64).min
    return one[0] + two[0] + ((low ^ lowest) < (two[1] ^ lowest)), low


def _shifted(number: Tensor, by: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (number >> by) & ((1 << 64 - by) - 1)


def _signed(number: int) -> int:
    """The lower 64 bits, as torch reads them."""
    return (number + 2**63) % 2**64 - 2**63
