"""How large a model can be that files describe: known before any of it is made."""

import contextlib
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import torch
from torch import nn
from torch.nn.modules import module as registering

from wheeltap.core.errors import FileFormatError

_MOST: Final = (
    ("position|length|seq|context|window|theta|base|token|seed|numel|size_in_bytes", 2**31),  # nothing is set aside
    ("label", 2**16),  # each has a name, in several tables
    ("", 2**21),  # layers, units, words
)
"""Largest number in a config, by its name."""

_BESIDE: Final = 2**26
"""Numbers that a model may have beside those in its files: masks, tables of places."""


@final
@dataclass(frozen=True)
class Size:
    """How much files of weights hold.

    Attributes:
        tensors: How many there are.
        numbers: In all of them.
    """

    tensors: int
    numbers: int

    @contextlib.contextmanager
    def bounding(self, where: Path) -> Generator[None]:
        """A block in which models are made without memory, and no further than weights of this size can fill.

        Raises:
            FileFormatError: If a model has many more parts or numbers.
        """
        parts, numbers = 0, 0
        most_parts, most = 64 * self.tensors + 10_000, 2 * self.numbers + _BESIDE

        def count(module: nn.Module, name: str, added: nn.Module | torch.Tensor | None) -> None:
            nonlocal parts, numbers
            parts += 1
            numbers += added.numel() if isinstance(added, torch.Tensor) else 0
            if parts > most_parts or numbers > most:
                raise FileFormatError(
                    "The config describes a far larger model than its weights.",
                    where=str(where),
                    expected=f"a model of the {self.tensors:,} tensors and {self.numbers:,} numbers that are there",
                    got=f"more than {parts - 1:,} parts, {numbers:,} numbers",
                    do="Take the config that belongs to these weights.",
                )

        with contextlib.ExitStack() as held, torch.device("meta"):
            for kind in ("module", "parameter", "buffer"):
                hook: Any = getattr(registering, f"register_module_{kind}_registration_hook")(count)
                held.callback(hook.remove)
            yield


def require_modest(held: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` if a number is larger than one of its kind: transformers counts up to some, unasked."""
    left: list[tuple[str, Any]] = list(held.items())
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += cast("dict[str, Any]", value).items()
        elif isinstance(value, list):
            left += [(name, one) for one in cast("list[Any]", value)]
        elif isinstance(value, int) and abs(value) > next(most for kind, most in _MOST if re.search(kind, name)):
            raise ValueError(f"{name}: {value:,}"[:120])
