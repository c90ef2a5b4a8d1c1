"""Small helpers on tensors and models: typed views of torch functions, copies, sums of squares, the largest of rows."""

import copy
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every submodule once, with its path; the model itself has the empty path."""
    return cast("Iterator[tuple[str, nn.Module]]", model.named_modules())


def first_of(model: nn.Module) -> Tensor:
    """A tensor that says where a model is and of which type: its first floating-point parameter, else buffer."""
    last = torch.zeros(0)
    for last in chain(model.parameters(), model.buffers()):
        if last.is_floating_point():
            return last
    return torch.zeros(0, device=last.device)


def inner(tensor: Tensor) -> list[Tensor]:
    """The tensors that one is made of whose class computes it from others, as torchao's packed weights; else none."""
    if not is_traceable_wrapper_subclass(tensor):
        return []
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]


def to_tensor(array: NDArray[Any], *, like: Tensor | None = None) -> Tensor:
    """The array as a tensor (sharing memory where nothing changes), on the device and in the dtype of ``like``."""
    tensor: Tensor = torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
    return tensor if like is None else tensor.to(device=like.device, dtype=like.dtype)


def to_array(tensor: Tensor) -> NDArray[np.float32]:
    """The tensor's numbers on the CPU, in single precision."""
    return cast("NDArray[np.float32]", tensor.detach().float().cpu().numpy())


_TOGETHER = 1024
"""Squares that are summed in single precision. Of millions a running sum would be wrong by percents."""


_BLOCK = 2**22
"""Numbers of 16 bits that are cast together."""


def _norm(tensor: Tensor, **how: Any) -> Tensor:
    return torch.linalg.vector_norm(tensor, **how)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def squares(tensor: Tensor) -> float:
    """Sum of squares: in single precision or better within a block of numbers, in double precision over the blocks."""
    if tensor.dtype.itemsize < 4 and tensor.numel() > _BLOCK:
        flat = tensor.reshape(-1)
        return sum(squares(flat[at : at + _BLOCK]) for at in range(0, len(flat), _BLOCK))
    wide = tensor if tensor.dtype.itemsize >= 4 else tensor.float()
    if wide.numel() <= _TOGETHER:
        return _norm(wide).item() ** 2
    if not wide.is_contiguous():
        return _norm(wide, dtype=torch.float64).item() ** 2
    flat = wide.view(-1)
    whole = flat.numel() - flat.numel() % _TOGETHER
    blocks = _norm(flat[:whole].view(-1, _TOGETHER), dim=1)
    return blocks.double().square().sum().item() + _norm(flat[whole:]).item() ** 2


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Generator[None]:
    """Puts back, when the block ends, what some tensors held when it began."""
    held = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, before in held:
            tensor.data.copy_(before)


def copied(model: nn.Module, *, sharing: Iterable[nn.Parameter] = (), emptied: bool = False) -> nn.Module:
    """A deep copy, but for the parameters that it is to share.

    Or it takes over the numbers of all parameters, and those of ``model`` are left ``emptied``. Of the copy those are
    ``alone`` that one module has under one name: they can be overwritten in place.

    A weight that a hook computes anew in each pass (old-style weight and spectral norm) may come from a graph, which
    torch refuses to copy: its numbers are copied.

    Raises:
        TypeError: If something that the model holds cannot be copied; also RuntimeError, NotImplementedError.
    """
    known: dict[int, object] = {id(parameter): parameter for parameter in sharing}
    if emptied:
        known = {id(one): nn.Parameter(one.data, requires_grad=one.requires_grad) for one in model.parameters()}
    for module in model.modules():
        for held in vars(module).values():
            if isinstance(held, Tensor) and not held.is_leaf:
                known[id(held)] = held.detach().clone()
    made = copy.deepcopy(model, known)
    names = Counter(id(one) for _, one in model.named_parameters(remove_duplicate=False))
    for parameter in model.parameters() if emptied else ():
        vars(known[id(parameter)]).update(vars(parameter), alone=names[id(parameter)] == 1)
        parameter.data = parameter.data.new_empty(0)
    return made


def largest(sizes: Tensor, keep: int) -> Tensor:
    """Which of each row's numbers are its largest, ``[..., number]``: so many of them; of equal ones the first.

    Args:
        sizes: ``[..., number]``, not negative. NaN counts as largest.
        keep: From 1 to the length of a row.
    """
    sizes = sizes.detach()
    if sizes.device.type != "cpu":
        edge = sizes.kthvalue(sizes.shape[-1] - keep + 1, dim=-1, keepdim=True).values
    else:
        # On rows of features numpy's partition takes a fifth of the time of torch's kthvalue or topk. From the largest
        # down: many zeros before what is sought would slow it down tenfold, and sparse matrices have them.
        exact = sizes if sizes.dtype in (torch.float32, torch.float64) else sizes.float()
        edge = -to_tensor(np.partition(-exact.numpy(), keep - 1, axis=-1)[..., keep - 1 : keep]).to(sizes.dtype)
    kept = ~(sizes < edge)
    if bool((kept.sum(-1) > keep).any()):
        equal = sizes == edge
        room = keep - (kept & ~equal).sum(-1, keepdim=True)
        kept &= ~equal | (equal.cumsum(-1) <= room)
    return kept


def connected(first: NDArray[Any], second: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the connected component of each of ``count`` nodes, by links from ``first`` to ``second``."""
    sparse, graphs = (cast("Any", import_module(f"scipy.sparse{part}")) for part in ("", ".csgraph"))
    links = sparse.coo_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    return graphs.connected_components(links, directed=False)[1].astype(np.int64)
