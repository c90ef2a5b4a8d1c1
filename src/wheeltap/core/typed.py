"""Typed views of torch functions whose own annotations leave types unknown."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every submodule once, with its path; the model itself has the empty path."""
    return cast("Iterator[tuple[str, nn.Module]]", model.named_modules())


def to_tensor(array: NDArray[Any], *, like: Tensor | None = None) -> Tensor:
    """The array as a tensor (sharing memory where nothing changes), on the device and in the dtype of ``like``."""
    tensor: Tensor = torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
    return tensor if like is None else tensor.to(device=like.device, dtype=like.dtype)


def to_array(tensor: Tensor) -> NDArray[np.float32]:
    """The tensor's numbers on the CPU, in single precision."""
    return cast("NDArray[np.float32]", tensor.detach().float().cpu().numpy())


_TOGETHER = 1024
"""Squares that are summed in single precision. Of millions a running sum would be wrong by percents."""


def _norm(tensor: Tensor, **how: Any) -> Tensor:
    return torch.linalg.vector_norm(tensor, **how)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def squares(tensor: Tensor) -> float:
    """Sum of squares: in single precision or better within a block of numbers, in double precision over the blocks."""
    wide = tensor if tensor.dtype.itemsize >= 4 else tensor.float()
    if wide.numel() <= _TOGETHER:
        return _norm(wide).item() ** 2
    if not wide.is_contiguous():
        return _norm(wide, dtype=torch.float64).item() ** 2
    flat = wide.view(-1)
    whole = flat.numel() - flat.numel() % _TOGETHER
    blocks = _norm(flat[:whole].view(-1, _TOGETHER), dim=1)
    return blocks.double().square().sum().item() + _norm(flat[whole:]).item() ** 2
