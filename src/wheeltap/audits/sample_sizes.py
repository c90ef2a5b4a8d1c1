"""How many examples would decide undecided rows, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from wheeltap.core.records import Finding

TELL, SHOW = "would tell", "would show"
"""Words after how many examples would decide a row, and how many items a comparison of two systems."""

_FEW = 200
"""Examples, or groups of them, below which their spread is too poorly known to foresee how many would do."""


def enough_for(rows: Sequence[Finding], noun: str) -> str:
    """Return how many examples, or groups, would decide all rows; empty where no number would, or there are as many."""
    needed = _Needed.of(rows)
    return "" if needed is None else f"{needed.prefix}{rounded_up(needed.count)} {needed.noun(noun)}"


def enough_for_each(rows: Sequence[Finding], noun: str) -> str:
    """Return how many examples of its own decide each row, as a range; empty where one row has no number."""
    sizes = [_Needed.of([row]) for row in rows]
    known = [needed for needed in sizes if needed is not None]
    if not known or len(known) < len(sizes):
        return ""
    fewest, most = (extreme(known, key=lambda needed: needed.count) for extreme in (min, max))
    first, last = rounded_up(fewest.count), rounded_up(most.count)
    prefix = next((needed.prefix for needed in known if needed.prefix), "")
    return f"{prefix}{last if first == last else f'{first} to {last}'} {most.noun(noun)}"


@final
@dataclass(frozen=True)
class _Needed:
    """A number of examples that decides rows.

    Attributes:
        count: Of examples, or of groups where ``in_groups``.
        in_groups: Whether the examples come in groups.
        prefix: "at least" where the number rests on few examples.
    """

    count: int
    in_groups: bool
    prefix: str

    @classmethod
    def of(cls, rows: Sequence[Finding]) -> "_Needed | None":
        powers = [row.power for row in rows if row.power is not None]
        examples = max((power.examples or 0 for power in powers), default=0)
        present = max((row.estimates[0].n for row in rows if row.estimates), default=0)
        if examples <= present or any(power.examples is None or power.together for power in powers):
            return None
        groups = max(power.groups or 0 for power in powers)
        count = groups or examples
        # A repetition has as many groups for each example as there are now.
        is_rough = present * count < _FEW * examples
        return cls(count=count, in_groups=groups > 0, prefix="at least " if is_rough else "")

    def noun(self, of_examples: str) -> str:
        """What is counted."""
        return "groups" if self.in_groups else of_examples


def rounded_up(count: int) -> str:
    """Return a count, rounded up to the two digits that mean something."""
    size = 10 ** max(len(str(count)) - 2, 0)
    return f"{-(-count // size) * size:,}"
