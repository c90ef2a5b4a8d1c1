"""What lies beside a model's weights and changes what users get: files, settings, tensors that nothing loads."""

from collections.abc import Mapping
from typing import Protocol

Digests = dict[str, dict[str, str]]
"""By part and name. Parts are weights (files and tensors that the model does not load), tokenizer, template, config,
adapter, code and other."""


class Contents(Protocol):
    """What lies beside the weights of a subject."""

    def digests(self, known: Mapping[str, str] | None = None) -> Digests:
        """A digest of each thing; given sealed ones, large files of another size are not read: empty."""
        ...

    def meanings(self) -> dict[str, str]:
        """Digests of what the loader makes of settings, by the stem of their file: however they are written."""
        ...
