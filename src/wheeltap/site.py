"""Sites: which weights a disturbance touches."""

from typing import Literal

import msgspec


class Site(msgspec.Struct, frozen=True):
    """An address in a subject's weights.

    Attributes:
        kind: ``whole`` (every disturbable weight), ``block`` (the layers below one module path) or ``layer``
            (one layer).
        name: The module path for ``block`` and ``layer``; empty for ``whole``.
    """

    kind: Literal["whole", "block", "layer"] = "whole"
    name: str = ""

    def covers(self, layer: str) -> bool:
        """Whether the layer at module path ``layer`` belongs to this site."""
        if self.kind == "whole":
            return True
        return layer == self.name or (self.kind == "block" and layer.startswith(f"{self.name}."))

    def __str__(self) -> str:
        return self.name or self.kind


WHOLE = Site()
