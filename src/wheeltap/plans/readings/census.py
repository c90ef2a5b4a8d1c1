"""The spec of the census of weights."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

BITS: Final = 11
"""Exponent bits of the widest format. A flip of bit ``b``, from 0 at the lowest, multiplies by ``2 ** 2 ** b``."""

Bits = Annotated[float, msgspec.Meta(gt=0.0)]
"""A ratio of two sizes as a logarithm of base 2: 6 is 64 times."""


class CensusSettings(Settings, frozen=True, kw_only=True):
    """From when on a weight stands out, and how much is listed.

    The next largest value of its tensor is what a weight of at least 2 is compared with. It must be larger by each of
    these: the bits below, the tail of its tensor, and what few values can do by chance.

    Attributes:
        matrix: Bits, in a tensor with at least four values along two axes.
        vector: Bits, in any other one: biases and gains of a rescaled copy reach 11.
        tail: Times the way from the median of the tensor's sizes to its next largest, in bits.
        few: Bits over the number of other values.
        limit: Logarithm of base 2 of a size that no weight has, whatever is beside it.
        name: Weights that are named, the largest first.
        tries: Weights drawn at random of which it is asked whether a flipped bit would be found.
    """

    matrix: Bits = 6.0
    vector: Bits = 12.0
    tail: Annotated[float, msgspec.Meta(ge=0.0)] = 1.5
    few: Annotated[float, msgspec.Meta(ge=0.0)] = 60.0
    limit: Bits = 64.0
    name: Annotated[int, msgspec.Meta(ge=1)] = 5
    tries: Annotated[int, msgspec.Meta(ge=1)] = 1000


CENSUS: Final = ReadingSpec(
    name="census",
    title="Sizes of all weights",
    settings_type=CensusSettings,
    # An outlier: one of those that are named.
    arrays={
        "outliers": Array("", "how many weights stand out; of one tensor at most 32", "count"),
        "tensors": Array("", "parameters and buffers that were read", "count"),
        "letters": Array("outlier letter", "path of its tensor, as code points, 0 filling up", "count"),
        "places": Array("outlier axis", "where it is stored, -1 filling up", "count"),
        "values": Array("outlier 2", "its value: a factor, times two to this power; 0 where it is no number"),
        "number": Array("outlier", "whether its value is a number", "flag"),
        "beyond": Array("outlier 2", "bits beyond the next largest of its tensor, of its row; -1 where there is none"),
        "rows": Array("", "rows of tensors with two axes or more", "count"),
        "dead": Array("", "rows of which every value is zero", "count"),
        "repeated": Array("", "rows that are another row of their tensor again, bit for bit; dead ones aside", "count"),
        "over": Array("", "weights that float16 cannot hold: their size is above 65,504", "count"),
        "tried": Array("11", "drawn weights of which this exponent bit is 0, the top one first", "count"),
        "seen": Array("11", "those of them that would stand out with it flipped, or be infinite", "count"),
    },
)
