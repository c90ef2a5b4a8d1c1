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


def squares(tensor: Tensor) -> float:
    """Sum of squares, accumulated in at least single precision."""
    wide = tensor if tensor.dtype.itemsize >= 4 else tensor.float()
    return float(torch.linalg.vector_norm(wide)) ** 2  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
