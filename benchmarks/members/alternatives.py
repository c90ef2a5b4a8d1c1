"""Intervals that were not chosen, in the same worlds."""

import math

import numpy as np
from scipy import special, stats

from benchmarks.members.worlds import ALPHA, Law, gaussian
from wheeltap.stats import members


def counted(n: int, *, mid: bool = False) -> tuple[float, float, float]:
    """Least, mean and most coverage of the interval of a share over true shares from .01 to .99; no simulation."""
    shares = np.arange(0.01, 0.995, 0.01)
    hits = np.arange(n + 1)
    chance = stats.binom.pmf(hits[:, None], n, shares)
    if mid:
        upper = stats.binom.sf(hits[:, None], n, shares) + 0.5 * chance
        covers = (upper > ALPHA / 2.0) & (1.0 - upper > ALPHA / 2.0)
    else:
        low, high = np.array([members.exact(int(h), n).law.interval(ALPHA) for h in hits]).T  # type: ignore[union-attr]
        covers = (low[:, None] <= shares) & (shares <= high[:, None])
    rates = (chance * covers).sum(0)
    return float(rates.min()), float(rates.mean()), float(rates.max())


def fieller(a: Law, b: Law, n: int, *, runs: int) -> float:
    """Coverage of Fieller's interval for the ratio of means, with Welch's degrees of freedom."""
    rng, truth = np.random.default_rng(n), a.mean / b.mean
    x, y = a.draw(rng, runs * n).reshape(runs, n), truth * b.draw(rng, runs * n).reshape(runs, n)
    u, v = x.var(1, ddof=1) / n, y.var(1, ddof=1) / n
    df = (u + v) ** 2 / (u**2 + v**2) * (n - 1)
    return float(np.mean(np.abs(x.mean(1) - y.mean(1)) < stats.t.ppf(0.975, df) * np.sqrt(u + v)))


def pearson(rho: float, n: int, *, lognormal: bool, runs: int) -> float:
    """Coverage of Fisher's interval for Pearson's correlation."""
    x, y = (v.reshape(runs, n) for v in gaussian(np.random.default_rng(n), runs * n, rho))
    truth = rho
    if lognormal:
        x, y, truth = np.exp(0.5 * x), np.exp(0.5 * y), math.expm1(0.25 * rho) / math.expm1(0.25)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    r = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    z = (np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)) - math.atanh(truth)) * math.sqrt(n - 3)
    return float(np.mean(np.abs(z) < stats.norm.ppf(0.975)))


def aucs(truth: float, n: int, *, spread: float, runs: int) -> dict[str, float]:
    """Coverage of three other intervals for an AUC of normal numbers."""
    rng = np.random.default_rng(n)
    shift = stats.norm.ppf(truth) * math.sqrt(1.0 + spread**2)
    a, b = rng.normal(shift, spread, (runs, n)), rng.normal(size=(runs, n))
    wins = (a[:, :, None] > b[:, None, :]) * 1.0
    share, u, v = wins.mean((1, 2)), wins.mean(2).var(1, ddof=1) / n, wins.mean(1).var(1, ddof=1) / n
    error = math.sqrt(truth * (1 - truth) / n**2 * (1 + (n - 1) * ((1 - truth) / (2 - truth) + truth / (1 + truth))))
    z = (share - truth) / error
    with np.errstate(all="ignore"):
        logit = (special.logit(share) - special.logit(truth)) * share * (1.0 - share) / np.sqrt(u + v)
        df = (u + v) ** 2 / (u**2 + v**2) * (n - 1)
        delong = ~(
            np.abs(logit) > stats.t.ppf(0.975, np.where(np.isfinite(df), df, n - 1))
        )  # without spread it is open
    gap = (a.mean(1) - b.mean(1)) / np.sqrt((a.var(1, ddof=1) + b.var(1, ddof=1)) / n)
    p = stats.nct.cdf(gap, 2 * n - 2, stats.norm.ppf(truth) * math.sqrt(n))
    return {
        "Newcombe 5, normal quantile": float(np.mean(np.abs(z) < stats.norm.ppf(0.975))),
        "DeLong, logit, t": float(delong.mean()),
        "binormal, noncentral t": float(np.mean((p > 0.025) & (p < 0.975))),
    }
