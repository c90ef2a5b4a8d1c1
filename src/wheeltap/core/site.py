"""Sites: which weights a disturbance touches."""

import re
from typing import Literal

import msgspec


class Site(msgspec.Struct, frozen=True):
    """An address in a subject's weights.

    Attributes:
        kind: ``whole`` (every disturbable weight), ``block`` (the layers below one module path), ``layer`` (one layer)
            or ``weight`` (one number of a layer's weight, seen as ``[unit, fan_in]``).
        name: The module path for ``block`` and ``layer``, with ``[row,column]`` after it for ``weight``; empty for
            ``whole``.
    """

    kind: Literal["whole", "block", "layer", "weight"] = "whole"
    name: str = ""

    @classmethod
    def weight(cls, layer: str, *, row: int, column: int) -> "Site":
        """One weight of a layer: what output unit ``row`` takes from input ``column``."""
        return cls("weight", f"{layer}[{row},{column}]")

    @property
    def layer(self) -> str:
        """The module path, without a position."""
        return self.name.partition("[")[0] if self.kind == "weight" else self.name

    @property
    def position(self) -> tuple[int, int] | None:
        """Row and column of a single weight; ``None`` for any other site."""
        found = re.fullmatch(r".*\[(\d+),(\d+)\]", self.name) if self.kind == "weight" else None
        return (int(found[1]), int(found[2])) if found else None

    def covers(self, layer: str) -> bool:
        """Whether the layer at module path ``layer`` belongs to this site."""
        if self.kind == "whole":
            return True
        return layer == self.layer or (self.kind == "block" and layer.startswith(f"{self.name}."))

    def __str__(self) -> str:
        return self.name or self.kind


WHOLE = Site()
