"""A tokenizer of letters, for tests of what is made of text."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Letters:
    """A token for each letter; with ``joins``, one token for these letters wherever they are."""

    size: ClassVar[int] = 202
    joins: str = ""

    def start(self, text: str) -> list[int]:
        """After a start token."""
        return [1, *self.more(text)]

    def more(self, text: str) -> list[int]:
        """Without one."""
        kept = text.replace(self.joins, "\0") if self.joins else text
        return [ord(letter) % (self.size - 2) + 2 for letter in kept]
