"""What a gauge family offers: recognise a model by its structure, then rewrite a copy of it in place."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self, cast, final

import numpy as np
from torch import Tensor, nn

from wheeltap.gauge.hidden import Hidden
from wheeltap.gauge.settings import Cancel, Recode


@final
@dataclass(frozen=True)
class Refusal:
    """Why no gauge of a family (or of any family) is known to hold for a model.

    Attributes:
        because: Plain words, one reason after another.
        recognised: What was recognised on the way, such as the tied pair that had to be refused.
    """

    because: str
    recognised: tuple[str, ...] = ()


class Family(ABC):
    """Hidden layers of one kind of architecture, found in a model, that can be rewritten without changing it.

    A family holds addresses, never tensors: what was found in a model can be applied to each copy of it.

    Attributes:
        name: Recorded in derivations.
        hiddens: The hidden layers that can be rewritten, in order of computation.
        refused: Reasons for the parts of the model that are left as they are.
    """

    name: ClassVar[str]
    hiddens: tuple[Hidden, ...]
    refused: tuple[str, ...]

    @classmethod
    @abstractmethod
    def recognise(cls, model: nn.Module) -> Self | Refusal:
        """What of ``model`` this family can rewrite, by structure alone: no forward pass, nothing changed."""

    @abstractmethod
    def recode(self, model: nn.Module, rng: np.random.Generator, *, settings: Recode) -> None:
        """Rewrite ``model`` (a copy of the recognised one) in place with permuted and rescaled units.

        Args:
            model: The copy.
            rng: Drawn from in the order of ``hiddens``.
            settings: Spread and permutation.
        """

    @abstractmethod
    def cancel(self, model: nn.Module, rng: np.random.Generator, *, settings: Cancel) -> None:
        """Add cancelling pairs of units to ``model`` (a copy of the recognised one) in place.

        Args:
            model: The copy.
            rng: Drawn from in the order of ``hiddens``.
            settings: Number and strength of the pairs.

        Raises:
            ModelError: If no hidden layer can be widened.
        """


def _extent(tensor: Tensor) -> tuple[str, int, int]:
    """Device, first and last byte of the memory that ``tensor`` reaches."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return str(tensor.device), start, start + last * tensor.element_size()


@final
class Sharing:
    """Which tensors of a model are held by more than one module, or overlap in memory with another one."""

    def __init__(self, model: nn.Module) -> None:
        """Look at where every parameter and buffer of ``model`` lies in memory."""
        # By memory, not by name: two parameters may be views of the same numbers. Buffers count too.
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        extents = sorted(_extent(tensor) for _, tensor in named if tensor.numel())
        self._shared: set[tuple[str, int]] = set()
        far = ("", -1, -1)
        for extent in extents:
            if extent[0] == far[0] and extent[1] <= far[2]:
                self._shared |= {extent[:2], far[:2]}
            if extent[0] != far[0] or extent[2] > far[2]:
                far = extent

    def shared(self, module: nn.Module) -> bool:
        """Whether any tensor that ``module`` itself holds is also held elsewhere."""
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        return any(_extent(tensor)[:2] in self._shared for tensor in own if tensor.numel())


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by each path that leads to it."""
    return dict(cast("Iterator[tuple[str, nn.Module]]", model.named_modules(remove_duplicate=False)))


def altered(module: nn.Module) -> str | None:
    """Why what ``module`` computes is not what its class says: hooks, an overridden forward; ``None`` if it is."""
    held = vars(module)
    if held.get("_forward_hooks") or held.get("_forward_pre_hooks"):
        return "it has forward hooks"
    if "forward" in held:
        return "its forward method was replaced"
    return None
