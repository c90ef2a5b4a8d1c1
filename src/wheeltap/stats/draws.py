"""Verdicts on a random disturbance: a deployed model is one draw, so what counts is the share of draws that lose much.

*Safe*: at most one draw in ten loses more than the margin. *Costs*: at least half of them do, or the mean over draws
does. The draw that is the j-th worst is held against the margin by the test over examples of one fixed change; where it
is shown to be within, fewer than j of the draws that were made are beyond. That so few are, if the share is not small,
is told by one over a mixture of likelihood ratios, a nonnegative supermartingale, so draws may be added until a row is
decided. Half of an error is left to the draws and half to the examples, whose two-sided test errs by half of its level
on one side.

Of the mean, draws that nobody made may be the mildest possible, with the largest probability that none of those made
had: see ``rare``. It is looked at a few times, among which its error is divided.

Source: Wald (1945), "Sequential tests of statistical hypotheses"; Ville (1939), for any number of looks; Robbins
(1970), "Statistical methods related to the law of the iterated logarithm", for mixtures; Hahn & Meeker (1991),
"Statistical Intervals", sec. 5.3, for what was not drawn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, cast, final

import msgspec
import numpy as np
from scipy import special  # type: ignore[import-untyped]

from wheeltap.core.records import Estimate, Power
from wheeltap.stats._scipy import beta_quantile, binomial_share, root
from wheeltap.stats.clusters import clustered, one_group
from wheeltap.stats.crossed import FloatArray, crossed, unseen
from wheeltap.stats.effect import amplitude
from wheeltap.stats.evidence import Evidence
from wheeltap.stats.sample import Sample
from wheeltap.stats.three_sided import ASSURED

RARE: Final = 0.1
"""Share of draws that may lose more than the margin where a scheme is safe."""

HALF: Final = 0.5
"""Share of draws that lose more than the margin where a scheme costs."""

WITHIN, NINE_OF_TEN = "draws within the margin", "loss of 9 draws in 10"
"""Names of two estimates: how many draws lose no more than the margin, and the most that nine in ten lose."""

_LOG_TINY: Final = -100.0  # a p-value below 1e-43 is called 0

_MOST: Final = 10_000
"""Draws beyond which no number is named."""

_SHARES: Final = 32  # quantiles of the share of draws that lose too much

_betainc = cast(Callable[[float, float, float], float], special.betainc)
_betaln = cast(Callable[[float, float], float], special.betaln)


def p_share(count: int, draws: int, share: float) -> float:
    """P-value of "at least ``share`` of all draws are of a kind", of ``draws`` of which ``count`` are; for any look.

    Half of the mixture is the likelihood of a share of 0, which nothing beats where ``count`` is 0; half is uniform up
    to ``share``.
    """
    under = count * math.log(share) + (draws - count) * math.log1p(-share)
    part = float(_betainc(count + 1.0, draws - count + 1.0, share))
    uniform = math.log(part) + float(_betaln(count + 1.0, draws - count + 1.0)) if part > 0.0 else -math.inf
    mixture = np.logaddexp(0.0 if count == 0 else -math.inf, uniform - math.log(share)) - math.log(2.0)
    return min(1.0, math.exp(under - float(mixture)))


def draws_needed(count: int, share: float, p: float, *, draws: int = 1, most: int = _MOST) -> int | None:
    """Fewest draws, from ``draws`` on, with ``p_share`` at most ``p`` if all further ones are of the other kind.

    ``None`` where more than ``most`` would be needed.
    """
    low, high = max(draws, count), most
    if high < low or p_share(count, high, share) > p:
        return None
    while low < high:  # it falls with every draw of the other kind
        middle = (low + high) // 2
        low, high = (low, middle) if p_share(count, middle, share) <= p else (middle + 1, high)
    return low


def _allowed(draws: int, alpha: float) -> int:
    """How many of so many draws may lose more than the margin where a scheme is shown to be safe; -1: not even none."""
    low, high = -1, draws
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if p_share(middle, draws, RARE) <= alpha / 2.0 else (low, middle)
    return low


def _draws_like(beyond: int, draws: int, alpha: float) -> int | None:
    """Fewest draws that show a scheme to be safe with probability .8, if ``beyond`` of ``draws`` lost too much.

    Averaged over the shares of draws that these leave possible; if none did, that share is taken as 0. ``None`` beyond
    ``_MOST``.
    """
    if not beyond:
        return draws_needed(0, RARE, alpha / 2.0, draws=draws)
    shares = [beta_quantile((at + 0.5) / _SHARES, beyond, draws - beyond + 1) for at in range(_SHARES)]
    for size in map(int, np.geomspace(draws, _MOST, 100)):
        allowed = _allowed(size, alpha)
        if allowed >= 0 and np.mean([binomial_share(allowed, size, share) for share in shares]) >= ASSURED:
            return size
    return None


@final
@dataclass(frozen=True, eq=False)
class Draws(Evidence):
    """Losses ``[draw, example]`` of a random disturbance, of which a user deploys one draw.

    Attributes:
        sample: The losses, or how much more one model loses than another.
        looks: How often the draws may be looked at before there are no more.
        one_sided: Whether only a positive effect counts.
    """

    sample: Sample
    looks: int = 1
    one_sided: bool = True

    @property
    def over_groups(self) -> bool:
        """As of the sample."""
        return self.sample.over_groups

    @cached_property
    def losses(self) -> FloatArray:
        """Mean over examples, ``[draw]``."""
        return np.asarray(self.sample.values, dtype=np.float64).mean(1)

    def below(self, margin: float, *, one_sided: bool) -> float | None:
        """P-value of "more than one draw in ten has an effect of at least the margin"."""
        del one_sided  # its own
        if margin <= 0.0:
            return None
        return _level(lambda rank: self._worst(rank).below(margin, one_sided=True), len(self.losses), RARE)

    def above(self, margin: float) -> float | None:
        """P-value of "fewer than half of the draws, and not their mean, have an effect above the margin".

        In the direction of the mean. Either claim has half of the error; and so has either direction, where both count.
        """
        half = _level(lambda rank: self._p_mildest(rank, margin), len(self.losses), HALF)
        return None if half is None else min(1.0, 2.0 * half, self.looks * self._p_mean(margin))

    def counted(self, margin: float) -> Estimate:
        """How many draws lose no more than the margin, as measured."""
        effect = self.losses if self.one_sided else np.abs(self.losses)
        return Estimate.exact(WITHIN, float((effect <= margin).sum()), "draws", n=len(effect))

    def nine_of_ten(self, *, level: float = 0.95, unit: str) -> Estimate:
        """The most that nine draws in ten lose, with the upper end of its interval; open with too few draws."""
        draws, error = len(self.losses), (1.0 - level) / 2.0
        allowed = sum(p_share(count, draws, RARE) <= error / 2.0 for count in range(draws))
        high = self._worst(allowed).effect(level=1.0 - error, name="", unit="").high if allowed else None
        return Estimate(
            name=NINE_OF_TEN, value=float(np.quantile(self.losses, 1.0 - RARE)), low=None, high=high, level=level,
            n=draws, unit=unit, method=f"order statistics of {draws} draws, with the interval over examples",
        )  # fmt: skip

    def wanted(self, margin: float, *, alpha: float, most: int, tests: int = 1) -> int:
        """How many draws to have: those at hand where the answer is clear, or cannot become so with ``most``.

        Args:
            margin: Smallest effect of interest.
            alpha: Of all tests together.
            most: The most draws there may be.
            tests: How many tests there are. A draw counts as open only where it would be in a report without others,
                since those that are decided first leave more of alpha.
        """
        draws, above, below = len(self.losses), self.above(margin), self.below(margin, one_sided=True)
        strict = alpha / tests
        if above is None or below is None or min(above, below) <= strict:
            return draws
        beyond = _first(lambda rank: self._worst(rank).below(margin, one_sided=True), draws, lambda _: alpha) - 1
        mild = _first(lambda rank: self._p_mildest(rank, margin), draws, lambda _: alpha / 2.0) - 1
        needed = [
            draws_needed(count, share, strict / errors, draws=draws, most=most)
            # A share clearly above the claimed one is not waited for.
            if count / draws <= share + math.sqrt(share * (1.0 - share) / draws)
            else None
            for count, share, errors in ((beyond, RARE, 2.0), (mild, HALF, 4.0))
        ]
        # Where the examples alone show that the mean is beyond the margin, more draws may.
        mean = self._fixed(self._sign * np.asarray(self.sample.values, dtype=np.float64).mean(0))
        shown = mean.above(margin) if self._sign * float(self.losses.mean()) > margin else None
        needed += [min(2 * draws, most)] if shown is not None and shown <= strict / self.looks else []
        known = [number for number in needed if number is not None]
        # Looks are counted, so each has at least twice the draws of the one before.
        return min(max(min(known), 2 * draws), most) if known else draws

    def power(self, margin: float, *, one_sided: bool, alpha: float) -> Power | None:
        """How many draws and how many examples would show that it is safe, if as few draws lose much.

        Where more than one draw in ten loses more than the margin, no number decides.
        """
        del one_sided  # its own
        draws, beyond = len(self.losses), len(self.losses) - int(self.counted(margin).value or 0.0)
        enough = None if margin <= 0.0 or beyond > RARE * draws else _draws_like(beyond, draws, alpha)
        if enough is None:
            return None
        # The draw that examples must show to be within the margin: those that lose more may be as many as are allowed.
        deepest = round((_allowed(enough, alpha) + 1) / enough * draws)
        draw = self._worst(min(max(deepest, 1), draws))
        p, known = draw.below(margin, one_sided=True), Power(found=None, excluded=None)
        if p is not None and p > alpha:
            known = draw.power(margin, one_sided=True, alpha=alpha) or known
            if known.examples is None:
                return known
        more = enough if enough > draws else None
        return msgspec.structs.replace(known, draws=more, together=None not in (more, known.examples))

    # ---- the draws that lose most, or least ---------------------------------------------------------------------

    @cached_property
    def _sign(self) -> float:
        return 1.0 if self.one_sided or float(self.losses.mean()) >= 0.0 else -1.0

    @cached_property
    def _ordered(self) -> FloatArray:
        """The values, the draws of the largest effect first: either way, where both count."""
        values = np.asarray(self.sample.values, dtype=np.float64)
        values = values if self.one_sided else values * np.where(self.losses < 0.0, -1.0, 1.0)[:, None]
        return values[np.argsort(-values.mean(1), kind="stable")]

    def _worst(self, rank: int) -> Sample:
        """The draw whose effect is the ``rank``-th largest."""
        return self._fixed(self._ordered[rank - 1])

    def _p_mildest(self, rank: int, margin: float) -> float | None:
        """P-value of "within the margin" of the draw that loses the ``rank``-th least, in the direction of the mean."""
        mildest = np.argsort(self._sign * self.losses, kind="stable")[rank - 1]
        draw = self._fixed(self._sign * np.asarray(self.sample.values[mildest], dtype=np.float64))
        return draw.above(margin) if float(draw.values.mean()) > margin else 1.0

    def _fixed(self, values: FloatArray) -> Sample:
        """As of one fixed change of the weights: its examples alone are a sample."""
        return replace(self.sample, values=values[None], ends=None, skewed=True)

    def _p_mean(self, margin: float) -> float:
        """P-value of "the mean is within the margin", where draws that nobody made may be as mild as can be."""
        sample, draws = self.sample, len(self.losses)
        low, high = sample.ends or (None, None)
        least = low if self._sign > 0.0 else None if high is None else -high
        if least is None or draws < 2 or one_group(sample.groups):
            return 1.0
        values = self._sign * np.asarray(sample.values, dtype=np.float64)
        values = values if sample.margins is None else values - (sample.margins - np.mean(sample.margins))
        cells, room = clustered(values, sample.groups), max(float((self._sign * self.losses).min()) - least, 0.0)
        moved = sample.far or (1.0 if sample.bound is not None and float(np.abs(cells).max()) <= 1.0 else 0.0)
        spread = crossed(cells, pseudo=amplitude(cells, whole=moved) if moved else 0.0)

        def gap(log: float) -> float:
            alpha = math.exp(log)
            low = float(spread.centre - spread.half_width(alpha / 2.0)) - unseen(draws, alpha / 4.0) * room
            return low - margin

        if gap(0.0) <= 0.0:
            return 1.0
        return math.exp(root(gap, _LOG_TINY, 0.0)) if gap(_LOG_TINY) < 0.0 else 0.0


def _level(test: Callable[[int], float | None], draws: int, share: float) -> float | None:
    """The smallest level at which the draw of some rank decides, and so few are beyond it that their share is small.

    The p-values of draws fall with their rank, those of shares grow, and both are nested, so the choice costs nothing.
    """
    if test(draws) is None:
        return None
    rank = _first(test, draws, lambda rank: 2.0 * p_share(rank - 1, draws, share))
    levels = (max(test(at) or 0.0, 2.0 * p_share(at - 1, draws, share)) for at in (rank - 1, rank) if 0 < at <= draws)
    return min(1.0, *levels)


def _first(test: Callable[[int], float | None], draws: int, level: Callable[[int], float]) -> int:
    """The first rank whose draw is decided at the level; ``draws + 1`` where none is."""
    low, high = 1, draws + 1
    while low < high:
        middle = (low + high) // 2
        p = test(middle)
        low, high = (low, middle) if p is not None and p <= level(middle) else (middle + 1, high)
    return low
