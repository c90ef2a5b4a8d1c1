"""How many examples of a task a model is given in one call, and fewer of them where memory runs out."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from wheeltap.core.errors import UsageError


def checked_size(batch: Any, *, where: str) -> int:
    """Return the size of a batch.

    Raises:
        UsageError: If it is no whole number from 1 on.
    """
    if not isinstance(batch, int) or batch < 1:
        raise UsageError(
            "The argument batch cannot be used.", where=where, expected="a whole number from 1 on",
            got=repr(batch)[:120], do="Give batch=512, say, or leave it out.",
        )  # fmt: skip
    return batch


class Batched:
    """Examples that a model is given in batches of a bounded size.

    Attributes:
        halving_helps: Whether smaller batches are tried where memory runs out: not again after the smallest failed too.
        batch_attribute: Name of the attribute with the size of a batch; empty where that cannot be changed.
    """

    halving_helps: bool = True
    batch_attribute: ClassVar[str] = ""

    def batch_range(self) -> tuple[int, int]:
        """Return the smallest size of a batch, and the size beyond which a larger one changes nothing."""
        return 1, 2**62

    def halve_batch(self) -> bool:
        """Halve the size of a batch; return False if it is the smallest one."""
        smallest, largest = self.batch_range()
        size = getattr(self, self.batch_attribute) if self.batch_attribute else smallest
        if size <= smallest:
            return False
        setattr(self, self.batch_attribute, max(min(size, largest) // 2, smallest))
        return True

    def save_batch(self) -> Callable[[], None]:
        """Return a function that restores the present size of a batch."""
        if not self.batch_attribute:
            return lambda: None
        return partial(setattr, self, self.batch_attribute, getattr(self, self.batch_attribute))
