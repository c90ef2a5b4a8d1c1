"""Items of a benchmark as plain text, each perhaps with another version that no model can have learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from wheeltap.core import canon

SETS: Final = 4
"""Sets of new items in the form of the own texts, at most: what they gain is a mean, known better than that of one."""


@final
@dataclass(frozen=True)
class Passages:
    """Texts of a task's items, in the order in which they were published.

    Attributes:
        own: Text of each item.
        twins: Of each item a fresh version: as good an item, but never published; none where there are no twins.
        between: Token ids of what is between two items where they follow each other.
        fresh: Token ids of new items in the form of the own texts, several in the place of each; none where none can
            be made.
        repeated: Lines that were left out, because an item before has the same text or twin.
    """

    own: tuple[str, ...]
    twins: tuple[str, ...] = ()
    between: tuple[int, ...] = ()
    fresh: tuple[tuple[tuple[int, ...], ...], ...] = ()
    repeated: int = 0

    @property
    def digest(self) -> str:
        """Digest of every text and of what is between them."""
        return canon.key("passages", [self.own, self.twins, self.between])

    def part(self, index: Sequence[int]) -> "Passages":
        """The same of some items alone."""
        own, twins = (tuple(some[at] for at in index) if some else () for some in (self.own, self.twins))
        fresh = tuple(self.fresh[at] for at in index) if self.fresh else ()
        return Passages(own, twins, self.between, fresh, self.repeated)
