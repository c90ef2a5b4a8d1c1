"""The names of the gauges and their settings: what a derivation records, checked when it is read."""

from collections.abc import Mapping, Sequence
from typing import Annotated, final

import msgspec
from msgspec import Meta

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.settings import ChoiceRecord

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
class Settings(ChoiceRecord, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of all gauges. ``GAUGES`` says which belongs to which.

    Attributes:
        spread: ``rescale``: standard deviation of the natural logarithm of the factors.
        exact: ``rescale``: factors are powers of two, so that outputs stay the same bit for bit.
        copies: ``split``: units that one unit becomes.
        share: ``split``, ``entangle``: share of a layer's units that are split; at least one is.
        pairs: ``cancel``: pairs added to each hidden layer.
        scale: ``cancel``: standard deviation of the outgoing weights of a pair, in units of that of the layer.
        jitter: ``cancel``: each pair reads what some existing unit reads, each weight times ``1 + jitter x normal``.
            At 0 the pairs are exact duplicates of existing units; else they read something new.
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


def read(operations: Sequence[str], settings: Mapping[str, Scalar]) -> Settings:
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
        _require_used(name, operations)
    try:
        return msgspec.convert(dict(settings), Settings)
    except msgspec.ValidationError as error:
        raise UsageError(
            "A gauge setting cannot be used.",
            where=", ".join(operations),
            expected=str(error).removeprefix("Expected "),
            got=", ".join(f"{name}={value!r}" for name, value in sorted(settings.items())),
            do="Give a value in range, or leave the setting out for its default.",
        ) from None


def _require_used(name: str, operations: Sequence[str]) -> None:
    if name not in Settings.__struct_fields__:
        raise UnknownName("gauge setting", name, Settings.__struct_fields__)
    owners = [gauge for gauge, names in GAUGES.items() if name in names]
    if not set(owners) & set(operations):
        raise UsageError(
            f"The setting {name!r} belongs to no gauge that was asked for.",
            expected=" or ".join(owners),
            got=", ".join(operations),
            do=f"Ask for {' or '.join(owners)} as well, or leave {name} out.",
        )


def written(operations: Sequence[str], settings: Settings) -> dict[str, Scalar]:
    """Every setting of ``operations`` by name, defaults included, as a derivation records them.

    ``exact`` and ``layers`` came later: at their defaults they are left out, so that what was recorded before is found.
    """
    used = {name for gauge in operations for name in GAUGES[gauge]}
    named = {name: value for name, value in msgspec.structs.asdict(settings).items() if name in used}
    return {name: value for name, value in named.items() if name not in ("exact", "layers") or value}
