"""Sites: which weights a disturbance touches."""

import re
from collections.abc import Iterable
from typing import Literal

from wheeltap.core.errors import UsageError
from wheeltap.core.settings import ChoiceRecord


class Site(ChoiceRecord, frozen=True):
    """An address in a subject's weights.

    Attributes:
        kind: ``whole`` (every disturbable weight), ``inner`` (every layer but some), ``block`` (the layers below one
            module path), ``layer`` (one layer) or ``weight`` (one number: of a layer's weight, seen as
            ``[unit, fan_in]``, or of any parameter).
        name: The module path for ``block``; the layer's name for ``layer``, with ``[row,column]`` after it for
            ``weight``, or a parameter's path with indices in it, ``[i, j]``; the names of the layers left out, with
            commas between, for ``inner``; empty for ``whole``.
    """

    kind: Literal["whole", "inner", "block", "layer", "weight"] = "whole"
    name: str = ""

    @classmethod
    def without(cls, names: Iterable[str]) -> "Site":
        """Every layer but the named ones: what spares the embeddings and the head, say.

        Raises:
            UsageError: If a name has a comma in it.
        """
        spared = sorted(set(names))
        if any("," in name for name in spared):
            raise UsageError(
                "A layer with a comma in its name cannot be spared.",
                expected="names of layers without commas",
                got=next(name for name in spared if "," in name),
                do="Rename the module.",
            )
        return cls("inner", ",".join(spared)) if spared else WHOLE

    @classmethod
    def weight(cls, layer: str, *, row: int, column: int) -> "Site":
        """One weight of a layer: what output unit ``row`` takes from input ``column``."""
        return cls("weight", f"{layer}[{row},{column}]")

    @classmethod
    def number(cls, parameter: str, place: Iterable[int]) -> "Site":
        """One number of any parameter, a bias or gain too: the parameter's path, and the number's indices in it."""
        return cls("weight", f"{parameter}[{', '.join(map(str, place))}]")

    @property
    def entry(self) -> tuple[str, tuple[int, ...]] | None:
        """Parameter path and indices of a number of any parameter; ``None`` for any other site."""
        # A row and a column of a layer have no space between them.
        found = re.fullmatch(r"(.*)\[((?:\d+(?:, \d+)*)?)\]", self.name) if self.kind == "weight" else None
        return (found[1], tuple(int(at) for at in found[2].split(", ") if at)) if found else None

    @property
    def layer(self) -> str:
        """The module path, layer's name or parameter path, without a position."""
        return self.name.partition("[")[0] if self.kind == "weight" else self.name

    @property
    def spared(self) -> frozenset[str]:
        """Names of layers that are left out on purpose."""
        return frozenset(self.name.split(",")) if self.kind == "inner" else frozenset()

    @property
    def everywhere(self) -> bool:
        """Whether it is the whole model, but for what is spared on purpose."""
        return self.kind in ("whole", "inner")

    @property
    def position(self) -> tuple[int, int] | None:
        """Row and column of a single weight of a layer; ``None`` for any other site."""
        found = re.fullmatch(r".*\[(\d+),(\d+)\]", self.name) if self.kind == "weight" else None
        return (int(found[1]), int(found[2])) if found else None

    def covers(self, layer: str) -> bool:
        """Whether the layer called ``layer`` belongs to this site."""
        if self.everywhere:
            return layer not in self.spared
        return layer == self.layer or (self.kind == "block" and layer.startswith(f"{self.name}."))

    def __str__(self) -> str:
        if self.kind == "inner":
            return f"all but {', '.join(self.name.split(','))}"
        return self.name or self.kind


WHOLE = Site()
