"""Kinds of settings by the values that make sense of them: a value outside is refused before anything runs."""

import sys
from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
"""How many, at least one."""

Share = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
"""A part of a whole, neither nothing nor everything; confidence levels and p-values too."""

Margin = Annotated[float, msgspec.Meta(ge=0.0, le=sys.float_info.max)]
"""Size of an effect that does not matter or that must be seen; not infinite, for nothing would be larger."""

Dose = Annotated[float, msgspec.Meta(gt=0.0, le=sys.float_info.max)]
"""A dose that does something."""

Listed = Annotated[str, msgspec.Meta(pattern=r"^(\d+\.?\d*|\.\d+)(e-?\d+)?(,(\d+\.?\d*|\.\d+)(e-?\d+)?)*$")]
"""Numbers of 0 or more, with commas between."""
