"""Items of a benchmark as plain text, each perhaps with another version that no model can have learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from wheeltap.core import canon
from wheeltap.core.annotations import Annotation


@final
@dataclass(frozen=True)
class Passages(Annotation):
    """Texts of a task's items, in the order in which they were published.

    Attributes:
        own: Text of each item.
        twins: Of each item a fresh version: as good an item, but never published; none where there are no twins.
        between: Token ids of what is between two items where they follow each other.
        fresh: Token ids of new items in the form of the own texts, several in the place of each; none where none can
            be made.
        repeated: Lines that were left out, because an item before has the same text or twin.
    """

    name = "items"

    own: tuple[str, ...]
    twins: tuple[str, ...] = ()
    between: tuple[int, ...] = ()
    fresh: tuple[tuple[tuple[int, ...], ...], ...] = ()
    repeated: int = 0

    @property
    def digest(self) -> str:
        """Digest of every text and of what is between them."""
        return canon.key("passages", [self.own, self.twins, self.between])

    def __len__(self) -> int:
        """Number of items."""
        return len(self.own)

    def part(self, index: Sequence[int]) -> "Passages":
        """See ``Annotation.part``."""
        own, twins = (tuple(some[at] for at in index) if some else () for some in (self.own, self.twins))
        fresh = tuple(self.fresh[at] for at in index) if self.fresh else ()
        return Passages(own, twins, self.between, fresh, self.repeated)
