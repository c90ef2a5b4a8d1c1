"""One correction over all the tests of a report, so that many audits do not find something by chance."""

from collections.abc import Sequence

from wheeltap.core.errors import UsageError


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted so that a report of true nulls has a false finding with probability at most alpha.

    Args:
        p: Raw p-values in any order, in [0, 1]. ``None`` (not tested) stays ``None`` and does not count.

    Returns:
        Adjusted p-values in the same order, never below the raw ones and ordered like them.

    Raises:
        UsageError: If a p-value is not in [0, 1].

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    tested = sorted((value, index) for index, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    worst = 0.0
    for rank, (value, index) in enumerate(tested):
        if not 0.0 <= value <= 1.0:
            raise UsageError("A p-value cannot be used.", where=f"position {index}", expected="0 to 1", got=str(value))
        worst = max(worst, min(1.0, (len(tested) - rank) * value))
        adjusted[index] = worst
    return adjusted
