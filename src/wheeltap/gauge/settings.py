"""The settings of a gauge operation: what a derivation records, checked when it is read."""

from collections.abc import Mapping
from typing import Annotated, final

import msgspec
from msgspec import Meta

from wheeltap.errors import UnknownName, UsageError
from wheeltap.records import Scalar


@final
class Recode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rewrite a hidden layer in other coordinates: same units, other order and scale.

    Attributes:
        spread: Standard deviation of the natural logarithm of the rescaling factors; 0 rescales nothing.
        permute: Whether units change places.
    """

    spread: Annotated[float, Meta(ge=0, le=4)] = 1.0
    permute: bool = True

    def __post_init__(self) -> None:
        if not self.permute and self.spread == 0:
            raise ValueError("`permute` or `spread` must change something")


@final
class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Add pairs of hidden units that read the same and write the opposite.

    Attributes:
        pairs: Pairs per hidden layer: a count (whole number), or a share of the layer's width (``0.5``).
        scale: Standard deviation of the outgoing weights of a pair, in units of that of the layer they join.
        jitter: Each pair reads what some existing unit reads, each weight times ``1 + jitter x normal``. At 0 the
            pairs are exact duplicates of existing units.
    """

    pairs: Annotated[int, Meta(ge=1, le=1_000_000)] | Annotated[float, Meta(gt=0, le=4)] = 0.5
    scale: Annotated[float, Meta(gt=0, le=1000)] = 4.0
    jitter: Annotated[float, Meta(ge=0, le=4)] = 0.5

    def count(self, units: int) -> int:
        """Pairs to add to a layer of ``units`` units; at least one."""
        return self.pairs if isinstance(self.pairs, int) else max(1, round(self.pairs * units))


Settings = Recode | Cancel
OPERATIONS: dict[str, type[Recode] | type[Cancel]] = {"recode": Recode, "cancel": Cancel}


def read(operation: str, settings: Mapping[str, Scalar]) -> Settings:
    """The settings of ``operation``, with defaults for what is not named.

    Raises:
        UnknownName: If there is no such operation or setting.
        UsageError: If a value is of the wrong type or out of range.
    """
    if operation not in OPERATIONS:
        raise UnknownName("gauge operation", operation, OPERATIONS)
    kind = OPERATIONS[operation]
    for name in settings:
        if name not in kind.__struct_fields__:
            raise UnknownName(f"setting of the gauge operation {operation}", name, kind.__struct_fields__)
    try:
        return msgspec.convert(dict(settings), kind)
    except msgspec.ValidationError as error:
        raise UsageError(
            "A gauge setting cannot be used.",
            where=operation,
            expected=str(error).removeprefix("Expected "),
            got=", ".join(f"{name}={value!r}" for name, value in sorted(settings.items())),
            do="Give a value in range, or leave the setting out for its default.",
        ) from None


def written(settings: Settings) -> dict[str, Scalar]:
    """Every setting by name, defaults included, as a derivation records them."""
    return msgspec.structs.asdict(settings)
