"""Harmless conversions: weights rounded to 16 bits, in the ways in which loaders do it; a pass in single precision."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from wheeltap.core.copies import copied
from wheeltap.core.typed import named_modules

AS_SEALED: Final = "as sealed"

_PARTS: Final[dict[str, Callable[[Tensor, bool], bool]]] = {
    "": lambda held, is_parameter: True,
    " (buffers kept)": lambda held, is_parameter: is_parameter,
    " (matrices only)": lambda held, is_parameter: is_parameter and held.ndim > 1,
}
"""Which tensors are rounded: everything (``model.to``), parameters (``from_pretrained``), or matrices (GGUF)."""

_KINDS: Final = {
    **{f"{name}{part}": ((dtype,), takes) for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16))
       for part, takes in _PARTS.items()},
    "float16, then bfloat16": ((torch.float16, torch.bfloat16), _PARTS[""]),
}  # fmt: skip
"""What tensors are rounded to, and which."""

NAMES: Final = (AS_SEALED, *_KINDS)
"""Of all conversions."""


@contextmanager
def converted(model: nn.Module, name: str) -> Generator[bool]:
    """The model with its numbers as the conversion leaves them, in their own dtype; put back from copies afterwards.

    Yields:
        Whether the conversion changes anything, and everything stays finite.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        try:
            kept = [] if name == AS_SEALED else _rounded(model, name)
            finite = all(bool(torch.isfinite(held).all()) for held, _ in kept if held.is_floating_point())
            yield finite and (name == AS_SEALED or any(not torch.equal(held, before) for held, before in kept))
        finally:
            for held, before in kept:
                held.copy_(before)


def _rounded(model: nn.Module, name: str) -> list[tuple[Tensor, Tensor]]:
    dtypes, takes = _KINDS[name]
    found = [
        held
        for is_parameter, tensors in ((True, model.parameters()), (False, model.buffers()))
        for held in tensors
        if held.is_floating_point() and takes(held, is_parameter)
    ]
    kept = [(held, held.detach().clone()) for held in found]
    for held in found:
        for dtype in dtypes:
            held.copy_(held.to(dtype))
    return kept


def in_single_precision(model: nn.Module) -> nn.Module:
    """The model itself if its weights have 32 bits or more; else a copy in which they have.

    So that a pass is as exact for weights of 16 bits, and what is compared is the weights and not the rounding of
    each product.
    """
    short = any(
        held.is_floating_point() and held.dtype.itemsize < 4 for held in (*model.parameters(), *model.buffers())
    )
    if not short:
        return model
    copy = copied(model).float()
    for _, module in named_modules(copy):
        module.eval()
    return copy
