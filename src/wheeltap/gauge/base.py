"""What every family of architectures gives: the gauges that hold on a model, their names and their settings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast, final

import msgspec
import numpy as np
from msgspec import Meta
from torch import Tensor, nn

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.settings import ChoiceRecord
from wheeltap.gauge.hidden import HiddenLayer, weight_of

GAUGES: dict[str, tuple[str, ...]] = {
    "permute": (),
    "rescale": ("spread", "exact"),
    "split": ("copies", "share"),
    "cancel": ("pairs", "scale", "jitter", "layers"),
    "dead": ("units",),
    "entangle": ("share", "strength"),
    "heads": (),
    "experts": (),
    "value": ("condition",),
    "query": ("condition",),
    "fold": (),
    "shift": (),
    "rotate": (),
    "regroup": (),
}
"""Every gauge, in canonical order, with the settings that belong to it."""

Amount = Annotated[int, Meta(ge=1, le=1_000_000)] | Annotated[float, Meta(gt=0, le=4)]
"""A count of units (whole number), or a share of a layer's width (``0.5``)."""


@final
class GaugeSettings(ChoiceRecord, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of all gauges. ``GAUGES`` says which belongs to which.

    Attributes:
        spread: ``rescale``: standard deviation of the natural logarithm of the factors.
        exact: ``rescale``: factors are powers of two, so that outputs stay the same bit for bit.
        copies: ``split``: units that one unit becomes.
        share: ``split``, ``entangle``: share of a layer's units that are split; at least one is.
        pairs: ``cancel``: pairs added to each hidden layer.
        scale: ``cancel``: standard deviation of the outgoing weights of a pair, in units of that of the layer.
        jitter: ``cancel``: each pair reads what some existing unit reads, each weight times ``1 + jitter x normal``.
            At 0 the pairs are exact duplicates of existing units; else they read_settings something new.
        layers: ``cancel``: in how many of the hidden layers, drawn at random; 0 for every one.
        units: ``dead``: units added to each hidden layer.
        strength: ``entangle``: size of what is added to one half and taken from the other, in units of the outgoing
            weights that it copies.
        condition: ``value``, ``query``: largest ratio of two singular values of the matrices drawn.
    """

    spread: Annotated[float, Meta(gt=0, le=4)] = 1.0
    exact: bool = False
    copies: Annotated[int, Meta(ge=2, le=64)] = 2
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    pairs: Amount = 0.5
    scale: Annotated[float, Meta(gt=0, le=1000)] = 4.0
    jitter: Annotated[float, Meta(ge=0, le=4)] = 0.0
    layers: Annotated[int, Meta(ge=0)] = 0
    units: Amount = 0.25
    strength: Annotated[float, Meta(gt=0, le=1000)] = 2.0
    condition: Annotated[float, Meta(ge=1, le=1000)] = 4.0


def count(amount: float, units: int) -> int:
    """How many units ``amount`` is in a layer of ``units``; at least one."""
    return amount if isinstance(amount, int) else max(1, round(amount * units))


def read_settings(operations: Sequence[str], settings: Mapping[str, Scalar]) -> GaugeSettings:
    """The settings of ``operations``, with defaults for what is not named.

    Raises:
        UnknownName: If there is no such gauge or setting.
        UsageError: If a value is out of range, a setting belongs to none of ``operations``, or there are none.
    """
    if not operations or len(set(operations)) < len(operations):
        raise UsageError(
            "A copy is made by one gauge or several different ones.",
            expected=", ".join(GAUGES),
            got=", ".join(operations) or "no gauge",
            do="Name each gauge once.",
        )
    for name in operations:
        if name not in GAUGES:
            raise UnknownName("gauge", name, GAUGES)
    for name in settings:
        if name not in GaugeSettings.__struct_fields__:
            raise UnknownName("gauge setting", name, GaugeSettings.__struct_fields__)
        owners = [gauge for gauge, names in GAUGES.items() if name in names]
        if not set(owners) & set(operations):
            raise UsageError(
                f"The setting {name!r} belongs to no gauge that was asked for.",
                expected=" or ".join(owners),
                got=", ".join(operations),
                do=f"Ask for {' or '.join(owners)} as well, or leave {name} out.",
            )
    try:
        return msgspec.convert(dict(settings), GaugeSettings)
    except msgspec.ValidationError as error:
        raise UsageError(
            "A gauge setting cannot be used.",
            where=", ".join(operations),
            expected=str(error).removeprefix("Expected "),
            got=", ".join(f"{name}={value!r}" for name, value in sorted(settings.items())),
            do="Give a value in range, or leave the setting out for its default.",
        ) from None


def written_settings(operations: Sequence[str], settings: GaugeSettings) -> dict[str, Scalar]:
    """Every setting of ``operations`` by name, defaults included, as a derivation records them.

    ``exact`` and ``layers`` came later: at their defaults they are left out, so that what was recorded before is found.
    """
    used = {name for gauge in operations for name in GAUGES[gauge]}
    named = {name: value for name, value in msgspec.structs.asdict(settings).items() if name in used}
    return {name: value for name, value in named.items() if name not in ("exact", "layers") or value}


Move = Callable[[nn.Module, np.random.Generator, GaugeSettings], None]
"""Rewrites a copy of a recognised model in place."""

Rewrite = Callable[[nn.Module, Any, np.random.Generator, GaugeSettings], None]
"""Rewrites one part of it: a layer, or what else was found."""


def in_turn(
    model: nn.Module, rng: np.random.Generator, settings: GaugeSettings, *, parts: Sequence[Any], rewrite: Rewrite
) -> None:
    """Rewrites some parts of a model one after another: a ``Move``, once it is known which and how."""
    for part in parts:
        rewrite(model, part, rng, settings)


Gauges = tuple[dict[str, Move], tuple[str, ...]]
"""What rewrites a copy, by gauge that holds; and reasons for the others."""

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
        recurrent: Recurrent layers that some gauge holds on.
    """

    name: str
    hiddens: tuple[HiddenLayer, ...]
    moves: Mapping[str, Move]
    refused: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    normed: tuple[tuple[str, str], ...] = ()
    recurrent: tuple[str, ...] = ()

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
class SharedTensors:
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
