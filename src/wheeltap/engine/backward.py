"""Backward passes through models in eval mode."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def differentiable(model: nn.Module) -> Generator[None]:
    """While the block runs, gradients can be had of ``model``, whatever its modules.

    Of recurrent layers cuDNN has them in training mode alone; torch's own kernels, which then take its place, always.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = before and not recurrent
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
