"""What a report holds of a benchmark beside its findings: curves over tries, and what is solved at all."""

import msgspec

Runs = tuple[tuple[int, int], ...]
"""Numbers of tries as runs, first and last of each."""


class SystemScore(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark prints of one system, with its interval; a share where that lies within 0 and 1."""

    subject: str
    value: float
    low: float | None
    high: float | None


class TryCurve(msgspec.Struct, frozen=True, kw_only=True):
    """How often k tries are enough.

    Attributes:
        subject: Whose answers.
        group: Part of the benchmark; empty for all of it.
        items: How many.
        ks: Numbers of tries, ascending.
        solved: pass@k, unbiased; ``low`` and ``high`` hold the whole curve at once.
        always: pass^k: all of k tries right.
    """

    subject: str
    group: str = ""
    items: int
    ks: tuple[int, ...]
    solved: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    always: tuple[float, ...]


class TryGap(msgspec.Struct, frozen=True, kw_only=True):
    """Another one's pass@k minus that of the first, item by item.

    Attributes:
        subject: The pair.
        ks: Numbers of tries, ascending.
        gap: Mean over items; ``low`` and ``high`` hold the whole curve at once.
        more: Numbers of tries at which the second surely solves more.
        fewer: At which it surely solves fewer.
        undecided: The others.
    """

    subject: str
    group: str = ""
    items: int
    ks: tuple[int, ...]
    gap: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    more: Runs
    fewer: Runs
    undecided: Runs


class Kept(msgspec.Struct, frozen=True):
    """An item that one of two solves and the other does not, with right answers of both."""

    item: int
    id: str
    first: int
    second: int
    p: float


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """Which items are solved at least once, by whom.

    Attributes:
        samples: Answers of each item: with more, some of those that were never solved would be.
        p: Exact, of "an item that one alone solves is as likely the first's as the second's".
        sure: Items whose difference holds by itself, after correction over all that only one solves.
        items: Those that only one solves, the surest first.
    """

    subject: str
    group: str = ""
    samples: int
    both: int
    first: int
    second: int
    neither: int
    p: float
    sure: int
    items: tuple[Kept, ...] = ()


class LensRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    scores: tuple[SystemScore, ...] = ()
    curves: tuple[TryCurve, ...] = ()
    gaps: tuple[TryGap, ...] = ()
    supports: tuple[Support, ...] = ()
