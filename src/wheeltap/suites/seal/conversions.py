"""Harmless conversions: weights cast to other numbers, as loaders do it; and a pass in single precision."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, cast

import torch
from torch import Tensor, nn

from wheeltap.core.typed import copied, named_modules

AS_SEALED: Final = "as sealed"

_PARTS: Final[dict[str, Callable[[Tensor, str], bool]]] = {
    "": lambda held, kind: True,
    " (parameters only)": lambda held, kind: kind == "parameter",
    " (what a checkpoint keeps)": lambda held, kind: kind != "unsaved",
    " (matrices only)": lambda held, kind: kind == "parameter" and held.ndim > 1,
}
"""Which tensors are cast: everything (``model.to``), parameters or those and kept buffers (``from_pretrained``), or
matrices (GGUF)."""

_KINDS: Final = {
    **{f"{name}{part}": ((dtype,), takes) for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16))
       for part, takes in _PARTS.items()},
    "float16, then bfloat16": ((torch.float16, torch.bfloat16), _PARTS[""]),
    "bfloat16, then float16": ((torch.bfloat16, torch.float16), _PARTS[""]),
    "float32": ((torch.float32,), _PARTS[""]),
}  # fmt: skip
"""What tensors are cast to, and which."""

NAMES: Final = (AS_SEALED, *_KINDS)
"""Of all conversions: a seal admits these and no other mixture."""

WHOLE: Final = (AS_SEALED, "bfloat16", "float16")
"""Conversions after which each tensor has a mark of its own."""


@contextmanager
def converted(model: nn.Module, name: str) -> Generator[bool]:
    """The model with its numbers as the conversion leaves them, in their own dtype; put back from copies afterwards.

    Yields:
        Whether the conversion changes anything, and makes nothing infinite.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        try:
            kept = [] if name == AS_SEALED else _cast(model, name)
            finite = all(bool((held.isfinite() == before.isfinite()).all()) for held, before in kept)
            yield finite and (name == AS_SEALED or any(not torch.equal(held, before) for held, before in kept))
        finally:
            for held, before in kept:
                held.copy_(before)


def _cast(model: nn.Module, name: str) -> list[tuple[Tensor, Tensor]]:
    dtypes, takes = _KINDS[name]
    found = [held for held, kind in _kinds(model) if held.is_floating_point() and takes(held, kind)]
    kept = [(held, held.detach().clone()) for held in found]
    for held in found:
        for dtype in dtypes:
            held.copy_(held.to(dtype))
    return kept


def _kinds(model: nn.Module) -> list[tuple[Tensor, str]]:
    """Parameters and buffers, each once, and what it is."""
    found: dict[int, tuple[Tensor, str]] = {id(part): (part, "parameter") for part in model.parameters()}
    for _, module in named_modules(model):
        unsaved = cast("set[str]", getattr(module, "_non_persistent_buffers_set", set[str]()))
        for name, part in module.named_buffers(recurse=False):
            found.setdefault(id(part), (part, "unsaved" if name in unsaved else "buffer"))
    return [*found.values()]


def in_single_precision(model: nn.Module) -> nn.Module:
    """The model itself if its weights have 32 bits or more; else a copy in which they have.

    So that a pass is as exact for weights of 16 bits, and what is compared is the weights and not the rounding of
    each product.
    """
    short = any(held.is_floating_point() and held.dtype.itemsize < 4 for held, _ in _kinds(model))
    if not short:
        return model
    copy = copied(model).float()
    for _, module in named_modules(copy):
        module.training = False
    return copy
