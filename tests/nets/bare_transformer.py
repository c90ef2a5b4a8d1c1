"""A transformer without norms: what a component writes is what every later one reads, so weights can be given by hand.

Each block is attention, then an MLP of ReLU units, both added to what the place holds. All projections are linear
layers of their own, with the names that trained decoders here have.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn


@final
@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of such a net.

    Attributes:
        tokens: That it reads.
        places: Longest sequence.
        classes: Of logits at each place.
        layers: Blocks.
        heads: In each block.
        head: Width of each head.
        units: In each MLP.
        width: Of what a place holds.
        causal: Whether a place reads itself and those before it alone.
    """

    tokens: int
    places: int
    classes: int
    layers: int
    heads: int
    head: int
    units: int
    width: int
    causal: bool = False


@final
class Attention(nn.Module):
    """What each place takes from all places (or from those up to itself), ``[example, place, feature]``.

    Args:
        shape: Of the net.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner = shape.heads * shape.head
        self.query, self.key, self.value = (nn.Linear(shape.width, inner) for _ in range(3))
        self.output = nn.Linear(inner, shape.width)
        self.heads, self.causal = shape.heads, shape.causal

    def forward(self, stream: Tensor) -> Tensor:
        """What is added to each place, ``[example, place, feature]``."""
        query, key, value = (self._by_head(part(stream)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return self.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    def _by_head(self, values: Tensor) -> Tensor:
        """``[example, place, feature]`` as ``[example, head, place, feature]``."""
        return values.view(*values.shape[:-1], self.heads, -1).transpose(1, 2)


@final
class Mlp(nn.Module):
    """ReLU units of each place.

    Args:
        shape: Of the net.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.rise, self.fall = nn.Linear(shape.width, shape.units), nn.Linear(shape.units, shape.width)

    def forward(self, stream: Tensor) -> Tensor:
        """What is added to each place, ``[example, place, feature]``."""
        return self.fall(self.rise(stream).relu())


@final
class Block(nn.Module):
    """Attention, then an MLP.

    Args:
        shape: Of the net.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(shape), Mlp(shape)

    def forward(self, stream: Tensor) -> Tensor:
        """What each place holds afterwards, ``[example, place, feature]``."""
        stream = stream + self.attention(stream)
        return stream + self.mlp(stream)


@final
class BareTransformer(nn.Module):
    """Tokens ``[example, place]`` to logits ``[example, place, class]``; all weights are 0 at first.

    Args:
        shape: Its sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed, self.position = nn.Embedding(shape.tokens, shape.width), nn.Embedding(shape.places, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.unembed = nn.Linear(shape.width, shape.classes)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Any:
        """Logits ``[example, place, class]``."""
        stream = self._first(tokens)
        for block in self.blocks:
            stream = block(stream)
        return self.unembed(stream)

    def streams(self, tokens: Tensor) -> list[Tensor]:
        """What each attention reads, and each MLP, in turn, and at last the logits: ``[example, place, feature]``."""
        found = [self._first(tokens)]
        for layer in range(self.shape.layers):
            for part in (self.attention(layer), self.mlp(layer)):
                found.append(found[-1] + part(found[-1]))
        return found

    def _first(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))

    def attention(self, layer: int) -> Attention:
        """That of a block."""
        return self.get_submodule(f"blocks.{layer}.attention")  # pyright: ignore[reportReturnType]

    def mlp(self, layer: int) -> Mlp:
        """That of a block."""
        return self.get_submodule(f"blocks.{layer}.mlp")  # pyright: ignore[reportReturnType]
