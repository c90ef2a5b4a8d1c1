"""Nets of plain torch on digits, read whole or row by row: dense, tied, normed, mixed, recurrent, attending."""

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.nets.zoo.member import Digits, Member
from wheeltap.models.mlp import mlp
from wheeltap.recipes.train import TrainSettings


class Rows(nn.Module):
    """A recurrent net that reads an image row by row."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(body.hidden_size, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]`` of ``[example, 8, 8]``."""
        return self.head(self.body(x)[0][:, -1])


class Attending(nn.Module):
    """Torch's own encoder over the rows of an image, with positions that are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.places = nn.Linear(8, 32), nn.Parameter(0.1 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]`` of ``[example, 8, 8]``."""
        return self.head(self.body(self.enter(x) + self.places).mean(1))


class TiedCode(nn.Module):
    """An autoencoder with one matrix for both ways, and a classifier of what it gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 48)
        self.offset = nn.Parameter(torch.zeros(64))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]``."""
        code = self.encode(x).relu()
        return self.head((code @ self.encode.weight + self.offset).relu())


class Experts(nn.Module):
    """A list of small MLPs, of which a router asks the best two."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.router = nn.Linear(64, 32), nn.Linear(32, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(4))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]``."""
        hidden = self.enter(x).relu()
        weights, chosen = self.router(hidden).softmax(-1).topk(2, -1)
        mixed = hidden
        for at, expert in enumerate(self.experts):
            rows, slots = (chosen == at).nonzero(as_tuple=True)
            mixed = mixed.index_add(0, rows, weights[rows, slots, None] * expert(hidden[rows]))
        return self.head(mixed)


def _normed() -> nn.Module:
    sizes, layers = (64, 64, 48, 10), list[nn.Module]()
    for reads, writes in pairwise(sizes):
        layers += [parametrizations.weight_norm(nn.Linear(reads, writes)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


_TRAINING, _RECURRENT = TrainSettings(epochs=15), TrainSettings(epochs=30)

MEMBERS: Final = (
    Member("mlp", "MLP", lambda: mlp((64, 64, 64, 10)), Digits(), training=_TRAINING),
    Member("weight-norm", "MLP, weight norm", _normed, Digits(), training=_TRAINING),
    Member("tied", "Weight-tied autoencoder", TiedCode, Digits(), training=_TRAINING),
    Member("experts", "Experts as a ModuleList", Experts, Digits(), training=_TRAINING),
    Member("lstm", "LSTM", lambda: Rows(nn.LSTM(8, 40, batch_first=True)), Digits(8, 8), training=_RECURRENT),
    Member("gru", "GRU", lambda: Rows(nn.GRU(8, 40, batch_first=True)), Digits(8, 8), training=_RECURRENT),
    Member("encoder", "nn.TransformerEncoder", Attending, Digits(8, 8), training=_TRAINING),
)
