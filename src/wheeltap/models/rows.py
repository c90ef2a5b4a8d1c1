"""A small GPT: it reads the rows of an image as places, each after those above it."""

from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS: Final = 4


@final
class Block(nn.Module):
    """Attention to this place and those before it, then hidden units; each reads what a norm gives.

    Args:
        width: Of what a place holds; a quarter of the hidden units.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.together, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, stream: Tensor) -> Tensor:
        """The stream after the block, ``[image, place, feature]``."""
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.together(self.first(stream)).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        stream = stream + self.output(mixed.transpose(1, 2).flatten(2))
        return stream + self.down(functional.gelu(self.up(self.second(stream))))


@final
class RowReader(nn.Module):
    """Blocks as those of GPT-2, with a place of this width for each row of a square image; the last place answers."""

    def __init__(self, side: int, width: int, *, blocks: int, outputs: int) -> None:
        super().__init__()
        self.side = side
        self.read, self.place = nn.Linear(side, width), nn.Embedding(side, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.norm, self.answer = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[image, class]`` of images, flat or not."""
        stream = self.read(inputs.reshape(len(inputs), self.side, self.side))
        stream = stream + self.place(torch.arange(self.side, device=inputs.device))
        return self.answer(self.norm(self.blocks(stream))[:, -1])
