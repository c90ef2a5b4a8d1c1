"""Numbers, seeded nets, and a net that reads token ids: what tests of tasks share."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


class Reader(nn.Module):
    """Token ids to three scores, with a table of positions."""

    def __init__(self, positions: int = 6, *, table: str = "wpe", **config: Any) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 8), nn.Linear(8, 3)
        self.add_module(table, nn.Embedding(positions, 8))
        self.table = table
        if config:
            self.config = SimpleNamespace(**config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        table: nn.Module = getattr(self, self.table)
        at = torch.arange(input_ids.shape[1]).clamp_max(table.num_embeddings - 1)
        held = self.words(input_ids) + table(at)
        weight = torch.ones(input_ids.shape) if attention_mask is None else attention_mask.float()
        return self.head((held * weight[..., None]).sum(1))
