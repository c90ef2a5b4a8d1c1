"""Of how many members something holds."""

from dataclasses import dataclass, replace
from typing import final

from wheeltap.core.errors import UsageError
from wheeltap.stats._scipy import beta_quantile, binomial_share
from wheeltap.stats.members.base import Law, MemberTest


@final
@dataclass(frozen=True)
class BinomialShare(Law):
    """A share of members, by the binomial distribution.

    Attributes:
        hits: Members of which it holds.
        members: How many there are.

    Source: Clopper & Pearson (1934), eq. 1-2.
    """

    hits: int
    members: int
    span = (0.0, 1.0)

    def at_most(self, x: float) -> float:
        """One-sided p-value of "the true number is at most ``x``"."""
        if x >= 1.0 or (x >= 0.0 and self.hits == 0):
            return 1.0
        return 0.0 if x <= 0.0 else binomial_share(self.members - self.hits, self.members, 1.0 - x)

    def at_least(self, x: float) -> float:
        """One-sided p-value of "the true number is at least ``x``"."""
        return replace(self, hits=self.members - self.hits).at_most(1.0 - x)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Clopper and Pearson's."""
        hits, misses = self.hits, self.members - self.hits
        low = beta_quantile(alpha / 2.0, hits, misses + 1) if hits else 0.0
        return low, beta_quantile(1.0 - alpha / 2.0, hits + 1, misses) if misses else 1.0

    def rejects(self, x: float, *, truth: float, alpha: float) -> float:
        """The binomial probability of enough hits."""
        edge, true = (x, truth) if truth >= x else (1.0 - x, 1.0 - truth)
        if replace(self, hits=self.members).at_most(edge) > alpha / 2.0:
            return 0.0
        fails, fires = 0, self.members  # of none it is never rejected
        while fires - fails > 1:
            middle = (fails + fires) // 2
            rejected = replace(self, hits=middle).at_most(edge) <= alpha / 2.0
            fails, fires = (fails, middle) if rejected else (middle, fires)
        return binomial_share(self.members - fires, self.members, 1.0 - true)

    def among(self, members: int) -> "BinomialShare":
        """The same with another number of members."""
        # Power and p-values before the fact depend on how many there are alone.
        return BinomialShare(round(self.hits * members / self.members), members)


def exact(hits: int, n: int, *, share: float = 0.5, name: str = "share of members") -> MemberTest:
    """Share of members of which something holds, by Clopper and Pearson's interval; no effect is ``share``.

    It covers at least its level for every true share: 98 to 100 % with 3 members, 95 to 100 % with 30. Mid-p values
    cover 93 to 100 % (``benchmarks.members``), but 5 of 5 coins that fall alike would have p = .03, and that happens
    in 6 % of tables.

    Args:
        hits: Members of which it holds.
        n: Members.
        share: What it is tested against.
        name: Of the estimate.

    Raises:
        UsageError: If the counts or the share cannot be used.
    """
    if n < 1 or not 0 <= hits <= n:
        raise UsageError("Members cannot be counted.", expected="0 to n of n members, n >= 1", got=f"{hits} of {n}")
    if not 0.0 <= share <= 1.0:
        raise UsageError("The share to test against cannot be used.", expected="0 to 1", got=str(share))
    return MemberTest(
        name=name, unit="share", value=hits / n, null=share, count=n,
        method=f"Clopper-Pearson, {n} member{'s' if n > 1 else ''}", law=BinomialShare(hits, n),
    )  # fmt: skip
