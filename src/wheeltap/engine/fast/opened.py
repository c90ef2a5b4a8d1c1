"""Attention of torch itself, opened up: its output layer called as a module, so that hooks see what its heads mix."""

import copy
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from wheeltap.engine.fast.folded import computing


@contextmanager
def opened(model: nn.Module, paths: Iterable[str]) -> Generator[None]:
    """While the block runs, each ``nn.MultiheadAttention`` among ``paths`` calls its output layer as a module.

    It computes the same otherwise. Torch would take short cuts around the modules of an encoder: none are taken.
    """
    modules = [model.get_submodule(path) for path in paths]
    packed = [module for module in modules if isinstance(module, nn.MultiheadAttention)]
    shortcut = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as undo:
        if packed:
            undo.callback(torch.backends.mha.set_fastpath_enabled, shortcut)
            torch.backends.mha.set_fastpath_enabled(False)
        for module in packed:
            undo.enter_context(computing(module, _in_two_steps(module)))
        yield


def _in_two_steps(module: nn.MultiheadAttention) -> Callable[..., Any]:
    mixing = copy.deepcopy(module)
    width: int = module.embed_dim
    like = module.out_proj.weight
    with torch.no_grad():
        mixing.out_proj.weight.copy_(torch.eye(width, dtype=like.dtype, device=like.device))
        if mixing.out_proj.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] - without biases it is
            mixing.out_proj.bias.zero_()
    mixing.requires_grad_(False)

    def forward(*args: Any, **kwargs: Any) -> Any:
        mixed, weights = mixing(*args, **kwargs)
        return module.out_proj(mixed), weights

    return forward
