"""What a seal has room for: fixed before any pass, by how many tensors and blocks a model has and how large inputs are.

Digests that decide are always whole. Of large models less is kept of what a change is located by: fewer blocks and
inputs, then fewer numbers of each parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from torch import nn

from wheeltap.core.errors import FileFormatError
from wheeltap.suites.seal import conversions, values
from wheeltap.suites.seal.record import LARGEST
from wheeltap.suites.seal.sketch import BLOCK_DIRECTIONS, DIRECTIONS
from wheeltap.suites.seal.sketch import MOST as BLOCKS
from wheeltap.suites.seal.tensors import MARKS

_REST: Final = 4 * 1024
"""Bytes of names, digests and a signature, at most; other texts come on top."""

_BLOCK: Final = 52
"""Bytes of a block's tolerance and of what surrounds its path."""


@final
@dataclass(frozen=True)
class Room:
    """What a seal keeps at most.

    Attributes:
        blocks: How many.
        few: Inputs of which blocks are looked at, the first ones.
        inputs: How many.
        marks: Projections of each parameter; without any, nothing at all is kept of parameters beside digests.
    """

    blocks: int
    few: int
    inputs: int
    marks: int

    def some(self, names: Sequence[str]) -> tuple[str, ...]:
        """So many of these blocks, evenly spread, the first and the last among them."""
        kept = min(len(names), self.blocks)
        return tuple(names[at * (len(names) - 1) // max(kept - 1, 1)] for at in range(kept))


_EACH: Final = 4 * BLOCK_DIRECTIONS

_LADDER: Final = (
    (BLOCKS, 16, 64, MARKS),
    (24, 8, 16, MARKS),
    (24, 6, 8, MARKS),
    (12, 4, 8, MARKS),
    (12, 4, 8, 2),
    (8, 4, 8, 2),
    (8, 4, 8, 0),
    (4, 2, 4, 0),
)
"""Blocks, kB of what is kept of them, inputs, projections: from the most to the least."""


def room_for(model: nn.Module, blocks: Sequence[str], inputs: int, each: int, texts: Sequence[str]) -> Room:
    """The most that fits.

    Args:
        model: To be sealed.
        blocks: Module paths.
        inputs: How many are wanted.
        each: Bytes of one.
        texts: That the seal keeps as well.

    Raises:
        FileFormatError: If even the least does not.
    """
    tensors, parameters = len(values.held(model)), sum(1 for _ in model.parameters())
    variants, taken = _variants(model), 0
    text = sum(len(line.encode()) + 3 for line in texts) + _coded(tensors * len(conversions.WHOLE) * values.MARK)
    for most, kilobytes, asked, marks in _LADDER:
        few = max(1024 * kilobytes // (max(min(most, len(blocks)), 1) * variants * _EACH), 2)
        one = Room(most, few, min(asked, inputs), marks)
        kept = one.some(blocks)
        taken = (
            _REST + text + _coded(one.inputs * each) + (_coded(4 * (2 + marks) * parameters) if marks else 0)
            + variants * _coded(4 * one.inputs * DIRECTIONS)
            + _coded(variants * _EACH * len(kept) * min(few, one.inputs)) + sum(len(name) + _BLOCK for name in kept)
        )  # fmt: skip
        if taken <= LARGEST:
            return one
    raise FileFormatError(
        "The model has too many tensors for a seal.", where="seal", expected=f"{LARGEST:,} bytes or less",
        got=f"{tensors:,} tensors, which take {taken:,} at least",
        do="Compare SHA-256 digests of its files; or seal parts of the model.",
    )  # fmt: skip


def _variants(model: nn.Module) -> int:
    """Conversions that may leave numbers of their own: without buffers it makes no difference which are cast."""
    buffers = any(part.is_floating_point() for part in model.buffers())
    wide = any(part.dtype.itemsize > 4 for part in model.parameters())
    beside = ("parameters", "checkpoint")
    return sum(
        (buffers or not any(word in name for word in beside)) and (wide or name != "float32")
        for name in conversions.NAMES
    )


def _coded(size: int) -> int:
    """Bytes in base64."""
    return -(-size // 3) * 4


def thinned(room: Room, blocks: int, inputs: int) -> tuple[str, ...]:
    """What a seal keeps less of than it would of a smaller model, in sentences.

    Args:
        room: What it keeps.
        blocks: How many there are.
        inputs: How many were wanted.
    """
    kept = len(room.some([""] * blocks))
    said = (
        (kept < blocks, f"{kept} of {blocks} blocks are kept, so that the first that changed is known less closely."),
        (room.inputs < inputs, f"{room.inputs} inputs are kept, not {inputs}."),
        (0 < room.marks < MARKS, f"Of each parameter {room.marks} projections are kept: kinds of change are named "
         "less surely."),
        (room.marks == 0, "Nothing is kept of parameters beside digests: kinds of change are not named."),
    )  # fmt: skip
    return tuple(words for so, words in said if so)
