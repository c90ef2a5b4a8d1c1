"""What every family of architectures gives: the gauges that hold on a model, found by its structure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast, final

import numpy as np
from torch import Tensor, nn

from wheeltap.core.errors import UnknownName
from wheeltap.gauge.hidden import Hidden, weight_of
from wheeltap.gauge.settings import GAUGES, Settings

Move = Callable[[nn.Module, np.random.Generator, Settings], None]
"""Rewrites a copy of a recognised model in place."""

BITWISE = frozenset({"permute", "rescale", "cancel", "dead", "heads", "experts"})
"""Gauges that keep every bit of what is computed: they move, negate, copy or scale by powers of two."""


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


@final
@dataclass(frozen=True)
class Family:
    """A model whose structure was recognised: its hidden layers, and the gauges that hold on it.

    A family holds addresses, never tensors: what was found in a model can be applied to each copy of it.

    Attributes:
        name: Recorded in derivations.
        hiddens: The hidden layers that can be rewritten, in order of computation.
        moves: By gauge, what rewrites a copy in place.
        refused: Reasons for the gauges, and the parts of the model, that are left as they are.
        called: Layers of which nothing but a call is used, as far as the code was traced.
        normed: Those that one batch norm alone reads, each with that.
    """

    name: str
    hiddens: tuple[Hidden, ...]
    moves: Mapping[str, Move]
    refused: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    normed: tuple[tuple[str, str], ...] = ()

    @property
    def offers(self) -> tuple[str, ...]:
        """The gauges that hold on this model, in canonical order."""
        return tuple(gauge for gauge in GAUGES if gauge in self.moves)

    def why_not(self, gauge: str) -> str:
        """Why a gauge is not offered.

        Raises:
            UnknownName: If there is no such gauge.
        """
        if gauge not in GAUGES:
            raise UnknownName("gauge", gauge, GAUGES)
        reasons = [reason for reason in self.refused if gauge in reason.partition(":")[0].replace(",", " ").split()]
        return "; ".join(reasons) or f"{gauge}: nothing in a model of this kind can be rewritten so"


def inexact(model: nn.Module, gauge: str, *paths: str) -> bool:
    """Whether rewriting the weights at ``paths`` would round the function: 16-bit weights, and more than bits moved."""
    return gauge not in BITWISE and any(weight_of(model.get_submodule(path)).dtype.itemsize < 4 for path in paths)


ROUNDED = "it would not be exact in 16-bit weights"


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
