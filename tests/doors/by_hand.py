"""Numbers and layers made by hand, and the verdicts of a report."""

import torch
from torch import Tensor, nn

import wheeltap as wt


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.eval()


def verdicts(report: wt.Report) -> dict[str | None, str]:
    return {row.scheme: row.verdict for row in report["WT100"]}
