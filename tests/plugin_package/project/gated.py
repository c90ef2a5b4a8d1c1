"""Nets of a project that has wheeltap installed."""

import torch
from torch import nn


def examples(count=800):
    draw = torch.Generator().manual_seed(1)
    centers = torch.randn(4, 16, generator=draw)
    labels = torch.arange(count) % 4
    return centers[labels] + 0.5 * torch.randn(count, 16, generator=draw), labels


def net():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    inputs, labels = examples()
    steps = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(60):
        steps.zero_grad()
        nn.functional.cross_entropy(made(inputs), labels).backward()
        steps.step()
    return made.eval()


def broken():
    """The same answers; one weight of the first layer is so large that 4 bits lose all others."""
    made = net()
    with torch.no_grad():
        made[0].weight[0] *= 1000.0
        made[0].bias[0] *= 1000.0
        made[2].weight[:, 0] /= 1000.0
    return made
