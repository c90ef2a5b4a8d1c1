"""A decoder like GPT-2 whose parts can be named and masked one by one: what sparse and dense twins are trained as.

Each block reads the stream through a norm without weights, and adds what its attention and then its hidden units give.
Every matrix is a ``Linear`` of its own: a circuit is a set of their inputs, outputs and weights.

Source: Gao et al. 2025, arXiv:2511.13653, section 2 and appendix A (RMSNorm, small heads, attention sinks, table of
bigrams).
"""

from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import UsageError

_SPREAD: Final = 0.02
"""Standard deviation of initial embeddings, and bound of initial bigrams."""

_SOFT: Final = 1e-5
"""Added to mean squares by norms."""

_HIDDEN: Final = 4
"""Hidden units for each feature of the stream."""


@final
@dataclass(frozen=True)
class Shape:
    """Of a net.

    Attributes:
        vocabulary: Tokens that there are.
        places: Tokens that it reads at most.
        layers: Blocks.
        width: Features of the stream.
        head: Features of a head's queries, keys and values.
    """

    vocabulary: int
    places: int = 48
    layers: int = 2
    width: int = 128
    head: int = 16

    def __post_init__(self) -> None:
        counts = (self.vocabulary, self.places, self.layers, self.width, self.head)
        if min(counts) < 1 or self.width % self.head:
            raise UsageError(
                "There is no sparse transformer of this shape.",
                where="wheeltap.suites.circuits.nets.sparse_transformer",
                expected="counts of at least 1, a width of whole heads",
                got=str(self),
            )


@final
class SparseAttention(nn.Module):
    """What each place takes from itself and those before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.width // shape.head
        self.query, self.key, self.value, self.output = (nn.Linear(shape.width, shape.width) for _ in range(4))
        self.sink = nn.Parameter(torch.zeros(self.heads))

    def forward(self, stream: Tensor) -> Tensor:
        """``[example, place, feature]``."""
        query, key, value = (self._by_head(part(stream)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        later = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
        # Each head may attend to nothing: a place before the first one, whose value is 0.
        sinks = self.sink[:, None, None].expand(*scores.shape[:3], 1)
        weights = torch.cat([sinks, scores], -1).softmax(-1)[..., 1:]
        return self.output((weights @ value).transpose(1, 2).flatten(2))

    def _by_head(self, features: Tensor) -> Tensor:
        """``[example, place, feature]`` as ``[example, head, place, feature]``."""
        examples, places, _ = features.shape
        return features.reshape(examples, places, self.heads, -1).transpose(1, 2)


@final
class SparseMlp(nn.Module):
    """Hidden units of each place."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.rise, self.unit = nn.Linear(shape.width, _HIDDEN * shape.width), nn.GELU()
        self.fall = nn.Linear(_HIDDEN * shape.width, shape.width)

    def forward(self, stream: Tensor) -> Tensor:
        """``[example, place, feature]``."""
        return self.fall(self.unit(self.rise(stream)))


@final
class SparseBlock(nn.Module):
    """Attention and hidden units, each added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm, self.attention = _norm(shape), SparseAttention(shape)
        self.mlp_norm, self.mlp = _norm(shape), SparseMlp(shape)

    def forward(self, stream: Tensor) -> Tensor:
        """``[example, place, feature]``."""
        stream = stream + self.attention(self.attention_norm(stream))
        return stream + self.mlp(self.mlp_norm(stream))


@final
class SparseTransformer(nn.Module):
    """A causal language model; its weights are dense until training makes them sparse.

    Args:
        shape: See ``Shape``.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Embedding(shape.places, shape.width)
        self.blocks = nn.ModuleList(SparseBlock(shape) for _ in range(shape.layers))
        self.norm, self.unembed = _norm(shape), nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.bigram = nn.Embedding(shape.vocabulary, shape.vocabulary)
        for table in (self.embed, self.position):
            nn.init.normal_(table.weight, std=_SPREAD)
        nn.init.uniform_(self.bigram.weight, 0.0, _SPREAD)

    def forward(self, tokens: Tensor) -> Any:
        """Scores of each next token, ``[example, place, token]``, of tokens ``[example, place]``."""
        stream = self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            stream = block(stream)
        return self.unembed(self.norm(stream)) + self.bigram(tokens)


def _norm(shape: Shape) -> nn.RMSNorm:
    return nn.RMSNorm(shape.width, eps=_SOFT, elementwise_affine=False)
