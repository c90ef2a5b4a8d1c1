"""Examples that come in groups, of unequal size, for every paired statistic."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.levels import WRONG, Row
from benchmarks.levels.draws import judged
from wheeltap.runs.stored import judge
from wheeltap.stats.effect import score_interval
from wheeltap.stats.sample import Sample
from wheeltap.suites.lens.recorded import read
from wheeltap.suites.lens.runs import imported

Array = NDArray[np.float64]
Groups = NDArray[np.intp]
Rng = np.random.Generator

COUNTS: Final = (5, 10, 20, 50)
ALIKE: Final = (0.0, 0.1, 0.5)
"""Intraclass correlations."""

MARGIN: Final = 0.05
SPREAD: Final = 0.3


def grouped(count: int, rng: Rng) -> Groups:
    """Groups of 10 to 50 examples."""
    return np.repeat(np.arange(count), rng.integers(10, 51, count))


def numbers(groups: Groups, alike: float, mean: float, rng: Rng) -> Array:
    """Normal differences, part of which a group shares."""
    return _shared(rng.normal(size=int(groups.max()) + 1), groups, alike, mean, rng)


def _shared(parts: Array, groups: Groups, alike: float, mean: float, rng: Rng) -> Array:
    own = rng.normal(size=len(groups))
    return mean + SPREAD * (np.sqrt(alike) * parts[groups] + np.sqrt(1.0 - alike) * own)


def exponential(groups: Groups, alike: float, mean: float, rng: Rng) -> Array:
    """Differences of which a group shares an exponential part."""
    return _shared(rng.exponential(size=int(groups.max()) + 1) - 1.0, groups, alike, mean, rng)


def one_in_five(groups: Groups, alike: float, mean: float, rng: Rng) -> Array:
    """Differences of which one group in five goes one way, and the others a quarter as far the other way."""
    rare = rng.random(int(groups.max()) + 1) < 0.2
    return _shared(np.where(rare, 2.0, -0.5), groups, alike, mean, rng)


def one_alike(groups: Groups, alike: float, mean: float, rng: Rng) -> Array:
    """Differences of 0/1 answers, of which a tenth is wrong: those of one system are alike within a group."""
    return losses(groups, alike, 0.1 + mean, rng) - (rng.random(len(groups)) < 0.1)


def losses(groups: Groups, alike: float, mean: float, rng: Rng) -> Array:
    """0/1 losses; with 0.5 most groups lose nothing and a few nearly all."""
    count, scale = int(groups.max()) + 1, (1.0 / alike - 1.0) if alike else 0.0
    p = rng.beta(mean * scale, (1.0 - mean) * scale, count) if alike else np.full(count, mean)
    return (rng.random(len(groups)) < p[groups]) * 1.0


def churn(groups: Groups, alike: float, mean: float, rng: Rng) -> Array:
    """0/1 answers of which a fifth is lost and a fifth gained, by group more of one or of the other."""
    reach = min(np.sqrt(alike * 0.4 / (1.0 - alike)), 0.35)
    more = mean + reach * rng.choice([-1.0, 1.0], size=int(groups.max()) + 1)[groups]
    u = rng.random(len(groups))
    return (u < 0.2 + more / 2.0) * 1.0 - (u > 1.0 - (0.2 - more / 2.0))


KINDS: Final[dict[str, tuple[Callable[[Groups, float, float, Rng], Array], float | None]]] = {
    "numbers": (numbers, None),
    "0/1 losses": (losses, 1.0),
    "0/1 answers, churn": (churn, 1.0),
}

SKEWED: Final[dict[str, tuple[Callable[[Groups, float, float, Rng], Array], float | None]]] = {
    "numbers, exponential": (exponential, None),
    "numbers, one group in five": (one_in_five, None),
    "0/1 answers, one system's alike": (one_alike, 1.0),
}
"""Differences that groups do not have as often either way."""


def skewed(kind: str, count: int, alike: float, *, reps: int, rng: Rng) -> Row:
    """How often a difference is found where there is none on average."""
    draw, bound = SKEWED[kind]
    p = np.ones(reps)
    for at in range(reps):
        groups = grouped(count, rng)
        p[at] = Sample(draw(groups, alike, 0.0, rng)[None], bound, groups=groups).above(0.0) or 0.0
    return Row(
        claim="skewed groups", design=f"{kind}, {count} groups, correlation {alike:g}", figure="false difference",
        rate=float((p <= 0.05).mean()), high=WRONG, families=reps,
    )  # fmt: skip


def _level(kind: str, count: int, alike: float, *, reps: int, rng: Rng) -> list[Row]:
    draw, bound = KINDS[kind]
    p, null = np.ones((reps, 2)), np.ones(reps)
    for at in range(reps):
        groups = grouped(count, rng)
        p[at] = judged(Sample(draw(groups, alike, MARGIN, rng)[None], bound, groups=groups), MARGIN)
        if kind != "0/1 losses":
            null[at] = Sample(draw(groups, alike, 0.0, rng)[None], bound, groups=groups).above(0.0) or 0.0
    design = f"{kind}, {count} groups, correlation {alike:g}"
    shares = {"false costs": p[:, 0], "false safe": p[:, 1], "false difference": null}
    return [
        Row(claim="effect over groups", design=design, figure=name, rate=float((one <= 0.05).mean()), high=WRONG,
            families=reps)
        for name, one in shares.items()
    ]  # fmt: skip


def score(count: int, alike: float, share: float, *, reps: int, rng: Rng) -> Row:
    """Coverage of the interval of a score."""
    held = 0
    for _ in range(reps):
        groups = grouped(count, rng)
        made = score_interval(losses(groups, alike, share, rng), bounded=True, groups=groups, unit="share")
        held += (made.low or 0.0) <= share <= (1.0 if made.high is None else made.high)
    return Row(
        claim="score over groups", design=f"{count} groups, correlation {alike:g}", figure=f"interval holds {share:g}",
        rate=held / reps, low=0.94, families=reps,
    )  # fmt: skip


def power(kind: str, count: int, alike: float, *, reps: int, rng: Rng) -> Row:
    """Power to see a difference, beside a test that knows the variance of the mean and uses equal weights."""
    draw, bound = KINDS[kind]
    samples, plain = ([grouped(count, rng) for _ in range(many)] for many in (reps, 4 * reps))
    error = float(np.std([draw(groups, alike, 0.0, rng).mean() for groups in plain]))
    found = oracle = 0
    for groups in samples:
        values = draw(groups, alike, 3.0 * error, rng)
        found += (Sample(values[None], bound, groups=groups).above(0.0) or 0.0) <= 0.05
        oracle += abs(values.mean() / error) >= stats.t.isf(0.025, count - 1)
    return Row(
        claim="power over groups", design=f"{kind}, {count} groups, correlation {alike:g}",
        figure="power less the oracle's", rate=(found - oracle) / reps, low=-0.05, families=reps,
        also=(("oracle", oracle / reps),),
    )  # fmt: skip


TEMPLATES, INSTANCES, APART = 20, 50, 0.12
"""Of the recorded answers: two systems that are equal over templates, and differ on each by as much."""

LENS_RUNS, LENS_WRONG = 60, 3


def recorded(reps: int, *, rng: Rng) -> Row:
    """``wheeltap lens`` on two files whose items have groups: how often it calls equal systems different."""
    wrong = cannot = 0
    for _ in range(reps):
        group = np.repeat(np.arange(TEMPLATES), INSTANCES)
        solved, apart = rng.beta(2.0, 2.0, TEMPLATES)[group], rng.normal(0.0, APART, TEMPLATES)[group]
        with TemporaryDirectory() as folder:
            files = [Path(folder) / f"{name}.jsonl" for name in ("first", "second")]
            for file, sign in zip(files, (1.0, -1.0), strict=True):
                right = rng.random(len(group)) < np.clip(solved + sign * apart, 0.0, 1.0)
                rows = [
                    {"id": f"t{of}-{at}", "group": f"t{of}", "correct": bool(one)}
                    for at, (of, one) in enumerate(zip(group, right, strict=True))
                ]
                file.write_text("\n".join(map(json.dumps, rows)))
            store = Path(folder) / "answers.wheeltap"
            imported([read(file) for file in files]).put(store)
            said = judge(store).record.headline
        wrong += re.search("is better|may differ", said, re.IGNORECASE) is not None
        cannot += re.search("cannot tell", said, re.IGNORECASE) is not None
    return Row(
        claim="wheeltap lens, equal", design=f"{TEMPLATES} templates of {INSTANCES} items",
        figure="better or may differ", rate=wrong / reps, high=LENS_WRONG / LENS_RUNS, families=reps,
        also=(("cannot tell", cannot / reps),),
    )  # fmt: skip


def run(reps: int, *, counts: Sequence[int] = COUNTS) -> list[Row]:
    """All designs, ``reps`` samples each."""
    rng, rows = np.random.default_rng(11), list[Row]()
    for count in counts:
        for alike in ALIKE:
            for kind in KINDS:
                rows += _level(kind, count, alike, reps=reps, rng=rng)
            rows += [score(count, alike, share, reps=reps, rng=rng) for share in (0.8, 0.95)]
            if count >= 10:
                rows += [power(kind, count, alike, reps=reps, rng=rng) for kind in KINDS if kind != "0/1 losses"]
            if count >= 10 and alike:
                rows += [skewed(kind, count, alike, reps=reps, rng=rng) for kind in SKEWED]
    return [*rows, recorded(LENS_RUNS, rng=rng)]
