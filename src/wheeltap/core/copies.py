"""Copies of models."""

import copy
from collections.abc import Iterable

from torch import Tensor, nn


def copied(model: nn.Module, *, sharing: Iterable[nn.Parameter] = ()) -> nn.Module:
    """A deep copy, but for the parameters that it is to share.

    A weight that a hook computes anew in each pass (old-style weight and spectral norm) may come from a graph, which
    torch refuses to copy: its numbers are copied.

    Raises:
        TypeError: If something that the model holds cannot be copied; also RuntimeError, NotImplementedError.
    """
    known: dict[int, object] = {id(parameter): parameter for parameter in sharing}
    for module in model.modules():
        for held in vars(module).values():
            if isinstance(held, Tensor) and not held.is_leaf:
                known[id(held)] = held.detach().clone()
    return copy.deepcopy(model, known)
